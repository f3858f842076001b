//! How a table is to be written: the knobs of [`TableWriter`](crate::TableWriter), plain data.
//!
//! Invariant: none of these is needed to read a table; every table says itself how it was written.

/// How the blocks of a table are compressed. The numbers are on disk: they only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// Stored as they are.
    None = 0,
    /// LZ4 block format; a block that would not shrink by an eighth is stored as it is.
    #[default]
    Lz4 = 1,
}

/// Which filter a table carries. The numbers are on disk: they only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum FilterKind {
    /// None: every lookup searches the index.
    None = 0,
    /// A Bloom filter of 512-bit blocks: one cache miss per lookup, read in place.
    #[default]
    Blocked = 1,
    /// The `bloomfilter` crate: fewer false positives per bit, several cache misses per lookup.
    Standard = 2,
}

/// Which layout data blocks take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum BlockLayoutChoice {
    /// Slot blocks; restart blocks where 8-byte key prefixes do not discriminate.
    #[default]
    Auto,
    /// Always slot blocks.
    Slot,
    /// Always restart blocks.
    Restart,
}

/// How a table is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TableOptions {
    /// A data block is closed before it grows beyond this, bytes before compression. A single
    /// larger entry makes a block of its own.
    pub block_bytes: usize,
    /// How blocks are compressed.
    pub compression: Compression,
    /// The filter.
    pub filter: FilterKind,
    /// Bits of the filter for each distinct user key, 1 to 64; more bits, fewer false positives.
    pub filter_bits_per_key: f64,
    /// An index larger than this is cut into partitions of at most about this many bytes, which
    /// are read when they are first needed.
    pub index_partition_bytes: usize,
    /// The layout of data blocks.
    pub layout: BlockLayoutChoice,
    /// Whether a table in which something expires says of each block when.
    pub block_expiries: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            compression: Compression::default(),
            filter: FilterKind::default(),
            filter_bits_per_key: 10.0,
            index_partition_bytes: 1 << 20,
            layout: BlockLayoutChoice::default(),
            block_expiries: true,
        }
    }
}

//! An open table: its index, filter, range tombstones and properties in memory, its blocks on
//! demand.
//!
//! Invariant: a lookup that finds its block cached allocates nothing and takes no lock: filter,
//! index, slot, block, each one or two cache misses. Sizes are checked against the length of the
//! file before anything is allocated. Opened by `table_cache`; searched by `lookup`, iterated by `table_iter`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use esker_base::filename::FileNumber;
use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result, SequenceNumber, Trailer};
use esker_vfs::fs::{FileSystem, RandomAccessFile};

use crate::block::{self, Block, PinnedValue};
use crate::block_cache::{BlockCache, BlockSlots, Room};
use crate::block_expiries::{BlockExpiries, SkipBlocks};
use crate::block_io::BlockFile;
use crate::filter::Filter;
use crate::format::{BlockHandle, Footer};
use crate::index::{IndexBlock, Leaf, TableIndex};
use crate::load_buffers;
use crate::new_blocks::NewBlocks;
use crate::properties::Properties;
use crate::table_parts::{Parts, block_damage};
use crate::warm_up::Warmth;

/// A record that a lookup found.
#[derive(Clone, Debug)]
pub struct TableHit {
    /// Sequence number and kind.
    pub trailer: Trailer,
    /// The value as stored (a value with expiry begins with its expiry).
    pub value: PinnedValue,
}

/// What a partition of an index takes, with the slots of its blocks.
fn leaf_bytes(leaf: &Leaf) -> usize {
    leaf.index.memory_bytes() + 8 * leaf.index.len()
}

/// An open table.
pub struct Table {
    pub(crate) file: Arc<dyn RandomAccessFile>,
    pub(crate) path: PathBuf,
    pub(crate) footer: Footer,
    pub(crate) index: TableIndex,
    pub(crate) filter: Filter,
    tombstones: FragmentedTombstones,
    properties: Properties,
    /// The sequence number that every record of a bulk-loaded table has, else 0.
    ingested_sequence: SequenceNumber,
    cache: Arc<BlockCache>,
    salt: usize,
    /// When the records of each block expire, once somebody has asked.
    block_expiries: OnceLock<BlockExpiries>,
    /// What the cache was told that the table takes.
    counted_bytes: AtomicUsize,
    pub(crate) warmth: Warmth,
}

impl Drop for Table {
    fn drop(&mut self) {
        self.cache.remove_table_bytes(*self.counted_bytes.get_mut());
        self.cache.release_fetched(self.warmth.fetched_bytes());
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("path", &self.path)
            .field("meta", &self.properties.meta)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Opens the table at `path`, which was written as `number`.
    ///
    /// # Errors
    /// [`Corruption`](esker_base::ErrorKind::Corruption) where the file is not such a table (a
    /// missing one included), [`Unsupported`](esker_base::ErrorKind::Unsupported) for a format of a
    /// later version, and I/O errors.
    pub fn open(
        fs: &dyn FileSystem,
        path: &Path,
        number: FileNumber,
        blocks: Arc<BlockCache>,
    ) -> Result<Self> {
        let file = open_file(fs, path)?;
        let file_bytes = file
            .len()
            .map_err(|source| Error::io("measure a table", path, source))?;
        let parts = Parts::read(&*file, path, number, file_bytes)?;
        let salt = blocks.next_salt();
        let index = if parts.footer.index_levels == 1 {
            let slots = BlockSlots::new(parts.index.len(), salt, Arc::clone(&blocks));
            TableIndex::Flat(Leaf {
                index: parts.index,
                slots,
            })
        } else {
            let leaves = (0..parts.index.len()).map(|_| OnceLock::new()).collect();
            TableIndex::Partitioned {
                top: parts.index,
                leaves,
            }
        };
        let table = Self {
            file,
            path: path.to_path_buf(),
            footer: parts.footer,
            index,
            filter: parts.filter,
            tombstones: parts.tombstones,
            properties: parts.properties,
            ingested_sequence: 0,
            cache: blocks,
            salt,
            block_expiries: OnceLock::new(),
            counted_bytes: AtomicUsize::new(0),
            warmth: Warmth::default(),
        };
        table.count_bytes(table.memory_bytes());
        Ok(table)
    }

    /// Where the blocks are cached.
    pub(crate) fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    /// Tells the cache of memory that the table takes until it is closed.
    fn count_bytes(&self, bytes: usize) {
        self.counted_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.cache.add_table_bytes(bytes);
    }

    /// Opens the table that the manifest describes as `meta`, and checks that it is that one.
    ///
    /// # Errors
    /// As [`Table::open`]; also Corruption where length, number or checksum differ from `meta`.
    pub fn open_checked(
        fs: &dyn FileSystem,
        path: &Path,
        meta: &TableMeta,
        blocks: Arc<BlockCache>,
    ) -> Result<Self> {
        let mut table = Self::open(fs, path, meta.number, blocks)?;
        let found = &table.properties.meta;
        if found.file_bytes != meta.file_bytes || found.checksum != meta.checksum {
            let message = format!(
                "a table of {} bytes with checksum {:016x} stands where the manifest has one of {} \
                 bytes with checksum {:016x}",
                found.file_bytes, found.checksum, meta.file_bytes, meta.checksum
            );
            return Err(Error::corruption(message).with_file(path));
        }
        if meta.ingested_sequence != 0 {
            table.place_at(meta.ingested_sequence)?;
        }
        Ok(table)
    }

    /// Gives every record of a bulk-loaded table its sequence number.
    fn place_at(&mut self, sequence: SequenceNumber) -> Result<()> {
        if self.properties.meta.largest_sequence != 0 {
            return Err(
                Error::corruption("a bulk-loaded table has sequence numbers of its own")
                    .with_file(&self.path),
            );
        }
        self.ingested_sequence = sequence;
        self.tombstones = at_sequence(&self.tombstones, sequence);
        Ok(())
    }

    /// The range tombstones.
    #[must_use]
    pub fn range_tombstones(&self) -> &FragmentedTombstones {
        &self.tombstones
    }

    /// The range tombstones as the file has them.
    pub(crate) fn stored_range_tombstones(&self) -> FragmentedTombstones {
        if self.ingested_sequence == 0 {
            return self.tombstones.clone();
        }
        at_sequence(&self.tombstones, 0)
    }

    /// What the table says of itself.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of memory that the table takes while it is open, cached blocks not counted.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let index_bytes = match &self.index {
            TableIndex::Flat(leaf) => leaf_bytes(leaf),
            TableIndex::Partitioned { top, leaves } => {
                let loaded = leaves.iter().filter_map(OnceLock::get);
                top.memory_bytes() + loaded.map(leaf_bytes).sum::<usize>()
            }
        };
        index_bytes + self.filter.memory_bytes() + self.tombstones.memory_bytes()
    }

    /// About how many bytes of the file's blocks come before `key`: for estimates of sizes and for
    /// cutting work into parts. A partitioned index answers to the partition if it cannot be read.
    #[must_use]
    pub fn approximate_offset(&self, key: &[u8]) -> u64 {
        let trailer = Trailer::from_raw(u64::MAX);
        let offset_in = |leaf: &Leaf, index: usize| match index < leaf.index.len() {
            true => leaf.index.handle(index).offset,
            false => leaf.index.end_offset(),
        };
        match &self.index {
            TableIndex::Flat(leaf) => offset_in(leaf, leaf.index.find(key, trailer)),
            TableIndex::Partitioned { top, leaves } => {
                let partition = top.find(key, trailer);
                match (partition < leaves.len()).then(|| self.leaf(partition)) {
                    Some(Ok(leaf)) => offset_in(leaf, leaf.index.find(key, trailer)),
                    Some(Err(_)) => {
                        self.properties.data_bytes * partition as u64 / leaves.len() as u64
                    }
                    None => self.properties.data_bytes,
                }
            }
        }
    }

    /// At most `at_most` keys, strictly ascending, that cut the table into parts of about equal
    /// size. Keys between which nothing can be cut (versions of one) count once.
    #[must_use]
    pub fn block_boundaries(&self, at_most: usize) -> Vec<Vec<u8>> {
        let (index, leaves) = match &self.index {
            TableIndex::Flat(leaf) => (&leaf.index, 1),
            TableIndex::Partitioned { top, leaves } => (top, leaves.len()),
        };
        let mut boundaries: Vec<Vec<u8>> = Vec::new();
        let mut sample = |index: &IndexBlock, wanted: usize| {
            let wanted = wanted.min(index.len());
            for part in 1..=wanted {
                boundaries.push(index.separator(index.len() * part / wanted - 1).0);
            }
        };
        if at_most <= leaves || leaves == 1 {
            sample(index, at_most);
        } else {
            for leaf in (0..leaves).filter_map(|leaf| self.leaf(leaf).ok()) {
                sample(&leaf.index, at_most / leaves);
            }
        }
        boundaries.dedup();
        boundaries
    }

    /// The trailer to look for among the stored ones.
    #[inline]
    pub(crate) fn to_stored(&self, trailer: Trailer) -> Trailer {
        if self.ingested_sequence == 0 {
            return trailer;
        }
        // Every stored sequence is 0 and stands for the ingested one.
        match trailer.sequence().cmp(&self.ingested_sequence) {
            std::cmp::Ordering::Less => Trailer::OLDEST,
            std::cmp::Ordering::Equal => Trailer::from_raw(trailer.raw() & 0xff),
            std::cmp::Ordering::Greater => Trailer::seek(0),
        }
    }

    /// The trailer that a stored one stands for.
    #[inline]
    pub(crate) fn to_shown(&self, trailer: Trailer) -> Trailer {
        Trailer::from_raw(trailer.raw() | self.ingested_sequence << 8)
    }

    /// The partition and the block in which the first record at or after (`key`, `trailer`) lies,
    /// or right behind it. `None` where there is none.
    #[inline]
    pub(crate) fn locate(&self, key: &[u8], trailer: Trailer) -> Result<Option<(usize, usize)>> {
        match &self.index {
            TableIndex::Flat(leaf) => {
                // Where the block hangs is asked for together with what says which block it is.
                let near = |first| leaf.slots.prefetch_some(first);
                let block = leaf.index.find_near(key, trailer, near);
                Ok((block < leaf.index.len()).then_some((0, block)))
            }
            TableIndex::Partitioned { top, .. } => {
                let partition = top.find(key, trailer);
                if partition == top.len() {
                    return Ok(None);
                }
                let leaf = &self.leaf(partition)?.index;
                // The partition's last separator is at or after the target: the top says so.
                Ok(Some((
                    partition,
                    leaf.find(key, trailer).min(leaf.len() - 1),
                )))
            }
        }
    }

    /// Number of partitions; 1 for a flat index.
    pub(crate) fn leaves(&self) -> usize {
        match &self.index {
            TableIndex::Flat(_) => 1,
            TableIndex::Partitioned { leaves, .. } => leaves.len(),
        }
    }

    /// Partition `index`, which is read if this is its first use.
    #[inline]
    pub(crate) fn leaf(&self, index: usize) -> Result<&Leaf> {
        match &self.index {
            TableIndex::Flat(leaf) => Ok(leaf),
            TableIndex::Partitioned { top, leaves } => match leaves[index].get() {
                Some(leaf) => Ok(leaf),
                None => self.load_leaf(top, &leaves[index], index),
            },
        }
    }

    #[cold]
    fn load_leaf<'a>(
        &'a self,
        top: &IndexBlock,
        slot: &'a OnceLock<Leaf>,
        index: usize,
    ) -> Result<&'a Leaf> {
        let handle = top.handle(index);
        let contents = self.block_file().read_block(handle)?;
        let damaged =
            |source: Error| block_damage("a partition of an index", source, handle, &self.path);
        let block = IndexBlock::decode(&contents, top.handle(0).offset).map_err(damaged)?;
        if block.len() == 0 {
            return Err(self
                .block_file()
                .damaged("a partition of an index is empty", handle.offset));
        }
        let salt = self.salt.wrapping_add(index);
        let slots = BlockSlots::new(block.len(), salt, Arc::clone(&self.cache));
        // Another thread may have been faster; then its partition is the one.
        Ok(slot.get_or_init(|| {
            let leaf = Leaf {
                index: block,
                slots,
            };
            self.count_bytes(leaf_bytes(&leaf));
            leaf
        }))
    }

    /// Whether a walk that skips `skip` need not read the data block at `offset`.
    pub(crate) fn skips_block(&self, offset: u64, skip: &SkipBlocks) -> Result<bool> {
        if matches!(skip, SkipBlocks::None) || self.properties.block_expiries.bytes == 0 {
            return Ok(false);
        }
        let expiries = match self.block_expiries.get() {
            Some(expiries) => expiries,
            None => {
                let handle = self.properties.block_expiries;
                let contents = self.block_file().read_block(handle)?;
                let damaged =
                    |source| block_damage("the expiries of blocks", source, handle, &self.path);
                let expiries = BlockExpiries::decode(&contents, self.properties.data_bytes);
                let expiries = expiries.map_err(damaged)?;
                // Another thread may have been faster.
                self.block_expiries.get_or_init(|| expiries)
            }
        };
        Ok(expiries.skips(offset, skip))
    }

    /// The file as blocks are read from it.
    #[inline]
    pub(crate) fn block_file(&self) -> BlockFile<'_> {
        BlockFile {
            file: &*self.file,
            path: &self.path,
            number: self.footer.number,
        }
    }

    /// Reads, checks and keeps block `index` of `leaf`.
    #[cold]
    pub(crate) fn load_block(&self, leaf: &Leaf, index: usize) -> Result<Block> {
        let handle = leaf.index.handle(index);
        let loaded = load_buffers::with(|stored, scratch| {
            let verified = self.block_file().read_verified(handle, stored)?;
            let mut room = leaf.slots.make_room(verified.content_bytes());
            let spare = room.as_mut().and_then(Room::take_spare);
            let fill = |bytes: &mut [u8]| verified.unpack_into(bytes);
            let made = spare
                .and_then(|spare| block::make_in(spare, verified.content_bytes(), fill))
                .unwrap_or_else(|| {
                    let contents = verified.unpack(scratch)?;
                    block::parse(contents, self.cache.block_memory())
                });
            made.map(|block| (block, room))
                .map_err(|error| error.with_file(&self.path).with_offset(handle.offset))
        });
        let (block, room) = loaded.map_err(|error| self.with_keys(error))?;
        self.warmth.note_miss();
        Ok(leaf.slots.insert_into(room, index, block))
    }

    /// Takes over the blocks that the table's writer kept, so that reads of it need not load them. Those
    /// of a table with another number of blocks are let go.
    ///
    /// # Errors
    /// I/O errors and damage of partitions of the index.
    pub fn adopt(&self, mut blocks: NewBlocks) -> Result<()> {
        if blocks.len() as u64 != self.properties.data_blocks {
            return Ok(());
        }
        let mut start = 0;
        for partition in 0..self.leaves() {
            if !blocks.keeps_some(start) {
                break;
            }
            let leaf = self.leaf(partition)?;
            blocks.fill(start, &leaf.slots);
            start += leaf.index.len();
        }
        Ok(())
    }

    /// Names the keys that may be concerned.
    #[cold]
    pub(crate) fn with_keys(&self, error: Error) -> Error {
        error.with_keys(&self.properties().meta.bounds)
    }

    /// Makes a block of its contents.
    pub(crate) fn parse_block(&self, contents: &[u8], handle: BlockHandle) -> Result<Block> {
        block::parse(contents, self.cache.block_memory())
            .map_err(|error| error.with_file(&self.path).with_offset(handle.offset))
    }
}

/// The same fragments, all deleted at `sequence`.
fn at_sequence(
    tombstones: &FragmentedTombstones,
    sequence: SequenceNumber,
) -> FragmentedTombstones {
    FragmentedTombstones::build(tombstones.iter().map(|(start, end, _)| RangeTombstone {
        start: start.to_vec(),
        end: end.to_vec(),
        sequence,
    }))
}

pub(crate) fn open_file(fs: &dyn FileSystem, path: &Path) -> Result<Arc<dyn RandomAccessFile>> {
    fs.open_read(path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::corruption("a table is missing")
                .with_file(path)
                .with_source(source)
        } else {
            Error::io("open a table", path, source)
        }
    })
}

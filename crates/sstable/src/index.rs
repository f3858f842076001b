//! The index of a table: which block can hold a key. One flat array of separators, or, for very
//! large tables, a top array over partitions that are such arrays themselves.
//!
//! A separator is an internal key: at or after every record of its block, and before every record
//! of the next one. It is as short as that allows, and has a trailer only where the next block goes
//! on with the same user key, so that the versions of one key may fill any number of blocks and a
//! lookup still reads one. In memory the separators' 8-byte prefixes (after what all of them have
//! in common) stand in an array of their own that is searched first.
//!
//! ```text
//! entries u32 | common bytes u32 | offset of the first block u64 | common bytes | entries
//! entry: (suffix length << 1 | continues) varint | suffix | [trailer u64, if it continues]
//!      | stored bytes of the block varint
//! ```
//!
//! Invariant: separators ascend strictly and blocks lie one after the other, inside the file;
//! decoding refuses anything else. Written by `index_builder`, searched by `table`.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use esker_base::coding::Decoder;
use esker_base::internal_key::{compare, key_prefix};
use esker_base::{Error, Result, Trailer};

use crate::block_cache::BlockSlots;
use crate::format::BlockHandle;

/// Prefixes from one sample to the next: two cache lines.
pub(crate) const SAMPLE_STEP: usize = 16;

/// An index block in memory.
#[derive(Debug)]
pub(crate) struct IndexBlock {
    common: Vec<u8>,
    /// The first eight bytes of each separator after the common ones.
    prefixes: Vec<u64>,
    /// Every [`SAMPLE_STEP`]th of `prefixes`, from the first on: a search goes through these, which
    /// stay in the nearest cache, and then through two lines of `prefixes` at once.
    samples: Vec<u64>,
    /// All separators after the common bytes, in a row.
    suffixes: Vec<u8>,
    suffix_ends: Vec<u32>,
    /// For each separator its trailer; empty where none has one. A separator without a trailer has
    /// [`Trailer::OLDEST`], which sorts after every record of its key.
    trailers: Vec<Trailer>,
    /// Where each block begins, and where the last one ends.
    offsets: Vec<u64>,
}

impl IndexBlock {
    /// Reads the contents of an index block; the blocks it leads to end at `limit` or before.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn decode(bytes: &[u8], limit: u64) -> Result<Self> {
        let damaged = || Error::corruption("an index contradicts itself");
        let mut decoder = Decoder::new(bytes);
        let entries = decoder.u32()? as usize;
        let common_bytes = decoder.u32()? as usize;
        let mut offset = decoder.u64()?;
        let common = decoder.take(common_bytes)?.to_vec();
        // An entry takes two bytes at least.
        let expected = entries.min(bytes.len() / 2);
        let mut index = Self {
            common,
            prefixes: Vec::with_capacity(expected),
            samples: Vec::with_capacity(expected.div_ceil(SAMPLE_STEP)),
            suffixes: Vec::with_capacity(bytes.len()),
            suffix_ends: Vec::with_capacity(expected),
            trailers: Vec::new(),
            offsets: Vec::with_capacity(expected + 1),
        };
        index.offsets.push(offset);
        for _ in 0..entries {
            let head = decoder.varint()?;
            let suffix = decoder.take(usize::try_from(head >> 1).map_err(|_| damaged())?)?;
            let trailer = match head & 1 {
                0 => Trailer::OLDEST,
                _ => Trailer::from_raw(decoder.u64()?),
            };
            let block_bytes = decoder.varint()?;
            offset = offset
                .checked_add(block_bytes)
                .filter(|&end| end <= limit)
                .ok_or_else(damaged)?;
            index.push(suffix, trailer, offset)?;
        }
        if !decoder.is_empty() {
            return Err(damaged());
        }
        index.suffixes.shrink_to_fit();
        Ok(index)
    }

    fn push(&mut self, suffix: &[u8], trailer: Trailer, end: u64) -> Result<()> {
        let entries = self.prefixes.len();
        if let Some(last) = entries.checked_sub(1) {
            let order = compare(self.suffix(last), self.trailer(last), suffix, trailer);
            if order != Ordering::Less {
                return Err(Error::corruption(
                    "the separators of an index do not ascend",
                ));
            }
        }
        if trailer != Trailer::OLDEST && self.trailers.is_empty() {
            self.trailers.resize(entries, Trailer::OLDEST);
            self.trailers.push(trailer);
        } else if !self.trailers.is_empty() {
            self.trailers.push(trailer);
        }
        let prefix = key_prefix(suffix);
        if entries.is_multiple_of(SAMPLE_STEP) {
            self.samples.push(prefix);
        }
        self.prefixes.push(prefix);
        self.suffixes.extend_from_slice(suffix);
        let suffix_end = u32::try_from(self.suffixes.len())
            .map_err(|_| Error::corruption("an index is larger than any that was written"))?;
        self.suffix_ends.push(suffix_end);
        self.offsets.push(end);
        Ok(())
    }

    /// Number of blocks.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Where block `index` lies.
    #[inline]
    pub(crate) fn handle(&self, index: usize) -> BlockHandle {
        let offset = self.offsets[index];
        BlockHandle {
            offset,
            bytes: self.offsets[index + 1] - offset,
        }
    }

    /// Where the last block ends.
    pub(crate) fn end_offset(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_default()
    }

    fn suffix(&self, index: usize) -> &[u8] {
        let start = match index.checked_sub(1) {
            Some(previous) => self.suffix_ends[previous] as usize,
            None => 0,
        };
        &self.suffixes[start..self.suffix_ends[index] as usize]
    }

    fn trailer(&self, index: usize) -> Trailer {
        self.trailers.get(index).copied().unwrap_or(Trailer::OLDEST)
    }

    /// The separator of block `index`.
    pub(crate) fn separator(&self, index: usize) -> (Vec<u8>, Trailer) {
        (
            [self.common.as_slice(), self.suffix(index)].concat(),
            self.trailer(index),
        )
    }

    /// Whether blocks `index` and `index + 1` are there and share no user key.
    pub(crate) fn parts_keys(&self, index: usize) -> bool {
        index + 1 < self.len() && self.trailer(index) == Trailer::OLDEST
    }

    /// The block in which the first record at or after (`key`, `trailer`) lies, or right behind
    /// it; the number of blocks where there is none.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], trailer: Trailer) -> usize {
        self.find_near(key, trailer, |_| ())
    }

    /// As [`IndexBlock::find`]; `near` is told the first of at most [`SAMPLE_STEP`] blocks among which it
    /// is, mostly, before memory is asked for what says which.
    #[inline]
    pub(crate) fn find_near(&self, key: &[u8], trailer: Trailer, near: impl Fn(usize)) -> usize {
        let suffix = match self.common.as_slice() {
            // Nothing to compare, which is not free (`slot_block`).
            [] => key,
            common => match key.strip_prefix(common) {
                Some(suffix) => suffix,
                None if key < common => return 0,
                None => return self.len(),
            },
        };
        let wanted = key_prefix(suffix);
        let first = self.first_not_below(wanted, near);
        match &self.prefixes[first..] {
            [one, rest @ ..] if *one == wanted => {
                let run = match rest.first() {
                    Some(next) if *next == wanted => {
                        1 + rest.partition_point(|&prefix| prefix == wanted)
                    }
                    _ => 1,
                };
                self.find_among_equals(first, first + run, suffix, trailer)
            }
            _ => first,
        }
    }

    /// The first prefix that is not below `wanted`.
    #[inline]
    fn first_not_below(&self, wanted: u64, near: impl Fn(usize)) -> usize {
        let Some(sample) = self
            .samples
            .partition_point(|&prefix| prefix < wanted)
            .checked_sub(1)
        else {
            return 0;
        };
        let start = sample * SAMPLE_STEP;
        near(start);
        let end = self.prefixes.len().min(start + SAMPLE_STEP);
        let below = self.prefixes[start..end]
            .iter()
            .map(|&prefix| usize::from(prefix < wanted));
        start + below.sum::<usize>()
    }

    fn find_among_equals(
        &self,
        mut low: usize,
        mut high: usize,
        suffix: &[u8],
        trailer: Trailer,
    ) -> usize {
        while low < high {
            let middle = low + (high - low) / 2;
            let order = compare(self.suffix(middle), self.trailer(middle), suffix, trailer);
            if order == Ordering::Less {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    /// Bytes of memory that the index takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.common.capacity()
            + 8 * (self.prefixes.capacity() + self.samples.capacity())
            + 8 * (self.trailers.capacity() + self.offsets.capacity())
            + self.suffixes.capacity()
            + 4 * self.suffix_ends.capacity()
    }
}

/// An index block over data blocks, and where those are cached.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// The separators.
    pub(crate) index: IndexBlock,
    /// The cached blocks.
    pub(crate) slots: Arc<BlockSlots>,
}

/// The index of an open table.
#[derive(Debug)]
pub(crate) enum TableIndex {
    /// All separators at once.
    Flat(Leaf),
    /// Separators of partitions, which are read when they are first needed and stay.
    Partitioned {
        /// The separators of the partitions.
        top: IndexBlock,
        /// The partitions.
        leaves: Box<[OnceLock<Leaf>]>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_builder::IndexBuilder;
    use esker_base::ValueKind;
    use proptest::prelude::*;

    fn flat(builder: &IndexBuilder) -> IndexBlock {
        let mut contents = Vec::new();
        let written = builder.write(usize::MAX, |bytes| {
            contents = bytes.to_vec();
            Ok(BlockHandle::default())
        });
        assert_eq!(written.unwrap().1, 1);
        IndexBlock::decode(&contents, u64::MAX).unwrap()
    }

    proptest! {
        #[test]
        fn find_is_a_lower_bound(
            keys in proptest::collection::btree_set(
                (proptest::collection::vec(97u8..99, 0..12), 0u64..4), 1..60),
            probes in proptest::collection::vec(
                (proptest::collection::vec(96u8..100, 0..12), 0u64..4), 1..20),
            long in any::<bool>(),
        ) {
            let spell = |key: &[u8]| if long { [b"common/".as_slice(), key].concat() } else { key.to_vec() };
            // Sequence 0 stands for a separator without a trailer.
            let trailer = |sequence: u64| {
                (sequence > 0).then(|| Trailer::new(sequence, ValueKind::Value))
            };
            let mut separators: Vec<_> =
                keys.iter().map(|(key, s)| (spell(key), trailer(*s))).collect();
            let order = |t: Option<Trailer>| t.unwrap_or(Trailer::OLDEST);
            separators.sort_by(|a, b| compare(&a.0, order(a.1), &b.0, order(b.1)));
            let mut builder = IndexBuilder::default();
            for (place, (key, trailer)) in separators.iter().enumerate() {
                builder.add(key, *trailer, 10 + place as u64);
            }
            let index = flat(&builder);
            prop_assert_eq!(index.len(), separators.len());
            prop_assert_eq!(index.handle(0), BlockHandle { offset: 0, bytes: 10 });
            for (key, sequence) in &probes {
                let (key, target) = (spell(key), Trailer::seek(*sequence));
                let expected = separators
                    .iter()
                    .position(|s| compare(&s.0, order(s.1), &key, target) != Ordering::Less)
                    .unwrap_or(separators.len());
                prop_assert_eq!(index.find(&key, target), expected);
            }
        }

        #[test]
        fn any_bytes_give_an_index_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            entries in 0u32..10,
            common in 0u32..10,
            probe: Vec<u8>,
        ) {
            let _ = IndexBlock::decode(&bytes, 1000);
            let mut likely = entries.to_le_bytes().to_vec();
            likely.extend_from_slice(&common.to_le_bytes());
            likely.extend_from_slice(&0u64.to_le_bytes());
            likely.extend_from_slice(&bytes);
            if let Ok(index) = IndexBlock::decode(&likely, 1000) {
                let _ = index.find(&probe, Trailer::seek(1));
                prop_assert!(index.end_offset() <= 1000);
            }
        }
    }
}

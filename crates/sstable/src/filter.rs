//! Filters: which keys a table certainly does not have. One interface, several inhabitants.
//!
//! A filter is made from the hashes of the distinct user keys
//! ([`key_hash`](esker_base::checksum::key_hash)), so that a lookup hashes its key once for all
//! tables. `Blocked` is a Bloom filter whose probes for one key all lie in one 64-byte line (Putze,
//! Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007); it is read in place.
//! `Standard` is the `bloomfilter` crate. The last byte of a filter block says which one it is.
//!
//! Invariant: a key that was added always passes; any bytes give a filter or an error, never a
//! panic. Written by `table_writer`, asked by `table`. The only place that names the crate.

use bloomfilter::Bloom;
use esker_base::{Error, Result};
use esker_prefetch::prefetch_read;

use crate::options::FilterKind;

/// Bytes of a line of the blocked filter: a cache line.
const LINE_BYTES: usize = 64;
/// The number of probes is stored in a byte and stays below this.
const MAX_PROBES: u8 = 16;
/// Bytes of the `bloomfilter` crate's header in front of its bits.
const STANDARD_HEADER_BYTES: usize = 45;
/// The crate's hash keys. Fixed, so that equal tables have equal bytes; the halves differ, because
/// with equal ones its second hash repeats the first.
const STANDARD_SEED: [u8; 32] = *b"esker filter one.esker filter 2.";

/// Hashes are collected in pieces of so many, 64 KiB. One piece that grows would be copied each time, and both are
/// there meanwhile: 12 MiB for a table of half a million keys.
const PIECE_HASHES: usize = 8 << 10;

/// Collects hashes and encodes the filter.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    kind: FilterKind,
    bits_per_key: f64,
    /// All but the last one full.
    pieces: Vec<Vec<u64>>,
}

impl FilterBuilder {
    /// A builder; `bits_per_key` is between 1 and 64.
    pub(crate) fn new(kind: FilterKind, bits_per_key: f64) -> Self {
        Self {
            kind,
            bits_per_key,
            pieces: Vec::new(),
        }
    }

    /// Adds the hash of a key that was not added before.
    #[inline]
    pub(crate) fn add(&mut self, hash: u64) {
        if self.kind == FilterKind::None {
            return;
        }
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE_HASHES => piece.push(hash),
            _ => self.begin_piece(hash),
        }
    }

    #[cold]
    fn begin_piece(&mut self, hash: u64) {
        // The first one grows, for small tables.
        let mut piece = match self.pieces.is_empty() {
            true => Vec::new(),
            false => Vec::with_capacity(PIECE_HASHES),
        };
        piece.push(hash);
        self.pieces.push(piece);
    }

    /// How many keys were added.
    fn keys(&self) -> usize {
        let last = self.pieces.last().map_or(0, Vec::len);
        self.pieces.len().saturating_sub(1) * PIECE_HASHES + last
    }

    /// About how many bytes the filter will take.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        (self.keys() as f64 * self.bits_per_key / 8.0) as u64
    }

    /// The contents of the filter block; `None` where there is no filter or no key.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        let keys = self.keys();
        if keys == 0 {
            return None;
        }
        let bits = (keys as f64 * self.bits_per_key).ceil();
        let hashes = self.pieces.iter().flatten().copied();
        match self.kind {
            FilterKind::None => None,
            FilterKind::Blocked => Some(encode_blocked(hashes, bits, self.bits_per_key)),
            FilterKind::Standard => encode_standard(hashes, keys, bits),
        }
    }
}

fn encode_blocked(hashes: impl Iterator<Item = u64>, bits: f64, bits_per_key: f64) -> Vec<u8> {
    let lines = ((bits / 512.0).ceil() as usize).max(1);
    // Fewer probes than the ln 2 per bit of an unblocked filter: lines fill unevenly.
    let probes = ((bits_per_key * 0.6).round() as u8).clamp(1, MAX_PROBES);
    let mut out = Vec::with_capacity(lines * LINE_BYTES + 2);
    out.resize(lines * LINE_BYTES, 0);
    for hash in hashes {
        let start = line_of(hash, lines) * LINE_BYTES;
        let line = &mut out[start..start + LINE_BYTES];
        for bit in probes_of(hash, probes) {
            line[bit / 8] |= 1 << (bit % 8);
        }
    }
    out.push(probes);
    out.push(FilterKind::Blocked as u8);
    out
}

fn encode_standard(hashes: impl Iterator<Item = u64>, keys: usize, bits: f64) -> Option<Vec<u8>> {
    let bytes = ((bits / 8.0).ceil() as usize).max(1);
    let mut bloom = Bloom::<u64>::new_with_seed(bytes, keys, &STANDARD_SEED).ok()?;
    for hash in hashes {
        bloom.set(&hash);
    }
    let mut out = bloom.into_bytes();
    out.push(FilterKind::Standard as u8);
    Some(out)
}

/// Which line a hash belongs to: its upper half, scaled to the number of lines.
#[inline]
fn line_of(hash: u64, lines: usize) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

/// The bits of its line that a hash sets: nine bits each of successive products of its lower half.
#[inline]
fn probes_of(hash: u64, probes: u8) -> impl Iterator<Item = usize> {
    let mut word = hash as u32;
    (0..probes).map(move |_| {
        word = word.wrapping_mul(0x9e37_79b9);
        (word >> 23) as usize
    })
}

/// The filter of an open table.
#[derive(Debug)]
pub(crate) enum Filter {
    /// Everything passes.
    None,
    /// See [`FilterKind::Blocked`].
    Blocked(BlockedFilter),
    /// See [`FilterKind::Standard`].
    Standard(Box<Bloom<u64>>),
}

/// Lines of 512 bits, in the memory they were read into.
#[derive(Debug)]
pub(crate) struct BlockedFilter {
    bytes: Vec<u8>,
    /// Where the first line begins: at a multiple of a cache line.
    start: usize,
    lines: usize,
    probes: u8,
}

impl Filter {
    /// Reads the contents of a filter block.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn decode(mut bytes: Vec<u8>) -> Result<Self> {
        let damaged = || Error::corruption("a filter contradicts its own lengths");
        match bytes.pop() {
            Some(1) => {
                let probes = bytes.pop().unwrap_or_default();
                let lines = bytes.len() / LINE_BYTES;
                let fits = lines > 0 && bytes.len() == lines * LINE_BYTES;
                if !fits || !(1..=MAX_PROBES).contains(&probes) || lines > u32::MAX as usize {
                    return Err(damaged());
                }
                Ok(Self::Blocked(BlockedFilter::align(bytes, lines, probes)))
            }
            Some(2) => {
                if bytes.len() <= STANDARD_HEADER_BYTES {
                    return Err(damaged());
                }
                let bloom = Bloom::from_bytes(bytes).map_err(|_| damaged())?;
                if !(1..=64).contains(&bloom.number_of_hash_functions()) {
                    return Err(damaged());
                }
                Ok(Self::Standard(Box::new(bloom)))
            }
            _ => Err(Error::corruption("a filter is of no known kind")),
        }
    }

    /// Which filter it is.
    pub(crate) fn kind(&self) -> FilterKind {
        match self {
            Self::None => FilterKind::None,
            Self::Blocked(_) => FilterKind::Blocked,
            Self::Standard(_) => FilterKind::Standard,
        }
    }

    /// Bytes of memory that the filter takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Blocked(filter) => filter.bytes.capacity(),
            Self::Standard(bloom) => bloom.as_slice().len(),
        }
    }

    /// Begins to load what the answer for this hash needs.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Self::Blocked(filter) = self {
            prefetch_read(&filter.bytes[filter.line_at(hash)]);
        }
    }

    /// Whether a key with this hash may have been added.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        match self {
            Self::None => true,
            Self::Blocked(filter) => filter.may_contain(hash),
            Self::Standard(bloom) => bloom.check(&hash),
        }
    }
}

impl BlockedFilter {
    /// Moves the lines to a cache line's boundary, so that a probe costs one line and not two.
    fn align(mut bytes: Vec<u8>, lines: usize, probes: u8) -> Self {
        let length = bytes.len();
        bytes.reserve_exact(LINE_BYTES);
        let start = bytes.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES);
        bytes.resize(length + start, 0);
        bytes.copy_within(..length, start);
        Self {
            bytes,
            start,
            lines,
            probes,
        }
    }

    /// Where the line that a hash belongs to begins.
    #[inline]
    fn line_at(&self, hash: u64) -> usize {
        self.start + line_of(hash, self.lines) * LINE_BYTES
    }

    #[inline]
    fn may_contain(&self, hash: u64) -> bool {
        let Some(line) = self.bytes[self.line_at(hash)..].first_chunk::<LINE_BYTES>() else {
            return true;
        };
        // Without branches: a mispredicted one costs more than the remaining probes.
        probes_of(hash, self.probes).fold(1, |all, bit| all & (line[bit / 8] >> (bit % 8))) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::checksum::key_hash;
    use proptest::prelude::*;

    fn hash(number: u64) -> u64 {
        key_hash(&number.to_be_bytes())
    }

    fn filter(kind: FilterKind, bits_per_key: f64, keys: u64) -> Filter {
        let mut builder = FilterBuilder::new(kind, bits_per_key);
        (0..keys).for_each(|number| builder.add(hash(number)));
        Filter::decode(builder.finish().unwrap()).unwrap()
    }

    #[test]
    fn what_was_added_passes_and_little_else_does() {
        // (kind, bits a key, false positives allowed of 10,000)
        let cases = [
            (FilterKind::Blocked, 10.0, 150),
            (FilterKind::Blocked, 16.0, 30),
            (FilterKind::Blocked, 1.0, 7000),
            (FilterKind::Standard, 10.0, 130),
            (FilterKind::Standard, 16.0, 20),
        ];
        for (kind, bits_per_key, allowed) in cases {
            for keys in [100, 20_000] {
                let filter = filter(kind, bits_per_key, keys);
                assert_eq!(filter.kind(), kind);
                assert!((0..keys).all(|number| filter.may_contain(hash(number))));
                let passed = (1 << 40..(1 << 40) + 10_000)
                    .filter(|&number| filter.may_contain(hash(number)))
                    .count();
                assert!(
                    passed <= allowed,
                    "{kind:?} {bits_per_key} {keys}: {passed} passed"
                );
            }
        }
    }

    #[test]
    fn lines_begin_at_cache_lines() {
        for keys in [1, 7, 1000] {
            let Filter::Blocked(filter) = filter(FilterKind::Blocked, 10.0, keys) else {
                panic!("not blocked");
            };
            let address = filter.bytes[filter.start..].as_ptr() as usize;
            assert_eq!(address % LINE_BYTES, 0);
        }
    }

    #[test]
    fn nothing_to_filter_is_no_filter() {
        assert!(
            FilterBuilder::new(FilterKind::Blocked, 10.0)
                .finish()
                .is_none()
        );
        let mut builder = FilterBuilder::new(FilterKind::None, 10.0);
        builder.add(1);
        assert!(builder.finish().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_filter_or_an_error(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            kind in 0u8..4,
            hash: u64,
        ) {
            bytes.push(kind);
            if let Ok(filter) = Filter::decode(bytes) {
                let _ = filter.may_contain(hash);
            }
        }

        #[test]
        fn mutated_filters_give_a_filter_or_an_error(
            standard: bool,
            at: prop::sample::Index,
            value: u8,
            cut: Option<prop::sample::Index>,
        ) {
            let kind = if standard { FilterKind::Standard } else { FilterKind::Blocked };
            let mut builder = FilterBuilder::new(kind, 10.0);
            (0..60).for_each(|number| builder.add(hash(number)));
            let mut bytes = builder.finish().unwrap();
            let index = at.index(bytes.len());
            bytes[index] = value;
            if let Some(cut) = cut {
                let last = bytes.pop().unwrap();
                bytes.truncate(cut.index(bytes.len()));
                bytes.push(last);
            }
            if let Ok(filter) = Filter::decode(bytes) {
                for number in 0..100 {
                    let _ = filter.may_contain(hash(number));
                }
            }
        }
    }
}

//! The slot layout of a data block: an array of 8-byte key prefixes, each with the offset of its
//! entry, and the entries one after the other. A lookup touches the few lines of the array, which
//! it reads independently of each other, and one entry.
//!
//! ```text
//! layout u8 = 1 | flags u8 | 0 u16 | entries u32 | common bytes u32 | [trailer u64, if uniform]
//! | common bytes | slot for each entry | entries
//! slot: prefix u64 | offset u16 (u32 if wide)
//! entry: suffix length varint | suffix bytes from the ninth on | [trailer u64, unless uniform]
//!      | value, to the next entry
//! ```
//!
//! The common bytes begin every user key of the block; what follows them is an entry's suffix. Its
//! first eight bytes (padded with zeros), read as a big-endian number, are its prefix and stand in
//! the slot alone. Offsets count from the first entry. Specified in `docs/format/block.md`.
//!
//! Invariant: a [`SlotShape`] exists only for bytes that [`SlotShape::parse`] has walked from end
//! to end, so that the accessors, given those bytes, never leave them. Used by `block` (lookups),
//! `block_iter` and `block_builder`; searched in `search`.

mod search;

use std::ops::Range;

use esker_base::coding::{get_varint, put_varint, u16_at, u32_at, u64_at};
use esker_base::internal_key::{TRAILER_BYTES, key_prefix};
use esker_base::limits::MAX_KEY_BYTES;
use esker_base::{Error, Result, Trailer};
use esker_prefetch::{LINE_BYTES, prefetch_lines};

use crate::block::{FLAG_UNIFORM_TRAILER, FLAG_WIDE_OFFSETS, LAYOUT_SLOT, offsets_are_wide};
use crate::block_builder::Entries;

const HEADER_BYTES: usize = 12;
const PREFIX_BYTES: usize = 8;
/// A slot whose offset takes two bytes, and one whose offset takes four.
const NARROW: usize = PREFIX_BYTES + 2;
const WIDE: usize = PREFIX_BYTES + 4;
/// At most so many lines of entries are asked for at once: about as many as may be on their way.
const TOUCHED_LINES: usize = 12;

/// Where the parts of a slot block lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotShape {
    entries: u32,
    slots_at: u32,
    entries_at: u32,
    common_bytes: u32,
    longest_suffix: u32,
    wide: bool,
    /// Whether the prefixes alone tell all keys apart.
    is_told_apart: bool,
    /// The trailer of all entries, if they share one.
    uniform: Option<Trailer>,
}

/// One entry, as ranges of the block's bytes.
#[derive(Clone, Debug)]
pub(crate) struct SlotEntry {
    /// The first eight bytes after the common ones, as a big-endian number.
    pub(crate) prefix: u64,
    /// Bytes of the key after the common ones.
    pub(crate) suffix_bytes: usize,
    /// Where the suffix's bytes from the ninth on lie.
    pub(crate) tail_at: usize,
    /// Sequence number and kind.
    pub(crate) trailer: Trailer,
    /// Where the value lies.
    pub(crate) value: Range<usize>,
}

/// The length of a suffix of 128 bytes or more, and how many bytes say so.
#[cold]
fn long_suffix(entry: &[u8]) -> (usize, usize) {
    // The walk over the block has seen this varint: the default is never taken.
    get_varint(entry).map_or((0, 1), |(value, bytes)| (value as usize, bytes))
}

impl SlotEntry {
    fn tail<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.tail_at..self.tail_at + self.suffix_bytes.saturating_sub(PREFIX_BYTES)]
    }
}

impl SlotShape {
    /// Checks the structure of a block.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::corruption("a slot block contradicts its own lengths");
        let (Some(entries), Some(common_bytes)) = (u32_at(bytes, 4), u32_at(bytes, 8)) else {
            return Err(damaged());
        };
        let flags = bytes[1];
        let wide = flags & FLAG_WIDE_OFFSETS != 0;
        let uniform = (flags & FLAG_UNIFORM_TRAILER != 0)
            .then(|| {
                u64_at(bytes, HEADER_BYTES)
                    .map(Trailer::from_raw)
                    .ok_or_else(damaged)
            })
            .transpose()?;
        let common_at = HEADER_BYTES as u64 + if uniform.is_some() { 8 } else { 0 };
        let slots_at = common_at + u64::from(common_bytes);
        let slot_bytes = if wide { WIDE } else { NARROW };
        let entries_at = slots_at + slot_bytes as u64 * u64::from(entries);
        let known_flags = flags & !(FLAG_WIDE_OFFSETS | FLAG_UNIFORM_TRAILER) == 0;
        if entries == 0
            || !known_flags
            || bytes[2..4] != [0, 0]
            || entries_at > bytes.len() as u64
            || common_bytes as usize > MAX_KEY_BYTES
            || u32::try_from(bytes.len()).is_err()
        {
            return Err(damaged());
        }
        let mut shape = Self {
            entries,
            slots_at: slots_at as u32,
            entries_at: entries_at as u32,
            common_bytes,
            longest_suffix: 0,
            wide,
            is_told_apart: true,
            uniform,
        };
        shape.walk(bytes).ok_or_else(damaged)?;
        Ok(shape)
    }

    /// Checks every entry, and learns what only they tell; `None` where one leaves its place.
    fn walk(&mut self, bytes: &[u8]) -> Option<()> {
        let trailer_bytes = if self.uniform.is_some() {
            0
        } else {
            TRAILER_BYTES
        };
        let entries_at = self.entries_at as usize;
        let mut longest = 0;
        let mut start = entries_at;
        let mut previous = 0u64;
        if self.offset(bytes, 0) != start {
            return None;
        }
        for index in 0..self.entries() {
            let prefix = self.prefix(bytes, index);
            let end = self.end(bytes, index);
            let entry = bytes.get(start..end)?;
            let (suffix_bytes, varint_bytes) = get_varint(entry)?;
            let suffix_bytes = usize::try_from(suffix_bytes).ok()?;
            let tail_bytes = suffix_bytes.saturating_sub(PREFIX_BYTES);
            let key_bytes = suffix_bytes.checked_add(self.common_bytes as usize)?;
            // The padding of a short suffix is zero, or two spellings would name one key.
            let is_padded = suffix_bytes >= PREFIX_BYTES || prefix << (8 * suffix_bytes) == 0;
            if key_bytes == 0
                || key_bytes > MAX_KEY_BYTES
                || prefix < previous
                || !is_padded
                || varint_bytes + tail_bytes + trailer_bytes > entry.len()
            {
                return None;
            }
            self.is_told_apart &= index == 0 || prefix != previous;
            previous = prefix;
            longest = longest.max(suffix_bytes as u32);
            start = end;
        }
        self.longest_suffix = longest;
        (start == bytes.len()).then_some(())
    }

    /// Number of entries.
    #[inline]
    pub(crate) fn entries(&self) -> usize {
        self.entries as usize
    }

    /// The bytes that begin every user key.
    #[inline]
    pub(crate) fn common<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let end = self.slots_at as usize;
        &bytes[end - self.common_bytes as usize..end]
    }

    /// Bytes of the longest suffix.
    #[inline]
    pub(crate) fn longest_suffix(&self) -> usize {
        self.longest_suffix as usize
    }

    /// Whether the prefixes alone tell that no two entries have the same user key.
    #[inline]
    pub(crate) fn is_told_apart(&self) -> bool {
        self.is_told_apart
    }

    #[inline]
    fn slots<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.slots_at as usize..self.entries_at as usize]
    }

    #[inline]
    fn slot_at(&self, index: usize) -> usize {
        self.slots_at as usize
            + if self.wide {
                WIDE * index
            } else {
                NARROW * index
            }
    }

    #[inline]
    fn prefix(&self, bytes: &[u8], index: usize) -> u64 {
        u64_at(bytes, self.slot_at(index)).unwrap_or_default()
    }

    #[inline]
    fn offset(&self, bytes: &[u8], index: usize) -> usize {
        let at = self.slot_at(index) + PREFIX_BYTES;
        let offset = if self.wide {
            u32_at(bytes, at).unwrap_or_default() as usize
        } else {
            usize::from(u16_at(bytes, at).unwrap_or_default())
        };
        offset + self.entries_at as usize
    }

    #[inline]
    fn end(&self, bytes: &[u8], index: usize) -> usize {
        if index + 1 < self.entries as usize {
            self.offset(bytes, index + 1)
        } else {
            bytes.len()
        }
    }

    /// The prefix of entry `index`, where it begins, and where it ends.
    #[inline(always)]
    fn place<const N: usize>(&self, bytes: &[u8], index: usize) -> (u64, usize, usize) {
        let offset_in = |slot: &[u8]| match N {
            WIDE => u32_at(slot, PREFIX_BYTES).unwrap_or_default() as usize,
            _ => usize::from(u16_at(slot, PREFIX_BYTES).unwrap_or_default()),
        };
        let entries_at = self.entries_at as usize;
        let at = self.slots_at as usize + N * index;
        if index + 1 < self.entries as usize {
            // Both slots at once: one check whether they lie in the block.
            let (slot, next) = bytes[at..at + 2 * N].split_at(N);
            let prefix = u64_at(slot, 0).unwrap_or_default();
            let (start, end) = (offset_in(slot), offset_in(next));
            (prefix, entries_at + start, entries_at + end)
        } else {
            let slot = &bytes[at..at + N];
            let prefix = u64_at(slot, 0).unwrap_or_default();
            (prefix, entries_at + offset_in(slot), bytes.len())
        }
    }

    /// Entry `index`, which is below [`SlotShape::entries`].
    // A walk spends most of its time here: a call would cost a tenth of it.
    #[inline(always)]
    pub(crate) fn entry(&self, bytes: &[u8], index: usize) -> SlotEntry {
        let (prefix, start, end) = match self.wide {
            true => self.place::<WIDE>(bytes, index),
            false => self.place::<NARROW>(bytes, index),
        };
        let (suffix_bytes, varint_bytes) = match bytes[start] {
            short @ 0..0x80 => (short as usize, 1),
            _ => long_suffix(&bytes[start..end]),
        };
        let tail_at = start + varint_bytes;
        let tail_end = tail_at + suffix_bytes.saturating_sub(PREFIX_BYTES);
        match self.uniform {
            Some(trailer) => SlotEntry {
                prefix,
                suffix_bytes,
                tail_at,
                trailer,
                value: tail_end..end,
            },
            None => {
                let raw = u64_at(bytes, tail_end).unwrap_or_default();
                let value = tail_end + TRAILER_BYTES..end;
                let trailer = Trailer::from_raw(raw);
                SlotEntry {
                    prefix,
                    suffix_bytes,
                    tail_at,
                    trailer,
                    value,
                }
            }
        }
    }

    /// Begins to load the entries from `first` to `last`, both below [`SlotShape::entries`], or as much
    /// of them as it is worth.
    #[inline]
    pub(crate) fn touch(&self, bytes: &[u8], first: usize, last: usize) {
        let (start, end) = (self.offset(bytes, first), self.end(bytes, last));
        // One more than they fill: they begin somewhere in a line.
        let lines = 2 + (end - start) / LINE_BYTES;
        prefetch_lines(&bytes[start..], lines.min(TOUCHED_LINES));
    }

    /// Whether the entries `a` and `b` have different user keys.
    #[inline]
    pub(crate) fn keys_differ(&self, bytes: &[u8], a: usize, b: usize) -> bool {
        if self.prefix(bytes, a) != self.prefix(bytes, b) {
            return true;
        }
        let (a, b) = (self.entry(bytes, a), self.entry(bytes, b));
        a.suffix_bytes != b.suffix_bytes || a.tail(bytes) != b.tail(bytes)
    }
}

/// Appends a slot block of `entries`, which are not empty.
pub(crate) fn encode(entries: &Entries, out: &mut Vec<u8>) {
    let common_bytes = entries.common_bytes();
    let uniform = entries.uniform_trailer();
    let start = out.len();
    out.extend_from_slice(&[LAYOUT_SLOT, 0, 0, 0]);
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&(common_bytes as u32).to_le_bytes());
    if let Some(trailer) = uniform {
        out.extend_from_slice(&trailer.raw().to_le_bytes());
    }
    if let Some(first) = entries.iter().next() {
        out.extend_from_slice(&first.key[..common_bytes]);
    }
    // An upper bound of the entries' bytes: how wide offsets are must be known before the entries.
    let wide = offsets_are_wide(entries.iter().fold(0, |sum, entry| {
        sum + 5 + entry.key.len() + TRAILER_BYTES + entry.value.len()
    }));
    out[start + 1] = if wide { FLAG_WIDE_OFFSETS } else { 0 }
        | if uniform.is_some() {
            FLAG_UNIFORM_TRAILER
        } else {
            0
        };
    let slot_bytes = if wide { WIDE } else { NARROW };
    let mut slot_at = out.len();
    out.resize(slot_at + slot_bytes * entries.len(), 0);
    let entries_at = out.len();
    for entry in entries.iter() {
        let suffix = &entry.key[common_bytes..];
        let offset = ((out.len() - entries_at) as u32).to_le_bytes();
        let slot = &mut out[slot_at..slot_at + slot_bytes];
        slot[..PREFIX_BYTES].copy_from_slice(&key_prefix(suffix).to_le_bytes());
        slot[PREFIX_BYTES..].copy_from_slice(&offset[..slot_bytes - PREFIX_BYTES]);
        slot_at += slot_bytes;
        put_varint(out, suffix.len() as u64);
        out.extend_from_slice(suffix.get(PREFIX_BYTES..).unwrap_or_default());
        if uniform.is_none() {
            out.extend_from_slice(&entry.trailer.raw().to_le_bytes());
        }
        out.extend_from_slice(entry.value);
    }
}

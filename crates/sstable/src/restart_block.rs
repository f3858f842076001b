//! The restart layout of a data block: keys store what differs from the key before, and every
//! sixteenth key is whole, so that a search can begin there. As in LevelDB (`doc/table_format.md`
//! of its repository), with the restart array at the front.
//!
//! ```text
//! layout u8 = 2 | flags u8 | restart interval u16 | entries u32 | [trailer u64, if uniform]
//! | offset u16 (u32 if wide), for each restart point | entries
//! entry: shared varint | unshared varint | value bytes varint | unshared key bytes
//!      | [trailer u64, unless uniform] | value
//! ```
//!
//! Invariant: a [`RestartShape`] exists only for bytes that [`RestartShape::parse`] has walked from
//! end to end: every entry lies inside, shares no more than the key before has, and stands where
//! its restart point says. Used by `block` (lookups), `block_iter` and `block_builder`.

use std::cmp::Ordering;
use std::ops::Range;

use esker_base::coding::{get_varint, put_varint, u16_at, u32_at, u64_at};
use esker_base::internal_key::{TRAILER_BYTES, compare};
use esker_base::limits::MAX_KEY_BYTES;
use esker_base::{Error, Result, Trailer};

use crate::block::{FLAG_UNIFORM_TRAILER, FLAG_WIDE_OFFSETS, LAYOUT_RESTART, offsets_are_wide};
use crate::block_builder::{Entries, shared_prefix_bytes};

const HEADER_BYTES: usize = 8;
/// Entries from one whole key to the next.
const RESTART_INTERVAL: usize = 16;
/// The largest interval that is read: it bounds what an iterator decodes at once.
const MAX_RESTART_INTERVAL: usize = 64;

/// Where the parts of a restart block lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestartShape {
    entries: u32,
    interval: u32,
    restarts_at: u32,
    entries_at: u32,
    wide: bool,
    /// The trailer of all entries, if they share one.
    uniform: Option<Trailer>,
}

/// One entry, as ranges of the block's bytes.
#[derive(Clone, Debug)]
pub(crate) struct RestartEntry {
    /// Bytes that the key has in common with the key before.
    pub(crate) shared_bytes: usize,
    /// Where the rest of the key lies.
    pub(crate) unshared: Range<usize>,
    /// Sequence number and kind.
    pub(crate) trailer: Trailer,
    /// Where the value lies. The next entry begins where it ends.
    pub(crate) value: Range<usize>,
}

impl RestartShape {
    /// Checks the structure of a block.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::corruption("a restart block contradicts its own lengths");
        let (Some(interval), Some(entries)) = (u16_at(bytes, 2), u32_at(bytes, 4)) else {
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
        if entries == 0
            || !(1..=MAX_RESTART_INTERVAL).contains(&usize::from(interval))
            || flags & !(FLAG_WIDE_OFFSETS | FLAG_UNIFORM_TRAILER) != 0
            || u32::try_from(bytes.len()).is_err()
        {
            return Err(damaged());
        }
        let restarts = u64::from(entries.div_ceil(u32::from(interval)));
        let restarts_at = HEADER_BYTES as u64 + if uniform.is_some() { 8 } else { 0 };
        let entries_at = restarts_at + restarts * if wide { 4 } else { 2 };
        if entries_at > bytes.len() as u64 {
            return Err(damaged());
        }
        let shape = Self {
            entries,
            interval: u32::from(interval),
            restarts_at: restarts_at as u32,
            entries_at: entries_at as u32,
            wide,
            uniform,
        };
        shape.walk(bytes).then_some(shape).ok_or_else(damaged)
    }

    /// Whether every entry lies where it should.
    fn walk(&self, bytes: &[u8]) -> bool {
        let mut at = self.entries_at as usize;
        let mut previous_bytes = 0;
        for index in 0..self.entries as usize {
            let is_restart = index % self.interval() == 0;
            if is_restart {
                previous_bytes = 0;
                if self.restart(bytes, index / self.interval()) != at {
                    return false;
                }
            }
            let Some(entry) = self.checked_entry(bytes, at) else {
                return false;
            };
            let key_bytes = entry.shared_bytes + entry.unshared.len();
            if entry.shared_bytes > previous_bytes || !(1..=MAX_KEY_BYTES).contains(&key_bytes) {
                return false;
            }
            previous_bytes = key_bytes;
            at = entry.value.end;
        }
        at == bytes.len()
    }

    /// The entry at `at`, if it lies inside `bytes`.
    #[inline]
    fn checked_entry(&self, bytes: &[u8], at: usize) -> Option<RestartEntry> {
        let rest = bytes.get(at..)?;
        let (lengths, head_bytes) = match rest {
            // Three lengths below 128 each: nearly always.
            [a @ 0..0x80, b @ 0..0x80, c @ 0..0x80, ..] => {
                ([usize::from(*a), usize::from(*b), usize::from(*c)], 3)
            }
            _ => long_lengths(rest)?,
        };
        let [shared_bytes, unshared_bytes, value_bytes] = lengths;
        let unshared_at = at + head_bytes;
        let unshared_end = unshared_at.checked_add(unshared_bytes)?;
        let (trailer, value_at) = match self.uniform {
            Some(trailer) => (trailer, unshared_end),
            None => {
                let raw = u64_at(bytes, unshared_end)?;
                (Trailer::from_raw(raw), unshared_end + TRAILER_BYTES)
            }
        };
        let value_end = value_at.checked_add(value_bytes)?;
        (value_end <= bytes.len() && shared_bytes <= MAX_KEY_BYTES).then_some(RestartEntry {
            shared_bytes,
            unshared: unshared_at..unshared_end,
            trailer,
            value: value_at..value_end,
        })
    }

    /// The entry at `at`, which is where an entry begins.
    #[inline]
    pub(crate) fn entry(&self, bytes: &[u8], at: usize) -> RestartEntry {
        // The walk has seen this entry: the default is never taken.
        self.checked_entry(bytes, at).unwrap_or(RestartEntry {
            shared_bytes: 0,
            unshared: 0..0,
            trailer: Trailer::OLDEST,
            value: bytes.len()..bytes.len(),
        })
    }

    /// Number of entries.
    #[inline]
    pub(crate) fn entries(&self) -> usize {
        self.entries as usize
    }

    /// Entries from one restart point to the next.
    #[inline]
    pub(crate) fn interval(&self) -> usize {
        self.interval as usize
    }

    fn restarts(&self) -> usize {
        self.entries().div_ceil(self.interval())
    }

    /// Where the entry of restart point `index` begins.
    #[inline]
    pub(crate) fn restart(&self, bytes: &[u8], index: usize) -> usize {
        let at = self.restarts_at as usize;
        let offset = if self.wide {
            u32_at(bytes, at + 4 * index).unwrap_or_default() as usize
        } else {
            usize::from(u16_at(bytes, at + 2 * index).unwrap_or_default())
        };
        offset + self.entries_at as usize
    }

    /// The restart point in whose interval the first record at or after (`key`, `trailer`) lies,
    /// or right behind it.
    pub(crate) fn interval_of(&self, bytes: &[u8], key: &[u8], trailer: Trailer) -> usize {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(bytes, self.restart(bytes, middle));
            if compare(&bytes[entry.unshared], entry.trailer, key, trailer) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1)
    }

    /// The newest record of `key` that sorts at or after `trailer`: its trailer, and where its
    /// value lies. Rebuilds no key: it knows how many bytes of `key` the current one shares.
    #[inline]
    pub(crate) fn find(
        &self,
        bytes: &[u8],
        key: &[u8],
        trailer: Trailer,
    ) -> Option<(Trailer, Range<usize>)> {
        let interval = self.interval_of(bytes, key, trailer);
        let mut at = self.restart(bytes, interval);
        // All keys so far were below `key` and had this many bytes in common with it.
        let mut matched = 0;
        // The target may lie right behind this interval: two of them are enough.
        let first = interval * self.interval();
        for _ in first..self.entries().min(first + self.interval() + 1) {
            let entry = self.entry(bytes, at);
            at = entry.value.end;
            if entry.shared_bytes > matched {
                // It differs from `key` where the one before did, so it is below as well.
                continue;
            }
            matched = entry.shared_bytes;
            let unshared = &bytes[entry.unshared];
            let wanted = &key[matched..];
            let common = shared_prefix_bytes(unshared, wanted);
            matched += common;
            let order = unshared[common..].first().cmp(&wanted[common..].first());
            match order.then_with(|| entry.trailer.cmp(&trailer)) {
                Ordering::Less => {}
                _ if order == Ordering::Equal => return Some((entry.trailer, entry.value)),
                _ => return None,
            }
        }
        None
    }
}

#[cold]
fn long_lengths(bytes: &[u8]) -> Option<([usize; 3], usize)> {
    let mut lengths = [0; 3];
    let mut at = 0;
    for length in &mut lengths {
        let (value, varint_bytes) = get_varint(&bytes[at..])?;
        *length = usize::try_from(value).ok()?;
        at += varint_bytes;
    }
    Some((lengths, at))
}

/// Appends a restart block of `entries`, which are not empty.
pub(crate) fn encode(entries: &Entries, out: &mut Vec<u8>) {
    let uniform = entries.uniform_trailer();
    let start = out.len();
    out.extend_from_slice(&[LAYOUT_RESTART, 0]);
    out.extend_from_slice(&(RESTART_INTERVAL as u16).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    if let Some(trailer) = uniform {
        out.extend_from_slice(&trailer.raw().to_le_bytes());
    }
    // An upper bound of the entries' bytes: how wide offsets are must be known before the entries.
    let wide = offsets_are_wide(entries.iter().fold(0, |sum, entry| {
        sum + 15 + entry.key.len() + TRAILER_BYTES + entry.value.len()
    }));
    out[start + 1] = if wide { FLAG_WIDE_OFFSETS } else { 0 }
        | if uniform.is_some() {
            FLAG_UNIFORM_TRAILER
        } else {
            0
        };
    let restarts_at = out.len();
    let offset_bytes = if wide { 4 } else { 2 };
    out.resize(
        restarts_at + offset_bytes * entries.len().div_ceil(RESTART_INTERVAL),
        0,
    );
    let entries_at = out.len();
    let mut previous: &[u8] = &[];
    for (index, entry) in entries.iter().enumerate() {
        if index % RESTART_INTERVAL == 0 {
            previous = &[];
            let offset = ((out.len() - entries_at) as u32).to_le_bytes();
            let at = restarts_at + offset_bytes * (index / RESTART_INTERVAL);
            out[at..at + offset_bytes].copy_from_slice(&offset[..offset_bytes]);
        }
        let shared_bytes = shared_prefix_bytes(previous, entry.key);
        put_varint(out, shared_bytes as u64);
        put_varint(out, (entry.key.len() - shared_bytes) as u64);
        put_varint(out, entry.value.len() as u64);
        out.extend_from_slice(&entry.key[shared_bytes..]);
        if uniform.is_none() {
            out.extend_from_slice(&entry.trailer.raw().to_le_bytes());
        }
        out.extend_from_slice(entry.value);
        previous = entry.key;
    }
}

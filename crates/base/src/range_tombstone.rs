//! Range tombstones: deletions of all keys of an interval, cut into disjoint fragments so that one
//! binary search says what covers a key.
//!
//! Invariant: fragments are sorted and disjoint, each start is below its end, each has at least one
//! sequence number, newest first and without repetition, and fragments that touch differ in their
//! sequences; so equal sets of tombstones have equal fragments. Only the last fragment can be
//! unbounded (an empty end); an empty start lies before every key.
//!
//! Bytes: `docs/format/range_tombstones.md`. Callers: memtable (what was deleted lately), sstable
//! (the range-tombstone block), compaction (retention and clipping), db (reads and scans).

use std::ops::Range;

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::internal_key::{MAX_SEQUENCE, SequenceNumber, key_prefix};
use crate::key_bounds::{KeyBounds, end_is_above, min_end};

/// One deletion of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// The first key deleted; empty: from the beginning.
    pub start: Vec<u8>,
    /// The first key not deleted any more; empty: no end.
    pub end: Vec<u8>,
    /// The sequence number of the deletion: it hides what is older.
    pub sequence: SequenceNumber,
}

/// The interval around a key within which the answer to "what deletes this?" stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The inclusive start; empty: from the beginning.
    pub start: &'a [u8],
    /// The exclusive end; empty: no end.
    pub end: &'a [u8],
    /// The newest visible tombstone that covers the interval; `None` in a gap, and where every
    /// tombstone is newer than what the reader may see.
    pub sequence: Option<SequenceNumber>,
}

/// Where a fragment's keys and sequences lie in the shared vectors. A start that equals the end
/// before it shares its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    start: Range<usize>,
    end: Range<usize>,
    sequences: Range<usize>,
}

/// A set of range tombstones as sorted disjoint fragments. Immutable once built.
///
/// ```
/// use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
/// let deletion = |start: &str, end: &str, sequence| RangeTombstone {
///     start: start.into(),
///     end: end.into(),
///     sequence,
/// };
/// let tombstones = FragmentedTombstones::build([deletion("b", "m", 5), deletion("d", "f", 9)]);
/// assert_eq!(tombstones.covering_sequence(b"e", 100), Some(9));
/// assert_eq!(tombstones.covering_sequence(b"e", 8), Some(5));
/// assert_eq!(tombstones.covering_sequence(b"m", 100), None);
/// let fragment = tombstones.fragment_at(b"c", 100);
/// assert_eq!((fragment.start, fragment.end, fragment.sequence), (&b"b"[..], &b"d"[..], Some(5)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FragmentedTombstones {
    /// The prefix of every fragment's start, side by side, so that a search stays in few cache
    /// lines and touches keys only where prefixes are equal.
    prefixes: Vec<u64>,
    spans: Vec<Span>,
    keys: Vec<u8>,
    sequences: Vec<SequenceNumber>,
}

impl FragmentedTombstones {
    /// Cuts `tombstones` into fragments. Those without a key (start not below end) are dropped.
    ///
    /// Takes O(n log n) and what the result takes: of n tombstones that all overlap, the middle
    /// fragment holds n sequences and so do its neighbours nearly.
    #[must_use]
    pub fn build(tombstones: impl IntoIterator<Item = RangeTombstone>) -> Self {
        let tombstones: Vec<_> = tombstones.into_iter().collect();
        let pieces = tombstones.iter().map(|tombstone| Piece {
            start: &tombstone.start,
            end: &tombstone.end,
            sequences: std::slice::from_ref(&tombstone.sequence),
        });
        sweep(
            pieces
                .filter(|piece| end_is_above(piece.end, piece.start))
                .collect(),
        )
    }

    /// One set that holds the tombstones of all `lists`.
    #[must_use]
    pub fn merge<'a>(lists: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut lists = lists.into_iter().filter(|list| !list.is_empty());
        let (Some(first), second) = (lists.next(), lists.next()) else {
            return Self::default();
        };
        let Some(second) = second else {
            return first.clone();
        };
        let pieces = [first, second]
            .into_iter()
            .chain(lists)
            .flat_map(Self::pieces);
        sweep(pieces.collect())
    }

    /// Whether nothing is deleted.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Number of fragments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Number of tombstones: of sequences, summed over the fragments.
    #[must_use]
    pub fn tombstone_count(&self) -> u64 {
        self.sequences.len() as u64
    }

    /// Bytes of memory that the set holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.prefixes.capacity() * size_of::<u64>()
            + self.spans.capacity() * size_of::<Span>()
            + self.keys.capacity()
            + self.sequences.capacity() * size_of::<SequenceNumber>()
    }

    /// The newest tombstone of at most `visible` that covers `key`.
    #[must_use]
    #[inline]
    pub fn covering_sequence(&self, key: &[u8], visible: SequenceNumber) -> Option<SequenceNumber> {
        if self.is_empty() {
            return None;
        }
        let span = &self.spans[self.starting_at_or_before(key).checked_sub(1)?];
        if end_is_above(self.end(span), key) {
            self.newest_visible(span, visible)
        } else {
            None
        }
    }

    /// The whole fragment, or the whole gap between fragments, that `key` lies in: an iterator
    /// that knows it need not ask again before it leaves it.
    #[must_use]
    pub fn fragment_at(&self, key: &[u8], visible: SequenceNumber) -> Fragment<'_> {
        let after = self.starting_at_or_before(key);
        let next_start = self
            .spans
            .get(after)
            .map_or(&[][..], |span| self.start(span));
        let Some(span) = after.checked_sub(1).map(|index| &self.spans[index]) else {
            return Fragment {
                start: &[],
                end: next_start,
                sequence: None,
            };
        };
        let (start, end) = (self.start(span), self.end(span));
        if end_is_above(end, key) {
            Fragment {
                start,
                end,
                sequence: self.newest_visible(span, visible),
            }
        } else {
            Fragment {
                start: end,
                end: next_start,
                sequence: None,
            }
        }
    }

    /// Every fragment in key order: start, exclusive end (empty: none), sequences newest first.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], &[SequenceNumber])> {
        self.pieces()
            .map(|piece| (piece.start, piece.end, piece.sequences))
    }

    /// What is deleted within `start` (empty: from the beginning) and `end`, exclusive (empty: no
    /// end), cut off there.
    #[must_use]
    pub fn clipped(&self, start: &[u8], end: &[u8]) -> Self {
        let mut clipped = Self::default();
        if !end_is_above(end, start) {
            return clipped;
        }
        let first = self.starting_at_or_before(start).saturating_sub(1);
        for span in &self.spans[first..] {
            let from = self.start(span).max(start);
            let to = min_end(self.end(span), end);
            if !end_is_above(end, from) {
                break;
            }
            if end_is_above(to, from) {
                clipped.push(from, to, self.sequences(span).iter().copied());
            }
        }
        clipped
    }

    /// The keys covered, from the first start to the last end; `None` where nothing is deleted.
    #[must_use]
    pub fn bounds(&self) -> Option<KeyBounds> {
        let (first, last) = (self.spans.first()?, self.spans.last()?);
        Some(KeyBounds::half_open(self.start(first), self.end(last)))
    }

    /// The largest sequence number of any tombstone.
    #[must_use]
    pub fn newest_sequence(&self) -> Option<SequenceNumber> {
        self.sequences.iter().copied().max()
    }

    /// The smallest sequence number of any tombstone.
    #[must_use]
    pub fn oldest_sequence(&self) -> Option<SequenceNumber> {
        self.sequences.iter().copied().min()
    }

    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.spans.len() as u64);
        let mut previous_end: Option<&[u8]> = None;
        for (start, end, sequences) in self.iter() {
            let touches = previous_end == Some(start);
            put_varint(out, (sequences.len() as u64) << 1 | u64::from(touches));
            if !touches {
                put_bytes(out, start);
            }
            put_bytes(out, end);
            let mut newer = None;
            for &sequence in sequences {
                put_varint(out, newer.map_or(sequence, |newer: u64| newer - sequence));
                newer = Some(sequence);
            }
            previous_end = Some(end);
        }
    }

    /// Reads what [`FragmentedTombstones::encode`] wrote; `bytes` must hold nothing else.
    ///
    /// # Errors
    /// [`Corruption`](crate::ErrorKind::Corruption), with the offset within `bytes`, where they
    /// are no such encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let mut decoded = Self::default();
        let mut sequences = Vec::new();
        let mut previous_end: Option<&[u8]> = None;
        for _ in 0..decoder.varint()? {
            let at = decoder.position() as u64;
            let damaged = |what: &'static str| Error::corruption(what).with_offset(at);
            let header = decoder.varint()?;
            let touches = header & 1 != 0;
            let start = match previous_end {
                Some(b"") => return Err(damaged("a range tombstone follows an unbounded one")),
                Some(end) if touches => end,
                None if touches => {
                    return Err(damaged(
                        "the first range tombstone claims to follow another",
                    ));
                }
                _ => decoder.bytes()?,
            };
            let end = decoder.bytes()?;
            if previous_end.is_some_and(|previous| start < previous) || !end_is_above(end, start) {
                return Err(damaged("range tombstones are out of order"));
            }
            decode_sequences(&mut decoder, header >> 1, &mut sequences)?;
            decoded.push(start, end, sequences.iter().copied());
            previous_end = Some(end);
        }
        if decoder.is_empty() {
            return Ok(decoded);
        }
        Err(
            Error::corruption("range tombstones are followed by other bytes")
                .with_offset(decoder.position() as u64),
        )
    }

    /// How many fragments start at or before `key`.
    #[inline]
    fn starting_at_or_before(&self, key: &[u8]) -> usize {
        let prefix = key_prefix(key);
        let first = self.prefixes.partition_point(|&other| other < prefix);
        if self.prefixes.get(first) != Some(&prefix) {
            return first;
        }
        let equal = self.prefixes[first..].partition_point(|&other| other == prefix);
        let candidates = &self.spans[first..first + equal];
        first + candidates.partition_point(|span| self.start(span) <= key)
    }

    #[inline]
    fn start(&self, span: &Span) -> &[u8] {
        &self.keys[span.start.clone()]
    }

    #[inline]
    fn end(&self, span: &Span) -> &[u8] {
        &self.keys[span.end.clone()]
    }

    #[inline]
    fn sequences(&self, span: &Span) -> &[SequenceNumber] {
        &self.sequences[span.sequences.clone()]
    }

    #[inline]
    fn newest_visible(&self, span: &Span, visible: SequenceNumber) -> Option<SequenceNumber> {
        let sequences = self.sequences(span);
        sequences
            .get(sequences.partition_point(|&sequence| sequence > visible))
            .copied()
    }

    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.spans.iter().map(|span| Piece {
            start: self.start(span),
            end: self.end(span),
            sequences: self.sequences(span),
        })
    }

    /// Appends a fragment that starts at or after the last one's end, or lengthens the last one if
    /// they touch and have the same sequences.
    fn push(&mut self, start: &[u8], end: &[u8], sequences: impl Iterator<Item = SequenceNumber>) {
        let first_sequence = self.sequences.len();
        self.sequences.extend(sequences);
        let mut start_range = self.keys.len()..self.keys.len() + start.len();
        if let Some(last) = self.spans.last_mut()
            && self.keys[last.end.clone()] == *start
        {
            let (before, new) = self.sequences.split_at(first_sequence);
            if before[last.sequences.clone()] == *new {
                self.sequences.truncate(first_sequence);
                self.keys.truncate(last.end.start);
                self.keys.extend_from_slice(end);
                last.end = last.end.start..self.keys.len();
                return;
            }
            start_range = last.end.clone();
        } else {
            self.keys.extend_from_slice(start);
        }
        let end_start = self.keys.len();
        self.keys.extend_from_slice(end);
        self.prefixes.push(key_prefix(start));
        self.spans.push(Span {
            start: start_range,
            end: end_start..self.keys.len(),
            sequences: first_sequence..self.sequences.len(),
        });
    }
}

/// Reads `count` sequences, newest first, into `sequences`.
fn decode_sequences(
    decoder: &mut Decoder<'_>,
    count: u64,
    sequences: &mut Vec<SequenceNumber>,
) -> Result<()> {
    let at = decoder.position() as u64;
    let damaged = |what: &'static str| Error::corruption(what).with_offset(at);
    sequences.clear();
    if count == 0 {
        return Err(damaged("a range tombstone has no sequence number"));
    }
    let newest = decoder.varint()?;
    if newest > MAX_SEQUENCE {
        return Err(damaged("a range tombstone's sequence number is too large"));
    }
    sequences.push(newest);
    let mut newer = newest;
    for _ in 1..count {
        let older = newer.checked_sub(decoder.varint()?);
        match older {
            Some(older) if older != newer => newer = older,
            _ => {
                return Err(damaged(
                    "a range tombstone's sequence numbers do not descend",
                ));
            }
        }
        sequences.push(newer);
    }
    Ok(())
}

/// An interval and the sequences of the tombstones that cover it, newest first.
#[derive(Clone, Copy)]
struct Piece<'a> {
    start: &'a [u8],
    end: &'a [u8],
    sequences: &'a [SequenceNumber],
}

/// The sequences that cover the interval being swept, newest first, each with how many pieces
/// brought it.
#[derive(Default)]
struct Active {
    counts: Vec<(SequenceNumber, usize)>,
}

impl Active {
    fn find(&self, sequence: SequenceNumber) -> Result<usize, usize> {
        self.counts
            .binary_search_by(|(other, _)| sequence.cmp(other))
    }

    fn open(&mut self, sequences: &[SequenceNumber]) {
        for &sequence in sequences {
            match self.find(sequence) {
                Ok(index) => self.counts[index].1 += 1,
                Err(index) => self.counts.insert(index, (sequence, 1)),
            }
        }
    }

    fn close(&mut self, sequences: &[SequenceNumber]) {
        for &sequence in sequences {
            if let Ok(index) = self.find(sequence) {
                self.counts[index].1 -= 1;
                if self.counts[index].1 == 0 {
                    self.counts.remove(index);
                }
            }
        }
    }
}

/// Cuts overlapping `pieces`, none empty, into fragments: a sweep over their boundaries in key
/// order that keeps the set of sequences open there.
fn sweep(mut pieces: Vec<Piece<'_>>) -> FragmentedTombstones {
    let mut by_end = pieces.clone();
    pieces.sort_unstable_by_key(|piece| piece.start);
    by_end.sort_unstable_by_key(|piece| (piece.end.is_empty(), piece.end));
    let mut openings = pieces.iter().peekable();
    let mut active = Active::default();
    let mut fragments = FragmentedTombstones::default();
    let mut from: &[u8] = &[];
    for closing in by_end {
        while let Some(opening) = openings.next_if(|piece| end_is_above(closing.end, piece.start)) {
            if from < opening.start && !active.counts.is_empty() {
                fragments.push(
                    from,
                    opening.start,
                    active.counts.iter().map(|count| count.0),
                );
            }
            from = opening.start;
            active.open(opening.sequences);
        }
        if end_is_above(closing.end, from) {
            fragments.push(from, closing.end, active.counts.iter().map(|count| count.0));
        }
        if closing.end.is_empty() {
            // Whatever is still open has no end either and was part of this fragment.
            break;
        }
        from = closing.end;
        active.close(closing.sequences);
    }
    fragments
}

#[cfg(test)]
mod tests;

//! Marks in the log: what stands between batches so that the log can be replayed as a history, to a
//! moment or to a sequence number (docs/format/wal.md, marks).
//!
//! Invariants: a mark is written where the log is archived, and before the first batch behind a write that
//! failed, in the same write as the records behind it, at most one for each stretch of consecutive sequence
//! numbers in a group, and without need not more often than every [`INTERVAL_MILLIS`]; every segment of an
//! archived log begins with one. Whoever reads
//! batches and marks in order learns of each sequence number whether its write is there, never
//! happened, or is missing. The commit leader makes them; `log_history` reads them.

use crate::engine::Engine;
use esker_base::coding::{Decoder, put_bytes, put_varint, u32_at, u64_at};
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_manifest::{KeyspaceEdit, VersionEdit};

/// How exactly the time of a write is known, milliseconds.
pub(crate) const INTERVAL_MILLIS: u64 = 100;
/// What became of keyspaces between two batches is said one by one up to here, then as a whole.
const MOST_NOTES: usize = 1024;
/// A mark that names no keyspace takes no more than this.
pub(crate) const PLAIN_BYTES: usize = 64;

const MILLIS: u64 = 1;
const NEXT: u64 = 2;
const UNLOGGED_FROM: u64 = 3;
const REASONS: u64 = 4;
const KEYSPACES: u64 = 5;
const ALL_KEYSPACES: u64 = 6;
const DROPPED: u64 = 7;
/// Set in a key: a reader that does not know the number may go on without it.
const SKIPPABLE: u64 = 1;

/// Why sequence numbers stand in no record: bits that add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasons(u64);

impl Reasons {
    /// They were drawn for writes that failed: nobody ever saw them.
    pub(crate) const FAILED: Self = Self(1);
    /// They were written with `Durability::Volatile`.
    pub(crate) const VOLATILE: Self = Self(2);
    /// They were loaded in bulk.
    pub(crate) const LOADED: Self = Self(4);
    /// A backup was restored.
    pub(crate) const RESTORED: Self = Self(8);

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether nothing is missing.
    pub(crate) fn are_void(self) -> bool {
        self == Self::FAILED
    }

    /// The reason as a part of a sentence.
    pub(crate) fn sentence(self) -> &'static str {
        let has = |reason: Self| self.0 & reason.0 != 0;
        if has(Self::RESTORED) {
            "a backup was restored there"
        } else if has(Self::LOADED) {
            "they were loaded in bulk, past the log"
        } else if has(Self::VOLATILE) {
            "they were written with Durability::Volatile, past the log"
        } else {
            "their log is not there"
        }
    }
}

/// What stands between two batches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mark {
    /// Everything behind it was committed at this time or later, milliseconds since 1970.
    pub(crate) millis: u64,
    /// The sequence number of the next batch.
    pub(crate) next: SequenceNumber,
    /// From this one up to `next` (excluded) none stands in a record that counts: what earlier
    /// segments say of them never happened.
    pub(crate) unlogged_from: SequenceNumber,
    /// Why.
    pub(crate) reasons: Reasons,
    /// Keyspaces that came, went or changed their options since the last mark.
    pub(crate) keyspaces: Vec<KeyspaceEdit>,
    /// Where given, there are no other keyspaces than those, up to this number.
    pub(crate) all_up_to: Option<u32>,
    /// What those that went were called.
    pub(crate) dropped: Vec<(KeyspaceId, String)>,
}

impl Mark {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(PLAIN_BYTES);
        put_number(&mut out, MILLIS, self.millis);
        put_number(&mut out, NEXT, self.next);
        if self.unlogged_from < self.next {
            put_number(&mut out, UNLOGGED_FROM, self.unlogged_from);
            put_number(&mut out, REASONS, self.reasons.0);
        }
        if !self.keyspaces.is_empty() {
            let edit = VersionEdit {
                keyspaces: self.keyspaces.clone(),
                ..VersionEdit::default()
            };
            put_varint(&mut out, KEYSPACES << 1);
            put_bytes(&mut out, &edit.encode()?);
        }
        if let Some(largest) = self.all_up_to {
            put_number(&mut out, ALL_KEYSPACES, u64::from(largest));
        }
        if !self.dropped.is_empty() {
            let mut payload = Vec::new();
            for (id, name) in &self.dropped {
                put_varint(&mut payload, u64::from(*id));
                put_bytes(&mut payload, name.as_bytes());
            }
            put_varint(&mut out, DROPPED << 1 | SKIPPABLE);
            put_bytes(&mut out, &payload);
        }
        Ok(out)
    }

    /// Reads a mark.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut mark = Self::default();
        let mut unlogged_from = None;
        let mut decoder = Decoder::new(bytes);
        while !decoder.is_empty() {
            let key = decoder.varint()?;
            let mut payload = Decoder::new(decoder.bytes()?);
            match key >> 1 {
                MILLIS => mark.millis = payload.varint()?,
                NEXT => mark.next = payload.varint()?,
                UNLOGGED_FROM => unlogged_from = Some(payload.varint()?),
                REASONS => mark.reasons = Reasons(payload.varint()?),
                KEYSPACES => mark.keyspaces = VersionEdit::decode(payload.rest())?.keyspaces,
                ALL_KEYSPACES => mark.all_up_to = Some(payload.varint_u32()?),
                DROPPED => {
                    while !payload.is_empty() {
                        let id = payload.varint_u32()?;
                        let name = String::from_utf8(payload.bytes()?.to_vec());
                        let name = name.map_err(|_| {
                            Error::corruption("a keyspace's name in a mark is no text")
                        })?;
                        mark.dropped.push((id, name));
                    }
                }
                _ if key & SKIPPABLE != 0 => {}
                number => {
                    let sentence =
                        format!("field {number} of a mark in the log needs a later version");
                    return Err(Error::new(ErrorKind::Unsupported, sentence));
                }
            }
        }
        mark.unlogged_from = unlogged_from.unwrap_or(mark.next);
        if mark.unlogged_from > mark.next {
            return Err(Error::corruption("a mark in the log contradicts itself"));
        }
        Ok(mark)
    }
}

fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    let mut payload = Vec::with_capacity(10);
    put_varint(&mut payload, value);
    put_varint(out, number << 1);
    put_bytes(out, &payload);
}

/// What the commit leader knows for the next mark.
#[derive(Debug, Default)]
pub(crate) struct Marker {
    /// The number after the last write that the log holds, or after all writes where it begins anew.
    expected: SequenceNumber,
    reasons: Reasons,
    /// When the next mark is due.
    next_millis: u64,
    /// Whether keyspaces are to be named all: nothing before is certain to have been logged.
    wants_all: bool,
    /// Whether no mark says what became of keyspaces before this life, or before one that failed.
    owes_all: bool,
    /// What marks have said of keyspaces since the last batch. It is said again before the next one, which
    /// may stand in another segment: who has read everything before needs that one alone.
    since_batch: Vec<KeyspaceNote>,
    /// Whether one of those marks has named all keyspaces.
    since_all: bool,
    /// The first number of a write that failed, and why numbers from there on are missing, until the log
    /// has said so: also where it is not archived.
    failed: Option<(SequenceNumber, Reasons)>,
}

/// What became of a keyspace, and the name of one that went.
#[derive(Clone, Debug)]
pub(crate) struct KeyspaceNote {
    pub(crate) edit: KeyspaceEdit,
    pub(crate) dropped: Option<String>,
}

impl Marker {
    /// For a database whose next write has the number `next`.
    pub(crate) fn new(next: SequenceNumber) -> Self {
        Self {
            expected: next,
            wants_all: true,
            owes_all: true,
            ..Self::default()
        }
    }

    /// The first number behind the last logged write, and why numbers from there on, if any were given, do not
    /// stand in the log.
    pub(crate) fn unlogged(&self) -> (SequenceNumber, Reasons) {
        (self.expected, self.reasons)
    }

    /// From which number before `next` on the log has not said yet why none stands in it, and why that is.
    #[inline]
    pub(crate) fn unsaid(
        &self,
        has_marks: bool,
        next: SequenceNumber,
    ) -> Option<(SequenceNumber, Reasons)> {
        match has_marks {
            true => (self.expected < next).then_some((self.expected, self.reasons)),
            false => self.failed,
        }
    }

    /// Numbers were, or are about to be, given to something that does not stand in the log.
    pub(crate) fn note(&mut self, reason: Reasons) {
        self.reasons.add(reason);
        if let Some((_, reasons)) = &mut self.failed {
            reasons.add(reason);
        }
    }

    /// The group that begins at `sequence` has failed, though the log may hold it.
    pub(crate) fn note_failed(&mut self, sequence: SequenceNumber) {
        self.expected = self.expected.min(sequence);
        self.reasons.add(Reasons::FAILED);
        let (from, mut reasons) = self.failed.unwrap_or((sequence, Reasons::default()));
        reasons.add(Reasons::FAILED);
        self.failed = Some((from.min(sequence), reasons));
    }

    /// Goes on for a log that is archived from the write with the number `next` on.
    pub(crate) fn begin(&mut self, next: SequenceNumber) {
        let failed = self.failed;
        *self = Self::new(next);
        if let Some((from, reasons)) = failed {
            self.note_failed(from);
            self.note(reasons);
        }
    }

    /// The mark that has to stand before the batch at `next` where the log is not archived: after a failure,
    /// so that readers of what is left can tell numbers that nothing came of from a hole.
    #[inline]
    pub(crate) fn due_after_failure(
        &self,
        next: SequenceNumber,
        millis: impl FnOnce() -> u64,
    ) -> Option<Mark> {
        let (from, reasons) = self.failed?;
        Some(Mark {
            millis: millis(),
            next,
            unlogged_from: from.min(next),
            reasons,
            ..Mark::default()
        })
    }

    /// The log has said what failed.
    pub(crate) fn forget_failure(&mut self) {
        self.failed = None;
    }

    /// Whether the log may say of keyspaces what is not so any more, as long as nobody writes.
    pub(crate) fn owes_all(&self) -> bool {
        self.owes_all
    }

    /// The log goes on elsewhere: what was noted of keyspaces may be lost with it.
    pub(crate) fn begin_chain(&mut self) {
        self.wants_all = true;
    }

    /// The batches up to `next` (excluded) are logged.
    pub(crate) fn note_logged(&mut self, first: SequenceNumber, next: SequenceNumber) {
        self.expected = next;
        if next > first {
            self.since_batch.clear();
            self.since_all = false;
        }
    }

    /// What was noted of numbers that are not logged has been said.
    pub(crate) fn forget_reasons(&mut self) {
        self.reasons = Reasons::default();
        self.failed = None;
    }

    /// The mark that has to stand before the batch at `next`, if one has to.
    pub(crate) fn due(
        &mut self,
        engine: &Engine,
        next: SequenceNumber,
        begins_segment: bool,
    ) -> Result<Option<Vec<u8>>> {
        let now = engine.clock().now_millis();
        let nothing_new = self.expected == next && !self.wants_all && now < self.next_millis;
        if nothing_new && !begins_segment && !engine.archive.has_changes() {
            return Ok(None);
        }
        let fresh = engine.archive.take_changes();
        let told_before = self.since_batch.len();
        self.since_batch.extend(fresh);
        // Said as a whole, in bounded memory, or since it was said so.
        self.wants_all |= self.since_batch.len() > MOST_NOTES || (begins_segment && self.since_all);
        let from = if begins_segment { 0 } else { told_before };
        let notes = self.since_batch[from..].iter();
        let mut mark = Mark {
            millis: now,
            next,
            unlogged_from: self.expected.min(next),
            reasons: self.reasons,
            keyspaces: notes.clone().map(|note| note.edit.clone()).collect(),
            all_up_to: None,
            dropped: notes
                .filter_map(|note| Some((note.edit.id, note.dropped.clone()?)))
                .collect(),
        };
        if self.wants_all {
            self.since_batch.clear();
            self.since_all = true;
            (mark.keyspaces, mark.all_up_to) = engine.keyspaces_as_edits();
        }
        // Until it is written, what it says of keyspaces is noted nowhere else.
        self.wants_all = true;
        self.owes_all = true;
        mark.encode().map(Some)
    }

    /// The mark that was due is in the log.
    pub(crate) fn note_marked(&mut self, engine: &Engine) {
        self.wants_all = false;
        self.owes_all = false;
        self.next_millis = engine.clock().now_millis() + INTERVAL_MILLIS;
    }
}

impl Engine {
    /// All keyspaces as edits that make them, and the largest number that was ever given to one.
    fn keyspaces_as_edits(&self) -> (Vec<KeyspaceEdit>, Option<u32>) {
        let keyspaces = self.keyspaces.read();
        let made = keyspaces.by_id.values().map(|state| KeyspaceEdit {
            id: state.id,
            create: Some((state.name.clone(), state.own_options().encode())),
            ..KeyspaceEdit::default()
        });
        // Not the largest that is there: the last one that came may have gone.
        let largest = self.versions.next_keyspace_id().saturating_sub(1);
        (made.collect(), Some(largest))
    }
}

/// The first sequence number of a batch, and the one after its last.
pub(crate) fn numbers_of(batch: &[u8]) -> (SequenceNumber, SequenceNumber) {
    let first = u64_at(batch, 0).unwrap_or(0);
    (first, first + u64::from(u32_at(batch, 8).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_plain_one_is_short() {
        let plain = Mark {
            millis: u64::MAX >> 16,
            next: 1 << 56,
            unlogged_from: 1 << 55,
            reasons: Reasons::FAILED,
            ..Mark::default()
        };
        let bytes = plain.encode().unwrap();
        assert!(bytes.len() <= PLAIN_BYTES);
        assert_eq!(Mark::decode(&bytes).unwrap(), plain);
        let named = Mark {
            millis: 5,
            next: 9,
            unlogged_from: 9,
            keyspaces: vec![KeyspaceEdit {
                id: 3,
                create: Some(("users".into(), Vec::new())),
                ..KeyspaceEdit::default()
            }],
            all_up_to: Some(3),
            dropped: vec![(2, "gone".into()), (1, String::new())],
            ..Mark::default()
        };
        let bytes = named.encode().unwrap();
        assert_eq!(Mark::decode(&bytes).unwrap(), named);
        for end in 0..bytes.len() {
            let _ = Mark::decode(&bytes[..end]);
        }
    }

    #[test]
    fn reasons_add_up_and_only_failed_writes_are_no_loss() {
        let mut reasons = Reasons::FAILED;
        assert!(reasons.are_void());
        reasons.add(Reasons::LOADED);
        assert!(!reasons.are_void() && reasons.sentence().contains("bulk"));
        assert!(!Reasons::default().are_void());
    }
}

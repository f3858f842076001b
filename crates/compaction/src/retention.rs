//! Which records survive a merge: an iterator adapter over the merged inputs, without I/O but for
//! values that are kept apart, where a merge operator or an owner's filter wants them or they are to
//! leave their table.
//!
//! Snapshots cut the sequence numbers into *stripes*: two records of a key in the same stripe are
//! told apart by nobody, so only the newer matters. Per key and stripe retention keeps the newest
//! record that no newer range tombstone of the stripe covers. A record whose value must go (expired,
//! or a [`ValueFilter`] says so) becomes a tombstone, because it has to keep hiding what is older.
//! In the oldest stripe, where nothing older lies below the output, tombstones vanish, and values
//! lose their sequence number (it becomes 0), which compresses better; but for large ones, which are
//! stored as they were.
//!
//! Invariant (I6): for every snapshot, and for the newest state, what a reader sees is the same
//! before and after, up to records that had expired by then. A merge operand is replaced, together
//! with what it lies on, by the value they make, where that lies in the same stripe or nothing can
//! lie there; else it stays (`retention/operands.rs`). Kinds that this version never writes are handed on
//! untouched, all of them, and hide nothing.
//!
//! Called by flush and by every part of a compaction.

use esker_base::filename::FileNumber;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::InternalIterator;
use esker_base::key_bounds::{KeyBounds, end_is_above};
use esker_base::merge_operator::MergeOperator;
use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
use esker_base::value_pointer::ValuePointer;
use esker_base::{Error, ErrorKind, Result, SequenceNumber, Trailer, ValueKind};
use esker_sstable::ValueTables;
use std::collections::HashSet;
use std::sync::Arc;

use crate::compaction_filter::OwnersFilter;
use crate::older_tables::OlderTables;

mod operands;

use operands::Operands;

/// What a merge must respect.
#[derive(Clone, Debug, Default)]
pub struct RetentionRules {
    /// The sequence numbers that snapshots read at, ascending and distinct. A reader without a
    /// snapshot must have pinned the tables it reads before it took its sequence number.
    pub snapshots: Vec<SequenceNumber>,
    /// The time by which records expire, milliseconds since 1970.
    pub now_millis: u64,
    /// What makes values of merge operands. Without one they stay as they are.
    pub operator: Option<Arc<dyn MergeOperator>>,
    /// What the keyspace's owner lets merges drop or change.
    pub filter: Option<OwnersFilter>,
    /// Where values lie that are kept apart.
    pub values: ValueTables,
    /// The value tables that values are to leave.
    pub emptied: Arc<HashSet<FileNumber>>,
}

impl RetentionRules {
    /// Which stripe a sequence number is in: the index of the oldest snapshot that sees it, or the
    /// number of snapshots where only the newest state does.
    #[inline]
    fn stripe(&self, sequence: SequenceNumber) -> usize {
        if self.snapshots.is_empty() {
            return 0;
        }
        self.snapshots
            .partition_point(|snapshot| *snapshot < sequence)
    }

    /// The newest sequence number that readers of `stripe` see.
    #[inline]
    fn visible(&self, stripe: usize) -> SequenceNumber {
        self.snapshots.get(stripe).copied().unwrap_or(MAX_SEQUENCE)
    }

    /// What of the inputs' range tombstones must go on into the output: per fragment and stripe
    /// the newest, and in the oldest stripe only where something older may lie below.
    #[must_use]
    pub fn retain_tombstones(
        &self,
        tombstones: &FragmentedTombstones,
        older: &OlderTables,
    ) -> FragmentedTombstones {
        let mut kept = Vec::new();
        for (start, end, sequences) in tombstones.iter() {
            let below = older.overlap_range(&KeyBounds::half_open(start, end));
            let mut last_stripe = None;
            for sequence in sequences {
                let stripe = self.stripe(*sequence);
                if last_stripe.replace(stripe) != Some(stripe) && (stripe > 0 || below) {
                    let (start, end) = (start.to_vec(), end.to_vec());
                    kept.push(RangeTombstone {
                        start,
                        end,
                        sequence: *sequence,
                    });
                }
            }
        }
        FragmentedTombstones::build(kept)
    }
}

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes: the record becomes a tombstone.
    Remove,
    /// This is stored in its place, under the same trailer.
    Replace(Vec<u8>),
}

/// Judges the values that a merge would keep, one record of a key at a time, the newest of each
/// stripe. [`Expiry`] is the one filter that every merge has; a keyspace's owner may add another
/// ([`OwnersFilter`]).
pub trait ValueFilter {
    /// Whether it looks at more of values than their expiries, so that those that are kept apart must
    /// be brought to it.
    fn wants_values(&self) -> bool {
        false
    }

    /// What becomes of this value; `value` is as stored.
    fn judge(&mut self, user_key: &[u8], trailer: Trailer, value: &[u8]) -> Verdict;
}

/// Removes what has expired by a moment.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// The moment, milliseconds since 1970.
    pub now_millis: u64,
}

impl ValueFilter for Expiry {
    #[inline]
    fn judge(&mut self, _user_key: &[u8], trailer: Trailer, value: &[u8]) -> Verdict {
        if !trailer.kind().is_some_and(ValueKind::expires) {
            return Verdict::Keep;
        }
        // A value too short for its expiry is damage for a reader to report, not for us to drop.
        match value.first_chunk::<8>() {
            Some(expiry) if u64::from_le_bytes(*expiry) <= self.now_millis => Verdict::Remove,
            _ => Verdict::Keep,
        }
    }
}

/// What retention has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RetentionStats {
    /// Records read.
    pub records_in: u64,
    /// Records kept, those that became tombstones included.
    pub records_out: u64,
    /// Dropped: a newer record of the key is in the same stripe.
    pub superseded: u64,
    /// Dropped: a range tombstone of the same stripe covers them.
    pub covered: u64,
    /// Values that expired (or were filtered out), dropped or turned into tombstones.
    pub removed: u64,
    /// Tombstones that hid nothing any more, those just made from values included.
    pub tombstones_dropped: u64,
    /// Merge operands that became part of a value or of another operand.
    pub operands_merged: u64,
}

impl RetentionStats {
    /// Adds what another part of the same job has done.
    pub fn add(&mut self, other: &Self) {
        self.records_in += other.records_in;
        self.records_out += other.records_out;
        self.superseded += other.superseded;
        self.covered += other.covered;
        self.removed += other.removed;
        self.tombstones_dropped += other.tombstones_dropped;
        self.operands_merged += other.operands_merged;
    }
}

/// The tombstones that retention judges by, for the whole job or one range of it.
#[derive(Clone, Debug, Default)]
pub struct JobTombstones {
    /// All range tombstones of the inputs.
    pub all: FragmentedTombstones,
    /// Those that go on into the output ([`RetentionRules::retain_tombstones`]).
    pub kept: FragmentedTombstones,
}

/// The records of a merge that survive. See the [module](self).
#[derive(Debug)]
pub struct Retention<'a, I, F = Expiry> {
    source: I,
    rules: &'a RetentionRules,
    tombstones: &'a JobTombstones,
    older: OlderTables,
    filter: F,
    /// Where to stop, exclusive; empty: at the end.
    end: &'a [u8],
    /// Values of so many bytes or more are large.
    large_bytes: usize,
    /// Whether they keep their sequence number.
    keeps_large: bool,
    started: bool,
    key: Vec<u8>,
    /// The stripe of the last full record of this key: what is older in it is hidden.
    hidden_stripe: Option<usize>,
    emitted_of_key: u64,
    zeroed: bool,
    trailer: Trailer,
    /// What is written in place of the source's value.
    replaced: Option<Vec<u8>>,
    operands: Operands,
    stats: RetentionStats,
}

impl<'a, I: InternalIterator, F: ValueFilter> Retention<'a, I, F> {
    /// Filters what `source` yields from where it stands, up to `end`, exclusive (empty: all).
    #[must_use]
    pub fn new(
        source: I,
        end: &'a [u8],
        rules: &'a RetentionRules,
        tombstones: &'a JobTombstones,
        older: OlderTables,
        filter: F,
    ) -> Self {
        Self {
            source,
            rules,
            tombstones,
            older,
            filter,
            end,
            large_bytes: usize::MAX,
            keeps_large: false,
            started: false,
            key: Vec::new(),
            hidden_stripe: None,
            emitted_of_key: 0,
            zeroed: false,
            trailer: Trailer::OLDEST,
            replaced: None,
            operands: Operands::default(),
            stats: RetentionStats::default(),
        }
    }

    /// Values of `bytes` or more are large. If they are `kept` they keep their sequence number, so that what is
    /// stored of them stays as it is: to forget it would save eight bytes for each. Where tables are to get
    /// their final form they are not kept, or no table with one would ever have it.
    #[must_use]
    pub fn with_large_values(mut self, bytes: usize, kept: bool) -> Self {
        (self.large_bytes, self.keeps_large) = (bytes, kept);
        self
    }

    /// Moves to the next record that survives; `false` at the end.
    ///
    /// # Errors
    /// What the source reports; [`Unsupported`](ErrorKind::Unsupported) where a record of a kind
    /// that this version never writes lies under a value that lost its sequence number.
    pub fn advance(&mut self) -> Result<bool> {
        if self.next_unmerged_operand() {
            return Ok(true);
        }
        loop {
            if self.started && !self.operands.read_ahead {
                self.source.next()?;
            }
            self.operands.read_ahead = false;
            if !self.source.valid() {
                return Ok(false);
            }
            let key = self.source.user_key();
            // The empty key is none, so the first record always counts as a new key.
            if key != self.key.as_slice() {
                if !end_is_above(self.end, key) {
                    return Ok(false);
                }
                self.key.clear();
                self.key.extend_from_slice(key);
                self.hidden_stripe = None;
                self.emitted_of_key = 0;
                self.zeroed = false;
            }
            self.started = true;
            self.stats.records_in += 1;
            if self.survives()? {
                self.emitted_of_key += 1;
                self.stats.records_out += 1;
                return Ok(true);
            }
        }
    }

    /// Whether the source's record survives; sets what it becomes.
    #[inline]
    fn survives(&mut self) -> Result<bool> {
        let trailer = self.source.trailer();
        self.trailer = trailer;
        self.replaced = None;
        let kind = match trailer.kind() {
            Some(
                kind @ (ValueKind::Value
                | ValueKind::ValueWithExpiry
                | ValueKind::ValuePointer
                | ValueKind::ValuePointerWithExpiry
                | ValueKind::Tombstone
                | ValueKind::MergeOperand),
            ) => kind,
            _ if self.zeroed => return Err(stranger_below(trailer)),
            _ => return Ok(true),
        };
        let stripe = self.rules.stripe(trailer.sequence());
        if self.hidden_stripe.replace(stripe) == Some(stripe) {
            self.stats.superseded += 1;
            return Ok(false);
        }
        if !self.tombstones.all.is_empty() && self.is_covered(trailer.sequence(), stripe) {
            self.stats.covered += 1;
            return Ok(false);
        }
        match kind {
            ValueKind::Tombstone => Ok(self.tombstone_stays(stripe)),
            ValueKind::MergeOperand => self.merge_operands(stripe),
            _ => self.value_stays(stripe),
        }
    }

    /// Whether the value stays, or a tombstone in its place.
    #[inline]
    fn value_stays(&mut self, stripe: usize) -> Result<bool> {
        if self.trailer.kind().is_some_and(ValueKind::is_pointer) && !self.pointer_stays()? {
            return Ok(self.removed(stripe));
        }
        let stored = match &self.replaced {
            Some(value) => value,
            None => self.source.value(),
        };
        match self.filter.judge(&self.key, self.trailer, stored) {
            Verdict::Keep => {}
            Verdict::Replace(value) => self.replaced = Some(value),
            Verdict::Remove => return Ok(self.removed(stripe)),
        }
        self.forget_sequence(stripe);
        Ok(true)
    }

    /// A tombstone takes the value's place; whether that stays.
    fn removed(&mut self, stripe: usize) -> bool {
        self.stats.removed += 1;
        self.replaced = Some(Vec::new());
        self.trailer = self.trailer.with_kind(ValueKind::Tombstone);
        self.tombstone_stays(stripe)
    }

    /// Whether the value that the source's pointer points to is still there: not where its table was
    /// given up. Where somebody wants to see the value, or it is to leave its table, it takes the
    /// pointer's place.
    #[cold]
    fn pointer_stays(&mut self) -> Result<bool> {
        let (trailer, stored) = (self.trailer, self.source.value());
        let Some(kind) = trailer.kind() else {
            return Ok(true);
        };
        let (expiry, pointer) = ValuePointer::of_stored(kind, stored)?;
        let values = &self.rules.values;
        if values.is_lost(pointer.number) {
            return Ok(false);
        }
        if expiry.is_some_and(|expiry| expiry <= self.rules.now_millis) {
            // The filter will say so without the value.
            return Ok(true);
        }
        let is_wanted = self.filter.wants_values() || self.rules.emptied.contains(&pointer.number);
        if is_wanted && let Some((kind, value)) = values.restored(&self.key, kind, stored)? {
            self.trailer = trailer.with_kind(kind);
            self.replaced = Some(value);
        }
        Ok(true)
    }

    fn tombstone_stays(&mut self, stripe: usize) -> bool {
        let vanishes = stripe == 0 && !self.older.overlap_key(&self.key);
        self.stats.tombstones_dropped += u64::from(vanishes);
        !vanishes
    }

    fn is_covered(&self, sequence: SequenceNumber, stripe: usize) -> bool {
        let visible = self.rules.visible(stripe);
        let newest = self.tombstones.all.covering_sequence(&self.key, visible);
        newest.is_some_and(|newest| newest > sequence)
    }

    /// Zeroes the sequence number of a value that every reader sees and under which nothing lies,
    /// unless a range tombstone that stays would then seem newer.
    #[inline]
    fn forget_sequence(&mut self, stripe: usize) {
        let is_kept = self.keeps_large && self.is_large();
        if stripe > 0 || is_kept || self.older.overlap_key(&self.key) {
            return;
        }
        let kept = &self.tombstones.kept;
        if !kept.is_empty() && kept.covering_sequence(&self.key, MAX_SEQUENCE).is_some() {
            return;
        }
        self.trailer = Trailer::from_raw(self.trailer.raw() & 0xff);
        self.zeroed = true;
    }

    /// The user key. Call this and the following only after [`Retention::advance`] said `true`.
    #[must_use]
    #[inline]
    pub fn user_key(&self) -> &[u8] {
        &self.key
    }

    /// Sequence number and kind, as they are to be written.
    #[must_use]
    #[inline]
    pub fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// The value, as it is to be written.
    #[must_use]
    #[inline]
    pub fn value(&self) -> &[u8] {
        match &self.replaced {
            Some(value) => value,
            None => self.source.value(),
        }
    }

    #[inline]
    fn is_large(&self) -> bool {
        self.value().len() >= self.large_bytes
    }

    /// The source, where it stands on this record, whose value is large and of which nothing has changed.
    #[inline]
    pub(crate) fn unchanged_large(&mut self) -> Option<&mut I> {
        let is_the_source = self.replaced.is_none() && !self.operands.read_ahead;
        let is_unchanged =
            is_the_source && self.is_large() && self.trailer == self.source.trailer();
        is_unchanged.then_some(&mut self.source)
    }

    /// Whether this is the first surviving record of its key: tables may be cut before it.
    #[must_use]
    #[inline]
    pub fn starts_key(&self) -> bool {
        self.emitted_of_key == 1
    }

    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> &RetentionStats {
        &self.stats
    }
}

fn stranger_below(trailer: Trailer) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "a record of kind {} lies under a value",
            trailer.raw() & 0xff
        ),
    )
}

#[cfg(test)]
mod tests;

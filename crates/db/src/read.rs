//! Point reads: from the newest source to the oldest, until one has the key.
//!
//! Invariants (I8, I6): a read takes one reference to a super-version and then the visible sequence,
//! in that order, and no lock after it. Taken the other way round, a compaction in between could
//! have dropped what the older sequence still sees. Expiry is judged by the clock at the moment of
//! the read.

mod search;
mod together;
mod verdicts;

pub(crate) use search::Search;
pub(crate) use together::Together;

use crate::merged::{self, Operator};
use crate::super_version::SuperVersion;
use crate::value::Value;
use esker_base::checksum::key_hash;
use esker_base::clock::Clock;
use esker_base::value_pointer::ValuePointer;
use esker_base::write_batch::split_expiry;
use esker_base::{Error, Result, SequenceNumber, Trailer, ValueKind};
use esker_sstable::{FoundRecord, TableHit};
use search::KnownRuns;

/// Where a stored value begins to be the user's, and when it ends to be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// The user's value begins after `skip` bytes.
    Visible {
        skip: usize,
        expiry_millis: Option<u64>,
    },
    /// Deleted or expired.
    Hidden,
    /// An operand: the value is what it makes of what lies beneath.
    Operand,
    /// A value that is kept apart: what is stored is a pointer, behind the expiry.
    Apart { expiry_millis: Option<u64> },
}

/// What a record means to a reader.
#[inline]
pub(crate) fn judge(trailer: Trailer, stored: &[u8], clock: &dyn Clock) -> Result<Visibility> {
    match trailer.kind() {
        Some(ValueKind::Value) => Ok(Visibility::Visible {
            skip: 0,
            expiry_millis: None,
        }),
        Some(ValueKind::Tombstone | ValueKind::SingleDelete) => Ok(Visibility::Hidden),
        Some(ValueKind::MergeOperand) => Ok(Visibility::Operand),
        Some(ValueKind::ValueWithExpiry) => {
            let (expiry, _) = split_expiry(stored)
                .ok_or_else(|| Error::corruption("an expiring value is shorter than its expiry"))?;
            if expiry <= clock.now_millis() {
                Ok(Visibility::Hidden)
            } else {
                Ok(Visibility::Visible {
                    skip: 8,
                    expiry_millis: Some(expiry),
                })
            }
        }
        Some(kind) if kind.is_pointer() => judge_pointer(kind, stored, clock),
        kind => Err(unreadable(kind)),
    }
}

#[cold]
fn judge_pointer(kind: ValueKind, stored: &[u8], clock: &dyn Clock) -> Result<Visibility> {
    let (expiry_millis, _) = ValuePointer::of_stored(kind, stored)?;
    if expiry_millis.is_some_and(|expiry| expiry <= clock.now_millis()) {
        return Ok(Visibility::Hidden);
    }
    Ok(Visibility::Apart { expiry_millis })
}

#[cold]
pub(crate) fn unreadable(kind: Option<ValueKind>) -> Error {
    Error::corruption(format!(
        "a record of kind {kind:?} stands where only values can"
    ))
}

/// The newest record of a key that a reader may see, where it lies.
pub(crate) enum Found<'a> {
    InMemtable(Trailer, &'a [u8]),
    InTable(TableHit),
    /// A record whose value was kept apart, brought together.
    Restored(Trailer, Vec<u8>),
}

impl Found<'_> {
    pub(crate) fn trailer(&self) -> Trailer {
        match self {
            Found::InMemtable(trailer, _) | Found::Restored(trailer, _) => *trailer,
            Found::InTable(hit) => hit.trailer,
        }
    }

    pub(crate) fn stored(&self) -> &[u8] {
        match self {
            Found::InMemtable(_, stored) => stored,
            Found::InTable(hit) => &hit.value,
            Found::Restored(_, stored) => stored,
        }
    }

    pub(crate) fn is_operand(&self) -> bool {
        self.trailer().kind() == Some(ValueKind::MergeOperand)
    }

    /// The user's value, unless it is deleted or expired. Not for operands.
    #[inline]
    pub(crate) fn value(&self, clock: &dyn Clock) -> Result<Option<Value>> {
        match judge(self.trailer(), self.stored(), clock)? {
            Visibility::Hidden => Ok(None),
            Visibility::Operand | Visibility::Apart { .. } => {
                Err(unreadable(self.trailer().kind()))
            }
            Visibility::Visible { skip, .. } => Ok(Some(match self {
                Found::InMemtable(_, stored) => Value::copy_of(&stored[skip..]),
                Found::InTable(hit) => Value::from_block(&hit.value, skip),
                Found::Restored(_, stored) => Value::copy_of(&stored[skip..]),
            })),
        }
    }

    /// The expiry of a visible value: `None` where there is no value, `Some(None)` where it has none,
    /// as what operands make never has.
    pub(crate) fn expiry(&self, clock: &dyn Clock) -> Result<Option<Option<u64>>> {
        match judge(self.trailer(), self.stored(), clock)? {
            Visibility::Hidden => Ok(None),
            Visibility::Operand => Ok(Some(None)),
            Visibility::Visible { expiry_millis, .. } | Visibility::Apart { expiry_millis } => {
                Ok(Some(expiry_millis))
            }
        }
    }
}

/// What the memtables say of a key.
enum InMemtables<'a> {
    Found(Trailer, &'a [u8]),
    /// Its newest record there is hidden by a range tombstone.
    Hidden,
    /// They hold no record of it; the newest range tombstone over it has sequence `covering`, or 0.
    Absent {
        covering: SequenceNumber,
    },
}

#[inline]
fn find_in_memtables<'a>(
    view: &'a SuperVersion,
    key: &[u8],
    hash: u64,
    visible: SequenceNumber,
) -> InMemtables<'a> {
    let mut covering = 0;
    for memtable in view.memtables() {
        if memtable.is_empty() {
            continue;
        }
        if memtable.has_range_tombstones() {
            covering = covering.max(memtable.covering_sequence(key, visible).unwrap_or(0));
        }
        if memtable.may_contain(hash)
            && let Some((trailer, stored)) = memtable.get(key, visible)
        {
            if trailer.sequence() < covering {
                return InMemtables::Hidden;
            }
            return InMemtables::Found(trailer, stored);
        }
    }
    InMemtables::Absent { covering }
}

/// The newest record of `key` at or before `visible` that no range tombstone hides. A value that is kept
/// apart is brought to it.
#[inline]
pub(crate) fn find<'a>(
    view: &'a SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
) -> Result<Option<Found<'a>>> {
    match find_stored(view, key, visible)? {
        Some(found) if is_pointer(found.trailer()) => restore(view, key, &found).map(Some),
        found => Ok(found),
    }
}

#[inline]
fn is_pointer(trailer: Trailer) -> bool {
    trailer.kind().is_some_and(ValueKind::is_pointer)
}

#[cold]
fn restore<'a>(view: &SuperVersion, key: &[u8], found: &Found<'_>) -> Result<Found<'a>> {
    let (trailer, stored) = view.values.record(key, found.trailer(), found.stored())?;
    Ok(Found::Restored(trailer, stored))
}

/// As [`find`], for who does not ask for the value: one that is kept apart stays where it is.
#[inline]
pub(crate) fn find_stored<'a>(
    view: &'a SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
) -> Result<Option<Found<'a>>> {
    let search = Search::begin(view, key, visible);
    match find_in_memtables(view, key, search.hash, visible) {
        InMemtables::Found(trailer, stored) => Ok(Some(Found::InMemtable(trailer, stored))),
        InMemtables::Hidden => Ok(None),
        InMemtables::Absent { covering } => find_in_tables(&search.ask_runs(), covering),
    }
}

fn find_in_tables<'a>(
    search: &Search<'_, impl KnownRuns>,
    covering: SequenceNumber,
) -> Result<Option<Found<'a>>> {
    let (key, visible) = (search.key, search.visible);
    search.tables(covering, |table, _| {
        let hit = table.find(key, visible)?;
        Ok(hit.map(|hit| (hit.trailer.sequence(), Found::InTable(hit))))
    })
}

/// As [`find_stored`], for who asks for the expiry alone: that of a value there is.
pub(crate) fn find_expiry(
    view: &SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
    clock: &dyn Clock,
) -> Result<Option<Option<u64>>> {
    let Some(found) = find_stored(view, key, visible)? else {
        return Ok(None);
    };
    if let Some(kind) = found.trailer().kind().filter(|kind| kind.is_pointer())
        && view.values.is_lost(kind, found.stored())?
    {
        return Ok(None);
    }
    found.expiry(clock)
}

/// A record of a table, judged where it lies.
enum Judged {
    Hidden,
    /// The value was copied, or is shared.
    Visible,
    Operand,
    /// Kept apart: what is stored in its place was copied.
    Apart(ValueKind),
}

/// What a record means; its value goes into `place`. Short values are copied: that saves a write to memory which
/// other readers of the block write as well. Long ones are shares of their block.
#[inline]
fn judge_in_place(
    record: &FoundRecord<'_>,
    clock: &dyn Clock,
    place: &mut Option<Value>,
) -> Result<Judged> {
    let stored = record.stored();
    Ok(match judge(record.trailer(), stored, clock)? {
        Visibility::Hidden => Judged::Hidden,
        Visibility::Operand => Judged::Operand,
        Visibility::Apart { .. } => {
            *place = Some(Value::copy_of(stored));
            Judged::Apart(record.trailer().kind().unwrap_or(ValueKind::ValuePointer))
        }
        Visibility::Visible { skip, .. } => {
            let from = &record.from_stored()[skip..];
            if !Value::copy_inline(place, from, stored.len() - skip) {
                *place = Some(Value::from_block(&record.pin(skip), 0));
            }
            Judged::Visible
        }
    })
}

/// As [`get`] for what no memtable holds. The value comes into its place at once: each time that it is moved, two
/// lines are copied.
#[inline]
fn get_from_tables(
    search: &Search<'_, impl KnownRuns>,
    covering: SequenceNumber,
    clock: &dyn Clock,
    operator: Operator<'_>,
    place: &mut Option<Value>,
) -> Result<()> {
    let (view, key, visible) = (search.view, search.key, search.visible);
    let judged = search.tables(covering, |table, begun| {
        let judge = |record: FoundRecord<'_>| {
            let sequence = record.trailer().sequence();
            judge_in_place(&record, clock, place).map(|judged| (sequence, judged))
        };
        let judged = match begun {
            Some(lookup) => table.finish(lookup, key, visible, judge)?,
            None => table.find_with(key, visible, judge)?,
        };
        judged.transpose()
    })?;
    match judged {
        Some(Judged::Visible) => {}
        None | Some(Judged::Hidden) => *place = None,
        Some(Judged::Apart(kind)) => {
            let stored = place.take();
            *place = view
                .values
                .value(key, kind, stored.as_deref().unwrap_or_default())?;
        }
        Some(Judged::Operand) => *place = merged::get(view, key, visible, operator)?,
    }
    Ok(())
}

/// The value of the key searched for, as it is to be seen now.
#[inline]
pub(crate) fn get(
    search: &Search<'_, ()>,
    clock: &dyn Clock,
    operator: Operator<'_>,
) -> Result<Option<Value>> {
    let mut value = None;
    let in_memtables = find_in_memtables(search.view, search.key, search.hash, search.visible);
    let place = &mut value;
    match get_from_memtables(search, in_memtables, clock, operator, place)? {
        None => {}
        // Of one run nobody else waits for what its filter says.
        Some(covering) if search.view.runs.len() < 2 => {
            get_from_tables(search, covering, clock, operator, place)?;
        }
        Some(covering) => {
            get_from_tables(&search.ask_runs(), covering, clock, operator, place)?;
        }
    }
    Ok(value)
}

/// The value that memtables have told. Where they hold no record: the newest range tombstone over the key, or 0.
#[inline]
fn get_from_memtables<K>(
    search: &Search<'_, K>,
    in_memtables: InMemtables<'_>,
    clock: &dyn Clock,
    operator: Operator<'_>,
    place: &mut Option<Value>,
) -> Result<Option<SequenceNumber>> {
    let (view, key, visible) = (search.view, search.key, search.visible);
    match in_memtables {
        InMemtables::Found(trailer, stored) => {
            match judge(trailer, stored, clock)? {
                Visibility::Hidden => {}
                Visibility::Operand => *place = merged::get(view, key, visible, operator)?,
                Visibility::Apart { .. } => return Err(unreadable(trailer.kind())),
                Visibility::Visible { skip, .. } => {
                    let value = &stored[skip..];
                    if !Value::copy_inline(place, value, value.len()) {
                        *place = Some(Value::copy_of(value));
                    }
                }
            }
            Ok(None)
        }
        InMemtables::Hidden => Ok(None),
        InMemtables::Absent { covering } => Ok(Some(covering)),
    }
}

/// Whether a record of `key` newer than `sequence` exists: what an optimistic transaction asks.
pub(crate) fn changed_since(
    view: &SuperVersion,
    key: &[u8],
    sequence: SequenceNumber,
) -> Result<bool> {
    const NEWEST: SequenceNumber = esker_base::internal_key::MAX_SEQUENCE;
    for memtable in view.memtables() {
        if memtable.largest_sequence() <= Some(sequence) {
            continue;
        }
        let point = memtable
            .get(key, NEWEST)
            .map_or(0, |(trailer, _)| trailer.sequence());
        let range = memtable.covering_sequence(key, NEWEST).unwrap_or(0);
        if point.max(range) > sequence {
            return Ok(true);
        }
    }
    let hash = key_hash(key);
    for run in view
        .runs
        .iter()
        .filter(|run| run.largest_sequence > sequence)
    {
        let Some(handle) = run.find(key) else {
            continue;
        };
        let table = handle.table()?;
        let point = table
            .get(key, hash, NEWEST)?
            .map_or(0, |hit| hit.trailer.sequence());
        let range = table
            .range_tombstones()
            .covering_sequence(key, NEWEST)
            .unwrap_or(0);
        if point.max(range) > sequence {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::clock::ManualClock;

    #[test]
    fn expiry_is_exact_to_the_instant() {
        let clock = ManualClock::at_millis(100);
        let trailer = Trailer::new(1, ValueKind::ValueWithExpiry);
        let stored = |expiry: u64| [&expiry.to_le_bytes()[..], b"v"].concat();
        assert_eq!(
            judge(trailer, &stored(100), &clock).unwrap(),
            Visibility::Hidden
        );
        let visible = Visibility::Visible {
            skip: 8,
            expiry_millis: Some(101),
        };
        assert_eq!(judge(trailer, &stored(101), &clock).unwrap(), visible);
        assert!(judge(trailer, b"short", &clock).is_err());
        assert!(judge(Trailer::new(1, ValueKind::ValuePointer), b"", &clock).is_err());
    }
}

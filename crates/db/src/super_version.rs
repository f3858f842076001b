//! What a reader takes one reference to and then needs no lock for: the memtables and tables of one
//! keyspace at one moment (I8).
//!
//! Invariant: immutable but for inserts into the active memtable, which its readers filter by
//! sequence number. Sources are ordered newest first: for any key, every record in an earlier source
//! is newer than every record in a later one. Replaced one after the other (`replaceable`).

use crate::live_values::LiveValues;
use crate::merged::Operator;
use crate::obsolete_files::{LiveTable, LiveTables};
use crate::operator_slot::OperatorSlot;
use esker_base::filename::FileNumber;
use esker_base::internal_key::long_key_prefix;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::Record;
use esker_base::{SequenceNumber, Trailer, ValueKind};
use esker_manifest::Version;
use esker_memtable::Memtable;
use esker_sstable::TableHandle;
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A memtable and what it pins of the log.
#[derive(Debug)]
pub(crate) struct WriteBuffer {
    pub(crate) memtable: Arc<Memtable>,
    /// The segment that holds its first logged record; 0 while none is logged.
    first_segment: AtomicU64,
    /// The sequence at which it was sealed: every record of the keyspace up to it is in this or an
    /// older memtable or in tables. 0 while active.
    sealed_at: AtomicU64,
    /// Whether a value with an expiry was written into it.
    has_expiring: AtomicBool,
}

impl WriteBuffer {
    pub(crate) fn new(memtable: Arc<Memtable>) -> Arc<Self> {
        Arc::new(Self {
            memtable,
            first_segment: AtomicU64::new(0),
            sealed_at: AtomicU64::new(0),
            has_expiring: AtomicBool::new(false),
        })
    }

    /// Notes that a record of `segment` goes into the memtable. Called by the commit leader only.
    pub(crate) fn pin_segment(&self, segment: FileNumber) {
        if self.first_segment.load(Relaxed) == 0 {
            self.first_segment.store(segment, Release);
        }
    }

    /// Inserts a record that is read back from a log.
    pub(crate) fn insert(&self, sequence: SequenceNumber, record: &Record<'_>) {
        if record.kind == ValueKind::RangeDelete {
            self.memtable
                .add_range_tombstone(record.key, record.value, sequence);
            return;
        }
        if record.kind == ValueKind::ValueWithExpiry {
            self.note_expiring();
        }
        let trailer = Trailer::new(sequence, record.kind);
        self.memtable.insert(record.key, trailer, record.value);
    }

    /// Notes that a value with an expiry goes into the memtable. Called by the commit leader only.
    #[inline]
    pub(crate) fn note_expiring(&self) {
        self.has_expiring.store(true, Relaxed);
    }

    pub(crate) fn first_segment(&self) -> Option<FileNumber> {
        Some(self.first_segment.load(Acquire)).filter(|&segment| segment != 0)
    }

    pub(crate) fn seal(&self, sequence: SequenceNumber) {
        self.sealed_at.store(sequence, Release);
    }

    pub(crate) fn sealed_at(&self) -> SequenceNumber {
        self.sealed_at.load(Acquire)
    }
}

/// One sorted run, resolved to the tables a reader uses.
#[derive(Debug)]
pub(crate) struct SortedRun {
    pub(crate) tables: Arc<[Arc<TableHandle>]>,
    pub(crate) has_range_tombstones: bool,
    /// Whether a record of it expires.
    pub(crate) has_expiring_entries: bool,
    pub(crate) largest_sequence: SequenceNumber,
    /// Prefixes of the tables' smallest and largest keys: most of a search touches nothing else.
    smallest_prefixes: Vec<u128>,
    largest_prefixes: Vec<u128>,
    /// Keeps the files.
    _live: Vec<Arc<LiveTable>>,
}

impl SortedRun {
    /// The table whose bounds hold `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<TableHandle>> {
        let prefix = long_key_prefix(key);
        let mut index = self
            .largest_prefixes
            .partition_point(|&largest| largest < prefix);
        if self.largest_prefixes.get(index) == Some(&prefix) {
            let rest = &self.tables[index..];
            index += rest.partition_point(|table| table.meta().bounds.ends_before(key));
        }
        let table = self.tables.get(index)?;
        let begins = match self.smallest_prefixes[index].cmp(&prefix) {
            Ordering::Less => true,
            Ordering::Equal => table.meta().bounds.smallest.as_slice() <= key,
            Ordering::Greater => false,
        };
        begins.then_some(table)
    }
}

/// The readable state of one keyspace.
#[derive(Debug)]
pub(crate) struct SuperVersion {
    /// Takes the writes.
    pub(crate) active: Arc<WriteBuffer>,
    /// Waiting for their flush, newest first.
    pub(crate) sealed: Vec<Arc<WriteBuffer>>,
    pub(crate) version: Arc<Version>,
    /// Newest first.
    pub(crate) runs: Arc<[SortedRun]>,
    /// Where values lie that are kept apart.
    pub(crate) values: Arc<LiveValues>,
    /// Where it is not 0: the sequence at which a restore replaced everything before. Readers at a
    /// smaller one read the state that was replaced.
    pub(crate) since: SequenceNumber,
    /// What makes values of its keyspace's operands.
    pub(crate) operator: Arc<OperatorSlot>,
    /// Whether another one has taken its place.
    is_replaced: AtomicBool,
}

/// The tables of a super-version, for those who work on them for long.
#[derive(Debug)]
pub(crate) struct TablesAlone {
    pub(crate) version: Arc<Version>,
    /// These keep the files.
    _runs: Arc<[SortedRun]>,
    _values: Arc<LiveValues>,
}

impl SuperVersion {
    pub(crate) fn new(
        active: Arc<WriteBuffer>,
        sealed: Vec<Arc<WriteBuffer>>,
        version: Arc<Version>,
        tables: &LiveTables,
    ) -> Self {
        let runs = resolve_runs(&version, tables);
        let values = LiveValues::of(&version, tables);
        Self {
            active,
            sealed,
            version,
            runs,
            values,
            since: 0,
            operator: Arc::default(),
            is_replaced: AtomicBool::new(false),
        }
    }

    /// The same tables under other memtables.
    pub(crate) fn with_memtables(
        &self,
        active: Arc<WriteBuffer>,
        sealed: Vec<Arc<WriteBuffer>>,
    ) -> Self {
        let (version, runs) = (Arc::clone(&self.version), Arc::clone(&self.runs));
        let values = Arc::clone(&self.values);
        Self {
            active,
            sealed,
            version,
            runs,
            values,
            since: self.since,
            operator: Arc::clone(&self.operator),
            is_replaced: AtomicBool::new(false),
        }
    }

    /// Notes that another one has taken its place, before anything is written that only that one shows.
    pub(crate) fn note_replaced(&self) {
        self.is_replaced.store(true, Release);
    }

    /// Whether another one has taken its place. Not so means that whatever was written before the call is shown
    /// by this one.
    #[inline]
    pub(crate) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Acquire)
    }

    /// Holds on to the tables and lets the memtables go.
    pub(crate) fn tables_alone(&self) -> TablesAlone {
        TablesAlone {
            version: Arc::clone(&self.version),
            _runs: Arc::clone(&self.runs),
            _values: Arc::clone(&self.values),
        }
    }

    /// What makes values of its keyspace's operands.
    #[inline]
    pub(crate) fn operator(&self) -> Operator<'_> {
        &self.operator
    }

    /// Whether any value may have an expiry. For the commit leader, who alone adds some.
    pub(crate) fn may_hold_expiring(&self) -> bool {
        let mut buffers = std::iter::once(&self.active).chain(&self.sealed);
        buffers.any(|buffer| buffer.has_expiring.load(Relaxed))
            || self.runs.iter().any(|run| run.has_expiring_entries)
    }

    /// Whether whatever memtables hold is newer than what tables hold. It always is: a repair, too, puts what
    /// is older than a bulk load into tables. It is looked at all the same before a merge that nobody asked for.
    pub(crate) fn is_in_order(&self) -> bool {
        let newest = self.runs.iter().map(|run| run.largest_sequence).max();
        let mut oldest = self.memtables().filter_map(|it| it.smallest_sequence());
        newest.is_none_or(|newest| oldest.all(|oldest| oldest > newest))
    }

    /// All memtables, newest first.
    #[inline]
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> + Clone {
        std::iter::once(&self.active)
            .chain(&self.sealed)
            .map(|buffer| &buffer.memtable)
    }
}

fn resolve_runs(version: &Version, tables: &LiveTables) -> Arc<[SortedRun]> {
    version
        .runs_newest_first()
        .map(|(_level, run)| {
            let live: Vec<_> = run.tables.iter().map(|meta| tables.get(meta)).collect();
            // An exclusive or missing end bounds from above; rounding it up keeps the search right.
            let largest_prefixes = run
                .tables
                .iter()
                .map(|meta| match meta.bounds.largest.as_slice() {
                    [] if meta.bounds.largest_is_exclusive => u128::MAX,
                    largest => long_key_prefix(largest),
                })
                .collect();
            let smallest = |meta: &Arc<TableMeta>| long_key_prefix(&meta.bounds.smallest);
            SortedRun {
                tables: live.iter().map(|table| Arc::clone(&table.handle)).collect(),
                has_range_tombstones: run.tables.iter().any(|meta| meta.range_tombstones > 0),
                has_expiring_entries: run.tables.iter().any(|meta| meta.expiring_entries > 0),
                largest_sequence: run
                    .tables
                    .iter()
                    .map(|meta| meta.largest_sequence.max(meta.ingested_sequence))
                    .max()
                    .unwrap_or(0),
                smallest_prefixes: run.tables.iter().map(smallest).collect(),
                largest_prefixes,
                _live: live,
            }
        })
        .collect()
}

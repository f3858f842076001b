//! What the engine has done since it was opened, in numbers.
//!
//! Invariant: counters only grow, and are relaxed: a reading is exact once the writers it should
//! include have returned.

use crate::keyspace::KeyspaceState;
use std::sync::atomic::{AtomicU64, Ordering};

/// The engine's own counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) user_bytes_written: AtomicU64,
    pub(crate) log_bytes_written: AtomicU64,
    pub(crate) log_syncs: AtomicU64,
    pub(crate) flush_bytes_written: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) compaction_bytes_read: AtomicU64,
    pub(crate) compaction_bytes_written: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) stall_micros: AtomicU64,
    pub(crate) expired_removed: AtomicU64,
}

/// A reading of the engine's counters: [`Db::stats`](crate::Db::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub(crate) user_bytes_written: u64,
    pub(crate) log_bytes_written: u64,
    pub(crate) log_syncs: u64,
    pub(crate) flush_bytes_written: u64,
    pub(crate) flushes: u64,
    pub(crate) compaction_bytes_read: u64,
    pub(crate) compaction_bytes_written: u64,
    pub(crate) compactions: u64,
    pub(crate) stall_micros: u64,
    pub(crate) expired_removed: u64,
    pub(crate) memtable_bytes: u64,
    pub(crate) block_cache_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) snapshots: u64,
    pub(crate) locks_held: u64,
    pub(crate) lock_waiters: u64,
    pub(crate) levels: Vec<LevelStats>,
}

/// One level of a keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Sorted runs.
    pub runs: usize,
    /// Tables.
    pub tables: usize,
    /// Bytes of the tables' files.
    pub bytes: u64,
    /// Point records, tombstones included.
    pub entries: u64,
}

/// What one keyspace holds: [`Keyspace::keyspace_stats`](crate::Keyspace::keyspace_stats). Told by
/// memtables and the manifest; no table is read for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceStats {
    memtable_bytes: u64,
    memtable_entries: u64,
    sealed_memtables: usize,
    levels: Vec<LevelStats>,
}

impl KeyspaceStats {
    pub(crate) fn of(state: &KeyspaceState) -> Self {
        let view = state.load();
        Self {
            memtable_bytes: memtable_bytes(state),
            memtable_entries: view.memtables().map(|memtable| memtable.entries()).sum(),
            sealed_memtables: view.sealed.len(),
            levels: levels(state),
        }
    }

    /// Bytes of its memtables.
    #[must_use]
    pub fn memtable_bytes(&self) -> u64 {
        self.memtable_bytes
    }

    /// Point records in its memtables, tombstones included.
    #[must_use]
    pub fn memtable_entries(&self) -> u64 {
        self.memtable_entries
    }

    /// Memtables that wait for their flush.
    #[must_use]
    pub fn sealed_memtables(&self) -> usize {
        self.sealed_memtables
    }

    /// Bytes of its tables' files.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }

    /// Its tables.
    #[must_use]
    pub fn tables(&self) -> usize {
        self.levels.iter().map(|level| level.tables).sum()
    }

    /// Its levels, newest first.
    #[must_use]
    pub fn levels(&self) -> &[LevelStats] {
        &self.levels
    }
}

/// Bytes of a keyspace's memtables.
pub(crate) fn memtable_bytes(state: &KeyspaceState) -> u64 {
    let view = state.load();
    view.memtables()
        .map(|memtable| memtable.bytes() as u64)
        .sum()
}

/// What each level of a keyspace holds.
pub(crate) fn levels(state: &KeyspaceState) -> Vec<LevelStats> {
    let view = state.load();
    let level_stats = |level: &esker_manifest::version::Level| {
        let tables = level.runs.iter().flat_map(|run| &run.tables);
        LevelStats {
            runs: level.runs.len(),
            tables: tables.clone().count(),
            bytes: tables.clone().map(|meta| meta.file_bytes).sum(),
            entries: tables.map(|meta| meta.entries).sum(),
        }
    };
    view.version.levels.iter().map(level_stats).collect()
}

macro_rules! readings {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        impl Stats {
            $($(#[$doc])* #[must_use] pub fn $name(&self) -> u64 { self.$name })*
        }
    };
}

readings! {
    /// Bytes of the write batches committed, as encoded.
    user_bytes_written;
    /// Bytes of records appended to the log.
    log_bytes_written;
    /// Syncs of the log.
    log_syncs;
    /// Bytes of tables written by flushes.
    flush_bytes_written;
    /// Flushes done.
    flushes;
    /// Bytes of tables read by compactions.
    compaction_bytes_read;
    /// Bytes of tables written by compactions.
    compaction_bytes_written;
    /// Compactions done, trivial moves included.
    compactions;
    /// Microseconds that writers were held back for flushes and compactions.
    stall_micros;
    /// Expired keys removed by clean-ups, asked for or in the background. Those that compaction
    /// drops are not counted.
    expired_removed;
    /// Bytes of all memtables.
    memtable_bytes;
    /// Bytes of blocks in the cache.
    block_cache_bytes;
    /// Bytes of memtables, allocated or kept for further ones, of blocks in the cache, of the indexes and
    /// filters of open tables, and of the files of a database in memory: what
    /// [`Options::memory_budget_bytes`](crate::Options::memory_budget_bytes) and
    /// [`Options::memory_limit_bytes`](crate::Options::memory_limit_bytes) limit.
    memory_bytes;
    /// Snapshots open, those of transactions included.
    snapshots;
    /// Locks that pessimistic transactions hold.
    locks_held;
    /// Pessimistic transactions that wait for a lock.
    lock_waiters;
}

impl Stats {
    /// Everything that was written to files: log, flushes and compactions.
    #[must_use]
    pub fn device_bytes_written(&self) -> u64 {
        self.log_bytes_written + self.flush_bytes_written + self.compaction_bytes_written
    }

    /// Device bytes per user byte; 0 before the first write.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        if self.user_bytes_written == 0 {
            return 0.0;
        }
        self.device_bytes_written() as f64 / self.user_bytes_written as f64
    }

    /// The levels of the default keyspace, newest first.
    #[must_use]
    pub fn levels(&self) -> &[LevelStats] {
        &self.levels
    }
}

impl Counters {
    /// The counters as they are now.
    pub(crate) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            user_bytes_written: get(&self.user_bytes_written),
            log_bytes_written: get(&self.log_bytes_written),
            log_syncs: get(&self.log_syncs),
            flush_bytes_written: get(&self.flush_bytes_written),
            flushes: get(&self.flushes),
            compaction_bytes_read: get(&self.compaction_bytes_read),
            compaction_bytes_written: get(&self.compaction_bytes_written),
            compactions: get(&self.compactions),
            stall_micros: get(&self.stall_micros),
            expired_removed: get(&self.expired_removed),
            ..Stats::default()
        }
    }
}

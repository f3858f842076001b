//! What stays when a simulated process dies: the disk, the time, and what the clients know.
//!
//! Invariant: options are a function of the seed, and small, so that a few dozen steps of a few
//! clients fill memtables, levels, logs and manifests.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use esker::{CompactionShape, Compression, Db, FilterKind, MemtableKind, Options};

use super::accounts::Accounts;
use super::client::Backup;
use super::feed::{self, Feed};
use super::scheduler::Scheduler;
use super::surroundings::{Interruptions, SimulatedClock, SimulatedExecutor};
use crate::disk::{CrashFileSystem, FaultFileSystem, FileSystem, Intercepted, MemFileSystem};
use crate::oracle::{Oracle, WriteId};
use crate::seed::Random;
use crate::step::{Action, Durability};

/// Where the database lives.
pub(crate) const DIRECTORY: &str = "/data/db";

/// Locks what only the holder of the baton touches.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one client knows of its writes: when each began and was answered, in events of the run, so
/// that writes of several clients can be put in order.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pub(crate) oracle: Oracle,
    pub(crate) spans: Vec<Span>,
}

#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) begun: u64,
    /// `None` for no answer, or an error.
    pub(crate) acknowledged: Option<u64>,
    pub(crate) is_volatile: bool,
}

impl Book {
    pub(crate) fn begin(
        &mut self,
        moment: usize,
        now: u64,
        event: u64,
        durability: Durability,
        actions: Vec<Action>,
    ) -> WriteId {
        self.spans.push(Span {
            begun: event,
            acknowledged: None,
            is_volatile: durability == Durability::Volatile,
        });
        self.oracle.begin(moment, now, durability, actions)
    }

    /// How many of the first writes include every one that was acknowledged before `event` and
    /// that the log kept.
    pub(crate) fn acknowledged_before(&self, event: u64) -> usize {
        let earlier = |span: &Span| {
            !span.is_volatile
                && span
                    .acknowledged
                    .is_some_and(|acknowledged| acknowledged < event)
        };
        self.spans.iter().rposition(earlier).map_or(0, |at| at + 1)
    }
}

/// A database, its disk and its clients.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) clock: Arc<SimulatedClock>,
    pub(crate) crashes: CrashFileSystem,
    pub(crate) faults: FaultFileSystem,
    pub(crate) disk: Arc<dyn FileSystem>,
    pub(crate) books: Vec<Arc<Mutex<Book>>>,
    pub(crate) accounts: Arc<Mutex<Accounts>>,
    /// Made in this life.
    pub(crate) backups: Arc<Mutex<Vec<Backup>>>,
    /// What the follower of the feed knows, where there is one; taken out by whoever follows.
    pub(crate) feed: Arc<Mutex<Option<Feed>>>,
    /// Whether the disk fails now and then in this life.
    pub(crate) is_faulty: bool,
    /// Writes that expire and are under way: while there are any, wall time stands still, so that
    /// oracle and engine mean the same moment.
    pub(crate) expiring: Arc<Mutex<usize>>,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        scheduler: &Arc<Scheduler>,
        clock: &Arc<SimulatedClock>,
        image: MemFileSystem,
        books: Vec<Book>,
        accounts: Accounts,
    ) -> Self {
        let crashes = CrashFileSystem::new(image);
        let faults = FaultFileSystem::new(Arc::new(crashes.clone()));
        let disk = Intercepted::around(Arc::new(faults.clone()), Interruptions);
        Self {
            seed,
            scheduler: Arc::clone(scheduler),
            clock: Arc::clone(clock),
            crashes,
            faults,
            disk: Arc::new(disk),
            books: books
                .into_iter()
                .map(|book| Arc::new(Mutex::new(book)))
                .collect(),
            accounts: Arc::new(Mutex::new(accounts)),
            backups: Arc::default(),
            feed: Arc::default(),
            is_faulty: false,
            expiring: Arc::default(),
        }
    }

    pub(crate) fn moment(&self) -> usize {
        self.crashes.operations()
    }

    pub(crate) fn open(&self) -> esker::Result<Db> {
        self.options().open(DIRECTORY)
    }

    pub(crate) fn open_copy(&self, directory: &Path) -> esker::Result<Db> {
        self.options().open(directory)
    }

    fn options(&self) -> Options {
        let mut random = Random::of_part(self.seed, 5);
        let shapes = [
            CompactionShape::Leveled,
            CompactionShape::Tiered,
            CompactionShape::LazyLeveled,
        ];
        let memtables = [MemtableKind::BTree, MemtableKind::SkipList];
        let filters = [FilterKind::Blocked, FilterKind::Standard];
        let compressions = [Compression::Lz4, Compression::None];
        Options::new()
            .file_system(Arc::clone(&self.disk))
            .clock(self.clock.clone())
            .executor(SimulatedExecutor::new(&self.scheduler))
            .compaction_shape(shapes[random.index(3)])
            .memtable(memtables[random.index(2)])
            .filter(filters[random.index(2)])
            .upper_compression(compressions[random.index(2)])
            .write_buffer_bytes([4 << 10, 8 << 10, 32 << 10][random.index(3)])
            .target_file_bytes([4 << 10, 16 << 10][random.index(2)])
            .block_bytes([256, 1024][random.index(2)])
            .level0_runs(1 + random.index(4))
            .size_ratio(2 + random.index(3))
            .tier_runs(2 + random.index(3))
            .max_sealed_memtables(1 + random.index(3))
            .background_threads(1 + random.index(3))
            .max_subcompactions(1 + random.index(3))
            .wal_size_limit_bytes([64 << 10, 256 << 10][random.index(2)])
            .wal_segment_bytes(24 << 10)
            .manifest_bytes([4 << 10, 64 << 10][random.index(2)])
            .cache_bytes([0, 8 << 10, 1 << 20][random.index(3)])
            .max_open_files([4, 64][random.index(2)])
            .value_separation_threshold_bytes([0, 1, 64][random.index(3)])
            .value_garbage_ratio([0.1, 0.5][random.index(2)])
            .wal_archive(feed::is_archived(self.seed))
    }
}

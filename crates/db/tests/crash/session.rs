//! A database under test together with the oracle that follows it.
//!
//! Invariant: whatever the engine answers is told to the oracle truthfully, with the moment of the
//! disk before and after; everything but the file system is a function of the seed.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker::{Clock, CompactionShape, Db, Keyspace, ManualClock, MemtableKind, Options, Snapshot};
use esker::{Severity, WriteBatch, WriteOptions};
use esker_compaction::ManualExecutor;
use esker_testkit::disk::FileSystem;
use esker_testkit::{Action, Crash, Durability, Loss, Oracle, Random, State, Step};

use crate::backups::Backups;
use crate::deed::{Deed, KEYSPACES};

/// Where the database of every test lives: two directories deep, both to be created.
pub(crate) const DIRECTORY: &str = "/data/db";
/// Beyond every key of the workloads.
const BEYOND: &[u8] = &[0xff; 9];

/// The moment of the disk: how many operations it has seen.
pub(crate) type Moment = Arc<dyn Fn() -> usize + Send + Sync>;

/// What is shared by all lives of one database.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) disk: Arc<dyn FileSystem>,
    pub(crate) moment: Moment,
    pub(crate) clock: Arc<ManualClock>,
}

impl World {
    pub(crate) fn new(seed: u64, disk: Arc<dyn FileSystem>, moment: Moment, millis: u64) -> Self {
        let clock = Arc::new(ManualClock::at_millis(millis));
        Self {
            seed,
            disk,
            moment,
            clock,
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now_millis()
    }

    /// Limits so small that everything happens within a few dozen steps. The seed decides the shape.
    pub(crate) fn options(&self) -> (Options, Arc<ManualExecutor>) {
        let mut random = Random::of_part(self.seed, 5);
        let shapes = [
            CompactionShape::Leveled,
            CompactionShape::Tiered,
            CompactionShape::LazyLeveled,
        ];
        let executor = Arc::new(ManualExecutor::new(self.seed));
        let kinds = [MemtableKind::BTree, MemtableKind::SkipList];
        let options = Options::new()
            .file_system(Arc::clone(&self.disk))
            .clock(self.clock.clone())
            .executor(executor.clone())
            .compaction_shape(shapes[random.index(3)])
            .memtable(kinds[random.index(2)])
            .write_buffer_bytes(4 << 10)
            .target_file_bytes(4 << 10)
            .block_bytes(256)
            .level0_runs(2)
            .size_ratio(2)
            .max_sealed_memtables(1 + random.index(3))
            .wal_size_limit_bytes(64 << 10)
            .wal_segment_bytes(24 << 10)
            .manifest_bytes(4 << 10)
            .cache_bytes(8 << 10)
            .wal_archive(self.seed % 2 == 1)
            .max_open_files(4)
            .value_separation_threshold_bytes([0, 16, 300][random.index(3)])
            .value_garbage_ratio([0.1, 0.5][random.index(2)]);
        (options, executor)
    }

    /// Opens or creates the database.
    pub(crate) fn open(&self, oracle: Oracle) -> esker::Result<Session> {
        let (options, executor) = self.options();
        let db = options.open(DIRECTORY)?;
        Ok(Session {
            world: self.clone(),
            executor,
            db,
            oracle,
            snapshots: Vec::new(),
            backups: Backups::default(),
            has_written: false,
        })
    }
}

/// One life of the database.
pub(crate) struct Session {
    pub(crate) world: World,
    executor: Arc<ManualExecutor>,
    pub(crate) db: Db,
    pub(crate) oracle: Oracle,
    snapshots: Vec<(usize, Snapshot, State)>,
    pub(crate) backups: Backups,
    has_written: bool,
}

impl Session {
    pub(crate) fn moment(&self) -> usize {
        (self.world.moment)()
    }

    /// Does `deed`; an error is the engine's answer. [`Step::Reopen`] is the caller's.
    pub(crate) fn run(&mut self, deed: &Deed) -> Result<(), Failure> {
        match deed {
            Deed::Step(step) => self.step(step),
            Deed::Ingest(keyspace, entries) => {
                let actions = entries
                    .iter()
                    .map(|(key, value)| Action::Put {
                        keyspace: *keyspace,
                        key: key.clone(),
                        value: value.clone(),
                        ttl_millis: None,
                    })
                    .collect();
                self.write(actions, Durability::Sync, |session| {
                    session
                        .keyspace(*keyspace)?
                        .ingest(entries.iter().map(|(k, v)| (k, v)))?;
                    Ok(())
                })
            }
            Deed::DropKeyspace(keyspace) => {
                let name = name(*keyspace);
                if !self.db.keyspace_names()?.contains(&name) {
                    return Ok(());
                }
                let everything = vec![everything(*keyspace)];
                self.snapshots.clear();
                self.write(everything, Durability::Sync, |s| s.db.drop_keyspace(&name))
            }
            Deed::Clear(keyspace) => {
                let everything = vec![everything(*keyspace)];
                self.write(everything, Durability::Sync, |session| {
                    session.keyspace(*keyspace)?.clear()
                })
            }
            Deed::RotateLog => Ok(self.db.wal().rotate()?),
            Deed::SyncLog => {
                self.db.wal().sync()?;
                self.made_durable()
            }
            Deed::ClearLog => {
                self.db.wal().clear()?;
                self.made_durable()
            }
            Deed::BackUp { number, is_point } => self.back_up(*number, *is_point),
            Deed::Restore(index) => self.restore(*index),
            Deed::DeleteBackup(index) => self.delete_backup(*index),
            Deed::RestoreLatest => self.restore_latest(),
            Deed::RestoreMoment(index) => self.restore_moment(*index),
            Deed::CleanUp => Ok(self.db.cleanup_expired().map(drop)?),
            Deed::Transaction { actions, disturbed } => self.transaction(actions, *disturbed),
            Deed::Work(jobs) => {
                (0..*jobs).for_each(|_| _ = self.executor.step());
                Ok(())
            }
        }
    }

    pub(crate) fn made_durable(&mut self) -> Result<(), Failure> {
        let moment = self.moment();
        self.oracle.flushed(moment);
        Ok(())
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Write {
                actions,
                durability,
            } => {
                let (asked, kept) = durability.for_batch(actions);
                let options = WriteOptions::new().durability(match asked {
                    Durability::Sync => esker::Durability::Sync,
                    Durability::Buffered => esker::Durability::Buffered,
                    Durability::Volatile => esker::Durability::Volatile,
                });
                let before = self.db.snapshot().sequence();
                self.write(actions.clone(), kept, |session| {
                    let batch = session.batch(actions)?;
                    session.db.write_opt(batch, &options)
                })?;
                self.note_moment(before);
                // Nothing is kept before the log has a segment: a keyspace can be dropped without one.
                self.has_written |= kept != Durability::Volatile;
            }
            Step::TakeSnapshot(number) => {
                let now = self.world.now();
                let state = self.oracle.state(now);
                self.snapshots.push((*number, self.db.snapshot(), state));
            }
            Step::ReleaseSnapshot(number) => {
                let (held, rest) = std::mem::take(&mut self.snapshots)
                    .into_iter()
                    .partition(|(it, ..)| it == number);
                self.snapshots = rest;
                for (_, snapshot, expected) in held {
                    self.compare_snapshot(&snapshot, &expected)?;
                }
            }
            Step::Flush => {
                self.db.flush()?;
                self.made_durable()?;
            }
            Step::Compact => {
                self.db.compact()?;
                self.made_durable()?;
            }
            Step::CompactRange { start, end, .. } => {
                // Flushes the default keyspace alone, and so makes no promise about the others.
                self.db.compact_range(start.clone()..end.clone())?;
            }
            Step::PassTime(millis) => self.world.clock.advance(Duration::from_millis(*millis)),
            Step::Check => self.compare()?,
            Step::Reopen => {}
        }
        Ok(())
    }

    /// A snapshot shows what was there when it was taken, but for what has expired since.
    fn compare_snapshot(&self, snapshot: &Snapshot, expected: &State) -> Result<(), Failure> {
        for entry in snapshot.iter() {
            let (key, value) = entry?;
            let known = expected.get(&(0, key.to_vec())).map(Vec::as_slice);
            if known != Some(&*value) {
                let key = key.escape_ascii();
                return Err(Failure::Wrong(format!("a snapshot moved at key {key}")));
            }
        }
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        actions: Vec<Action>,
        durability: Durability,
        call: impl FnOnce(&mut Self) -> esker::Result<()>,
    ) -> Result<(), Failure> {
        let (moment, now) = (self.moment(), self.world.now());
        let id = self.oracle.begin(moment, now, durability, actions);
        match call(self) {
            Ok(()) => {
                self.oracle.acknowledge(id, self.moment());
                Ok(())
            }
            Err(error) => {
                self.oracle.fail(id);
                Err(Failure::Refused(error))
            }
        }
    }

    fn batch(&self, actions: &[Action]) -> esker::Result<WriteBatch> {
        let mut batch = WriteBatch::new();
        for action in actions {
            match action {
                Action::Put {
                    keyspace,
                    key,
                    value,
                    ttl_millis,
                } => {
                    let keyspace = self.keyspace(*keyspace)?;
                    match ttl_millis {
                        Some(ttl) => {
                            let ttl = Duration::from_millis(*ttl);
                            batch.put_with_ttl_in(&keyspace, key, value, ttl);
                        }
                        None => batch.put_in(&keyspace, key, value),
                    }
                }
                Action::Delete { keyspace, key } => {
                    batch.delete_in(&self.keyspace(*keyspace)?, key);
                }
                Action::DeleteRange {
                    keyspace,
                    start,
                    end,
                } => {
                    let keyspace = self.keyspace(*keyspace)?;
                    batch.delete_range_in(&keyspace, start.clone()..end.clone());
                }
            }
        }
        Ok(batch)
    }

    pub(crate) fn keyspace(&self, keyspace: u32) -> esker::Result<Keyspace> {
        match keyspace {
            0 => Ok((*self.db).clone()),
            other => self.db.keyspace(&name(other)),
        }
    }

    /// Compares what a reader sees, both ways and key by key, with what the oracle expects.
    pub(crate) fn compare(&self) -> Result<(), Failure> {
        let found = read(&self.db)?;
        let expected = self.oracle.state(self.world.now());
        if found != expected {
            return Err(Failure::Wrong(differences(&found, &expected)));
        }
        Ok(())
    }

    /// Lets everything that waits in the background run.
    pub(crate) fn settle(&self) {
        while self.executor.step() {}
    }

    /// Whether this life has logged a write, and so has what it keeps for a full disk.
    pub(crate) fn has_written(&self) -> bool {
        self.has_written
    }

    /// Closes the database; the answer of the close.
    pub(crate) fn close(&mut self) -> esker::Result<()> {
        self.snapshots.clear();
        self.db.close()
    }

    /// What an oracle makes of the state that this life found after `crash`.
    pub(crate) fn judge(&self, oracle: &Oracle, crash: &Crash) -> Result<Oracle, Failure> {
        let found = read(&self.db)?;
        let outcome = oracle
            .check(&found, crash)
            .map_err(|violation| Failure::Wrong(violation.to_string()))?;
        Ok(oracle.recovered(&outcome))
    }

    /// Goes through the whole state once more: everything is as the manifest says, and nothing lies
    /// about that it does not name.
    pub(crate) fn validate(&self) -> Result<(), Failure> {
        let report = self.db.validate()?;
        // A crash may take from the archive what tells why writes are missing (a restore, for instance), and
        // leaves in the store of backups what one had copied: the next backup removes that.
        let is_expected = |issue: &&esker::Issue| {
            let mut parts = issue.file().into_iter().flat_map(|file| file.components());
            let is_beside = |part: &OsStr| part == "archive" || part == "backups";
            issue.severity() == Severity::Note && parts.any(|part| is_beside(part.as_os_str()))
        };
        if let Some(issue) = report.issues().iter().find(|issue| !is_expected(issue)) {
            return Err(Failure::Wrong(format!("validation found {issue:?}")));
        }
        Ok(())
    }

    /// Counts files by kind after an open: those of a database, and no other.
    pub(crate) fn no_strays(&self) -> Result<(), Failure> {
        let entries = self.world.disk.read_dir(Path::new(DIRECTORY));
        let entries = entries.map_err(|error| Failure::Wrong(error.to_string()))?;
        let names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
        let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).count() as u64;
        let manifests = names
            .iter()
            .filter(|name| name.starts_with("MANIFEST"))
            .count();
        let segments = self.db.recovery_state().wal_segments_read();
        let backups = usize::from(names.iter().any(|name| name == "backups"));
        let archives = usize::from(names.iter().any(|name| name == "archive"));
        let files = ending(".wal") as usize + ending(".sst") as usize;
        let known = 2 + 1 + files + backups + archives;
        if manifests != 1 || ending(".wal") != segments || names.len() != known {
            return Err(Failure::Wrong(format!(
                "strays among {names:?}, {segments} segments"
            )));
        }
        Ok(())
    }
}

fn name(keyspace: u32) -> String {
    format!("keyspace {keyspace}")
}

pub(crate) fn everything(keyspace: u32) -> Action {
    Action::DeleteRange {
        keyspace,
        start: Vec::new(),
        end: BEYOND.to_vec(),
    }
}

/// Everything in the database: forwards, compared with backwards and with a look at each key.
pub(crate) fn read(db: &Db) -> Result<State, Failure> {
    let mut state = State::new();
    let mut keyspaces = vec![(0, (**db).clone())];
    for keyspace in 1..KEYSPACES {
        let name = name(keyspace);
        if db.keyspace_names()?.contains(&name) {
            keyspaces.push((keyspace, db.keyspace(&name)?));
        }
    }
    for (number, keyspace) in keyspaces {
        let before = state.len();
        for entry in keyspace.iter() {
            let (key, value) = entry?;
            let found = keyspace.get(&key)?;
            if found.as_deref() != Some(&*value) {
                let key = key.escape_ascii();
                return Err(Failure::Wrong(format!(
                    "a scan finds {key}, a get does not"
                )));
            }
            state.insert((number, key.to_vec()), value.to_vec());
        }
        let mut backwards = 0;
        for entry in keyspace.iter().rev() {
            let (key, value) = entry?;
            backwards += 1;
            if state.get(&(number, key.to_vec())).map(Vec::as_slice) != Some(&*value) {
                let key = key.escape_ascii();
                return Err(Failure::Wrong(format!(
                    "backwards finds {key}, forwards not"
                )));
            }
        }
        if backwards != state.len() - before {
            return Err(Failure::Wrong(
                "backwards finds fewer keys than forwards".into(),
            ));
        }
    }
    Ok(state)
}

fn differences(found: &State, expected: &State) -> String {
    let shown = |key: &(u32, Vec<u8>)| format!("{}/{}", key.0, key.1.escape_ascii());
    let missing = expected
        .keys()
        .filter(|key| !found.contains_key(*key))
        .map(shown);
    let extra = found
        .keys()
        .filter(|key| !expected.contains_key(*key))
        .map(shown);
    let differs = |(key, value): &(&(u32, Vec<u8>), &Vec<u8>)| {
        expected.get(*key).is_some_and(|it| it != *value)
    };
    let other = found.iter().filter(differs).map(|(key, _)| shown(key));
    format!(
        "missing {:?}, too many {:?}, another value {:?}",
        missing.collect::<Vec<_>>(),
        extra.collect::<Vec<_>>(),
        other.collect::<Vec<_>>()
    )
}

/// A power loss or the end of the process, after so many operations.
pub(crate) fn crash(moment: usize, loss: Loss, now_millis: u64) -> Crash {
    Crash {
        moment,
        loss,
        now_millis,
    }
}

/// Why a deed did not go well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine said so, which a fault may excuse.
    Refused(esker::Error),
    /// What was found is wrong, which nothing excuses.
    Wrong(String),
}

impl From<esker::Error> for Failure {
    fn from(error: esker::Error) -> Self {
        Self::Refused(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => {
                write!(f, "refused: {error}")?;
                let source = std::error::Error::source(error);
                source.map_or(Ok(()), |source| write!(f, ": {source}"))
            }
            Self::Wrong(sentence) => f.write_str(sentence),
        }
    }
}

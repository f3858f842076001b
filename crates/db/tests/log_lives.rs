//! Random lives of a database whose log is written late: segments that grow while the next one is not ready, an archive, a
//! change cursor that comes and goes, backups and recovery points, faults, ends of the process and losses of power.
//!
//! Every write puts its number under one key of two keyspaces, or of the only one. So what is there is known to be a prefix of the
//! acknowledged writes, whole and with all that was synced; the feed of the cursor must tell of exactly that, and a
//! restore to the end of the log must bring it back. A failing seed runs alone with `ESKER_SEED`, and `ESKER_SEEDS=500`
//! tries as many.
#![allow(clippy::unwrap_used)]

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, ImagePolicy, MemFileSystem, OperationKind,
};
use esker::{
    Db, Durability, ManualClock, Operation, Options, RestorePoint, RuntimeOptions, WriteBatch,
    WriteOptions,
};
use esker_compaction::ManualExecutor;
use esker_testkit::seed::{Random, seeds};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the world of a seed is like.
#[derive(Clone, Copy)]
struct Kind {
    archive: bool,
    has_faults: bool,
    write_buffer_bytes: usize,
    /// There is one keyspace, so that the log can go on in a new segment with each of its memtables.
    is_alone: bool,
    /// The background has done nearly everything before the next write.
    is_prompt: bool,
    /// One write of so many is synced.
    writes_to_a_sync: u64,
}

impl Kind {
    fn of(random: &mut Random) -> Self {
        let manner = random.below(4);
        Self {
            archive: random.below(2) == 0,
            has_faults: random.below(2) == 0,
            write_buffer_bytes: match manner {
                0 => 40 << 10,
                _ => (96 << 10) << random.below(3),
            },
            is_alone: manner == 0,
            is_prompt: manner <= 1,
            writes_to_a_sync: [2, 10, 40][random.index(3)],
        }
    }
}

/// From an open to the end of the process.
struct Life {
    db: Db,
    late: Arc<ManualExecutor>,
    faults: FaultFileSystem,
    clock: Arc<ManualClock>,
}

impl Life {
    fn open(disk: &CrashFileSystem, kind: Kind) -> Self {
        let late = Arc::new(ManualExecutor::new(0));
        let faults = FaultFileSystem::new(Arc::new(disk.clone()));
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let db = Options::new()
            .file_system(Arc::new(faults.clone()))
            .executor(Arc::clone(&late) as Arc<_>)
            .clock(Arc::clone(&clock) as Arc<_>)
            .wal_segment_bytes(16 << 10)
            .wal_size_limit_bytes(768 << 10)
            .write_buffer_bytes(kind.write_buffer_bytes)
            .wal_archive(kind.archive)
            .open("/db")
            .unwrap();
        if !kind.is_alone {
            db.keyspace("other").unwrap();
        }
        Self {
            db,
            late,
            faults,
            clock,
        }
    }

    /// The process ends, with nothing written any more.
    fn kill(self) {
        self.faults
            .set_plan(|_, _| Some(Fault::Refuse(DeviceError::Io)));
        drop(self.db);
        while self.late.step() {}
    }

    /// The background does what it has to, or most of it, where it is not late.
    fn settle(&self, random: &mut Random, kind: Kind) {
        while kind.is_prompt && random.below(30) > 0 && self.late.step() {}
    }

    /// Some of the next operations fail. Not reads: what cannot be read is not archived.
    fn disturb(&self, random: &mut Random) {
        let from = self.faults.operations() + random.below(12);
        let to = from + [1, 2, 10, 40][random.index(4)];
        let every = 1 + random.below(3);
        let error = [DeviceError::Io, DeviceError::NoSpace][random.index(2)];
        let fault = match random.below(4) {
            0 => Fault::Deny(error),
            1 => Fault::Partly(error, random.below(3000)),
            _ => Fault::Refuse(error),
        };
        self.faults.set_plan(move |index, operation| {
            let is_hit = (from..to).contains(&index) && index % every == 0;
            let reads = [OperationKind::Read, OperationKind::OpenRead];
            (is_hit && !reads.contains(&operation.kind)).then_some(fault)
        });
    }
}

/// What was written, and how much of it must be there after so many operations of the disk.
#[derive(Clone, Default)]
struct Story {
    written: u32,
    failed: BTreeSet<u32>,
    synced: Vec<(usize, u32)>,
}

impl Story {
    fn synced_at(&self, operation: usize) -> u32 {
        let before = self.synced.iter().rev().find(|(at, _)| *at <= operation);
        before.map_or(0, |(_, synced)| *synced)
    }

    fn write(&mut self, life: &Life, disk: &CrashFileSystem, random: &mut Random, kind: Kind) {
        let number = self.written;
        let durability = match random.below(kind.writes_to_a_sync) {
            0 => Durability::Sync,
            _ => Durability::Buffered,
        };
        let bytes = match kind.is_alone {
            true => [20, 500, 1000, 2000, 3000, 5000],
            false => [20, 20, 500, 3000, 9000, 20_000],
        };
        let bytes = bytes[random.index(6)];
        let mut batch = WriteBatch::new();
        batch.put(number.to_be_bytes(), vec![number as u8; bytes]);
        if !kind.is_alone {
            let other = life.db.keyspace("other").unwrap();
            batch.put_in(&other, number.to_be_bytes(), number.to_be_bytes());
        }
        let how = WriteOptions::new().durability(durability);
        let outcome = life.db.write_opt(batch, &how);
        life.clock.advance(Duration::from_millis(60));
        self.written += 1;
        if outcome.is_err() {
            self.failed.insert(number);
        } else if durability == Durability::Sync {
            self.synced.push((disk.operations(), self.written));
        }
    }

    /// Compares a database that was just opened; what is there. All before `sure` must be, but for what failed.
    fn compare(&self, life: &Life, sure: u32, place: &str) -> BTreeSet<u32> {
        let db = &life.db;
        let there = numbers(db, place);
        let last = there.iter().rev().find(|it| !self.failed.contains(it));
        let end = last.map_or(0, |last| last + 1).max(sure);
        let missing = (0..end).find(|it| !there.contains(it) && !self.failed.contains(it));
        assert_eq!(missing, None, "of {end}, {sure} for certain: {place}");
        assert!(there.last().is_none_or(|last| *last < self.written));
        let report = db.validate().unwrap();
        assert!(report.is_ok(), "{place}: {:?}", report.issues());
        for backup in db.list_backups().unwrap() {
            let report = db.verify_backup(backup.name()).unwrap();
            assert!(report.is_ok(), "{place}: {:?}", report.issues());
        }
        for cursor in db.change_cursors().unwrap() {
            let told = told(db, cursor.name(), place);
            let first = told.first().copied().unwrap_or(u32::MAX);
            let expected: BTreeSet<u32> = there.range(first..).copied().collect();
            assert_eq!(told, expected, "the feed: {place}");
        }
        there
    }
}

/// The numbers of the writes that are there, which are whole.
fn numbers(db: &Db, place: &str) -> BTreeSet<u32> {
    let number_of = |key: &[u8]| u32::from_be_bytes(key.try_into().unwrap());
    let mut there = BTreeSet::new();
    for entry in db.iter() {
        let (key, value) = entry.unwrap();
        let number = number_of(&key);
        assert!(value.iter().all(|byte| *byte == number as u8), "{place}");
        there.insert(number);
    }
    let names = db.keyspace_names().unwrap();
    if names.iter().any(|name| name == "other") {
        let other = db.keyspace("other").unwrap();
        let others = other.iter().map(|entry| number_of(&entry.unwrap().0));
        assert_eq!(others.collect::<BTreeSet<_>>(), there, "halves: {place}");
    }
    there
}

/// The numbers of the writes that a cursor's feed tells of.
fn told(db: &Db, cursor: &str, place: &str) -> BTreeSet<u32> {
    let mut told = BTreeSet::new();
    for batch in db.change_cursor(cursor).unwrap().changes().unwrap() {
        let batch = batch.unwrap_or_else(|error| panic!("the feed: {place}: {error}"));
        let Some(Operation::Put { key, .. }) = batch.changes().next().map(|it| it.operation())
        else {
            panic!("another operation: {place}");
        };
        let number = u32::from_be_bytes(key.try_into().unwrap());
        assert!(told.last().is_none_or(|last| *last < number), "{place}");
        told.insert(number);
    }
    told
}

/// What the archive has brings back what is there.
fn restore(life: &Life, there: &BTreeSet<u32>, target: &str, place: &str) {
    let restored = life.db.restore_into(&RestorePoint::Latest, target);
    restored.unwrap_or_else(|error| panic!("the restore: {place}: {error}"));
    let options = Options::new().file_system(Arc::new(life.faults.clone()));
    let restored = options.open(Path::new(target)).unwrap();
    assert_eq!(&numbers(&restored, place), there, "the restore: {place}");
}

/// Something else than a write. Faults may keep it from being done.
fn deed(life: &Life, random: &mut Random) {
    let db = &life.db;
    let _ = match random.below(40) {
        0 => db.flush(),
        1 | 2 => db.create_change_cursor("reader").map(drop),
        3 => db.delete_change_cursor("reader"),
        4 => db.create_recovery_point("").map(drop),
        5 => db.create_backup("").map(drop),
        6 => {
            let bytes = [16 << 10, 24 << 10, 32 << 10][random.index(3)];
            db.set_options(&RuntimeOptions::new().wal_segment_bytes(bytes))
        }
        7 => db.validate().map(drop),
        8 => db.wal().clear(),
        9 => db.compact(),
        10 | 11 => {
            life.late.step();
            Ok(())
        }
        _ => Ok(()),
    };
}

/// Writes, and opens again where the process ends or the database is closed.
fn live(seed: u64, random: &mut Random, kind: Kind) -> (CrashFileSystem, Story) {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let mut life = Life::open(&disk, kind);
    let mut story = Story::default();
    story.synced.push((disk.operations(), 0));
    for _ in 0..120 {
        story.write(&life, &disk, random, kind);
        if kind.has_faults && random.below(15) == 0 {
            life.disturb(random);
        }
        deed(&life, random);
        life.settle(random, kind);
        let is_closed = match random.below(50) {
            0 => {
                life.kill();
                false
            }
            1 => life.db.close().is_ok(),
            _ => continue,
        };
        life = Life::open(&disk, kind);
        let place = format!("seed {seed}, opened again after {}", story.written);
        story.compare(&life, story.written, &place);
        if is_closed {
            story.synced.push((disk.operations(), story.written));
        }
    }
    life.kill();
    (disk, story)
}

/// Opens what the power has left, goes on, and loses the power once more.
fn after_power_loss(
    (story, sure): (&Story, u32),
    image: MemFileSystem,
    (random, kind): (&mut Random, Kind),
    place: &str,
) {
    let disk = CrashFileSystem::new(image);
    let life = Life::open(&disk, kind);
    let there = story.compare(&life, sure, place);
    if kind.archive {
        restore(&life, &there, "/restored", place);
    }
    let written = there.last().map_or(0, |last| last + 1);
    let sure = sure.min(written);
    let mut next = Story {
        written,
        failed: (0..written).filter(|it| !there.contains(it)).collect(),
        synced: vec![(0, sure)],
    };
    for _ in 0..25 {
        next.write(&life, &disk, random, kind);
        if random.below(20) == 0 {
            life.late.step();
        }
        life.settle(random, kind);
    }
    life.kill();
    let at = random.index(disk.operations() + 1);
    let policy = ImagePolicy::from_seed(random.next_u64());
    let place = format!("{place}; again at {at}, {policy}");
    let life = Life::open(&CrashFileSystem::new(disk.image(at, &policy)), kind);
    let there = next.compare(&life, next.synced_at(at), &place);
    if kind.archive {
        restore(&life, &there, "/restored again", &place);
    }
    life.kill();
}

fn run(seed: u64) {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let kind = Kind::of(&mut random);
    let (disk, story) = live(seed, &mut random, kind);
    let mut replay = disk.replay();
    let first = story.synced[0].0;
    let mut moments: Vec<_> = (0..6)
        .map(|_| first + random.index(replay.operations() + 1 - first))
        .collect();
    moments.sort_unstable();
    for at in moments {
        for turn in 0..3 {
            let policy = match turn {
                0 => ImagePolicy::ONLY_SYNCED,
                _ => ImagePolicy::from_seed(random.next_u64()),
            };
            let place = format!("seed {seed}, at {at}, {policy}");
            let known = (&story, story.synced_at(at));
            let image = replay.image(at, &policy);
            after_power_loss(known, image, (&mut random, kind), &place);
        }
    }
}

#[test]
fn every_life_finds_what_the_one_before_has_acknowledged() {
    let count = if cfg!(debug_assertions) { 16 } else { 200 };
    seeds(count).for_each(run);
}

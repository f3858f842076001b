//! A log that has failed: what memtables hold becomes durable in tables all at once, so that no loss of
//! power on the way leaves half a batch or a later write without an earlier one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FaultRule, ImagePolicy, MemFileSystem,
    OperationKind,
};
use esker::{Db, Durability, ManualClock, Options, WriteBatch, WriteOptions};

const HOME: &str = "/db";
const KEYSPACES: [&str; 4] = ["default", "bills", "parts", "stock"];

/// Writes `number` under one key in each keyspace, as one batch.
fn write_everywhere(db: &Db, number: u32, durability: Durability) -> esker::Result<()> {
    let mut batch = WriteBatch::new();
    for name in KEYSPACES {
        batch.put_in(&db.keyspace(name).unwrap(), "number", number.to_be_bytes());
    }
    db.write_opt(batch, &WriteOptions::new().durability(durability))
}

/// The number that all keyspaces hold.
fn number(db: &Db) -> u32 {
    let numbers = KEYSPACES.map(|name| {
        let value = db.keyspace(name).unwrap().get("number").unwrap();
        value.map_or(0, |value| u32::from_be_bytes((*value).try_into().unwrap()))
    });
    assert!(numbers.iter().all(|it| *it == numbers[0]), "{numbers:?}");
    numbers[0]
}

/// Each keyspace's memtable was once made durable by an edit of its own: a loss of power between two of
/// them tore the batches that were acknowledged as buffered.
#[test]
fn a_loss_of_power_during_the_cure_leaves_batches_whole() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = Options::new().file_system(Arc::new(faulty.clone()));
    let db = options.clock(clock.clone()).open(HOME).unwrap();
    write_everywhere(&db, 1, Durability::Sync).unwrap();
    for later in 2..10 {
        write_everywhere(&db, later, Durability::Buffered).unwrap();
    }
    let failed = FaultRule::new(Fault::Refuse(DeviceError::Io))
        .path_contains(".wal")
        .on(&[OperationKind::Sync]);
    faulty.add_rule(failed);
    write_everywhere(&db, 99, Durability::Sync).unwrap_err();
    assert_eq!(number(&db), 9, "what was refused is not seen");
    faulty.clear();
    let failed_at = disk.operations();
    clock.advance(Duration::from_secs(1));
    write_everywhere(&db, 10, Durability::Sync).unwrap();
    let cured_at = disk.operations();
    assert!(cured_at > failed_at + 8, "several tables were written");

    let mut replay = disk.replay();
    for moment in failed_at..=cured_at {
        let policies = (0..4).map(|seed| ImagePolicy::from_seed(moment as u64 * 4 + seed));
        for policy in policies.chain([ImagePolicy::ONLY_SYNCED, ImagePolicy::PROCESS_END]) {
            let image = replay.image(moment, &policy);
            let recovered = Options::new().file_system(Arc::new(image));
            let recovered = recovered.open(HOME).unwrap();
            let found = number(&recovered);
            assert!(
                (1..=10).contains(&found) || found == 99,
                "{found}, {policy}"
            );
            assert!(moment < cured_at || found == 10, "{found}, {policy}");
            assert!(recovered.validate().unwrap().issues().is_empty());
        }
    }
}

/// Without a log only one flush for all could keep a batch over several keyspaces whole.
#[test]
fn what_is_volatile_over_several_keyspaces_is_logged() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let options = |disk: Arc<CrashFileSystem>| Options::new().file_system(disk);
    let db = options(Arc::new(disk.clone())).open(HOME).unwrap();
    write_everywhere(&db, 1, Durability::Sync).unwrap();
    write_everywhere(&db, 2, Durability::Volatile).unwrap();
    db.keyspace("bills").unwrap().flush().unwrap();
    for policy in [ImagePolicy::ONLY_SYNCED, ImagePolicy::PROCESS_END] {
        let image = CrashFileSystem::new(disk.image(disk.operations(), &policy));
        assert_eq!(number(&options(Arc::new(image)).open(HOME).unwrap()), 2);
    }
}

/// A sync that was done and could not be noted in the log is the business of the next write: it was told
/// the error of the note, though the disk had been well again for long, and only the one after it was
/// taken.
#[test]
fn a_sync_that_could_not_be_noted_is_told_to_no_write() {
    let mut after_success = 0;
    for failing in 0.. {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let options = Options::new().file_system(Arc::new(faulty.clone()));
        let db = options.clock(clock.clone()).open(HOME).unwrap();
        let durability = WriteOptions::new().durability(Durability::Sync);
        db.put_opt("a", "1", &durability).unwrap();
        faulty.fail_at(
            faulty.operations() + failing,
            Fault::Refuse(DeviceError::Io),
        );
        // Buffered first, so that the sync is one of its own, with a note.
        db.put_opt(
            "b",
            "2",
            &WriteOptions::new().durability(Durability::Buffered),
        )
        .ok();
        let synced = db.put_opt("c", "3", &durability);
        let has_failed = faulty.faults() > 0;
        faulty.clear();
        if !has_failed {
            synced.unwrap();
            break;
        }
        after_success += u32::from(synced.is_ok());
        clock.advance(Duration::from_secs(1));
        db.put_opt("d", "4", &durability)
            .unwrap_or_else(|error| panic!("operation {failing}: {error}"));
        let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
        let recovered = Options::new().file_system(Arc::new(image));
        let recovered = recovered.open(HOME).unwrap();
        assert!(recovered.get("d").unwrap().is_some());
        assert!(synced.is_err() || recovered.get("c").unwrap().is_some());
    }
    assert!(after_success > 0, "no note of a sync failed");
}

/// The sync of the end record of the last life's log had failed, and was asked for once more by the next
/// write: it said that all was well, as Linux does, though the end record was lost. After a loss of power
/// the log ended there, and synced writes of the segment behind it were gone without a word; or, where the
/// note had survived that told of the lost bytes, the database did not open.
#[test]
fn the_log_of_the_last_life_is_not_synced_again_after_a_failed_sync() {
    let durability = WriteOptions::new().durability(Durability::Sync);
    let mut refused = 0;
    for failing in 0.. {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let first = FaultFileSystem::new(Arc::new(disk.clone()));
        let options = Options::new().file_system(Arc::new(first.clone()));
        let db = options.open(HOME).unwrap();
        db.put_opt("a", "1", &durability).unwrap();
        // The process ends: what it left to the operating system is not on stable storage.
        first.set_plan(|_, _| Some(Fault::Refuse(DeviceError::Io)));
        drop(db);

        let second = FaultFileSystem::new(Arc::new(disk.clone()));
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let options = Options::new().file_system(Arc::new(second.clone()));
        let db = options.clock(clock.clone()).open(HOME).unwrap();
        let failed = FaultRule::new(Fault::Refuse(DeviceError::Io))
            .path_contains(".wal")
            .on(&[OperationKind::Sync])
            .after(failing)
            .times(1);
        second.add_rule(failed);
        let outcome = db.put_opt("b", "2", &durability);
        let has_failed = second.faults() > 0;
        second.clear();
        refused += u32::from(outcome.is_err());
        clock.advance(Duration::from_secs(1));
        db.put_opt("c", "3", &durability).unwrap();
        for policy in [ImagePolicy::ONLY_SYNCED, ImagePolicy::PROCESS_END]
            .into_iter()
            .chain((0..8).map(ImagePolicy::from_seed))
        {
            let image = disk.image(disk.operations(), &policy);
            let left = Options::new().file_system(Arc::new(image)).open(HOME);
            let left = left.unwrap_or_else(|error| panic!("sync {failing}, {policy}: {error}"));
            assert!(left.get("a").unwrap().is_some() && left.get("c").unwrap().is_some());
            assert!(outcome.is_err() || left.get("b").unwrap().is_some());
        }
        if !has_failed {
            break;
        }
    }
    assert!(refused > 1, "{refused} writes met a failed sync");
}

//! One failing operation at every place while the log is archived, and then a loss of power: the history
//! from the backup on has no gap.
//!
//! The story: the name of an archived segment was not yet durable when the sync of the directory failed;
//! the next attempt found the file in its place, had nothing to do, and the manifest forgot the segment.
//! And a write that had failed was in its segment nevertheless: the archive told of it for ever.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FileSystem, ImagePolicy, MemFileSystem,
};
use esker::{Db, Options, RestorePoint};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const HOME: &str = "/db";
const ROUNDS: u8 = 3;

fn options(disk: Arc<dyn FileSystem>) -> Options {
    Options::new()
        .file_system(disk)
        .wal_archive(true)
        .wal_segment_bytes(16 << 10)
        .wal_size_limit_bytes(64 << 10)
        .ttl_cleanup_interval(None)
}

fn contents(db: &Db) -> Map {
    let entries = db.iter().map(Result::unwrap);
    entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

/// Rounds of writes, each of which ends in the archive; how many operations the disk had seen after each.
fn write_and_archive(db: &Db, disk: &CrashFileSystem) -> Vec<usize> {
    let round = |round: u8| {
        for number in 0..4u8 {
            let _ = db.put([round, number], vec![round; 3000]);
        }
        // The first attempt may meet the fault; the next one must do what is left.
        for _ in 0..2 {
            let _ = db.wal().rotate();
            let _ = db.flush();
        }
        disk.operations()
    };
    (0..ROUNDS).map(round).collect()
}

/// That a restore of everything since the backup gives what is there after a loss of power.
fn check(disk: &CrashFileSystem, operations: usize, place: &str) {
    let image = disk.image(operations, &ImagePolicy::ONLY_SYNCED);
    let image: Arc<dyn FileSystem> = Arc::new(image);
    let left = options(Arc::clone(&image)).open(HOME).unwrap();
    let restored = left.restore_into(&RestorePoint::Latest, "/copy");
    restored.unwrap_or_else(|error| panic!("{place}: {error}"));
    let copy = options(image).open("/copy").unwrap();
    let keys = |db: &Db| contents(db).into_keys().collect::<Vec<_>>();
    assert_eq!(keys(&copy), keys(&left), "{place}");
}

#[test]
fn what_the_manifest_forgot_is_in_the_archive() {
    for fails_at in 0.. {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
        let db = options(Arc::new(faulty.clone())).open(HOME).unwrap();
        db.put("before", "the backup").unwrap();
        db.create_backup("the base").unwrap();
        let begin = faulty.operations();
        faulty.set_plan(move |index, _| {
            (index == begin + fails_at).then_some(Fault::Refuse(DeviceError::Io))
        });
        let rounds = write_and_archive(&db, &disk);
        let has_ended = faulty.faults() == 0;
        drop(db);
        for (round, operations) in rounds.into_iter().enumerate() {
            let place = format!("a fault at operation {fails_at}, round {round}");
            check(&disk, operations, &place);
        }
        if has_ended {
            assert!(fails_at > 40, "only {fails_at} operations");
            break;
        }
    }
}

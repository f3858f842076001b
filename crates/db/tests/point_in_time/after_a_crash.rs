//! Restores of what a crash has left.

use super::{BEGIN_MILLIS, COPY, HOME, World, contents};
use esker::vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem};
use esker::{ManualClock, RestorePoint};
use std::path::Path;
use std::sync::Arc;

/// The database as it was when the disk lost its power, with only what was synced.
fn after_power_loss(disk: &CrashFileSystem) -> World {
    let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
    World {
        fs: Arc::new(image),
        clock: Arc::new(ManualClock::at_millis(BEGIN_MILLIS + 60_000)),
    }
}

/// The story: a keyspace was dropped, durably, and the power went before the mark that says so in the log.
/// Nobody wrote in the next life, so no mark of that one said it either, and a restore to the end of the
/// log brought the keyspace back with all that it had held.
#[test]
fn a_keyspace_that_was_dropped_before_a_crash_stays_gone_at_the_end_of_the_log() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let world = World {
        fs: Arc::new(disk.clone()),
        ..World::new()
    };
    world.fs.create_dir_all(Path::new(HOME)).unwrap();
    let db = world.open();
    db.put("kept", "value").unwrap();
    db.keyspace("passing").unwrap().put("key", "value").unwrap();
    db.drop_keyspace("passing").unwrap();
    // Came without anybody writing to it, and is not forgotten either.
    db.keyspace("empty").unwrap();
    let names = db.keyspace_names().unwrap();
    let left = after_power_loss(&disk);
    drop(db);

    // What is there without the database being opened, for which nobody can write a mark.
    let source = left.source();
    source.restore(&RestorePoint::Latest, COPY).unwrap();
    let copy = left.options().open(COPY).unwrap();
    assert_eq!(copy.keyspace_names().unwrap(), names);
    drop(copy);
    left.remove(Path::new(COPY));

    let db = left.open();
    let before = contents(&db);
    assert_eq!(db.keyspace_names().unwrap(), names);
    let now = RestorePoint::Time(BEGIN_MILLIS + 120_000);
    for point in [RestorePoint::Latest, now] {
        assert_eq!(left.restored(&db, &point).1, before, "{point:?}");
        db.restore_into(&point, COPY).unwrap();
        let copy = left.options().open(COPY).unwrap();
        assert_eq!(copy.keyspace_names().unwrap(), names, "{point:?}");
        drop(copy);
        left.remove(Path::new(COPY));
    }
    db.restore_to_point(&RestorePoint::Latest).unwrap();
    assert_eq!(contents(&db), before);
    assert_eq!(db.keyspace_names().unwrap(), names);
}

/// The story: a write failed after all of it had been written, its segment was archived without it, and the
/// power went before the manifest let go of the segment. The next life found the write in the log and took it
/// up; restores read the archived copy, which holds less, and answered `Gap`. Feeds read the log.
#[test]
fn of_two_copies_of_a_segment_the_one_that_holds_more_is_read() {
    const ARCHIVE: &str = "/db/archive";
    let begun = || {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        disk.create_dir_all(Path::new(HOME)).unwrap();
        let world = World {
            fs: Arc::new(disk.clone()),
            ..World::new()
        };
        let db = world.open();
        db.put("first", "1").unwrap();
        (disk, world, db)
    };
    let (_, without, db) = begun();
    db.close().unwrap();
    let (disk, _, db) = begun();
    db.put("second", "2").unwrap();
    db.wal().sync().unwrap();
    let world = after_power_loss(&disk);
    drop(db);
    world.fs.create_dir_all(Path::new(ARCHIVE)).unwrap();
    for entry in without.fs.read_dir(Path::new(ARCHIVE)).unwrap() {
        let path = Path::new(ARCHIVE).join(&entry.name);
        let mut bytes = vec![0; usize::try_from(entry.bytes).unwrap()];
        let from = without.fs.open_read(&path).unwrap();
        from.read_exact_at(&mut bytes, 0).unwrap();
        let copy = world.fs.create(&path).unwrap();
        copy.write_at(0, &bytes).unwrap();
    }
    let copied = world.fs.read_dir(Path::new(ARCHIVE)).unwrap();
    assert_eq!(copied.len(), 1, "{copied:?}");

    world.source().restore(&RestorePoint::Latest, COPY).unwrap();
    assert_eq!(world.look_at_copy()["default"].len(), 2);
    let db = world.open();
    assert_eq!(world.restored(&db, &RestorePoint::Latest).1, contents(&db));
    db.put("third", "3").unwrap();
    assert_eq!(world.restored(&db, &RestorePoint::Latest).1, contents(&db));
    let told = db
        .changes(1)
        .unwrap()
        .map(|batch| batch.unwrap().last_sequence());
    assert_eq!(told.collect::<Vec<_>>(), [1, 2, 3]);
    db.close().unwrap();
}

//! Numbers of writes that the power took, or that failed: what reads the log knows that nothing came of them, also in
//! later lives.
//!
//! The story, found by random crashes under a change cursor: a manifest knew of buffered writes that were lost with
//! the power. The next life flushed what was left and said that everything up to their numbers was in tables, and
//! ended before a write of its own could say in the log that they never happened. The life after that took them for
//! writes that had been let go of, and every feed and restore ended there. The same where records behind the end of
//! the log were archived though no recovery had taken them up.
#![allow(clippy::unwrap_used)]

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FaultRule, FileSystem, ImagePolicy,
    MemFileSystem, OperationKind,
};
use esker::{Db, Durability, ErrorKind, ManualClock, Options, RestorePoint, WriteOptions};
use esker_compaction::ManualExecutor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open_with(
    disk: &CrashFileSystem,
    archive: bool,
    write_buffer_bytes: usize,
) -> (Db, Arc<ManualExecutor>) {
    let late = Arc::new(ManualExecutor::new(0));
    let db = Options::new()
        .file_system(Arc::new(disk.clone()))
        .executor(Arc::clone(&late) as Arc<_>)
        .write_buffer_bytes(write_buffer_bytes)
        .wal_segment_bytes(16 << 10)
        .wal_archive(archive)
        .open("/db")
        .unwrap();
    (db, late)
}

fn open(disk: &CrashFileSystem, archive: bool) -> Db {
    open_with(disk, archive, 128 << 10).0
}

fn put(db: &Db, key: &str, bytes: usize, durability: Durability) {
    let how = WriteOptions::new().durability(durability);
    db.put_opt(key, vec![b'v'; bytes], &how).unwrap();
}

/// The keys that the feed tells of, from the beginning on.
fn told(db: &Db) -> Vec<String> {
    let mut keys = Vec::new();
    for batch in db.changes(1).unwrap() {
        for change in batch.unwrap().changes() {
            match change.operation() {
                esker::Operation::Put { key, .. } => {
                    keys.push(String::from_utf8(key.to_vec()).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    keys
}

/// What the power leaves of the disk.
fn power_loss(disk: &CrashFileSystem) -> CrashFileSystem {
    CrashFileSystem::new(disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED))
}

#[test]
fn a_life_that_only_flushes_does_not_take_lost_numbers_for_used() {
    for archive in [true, false] {
        for closes in [true, false] {
            let disk = CrashFileSystem::new(MemFileSystem::new());
            let (db, late) = open_with(&disk, archive, 16 << 10);
            db.create_change_cursor("reader").unwrap();
            let kept = ["a", "b", "c", "d", "e"];
            for key in kept {
                put(&db, key, 7000, Durability::Sync);
            }
            for key in ["lost", "too", "all"] {
                put(&db, key, 10, Durability::Buffered);
            }
            // A flush of what came before: the manifest knows of them from here on.
            while late.step() {}
            let disk = power_loss(&disk);
            drop(db);

            let db = open(&disk, archive);
            assert!(db.get("lost").unwrap().is_none());
            assert!(db.changes(9).is_ok(), "8 numbers were given");
            assert_eq!(told(&db), kept);
            db.flush().unwrap();
            assert_eq!(told(&db), kept);
            if closes {
                db.close().unwrap();
            }
            let disk = power_loss(&disk);
            drop(db);

            let db = open(&disk, archive);
            assert_eq!(told(&db), kept, "archive {archive}, closes {closes}");
            put(&db, "later", 10, Durability::Sync);
            let all = ["a", "b", "c", "d", "e", "later"];
            assert_eq!(told(&db), all);
            db.flush().unwrap();
            db.close().unwrap();
            let db = open(&disk, archive);
            assert_eq!(told(&db), all);
            assert!(db.validate().unwrap().is_ok());
        }
    }
}

/// Zeros in the midst of the value that is made of this byte.
fn damage_value(disk: &CrashFileSystem, byte: u8) {
    let entries = disk.read_dir(Path::new("/db")).unwrap();
    let names = entries.into_iter().map(|entry| entry.name);
    let mut damaged = 0;
    for name in names.filter(|name| name.ends_with(".wal")) {
        let path = Path::new("/db").join(name);
        let file = disk.open_read(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        if let Some(at) = bytes.windows(100).position(|some| some == [byte; 100]) {
            let file = disk.open_write(&path).unwrap();
            file.write_at(at as u64, &[0; 512]).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
}

#[test]
fn what_a_recovery_has_left_out_is_not_archived() {
    for closes in [true, false] {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let (db, late) = open_with(&disk, true, 64 << 10);
        let mut all: Vec<_> = ('a'..='k').map(String::from).collect();
        for key in &all {
            put(&db, key, 7000, Durability::Sync);
        }
        // Several segments, none of them synced.
        for byte in [b'l', b'm', b'n', b'o'] {
            let how = WriteOptions::new().durability(Durability::Buffered);
            db.put_opt([byte], vec![byte; 7000], &how).unwrap();
        }
        while late.step() {}
        // The power takes a sector of the first of them, and leaves the others.
        let image = disk.image(disk.operations(), &ImagePolicy::PROCESS_END);
        let disk = CrashFileSystem::new(image);
        damage_value(&disk, b'l');
        drop(db);

        let db = open(&disk, true);
        assert_eq!(db.count().unwrap(), 11);
        assert!(db.changes(16).is_ok(), "15 numbers were given");
        assert_eq!(told(&db), all);
        db.flush().unwrap();
        if closes {
            db.close().unwrap();
        }
        let disk = power_loss(&disk);
        drop(db);
        let db = open(&disk, true);
        assert_eq!(told(&db), all, "closes {closes}");
        put(&db, "later", 10, Durability::Sync);
        all.push("later".to_owned());
        assert_eq!(told(&db), all);
        db.flush().unwrap();
        assert_eq!(told(&db), all);
    }
}

/// The story, found by random faults under a change cursor: the mark that says of a failed write that nothing came of it
/// stood before a group whose sync failed, and was given up with that; the next mark spoke of that group alone.
#[test]
fn a_mark_that_failed_with_its_group_is_written_again() {
    for archive in [true, false] {
        let faults = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let open = || {
            Options::new()
                .file_system(Arc::new(faults.clone()))
                .executor(Arc::new(ManualExecutor::new(0)))
                .clock(clock.clone())
                .wal_segment_bytes(16 << 10)
                .wal_archive(archive)
                .open("/db")
                .unwrap()
        };
        let fails_once = |kind| {
            let rule = FaultRule::new(Fault::Refuse(DeviceError::Io));
            faults.add_rule(rule.on(&[kind]).times(1));
        };
        let db = open();
        if !archive {
            db.create_change_cursor("reader").unwrap();
        }
        put(&db, "a", 10, Durability::Sync);
        put(&db, "b", 10, Durability::Buffered);
        fails_once(OperationKind::Allocate);
        // It takes a segment of its own.
        let how = WriteOptions::new().durability(Durability::Buffered);
        db.put_opt("refused", [0; 9000], &how).unwrap_err();
        fails_once(OperationKind::Sync);
        let how = WriteOptions::new().durability(Durability::Sync);
        db.put_opt("unsynced", "logged", &how).unwrap_err();
        clock.advance(Duration::from_secs(1));
        put(&db, "c", 10, Durability::Sync);
        assert_eq!(faults.faults(), 2);
        assert_eq!(db.snapshot().sequence(), 5);
        assert_eq!(told(&db), ["a", "b", "c"], "archive {archive}");
        db.flush().unwrap();
        db.close().unwrap();
        assert_eq!(told(&open()), ["a", "b", "c"], "archive {archive}");
    }
}

/// The story, found by random faults and a restore after each: a recovery point that was made after a write had failed had
/// the number of that. The power went, the next life gave the number to another write, and a restore to the end of
/// the log began behind it.
#[test]
fn a_backup_has_no_number_of_a_write_that_failed() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faults = FaultFileSystem::new(Arc::new(disk.clone()));
    let options = |fs: Arc<dyn FileSystem>| {
        let options = Options::new().file_system(fs).wal_segment_bytes(16 << 10);
        options
            .executor(Arc::new(ManualExecutor::new(0)))
            .wal_archive(true)
    };
    let db = options(Arc::new(faults.clone())).open("/db").unwrap();
    put(&db, "a", 10, Durability::Sync);
    let rule = FaultRule::new(Fault::Refuse(DeviceError::Io));
    faults.add_rule(rule.on(&[OperationKind::Allocate]).times(1));
    db.put("refused", [0; 9000]).unwrap_err();
    let point = db.create_recovery_point("").unwrap();
    let disk = power_loss(&disk);
    drop(db);

    let open = |directory| options(Arc::new(disk.clone())).open(directory).unwrap();
    let db = open("/db");
    put(&db, "b", 10, Durability::Sync);
    let latest = &RestorePoint::Latest;
    let restored = db.restore_into(latest, "/restored").unwrap();
    assert_eq!(restored.backup(), Some(point.name()));
    let restored = open("/restored");
    assert!(restored.get("a").unwrap().is_some());
    assert!(restored.get("b").unwrap().is_some(), "it was acknowledged");
}

/// A disk on which a failed log was cured, between two of the operations: "lost", "too" and "all" were not synced before.
fn cure_on_disk() -> (CrashFileSystem, usize, usize) {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faults = FaultFileSystem::new(Arc::new(disk.clone()));
    let late = Arc::new(ManualExecutor::new(0));
    let db = Options::new()
        .file_system(Arc::new(faults.clone()))
        .executor(Arc::clone(&late) as Arc<_>)
        .write_buffer_bytes(16 << 10)
        .wal_segment_bytes(16 << 10)
        .wal_archive(true)
        .open("/db")
        .unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        put(&db, key, 7000, Durability::Sync);
    }
    for key in ["lost", "too", "all"] {
        put(&db, key, 10, Durability::Buffered);
    }
    // The manifest knows of them from here on.
    while late.step() {}
    let rule = FaultRule::new(Fault::Refuse(DeviceError::Io));
    faults.add_rule(rule.on(&[OperationKind::Sync]).times(1));
    let how = WriteOptions::new().durability(Durability::Sync);
    db.put_opt("unsynced", "logged", &how).unwrap_err();
    let begin = disk.operations();
    put(&db, "cured", 10, Durability::Sync);
    let end = disk.operations();
    (disk, begin, end)
}

/// The story: whoever cured a failed log archived what it held before an edit said that tables hold it, and the power took both
/// edit and log. The archived copy had writes that no later life had, and once the log was let go of nothing told
/// that life so.
#[test]
fn what_only_the_archive_has_is_not_told() {
    for closes in [true, false] {
        let (disk, begin, end) = cure_on_disk();
        for operation in begin..=end {
            let what = format!("operation {operation} of {begin} to {end}, closes {closes}");
            let image = disk.image(operation, &ImagePolicy::ONLY_SYNCED);
            let disk = CrashFileSystem::new(image);
            let db = open(&disk, true);
            let all = keys(&db);
            assert_eq!(told(&db), all, "{what}");
            db.flush().unwrap();
            if closes {
                db.close().unwrap();
            }
            let disk = power_loss(&disk);
            drop(db);
            let db = open(&disk, true);
            assert_eq!(keys(&db), all, "{what}");
            assert_eq!(told(&db), all, "{what}");
            let latest = &RestorePoint::Latest;
            db.restore_into(latest, "/restored").unwrap();
            let options = Options::new().file_system(Arc::new(disk.clone()));
            let restored = options.open("/restored").unwrap();
            assert_eq!(keys(&restored), all, "{what}");
        }
    }
}

/// The story: as above, where the life after that wrote something that is in no log, behind the lost numbers: in
/// tables that says that all before it happened.
#[test]
fn what_only_the_archive_has_is_not_told_behind_a_write_that_is_not_logged() {
    for way in ["volatile", "flushed", "loaded"] {
        let (disk, begin, end) = cure_on_disk();
        for operation in begin..=end {
            let what = format!("operation {operation} of {begin} to {end}, {way}");
            let image = disk.image(operation, &ImagePolicy::ONLY_SYNCED);
            let disk = CrashFileSystem::new(image);
            let db = open(&disk, true);
            let before = keys(&db);
            if way == "loaded" {
                db.ingest([("unlogged", "v")]).unwrap();
            } else {
                put(&db, "unlogged", 10, Durability::Volatile);
            }
            if way == "flushed" {
                db.flush().unwrap();
            } else {
                db.close().unwrap();
            }
            let disk = power_loss(&disk);
            drop(db);

            let db = open(&disk, true);
            assert!(db.get("unlogged").unwrap().is_some(), "{what}");
            let mut feed = db.changes(1).unwrap();
            let mut batches = 0;
            let error = loop {
                match feed.next().unwrap() {
                    Ok(_) => batches += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Gap, "{what}");
            let gap = feed.gap().unwrap();
            let alone = (gap.last_sequence(), gap.last_sequence());
            assert_eq!((gap.first_sequence(), gap.last_sequence()), alone, "{what}");
            assert_eq!(batches, before.len(), "{what}");
        }
    }
}

fn keys(db: &Db) -> Vec<String> {
    let keys = db.snapshot().iter().map(|entry| entry.unwrap().0.to_vec());
    let mut keys: Vec<_> = keys.map(|key| String::from_utf8(key).unwrap()).collect();
    // In the order in which they were written.
    let order = ["a", "b", "c", "d", "e", "lost", "too", "all", "cured"];
    keys.sort_by_key(|key| order.iter().position(|it| it == key));
    keys
}

/// The story: the last writes were of a keyspace that was then dropped, and no table of another one reached up to
/// their numbers. Once the database was closed the next life took these for numbers of writes that the power took, and
/// said so in the log: a restore to before the drop had the keyspace without them.
#[test]
fn writes_of_a_dropped_keyspace_happened() {
    for closes in [true, false] {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let db = open(&disk, true);
        put(&db, "a", 10, Durability::Sync);
        db.flush().unwrap();
        let other = db.keyspace("other").unwrap();
        other.put("b", "b").unwrap();
        other.put("c", "c").unwrap();
        let last = db.snapshot().sequence();
        drop(other);
        db.drop_keyspace("other").unwrap();
        if closes {
            db.close().unwrap();
        }
        let disk = power_loss(&disk);
        drop(db);

        let db = open(&disk, true);
        put(&db, "d", 10, Durability::Sync);
        let point = RestorePoint::Sequence(last);
        db.restore_into(&point, "/restored").unwrap();
        let options = Options::new().file_system(Arc::new(disk.clone()));
        let restored = options.open("/restored").unwrap();
        let other = restored.keyspace("other").unwrap();
        assert_eq!(other.iter().count(), 2, "closes {closes}");
    }
}

/// A restore to `last` has both writes of the keyspace that was dropped behind them.
fn assert_other_is_restored(disk: &CrashFileSystem, db: &Db, last: u64, what: &str) {
    let point = RestorePoint::Sequence(last);
    db.restore_into(&point, "/restored").unwrap();
    let options = Options::new().file_system(Arc::new(disk.clone()));
    let restored = options.open("/restored").unwrap();
    let other = restored.keyspace("other").unwrap();
    assert_eq!(other.iter().count(), 2, "{what}");
}

/// Two writes of another keyspace, which is then dropped. The number of the last.
fn write_and_drop_other(db: &Db) -> u64 {
    let other = db.keyspace("other").unwrap();
    other.put("b", "b").unwrap();
    other.put("c", "c").unwrap();
    let last = db.snapshot().sequence();
    drop(other);
    db.drop_keyspace("other").unwrap();
    last
}

/// The story: as above, while the database goes on. A flush that was late let go of the segment with the last writes of
/// the keyspace, and the power took what came behind.
#[test]
fn writes_of_a_dropped_keyspace_happened_where_a_late_flush_lets_go_of_them() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faults = FaultFileSystem::new(Arc::new(disk.clone()));
    let late = Arc::new(ManualExecutor::new(0));
    let db = Options::new()
        .file_system(Arc::new(faults.clone()))
        .executor(Arc::clone(&late) as Arc<_>)
        .write_buffer_bytes(16 << 10)
        .wal_segment_bytes(16 << 10)
        .wal_archive(true)
        .open("/db")
        .unwrap();
    put(&db, "a", 9000, Durability::Sync);
    put(&db, "b", 9000, Durability::Sync);
    // It seals the memtable, and finds no segment.
    let rule = FaultRule::new(Fault::Refuse(DeviceError::Io));
    faults.add_rule(rule.on(&[OperationKind::Create]).times(1));
    let how = WriteOptions::new().durability(Durability::Sync);
    db.put_opt("refused", vec![b'v'; 14_000], &how).unwrap_err();
    let last = write_and_drop_other(&db);
    put(&db, "lost", 14_000, Durability::Buffered);
    while late.step() {}
    let disk = power_loss(&disk);
    drop(db);

    let db = open(&disk, true);
    assert!(db.get("lost").unwrap().is_none());
    put(&db, "d", 10, Durability::Sync);
    assert_other_is_restored(&disk, &db, last, "a late flush");
}

/// The story: as above, in a life that writes nothing. A recovery had sealed a memtable before it came to the last writes of
/// the keyspace, and its flush let go of the log, so that a close had nothing left to let go of.
#[test]
fn writes_of_a_dropped_keyspace_happened_where_a_life_only_flushes() {
    for closes in [true, false] {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let (db, _late) = open_with(&disk, true, 128 << 10);
        put(&db, "a", 18_000, Durability::Sync);
        db.wal().rotate().unwrap();
        let last = write_and_drop_other(&db);
        let disk = power_loss(&disk);
        drop(db);

        let (db, late) = open_with(&disk, true, 16 << 10);
        db.flush().unwrap();
        while late.step() {}
        if closes {
            db.close().unwrap();
        }
        let disk = power_loss(&disk);
        drop(db);

        let db = open(&disk, true);
        put(&db, "d", 10, Durability::Sync);
        assert_other_is_restored(&disk, &db, last, &format!("closes {closes}"));
    }
}

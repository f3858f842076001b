//! Backups, restores, recovery points and checkpoints: with writers running, at every crash, and with
//! damage in every file.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{
    BackupInfo, Db, Durability, ErrorKind, ManualClock, Options, Retention, Snapshot, WriteBatch,
    WriteOptions,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod failures;

const HOME: &str = "/db";
/// 2006-01-02 15:04:05 UTC.
const NOON_MILLIS: u64 = 1_136_214_245_000;

type Map = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Everything in a database.
fn contents(db: &Db) -> Map {
    let names = db.keyspace_names().unwrap();
    let entries = |name: &String| {
        let keyspace = db.keyspace(name).unwrap();
        let entries = keyspace.iter().map(Result::unwrap);
        entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    };
    let all = names.iter().map(|name| (name.clone(), entries(name)));
    all.collect()
}

fn seen_by(snapshot: &Snapshot) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = snapshot.iter().map(Result::unwrap);
    entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

fn small(fs: &Arc<dyn FileSystem>) -> Options {
    Options::new()
        .file_system(Arc::clone(fs))
        .clock(Arc::new(ManualClock::at_millis(NOON_MILLIS)))
        .write_buffer_bytes(16 << 10)
        .target_file_bytes(16 << 10)
        .manifest_bytes(4 << 10)
        .wal_size_limit_bytes(128 << 10)
}

fn memory() -> Arc<dyn FileSystem> {
    let fs = MemFileSystem::new();
    fs.create_dir_all(Path::new(HOME)).unwrap();
    Arc::new(fs)
}

fn fill(db: &Db, range: std::ops::Range<u32>, value: &str) {
    for i in range {
        db.put_opt(
            format!("key{i:05}"),
            format!("{value}{i}"),
            &WriteOptions::new().durability(Durability::Buffered),
        )
        .unwrap();
    }
}

/// Every file below a directory.
fn files(fs: &dyn FileSystem, directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs.read_dir(directory).unwrap_or_default() {
        let path = directory.join(&entry.name);
        if entry.is_dir {
            found.extend(files(fs, &path));
        } else {
            found.push((path, entry.bytes));
        }
    }
    found
}

fn bytes_below(fs: &dyn FileSystem, directory: &str) -> u64 {
    files(fs, Path::new(directory)).iter().map(|(_, b)| b).sum()
}

#[test]
fn backups_taken_while_two_writers_run_are_what_a_snapshot_says() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new()
        .write_buffer_bytes(64 << 10)
        .target_file_bytes(64 << 10)
        .default_durability(Durability::Buffered)
        .open(dir.path())
        .unwrap();
    let done = AtomicBool::new(false);
    let taken: Vec<BackupInfo> = std::thread::scope(|scope| {
        for writer in 0..2u32 {
            let (db, done) = (db.clone(), &done);
            scope.spawn(move || {
                for i in 0u64.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    // Both keys of a batch hold its number, and every key the newest one.
                    let mut batch = WriteBatch::new();
                    let value = format!("{i}:{}", "x".repeat((i % 90) as usize));
                    batch.put(format!("{writer}/a/{:03}", i % 300), &value);
                    batch.put(format!("{writer}/last"), i.to_string());
                    if i % 7 == 0 {
                        batch.delete(format!("{writer}/a/{:03}", i % 100));
                    }
                    db.write(batch).unwrap();
                }
            });
        }
        let backups = (0..6).map(|round| {
            std::thread::sleep(Duration::from_millis(40));
            if round % 2 == 0 {
                db.create_backup("running").unwrap()
            } else {
                db.create_recovery_point("running").unwrap()
            }
        });
        let backups = backups.collect();
        done.store(true, Ordering::Relaxed);
        backups
    });
    // What a writer had written by a sequence number follows from its last batch alone.
    for backup in &taken {
        assert!(db.verify_backup(backup.name()).unwrap().is_ok());
        db.restore_backup(backup.name()).unwrap();
        let found = contents(&db).remove("default").unwrap();
        let mut expected = BTreeMap::new();
        let mut batches = 0;
        for writer in 0..2u32 {
            let key = format!("{writer}/last").into_bytes();
            let Some(last) = found.get(&key) else {
                continue;
            };
            expected.insert(key, last.clone());
            let last: u64 = std::str::from_utf8(last).unwrap().parse().unwrap();
            batches += 2 * (last + 1) + last / 7 + 1;
            for i in 0..=last {
                let value = format!("{i}:{}", "x".repeat((i % 90) as usize));
                expected.insert(
                    format!("{writer}/a/{:03}", i % 300).into_bytes(),
                    value.into_bytes(),
                );
                if i % 7 == 0 {
                    expected.remove(format!("{writer}/a/{:03}", i % 100).as_bytes());
                }
            }
        }
        assert!(found == expected, "{} holds something else", backup.name());
        assert_eq!(batches, backup.sequence(), "exactly up to its sequence");
        assert!(db.validate().unwrap().is_ok());
    }
    db.close().unwrap();
}

#[test]
fn a_second_backup_of_an_unchanged_database_writes_next_to_nothing() {
    let fs = memory();
    let options = small(&fs).write_buffer_bytes(1 << 20);
    let options = options.target_file_bytes(256 << 10);
    let db = options.wal_size_limit_bytes(8 << 20).open(HOME).unwrap();
    fill(&db, 0..40_000, "a value of some length ");
    db.create_backup("first").unwrap();
    db.wait_for_background_work().unwrap();
    let first = db.create_backup("settled").unwrap();
    let before = bytes_below(&*fs, "/db/backups");
    let second = db.create_backup("unchanged").unwrap();
    let written = bytes_below(&*fs, "/db/backups") - before;
    assert_eq!(second.new_bytes(), 0);
    assert!(
        written * 100 < first.size_bytes(),
        "{written} of {}",
        first.size_bytes()
    );
    let names: Vec<_> = db.list_backups().unwrap();
    assert_eq!(names.len(), 3);
    assert_eq!(names[0].name(), "20060102_150405");
    assert_eq!(names[1].name(), "20060102_150406", "the second is taken");
    assert_eq!(second.size_bytes(), first.size_bytes());
}

#[test]
fn a_restore_brings_back_everything_and_snapshots_keep_what_they_see() {
    let fs = memory();
    let db = small(&fs).open(HOME).unwrap();
    let users = db.keyspace("users").unwrap();
    fill(&db, 0..800, "old");
    users.put("1", "Ada").unwrap();
    db.put_with_ttl("brief", "x", Duration::from_secs(5))
        .unwrap();
    let then = contents(&db);
    let backup = db.create_backup("then").unwrap();

    fill(&db, 400..1200, "new");
    users.put("1", "Grace").unwrap();
    db.keyspace("posts").unwrap().put("p", "q").unwrap();
    let between = contents(&db);
    let snapshot = db.snapshot();
    let posts = db.keyspace("posts").unwrap();
    let mut cursor = db.cursor();
    cursor.seek_to_first().unwrap();
    let mut reader = db.begin().unwrap();
    assert!(reader.get("key00001").unwrap().is_some());
    reader.put("written", "by a transaction").unwrap();

    let clone = db.clone();
    db.restore_backup(backup.name()).unwrap();
    assert!(contents(&clone) == then);
    assert_eq!(users.get("1").unwrap().as_deref(), Some(&b"Ada"[..]));
    assert_eq!(db.keyspace_names().unwrap(), ["default", "users"]);
    assert!(db.ttl("brief").unwrap().is_some());

    // What was open before sees what it saw, also after what it reads was compacted away.
    db.put("after", "the restore").unwrap();
    db.compact().unwrap();
    assert!(seen_by(&snapshot) == between["default"]);
    assert!(seen_by(&snapshot.of(&users)) == between["users"]);
    assert!(seen_by(&snapshot.of(&posts)) == between["posts"]);
    assert_eq!(posts.put("p", "r").unwrap_err().kind(), ErrorKind::NotFound);
    let mut count = 0;
    while cursor.valid() {
        count += 1;
        cursor.next().unwrap();
    }
    assert_eq!(count, between["default"].len());
    assert_eq!(reader.commit().unwrap_err().kind(), ErrorKind::Conflict);
    drop((snapshot, cursor));

    // And all of it survives.
    let mut with_later = then.clone();
    let default = with_later.get_mut("default").unwrap();
    default.insert(b"after".to_vec(), b"the restore".to_vec());
    db.wait_for_background_work().unwrap();
    let report = db.validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
    db.close().unwrap();
    drop((db, clone, users, posts));
    let db = small(&fs).open(HOME).unwrap();
    assert!(contents(&db) == with_later);
    db.restore_backup(backup.name()).unwrap();
    assert!(contents(&db) == then);
}

#[test]
fn a_dropped_keyspace_comes_back() {
    let fs = memory();
    let db = small(&fs).open(HOME).unwrap();
    let users = db.keyspace("users").unwrap();
    users.put("1", "Ada").unwrap();
    let point = db.create_recovery_point("before the drop").unwrap();
    db.drop_keyspace("users").unwrap();
    let snapshot = db.snapshot();
    db.restore_backup(point.name()).unwrap();
    let again = db.keyspace("users").unwrap();
    assert_eq!(again.get("1").unwrap().as_deref(), Some(&b"Ada"[..]));
    assert_eq!(snapshot.of(&again).iter().count(), 0, "it was not there");
    again.put("2", "Grace").unwrap();
    drop((db, users, again, snapshot));
    let db = small(&fs).open(HOME).unwrap();
    assert_eq!(db.keyspace("users").unwrap().count().unwrap(), 2);
}

#[test]
fn recovery_points_pin_their_tables_until_they_are_deleted() {
    let fs = memory();
    let db = small(&fs).open(HOME).unwrap();
    fill(&db, 0..3000, "pinned ");
    let then = contents(&db);
    let point = db.create_recovery_point("then").unwrap();
    assert!(point.is_recovery_point());
    db.clear().unwrap();
    db.compact().unwrap();
    fill(&db, 0..10, "later ");
    let usage = db.disk_usage().unwrap();
    assert!(usage.pinned_bytes() >= point.size_bytes());
    assert_eq!(
        usage.pinned_by(),
        [(point.name().to_owned(), usage.pinned_bytes())]
    );

    // In a later life too.
    db.close().unwrap();
    drop(db);
    let db = small(&fs).open(HOME).unwrap();
    assert!(db.validate().unwrap().issues().is_empty());
    assert!(db.verify_backup(point.name()).unwrap().is_ok());
    for round in 0..2 {
        db.restore_backup(point.name()).unwrap();
        assert!(contents(&db) == then, "round {round}");
        fill(&db, 0..500, "over ");
        db.compact().unwrap();
    }
    db.restore_backup(point.name()).unwrap();

    // Deleted, it takes nothing along that the database needs.
    db.delete_backup(point.name()).unwrap();
    assert!(contents(&db) == then);
    assert_eq!(db.disk_usage().unwrap().pinned_bytes(), 0);
    db.clear().unwrap();
    db.compact().unwrap();
    db.wait_for_background_work().unwrap();
    assert_eq!(db.disk_usage().unwrap().garbage_bytes(), 0);
    assert!(db.list_backups().unwrap().is_empty());
    let error = db.restore_backup(point.name()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn deleting_keeps_what_others_share_and_removes_the_rest() {
    let fs = memory();
    let db = small(&fs).open(HOME).unwrap();
    fill(&db, 0..2000, "one ");
    db.compact().unwrap();
    let first = db.create_backup("first").unwrap();
    fill(&db, 2000..2100, "two ");
    let second = db.create_backup("second").unwrap();
    assert!(second.new_bytes() < second.size_bytes() / 2, "shared");
    db.clear().unwrap();
    db.compact().unwrap();
    db.delete_backup(first.name()).unwrap();
    assert!(db.verify_backup(second.name()).unwrap().is_ok());
    db.restore_backup(second.name()).unwrap();
    assert_eq!(db.count().unwrap(), 2100);
    db.delete_backup(second.name()).unwrap();
    assert_eq!(bytes_below(&*fs, "/db/backups"), 0);
    let error = db.delete_backup(second.name()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(db.count().unwrap(), 2100);
}

#[test]
fn pruning_keeps_what_it_says() {
    let fs = memory();
    let clock = Arc::new(ManualClock::at_millis(NOON_MILLIS));
    let db = small(&fs)
        .clock(Arc::clone(&clock) as _)
        .open(HOME)
        .unwrap();
    for day in 0..4u32 {
        for _ in 0..2 {
            fill(&db, day..day + 1, "v");
            db.create_backup("daily").unwrap();
            clock.advance(Duration::from_secs(3600));
        }
        clock.advance(Duration::from_secs(22 * 3600));
    }
    db.create_recovery_point("stays").unwrap();
    let error = db.prune_backups(Retention::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let keep = Retention {
        keep_last: 3,
        keep_daily: 3,
    };
    let removed = db.prune_backups(keep).unwrap();
    assert_eq!(
        removed,
        [
            "20060102_150405",
            "20060102_160405",
            "20060103_150405",
            "20060104_150405"
        ]
    );
    let left = db.list_backups().unwrap();
    assert_eq!(left.len(), 5);
    for backup in left {
        assert!(db.verify_backup(backup.name()).unwrap().is_ok());
    }
}

#[test]
fn damage_in_any_file_of_a_backup_is_found_and_not_restored() {
    let fs = memory();
    let options = small(&fs).backup_directory("/elsewhere");
    let db = options.open(HOME).unwrap();
    fill(&db, 0..900, "precious ");
    let backup = db.create_backup("to be damaged").unwrap();
    let then = contents(&db);
    db.clear().unwrap();
    db.compact().unwrap();
    let all = files(&*fs, Path::new("/elsewhere"));
    assert!(all.len() >= 2);
    for (path, bytes) in all {
        for offset in [0, bytes / 3, bytes / 2, bytes - 20, bytes - 1] {
            let mut byte = [0];
            fs.open_read(&path)
                .unwrap()
                .read_exact_at(&mut byte, offset)
                .unwrap();
            let flip = |mask: u8| {
                let file = fs.open_write(&path).unwrap();
                file.write_at(offset, &[byte[0] ^ mask]).unwrap();
            };
            flip(0x10);
            let report = db.verify_backup(backup.name()).unwrap();
            assert!(!report.is_ok(), "{} at {offset}", path.display());
            let error = db.restore_backup(backup.name()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert_eq!(db.count().unwrap(), 0);
            let target = Path::new("/target/copy");
            let restored =
                esker::backup::restore_on(&fs, Path::new("/elsewhere"), backup.name(), target);
            assert_eq!(restored.unwrap_err().kind(), ErrorKind::Corruption);
            assert!(fs.metadata(target).is_err());
            flip(0);
        }
    }
    db.put("goes", "on").unwrap();
    db.restore_backup(backup.name()).unwrap();
    assert!(contents(&db) == then);
    assert!(db.validate().unwrap().is_ok());

    // Copies heal what is damaged in the database.
    let mut tables = files(&*fs, Path::new(HOME)).into_iter();
    let is_table = |(path, _): &(PathBuf, u64)| path.extension().is_some_and(|e| e == "sst");
    let (table, _) = tables.rfind(is_table).unwrap();
    fs.open_write(&table)
        .unwrap()
        .write_at(30, b"oops")
        .unwrap();
    assert!(!db.validate().unwrap().is_ok());
    db.restore_backup(backup.name()).unwrap();
    assert!(db.validate().unwrap().is_ok());
    assert!(contents(&db) == then);
}

#[test]
fn checkpoints_and_copies_are_databases_of_their_own() {
    let fs = memory();
    let db = small(&fs).open(HOME).unwrap();
    fill(&db, 0..700, "v");
    db.keyspace("users").unwrap().put("1", "Ada").unwrap();
    let then = contents(&db);
    db.checkpoint("/copies/one").unwrap();
    let error = db.checkpoint("/copies/one").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let backup = db.create_backup("then").unwrap();
    db.clear().unwrap();
    db.compact().unwrap();
    db.close().unwrap();
    drop(db);
    let target = Path::new("/copies/two");
    esker::backup::restore_on(&fs, Path::new(HOME), backup.name(), target).unwrap();
    let nowhere = Path::new("/copies/three");
    let error =
        esker::backup::restore_on(&fs, Path::new(HOME), "19700101_000000", nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for copy in ["/copies/one", "/copies/two"] {
        let db = small(&fs).open(copy).unwrap();
        assert!(contents(&db) == then, "{copy}");
        assert!(db.validate().unwrap().issues().is_empty());
        fill(&db, 0..700, "changed");
        db.compact().unwrap();
        let own = db.create_backup("of the copy").unwrap();
        db.clear().unwrap();
        db.restore_backup(own.name()).unwrap();
        assert_eq!(db.count().unwrap(), 700);
        db.close().unwrap();
    }
    let db = small(&fs).open(HOME).unwrap();
    assert_eq!(db.count().unwrap(), 0);
    db.restore_backup(backup.name()).unwrap();
    assert!(contents(&db) == then);
}

#[test]
fn a_database_in_memory_says_that_it_has_no_backups() {
    let db = Options::new().open_in_memory().unwrap();
    let kinds = [
        db.create_backup("x").unwrap_err().kind(),
        db.create_recovery_point("x").unwrap_err().kind(),
        db.restore_backup("20060102_150405").unwrap_err().kind(),
        db.checkpoint("/x").unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Unsupported; 4]);
    assert!(db.list_backups().unwrap().is_empty());
}

#[test]
fn restores_among_writers_readers_and_compactions() {
    let fs = memory();
    let db = small(&fs).open(HOME).unwrap();
    fill(&db, 0..600, "base ");
    let then = contents(&db);
    let backup = db.create_backup("base").unwrap();
    let point = db.create_recovery_point("base").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    fill(db, writer * 1000..writer * 1000 + 200, &round.to_string());
                    round += 1;
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // A snapshot is one moment, whatever is restored meanwhile.
                let snapshot = db.snapshot();
                let first = seen_by(&snapshot);
                assert!(first == seen_by(&snapshot));
                db.compact().unwrap();
                assert!(first == seen_by(&snapshot));
            }
        });
        for round in 0..12 {
            std::thread::sleep(Duration::from_millis(15));
            let name = if round % 2 == 0 { &backup } else { &point };
            db.restore_backup(name.name()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(db.background_errors().is_empty());
    db.wait_for_background_work().unwrap();
    let report = db.validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
    let found = contents(&db);
    db.close().unwrap();
    drop(db);
    let db = small(&fs).open(HOME).unwrap();
    assert!(contents(&db) == found);
    db.restore_backup(point.name()).unwrap();
    assert!(contents(&db) == then);
}

//! What `validate` says of the archive of the log: nothing of a whole one, the place of whatever is
//! damaged, and which writes are missing where no backup makes up for them.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{ArchivedSegment, Db, ManualClock, Options, Severity};
use std::path::Path;
use std::sync::Arc;

const HOME: &str = "/db";

fn options(fs: &MemFileSystem) -> Options {
    Options::new()
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::at_millis(1_700_000_000_000)))
        .wal_size_limit_bytes(64 << 10)
        .wal_segment_bytes(16 << 10)
        .ttl_cleanup_interval(None)
        .wal_archive(true)
}

/// A database whose writes fill several files of the archive.
fn database() -> (MemFileSystem, Db) {
    let fs = MemFileSystem::new();
    let db = options(&fs).open(HOME).unwrap();
    for i in 0..200u32 {
        db.put(i.to_be_bytes(), [i as u8; 500]).unwrap();
    }
    db.keyspace("other").unwrap().put("k", "v").unwrap();
    db.wal().clear().unwrap();
    (fs, db)
}

/// The findings: severity, file, offset, sentence.
fn findings(db: &Db) -> Vec<(Severity, String, Option<u64>, String)> {
    let report = db.validate().unwrap();
    let told = report.issues().iter().map(|issue| {
        assert!(!issue.advice().is_empty());
        let file = issue
            .file()
            .map_or(String::new(), |file| file.display().to_string());
        (
            issue.severity(),
            file,
            issue.offset(),
            issue.message().to_owned(),
        )
    });
    told.collect()
}

fn name(segment: &ArchivedSegment) -> String {
    segment.path().display().to_string()
}

#[test]
fn a_whole_archive_is_read_and_nothing_is_found() {
    let (_fs, db) = database();
    assert!(db.wal().archived().unwrap().len() > 3);
    let report = db.validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
    // More than all values: the rest of the archive's bytes are header pages and padding.
    assert!(report.bytes() > 200 * 500, "{}", report.bytes());
}

#[test]
fn every_damaged_byte_of_a_record_is_found_and_placed() {
    let (fs, db) = database();
    let segment = db.wal().archived().unwrap().remove(1);
    let file = fs.open_write(segment.path()).unwrap();
    let read = fs.open_read(segment.path()).unwrap();
    let mut bytes = vec![0; segment.bytes() as usize];
    read.read_exact_at(&mut bytes, 0).unwrap();
    // Records are padded with zeros, and so is the end of the file.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(end > 10_000);
    let used = (8192..end).step_by(97).filter(|at| bytes[*at] != 0);
    for at in used {
        file.write_at(at as u64, &[bytes[at] ^ 0x40]).unwrap();
        let found = findings(&db);
        assert_eq!(found.len(), 1, "byte {at}: {found:?}");
        assert_eq!(
            (found[0].0, &found[0].1),
            (Severity::Warning, &name(&segment))
        );
        let offset = found[0].2.expect("it has a place");
        assert!(
            offset <= at as u64 && at as u64 <= offset + 4096,
            "{at}: {found:?}"
        );
        file.write_at(at as u64, &[bytes[at]]).unwrap();
    }
    assert!(findings(&db).is_empty());
    // The live database is whole all the while.
    file.write_at(9000, &[bytes[9000] ^ 0x40]).unwrap();
    let report = db.validate().unwrap();
    assert!(report.is_ok() && report.worst() == Some(Severity::Warning));
    file.write_at(9000, &[bytes[9000]]).unwrap();
    file.set_len(end as u64 - 300).unwrap();
    let found = findings(&db);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].3.contains("cut short") || found[0].3.contains("damaged"),
        "{found:?}"
    );
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_a_warning() {
    let (fs, db) = database();
    let segment = db.wal().archived().unwrap().remove(2);
    let renamed = segment.path().with_file_name(format!(
        "{:06}-{}-{}-{}.wal",
        segment.number(),
        segment.first_sequence(),
        segment.last_sequence() + 1,
        segment.archived_millis()
    ));
    fs.rename(segment.path(), &renamed).unwrap();
    let found = findings(&db);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].3.contains("not what its name says"), "{found:?}");
}

#[test]
fn missing_writes_are_noted_until_a_backup_makes_up_for_them() {
    let (fs, db) = database();
    let segment = db.wal().archived().unwrap().remove(1);
    fs.remove_file(segment.path()).unwrap();
    let found = findings(&db);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Severity::Note);
    let (first, last) = (segment.first_sequence(), segment.last_sequence());
    let missing = format!("writes {first} to {last} are in no log");
    assert!(found[0].3.contains(&missing), "{found:?}");
    assert!(db.validate().unwrap().is_ok());
    db.create_backup("behind the hole").unwrap();
    assert!(findings(&db).is_empty());
    // Writes of a life in which the log was not archived are missing, too.
    db.close().unwrap();
    let plain = options(&fs).wal_archive(false).open(HOME).unwrap();
    plain.put("not", "archived").unwrap();
    plain.close().unwrap();
    let db = options(&fs).open(HOME).unwrap();
    db.put("archived", "again").unwrap();
    db.wal().clear().unwrap();
    let found = findings(&db);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].3.contains("is in no log"), "{found:?}");
}

/// Not even the files of a database that is opened for reading are left out, and its memory knows of none.
#[test]
fn the_archive_is_read_wherever_a_database_is_validated() {
    let (fs, db) = database();
    let segment = db.wal().archived().unwrap().remove(0);
    db.close().unwrap();
    fs.open_write(segment.path())
        .unwrap()
        .write_at(9000, &[0xff; 9])
        .unwrap();
    let db = options(&fs).open_read_only(Path::new(HOME)).unwrap();
    let found = findings(&db);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].1, name(&segment));
    let memory = Options::new().open_in_memory().unwrap();
    assert!(memory.validate().unwrap().issues().is_empty());
}

/// What is kept of the log for change cursors was not looked at: damage in it came to light when a reader
/// reached it, weeks later perhaps.
#[test]
fn what_is_kept_for_change_cursors_is_read_too() {
    let fs = MemFileSystem::new();
    let db = options(&fs).wal_archive(false).open(HOME).unwrap();
    let cursor = db.create_change_cursor("follower").unwrap();
    for i in 0..200u32 {
        db.put(i.to_be_bytes(), [i as u8; 500]).unwrap();
    }
    db.wal().clear().unwrap();
    assert!(findings(&db).is_empty());
    let kept = Path::new(HOME).join("changes");
    let mut names: Vec<String> = fs
        .read_dir(&kept)
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    names.sort();
    assert!(names.len() > 3, "{names:?}");
    let second = kept.join(&names[1]);
    let read = fs.open_read(&second).unwrap();
    let mut byte = [0];
    read.read_exact_at(&mut byte, 9000).unwrap();
    let flip = |mask: u8| {
        let file = fs.open_write(&second).unwrap();
        file.write_at(9000, &[byte[0] ^ mask]).unwrap();
    };
    flip(0x40);
    let found = findings(&db);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Severity::Warning);
    assert_eq!(found[0].1, second.display().to_string());
    assert!(found[0].2.is_some() && db.validate().unwrap().is_ok());
    flip(0);
    assert!(findings(&db).is_empty());

    // One that is gone is a hole for the cursor, until it has acknowledged what is behind it.
    let bytes = fs.metadata(&second).unwrap().bytes;
    assert!(bytes > 0);
    fs.remove_file(&second).unwrap();
    let found = findings(&db);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Severity::Note);
    assert!(found[0].3.contains("are in no log"), "{found:?}");
    cursor.acknowledge(db.snapshot().sequence()).unwrap();
    assert!(findings(&db).is_empty());
}

#[test]
fn strays_beside_the_database_are_noted_and_go() {
    let fs = MemFileSystem::new();
    let db = options(&fs).open(HOME).unwrap();
    db.put("k", "v").unwrap();
    db.create_backup("a backup").unwrap();
    db.create_change_cursor("follower").unwrap();
    db.wal().clear().unwrap();
    assert!(findings(&db).is_empty());
    fs.create_dir_all(&Path::new(HOME).join("changes")).unwrap();
    let strays = [
        "archive/000900.tmp",
        "backups/19990101_000000.tmp",
        "backups/tables/000900-0123456789abcdef.sst",
        "changes/000900.tmp",
        "changes/000001-1-1-1.wal",
    ];
    for stray in strays {
        let path = Path::new(HOME).join(stray);
        fs.create(&path).unwrap();
        let found = findings(&db);
        let told = found
            .iter()
            .any(|issue| issue.1 == path.display().to_string() && issue.3.contains("names"));
        assert!(
            told && found.iter().all(|issue| issue.0 <= Severity::Warning),
            "{stray}: {found:?}"
        );
        if stray.ends_with("wal") {
            fs.remove_file(&path).unwrap();
        }
    }
    // Nobody has acknowledged anything: what is in `changes` may be needed, and what is not goes with the
    // next open, as what was never finished of the archive does. Backups tidy up with the next one.
    fs.create(&Path::new(HOME).join("changes/000001-0-0-1.wal"))
        .unwrap();
    db.delete_change_cursor("follower").unwrap();
    db.close().unwrap();
    let db = options(&fs).open(HOME).unwrap();
    assert!(fs.metadata(&Path::new(HOME).join(strays[0])).is_err());
    let backup = db.create_backup("another").unwrap();
    db.delete_backup(backup.name()).unwrap();
    assert!(findings(&db).is_empty(), "{:?}", findings(&db));
    for stray in strays {
        assert!(
            fs.metadata(&Path::new(HOME).join(stray)).is_err(),
            "{stray}"
        );
    }
}

/// The bytes of a backup are told as they are read, to the last, and reading it can be cancelled.
#[test]
fn verifying_a_backup_tells_how_far_it_is() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let (_fs, db) = database();
    let backup = db.create_backup("whole").unwrap();
    let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let report = db
        .verify_backup_with(backup.name(), &|so_far| {
            assert!(so_far.done_bytes >= done.load(Ordering::Relaxed));
            done.store(so_far.done_bytes, Ordering::Relaxed);
            total.store(so_far.total_bytes, Ordering::Relaxed);
            true
        })
        .unwrap();
    assert!(report.is_ok() && report.bytes() > 0);
    assert_eq!(report.bytes(), done.into_inner());
    assert_eq!(report.bytes(), total.into_inner());
    let cancelled = db.verify_backup_with(backup.name(), &|_| false);
    assert_eq!(cancelled.unwrap_err().kind(), esker::ErrorKind::Cancelled);
    assert!(db.verify_backup(backup.name()).unwrap().is_ok());
}

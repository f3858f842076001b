//! A restore into the open database while the log is archived: which points are left, what the others are
//! told, and what makes the history whole again.

use esker::vfs::MemFileSystem;
use esker::{Db, ErrorKind, ManualClock, Options, RestorePoint, Severity};
use std::sync::Arc;

const HOME: &str = "/db";

fn options(fs: &MemFileSystem) -> Options {
    Options::new()
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::at_millis(1_700_000_000_000)))
        .ttl_cleanup_interval(None)
        .wal_archive(true)
}

/// What a key holds at a point, in a database of its own.
fn at(fs: &MemFileSystem, db: &Db, point: &RestorePoint, target: &str) -> esker::Result<String> {
    db.restore_into(point, target)?;
    let copy = options(fs).wal_archive(false).open(target)?;
    let value = copy.get("k")?.map(|value| value.to_vec());
    copy.close()?;
    Ok(value.map_or("nothing".into(), |value| String::from_utf8(value).unwrap()))
}

/// By a backup, and by a point between backups, which the archive alone can make.
#[test]
fn points_behind_a_restore_name_it_until_a_backup_makes_up_for_it() {
    type Restore = fn(&Db, &str, u64);
    let restores: [Restore; 2] = [
        |db, backup, _| db.restore_backup(backup).unwrap(),
        |db, _, point| drop(db.restore_to_point(&RestorePoint::Sequence(point)).unwrap()),
    ];
    for restore in restores {
        let fs = MemFileSystem::new();
        let db = options(&fs).open(HOME).unwrap();
        let write = |value: &str| {
            db.put("k", value).unwrap();
            RestorePoint::Sequence(db.snapshot().sequence())
        };
        let first = write("first");
        let backup = db.create_backup("").unwrap();
        let second = write("second");
        let third = write("third");
        let RestorePoint::Sequence(wanted) = second else {
            panic!("it is a sequence number");
        };
        restore(&db, backup.name(), wanted);
        let restored = db.get("k").unwrap().unwrap().to_vec();
        let behind = write("behind it");

        // What was before is restorable as it was, the writes that the restore took away included.
        for (point, value, target) in [
            (&first, "first", "/a"),
            (&second, "second", "/b"),
            (&third, "third", "/c"),
        ] {
            assert_eq!(at(&fs, &db, point, target).unwrap(), value);
        }
        // What is behind it says what is in the way, how far one gets, and what to do.
        for point in [&behind, &RestorePoint::Latest] {
            let error = at(&fs, &db, point, "/d").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gap);
            let sentence = error.to_string();
            for part in [
                "a backup was restored there",
                "what can be restored before that ends with sequence number",
            ] {
                assert!(sentence.contains(part), "{sentence}");
            }
            assert!(error.advice().contains("backup"), "{}", error.advice());
            let error = db.restore_to_point(point).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gap);
            assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"behind it"[..]));
        }
        // It is no finding: the log says why.
        let report = db.validate().unwrap();
        assert!(
            report.worst() < Some(Severity::Warning),
            "{:?}",
            report.issues()
        );

        let whole_again = db.create_backup("after the restore").unwrap();
        let later = write("later");
        assert_eq!(at(&fs, &db, &later, "/e").unwrap(), "later");
        assert_eq!(at(&fs, &db, &RestorePoint::Latest, "/f").unwrap(), "later");
        let named = RestorePoint::Backup(whole_again.name().into());
        assert_eq!(at(&fs, &db, &named, "/g").unwrap(), "behind it");
        assert_eq!(at(&fs, &db, &third, "/h").unwrap(), "third");
        assert!(restored == b"first" || restored == b"second");
    }
}

/// A recovery point costs next to nothing, and is a beginning as well as a backup is.
#[test]
fn a_recovery_point_after_a_restore_makes_the_history_whole_too() {
    let fs = MemFileSystem::new();
    let db = options(&fs).open(HOME).unwrap();
    db.put("k", "first").unwrap();
    let backup = db.create_backup("").unwrap();
    db.put("k", "second").unwrap();
    db.restore_backup(backup.name()).unwrap();
    db.create_recovery_point("after the restore").unwrap();
    db.put("k", "third").unwrap();
    assert_eq!(at(&fs, &db, &RestorePoint::Latest, "/a").unwrap(), "third");
}

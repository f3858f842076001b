//! A restore into the open database while the log is archived: it leaves a recovery point, over which the
//! moments behind it are restored, and those before it stay restorable as they were.

use esker::vfs::MemFileSystem;
use esker::{Db, ErrorKind, ManualClock, Options, RestorePoint, RestoreSource};
use std::sync::Arc;

const HOME: &str = "/db";
const BEGIN_MILLIS: u64 = 1_700_000_000_000;

fn options(fs: &MemFileSystem) -> Options {
    Options::new()
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::at_millis(BEGIN_MILLIS)))
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
fn moments_before_and_behind_a_restore_are_restorable() {
    type Restore = fn(&Db, &str, u64);
    let restores: [Restore; 2] = [
        |db, backup, _| db.restore_backup(backup).unwrap(),
        |db, _, point| drop(db.restore_to_point(&RestorePoint::Sequence(point)).unwrap()),
    ];
    for (restore, came_back) in restores.into_iter().zip(["first", "second"]) {
        let fs = MemFileSystem::new();
        let db = options(&fs).open(HOME).unwrap();
        let write = |value: &str| {
            db.put("k", value).unwrap();
            db.snapshot().sequence()
        };
        let first = write("first");
        let backup = db.create_backup("").unwrap();
        let second = write("second");
        let third = write("third");
        restore(&db, backup.name(), second);
        let restored = db.snapshot().sequence();
        // It is a write of its own: no number means two states.
        assert!(restored > third);
        let behind = write("behind it");
        let last = write("the last");

        let check = |db: &Db, round: usize| {
            let moments = [
                (first, "first"),
                (second, "second"),
                (third, "third"),
                (restored - 1, "third"),
                (restored, came_back),
                (behind, "behind it"),
                (last, "the last"),
            ];
            for (at_once, (sequence, value)) in moments.into_iter().enumerate() {
                let target = format!("/copy {round} {at_once}");
                let point = RestorePoint::Sequence(sequence);
                assert_eq!(at(&fs, db, &point, &target).unwrap(), value, "{sequence}");
            }
            let target = format!("/copy {round}");
            assert_eq!(
                at(&fs, db, &RestorePoint::Latest, &target).unwrap(),
                "the last"
            );
        };
        check(&db, 1);
        let report = db.validate().unwrap();
        assert!(report.issues().is_empty(), "{:?}", report.issues());

        // Also once the backup is gone that came back, and in another life.
        db.delete_backup(backup.name()).unwrap();
        check(&db, 2);
        db.close().unwrap();
        let source = RestoreSource::new(HOME).file_system(Arc::new(fs.clone()));
        source.restore(&RestorePoint::Latest, "/from disk").unwrap();
        let db = options(&fs).open(HOME).unwrap();
        check(&db, 3);

        // A restore is undone by going back to the write before it.
        db.restore_to_point(&RestorePoint::Sequence(restored - 1))
            .unwrap();
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"third"[..]));
        db.restore_to_point(&RestorePoint::Sequence(last)).unwrap();
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"the last"[..]));
        assert_eq!(
            at(&fs, &db, &RestorePoint::Latest, "/in the end").unwrap(),
            "the last"
        );
    }
}

/// A time between the last write and the restore that took it away is before the restore, though the first
/// that the log says about numbers behind that write is that a restore has taken one.
#[test]
fn times_around_a_restore_are_told_apart() {
    let fs = MemFileSystem::new();
    let clock = Arc::new(ManualClock::at_millis(BEGIN_MILLIS));
    let db = options(&fs).clock(clock.clone()).open(HOME).unwrap();
    let pass = || clock.advance(std::time::Duration::from_secs(1));
    db.put("k", "first").unwrap();
    let backup = db.create_backup("").unwrap();
    pass();
    db.put("k", "second").unwrap();
    pass();
    pass();
    db.restore_backup(backup.name()).unwrap();
    pass();
    db.put("k", "third").unwrap();
    for (seconds, value) in [
        (0.0, "first"),
        (1.5, "second"),
        (2.5, "second"),
        (3.5, "first"),
        (4.5, "third"),
    ] {
        let millis = BEGIN_MILLIS + (seconds * 1000.0) as u64;
        let target = format!("/at {seconds}");
        let point = RestorePoint::Time(millis);
        assert_eq!(at(&fs, &db, &point, &target).unwrap(), value, "{seconds}");
    }
}

/// What people see of it: a recovery point that says what it is, pins what it pins, and can be deleted, with
/// the moments that it serves.
#[test]
fn the_point_that_a_restore_leaves_is_listed_and_may_be_deleted() {
    let fs = MemFileSystem::new();
    let db = options(&fs).open(HOME).unwrap();
    db.put("k", "first").unwrap();
    let backup = db.create_backup("").unwrap();
    db.put("k", "second").unwrap();
    db.restore_backup(backup.name()).unwrap();
    let restored = db.snapshot().sequence();
    let listed = db.list_backups().unwrap();
    let [_, left] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert!(left.is_recovery_point());
    assert_eq!(left.restored_sequence(), Some(backup.sequence()));
    assert_eq!(left.sequence(), restored);
    let name = backup.name();
    let description = format!("write {restored} restored {name}, at sequence number 1");
    assert_eq!(left.description(), description);
    assert!(db.verify_backup(left.name()).unwrap().is_ok());
    let usage = db.disk_usage().unwrap();
    assert_eq!(usage.pinned_by(), [(left.name().to_owned(), 0)]);
    // What it alone holds is counted as that, and stays across an open.
    db.put("k", "third").unwrap();
    db.compact().unwrap();
    let third = RestorePoint::Sequence(db.snapshot().sequence());
    let usage = db.disk_usage().unwrap();
    assert_eq!(usage.pinned_bytes(), left.size_bytes());
    assert!(usage.pinned_bytes() > 0);
    db.close().unwrap();
    let db = options(&fs).open(HOME).unwrap();
    assert_eq!(
        db.disk_usage().unwrap().pinned_bytes(),
        usage.pinned_bytes()
    );
    assert_eq!(at(&fs, &db, &third, "/a").unwrap(), "third");

    db.delete_backup(left.name()).unwrap();
    assert_eq!(db.disk_usage().unwrap().pinned_bytes(), 0);
    let error = at(&fs, &db, &third, "/b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    let sentence = error.to_string();
    for part in [
        "a backup was restored there",
        "what can be restored before that ends with sequence number 2",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert!(error.advice().contains("backup"), "{}", error.advice());
    assert_eq!(
        db.restore_to_point(&third).unwrap_err().kind(),
        error.kind()
    );
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"third"[..]));
    db.create_recovery_point("whole again").unwrap();
    db.put("k", "fourth").unwrap();
    assert_eq!(at(&fs, &db, &RestorePoint::Latest, "/c").unwrap(), "fourth");
}

/// Where nothing is archived there are no moments to serve; where the archive is limited, the point goes with
/// the first segment that is replayed over it.
#[test]
fn the_point_that_a_restore_leaves_stays_as_long_as_the_archive_needs_it() {
    let fs = MemFileSystem::new();
    let db = options(&fs).wal_archive(false).open(HOME).unwrap();
    db.put("k", "first").unwrap();
    let backup = db.create_backup("").unwrap();
    db.restore_backup(backup.name()).unwrap();
    assert_eq!(db.list_backups().unwrap().len(), 1);
    db.close().unwrap();

    let limited = options(&fs).wal_archive_limit_bytes(Some(20_000));
    let db = limited.clone().open(HOME).unwrap();
    let left = || {
        let all = db.list_backups().unwrap().into_iter();
        all.filter(|it| it.restored_sequence().is_some()).count()
    };
    db.put("k", "second").unwrap();
    db.restore_backup(backup.name()).unwrap();
    let mut moments = Vec::new();
    for round in 0..12 {
        db.put("k", vec![b'v'; 4000]).unwrap();
        db.wal().clear().unwrap();
        moments.push(db.snapshot().sequence());
        let oldest = db.wal().archived().unwrap()[0].first_sequence();
        let is_whole = oldest <= moments[0];
        assert_eq!(left(), usize::from(is_whole), "round {round}");
        let copy = format!("/copy {round}");
        let copied = db.restore_into(&RestorePoint::Sequence(moments[round]), copy);
        assert_eq!(copied.is_ok(), is_whole, "round {round}");
    }
    assert_eq!(left(), 0);
    assert_eq!(db.disk_usage().unwrap().pinned_bytes(), 0);
    let report = db.validate().unwrap();
    assert!(report.is_ok(), "{:?}", report.issues());
}

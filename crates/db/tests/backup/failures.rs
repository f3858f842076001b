//! A failure and a crash at every operation of backups, restores and recovery points.

use super::{HOME, Map, contents, files, fill, memory, small};
use esker::Db;
use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FileSystem, ImagePolicy, MemFileSystem,
};
use std::path::Path;
use std::sync::Arc;

fn contents_and_backups(db: &Db) -> (Map, Vec<(String, bool)>) {
    let backups = db.list_backups().unwrap();
    let names = backups
        .iter()
        .map(|backup| (backup.name().to_owned(), backup.is_recovery_point()));
    (contents(db), names.collect())
}

/// A step of the workload that is crashed everywhere.
const STEPS: usize = 9;

fn step(db: &Db, step: usize) {
    let newest = |points: bool| {
        let all = db.list_backups().unwrap().into_iter();
        let mut all = all.filter(|backup| backup.is_recovery_point() == points);
        all.next_back().unwrap()
    };
    match step {
        0 => _ = db.create_backup("first").unwrap(),
        1 => db.delete_range("key00000".."key00050").unwrap(),
        2 => _ = db.create_recovery_point("point").unwrap(),
        3 => db.put("key00001", "rewritten").unwrap(),
        4 => db.restore_backup(newest(false).name()).unwrap(),
        5 => _ = db.create_backup("second").unwrap(),
        6 => db.restore_backup(newest(true).name()).unwrap(),
        7 => db.delete_backup(newest(false).name()).unwrap(),
        _ => db.delete_backup(newest(true).name()).unwrap(),
    }
}

/// As [`step`], where anything may fail.
fn try_step(db: &Db, step: usize, backup: &str, point: &str) -> esker::Result<()> {
    match step {
        0 => db.create_backup("another").map(|_| ()),
        1 => db.create_recovery_point("another").map(|_| ()),
        2 => db.restore_backup(backup),
        3 => db.restore_backup(point),
        4 => db.delete_backup(backup),
        5 => db.delete_backup(point),
        _ => db.checkpoint("/copies/one"),
    }
}

#[test]
fn a_failure_at_any_operation_is_told_and_changes_nothing_or_all() {
    for fault in [DeviceError::Io, DeviceError::NoSpace] {
        for index in 0..7 {
            for offset in 0.. {
                let inner = memory();
                let faulty = FaultFileSystem::new(Arc::clone(&inner));
                let fs: Arc<dyn FileSystem> = Arc::new(faulty.clone());
                let db = small(&fs).open(HOME).unwrap();
                fill(&db, 0..60, "then ");
                let restored = contents(&db);
                let backup = db.create_backup("then").unwrap();
                let point = db.create_recovery_point("then").unwrap();
                fill(&db, 30..90, "now ");
                let before = contents(&db);
                db.wait_for_background_work().unwrap();
                let place = format!("{fault:?} at operation {offset} of step {index}");
                faulty.fail_at(faulty.operations() + offset, Fault::Refuse(fault));
                let outcome = try_step(&db, index, backup.name(), point.name());
                let was_hit = faulty.faults() > 0;
                faulty.clear();
                let now = contents(&db);
                let changed = matches!(index, 2 | 3) && outcome.is_ok();
                let expected = if changed { &restored } else { &before };
                assert!(now == *expected, "{place}: {outcome:?}");
                // What is written later is later, also after a crash.
                db.put("later", "write").expect(&place);
                let mut later = now;
                let default = later.get_mut("default").unwrap();
                default.insert(b"later".to_vec(), b"write".to_vec());
                for listed in db.list_backups().expect(&place) {
                    let report = db.verify_backup(listed.name()).expect(&place);
                    assert!(report.is_ok(), "{place}: {:?}", report.issues());
                }
                drop(db);
                let db = small(&inner).open(HOME).expect(&place);
                assert!(contents(&db) == later, "{place}: after reopening");
                let report = db.validate().expect(&place);
                assert!(report.is_ok(), "{place}: {:?}", report.issues());
                db.create_backup("afterwards").expect(&place);
                if !was_hit {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_state_before_or_after() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    fs.create_dir_all(Path::new(HOME)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let db = small(&fs).open(HOME).unwrap();
    db.keyspace("users").unwrap().put("1", "Ada").unwrap();
    fill(&db, 0..120, "value ");
    db.wal().sync().unwrap();
    // For each step: where it began, the state before, and the state after.
    let mut states = vec![(disk.operations(), contents_and_backups(&db))];
    for index in 0..STEPS {
        step(&db, index);
        db.wal().sync().unwrap();
        states.push((disk.operations(), contents_and_backups(&db)));
    }
    drop(db);
    let policies = [
        ImagePolicy::ONLY_SYNCED,
        ImagePolicy::PROCESS_END,
        ImagePolicy::random_subset(7),
        ImagePolicy::torn_tail(8),
    ];
    for policy in policies {
        for index in 0..STEPS {
            let (begin, before) = &states[index];
            let (end, after) = &states[index + 1];
            for operation in *begin..*end {
                let image = disk.image(operation, &policy);
                let fs: Arc<dyn FileSystem> = Arc::new(image);
                let place = format!("step {index}, operation {operation}, {policy}");
                let db = small(&fs).open(HOME).expect(&place);
                let found = contents_and_backups(&db);
                assert!(found == *before || found == *after, "{place}");
                let (found, names) = found;
                // None was left out of the list for being damaged.
                let on_disk = files(&*fs, Path::new("/db/backups")).into_iter();
                let metadata =
                    on_disk.filter(|(path, _)| path.extension().is_some_and(|e| e == "backup"));
                let points = names.iter().filter(|(_, is_point)| *is_point).count();
                assert_eq!(metadata.count() + points, names.len(), "{place}");
                for backup in db.list_backups().expect(&place) {
                    let report = db.verify_backup(backup.name()).expect(&place);
                    assert!(report.is_ok(), "{place}: {:?}", report.issues());
                }
                let report = db.validate().expect(&place);
                assert!(report.is_ok(), "{place}: {:?}", report.issues());
                // It goes on working, and what the crash left behind is swept away.
                let backup = db.create_backup("after the crash").expect(&place);
                db.clear().expect(&place);
                db.restore_backup(backup.name()).expect(&place);
                assert!(contents(&db) == found, "{place}");
            }
        }
    }
}

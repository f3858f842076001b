//! One failing operation around a backup: what is listed stays, and what cannot be read is not damaged.
//!
//! The stories. The metadata of a backup got its name, but the answer was lost: the creation failed, the
//! backup was listed all the same, also after a reopen, and a loss of power took it away, because nobody
//! had synced its directory. And a read that the device refused as out of space or quota left a good backup
//! out of the list, while any refused read of its tables made `verify_backup` call it damaged.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FaultRule, FileSystem, ImagePolicy,
    MemFileSystem, OperationKind,
};
use esker::{Db, ErrorKind, Options};

const HOME: &str = "/db";

fn open(disk: Arc<dyn FileSystem>) -> Db {
    let options = Options::new().file_system(disk).ttl_cleanup_interval(None);
    options.open(HOME).unwrap()
}

/// A database with one backup that is there for certain.
fn database() -> (CrashFileSystem, FaultFileSystem, Db) {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
    let db = open(Arc::new(faulty.clone()));
    db.put("key", "value").unwrap();
    db.create_backup("the first").unwrap();
    (disk, faulty, db)
}

fn on_metadata(fault: Fault, kind: OperationKind) -> FaultRule {
    FaultRule::new(fault)
        .on(&[kind])
        .path_contains(".backup")
        .times(1)
}

fn listed(db: &Db) -> Vec<String> {
    let backups = db.list_backups().unwrap();
    backups.iter().map(|it| it.description().into()).collect()
}

/// What is listed now, if a loss of power leaves the same, and all of it whole.
fn listed_for_good(disk: &CrashFileSystem, db: &Db) -> Vec<String> {
    let now = listed(db);
    let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
    let left = open(Arc::new(image));
    assert_eq!(listed(&left), now, "after a loss of power");
    for backup in left.list_backups().unwrap() {
        let report = left.verify_backup(backup.name()).unwrap();
        assert!(report.is_ok(), "{:?}", report.issues());
    }
    now
}

#[test]
fn a_backup_that_was_named_by_a_failed_rename_is_listed_for_good_or_not_at_all() {
    for error in [DeviceError::Io, DeviceError::EndOfFile] {
        for is_removal_refused in [false, true] {
            let (disk, faulty, db) = database();
            db.put("another", "value").unwrap();
            faulty.add_rule(on_metadata(Fault::Deny(error), OperationKind::Rename));
            if is_removal_refused {
                let rule = on_metadata(Fault::Refuse(error), OperationKind::RemoveFile);
                faulty.add_rule(rule);
            }
            let failed = db.create_backup("the second").unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Io);
            faulty.clear();
            drop(db);
            // The process ended, and the disk goes on.
            let db = open(Arc::new(faulty));
            let all = ["the first", "the second"];
            let expected = &all[..1 + usize::from(is_removal_refused)];
            assert_eq!(listed_for_good(&disk, &db), expected);
            db.create_backup("the third").unwrap();
            assert_eq!(listed_for_good(&disk, &db).len(), expected.len() + 1);
        }
    }
}

/// The directory could not be synced once the metadata had its name: the creation failed, and the backup was
/// listed all the same.
#[test]
fn a_backup_whose_directory_could_not_be_synced_is_not_listed() {
    for way in [
        Fault::Refuse(DeviceError::Io),
        Fault::Deny(DeviceError::NoSpace),
    ] {
        let mut failed = 0;
        for syncs in 0.. {
            let (disk, faulty, db) = database();
            db.put("another", "value").unwrap();
            let rule = FaultRule::new(way).on(&[OperationKind::SyncDir]);
            faulty.add_rule(rule.path_contains("backups").after(syncs).times(1));
            let before = faulty.faults();
            let created = db.create_backup("the second");
            let was_hit = faulty.faults() > before;
            faulty.clear();
            failed += u32::from(created.is_err());
            let all = ["the first", "the second"];
            let expected = &all[..1 + usize::from(created.is_ok())];
            assert_eq!(listed_for_good(&disk, &db), expected, "{way:?}, {syncs}");
            if !was_hit {
                break;
            }
        }
        assert!(failed > 1, "{failed} failed");
    }
}

#[test]
fn a_backup_that_was_removed_by_a_failed_removal_does_not_come_back() {
    let (disk, faulty, db) = database();
    let name = db.list_backups().unwrap()[0].name().to_owned();
    let rule = on_metadata(Fault::Deny(DeviceError::Io), OperationKind::RemoveFile);
    faulty.add_rule(rule);
    let failed = db.delete_backup(&name).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Io);
    assert!(listed_for_good(&disk, &db).is_empty());
}

#[test]
fn what_cannot_be_read_now_is_an_error_and_not_damage() {
    let mut ways = vec![
        Fault::Partly(DeviceError::EndOfFile, 1),
        Fault::Deny(DeviceError::EndOfFile),
    ];
    let errors = [
        DeviceError::Io,
        DeviceError::NoSpace,
        DeviceError::Quota,
        DeviceError::EndOfFile,
    ];
    ways.extend(errors.map(Fault::Refuse));
    let (_disk, faulty, db) = database();
    let name = db.list_backups().unwrap()[0].name().to_owned();
    let is_answer = |error: &esker::Error, place: &str| {
        let kind = error.kind();
        let is_refusal = matches!(kind, ErrorKind::Io | ErrorKind::NoSpace);
        assert!(is_refusal, "{place}: {error}");
    };
    for way in ways {
        for offset in 0.. {
            let place = format!("{way:?} at operation {offset}");
            let begin = faulty.operations();
            faulty.fail_at(begin + offset, way);
            match db.list_backups() {
                Ok(backups) => assert_eq!(backups.len(), 1, "{place}"),
                Err(error) => is_answer(&error, &place),
            }
            match db.verify_backup(&name) {
                Ok(report) => assert!(report.issues().is_empty(), "{place}: {report:?}"),
                Err(error) => is_answer(&error, &place),
            }
            let was_hit = faulty.operations() > begin + offset;
            faulty.clear();
            if !was_hit {
                assert!(offset > 5, "only {offset} operations");
                break;
            }
        }
    }
}

#[test]
fn a_table_that_is_missing_is_damage() {
    let (_disk, faulty, db) = database();
    let tables = Path::new("/db/backups/tables");
    let entries = faulty.read_dir(tables).unwrap();
    let table = tables.join(&entries[0].name);
    faulty.remove_file(&table).unwrap();
    let name = db.list_backups().unwrap()[0].name().to_owned();
    let report = db.verify_backup(&name).unwrap();
    assert_eq!(report.issues().len(), 1);
    assert_eq!(report.issues()[0].file(), Some(table.as_path()));
    // As long as the database has the table itself, that makes up for it.
    db.clear().unwrap();
    db.restore_backup(&name).unwrap();
    assert!(db.contains_key("key").unwrap());
    db.clear().unwrap();
    db.compact().unwrap();
    // A job that began before it may hold the table's file a moment longer.
    db.wait_for_background_work().unwrap();
    let refused = db.restore_backup(&name).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption, "{refused}");
}

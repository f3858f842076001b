//! Validation on a device that does not read everything: what the file system refused is told apart from
//! damage, and hides none.
//!
//! The story: any refused read, of a table, the log, the manifest, the archive or a backup, was told as
//! damage with the advice to restore a backup; and a listing that was refused went by without a word.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::vfs::{DeviceError, Fault, FaultFileSystem, FileSystem, MemFileSystem};
use esker::{Db, ErrorKind, IndexDefinition, Options, Severity};

const HOME: &str = "/db";

/// A database that has some of everything that a validation looks at.
fn database() -> (FaultFileSystem, Db) {
    let faulty = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let by_first = IndexDefinition::new("first", 1, |_, value, keys| {
        if let Some(byte) = value.first() {
            keys.add(&i64::from(*byte));
        }
        Ok(())
    });
    let options = Options::new()
        .file_system(Arc::new(faulty.clone()))
        .wal_archive(true)
        .cache_bytes(0)
        .value_separation_threshold_bytes(100)
        .index("default", by_first)
        .ttl_cleanup_interval(None);
    let db = options.open(HOME).unwrap();
    for number in 0..4u8 {
        db.put([number], [number; 150]).unwrap();
    }
    db.create_backup("kept").unwrap();
    db.create_recovery_point("point").unwrap();
    db.create_change_cursor("cursor").unwrap();
    db.put("later", "in the log").unwrap();
    db.wait_for_background_work().unwrap();
    (faulty, db)
}

fn ways() -> [Fault; 3] {
    [
        Fault::Partly(DeviceError::Io, 1),
        Fault::Refuse(DeviceError::NoSpace),
        Fault::Deny(DeviceError::EndOfFile),
    ]
}

/// Has each operation of a validation fail in each way; how many there are.
fn sweep(
    faulty: &FaultFileSystem,
    db: &Db,
    judge: impl Fn(esker::Result<esker::ValidationReport>, &str),
) -> u64 {
    let mut least = u64::MAX;
    // A debug build tries a share of them.
    let stride = if cfg!(debug_assertions) { 5 } else { 1 };
    for (first, way) in ways().into_iter().enumerate() {
        for offset in (first as u64..).step_by(stride) {
            let begin = faulty.operations();
            faulty.fail_at(begin + offset, way);
            let validated = db.validate();
            let was_hit = faulty.operations() > begin + offset;
            faulty.clear();
            judge(validated, &format!("{way:?} at operation {offset}"));
            if !was_hit {
                least = least.min(offset);
                break;
            }
        }
    }
    least
}

#[test]
fn what_cannot_be_read_now_is_an_error_and_not_damage() {
    let (faulty, db) = database();
    assert!(db.validate().unwrap().issues().is_empty());
    let operations = sweep(&faulty, &db, |validated, place| match validated {
        Ok(report) => assert!(report.issues().is_empty(), "{place}: {report:?}"),
        Err(error) => {
            let kind = error.kind();
            let is_refusal = matches!(kind, ErrorKind::Io | ErrorKind::NoSpace);
            assert!(is_refusal && error.file().is_some(), "{place}: {error}");
        }
    });
    assert!(operations > 30, "only {operations} operations");
}

fn first_table(fs: &dyn FileSystem) -> PathBuf {
    let entries = fs.read_dir(Path::new(HOME)).unwrap();
    let tables = entries.iter().filter(|entry| entry.name.ends_with(".sst"));
    Path::new(HOME).join(&tables.min_by_key(|entry| &entry.name).unwrap().name)
}

#[test]
fn what_cannot_be_read_hides_no_damage() {
    let (faulty, db) = database();
    let table = first_table(&faulty);
    let file = faulty.open_write(&table).unwrap();
    file.write_at(30, b"damage").unwrap();
    let damage = |report: &esker::ValidationReport| {
        let issues = report.issues().iter();
        issues
            .filter(|it| it.severity() == Severity::Damage)
            .count()
    };
    let all = damage(&db.validate().unwrap());
    assert!(all > 0);
    sweep(&faulty, &db, |validated, place| match validated {
        Ok(report) => {
            // Worst first; the refusal is a note.
            assert_eq!(report.issues()[0].severity(), Severity::Damage, "{place}");
            assert!(
                !report.is_ok() && damage(&report) <= all,
                "{place}: {report:?}"
            );
        }
        // It was the damaged table that could not be read.
        Err(error) => assert_eq!(error.file(), Some(table.as_path()), "{place}: {error}"),
    });
}

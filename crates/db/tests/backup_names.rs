//! A backup is never replaced by another of the same name, whatever the disk answers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use esker::vfs::{DeviceError, Fault, FaultFileSystem, MemFileSystem};
use esker::{ManualClock, Options};

/// A look for the name that failed was once taken for a name that is free: within a second of another,
/// a backup then took its place. (Seed 19084 of the simulation.)
#[test]
fn a_disk_that_fails_does_not_free_a_name() {
    let clock = Arc::new(ManualClock::at_millis(1_700_000_000_000));
    for operation in 0..200 {
        let faulty = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
        let options = || {
            let disk = Arc::new(faulty.clone());
            Options::new().file_system(disk).clock(clock.clone())
        };
        let db = options().open("/db").unwrap();
        db.put("version", "1").unwrap();
        let first = db.create_backup("the first").unwrap();
        db.put("version", "2").unwrap();
        let begun = faulty.operations();
        faulty.fail_at(begun + operation, Fault::Refuse(DeviceError::Io));
        let second = db.create_backup("the second");
        let was_hit = faulty.faults() > 0;
        faulty.clear();
        if let Ok(second) = &second {
            assert_ne!(first.name(), second.name(), "operation {operation}");
        }
        let description = db.backup_info(first.name()).unwrap();
        assert_eq!(
            description.description(),
            "the first",
            "operation {operation}"
        );
        db.restore_backup(first.name()).unwrap();
        assert_eq!(db.get("version").unwrap().as_deref(), Some(&b"1"[..]));
        if !was_hit {
            assert!(operation > 5 && second.is_ok(), "every operation was tried");
            return;
        }
    }
    panic!("a backup has fewer operations");
}

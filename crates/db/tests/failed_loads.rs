//! A bulk load that fails leaves nothing behind on the disk, whatever failed: the disk may be full.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use esker::Options;
use esker::vfs::{
    DeviceError, Fault, FaultFileSystem, FaultRule, FileSystem, MemFileSystem, OperationKind,
};
use esker_testkit::seed::noise;

const HOME: &str = "/db";

fn options(fs: impl FileSystem + 'static) -> Options {
    Options::new()
        .file_system(Arc::new(fs))
        .wal_segment_bytes(64 << 10)
        .cache_bytes(1 << 20)
}

fn names(fs: &dyn FileSystem, end: &str) -> Vec<String> {
    let entries = fs.read_dir(Path::new(HOME)).unwrap().into_iter();
    let mut names: Vec<_> = entries
        .map(|it| it.name)
        .filter(|it| it.ends_with(end))
        .collect();
    names.sort();
    names
}

fn load_failing(fault: Fault, kind: OperationKind, after: u64) -> Vec<String> {
    let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let db = options(fs.clone())
        .target_file_bytes(64 << 10)
        .open(HOME)
        .unwrap();
    db.put("a", "b").unwrap();
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    let (tmp, sst) = (names(&fs, ".tmp"), names(&fs, ".sst"));
    fs.add_rule(
        FaultRule::new(fault)
            .on(&[kind])
            .path_contains(".tmp")
            .after(after)
            .times(1),
    );
    let entries = (0..200u64).map(|n| (n.to_be_bytes(), noise(n, 1000)));
    let loaded = db.ingest(entries);
    fs.clear();
    db.wait_for_background_work().unwrap();
    let mut left: Vec<_> = names(&fs, ".tmp")
        .into_iter()
        .filter(|it| !tmp.contains(it))
        .collect();
    left.extend(
        names(&fs, ".sst")
            .into_iter()
            .filter(|it| !sst.contains(it)),
    );
    assert!(loaded.is_err());
    left
}

#[test]
fn load_that_fails_leaves_no_files() {
    let mut all = Vec::new();
    for (fault, kind) in [
        (Fault::Refuse(DeviceError::NoSpace), OperationKind::Write),
        (Fault::Refuse(DeviceError::NoSpace), OperationKind::Sync),
        (Fault::Refuse(DeviceError::Io), OperationKind::Rename),
        (Fault::Deny(DeviceError::Io), OperationKind::Rename),
        (Fault::Deny(DeviceError::Io), OperationKind::Create),
    ] {
        all.extend(load_failing(fault, kind, 1));
    }
    assert!(all.is_empty(), "{all:?}");
}

/// The story: only an error of the load's own had its tables removed.
#[test]
fn a_load_whose_entries_panic_leaves_no_files() {
    let disk = MemFileSystem::new();
    let db = options(disk.clone())
        .target_file_bytes(64 << 10)
        .open(HOME)
        .unwrap();
    db.put("a", "b").unwrap();
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    let files = || (names(&disk, ".tmp"), names(&disk, ".sst"));
    let before = files();
    let entries = (0..200u64).map(|n| {
        assert!(n < 190, "the owner's panic");
        (n.to_be_bytes(), noise(n, 1000))
    });
    let load = AssertUnwindSafe(|| db.ingest(entries));
    assert!(catch_unwind(load).is_err());
    db.wait_for_background_work().unwrap();
    assert_eq!(files(), before);
}

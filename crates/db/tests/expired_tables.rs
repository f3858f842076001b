//! Tables of which every record has expired go without a byte of them being read.

use esker::vfs::{FileSystem, MemFileSystem, OperationKind, TraceFileSystem};
use esker::{CompactionShape, ManualClock, Options};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const HOME: &str = "/db";
const MINUTE: Duration = Duration::from_secs(60);

fn tables(fs: &dyn FileSystem) -> BTreeSet<PathBuf> {
    let entries = fs.read_dir(Path::new(HOME)).unwrap().into_iter();
    let names = entries
        .map(|entry| entry.name)
        .filter(|name| name.ends_with(".sst"));
    names.map(|name| Path::new(HOME).join(name)).collect()
}

/// A time series: each minute's records are flushed together and live for an hour. Later those of the first
/// minutes have expired, and the background removes their tables by what the manifest says of them.
#[test]
fn tables_that_have_expired_are_dropped_unread() {
    let disk = MemFileSystem::new();
    disk.create_dir_all(Path::new(HOME)).unwrap();
    let fs = Arc::new(TraceFileSystem::new(Arc::new(disk)));
    let clock = Arc::new(ManualClock::at_millis(1_000_000_000));
    let db = Options::new()
        .file_system(fs.clone())
        .clock(clock.clone())
        .compaction_shape(CompactionShape::Tiered)
        .level0_runs(64)
        .tier_runs(64)
        .ttl_cleanup_interval(MINUTE)
        .open(HOME)
        .unwrap();
    for minute in 0..20u32 {
        for i in 0..200u32 {
            let key = format!("{minute:04}/{i:04}");
            db.put_with_ttl(key, [7; 100], 60 * MINUTE).unwrap();
        }
        db.flush().unwrap();
        clock.advance(MINUTE);
        db.wait_for_background_work().unwrap();
    }
    let before = tables(&*fs);
    assert_eq!(before.len(), 20, "one for each minute");
    fs.clear();
    // The records of the first ten minutes have expired, and the clean-ups of every minute leave such
    // tables to compaction.
    clock.advance(49 * MINUTE);
    let mut minutes = 10;
    while tables(&*fs).len() > 10 {
        db.wait_for_background_work().unwrap();
        clock.advance(MINUTE);
        minutes += 1;
        assert!(minutes < 15, "nothing is removed");
    }
    let gone: BTreeSet<PathBuf> = before.difference(&tables(&*fs)).cloned().collect();
    assert!(gone.len() >= 10, "{gone:?}");
    let entries = fs.entries();
    let read = entries
        .iter()
        .map(|entry| &entry.operation)
        .filter(|operation| {
            let reads = matches!(
                operation.kind,
                OperationKind::Read | OperationKind::OpenRead
            );
            reads && gone.contains(&*operation.path)
        });
    let read: Vec<String> = read.map(ToString::to_string).collect();
    assert!(read.is_empty(), "{read:#?}");
    assert!(db.get("0000/0000").unwrap().is_none());
    assert_eq!(db.count().unwrap(), 200 * (20 - minutes));
}

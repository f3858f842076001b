//! What is flushed together, and what happens where a part of it fails.

use super::*;
use crate::Options;
use esker_compaction::ManualExecutor;
use esker_vfs::{DeviceError, Fault, FaultFileSystem, FaultRule, MemFileSystem, OperationKind};

#[test]
fn small_memtables_are_flushed_together_and_large_ones_alone() {
    let small = 1000;
    for (bytes, expected) in [
        (vec![], 1),
        (vec![usize::MAX], 1),
        (vec![usize::MAX, usize::MAX], 1),
        (vec![small, small, small], 3),
        (vec![small, GROUP_BYTES, small], 1),
        (vec![GROUP_BYTES / 2, GROUP_BYTES / 2, small], 2),
        (vec![small; 5000], GROUP_KEYSPACES),
    ] {
        assert_eq!(group_len(bytes.iter().copied()), expected, "{bytes:?}");
    }
}

#[test]
fn the_oldest_memtables_are_flushed_as_long_as_they_are_no_more_than_a_full_one() {
    for (sizes, expected) in [
        (vec![], 0),
        (vec![200], 1),
        (vec![200, 1], 1),
        (vec![40, 60, 1], 2),
        (vec![0, 0, 101], 2),
        (vec![usize::MAX, usize::MAX], 1),
    ] {
        assert_eq!(
            oldest_len(sizes.iter().copied(), 100),
            expected,
            "{sizes:?}"
        );
    }
}

#[test]
fn full_memtables_become_runs_of_their_own_the_oldest_first() {
    let executor = Arc::new(ManualExecutor::new(0));
    let options = Options::new()
        .file_system(Arc::new(MemFileSystem::new()))
        .write_buffer_bytes(64 << 10)
        .level0_runs(64);
    let db = options.executor(executor.clone()).open("/db").unwrap();
    let keyspace = db.keyspace("k").unwrap();
    let mut number = 0u32;
    while keyspace.state().load().sealed.len() < 2 {
        keyspace.put(number.to_be_bytes(), [7; 1000]).unwrap();
        number += 1;
    }
    while executor.step() {}
    let view = keyspace.state().load();
    assert_eq!((view.sealed.len(), view.runs.len()), (0, 2));
    drop(view);
    assert_eq!(keyspace.iter().count() as u32, number);
    db.close().unwrap();
}

/// The story: where one of several keyspaces that were flushed together could not be, those before it were
/// flushed, but nobody looked whether their tables were to be merged, until their next flush.
#[test]
fn what_a_failed_flush_has_flushed_is_looked_at_for_merges() {
    let disk = Arc::new(FaultFileSystem::new(Arc::new(MemFileSystem::new())));
    let executor = Arc::new(ManualExecutor::new(0));
    let options = Options::new().file_system(disk.clone());
    let db = options.executor(executor.clone()).open("/db").unwrap();
    let (first, second) = (
        db.keyspace("first").unwrap(),
        db.keyspace("second").unwrap(),
    );
    for _ in 0..20 {
        for keyspace in [&first, &second] {
            keyspace.put("k", "v").unwrap();
        }
        // The table of the first is made, that of the second is not.
        let fault = FaultRule::new(Fault::Refuse(DeviceError::Io)).on(&[OperationKind::Create]);
        disk.add_rule(fault.path_contains(".tmp").after(1).times(1));
        db.flush().unwrap_err();
        disk.clear();
        while executor.step() {}
    }
    let runs = |keyspace: &crate::Keyspace| keyspace.state().load().runs.len();
    assert_eq!(runs(&second), 0, "no flush of it has succeeded");
    assert!(runs(&first) < 8, "{} runs", runs(&first));
    db.close().unwrap();
}

/// The story: once each full memtable was flushed by itself, a full disk that could not take one stayed full, though a
/// range delete behind it covered all that was there.
#[test]
fn a_full_disk_takes_what_is_covered_together_with_what_covers_it() {
    let disk = MemFileSystem::new();
    let executor = Arc::new(ManualExecutor::new(0));
    let options = Options::new()
        .file_system(Arc::new(disk.clone()))
        .write_buffer_bytes(12 << 20);
    let db = options.executor(executor.clone()).open("/db").unwrap();
    let keyspace = db.keyspace("k").unwrap();
    // The reserve for a full disk is made.
    keyspace.put("k", "v").unwrap();
    while executor.step() {}
    let mut random = esker_vfs::Random::new(1);
    let mut value = [0; 8000];
    for number in 0u32.. {
        if !keyspace.state().load().sealed.is_empty() {
            break;
        }
        random.fill(&mut value);
        keyspace.put(number.to_be_bytes(), value).unwrap();
    }
    disk.set_capacity(disk.used_bytes());
    let error = db.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    keyspace.delete_range::<&[u8]>(..).unwrap();
    db.flush().unwrap();
    assert_eq!(keyspace.iter().count(), 0);
    keyspace.put("k", "v").unwrap();
    db.close().unwrap();
}

/// The story: the keyspace with the lowest number was flushed first, and one that was written to at the pace of
/// flushes kept all others waiting.
#[test]
fn what_was_sealed_first_is_flushed_first() {
    let executor = Arc::new(ManualExecutor::new(0));
    let options = Options::new()
        .file_system(Arc::new(MemFileSystem::new()))
        .write_buffer_bytes(2 << 20);
    let db = options.executor(executor).open("/db").unwrap();
    let (first, second) = (
        db.keyspace("first").unwrap(),
        db.keyspace("second").unwrap(),
    );
    let fill = |keyspace: &crate::Keyspace| {
        for number in 0u32.. {
            if !keyspace.state().load().sealed.is_empty() {
                break;
            }
            keyspace.put(number.to_be_bytes(), [7; 8000]).unwrap();
        }
    };
    fill(&second);
    fill(&first);
    let group = second.engine().group_to_flush(&LeftOut::new());
    let names: Vec<_> = group.iter().map(|state| state.id).collect();
    assert_eq!(names, [second.state().id]);
    db.close().unwrap();
}

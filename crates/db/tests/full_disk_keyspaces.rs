//! A full disk and several keyspaces: one whose memtable finds no room keeps no other from its tables, since
//! what the other has to write may be what gives room.
//!
//! The story: the flush job began with what had been sealed first, and ended with its failure. Behind a
//! keyspace with a large memtable a range delete of another, of the most of the disk, was never flushed.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use esker::vfs::{
    DeviceError, Fault, FaultFileSystem, FaultRule, FileSystem, MemFileSystem, OperationKind,
};
use esker::{Db, Durability, ErrorKind, Options, WriteOptions};
use esker_compaction::ManualExecutor;
use esker_testkit::seed::noise;

const HOME: &str = "/db";
const VALUE_BYTES: usize = 4096;

fn options(fs: impl FileSystem + 'static) -> Options {
    let fs: Arc<dyn FileSystem> = Arc::new(fs);
    Options::new()
        .file_system(fs)
        .write_buffer_bytes(32 << 20)
        .target_file_bytes(1 << 20)
        .wal_segment_bytes(1 << 20)
        .cache_bytes(1 << 20)
}

/// Bytes that do not compress.
fn value(number: u64) -> Vec<u8> {
    noise(number, VALUE_BYTES)
}

fn fill(db: &Db, keyspace: &str, bytes: usize) {
    let buffered = WriteOptions::new().durability(Durability::Buffered);
    let keyspace = db.keyspace(keyspace).unwrap();
    for number in 0..(bytes / VALUE_BYTES) as u64 {
        keyspace
            .put_opt(number.to_be_bytes(), value(number), &buffered)
            .unwrap();
    }
}

/// Both orders of the names: keyspaces have numbers, and the order of flushes must not depend on them.
#[test]
fn a_range_delete_of_one_keyspace_gives_room_to_another() {
    for (deleted, waiting) in [("a", "b"), ("b", "a")] {
        assert!(
            gives_room(deleted, waiting, |options| options),
            "{waiting} waits for room that {deleted} has left"
        );
    }
}

/// The story: what was kept for a full disk was given back for flushes, and a log segment that was made ahead took
/// it, or one for deletes, which have a part to themselves. No flush found any room from then on.
#[test]
fn what_is_given_back_for_flushes_is_not_taken_by_the_log() {
    let stuck = (0..24).filter(|&seed| {
        let executor = Arc::new(ManualExecutor::new(seed));
        !gives_room("a", "b", |options| options.executor(executor))
    });
    let stuck: Vec<_> = stuck.collect();
    assert!(stuck.is_empty(), "{stuck:?}");
}

fn gives_room(deleted: &str, waiting: &str, with: impl FnOnce(Options) -> Options) -> bool {
    let disk = MemFileSystem::new();
    let db = with(options(disk.clone())).open(HOME).unwrap();
    for name in ["a", "b"] {
        db.keyspace(name).unwrap().put("first", "put").unwrap();
    }
    fill(&db, deleted, 16 << 20);
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    fill(&db, waiting, 12 << 20);
    disk.set_capacity(disk.used_bytes());
    let first = db.flush().unwrap_err();
    assert_eq!(first.kind(), ErrorKind::NoSpace, "{first}");
    let all = [0u8; 8]..[0xff; 8];
    db.keyspace(deleted).unwrap().delete_range(all).unwrap();
    let is_flushed = (0..10).any(|_| {
        let flushed = db.flush();
        let _ = db.wait_for_background_work();
        flushed.is_ok()
    });
    if is_flushed {
        let count = |name: &str| db.keyspace(name).unwrap().count().unwrap();
        let expected = (12 << 20) / VALUE_BYTES as u64 + 1;
        assert_eq!((count(deleted), count(waiting)), (0, expected));
        disk.set_capacity(u64::MAX);
        db.put("after", "all").unwrap();
    }
    disk.set_capacity(u64::MAX);
    db.close().unwrap();
    is_flushed
}

/// Any lasting failure is one keyspace's own, and said; a later flush has it tried again.
#[test]
fn a_keyspace_that_cannot_be_flushed_keeps_no_other_from_it() {
    let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let db = options(fs.clone()).open(HOME).unwrap();
    for name in ["a", "b", "c"] {
        // Too large to be flushed together.
        fill(&db, name, 2 << 20);
    }
    fs.add_rule(
        FaultRule::new(Fault::Refuse(DeviceError::Io))
            .on(&[OperationKind::Create])
            .path_contains(".tmp")
            .times(1),
    );
    let error = db.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let stuck = ["a", "b", "c"].map(|name| {
        db.keyspace(name)
            .unwrap()
            .keyspace_stats()
            .sealed_memtables()
    });
    assert_eq!(stuck.iter().sum::<usize>(), 1, "{stuck:?}");
    db.flush().unwrap();
    db.close().unwrap();
}

/// Of a group of two the first is flushed; the log that only it needed would give the other room.
#[test]
fn log_of_what_was_flushed_beside_a_failure_gives_room() {
    let stuck: Vec<_> = [24u64, 48, 64, 96, 128, 160, 200]
        .into_iter()
        .filter(|&it| !has_room(it))
        .collect();
    assert!(stuck.is_empty(), "{stuck:?}");
}

fn has_room(slack: u64) -> bool {
    let disk = MemFileSystem::new();
    // They grow to four times that, and are let go whole.
    let options = options(disk.clone()).wal_segment_bytes(16 << 10);
    let db = options.open(HOME).unwrap();
    let buffered = WriteOptions::new().durability(Durability::Buffered);
    for name in ["a", "b"] {
        db.keyspace(name).unwrap().put("first", "put").unwrap();
    }
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    for n in 0..400u64 {
        let key = n.to_be_bytes();
        db.keyspace("a")
            .unwrap()
            .put_opt(key, vec![b'x'; 1000], &buffered)
            .unwrap();
    }
    for n in 0..400u64 {
        let key = n.to_be_bytes();
        db.keyspace("b")
            .unwrap()
            .put_opt(key, noise(n, 1000), &buffered)
            .unwrap();
    }
    let entries = disk.read_dir(Path::new(HOME)).unwrap();
    let mut reserve = entries.iter().filter(|entry| entry.name.ends_with(".tmp"));
    let ballast = reserve.next_back().map_or(0, |entry| entry.bytes);
    disk.set_capacity(disk.used_bytes() + (slack << 10) - ballast);
    let done = (0..10).any(|_| {
        let flushed = db.flush();
        let _ = db.wait_for_background_work();
        flushed.is_ok()
    });
    disk.set_capacity(u64::MAX);
    done
}

/// The story: what was left out of a flush job had failed, but the flush of another keyspace in the same job said
/// that all was well.
#[test]
fn the_failure_of_one_keyspace_is_not_forgotten_for_the_flush_of_another() {
    let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let db = options(fs.clone()).open(HOME).unwrap();
    db.put("reserve", "made").unwrap();
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    // What is known at the first table of each keyspace, of which the first cannot be made.
    let known = Arc::new(Mutex::new(Vec::new()));
    let flush_three = || {
        for name in ["a", "b", "c"] {
            // Too large to be flushed together, and one table each.
            fill(&db, name, 600 << 10);
        }
        let (looks, looker) = (Arc::clone(&known), db.clone());
        let mut is_first = true;
        fs.set_plan(move |_, operation| {
            let is_table = operation.path.extension().is_some_and(|end| end == "tmp");
            if operation.kind != OperationKind::Create || !is_table {
                return None;
            }
            looks.lock().unwrap().push(looker.background_errors().len());
            std::mem::take(&mut is_first).then_some(Fault::Refuse(DeviceError::Io))
        });
        db.flush().unwrap_err();
        fs.clear();
        std::mem::take(&mut *known.lock().unwrap())
    };
    assert!(flush_three().iter().all(|&failures| failures == 0));
    // The first fails again, since it is the oldest.
    let known = flush_three();
    assert!(
        known.len() >= 3 && known.iter().all(|&it| it == 1),
        "{known:?}"
    );
    db.close().unwrap();
}

/// The story: files of a keyspace that was dropped waited for those that a recovery point keeps, or a cursor, or for a flush
/// that names them. On a full disk neither comes.
#[test]
fn a_drop_gives_room_whatever_else_is_kept() {
    for waits_for_flush in [true, false] {
        drop_gives_room(waits_for_flush);
    }
}

fn drop_gives_room(waits_for_flush: bool) {
    let disk = MemFileSystem::new();
    let db = options(disk.clone()).open(HOME).unwrap();
    for name in ["a", "b"] {
        db.keyspace(name).unwrap().put("first", "put").unwrap();
    }
    db.flush().unwrap();
    db.create_recovery_point("").unwrap();
    db.keyspace("b").unwrap().put("first", "again").unwrap();
    db.flush().unwrap();
    // What there was before is kept for the point alone.
    db.compact().unwrap();
    fill(&db, "a", 16 << 20);
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    let is_refused = |error: &esker::Error| assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let large = vec![b'l'; 4 << 20];
    if waits_for_flush {
        fill(&db, "b", 12 << 20);
        disk.set_capacity(disk.used_bytes());
        is_refused(&db.flush().unwrap_err());
    } else {
        disk.set_capacity(disk.used_bytes());
        is_refused(&db.put("large", &large).unwrap_err());
    }
    db.drop_keyspace("a").unwrap();
    db.wait_for_background_work().unwrap_or_default();
    let is_flushed = (0..10).any(|_| {
        let flushed = db.flush();
        let _ = db.wait_for_background_work();
        flushed.is_ok()
    });
    let is_put = db.put("large", &large);
    disk.set_capacity(u64::MAX);
    assert!(is_flushed, "waits for a flush: {waits_for_flush}");
    is_put.unwrap();
    db.close().unwrap();
}

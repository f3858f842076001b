//! Which syncs a log of buffered writes needs: none of what flushes bring to stable storage, and all
//! that lies before a write that asks for one. And what is left of segments that flushes let go: nothing.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem};
use esker::{Db, Durability, Options, WriteOptions};
use esker_compaction::ManualExecutor;

fn open(disk: Arc<dyn FileSystem>, write_buffer_bytes: usize) -> Db {
    Options::new()
        .file_system(disk)
        .wal_segment_bytes(32 << 10)
        .wal_size_limit_bytes(8 << 20)
        .write_buffer_bytes(write_buffer_bytes)
        .max_sealed_memtables(1)
        .open("/db")
        .unwrap()
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// Records of 1000 bytes that fit 32 KiB beside two pages of header, nearly.
const KEYS_TO_A_SEGMENT: u32 = 22;

/// Fills about `segments` segments of the log with keys from 0 on; how many keys.
fn fill(db: &Db, segments: u32) -> u32 {
    let keys = segments * KEYS_TO_A_SEGMENT;
    let how = WriteOptions::new().durability(Durability::Buffered);
    for number in 0..keys {
        db.put_opt(key(number), [number as u8; 1000], &how).unwrap();
    }
    keys
}

/// A synced write makes everything before it durable, whatever was not synced until then.
fn sync_and_lose_power(db: &Db, disk: &CrashFileSystem, keys: u32, write_buffer_bytes: usize) {
    let how = WriteOptions::new().durability(Durability::Sync);
    db.put_opt(key(keys), [keys as u8; 1000], &how).unwrap();
    let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
    let left = open(Arc::new(image), write_buffer_bytes);
    for number in 0..=keys {
        let found = left.get(key(number)).unwrap();
        assert_eq!(
            found.as_deref(),
            Some(&[number as u8; 1000][..]),
            "{number}"
        );
    }
}

#[test]
fn what_flushes_bring_to_stable_storage_is_not_synced_in_the_log() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let buffer = 128 << 10;
    let db = open(Arc::new(disk.clone()), buffer);
    let keys = fill(&db, 60);
    assert!(db.stats().flushes() > 5);
    assert_eq!(db.stats().log_syncs(), 0);
    sync_and_lose_power(&db, &disk, keys, buffer);
}

/// Nobody waits for more than that, however long nothing is flushed.
#[test]
fn few_segments_wait_for_a_sync() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let buffer = 4 << 20;
    let db = open(Arc::new(disk.clone()), buffer);
    let keys = fill(&db, 40);
    assert_eq!(db.stats().flushes(), 0);
    let syncs = db.stats().log_syncs();
    // Fewer where segments have grown while the background was late with the next one.
    assert!((1..30).contains(&syncs), "{syncs}");
    sync_and_lose_power(&db, &disk, keys, buffer);
}

/// A buffered write does not wait for the syncs of the next segment: the current one grows, and all that is in it is
/// durable with the next write that asks for that.
#[test]
fn a_segment_grows_while_the_next_one_is_not_ready() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    // Its jobs wait until somebody asks, so that no segment is ever ready in time.
    let late = Arc::new(ManualExecutor::new(7));
    let db = Options::new()
        .file_system(Arc::new(disk.clone()))
        .executor(late)
        .wal_segment_bytes(32 << 10)
        .open("/db")
        .unwrap();
    let how = WriteOptions::new().durability(Durability::Buffered);
    let put = |number: u32| {
        let before = disk.operations();
        db.put_opt(key(number), [number as u8; 1000], &how).unwrap();
        disk.operations() - before
    };
    put(0);
    let keys = 4 * KEYS_TO_A_SEGMENT;
    for number in 1..keys {
        // The space, and the bytes.
        let operations = put(number);
        assert!(operations <= 5, "{operations} for {number}");
    }
    let longest = disk.metadata(&wal_of(&disk)).unwrap().bytes;
    assert_eq!(longest, 4 * (32 << 10));
    sync_and_lose_power(&db, &disk, keys, 1 << 20);
}

/// Behind its first length a sync takes a second one, and so does the next one: who syncs goes on in the next segment
/// as soon as that is ready.
#[test]
fn a_synced_write_does_not_stay_in_a_segment_that_has_grown() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let late = Arc::new(ManualExecutor::new(7));
    let db = Options::new()
        .file_system(Arc::new(disk.clone()))
        .executor(Arc::clone(&late) as Arc<_>)
        .wal_segment_bytes(32 << 10)
        .open("/db")
        .unwrap();
    let keys = fill(&db, 2);
    let segments = || {
        let entries = disk.read_dir("/db".as_ref()).unwrap();
        let names = entries.iter().map(|entry| entry.name.clone());
        names.filter(|name| name.ends_with(".wal")).count()
    };
    assert_eq!(segments(), 1);
    while late.step() {}
    assert_eq!(segments(), 2);
    let how = WriteOptions::new().durability(Durability::Sync);
    let put = |number: u32| {
        let before = disk.operations();
        db.put_opt(key(number), [number as u8; 1000], &how).unwrap();
        disk.operations() - before
    };
    put(keys);
    // Stored with its copy, and noted.
    assert!((1..5).all(|number| put(keys + number) <= 3));
    sync_and_lose_power(&db, &disk, keys + 5, 1 << 20);
}

fn wal_of(disk: &CrashFileSystem) -> PathBuf {
    let entries = disk.read_dir("/db".as_ref()).unwrap();
    let wal = entries.iter().find(|entry| entry.name.ends_with(".wal"));
    Path::new("/db").join(&wal.unwrap().name)
}

/// The story: complete segments of buffered writes wait for a sync, and those that a flush had made
/// unnecessary were closed by the next write that began a segment. It waited three milliseconds for each, and
/// where no write came their space stayed taken. Two more were kept to be used again, of no use without syncs:
/// what had been written to them went to the device after all.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_of_buffered_segments_that_flushes_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new()
        .wal_segment_bytes(32 << 10)
        .wal_size_limit_bytes(8 << 20)
        .write_buffer_bytes(128 << 10)
        .open(directory.path())
        .unwrap();
    fill(&db, 60);
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let segments = names.filter(|name| name.to_string_lossy().ends_with(".wal"));
    // The one that takes records, and the one that is ready to follow it.
    assert!(segments.count() <= 2);
    let handles = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = handles.filter_map(|handle| std::fs::read_link(handle.unwrap().path()).ok());
    let ours = open.filter(|path| path.starts_with(directory.path()));
    let removed: Vec<_> = ours
        .filter(|path| path.to_string_lossy().ends_with(".wal (deleted)"))
        .collect();
    assert!(removed.is_empty(), "{removed:?}");
    db.close().unwrap();
}

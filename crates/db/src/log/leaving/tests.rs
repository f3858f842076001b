//! The log goes on in a new segment where a memtable ends, if nothing else needs the old one.

use crate::{Db, Durability, Keyspace, Options};
use esker_compaction::ManualExecutor;
use esker_vfs::MemFileSystem;
use std::sync::Arc;

fn open() -> (Db, Arc<ManualExecutor>) {
    let executor = Arc::new(ManualExecutor::new(0));
    let options = Options::new()
        .file_system(Arc::new(MemFileSystem::new()))
        .executor(executor.clone())
        .default_durability(Durability::Buffered)
        .write_buffer_bytes(1 << 20)
        .wal_segment_bytes(200_000);
    (options.open("/db").unwrap(), executor)
}

/// Writes until a memtable is sealed, the background having nothing left to do before each write. Whether that
/// began a segment.
fn fill(keyspace: &Keyspace, executor: &ManualExecutor) -> bool {
    for number in 0..u32::MAX {
        while executor.step() {}
        let before = keyspace.engine().segments.current();
        keyspace.put(number.to_be_bytes(), [7; 1000]).unwrap();
        if !keyspace.state().load().sealed.is_empty() {
            let began = keyspace.engine().segments.current() != before;
            while executor.step() {}
            return began;
        }
    }
    false
}

/// The story: what a flush had brought into tables stayed in the log together with the few records behind it, up to
/// a segment of it, which the system wrote to the device.
#[test]
fn a_flush_lets_go_of_all_that_was_logged_for_it() {
    let (db, executor) = open();
    let keyspace = db.keyspace("a").unwrap();
    for _ in 0..3 {
        assert!(fill(&keyspace, &executor));
        let bytes = db.engine().segments.bytes();
        assert!(bytes < 3000, "{bytes} bytes are left of the log");
    }
    db.close().unwrap();
}

#[test]
fn a_segment_goes_on_where_another_keyspace_needs_it() {
    let (db, executor) = open();
    let (keyspace, other) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    other.put("key", "value").unwrap();
    assert!(!fill(&keyspace, &executor));
    db.close().unwrap();
}

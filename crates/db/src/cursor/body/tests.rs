//! What readers do not see of writes that come between two steps of a movement.

use super::*;
use crate::{Cursor, MemtableKind, Options};
use esker_vfs::MemFileSystem;
use std::sync::Arc;

/// The story: a walk backwards stood on a key behind its bound, stepped off it, and met the records that had been
/// written for that key meanwhile. It saw none of them, but after thirty-two it searched what it saw of that key, and
/// showed that.
#[test]
fn writes_behind_the_end_of_a_range_bring_nothing_into_it() {
    for kind in [MemtableKind::BTree, MemtableKind::SkipList] {
        let options = Options::new()
            .file_system(Arc::new(MemFileSystem::new()))
            .memtable(kind);
        let db = options.open("/db").unwrap();
        for key in ["a", "b", "c"] {
            db.put(key, "seen").unwrap();
        }
        let range = KeyRange::new(&(.."c"));
        let mut cursor = Cursor::new(&db, range, None);
        let cursor = cursor.body_mut();
        cursor.begin().unwrap();
        // The two steps of `seek_merge_before_end`.
        let end = Trailer::seek(MAX_SEQUENCE);
        cursor.merge.seek(b"c", end).unwrap();
        for number in 0..100 {
            db.put("c", number.to_string()).unwrap();
        }
        cursor.merge.prev().unwrap();
        cursor.settle_backwards().unwrap();
        assert!(cursor.valid());
        assert_eq!(cursor.key(), b"b");
        cursor.prev().unwrap();
        assert_eq!(cursor.key(), b"a");
        db.close().unwrap();
    }
}

/// What an idle cursor held of a block that had left the cache would count as lent, until the next one was dropped.
#[test]
fn a_dropped_cursor_holds_nothing_of_a_memory_budget() {
    let options = Options::new()
        .file_system(Arc::new(MemFileSystem::new()))
        .memory_budget_bytes(48 << 20);
    let db = options.open("/db").unwrap();
    for key in 0..2_000u32 {
        db.put(key.to_be_bytes(), [7; 1000]).unwrap();
    }
    db.flush().unwrap();
    // The first one reads the block itself, and lets go of it for that alone.
    db.cursor().seek(1_000u32.to_be_bytes()).unwrap();
    let mut cursor = db.cursor();
    cursor.seek(1_000u32.to_be_bytes()).unwrap();
    assert!(cursor.valid());
    let blocks = &db.engine().blocks;
    blocks.set_capacity_bytes(0);
    assert!(blocks.scan_bytes() > 0, "it stands on a block");
    drop(cursor);
    assert_eq!((blocks.used_bytes(), blocks.scan_bytes()), (0, 0));
    db.close().unwrap();
}

#[test]
fn a_seek_below_a_range_leads_to_its_first_entry() {
    let options = Options::new().file_system(Arc::new(MemFileSystem::new()));
    let db = options.open("/db").unwrap();
    for key in ["a", "b", "c", "d"] {
        db.put(key, "v").unwrap();
    }
    let part = [
        ("", "b"),
        ("a", "b"),
        ("b", "b"),
        ("bb", "c"),
        ("c", "c"),
        ("d", ""),
    ];
    let all = [("", "a"), ("a", "a"), ("b", "b"), ("d", "d"), ("e", "")];
    let ranges = [
        (KeyRange::new(&("b".."d")), &part[..]),
        (KeyRange::all(), &all),
    ];
    for (range, seeks) in ranges {
        for (sought, first) in seeks {
            let mut cursor = Cursor::new(&db, range.clone(), None);
            cursor.seek(sought).unwrap();
            let found = if cursor.valid() { cursor.key() } else { b"" };
            assert_eq!(found, first.as_bytes(), "{sought:?}");
        }
    }
    db.close().unwrap();
}

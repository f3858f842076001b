//! The whole engine against a sorted map: bytes are operations, on a disk in memory and under limits
//! so small that a few hundred of them flush, merge and rotate logs.
//!
//! Threads in the background decide when a flush or a merge happens, and so nothing that a user
//! sees: every answer is a function of the bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker::vfs::MemFileSystem;
use esker::{CompactionShape, Db, Options};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const MAX_OPERATIONS: usize = 2000;

/// The first byte picks the shape of compaction; each operation takes three more: what, and two
/// arguments. Every answer must be the map's.
pub fn operations(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let options = tiny_options(first);
    let mut db = options.clone().open("/db").expect("a new database");
    let mut map = Map::new();
    for operation in data.chunks_exact(3).take(MAX_OPERATIONS) {
        let [what, a, b] = [operation[0], operation[1], operation[2]];
        match what % 16 {
            0..=4 => {
                let (key, value) = (key(a), vec![b; usize::from(what) + usize::from(b)]);
                db.put(&key, &value).expect("a put");
                map.insert(key, value);
            }
            5 | 6 => {
                db.delete(key(a)).expect("a delete");
                map.remove(&key(a));
            }
            7 => {
                let (from, to) = range(a, b);
                db.delete_range(&from[..]..&to[..]).expect("a range delete");
                map.retain(|key, _| *key < from || *key >= to);
            }
            8..=10 => {
                let found = db.get(key(a)).expect("a get");
                assert_eq!(found.as_deref(), map.get(&key(a)).map(Vec::as_slice));
            }
            11 => check_range(&db, &map, range(a, b)),
            12 => db.flush().expect("a flush"),
            13 => {
                let (from, to) = range(a, b);
                db.compact_range(from..to).expect("a compaction");
            }
            14 => {
                db.close().expect("a close");
                db = options
                    .clone()
                    .open("/db")
                    .expect("a database that was closed");
            }
            _ => {
                let validated = db.validate();
                assert!(validated.is_ok(), "{validated:?}");
            }
        }
    }
    check_range(&db, &map, (Vec::new(), vec![0xff; 9]));
    db.close().expect("a close");
}

fn tiny_options(first: u8) -> Options {
    let shapes = [
        CompactionShape::Leveled,
        CompactionShape::Tiered,
        CompactionShape::LazyLeveled,
    ];
    Options::new()
        .compaction_shape(shapes[usize::from(first) % shapes.len()])
        .write_buffer_bytes(4 << 10)
        .target_file_bytes(4 << 10)
        .block_bytes(256)
        .level0_runs(2)
        .size_ratio(2)
        .wal_size_limit_bytes(64 << 10)
        .wal_segment_bytes(16 << 10)
        .cache_bytes(8 << 10)
        .max_open_files(4)
        .file_system(Arc::new(MemFileSystem::new()))
}

/// Half of the keys share a prefix that is longer than what comparisons cache.
fn key(number: u8) -> Vec<u8> {
    let mut key = if number < 128 {
        Vec::new()
    } else {
        b"a prefix that many keys share".to_vec()
    };
    key.push(number);
    key
}

/// From the smaller of two keys to the larger.
fn range(a: u8, b: u8) -> (Vec<u8>, Vec<u8>) {
    let (a, b) = (key(a), key(b));
    if a <= b { (a, b) } else { (b, a) }
}

/// All of the range, forwards and backwards.
fn check_range(db: &Db, map: &Map, (from, to): (Vec<u8>, Vec<u8>)) {
    let expected: Vec<_> = map
        .range(from.clone()..to.clone())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let entries = || {
        db.range(&from[..]..&to[..]).map(|entry| {
            let (key, value) = entry.expect("an entry");
            (key.to_vec(), value.to_vec())
        })
    };
    assert_eq!(entries().collect::<Vec<_>>(), expected);
    let backwards = db
        .range(&from[..]..&to[..])
        .rev()
        .map(|entry| entry.expect("an entry"));
    let backwards: Vec<_> = backwards.map(|(key, _)| key.to_vec()).collect();
    assert!(
        backwards
            .iter()
            .rev()
            .eq(expected.iter().map(|(key, _)| key))
    );
}

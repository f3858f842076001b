//! Many threads on one database: nobody sees half a batch, goes back in time or loses a write,
//! while memtables are flushed, tables merged and files removed under them.

use esker::vfs::MemFileSystem;
use esker::{CompactionShape, Db, Durability, MemtableKind, Options, WriteBatch, WriteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const WRITERS: u64 = 3;
const KEYS: u64 = 40;
const ROUNDS: u64 = 400;

fn options(memtable: MemtableKind) -> Options {
    Options::new()
        .memtable(memtable)
        .compaction_shape(CompactionShape::LazyLeveled)
        .write_buffer_bytes(8 << 10)
        .target_file_bytes(8 << 10)
        .block_bytes(512)
        .level0_runs(2)
        .tier_runs(2)
        .wal_size_limit_bytes(128 << 10)
        .wal_segment_bytes(16 << 10)
        .cache_bytes(32 << 10)
        .max_open_files(8)
        .file_system(Arc::new(MemFileSystem::new()))
}

fn key(half: char, writer: u64, key: u64) -> String {
    format!("{half}/{writer:02}/{key:04}")
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// Values of changing lengths that begin with the round they were written in.
fn value(round: u64) -> Vec<u8> {
    let mut value = round.to_le_bytes().to_vec();
    value.resize(8 + (round * 37 % 200) as usize, round as u8);
    value
}

/// Each batch writes the same round to both halves of a key; every fourth deletes both; every
/// eighth deletes the whole writer's range of both and writes one key again.
fn write(db: &Db, writer: u64, acknowledged: &AtomicU64) {
    let durabilities = [Durability::Buffered, Durability::Sync, Durability::Buffered];
    for round in 1..=ROUNDS {
        let k = round * 7 % KEYS;
        let (a, b) = (key('a', writer, k), key('b', writer, k));
        let mut batch = WriteBatch::new();
        if round % 64 == 0 {
            batch.delete_range(key('a', writer, 0)..key('a', writer, 9999));
            batch.delete_range(key('b', writer, 0)..key('b', writer, 9999));
        }
        if round % 4 == 3 {
            batch.delete(&a);
            batch.delete(&b);
        } else {
            batch.put(&a, value(round));
            batch.put(&b, value(round));
        }
        batch.put(key('z', writer, 0), value(round));
        let durability = durabilities[(round % 3) as usize];
        db.write_opt(batch, &WriteOptions::new().durability(durability))
            .unwrap();
        acknowledged.store(round, Ordering::Release);
    }
}

/// What a reader must find at any moment.
fn read(db: &Db, acknowledged: &[AtomicU64], done: &AtomicBool) -> u64 {
    let mut latest = [0; WRITERS as usize];
    let mut reads = 0;
    while !done.load(Ordering::Acquire) {
        for writer in 0..WRITERS {
            let before = acknowledged[writer as usize].load(Ordering::Acquire);
            let seen = db
                .get(key('z', writer, 0))
                .unwrap()
                .map_or(0, |value| number(&value));
            assert!(seen >= before, "an acknowledged write is not seen");
            assert!(
                seen >= latest[writer as usize],
                "a reader went back in time"
            );
            latest[writer as usize] = seen;

            let k = reads % KEYS;
            let pair = db
                .multi_get([key('a', writer, k), key('b', writer, k)])
                .unwrap();
            assert_eq!(pair[0], pair[1], "half a batch");
        }
        let snapshot = db.snapshot();
        let rounds = || -> Vec<_> {
            (0..WRITERS)
                .map(|w| snapshot.get(key('z', w, 0)).unwrap())
                .collect()
        };
        let first = rounds();
        let side = |half: &str| -> Vec<_> {
            let entries = snapshot.prefix(half).map(Result::unwrap);
            entries
                .map(|(key, value)| (key[1..].to_vec(), value))
                .collect()
        };
        let (a, b) = (side("a"), side("b"));
        assert_eq!(a, b, "a snapshot shows half a batch");
        let backwards: Vec<_> = snapshot.prefix("a").rev().map(Result::unwrap).collect();
        let keys = |entry: &(esker::Value, esker::Value)| entry.0.to_vec();
        assert!(
            backwards
                .iter()
                .map(keys)
                .rev()
                .eq(a.iter().map(|(k, _)| [b"a", &k[..]].concat()))
        );
        assert_eq!(rounds(), first, "a snapshot moved");
        reads += 1;
    }
    reads
}

fn check(db: &Db) {
    let acknowledged: Vec<_> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = acknowledged
            .iter()
            .zip(0..)
            .map(|(acknowledged, writer)| scope.spawn(move || write(db, writer, acknowledged)))
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| read(db, &acknowledged, &done)))
            .collect();
        let disturber = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                db.flush().unwrap();
                db.compact_range(key('a', 1, 0)..key('b', 1, 9)).unwrap();
                thread::yield_now();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        disturber.join().unwrap();
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    verify_end(db);
}

/// What the writers' rounds leave behind, by a model of one writer.
fn verify_end(db: &Db) {
    let mut model = std::collections::BTreeMap::new();
    for round in 1..=ROUNDS {
        if round % 64 == 0 {
            model.clear();
        }
        if round % 4 == 3 {
            model.remove(&(round * 7 % KEYS));
        } else {
            model.insert(round * 7 % KEYS, value(round));
        }
    }
    for writer in 0..WRITERS {
        for half in ['a', 'b'] {
            for k in 0..KEYS {
                let got = db.get(key(half, writer, k)).unwrap();
                assert_eq!(got.as_deref(), model.get(&k).map(Vec::as_slice));
            }
        }
    }
    let expected = WRITERS * (2 * model.len() as u64 + 1);
    assert_eq!(db.count().unwrap(), expected);
    let report = db.validate().unwrap();
    assert!(report.is_ok(), "{:?}", report.issues());
}

#[test]
fn disk_engine_with_the_b_tree() {
    let options = options(MemtableKind::BTree);
    let db = options.clone().open("/concurrent").unwrap();
    check(&db);
    db.close().unwrap();
    verify_end(&options.open("/concurrent").unwrap());
}

#[test]
fn disk_engine_with_the_skip_list() {
    let options = options(MemtableKind::SkipList);
    let db = options.clone().open("/concurrent").unwrap();
    check(&db);
    db.close().unwrap();
    verify_end(&options.open("/concurrent").unwrap());
}

#[test]
fn memory_engine() {
    check(&options(MemtableKind::BTree).open_in_memory().unwrap());
}

/// Serializable transactions from many threads: money moves and none is made or lost, and every
/// increment counts.
#[test]
fn transactions_from_many_threads_conserve() {
    const ACCOUNTS: u64 = 8;
    let db = options(MemtableKind::BTree).open_in_memory().unwrap();
    let account = |i: u64| format!("account/{i}");
    for i in 0..ACCOUNTS {
        db.put(account(i), 1000u64.to_le_bytes()).unwrap();
    }
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let db = &db;
            scope.spawn(move || {
                for i in 0..100u64 {
                    let (from, to) = ((thread + i) % ACCOUNTS, (thread * 3 + i * 5 + 1) % ACCOUNTS);
                    if from == to {
                        continue;
                    }
                    db.transact(|tx| {
                        let take = number(&tx.get(account(from))?.unwrap());
                        let give = number(&tx.get(account(to))?.unwrap());
                        let amount = take.min(i % 17);
                        tx.put(account(from), (take - amount).to_le_bytes())?;
                        tx.put(account(to), (give + amount).to_le_bytes())?;
                        let count = tx.get("count")?.map_or(0, |value| number(&value));
                        tx.put("count", (count + 1).to_le_bytes())
                    })
                    .unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                let snapshot = db.snapshot();
                let sum: u64 = snapshot
                    .prefix("account/")
                    .map(|entry| number(&entry.unwrap().1))
                    .sum();
                assert_eq!(sum, ACCOUNTS * 1000);
            }
        });
    });
    let transfers: u64 = (0..4u64)
        .flat_map(|t| (0..100u64).map(move |i| (t, i)))
        .filter(|(t, i)| (t + i) % ACCOUNTS != (t * 3 + i * 5 + 1) % ACCOUNTS)
        .count() as u64;
    assert_eq!(number(&db.get("count").unwrap().unwrap()), transfers);
}

//! What real threads saw of a real database, recorded and checked: single keys are linearizable,
//! transactions strictly serializable, batches whole, while memtables are sealed, tables flushed,
//! merged and deleted all the time.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use esker::{Db, ErrorKind, Isolation, MemtableKind, Options, TransactionOptions, WriteBatch};
use esker_testkit::Random;
use esker_testkit::history::list_append::{self, Ending, Level, Operation, Transaction};
use esker_testkit::history::register::{self, Event, INITIAL};

/// Limits so small that the background never rests.
fn open(memtable: MemtableKind, seed: u64) -> Db {
    let options = Options::new()
        .file_system(std::sync::Arc::new(esker::vfs::MemFileSystem::new()))
        .memtable(memtable)
        .write_buffer_bytes(8 << 10)
        .target_file_bytes(8 << 10)
        .block_bytes(512)
        .level0_runs(2)
        .size_ratio(2)
        .cache_bytes(if seed.is_multiple_of(2) { 16 << 10 } else { 0 })
        .wal_size_limit_bytes(64 << 10)
        .max_open_files(8);
    options.open("/db").unwrap()
}

/// Calls that hand out moments, for all threads in one order.
struct Moments(AtomicU64);

impl Moments {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

const KEYS: u64 = 4;

fn value(number: u64) -> Vec<u8> {
    // Long enough that a few hundred of them fill a memtable.
    let mut value = number.to_le_bytes().to_vec();
    value.resize(100, b'v');
    value
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(INITIAL, |value| {
        u64::from_le_bytes(value[..8].try_into().unwrap())
    })
}

/// Puts and gets of a few keys by three threads, and by batches that put all keys at once.
fn registers(memtable: MemtableKind, seed: u64, steps: u64) {
    let db = open(memtable, seed);
    let moments = Moments(AtomicU64::new(1));
    let events: Vec<Mutex<Vec<Event>>> = (0..KEYS).map(|_| Mutex::default()).collect();
    let (values, stopped) = (AtomicU64::new(1), AtomicBool::new(false));
    let record = |key: u64, event: Event| events[key as usize].lock().unwrap().push(event);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|thread| {
                let (db, moments, values, record) = (&db, &moments, &values, &record);
                scope.spawn(move || {
                    let mut random = Random::of_part(seed, thread);
                    for _ in 0..steps {
                        let key = random.below(KEYS);
                        let is_put = random.chance(2);
                        let begun = moments.next();
                        let value_id = if is_put {
                            let id = values.fetch_add(1, Ordering::Relaxed);
                            db.put(key.to_be_bytes(), value(id)).unwrap();
                            id
                        } else {
                            number(db.get(key.to_be_bytes()).unwrap().as_deref())
                        };
                        let ended = moments.next();
                        record(
                            key,
                            Event {
                                is_put,
                                value: value_id,
                                begun,
                                ended,
                            },
                        );
                    }
                })
            })
            .collect();
        // What moves tables beneath them.
        let upkeep = scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                db.flush().unwrap();
                db.compact().unwrap();
            }
        });
        let finished: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stopped.store(true, Ordering::Relaxed);
        upkeep.join().unwrap();
        finished.into_iter().for_each(|result| result.unwrap());
    });
    for (key, events) in events.into_iter().enumerate() {
        let events = events.into_inner().unwrap();
        assert_eq!(register::check(&events), Ok(()), "seed {seed}, key {key}");
    }
    assert!(db.validate().unwrap().is_ok());
}

/// A transaction of the shared lists, as its thread saw it.
fn transfer(db: &Db, isolation: Isolation, element: u64, random: &mut Random) -> Vec<Operation> {
    let mut operations = Vec::new();
    let options = TransactionOptions::new()
        .isolation(isolation)
        .durability(esker::Durability::Buffered);
    let attempt = |operations: &mut Vec<Operation>, random: &mut Random| -> esker::Result<()> {
        let mut transaction = db.begin_with(&options)?;
        let lists: Vec<u64> = (0..KEYS).filter(|_| random.chance(2)).collect();
        for list in lists {
            let found = transaction.get(list.to_be_bytes())?;
            let mut list_now = decode(found.as_deref());
            operations.push(Operation::Read(list, list_now.clone()));
            if !random.chance(3) {
                list_now.push(element);
                transaction.put(list.to_be_bytes(), encode(&list_now))?;
                operations.push(Operation::Append(list, element));
            }
        }
        transaction.commit()
    };
    match attempt(&mut operations, random) {
        Ok(()) => operations,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            // What it wrote must never be seen: told apart by the ending.
            operations.insert(0, Operation::Read(u64::MAX, Vec::new()));
            operations
        }
    }
}

fn decode(value: Option<&[u8]>) -> Vec<u64> {
    let bytes = value.unwrap_or_default();
    let chunks = bytes.chunks_exact(8);
    chunks
        .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
        .collect()
}

fn encode(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// Transactions and readers of whole snapshots, beside batches that nobody may see half of.
fn transactions(memtable: MemtableKind, isolation: Isolation, seed: u64, steps: u64) {
    let db = open(memtable, seed);
    let moments = Moments(AtomicU64::new(1));
    let history = Mutex::new(Vec::new());
    let (elements, stopped) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|thread| {
                let (db, moments, elements, history) = (&db, &moments, &elements, &history);
                scope.spawn(move || {
                    let mut random = Random::of_part(seed, thread);
                    for _ in 0..steps {
                        let begun = moments.next();
                        let element = elements.fetch_add(1, Ordering::Relaxed);
                        let mut operations = if random.chance(4) {
                            let snapshot = db.snapshot();
                            let read = |list: u64| {
                                let found = snapshot.get(list.to_be_bytes()).unwrap();
                                Operation::Read(list, decode(found.as_deref()))
                            };
                            (0..KEYS).map(read).collect()
                        } else {
                            transfer(db, isolation, element, &mut random)
                        };
                        let refused =
                            matches!(operations.first(), Some(Operation::Read(u64::MAX, _)));
                        let ending = if refused {
                            operations.remove(0);
                            Ending::Aborted
                        } else {
                            Ending::Committed
                        };
                        let ended = moments.next();
                        history.lock().unwrap().push(Transaction {
                            operations,
                            ending,
                            begun,
                            ended,
                        });
                    }
                })
            })
            .collect();
        let upkeep = scope.spawn(|| {
            let mut round = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                // A batch of other keys, larger than a block, all with one number.
                let mut batch = WriteBatch::new();
                for key in 0..20u8 {
                    batch.put([b'~', key], value(round));
                }
                db.write(batch).unwrap();
                let snapshot = db.snapshot();
                let seen: Vec<_> = snapshot
                    .prefix("~")
                    .map(|entry| number(Some(&entry.unwrap().1[..])))
                    .collect();
                assert_eq!(seen, vec![round; 20], "half a batch");
                round += 1;
                if round.is_multiple_of(8) {
                    db.flush().unwrap();
                }
            }
        });
        let watcher = scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                let seen: Vec<_> = db
                    .prefix("~")
                    .rev()
                    .map(|entry| number(Some(&entry.unwrap().1[..])))
                    .collect();
                assert!(
                    seen.windows(2).all(|pair| pair[0] == pair[1]),
                    "half a batch: {seen:?}"
                );
            }
        });
        let finished: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stopped.store(true, Ordering::Relaxed);
        upkeep.join().unwrap();
        watcher.join().unwrap();
        finished.into_iter().for_each(|result| result.unwrap());
    });
    let level = match isolation {
        Isolation::Snapshot => Level::Snapshot,
        _ => Level::StrictSerializable,
    };
    let history = history.into_inner().unwrap();
    let appended = history.iter().filter(|it| it.ending == Ending::Committed);
    assert!(appended.count() > 20, "nothing was committed");
    if let Err(anomaly) = list_append::check(&history, level) {
        panic!("seed {seed}: {anomaly}");
    }
}

fn steps() -> u64 {
    if cfg!(debug_assertions) { 400 } else { 3000 }
}

#[test]
fn keys_are_linearizable_in_a_b_tree() {
    registers(MemtableKind::BTree, 1, steps());
}

#[test]
fn keys_are_linearizable_in_a_skip_list() {
    registers(MemtableKind::SkipList, 2, steps());
}

#[test]
fn transactions_are_strictly_serializable() {
    transactions(MemtableKind::BTree, Isolation::Serializable, 3, steps() / 4);
    transactions(
        MemtableKind::SkipList,
        Isolation::Serializable,
        4,
        steps() / 4,
    );
}

#[test]
fn transactions_on_a_snapshot_keep_it() {
    transactions(MemtableKind::BTree, Isolation::Snapshot, 5, steps() / 4);
}

//! Histories of many threads, recorded and checked: whatever modes are mixed, serializable
//! transactions are explained by one order that also keeps real time, snapshot ones show nothing but
//! write skew.

use super::{kind, modes, options};
use esker::{Concurrency, Db, ErrorKind, Isolation, Options, WriteBatch};
use esker_testkit::Random;
use esker_testkit::history::list_append::{
    Ending, Kind, Level, Operation, Transaction as Recorded, check,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const LISTS: u64 = 6;
const THREADS: u64 = 4;
const TRANSACTIONS: u64 = 120;

fn list(value: &[u8]) -> Vec<u64> {
    let (elements, []) = value.as_chunks::<8>() else {
        panic!("a list is made of whole elements")
    };
    elements.iter().map(|e| u64::from_le_bytes(*e)).collect()
}

fn key(list: u64) -> String {
    format!("list/{list}")
}

/// What one transaction of the history does, and the operations as it saw them.
fn run(
    tx: &mut esker::Transaction,
    random: &mut Random,
    elements: &AtomicU64,
    seen: &mut Vec<Operation>,
) -> esker::Result<()> {
    for _ in 0..random.below(4) + 1 {
        let at = random.below(LISTS);
        match random.below(6) {
            0 => {
                // Some lists next to each other, from either end, perhaps not to the end.
                let (most, backwards) = (random.below(4) as usize, random.below(2) == 0);
                let range = tx.range(key(at)..key(LISTS));
                let entries: Vec<_> = if backwards {
                    range.rev().take(most).collect::<esker::Result<_>>()?
                } else {
                    range.take(most).collect::<esker::Result<_>>()?
                };
                for (name, value) in entries {
                    let number = name.last().map_or(0, |digit| u64::from(digit - b'0'));
                    seen.push(Operation::Read(number, list(&value)));
                }
            }
            1 | 2 => {
                let value = tx.get(key(at))?;
                seen.push(Operation::Read(
                    at,
                    list(value.as_deref().unwrap_or_default()),
                ));
            }
            choice => {
                let value = if choice == 3 {
                    tx.get_for_update(key(at))?
                } else {
                    tx.get(key(at))?
                };
                let element = elements.fetch_add(1, Ordering::Relaxed);
                let mut value = value.map_or_else(Vec::new, |value| value.to_vec());
                seen.push(Operation::Read(at, list(&value)));
                value.extend_from_slice(&element.to_le_bytes());
                tx.put(key(at), value)?;
                seen.push(Operation::Append(at, element));
            }
        }
    }
    Ok(())
}

/// The history of many threads that draw their modes from `modes`.
fn record(db: &Db, modes: &[(Isolation, Concurrency)], seed: u64) -> Vec<Recorded> {
    let (moment, elements) = (AtomicU64::new(1), AtomicU64::new(1));
    let history = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Commits that overrun the window of recent writes, and flushes.
        scope.spawn(|| {
            let noise = db.keyspace("noise").unwrap();
            let mut round = 0u64;
            while !done.load(Ordering::Relaxed) {
                let mut batch = WriteBatch::new();
                for number in 0..[1, 10, 6000][(round % 3) as usize] {
                    batch.put_in(&noise, u64::to_be_bytes(number), round.to_le_bytes());
                }
                db.write(batch).unwrap();
                round += 1;
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (moment, elements, history) = (&moment, &elements, &history);
                scope.spawn(move || {
                    let mut random = Random::new(seed.wrapping_mul(1000) + thread);
                    for _ in 0..TRANSACTIONS {
                        let mode = modes[random.below(modes.len() as u64) as usize];
                        let options = options(mode).lock_timeout(Duration::from_secs(60));
                        let begun = moment.fetch_add(1, Ordering::SeqCst);
                        let mut tx = db.begin_with(&options).unwrap();
                        let mut operations = Vec::new();
                        let ran = run(&mut tx, &mut random, elements, &mut operations);
                        let ending = match ran.and_then(|()| tx.commit()) {
                            Ok(()) => Ending::Committed,
                            Err(error) => {
                                let kind = error.kind();
                                let expected =
                                    matches!(kind, ErrorKind::Conflict | ErrorKind::Deadlock);
                                assert!(expected, "{error}");
                                Ending::Aborted
                            }
                        };
                        let ended = moment.fetch_add(1, Ordering::SeqCst);
                        history.lock().unwrap().push(Recorded {
                            operations,
                            ending,
                            begun,
                            ended,
                        });
                    }
                })
            })
            .collect();
        let joined: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        joined.into_iter().for_each(|worker| worker.unwrap());
    });
    let mut history = history.into_inner().unwrap();
    let operations = (0..LISTS).map(|at| {
        let value = db.get(key(at)).unwrap();
        Operation::Read(at, list(value.as_deref().unwrap_or_default()))
    });
    history.push(Recorded {
        operations: operations.collect(),
        ending: Ending::Committed,
        begun: moment.fetch_add(1, Ordering::SeqCst),
        ended: moment.fetch_add(1, Ordering::SeqCst),
    });
    history
}

fn holds(modes: &[(Isolation, Concurrency)], level: Level) {
    for seed in esker_testkit::seed::seeds(3) {
        let db = Options::new()
            .write_buffer_bytes(32 << 10)
            .open_in_memory()
            .unwrap();
        let history = record(&db, modes, seed);
        let committed = |recorded: &&Recorded| recorded.ending == Ending::Committed;
        let committed = history.iter().filter(committed).count();
        assert!(committed > 50, "seed {seed}: {committed} committed");
        if let Err(anomaly) = check(&history, level) {
            let of = |index: &usize| &history[*index];
            let who: Vec<_> = anomaly.transactions.iter().map(of).collect();
            panic!("seed {seed}, {modes:?}: {anomaly}\n{who:#?}");
        }
    }
}

#[test]
fn optimistic_histories_are_strictly_serializable() {
    holds(&modes()[..1], Level::StrictSerializable);
}

#[test]
fn pessimistic_histories_are_strictly_serializable() {
    holds(&modes()[1..2], Level::StrictSerializable);
}

#[test]
fn mixed_histories_are_strictly_serializable() {
    holds(&modes()[..2], Level::StrictSerializable);
}

#[test]
fn snapshot_histories_show_nothing_but_write_skew() {
    holds(&modes()[2..], Level::Snapshot);
}

/// The checker sees what the engine allows: write skew under snapshot isolation is found.
#[test]
fn write_skew_is_seen_by_the_checker() {
    let db = super::memory();
    let mode = options(modes()[2]);
    let mut history = Vec::new();
    let mut open = [db.begin_with(&mode).unwrap(), db.begin_with(&mode).unwrap()];
    for (tx, (reads, writes)) in open.iter_mut().zip([(0, 1), (1, 0)]) {
        assert!(tx.get(key(reads)).unwrap().is_none());
        tx.put(key(writes), (writes + 10).to_le_bytes()).unwrap();
        history.push(Recorded {
            operations: vec![
                Operation::Read(reads, Vec::new()),
                Operation::Append(writes, writes + 10),
            ],
            ending: Ending::Committed,
            begun: 1,
            ended: 2,
        });
    }
    open.into_iter().for_each(|tx| tx.commit().unwrap());
    history.push(Recorded {
        operations: vec![Operation::Read(0, vec![10]), Operation::Read(1, vec![11])],
        ending: Ending::Committed,
        begun: 3,
        ended: 4,
    });
    check(&history, Level::Snapshot).unwrap();
    let found = check(&history, Level::Serializable).unwrap_err();
    assert_eq!(found.kind, Kind::G2);
    // And the engine refuses the same two under the other level.
    let mode = options(modes()[0]);
    let mut open = [db.begin_with(&mode).unwrap(), db.begin_with(&mode).unwrap()];
    for (tx, (reads, writes)) in open.iter_mut().zip([(0, 1), (1, 0)]) {
        tx.get(key(reads)).unwrap();
        tx.put(key(writes), "new").unwrap();
    }
    let [first, second] = open;
    first.commit().unwrap();
    assert_eq!(kind(second.commit()), ErrorKind::Conflict);
}

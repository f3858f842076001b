//! Pessimistic transactions: waiting, deadlocks, timeouts, and what they see when they have waited.
//! Threads are known to wait when the statistics say so.

use super::{kind, memory, text};
use esker::{Db, ErrorKind, Isolation, ManualClock, Options, Transaction, TransactionOptions};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

const BOTH: [Isolation; 2] = [Isolation::Serializable, Isolation::Snapshot];

fn locking(isolation: Isolation) -> TransactionOptions {
    let options = TransactionOptions::new().isolation(isolation).pessimistic();
    options.lock_timeout(Duration::from_secs(1 << 30))
}

fn until_waiting(db: &Db, transactions: u64) {
    while db.stats().lock_waiters() != transactions {
        thread::yield_now();
    }
}

fn number(tx: &mut Transaction, key: &str) -> u64 {
    let value = text(tx.get_for_update(key).unwrap());
    value.map_or(0, |value| value.parse().unwrap())
}

/// Who has waited sees what it waited for, and loses nothing: increments add up without a retry.
#[test]
fn updates_under_locks_need_no_retry() {
    for isolation in BOTH {
        let db = memory();
        let options = locking(isolation).retries(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        db.transact_with(&options, |tx| {
                            let next = number(tx, "counter") + 1;
                            tx.put("counter", next.to_string())
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(text(db.get("counter").unwrap()).as_deref(), Some("200"));
        let stats = db.stats();
        assert_eq!((stats.locks_held(), stats.lock_waiters()), (0, 0));
    }
}

/// The queue is served in order, through the public interface too.
#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    let db = memory();
    let mut first = db.begin_with(&locking(Isolation::Serializable)).unwrap();
    first.put("log", "").unwrap();
    thread::scope(|scope| {
        for number in 0..6u64 {
            let db = &db;
            scope.spawn(move || {
                db.transact_with(&locking(Isolation::Serializable), |tx| {
                    let log = text(tx.get_for_update("log")?).unwrap_or_default();
                    tx.put("log", format!("{log}{number}"))
                })
                .unwrap();
            });
            until_waiting(db, number + 1);
        }
        first.commit().unwrap();
    });
    assert_eq!(text(db.get("log").unwrap()).as_deref(), Some("012345"));
}

#[test]
fn circles_of_two_and_three_end_with_one_victim() {
    for isolation in BOTH {
        for length in [2usize, 3] {
            let db = memory();
            let key = |number: usize| format!("key{}", number % length);
            let holders: Vec<Transaction> = (0..length)
                .map(|number| {
                    let mut tx = db.begin_with(&locking(isolation)).unwrap();
                    tx.put(key(number), number.to_string()).unwrap();
                    tx
                })
                .collect();
            thread::scope(|scope| {
                let mut holders = holders.into_iter().enumerate();
                let (_, mut victim) = holders.next().unwrap();
                let mut waiting = 0;
                for (number, mut tx) in holders {
                    let wanted = key(number + 1);
                    scope.spawn(move || {
                        tx.put(wanted, number.to_string()).unwrap();
                        tx.commit().unwrap();
                    });
                    waiting += 1;
                    // The last one of the circle waits for the victim's key, the others in a chain.
                    until_waiting(&db, waiting);
                }
                let refused = victim.put(key(1), "victim");
                assert_eq!(kind(refused), ErrorKind::Deadlock);
                drop(victim);
            });
            let last = (length - 1).to_string();
            assert_eq!(text(db.get(key(0)).unwrap()), Some(last));
            assert_eq!(db.stats().locks_held(), 0);
        }
    }
}

/// Two transfers in opposite directions, over and over: deadlocks are met, and `transact` gets both
/// through.
#[test]
fn transact_retries_deadlocks() {
    let db = memory();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for (from, to) in [("a", "b"), ("b", "a")] {
            let (db, barrier) = (&db, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..100 {
                    let add = |tx: &mut Transaction| {
                        for key in [from, to] {
                            let value = text(tx.get_for_update(key)?);
                            let value: u64 = value.map_or(0, |value| value.parse().unwrap());
                            tx.put(key, (value + 1).to_string())?;
                        }
                        Ok(())
                    };
                    db.transact_with(&locking(Isolation::Serializable), add)
                        .unwrap();
                }
            });
        }
    });
    for key in ["a", "b"] {
        assert_eq!(text(db.get(key).unwrap()).as_deref(), Some("200"));
    }
}

#[test]
fn a_wait_ends_at_its_deadline_on_the_injected_clock() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let its = Arc::clone(&clock);
    let db = Options::new().clock(its).open_in_memory().unwrap();
    let options = TransactionOptions::new().pessimistic();
    let mut holder = db.begin_with(&options).unwrap();
    holder.put("k", "held").unwrap();
    thread::scope(|scope| {
        let (told, ends) = mpsc::channel();
        for (index, millis) in [3u64, 5].into_iter().enumerate() {
            let (db, options, told) = (&db, options.clone(), told.clone());
            scope.spawn(move || {
                let timeout = Duration::from_millis(millis);
                let mut tx = db.begin_with(&options.lock_timeout(timeout)).unwrap();
                let refused = tx.get_for_update("k").map(|_| ());
                told.send((millis, kind(refused))).unwrap();
            });
            until_waiting(db, index as u64 + 1);
        }
        clock.advance(Duration::from_millis(2));
        assert_eq!(db.stats().lock_waiters(), 2);
        clock.advance(Duration::from_millis(1));
        assert_eq!(ends.recv().unwrap(), (3, ErrorKind::TimedOut));
        assert_eq!(db.stats().lock_waiters(), 1, "the other one has two left");
        clock.advance(Duration::from_millis(2));
        assert_eq!(ends.recv().unwrap(), (5, ErrorKind::TimedOut));
    });
    holder.commit().unwrap();
    assert_eq!(text(db.get("k").unwrap()).as_deref(), Some("held"));
}

/// Locks are among pessimistic transactions; whoever writes without one is found at the holder's
/// commit, so that the holder never overwrites what it has not seen.
#[test]
fn a_plain_write_under_a_lock_fails_its_holder_instead_of_being_lost() {
    for isolation in BOTH {
        let db = memory();
        db.put("k", "1").unwrap();
        let mut holder = db.begin_with(&locking(isolation)).unwrap();
        assert_eq!(number(&mut holder, "k"), 1);
        holder.put("k", "2").unwrap();
        db.put("k", "10").unwrap();
        assert_eq!(kind(holder.commit()), ErrorKind::Conflict);
        assert_eq!(text(db.get("k").unwrap()).as_deref(), Some("10"));

        // An optimistic transaction does the same, and a range delete.
        let mut holder = db.begin_with(&locking(isolation)).unwrap();
        assert_eq!(number(&mut holder, "k"), 10);
        holder.put("other", "1").unwrap();
        db.transact(|tx| tx.delete_range("a".."z")).unwrap();
        assert_eq!(kind(holder.commit()), ErrorKind::Conflict);
        assert!(db.get("other").unwrap().is_none());
    }
}

/// A lock brings the transaction to the newest state only as long as all that it has read is true
/// there; else it learns at once that it cannot commit.
#[test]
fn a_snapshot_moves_with_a_lock_only_where_what_was_read_is_still_true() {
    let begin = |db: &Db, isolation| db.begin_with(&locking(isolation)).unwrap();
    for changed in [false, true] {
        let db = memory();
        db.put("read", "1").unwrap();
        db.put("locked", "1").unwrap();
        let mut tx = begin(&db, Isolation::Serializable);
        assert_eq!(text(tx.get("read").unwrap()).as_deref(), Some("1"));
        db.put("locked", "2").unwrap();
        if changed {
            db.put("read", "2").unwrap();
        }
        let locked = tx.get_for_update("locked");
        if changed {
            assert_eq!(kind(locked.map(text)), ErrorKind::Conflict);
            continue;
        }
        assert_eq!(text(locked.unwrap()).as_deref(), Some("2"));
        // What it reads from now on is of the moment of the lock, too.
        db.put("read", "3").unwrap();
        assert_eq!(text(tx.get("read").unwrap()).as_deref(), Some("1"));
        tx.put("locked", "3").unwrap();
        assert_eq!(kind(tx.commit()), ErrorKind::Conflict);
    }
    // Under snapshot isolation, what was read freely cannot be checked: first updater wins.
    let db = memory();
    db.put("locked", "1").unwrap();
    let mut free = begin(&db, Isolation::Snapshot);
    assert!(free.get("anything").unwrap().is_none());
    db.put("locked", "2").unwrap();
    assert_eq!(kind(free.put("locked", "3")), ErrorKind::Conflict);
    drop(free);
    let mut tx = begin(&db, Isolation::Snapshot);
    db.put("locked", "4").unwrap();
    assert_eq!(number(&mut tx, "locked"), 4);
    tx.put("locked", "5").unwrap();
    tx.commit().unwrap();
}

/// A cursor from before the snapshot moved reads on at its own moment; what it reads there is
/// checked from there.
#[test]
fn a_cursor_from_before_a_lock_is_checked_at_its_own_moment() {
    for (changed, writes, conflicts) in [
        ("b", true, true),
        ("b", false, true),
        ("z", true, false),
        ("z", false, false),
    ] {
        let db = memory();
        for key in ["a", "b", "c", "locked"] {
            db.put(key, "1").unwrap();
        }
        let mut tx = db.begin_with(&locking(Isolation::Serializable)).unwrap();
        let mut entries = tx.range("a".."d");
        assert_eq!(&*entries.next().unwrap().unwrap().0, b"a");
        db.put("locked", "2").unwrap();
        db.put(changed, "2").unwrap();
        assert_eq!(number(&mut tx, "locked"), 2);
        // Read after the snapshot has moved, and as it was before.
        assert_eq!(&*entries.next().unwrap().unwrap().1, b"1");
        if writes {
            tx.put("locked", "3").unwrap();
        }
        let outcome = tx.commit();
        assert_eq!(outcome.is_err(), conflicts, "{changed} {outcome:?}");
    }
}

#[test]
fn locks_go_with_the_transaction_however_it_ends() {
    let db = memory();
    let options = locking(Isolation::Serializable).lock_timeout(Duration::ZERO);
    let lock = || {
        let mut tx = db.begin_with(&options).unwrap();
        tx.put("k", "1").map(|()| tx)
    };
    lock().unwrap().commit().unwrap();
    lock().unwrap().rollback().unwrap();
    drop(lock().unwrap());
    let (db_of_thread, its) = (db.clone(), options.clone());
    let panicked = thread::spawn(move || {
        let _: esker::Result<()> = db_of_thread.transact_with(&its, |tx| {
            tx.put("k", "1")?;
            panic!("a mistake in the caller's code");
        });
    });
    assert!(panicked.join().is_err());
    assert_eq!(db.stats().locks_held(), 0);
    // Savepoints give none back: what was locked stays so.
    let mut holder = lock().unwrap();
    let point = holder.savepoint();
    holder.put("later", "1").unwrap();
    holder.rollback_to(point).unwrap();
    let mut other = db.begin_with(&options).unwrap();
    assert_eq!(kind(other.put("later", "2")), ErrorKind::TimedOut);
    assert_eq!(kind(lock()), ErrorKind::TimedOut);
    drop(holder);
    other.put("later", "2").unwrap();
}

#[test]
fn closing_the_database_ends_all_waiting() {
    let db = memory();
    let mut holder = db.begin_with(&locking(Isolation::Serializable)).unwrap();
    holder.put("k", "1").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut tx = db.begin_with(&locking(Isolation::Serializable)).unwrap();
            tx.put("k", "2")
        });
        until_waiting(&db, 1);
        db.close().unwrap();
        assert_eq!(kind(waits.join().unwrap()), ErrorKind::Closed);
    });
    assert_eq!(kind(holder.commit()), ErrorKind::Closed);
}

/// An optimistic `get_for_update` puts the key among what is checked, under either isolation.
#[test]
fn an_optimistic_get_for_update_is_checked_at_commit() {
    for isolation in BOTH {
        let db = memory();
        let options = TransactionOptions::new().isolation(isolation);
        let mut tx = db.begin_with(&options).unwrap();
        assert!(tx.get_for_update("guard").unwrap().is_none());
        tx.put("x", "1").unwrap();
        db.put("guard", "up").unwrap();
        assert_eq!(kind(tx.commit()), ErrorKind::Conflict);
    }
}

/// Any number at once: thousands are open together, each sees its own moment, and all commit.
#[test]
fn thousands_of_open_transactions() {
    const MANY: u64 = 3000;
    let db = memory();
    let open: Vec<Transaction> = (0..MANY)
        .map(|number| {
            db.put("count", number.to_string()).unwrap();
            let options = match number % 3 {
                0 => locking(Isolation::Serializable),
                1 => locking(Isolation::Snapshot),
                _ => TransactionOptions::new(),
            };
            let mut tx = db.begin_with(&options).unwrap();
            tx.put(format!("of/{number}"), number.to_string()).unwrap();
            tx
        })
        .collect();
    let stats = db.stats();
    assert_eq!(stats.snapshots(), MANY);
    assert_eq!(stats.locks_held(), MANY / 3 * 2);
    for (number, mut tx) in open.into_iter().enumerate() {
        if number.is_multiple_of(7) {
            continue;
        }
        let own = text(tx.get(format!("of/{number}")).unwrap());
        assert_eq!(own, Some(number.to_string()));
        if number % 3 == 1 {
            assert_eq!(text(tx.get("count").unwrap()), Some(number.to_string()));
        }
        tx.commit().unwrap();
    }
    let dropped = MANY.div_ceil(7);
    assert_eq!(db.prefix("of/").count() as u64, MANY - dropped);
    let stats = db.stats();
    assert_eq!((stats.snapshots(), stats.locks_held()), (0, 0));
}

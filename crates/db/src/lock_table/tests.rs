//! Locks by themselves: order, circles, deadlines, limits. Threads are known to wait when the table
//! says so; nothing here depends on time.

use super::*;
use esker_base::clock::{ManualClock, SystemClock};
use std::sync::mpsc;

const FOREVER: Duration = Duration::from_secs(1 << 30);

fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn acquire(locks: &mut HeldLocks, key: &str) -> Result<bool> {
    locks.acquire(0, key.as_bytes(), FOREVER, &SystemClock::new())
}

fn kind(result: Result<bool>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_lock_is_handed_over_in_the_order_of_arrival() {
    let table = Arc::new(LockTable::default());
    let mut first = HeldLocks::none_of(&table);
    assert!(acquire(&mut first, "k").unwrap());
    assert!(!acquire(&mut first, "k").unwrap(), "it holds it already");
    let (told, order) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..8 {
            let (table, told) = (Arc::clone(&table), told.clone());
            let waits = Arc::clone(&table);
            scope.spawn(move || {
                let mut locks = HeldLocks::none_of(&table);
                acquire(&mut locks, "k").unwrap();
                told.send(number).unwrap();
            });
            until(|| waits.waiting() == number + 1);
        }
        drop(first);
        let order: Vec<_> = order.iter().take(8).collect();
        assert_eq!(order, (0..8).collect::<Vec<_>>());
    });
    assert_eq!((table.held(), table.waiting()), (0, 0));
}

/// `n` transactions each hold one key and want the next one's: all but the last wait, the last is
/// refused, and gives way to the others.
#[test]
fn circles_of_any_length_are_refused_to_the_one_that_closes_them() {
    for length in [2, 3, 10] {
        let table = Arc::new(LockTable::default());
        let key = |number: usize| format!("k{}", number % length);
        let mut holders: Vec<_> = (0..length)
            .map(|number| {
                let mut locks = HeldLocks::none_of(&table);
                acquire(&mut locks, &key(number)).unwrap();
                locks
            })
            .collect();
        let mut last = holders.pop().unwrap();
        thread::scope(|scope| {
            for (number, mut locks) in holders.into_iter().enumerate() {
                scope.spawn(move || acquire(&mut locks, &key(number + 1)).unwrap());
                until(|| table.waiting() == number + 1);
            }
            let refused = acquire(&mut last, &key(length)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Deadlock);
            let said = format!("a circle of {length} transactions");
            assert!(refused.to_string().contains(&said), "{refused}");
            assert!(acquire(&mut last, "another").unwrap(), "it may go on");
            drop(last);
        });
        assert_eq!((table.held(), table.waiting()), (0, 0));
    }
}

/// B and C wait for A's key, C behind B. When B gives up, C waits for A itself: A must not wait for
/// C then.
#[test]
fn who_gives_up_leaves_the_queue_in_order() {
    let table = Arc::new(LockTable::default());
    let clock = Arc::new(ManualClock::default());
    let (mut a, mut c) = (HeldLocks::none_of(&table), HeldLocks::none_of(&table));
    acquire(&mut a, "k").unwrap();
    acquire(&mut c, "c").unwrap();
    thread::scope(|scope| {
        let (its_table, its_clock) = (Arc::clone(&table), Arc::clone(&clock));
        let b = scope.spawn(move || {
            let mut b = HeldLocks::none_of(&its_table);
            b.acquire(0, b"k", Duration::from_millis(5), &*its_clock)
        });
        until(|| table.waiting() == 1);
        let c = scope.spawn(move || acquire(&mut c, "k").map(|_| c));
        until(|| table.waiting() == 2);
        clock.advance(Duration::from_millis(4));
        assert_eq!(table.waiting(), 2, "a millisecond is left");
        clock.advance(Duration::from_millis(1));
        assert_eq!(kind(b.join().unwrap()), ErrorKind::TimedOut);
        assert_eq!(table.waiting(), 1);
        assert_eq!(kind(acquire(&mut a, "c")), ErrorKind::Deadlock);
        drop(a);
        assert_eq!(c.join().unwrap().unwrap().names.len(), 2);
    });
    assert_eq!((table.held(), table.waiting()), (0, 0));
}

#[test]
fn no_wait_limit_and_close_have_errors_of_their_own() {
    let table = Arc::new(LockTable::with_limit(2));
    let mut holder = HeldLocks::none_of(&table);
    acquire(&mut holder, "a").unwrap();
    acquire(&mut holder, "b").unwrap();
    assert_eq!(kind(acquire(&mut holder, "c")), ErrorKind::LimitExceeded);
    let mut other = HeldLocks::none_of(&table);
    let at_once = other.acquire(0, b"a", Duration::ZERO, &SystemClock::new());
    assert_eq!(kind(at_once), ErrorKind::TimedOut);
    // The same key of another keyspace is another key; here the limit is what refuses it.
    let elsewhere = other.acquire(1, b"a", Duration::ZERO, &SystemClock::new());
    assert_eq!(kind(elsewhere), ErrorKind::LimitExceeded);
    thread::scope(|scope| {
        let waits = scope.spawn(|| acquire(&mut other, "a"));
        until(|| table.waiting() == 1);
        table.close();
        assert_eq!(kind(waits.join().unwrap()), ErrorKind::Closed);
    });
    drop(holder);
    assert_eq!((table.held(), table.waiting()), (0, 0));
}

#[test]
fn a_panic_gives_locks_back() {
    let table = Arc::new(LockTable::default());
    let its_table = Arc::clone(&table);
    let panicked = thread::spawn(move || {
        let mut locks = HeldLocks::none_of(&its_table);
        acquire(&mut locks, "k").unwrap();
        panic!("the body of a transaction fails");
    });
    assert!(panicked.join().is_err());
    assert_eq!(table.held(), 0);
}

/// Many threads lock keys in any order: every one of them ends, by its locks or by `Deadlock`, and a
/// counter under each lock is never written by two.
#[test]
fn many_threads_in_any_order_never_hang() {
    let table = Arc::new(LockTable::default());
    let inside: Vec<AtomicUsize> = (0..5).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for thread in 0..6u64 {
            let (table, inside) = (&table, &inside);
            scope.spawn(move || {
                let mut random = thread.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
                for _ in 0..400 {
                    let mut locks = HeldLocks::none_of(table);
                    let mut entered = Vec::new();
                    for _ in 0..3 {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let key = (random % inside.len() as u64) as usize;
                        match acquire(&mut locks, &key.to_string()) {
                            Ok(true) => {
                                assert_eq!(inside[key].fetch_add(1, Ordering::SeqCst), 0);
                                entered.push(key);
                            }
                            Ok(false) => {}
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Deadlock);
                                break;
                            }
                        }
                    }
                    for key in entered {
                        inside[key].fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!((table.held(), table.waiting()), (0, 0));
}

/// Shows another second at each look, and keeps how many waited at the first one.
#[derive(Debug)]
struct Observer {
    table: Arc<LockTable>,
    looks: AtomicU64,
    waiting_at_first: AtomicUsize,
}

impl Clock for Observer {
    fn now_millis(&self) -> u64 {
        0
    }

    fn monotonic_micros(&self) -> u64 {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        if look == 0 {
            let waiting = self.table.waiting();
            self.waiting_at_first.store(waiting, Ordering::Relaxed);
        }
        look * 1_000_000
    }

    fn sleep(&self, _duration: Duration) {}
}

/// The deadline was once taken after the waiter was counted: whoever saw it wait and then moved the
/// clock could move it before the wait had begun to count, and a test waited for ever.
#[test]
fn whoever_is_seen_to_wait_has_its_deadline() {
    let table = Arc::new(LockTable::default());
    let mut holder = HeldLocks::none_of(&table);
    acquire(&mut holder, "k").unwrap();
    let clock = Observer {
        table: Arc::clone(&table),
        looks: AtomicU64::new(0),
        waiting_at_first: AtomicUsize::new(usize::MAX),
    };
    let mut late = HeldLocks::none_of(&table);
    let refused = late.acquire(0, b"k", Duration::from_millis(3), &clock);
    assert_eq!(kind(refused), ErrorKind::TimedOut);
    assert_eq!(clock.waiting_at_first.load(Ordering::Relaxed), 0);
}

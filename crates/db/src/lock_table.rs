//! The locks of pessimistic transactions: one holder for a key, and whoever waits for it in order.
//!
//! Invariants: a lock has one holder; a released lock is handed to the one that waits longest, so
//! that nobody overtakes and nobody starves. Nobody waits in a circle: who would close one is
//! refused with `Deadlock` before it waits ([`WaitGraph`]). Waiting ends at a deadline of the
//! injected clock, and when the database closes.
//!
//! Memory is bounded (I9): a lock is known by a 64-bit hash of its keyspace and key, whatever the
//! key's length, and there are at most [`MAX_TRANSACTION_LOCKS`] of them. Two keys of one hash share a
//! lock: one then waits for the other without need, and nothing else happens.
//!
//! The table is cut into stripes, each with a mutex of its own, held for a few instructions and
//! never while a thread waits. The order of mutexes is stripe, then graph.
//!
//! Callers: `transaction::locking`. Only pessimistic transactions come here: plain writes and
//! optimistic transactions neither take locks nor look at them, and what they change under a lock
//! is found by the validation of its holder.

mod wait_graph;

use esker_base::checksum::key_hash;
use esker_base::clock::Clock;
use esker_base::limits::MAX_TRANSACTION_LOCKS;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result, sync};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;
use wait_graph::WaitGraph;

/// Parts of the table, each with a mutex of its own.
const STRIPES: usize = 64;

/// Slots that a stripe keeps when it has become empty.
const KEPT_SLOTS: usize = 1024;

/// Who holds a lock or waits for it.
type TransactionId = u64;

/// A key of a keyspace, as far as locks can tell keys apart.
type LockName = u64;

fn lock_name(keyspace: KeyspaceId, key: &[u8]) -> LockName {
    // Keyspaces are numbered from 0: an odd factor spreads them over all bits.
    key_hash(key) ^ u64::from(keyspace).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A transaction that waits for a lock.
#[derive(Debug)]
struct Waiter {
    transaction: TransactionId,
    thread: Thread,
    granted: AtomicBool,
}

#[derive(Debug)]
struct Lock {
    holder: TransactionId,
    /// In the order in which they came.
    waiting: VecDeque<Arc<Waiter>>,
}

type Stripe = HashMap<LockName, Lock>;

/// All locks of an open database.
#[derive(Debug)]
pub(crate) struct LockTable {
    stripes: Vec<Mutex<Stripe>>,
    graph: WaitGraph,
    locks: AtomicUsize,
    most_locks: usize,
    next_transaction: AtomicU64,
    closed: AtomicBool,
}

impl Default for LockTable {
    fn default() -> Self {
        Self::with_limit(MAX_TRANSACTION_LOCKS)
    }
}

impl LockTable {
    fn with_limit(most_locks: usize) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            graph: WaitGraph::default(),
            locks: AtomicUsize::new(0),
            most_locks,
            next_transaction: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Locks that are held.
    pub(crate) fn held(&self) -> usize {
        self.locks.load(Ordering::Relaxed)
    }

    /// Transactions that wait for one.
    pub(crate) fn waiting(&self) -> usize {
        self.graph.len()
    }

    /// Ends all waiting, now and from now on: the database closes.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for stripe in &self.stripes {
            let stripe = stripe.lock();
            let waiting = stripe.values().flat_map(|lock| &lock.waiting);
            waiting.for_each(|waiter| waiter.thread.unpark());
        }
    }

    fn stripe(&self, name: LockName) -> MutexGuard<'_, Stripe> {
        self.stripes[(name >> 32) as usize % STRIPES].lock()
    }

    fn acquire(
        &self,
        transaction: TransactionId,
        name: LockName,
        timeout: Duration,
        clock: &dyn Clock,
    ) -> Result<()> {
        // Before it stands in the queue: from then on others see that it waits, and its time runs.
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let deadline = clock.monotonic_micros().saturating_add(micros);
        let waiter = {
            let mut stripe = self.stripe(name);
            let Some(lock) = stripe.get_mut(&name) else {
                self.count_one()?;
                let waiting = VecDeque::new();
                let holder = transaction;
                stripe.insert(name, Lock { holder, waiting });
                return Ok(());
            };
            if timeout.is_zero() {
                return Err(timed_out());
            }
            let before = lock.waiting.back().map(|waiter| waiter.transaction);
            self.graph
                .wait(transaction, before.unwrap_or(lock.holder))?;
            let waiter = Arc::new(Waiter {
                transaction,
                thread: thread::current(),
                granted: AtomicBool::new(false),
            });
            lock.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        while !waiter.granted.load(Ordering::Acquire) {
            let refusal = if self.closed.load(Ordering::SeqCst) {
                crate::engine::closed()
            } else if clock.monotonic_micros() >= deadline {
                timed_out()
            } else {
                // Woken by whoever hands over the lock or closes; an earlier wake-up is remembered.
                sync::park_by(|| clock.park_until(deadline));
                continue;
            };
            if self.leave_queue(name, &waiter) {
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn count_one(&self) -> Result<()> {
        if self.locks.fetch_add(1, Ordering::Relaxed) < self.most_locks {
            return Ok(());
        }
        self.locks.fetch_sub(1, Ordering::Relaxed);
        let most = self.most_locks;
        let sentence = format!("transactions hold {most} locks already; commit some or lock less");
        Err(Error::new(ErrorKind::LimitExceeded, sentence))
    }

    /// Takes a waiter out of its queue, unless it was handed the lock before.
    fn leave_queue(&self, name: LockName, waiter: &Arc<Waiter>) -> bool {
        let mut stripe = self.stripe(name);
        if waiter.granted.load(Ordering::Acquire) {
            return false;
        }
        if let Some(lock) = stripe.get_mut(&name)
            && let Some(at) = lock.waiting.iter().position(|w| Arc::ptr_eq(w, waiter))
        {
            lock.waiting.remove(at);
            let behind = lock.waiting.get(at).map(|waiter| waiter.transaction);
            self.graph.leave(waiter.transaction, behind);
        }
        true
    }

    /// Hands the lock to the one that waits longest.
    fn release(&self, name: LockName) {
        let mut stripe = self.stripe(name);
        let Some(lock) = stripe.get_mut(&name) else {
            return;
        };
        let Some(next) = lock.waiting.pop_front() else {
            stripe.remove(&name);
            // A burst's memory is given back.
            if stripe.capacity() > KEPT_SLOTS && stripe.len() * 8 < stripe.capacity() {
                stripe.shrink_to(KEPT_SLOTS);
            }
            self.locks.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        lock.holder = next.transaction;
        self.graph.leave(next.transaction, None);
        next.granted.store(true, Ordering::Release);
        drop(stripe);
        next.thread.unpark();
    }
}

/// The locks that one transaction holds; dropping them, in a panic too, gives them back.
#[derive(Debug)]
pub(crate) struct HeldLocks {
    table: Arc<LockTable>,
    transaction: TransactionId,
    names: BTreeSet<LockName>,
}

impl HeldLocks {
    pub(crate) fn none_of(table: &Arc<LockTable>) -> Self {
        Self {
            table: Arc::clone(table),
            transaction: table.next_transaction.fetch_add(1, Ordering::Relaxed),
            names: BTreeSet::new(),
        }
    }

    /// Locks a key, waiting for `timeout` at most; says whether it was not held before.
    ///
    /// # Errors
    /// `Deadlock`, `TimedOut`, `LimitExceeded` and `Closed`; what is held already stays so.
    pub(crate) fn acquire(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        timeout: Duration,
        clock: &dyn Clock,
    ) -> Result<bool> {
        let name = lock_name(keyspace, key);
        if self.names.contains(&name) {
            return Ok(false);
        }
        self.table.acquire(self.transaction, name, timeout, clock)?;
        self.names.insert(name);
        Ok(true)
    }
}

impl Drop for HeldLocks {
    fn drop(&mut self) {
        for &name in &self.names {
            self.table.release(name);
        }
    }
}

#[cold]
fn timed_out() -> Error {
    let sentence = "another transaction holds the lock of a key";
    Error::new(ErrorKind::TimedOut, sentence)
}

#[cfg(test)]
mod tests;

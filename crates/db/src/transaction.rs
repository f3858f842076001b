//! Transactions: a private overlay of writes over a snapshot, checked when it commits.
//!
//! Invariants: nobody sees a transaction's writes before its commit, and then all of them; its reads
//! see its own writes over one snapshot. `Serializable` (the default) remembers what was read, absent
//! keys and ranges included, and commits only if none of it has changed: the outcome is that of
//! some serial order (optimistic concurrency control with backward validation, Kung and Robinson,
//! 1981). `Snapshot` checks only that no key it writes was written since: write skew is possible.
//! A transaction that wrote nothing always commits, since its snapshot was one moment.
//!
//! The overlay is a memtable whose sequence numbers lie above every real one, in operation order, so
//! that the same cursors and point reads serve it.
//!
//! Here a transaction begins and ends; `reads`, `writes`, `ttl` and `locking` are what it does meanwhile,
//! `retry` runs it until it commits. `docs/guide/transactions.md` says it to users.

mod locking;
mod merges;
mod reads;
mod retry;
mod ttl;
mod writes;

pub(crate) use retry::transact;

use crate::batch::WriteBatch;
use crate::commit;
use crate::db::Db;
use crate::lock_table::HeldLocks;
use crate::read_set::ReadSet;
use crate::snapshot::Snapshot;
use crate::transaction_options::{Concurrency, Isolation, TransactionOptions};
use crate::validation::Validation;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::write_batch::{HEADER_BYTES, KeyspaceId};
use esker_base::{Error, Result, SequenceNumber};
use esker_memtable::Memtable;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The first sequence number of overlays: room for 2^40 operations of one transaction.
pub(crate) const OVERLAY_BASE: SequenceNumber = MAX_SEQUENCE - (1 << 40);

/// A place in a transaction to go back to: [`Transaction::savepoint`].
#[derive(Clone, Debug)]
pub struct Savepoint {
    /// What it is a place of; no two transactions share one.
    transaction: Arc<()>,
    number: u64,
    operations: u32,
    encoded_bytes: usize,
}

/// An open transaction; dropping it rolls it back.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// let mut tx = db.begin()?;
/// let seen = tx.get("counter")?.is_some();
/// tx.put("counter", if seen { "many" } else { "one" })?;
/// tx.commit()?;
/// assert_eq!(db.get("counter")?.as_deref(), Some(&b"one"[..]));
/// # Ok(()) }
/// ```
pub struct Transaction {
    db: Db,
    snapshot: Snapshot,
    options: TransactionOptions,
    batch: WriteBatch,
    overlays: BTreeMap<KeyspaceId, Arc<Memtable>>,
    /// What has to be true at commit: what was read at `snapshot`, last, and before that what cursors
    /// read at earlier ones (see `locking`).
    reads: Vec<Arc<Mutex<ReadSet>>>,
    /// Whether anything was read that nothing protects: under `Snapshot` isolation.
    has_free_reads: bool,
    /// Of a pessimistic transaction.
    locks: Option<HeldLocks>,
    identity: Arc<()>,
    /// The savepoints that can be gone back to: their numbers, ascending, and the writes before them.
    savepoints: Vec<(u64, u32)>,
    next_savepoint: u64,
}

impl Transaction {
    pub(crate) fn new(db: &Db, options: &TransactionOptions) -> Result<Self> {
        let engine = db.engine();
        engine.check_writable()?;
        let snapshot = db.snapshot();
        let reads = ReadSet::new(snapshot.clone(), options.read_set_bytes);
        let pessimistic = options.concurrency == Concurrency::Pessimistic;
        Ok(Self {
            db: db.clone(),
            snapshot,
            options: options.clone(),
            batch: WriteBatch::new(),
            overlays: BTreeMap::new(),
            reads: vec![Arc::new(Mutex::new(reads))],
            has_free_reads: false,
            locks: pessimistic.then(|| HeldLocks::none_of(&engine.locks)),
            identity: Arc::new(()),
            savepoints: Vec::new(),
            next_savepoint: 0,
        })
    }

    /// The sequence number of the moment that it reads.
    pub(crate) fn sequence(&self) -> SequenceNumber {
        self.snapshot.sequence()
    }

    fn is_serializable(&self) -> bool {
        self.options.isolation == Isolation::Serializable
    }

    fn next_sequence(&self) -> SequenceNumber {
        OVERLAY_BASE + self.batch.len() as u64
    }

    /// Number of writes so far: those that a rollback to a savepoint has taken back do not count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// A place to go back to. Costs nothing that grows with the transaction.
    #[must_use]
    pub fn savepoint(&mut self) -> Savepoint {
        let operations = self.batch.encoder.count();
        let number = match self.savepoints.last() {
            // Nothing was written since the last one: the two are one place.
            Some(&(number, at)) if at == operations => number,
            _ => self.next_savepoint,
        };
        if number == self.next_savepoint {
            self.next_savepoint += 1;
            self.savepoints.push((number, operations));
        }
        Savepoint {
            transaction: Arc::clone(&self.identity),
            number,
            operations,
            encoded_bytes: self.batch.encoder.encoded_bytes(),
        }
    }

    /// Forgets every write since `savepoint`, in time proportional to the writes before it. What was
    /// read stays protected, and what was locked stays locked. A clone of the savepoint can be gone
    /// back to again; those made after it cannot.
    ///
    /// # Errors
    /// `InvalidArgument` for a savepoint of another transaction, and for one made after a savepoint
    /// that was gone back to; nothing is changed then.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        let ours = Arc::ptr_eq(&savepoint.transaction, &self.identity);
        let number = |&(number, _): &(u64, u32)| number;
        let known = self
            .savepoints
            .binary_search_by_key(&savepoint.number, number);
        let (true, Ok(at)) = (ours, known) else {
            let sentence = "the savepoint is not, or not any more, of this transaction";
            return Err(Error::invalid_argument(sentence));
        };
        self.savepoints.truncate(at + 1);
        if savepoint.operations == self.batch.encoder.count() {
            return Ok(());
        }
        let (operations, bytes) = (savepoint.operations, savepoint.encoded_bytes);
        self.batch.truncate(operations, bytes);
        self.overlays.clear();
        self.overlay_from(0, HEADER_BYTES)
    }

    /// Makes all writes visible together, if what was read is still true.
    ///
    /// # Errors
    /// `Conflict` where it is not: nothing was written, run the transaction again. Otherwise as
    /// [`Keyspace::put`](crate::Keyspace::put); `NotFound` where a keyspace that it read or wrote was
    /// dropped.
    pub fn commit(mut self) -> Result<()> {
        let engine = Arc::clone(self.db.engine());
        engine.check_writable()?;
        if self.batch.is_empty() {
            // At its snapshot all that it read was true; only cursors from before a lock that was
            // waited for may have read at another moment.
            return match self.reads.len() {
                1 => Ok(()),
                _ => Validation::new(self.take_reads()).check_now(&engine),
            };
        }
        let durability = self.options.durability;
        let durability = durability.unwrap_or_else(|| engine.settings.default_durability());
        if !self.is_serializable() {
            self.protect_writes()?;
        }
        let validation = Validation::new(self.take_reads());
        // The locks go with `self`, when others can see what was written under them.
        let batch = std::mem::take(&mut self.batch);
        commit::write_batch(&engine, batch, durability, Some(&validation))
    }

    /// The read sets as they are now; what cursors read from now on does not matter any more.
    fn take_reads(&mut self) -> Vec<ReadSet> {
        let reads = std::mem::take(&mut self.reads);
        reads.iter().map(|reads| reads.lock().take()).collect()
    }

    /// Forgets every write and gives every lock back, as dropping the transaction does.
    ///
    /// # Errors
    /// None today; commits and rollbacks are used alike.
    pub fn rollback(self) -> Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("sequence", &self.snapshot.sequence())
            .field("writes", &self.batch.len())
            .finish()
    }
}

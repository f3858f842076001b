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

use crate::batch::WriteBatch;
use crate::commit;
use crate::cursor::{Cursor, Overlay, View};
use crate::db::Db;
use crate::keyspace::Keyspace;
use crate::options::Durability;
use crate::range_spec::KeyRange;
use crate::read::{self, Found};
use crate::read_set::{READ_SET_BYTES, ReadSet};
use crate::scan::Entries;
use crate::snapshot::Snapshot;
use crate::validation::Validation;
use crate::value::Value;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::write_batch::{KeyspaceId, Record};
use esker_base::{Error, ErrorKind, Result, SequenceNumber, Trailer, ValueKind};
use esker_memtable::Memtable;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

/// The first sequence number of overlays: room for 2^40 operations of one transaction.
pub(crate) const OVERLAY_BASE: SequenceNumber = MAX_SEQUENCE - (1 << 40);

/// What a transaction is protected from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// From everything: transactions are as if run one after the other. The default.
    #[default]
    Serializable,
    /// From everything but write skew: only keys that are written are checked.
    Snapshot,
}

/// How a transaction is run.
///
/// ```
/// use esker::{Isolation, TransactionOptions};
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// let options = TransactionOptions::new().isolation(Isolation::Snapshot);
/// let mut tx = db.begin_with(&options)?;
/// tx.put("k", "v")?;
/// tx.commit()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    isolation: Isolation,
    durability: Option<Durability>,
    retries: u32,
    read_set_bytes: usize,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            durability: None,
            retries: 100,
            read_set_bytes: READ_SET_BYTES,
        }
    }
}

impl TransactionOptions {
    /// Serializable, the database's default durability, 100 retries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the transaction is protected from.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// When its commit is safe.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How often [`Db::transact_with`] tries again after a conflict before it gives up.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Memory for what the transaction remembers of its reads, bytes, about. Default 16 MiB. Beyond
    /// it, neighbouring keys and ranges are remembered as one range, the gap between them included:
    /// the transaction can then conflict with a write beside what it read, never miss one.
    #[must_use]
    pub fn read_set_bytes(mut self, bytes: usize) -> Self {
        self.read_set_bytes = bytes;
        self
    }
}

/// A place in a transaction to go back to: [`Transaction::savepoint`].
#[derive(Clone, Debug)]
pub struct Savepoint {
    batch: WriteBatch,
    /// The snapshot of its transaction.
    sequence: SequenceNumber,
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
    reads: ReadSet,
}

impl Transaction {
    pub(crate) fn new(db: &Db, options: &TransactionOptions) -> Result<Self> {
        db.engine().check_writable()?;
        let snapshot = db.snapshot();
        let reads = ReadSet::new(snapshot.clone(), options.read_set_bytes);
        Ok(Self {
            db: db.clone(),
            snapshot,
            options: options.clone(),
            batch: WriteBatch::new(),
            overlays: BTreeMap::new(),
            reads,
        })
    }

    /// The value of `key` in the default keyspace, as this transaction sees it.
    ///
    /// # Errors
    /// As [`Keyspace::get`]; likewise for all reads below.
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let keyspace = (*self.db).clone();
        self.get_in(&keyspace, key)
    }

    /// As [`Transaction::get`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn get_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let (key, clock) = (key.as_ref(), self.db.engine().clock());
        if let Some(overlay) = self.overlays.get(&keyspace.id()) {
            let covering = overlay.covering_sequence(key, MAX_SEQUENCE).unwrap_or(0);
            if let Some((trailer, stored)) = overlay.get(key, MAX_SEQUENCE)
                && trailer.sequence() > covering
            {
                return Found::InMemtable(trailer, stored).value(clock);
            }
            if covering > 0 {
                return Ok(None);
            }
        }
        if self.options.isolation == Isolation::Serializable {
            self.reads.add_key(keyspace, key);
        }
        self.db.engine().check_open()?;
        let sequence = self.snapshot.sequence();
        let view = keyspace.state().load_at(Some(sequence));
        read::get(&view, key, sequence, clock)
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn contains_key(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// All entries of the default keyspace. Reading a range protects all of it.
    pub fn iter(&mut self) -> Entries {
        let keyspace = (*self.db).clone();
        self.entries(&keyspace, KeyRange::all())
    }

    /// The entries of a range of keys. Reading a range protects all of it.
    pub fn range<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>) -> Entries {
        let keyspace = (*self.db).clone();
        self.entries(&keyspace, KeyRange::new(&range))
    }

    /// As [`Transaction::range`], in `keyspace`.
    pub fn range_in<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> Entries {
        self.entries(keyspace, KeyRange::new(&range))
    }

    /// The entries whose keys begin with `prefix`.
    pub fn prefix(&mut self, prefix: impl AsRef<[u8]>) -> Entries {
        let keyspace = (*self.db).clone();
        self.entries(&keyspace, KeyRange::prefix(prefix.as_ref()))
    }

    /// A cursor over the default keyspace; it does not see writes made after it. Reading through it
    /// protects the whole keyspace: prefer [`Transaction::range`].
    pub fn cursor(&mut self) -> Cursor {
        let keyspace = (*self.db).clone();
        let view = self.view(&keyspace, &KeyRange::all());
        Cursor::over(view, KeyRange::all())
    }

    fn entries(&mut self, keyspace: &Keyspace, range: KeyRange) -> Entries {
        let view = self.view(keyspace, &range);
        Entries::over(view, range)
    }

    fn view(&mut self, keyspace: &Keyspace, range: &KeyRange) -> View {
        if self.options.isolation == Isolation::Serializable {
            self.reads.add_range(keyspace, range);
        }
        let overlay = self.overlays.get(&keyspace.id()).map(|memtable| Overlay {
            memtable: Arc::clone(memtable),
            visible: self.next_sequence() - 1,
        });
        View::with_overlay(keyspace, self.snapshot.clone(), overlay)
    }

    /// Sets `key` to `value` in the default keyspace.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty or oversized key or value; likewise for all writes below.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        commit::check_entry(&self.db.engine().settings, key.as_ref(), value.as_ref())?;
        self.push(|batch| batch.put(key.as_ref(), value.as_ref()))
    }

    /// As [`Transaction::put`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn put_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        commit::check_entry(&self.db.engine().settings, key.as_ref(), value.as_ref())?;
        self.push(|batch| batch.put_in(keyspace, key.as_ref(), value.as_ref()))
    }

    /// Sets `key` to `value` for as long as `ttl` from now.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn put_with_ttl(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        commit::check_entry(&self.db.engine().settings, key.as_ref(), value.as_ref())?;
        let now_millis = self.db.engine().clock().now_millis();
        self.push(|batch| {
            batch.put_with_ttl(key.as_ref(), value.as_ref(), ttl);
            batch.settle_expiries(now_millis);
        })
    }

    /// Removes `key` from the default keyspace.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        commit::check_entry(&self.db.engine().settings, key.as_ref(), &[])?;
        self.push(|batch| batch.delete(key.as_ref()))
    }

    /// As [`Transaction::delete`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        commit::check_entry(&self.db.engine().settings, key.as_ref(), &[])?;
        self.push(|batch| batch.delete_in(keyspace, key.as_ref()))
    }

    /// Removes every key of `range` from the default keyspace.
    ///
    /// # Errors
    /// As [`Transaction::put`]; `InvalidArgument` for a range that ends before it starts.
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>) -> Result<()> {
        let range = KeyRange::new(&range);
        if range.is_inverted() {
            return Err(Error::invalid_argument(
                "the range to delete ends before it starts",
            ));
        }
        self.push(|batch| batch.push_range(0, &range))
    }

    /// Adds operations to the batch and to the overlay.
    fn push(&mut self, operation: impl FnOnce(&mut WriteBatch)) -> Result<()> {
        self.db.engine().check_open()?;
        let before = self.batch.len();
        operation(&mut self.batch);
        let records: Vec<_> = self
            .batch
            .encoder
            .records()
            .skip(before)
            .collect::<Result<_>>()?;
        for (sequence, record) in (OVERLAY_BASE + before as u64..).zip(&records) {
            let overlay = self.overlays.entry(record.keyspace).or_insert_with(|| {
                let engine = self.db.engine();
                let arenas = Arc::clone(&engine.arenas);
                Arc::new(Memtable::with_pool(engine.settings.memtable(), arenas))
            });
            insert(overlay, record, sequence);
        }
        Ok(())
    }

    fn next_sequence(&self) -> SequenceNumber {
        OVERLAY_BASE + self.batch.len() as u64
    }

    /// A place to go back to.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            batch: self.batch.clone(),
            sequence: self.snapshot.sequence(),
        }
    }

    /// Forgets every write since `savepoint`. What was read stays protected.
    ///
    /// # Errors
    /// `InvalidArgument` for a savepoint of another transaction.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        let (kept, now) = (savepoint.batch.encoder.bytes(), self.batch.encoder.bytes());
        if savepoint.sequence != self.snapshot.sequence() || !now.starts_with(kept) {
            return Err(Error::invalid_argument(
                "the savepoint is not of this transaction",
            ));
        }
        let batch = savepoint.batch;
        self.batch = WriteBatch::new();
        self.overlays.clear();
        self.push(|empty| *empty = batch)
    }

    /// Makes all writes visible together, if what was read is still true.
    ///
    /// # Errors
    /// `Conflict` where it is not: nothing was written, run the transaction again. Otherwise as
    /// [`Keyspace::put`].
    pub fn commit(mut self) -> Result<()> {
        let engine = Arc::clone(self.db.engine());
        engine.check_writable()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        let durability = self.options.durability;
        let durability = durability.unwrap_or_else(|| engine.settings.default_durability());
        if self.options.isolation == Isolation::Snapshot {
            self.protect_writes()?;
        }
        commit::write_batch(
            &engine,
            std::mem::take(&mut self.batch),
            durability,
            Some(&Validation::new(vec![self.reads])),
        )
    }

    /// First committer wins: what is written must not have been written by another since.
    fn protect_writes(&mut self) -> Result<()> {
        let named = self.batch.keyspaces.clone();
        let default = (*self.db).clone();
        for record in self.batch.encoder.records() {
            let record = record?;
            let keyspace = named.iter().find(|named| named.id() == record.keyspace);
            let keyspace = keyspace.unwrap_or(&default);
            if record.kind == ValueKind::RangeDelete {
                let range = KeyRange::half_open(record.key, record.value);
                self.reads.add_range(keyspace, &range);
            } else {
                self.reads.add_key(keyspace, record.key);
            }
        }
        Ok(())
    }

    /// Forgets every write.
    ///
    /// # Errors
    /// None today; commits and rollbacks are used alike.
    pub fn rollback(self) -> Result<()> {
        Ok(())
    }
}

fn insert(overlay: &Memtable, record: &Record<'_>, sequence: SequenceNumber) {
    if record.kind == ValueKind::RangeDelete {
        overlay.add_range_tombstone(record.key, record.value, sequence);
    } else {
        overlay.insert(
            record.key,
            Trailer::new(sequence, record.kind),
            record.value,
        );
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

/// The longest pause between two attempts, as a power of two of 10 microseconds.
const LONGEST_PAUSE: u32 = 10;

/// Runs `body` in a transaction, again after each conflict, until it commits.
pub(crate) fn transact<T>(
    db: &Db,
    options: &TransactionOptions,
    mut body: impl FnMut(&mut Transaction) -> Result<T>,
) -> Result<T> {
    let engine = db.engine();
    for attempt in 0.. {
        let mut transaction = Transaction::new(db, options)?;
        let outcome = body(&mut transaction).and_then(|value| transaction.commit().map(|()| value));
        match outcome {
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < options.retries => {
                // Jitter, so that two that met do not meet again.
                let most = 10u64 << attempt.min(LONGEST_PAUSE);
                let jitter = engine
                    .clock()
                    .monotonic_micros()
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                engine
                    .clock()
                    .sleep(Duration::from_micros(most / 2 + (jitter >> 32) % most));
            }
            outcome => return outcome,
        }
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "the transaction was given up",
    ))
}

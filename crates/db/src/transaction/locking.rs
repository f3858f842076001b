//! The locks of a pessimistic transaction, and what it sees of what changed while it waited.
//!
//! Who waits for a lock waits for somebody to change the key, and wants to see the change. So a lock
//! moves the transaction's snapshot to the moment at which it was acquired, if its key has changed
//! since the old one, after a check that all which was read before is still true (lazy snapshots:
//! Riegel, Felber and Fetzer, 2006). The invariant holds on: at every moment, all that a transaction
//! has read was true together at its snapshot; so it never acts on a state that never was. Where the
//! check fails, it could not have committed, and learns it now, as `Conflict`.
//!
//! Under `Snapshot` isolation plain reads are not remembered, so that nothing can be checked: there
//! the snapshot moves only as long as nothing was read without a lock. Later a locked key that has
//! changed is a `Conflict`: first updater wins.
//!
//! Cursors that were made before the snapshot moved stay where they are. What they read is kept in
//! the read set of their own snapshot, and checked from there.
//!
//! Ranges are not locked, in either isolation. A range that was read is protected by validation, like
//! in an optimistic transaction, which leaves no phantoms: its growth fails the commit.

use super::Transaction;
use crate::keyspace::Keyspace;
use crate::read;
use crate::read_set::ReadSet;
use crate::value::Value;
use esker_base::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::sync::Arc;

impl Transaction {
    /// The value of `key`, which nobody else is to change until this transaction ends.
    ///
    /// A pessimistic transaction locks the key, waiting for who holds it, and sees the newest value.
    /// An optimistic one sees its snapshot; either way, and under either isolation, it commits only
    /// if the key has not changed since: plain writes take no locks.
    ///
    /// # Errors
    /// As [`Transaction::get`]. In a pessimistic transaction also `Deadlock` where waiting would never
    /// end, and `Conflict` where what was read before is not true any more: roll back and retry;
    /// `TimedOut` where the wait was longer than
    /// [`lock_timeout`](crate::TransactionOptions::lock_timeout), and `LimitExceeded` where transactions
    /// hold a million locks.
    ///
    /// ```
    /// use esker::TransactionOptions;
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// db.put("stock:apples", "3")?;
    /// db.transact_with(&TransactionOptions::new().pessimistic(), |tx| {
    ///     let left: u32 = match tx.get_for_update("stock:apples")? {
    ///         Some(left) => String::from_utf8_lossy(&left).parse().unwrap_or(0),
    ///         None => 0,
    ///     };
    ///     tx.put("stock:apples", left.saturating_sub(1).to_string())
    /// })?;
    /// assert_eq!(db.get("stock:apples")?.as_deref(), Some(&b"2"[..]));
    /// # Ok(()) }
    /// ```
    pub fn get_for_update(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.get_for_update_in(&(*self.db).clone(), key)
    }

    /// As [`Transaction::get_for_update`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::get_for_update`]; `InvalidArgument` for a keyspace of another database.
    pub fn get_for_update_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.check_keyspace(keyspace)?;
        self.db.engine().check_open()?;
        if self.locks.is_some() {
            self.lock(keyspace, key)?;
            self.see_newest(keyspace, key)?;
        }
        self.protect_key(keyspace, key);
        self.value(keyspace, key)
    }

    /// Locks a key that is going to be written. Under `Snapshot` isolation, where it must not have
    /// changed since the snapshot, the snapshot follows; a serializable transaction that has not read
    /// the key may write over whatever it was.
    pub(super) fn lock_to_write(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<()> {
        if self.locks.is_none() {
            return Ok(());
        }
        let is_new = self.lock(keyspace, key)?;
        if is_new && !self.is_serializable() {
            self.see_newest(keyspace, key)?;
            self.protect_key(keyspace, key);
        }
        Ok(())
    }

    fn lock(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<bool> {
        let (clock, timeout) = (self.db.engine().clock(), self.options.lock_timeout);
        match &mut self.locks {
            Some(locks) => locks.acquire(keyspace.id(), key, timeout, clock),
            None => Ok(false),
        }
    }

    /// Moves the snapshot to now where `key`, which is locked, has changed since.
    fn see_newest(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<()> {
        let read_at = self.snapshot.sequence();
        let view = keyspace.state().load();
        if view.since > read_at || read::changed_since(&view, key, read_at)? {
            self.move_snapshot()?;
        }
        Ok(())
    }

    fn move_snapshot(&mut self) -> Result<()> {
        if self.has_free_reads {
            let sentence = "a key that is to be updated has changed since the transaction began to \
                            read; retry it";
            return Err(Error::new(ErrorKind::Conflict, sentence));
        }
        // First the snapshot, then the check: what is written in between is a conflict too many, the
        // other way round it would be one too few.
        let snapshot = self.db.snapshot();
        for reads in &self.reads {
            let mut reads = reads.lock();
            reads.absorb_scans();
            reads.check(0, snapshot.sequence())?;
        }
        // What no cursor adds to any more was true up to the new snapshot: one set holds it all.
        let mut current = ReadSet::new(snapshot.clone(), self.options.read_set_bytes);
        self.reads.retain(|reads| {
            let in_use = Arc::strong_count(reads) > 1;
            if !in_use {
                current.merge(reads.lock().take());
            }
            in_use
        });
        self.reads.push(Arc::new(Mutex::new(current)));
        self.snapshot = snapshot;
        Ok(())
    }
}

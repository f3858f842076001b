//! Read-modify-write of one key: compare-and-swap and `fetch_update`.
//!
//! Invariant: each commits only if the commit leader finds that the key has not been written since it
//! was read, as a transaction does, and looks again otherwise. Somebody has then got on, so that
//! together callers always do.

use crate::batch::WriteBatch;
use crate::commit;
use crate::keyspace::Keyspace;
use crate::read_set::{READ_SET_BYTES, ReadSet};
use crate::snapshot::Snapshot;
use crate::validation::Validation;
use crate::value::Value;
use esker_base::{ErrorKind, Result};

impl Keyspace {
    /// Sets `key` to `new` (`None`: removes it) if its value is `expected` (`None`: if it has none), as
    /// one step. Says with `Err` in its answer what the value was where it was another. The new value
    /// does not expire, as after a `put`.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// assert!(db.compare_and_swap("leader", None::<&str>, Some("ada"))?.is_ok());
    /// let beaten = db.compare_and_swap("leader", None::<&str>, Some("grace"))?;
    /// assert_eq!(beaten.unwrap_err().as_deref(), Some(&b"ada"[..]));
    /// # Ok(()) }
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<impl AsRef<[u8]>>,
        new: Option<impl AsRef<[u8]>>,
    ) -> Result<std::result::Result<(), Option<Value>>> {
        let key = key.as_ref();
        let expected = expected.as_ref().map(AsRef::as_ref);
        let new = new.as_ref().map(AsRef::as_ref);
        self.update(key, |found, batch| {
            if found.as_deref() != expected {
                return Change::Keep(Err(found));
            }
            match new {
                Some(new) => batch.put_in(self, key, new),
                None => batch.delete_in(self, key),
            }
            Change::Write(Ok(()))
        })
    }

    /// Replaces the value of `key` by what `change` makes of it (`None` in: it has none; `None` out: it
    /// goes), as one step, and returns what it was before. `change` may be called several times. A value
    /// that expires keeps its expiry.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// db.put("greeting", "hello")?;
    /// let before = db.fetch_update("greeting", |value| {
    ///     value.map(|bytes| bytes.to_ascii_uppercase())
    /// })?;
    /// assert_eq!(before.as_deref(), Some(&b"hello"[..]));
    /// assert_eq!(db.get("greeting")?.as_deref(), Some(&b"HELLO"[..]));
    /// # Ok(()) }
    /// ```
    pub fn fetch_update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Value>> {
        let key = key.as_ref();
        loop {
            let snapshot = self.snapshot();
            let (found, expiry_millis) = self.value_and_expiry(key, snapshot.sequence())?;
            let mut batch = WriteBatch::new();
            match (change(found.as_deref()), expiry_millis) {
                (Some(value), Some(expiry)) => batch.put_until(self, key, &value, expiry),
                (Some(value), None) => batch.put_in(self, key, value),
                (None, _) if found.is_some() => batch.delete_in(self, key),
                (None, _) => return Ok(None),
            }
            if self.write_if_unchanged(key, snapshot, batch)? {
                return Ok(found);
            }
        }
    }

    /// Reads, decides and writes, until what was read is still true when it is written.
    fn update<T>(
        &self,
        key: &[u8],
        decide: impl Fn(Option<Value>, &mut WriteBatch) -> Change<T>,
    ) -> Result<T> {
        loop {
            let snapshot = self.snapshot();
            let mut batch = WriteBatch::new();
            match decide(snapshot.get(key)?, &mut batch) {
                Change::Keep(answer) => return Ok(answer),
                Change::Write(answer) => {
                    if self.write_if_unchanged(key, snapshot, batch)? {
                        return Ok(answer);
                    }
                }
            }
        }
    }

    /// Whether `batch` was written: only if `key` was not, since the snapshot.
    fn write_if_unchanged(
        &self,
        key: &[u8],
        snapshot: Snapshot,
        batch: WriteBatch,
    ) -> Result<bool> {
        let engine = self.engine();
        let mut reads = ReadSet::new(snapshot, READ_SET_BYTES);
        reads.add_key(self, key);
        let validation = Validation::new(vec![reads]);
        let durability = engine.settings.default_durability();
        match commit::write_batch(engine, batch, durability, Some(&validation)) {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            written => written.map(|()| true),
        }
    }
}

/// What a look at a value led to.
enum Change<T> {
    Keep(T),
    Write(T),
}

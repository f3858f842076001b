//! Times to live in transactions: read, given and taken away.
//!
//! Invariant: a time to live is that of the value which the transaction sees, and changing it is a read
//! and a write of that value: the commit fails where somebody else has written the key, whatever the
//! isolation. A put that names no time to live gets its keyspace's default at commit, and says so before.

use super::reads::OwnWrite;
use super::{OVERLAY_BASE, Transaction};
use crate::keyspace::Keyspace;
use crate::read::{self, Found};
use esker_base::{Result, Trailer, ValueKind};
use std::time::Duration;

impl Transaction {
    /// How long `key` has to live; `None` where there is no value or it does not expire. A value that
    /// this transaction has put without a time to live has its keyspace's default, from the commit on.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn ttl(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        self.ttl_in(&(*self.db).clone(), key)
    }

    /// As [`Transaction::ttl`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::get_in`].
    pub fn ttl_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Duration>> {
        self.check_keyspace(keyspace)?;
        self.has_free_reads |= !self.is_serializable();
        self.time_left(keyspace, key.as_ref())
    }

    /// Gives the value of `key` a new time to live, from now on. Says whether there was a value.
    ///
    /// # Errors
    /// As [`Transaction::get_for_update`]: the value is read, and must not change before the commit.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// let mut tx = db.begin()?;
    /// tx.put("session", "active")?;
    /// assert!(tx.set_ttl("session", Duration::from_secs(60))?);
    /// assert!(tx.ttl("session")?.is_some());
    /// assert!(tx.persist("session")?);
    /// tx.commit()?;
    /// assert_eq!(db.ttl("session")?, None);
    /// assert_eq!(db.get("session")?.as_deref(), Some(&b"active"[..]));
    /// # Ok(()) }
    /// ```
    pub fn set_ttl(&mut self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        self.set_ttl_in(&(*self.db).clone(), key, ttl)
    }

    /// As [`Transaction::set_ttl`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::set_ttl`] and [`Transaction::put_in`].
    pub fn set_ttl_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<bool> {
        let key = key.as_ref();
        let Some(value) = self.get_for_update_in(keyspace, key)? else {
            return Ok(false);
        };
        self.put_with_ttl_in(keyspace, key, &value, ttl)?;
        Ok(true)
    }

    /// Removes the expiry of `key`. Says whether it had one.
    ///
    /// # Errors
    /// As [`Transaction::set_ttl`].
    pub fn persist(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.persist_in(&(*self.db).clone(), key)
    }

    /// As [`Transaction::persist`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::set_ttl_in`].
    pub fn persist_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let Some(value) = self.get_for_update_in(keyspace, key)? else {
            return Ok(false);
        };
        if self.time_left(keyspace, key)?.is_none() {
            return Ok(false);
        }
        self.ready_to_write(keyspace, key, &value)?;
        self.push(|batch| batch.put_lasting_in(keyspace, key, &value))?;
        Ok(true)
    }

    fn time_left(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Duration>> {
        let engine = self.readable()?;
        let clock = engine.clock();
        if self.will_take_default(keyspace, key) {
            let millis = keyspace.state().default_ttl_millis(&engine.settings);
            return Ok(millis.map(Duration::from_millis));
        }
        let expiry = match self.own_write(keyspace.id(), key) {
            // It leaves the expiry of what it lies on alone, and that has none: a living value with one
            // would have become the merged value.
            OwnWrite::Found(trailer, _) if trailer.kind() == Some(ValueKind::MergeOperand) => {
                self.note_key(keyspace, key);
                None
            }
            OwnWrite::Found(trailer, stored) => Found::InMemtable(trailer, stored).expiry(clock)?,
            OwnWrite::Hidden => None,
            OwnWrite::Absent => {
                self.note_key(keyspace, key);
                let sequence = self.snapshot.sequence();
                let view = keyspace.state().load_at(Some(sequence));
                read::find_expiry(&view, key, sequence, clock)?
            }
        };
        let now_millis = clock.now_millis();
        let left = |expiry: u64| Duration::from_millis(expiry.saturating_sub(now_millis));
        Ok(expiry.flatten().map(left))
    }

    /// Whether the value of `key` is one that this transaction has put, and changed by operands since
    /// perhaps, which gets its time to live at commit.
    pub(super) fn will_take_default(&self, keyspace: &Keyspace, key: &[u8]) -> bool {
        match self.below_operands(keyspace.id(), key) {
            OwnWrite::Found(trailer, _) => self.takes_default(trailer),
            OwnWrite::Hidden | OwnWrite::Absent => false,
        }
    }

    fn takes_default(&self, trailer: Trailer) -> bool {
        let place = u32::try_from(trailer.sequence().saturating_sub(OVERLAY_BASE));
        trailer.kind() == Some(ValueKind::Value)
            && !place.is_ok_and(|place| self.batch.is_lasting(place))
    }
}

//! Times to live: settling them when a batch is written, changing and removing them afterwards.
//!
//! Invariant: none of these overwrites a newer value. Each reads at a snapshot and commits only if
//! the leader finds that what it read is still true, as a transaction does; else it looks again.

use crate::batch::WriteBatch;
use crate::commit;
use crate::engine::Engine;
use crate::keyspace::{Keyspace, KeyspaceState};
use crate::read_set::{READ_SET_BYTES, ReadSet};
use crate::snapshot::Snapshot;
use crate::validation::Validation;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// How often a change is tried again after somebody else wrote the key.
const ATTEMPTS: usize = 1000;

/// Turns the times to live of a batch into points in time: those that it names, and the defaults of
/// its keyspaces where it names none.
pub(crate) fn settle(
    engine: &Engine,
    batch: &mut WriteBatch,
    keyspaces: &[Arc<KeyspaceState>],
) -> Result<()> {
    let default_ttl = |state: &KeyspaceState| match batch.ttl {
        Some(asked) => asked,
        None => state.default_ttl_millis(&engine.settings),
    };
    let known = keyspaces
        .iter()
        .filter_map(|state| Some((state.id, default_ttl(state)?)));
    let ttls: Vec<(KeyspaceId, u64)> = known.collect();
    if !batch.has_expiries() && ttls.is_empty() {
        return Ok(());
    }
    let now_millis = engine.clock().now_millis();
    batch.settle_expiries(now_millis);
    batch.apply_default_ttls(&ttls, now_millis)
}

impl Keyspace {
    /// Gives the value of `key` a new time to live, from now on. Says whether there was a value.
    ///
    /// # Errors
    /// As [`Keyspace::put`]; `Conflict` where the key is written over and over meanwhile.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// db.put("session", "active")?;
    /// assert!(db.set_ttl("session", Duration::from_secs(60))?);
    /// assert!(db.ttl("session")?.is_some());
    /// assert!(db.persist("session")?);
    /// assert_eq!(db.ttl("session")?, None);
    /// assert_eq!(db.get("session")?.as_deref(), Some(&b"active"[..]));
    /// # Ok(()) }
    /// ```
    pub fn set_ttl(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        let key = key.as_ref();
        self.rewrite(key, |snapshot, batch| {
            let Some(value) = snapshot.get(key)? else {
                return Ok(false);
            };
            batch.put_with_ttl_in(self, key, &value, ttl);
            Ok(true)
        })
    }

    /// Removes the expiry of `key`. Says whether it had one.
    ///
    /// # Errors
    /// As [`Keyspace::set_ttl`].
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        self.rewrite(key, |snapshot, batch| {
            let expires = snapshot.ttl(key)?.is_some();
            match snapshot.get(key)? {
                Some(value) if expires => {
                    // Whatever the keyspace's default is.
                    batch.ttl = Some(None);
                    batch.put_in(self, key, &value);
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    /// Commits what `change` makes of a snapshot if `key` has not changed since; else tries again.
    fn rewrite(
        &self,
        key: &[u8],
        change: impl Fn(&Snapshot, &mut WriteBatch) -> Result<bool>,
    ) -> Result<bool> {
        let engine = self.engine();
        engine.check_writable()?;
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let snapshot = self.snapshot();
            let mut batch = WriteBatch::new();
            if !change(&snapshot, &mut batch)? {
                return Ok(false);
            }
            let mut reads = ReadSet::new(snapshot, READ_SET_BYTES);
            reads.add_key(self, key);
            let validation = Validation::new(vec![reads]);
            let durability = engine.settings.default_durability();
            match commit::write_batch(engine, batch, durability, Some(&validation)) {
                Err(error) if error.kind() == ErrorKind::Conflict => conflict = Some(error),
                written => return written.map(|()| true),
            }
        }
        let sentence = "the key is written all the time";
        Err(conflict.unwrap_or_else(|| Error::new(ErrorKind::Conflict, sentence)))
    }
}

//! The database: what concerns all of its keyspaces. Its data methods are those of its default
//! keyspace, which a [`Db`] derefs to.
//!
//! Invariant: a handle is one pointer pair, cheap to clone; the last one dropped closes.

use crate::batch::WriteBatch;
use crate::commit;
use crate::disk_usage::{self, DiskUsage};
use crate::engine::{Engine, RecoveryState};
use crate::keyspace::{Keyspace, KeyspaceState, dropped};
use crate::options::{Options, Settings, WriteOptions};
use crate::range_spec::KeyRange;
use crate::snapshot::Snapshot;
use crate::stats::{LevelStats, Stats};
use crate::transaction::{self, Transaction, TransactionOptions};
use crate::validate::{self, ValidationProgress, ValidationReport};
use crate::wal_control::Wal;
use esker_base::key_bounds::KeyBounds;
use esker_base::limits::MAX_KEYSPACE_NAME_BYTES;
use esker_base::{Error, ErrorKind, Result};
use esker_manifest::{KeyspaceEdit, VersionEdit};
use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::path::Path;
use std::sync::Arc;

/// An open database: a cheap handle, `Send + Sync`, to be cloned into every thread.
///
/// It derefs to its default [`Keyspace`], where `get`, `put`, `range` and their like are.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("db");
/// let db = esker::Db::open(&path)?;
/// db.put("user:1", "Ada")?;
/// assert_eq!(db.get("user:1")?.as_deref(), Some(&b"Ada"[..]));
/// db.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Db {
    default: Keyspace,
}

impl Deref for Db {
    type Target = Keyspace;

    #[inline]
    fn deref(&self) -> &Keyspace {
        &self.default
    }
}

impl Db {
    pub(crate) fn new(default: Keyspace) -> Self {
        Self { default }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.default.engine()
    }

    /// Opens the database in `directory` with default options, creating it if needed.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(directory)
    }

    /// How the database is set up.
    #[must_use]
    pub fn options(&self) -> &Settings {
        &self.engine().settings
    }

    /// The directory it lives in; a made-up one for an in-memory database.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.engine().directory
    }

    /// Commits a batch with the default durability: all of it or, after any crash, none.
    ///
    /// # Errors
    /// As [`Keyspace::put`]; `InvalidArgument` for a batch of more than 2 GiB or one that names a
    /// keyspace of another database.
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_opt(batch, &WriteOptions::new())
    }

    /// As [`Db::write`], with options of its own.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn write_opt(&self, batch: WriteBatch, options: &WriteOptions) -> Result<()> {
        let engine = self.engine();
        let durability = options
            .durability
            .unwrap_or(engine.settings.default_durability());
        commit::write_batch(engine, batch, durability, None)
    }

    /// The database as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self)
    }

    /// Begins a serializable transaction.
    ///
    /// # Errors
    /// `ReadOnly` and `Closed` as the names say.
    pub fn begin(&self) -> Result<Transaction> {
        self.begin_with(&TransactionOptions::new())
    }

    /// Begins a transaction with options of its own.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub fn begin_with(&self, options: &TransactionOptions) -> Result<Transaction> {
        Transaction::new(self, options)
    }

    /// Runs `body` in a serializable transaction and commits it; after a conflict, runs it again, up
    /// to a hundred times with growing, jittered pauses.
    ///
    /// # Errors
    /// What `body` returns, `Conflict` after the last attempt, and otherwise as
    /// [`Transaction::commit`].
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// let taken = db.transact(|tx| {
    ///     let free = tx.get("seat:7")?.is_none();
    ///     if free {
    ///         tx.put("seat:7", "Ada")?;
    ///     }
    ///     Ok(free)
    /// })?;
    /// assert!(taken);
    /// # Ok(()) }
    /// ```
    pub fn transact<T>(&self, body: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        transaction::transact(self, &TransactionOptions::new(), body)
    }

    /// As [`Db::transact`], with options of its own.
    ///
    /// # Errors
    /// As [`Db::transact`].
    pub fn transact_with<T>(
        &self,
        options: &TransactionOptions,
        body: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        transaction::transact(self, options, body)
    }

    /// The write-ahead log: its size, its limit, and what can be done with it.
    #[must_use]
    pub fn wal(&self) -> Wal<'_> {
        Wal::new(self.engine())
    }

    /// Brings everything that memtables hold into tables. Writers go on meanwhile.
    ///
    /// # Errors
    /// `Io`, `NoSpace` or `Corruption` where a table cannot be written; nothing is lost then.
    pub fn flush(&self) -> Result<()> {
        self.engine().flush_all()
    }

    /// Flushes, and then merges all tables of all keyspaces down to the last level.
    ///
    /// # Errors
    /// As [`Db::flush`].
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        let engine = self.engine();
        let everything = KeyBounds::half_open("", "");
        let keyspaces = engine.all_keyspaces();
        keyspaces
            .iter()
            .try_for_each(|state| engine.compact_keyspace(state, &everything))
    }

    /// As [`Db::compact`], for the tables of the default keyspace that overlap `range`.
    ///
    /// # Errors
    /// As [`Db::flush`].
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        let range = KeyRange::new(&range);
        if range.is_empty() {
            return self.engine().check_writable();
        }
        self.flush()?;
        let bounds = KeyBounds::half_open(range.start(), range.end());
        self.engine()
            .compact_keyspace(self.default.state(), &bounds)
    }

    /// Waits until no flush or compaction is running or due.
    ///
    /// # Errors
    /// The failure of a flush or compaction.
    pub fn wait_for_background_work(&self) -> Result<()> {
        self.engine().wait_for_background()
    }

    /// What the engine has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let engine = self.engine();
        let mut stats = engine.counters.read();
        let view = self.default.state().load();
        stats.memtable_bytes = view
            .memtables()
            .map(|memtable| memtable.bytes() as u64)
            .sum();
        stats.block_cache_bytes = engine.blocks.used_bytes() as u64;
        stats.snapshots = engine.snapshots.summary().0 as u64;
        let levels = view.version.levels.iter();
        stats.levels = levels
            .map(|level| {
                let tables = level.runs.iter().flat_map(|run| &run.tables);
                LevelStats {
                    runs: level.runs.len(),
                    tables: tables.clone().count(),
                    bytes: tables.clone().map(|meta| meta.file_bytes).sum(),
                    entries: tables.map(|meta| meta.entries).sum(),
                }
            })
            .collect();
        stats
    }

    /// Reads everything and compares it with what the manifest says: checksums, order, filters,
    /// indexes, counts, strays.
    ///
    /// # Errors
    /// `Closed`. What is wrong with the data stands in the report.
    pub fn validate(&self) -> Result<ValidationReport> {
        validate::validate(self.engine(), &|_| true)
    }

    /// As [`Db::validate`], telling how far it is. The callback is called from several threads;
    /// returning `false` cancels.
    ///
    /// # Errors
    /// `Cancelled` and `Closed`.
    pub fn validate_with(
        &self,
        progress: &(dyn Fn(ValidationProgress) -> bool + Sync),
    ) -> Result<ValidationReport> {
        validate::validate(self.engine(), progress)
    }

    /// What the database takes on disk, and for what.
    ///
    /// # Errors
    /// `Io` where a directory cannot be listed; `Closed`.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        disk_usage::measure(self.engine())
    }

    /// What the last open found and did.
    #[must_use]
    pub fn recovery_state(&self) -> &RecoveryState {
        &self.engine().recovery
    }

    /// The failures of background work that nothing has followed by a success.
    #[must_use]
    pub fn background_errors(&self) -> Vec<Error> {
        self.engine().background.errors()
    }

    /// The keyspace of this name, created if there is none.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty name or one of more than 255 bytes; `Io` and `NoSpace` where a
    /// new one cannot be made durable; `NotFound` for a new one in a database that is read-only.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        let engine = self.engine();
        engine.check_open()?;
        let known = engine.keyspaces.read().by_name.get(name).cloned();
        let state = match known {
            Some(state) => state,
            None => self.create_keyspace(name)?,
        };
        Ok(Keyspace::new(Arc::clone(self.default.handle()), state))
    }

    fn create_keyspace(&self, name: &str) -> Result<Arc<KeyspaceState>> {
        let engine = self.engine();
        if name.is_empty() || name.len() > MAX_KEYSPACE_NAME_BYTES {
            let sentence =
                format!("a keyspace name must have 1 to {MAX_KEYSPACE_NAME_BYTES} bytes");
            return Err(Error::invalid_argument(sentence));
        }
        engine.check_writable()?;
        let mut keyspaces = engine.keyspaces.write();
        if let Some(state) = keyspaces.by_name.get(name) {
            return Ok(Arc::clone(state));
        }
        let id = engine.versions.next_keyspace_id();
        let create = Some((name.to_string(), Vec::new()));
        let edit = KeyspaceEdit {
            id,
            create,
            ..KeyspaceEdit::default()
        };
        engine.versions.log_and_apply(VersionEdit {
            keyspaces: vec![edit],
            ..VersionEdit::default()
        })?;
        let version = engine.versions.current(id).unwrap_or_default();
        let state = KeyspaceState::new(id, name.to_string(), engine.first_super_version(version));
        keyspaces.insert(&state);
        Ok(state)
    }

    /// The names of all keyspaces, in order.
    ///
    /// # Errors
    /// `Closed` after the database was closed.
    pub fn keyspace_names(&self) -> Result<Vec<String>> {
        self.engine().check_open()?;
        Ok(self
            .engine()
            .keyspaces
            .read()
            .by_name
            .keys()
            .cloned()
            .collect())
    }

    /// Drops a keyspace and all that is in it, in O(1) of its entries. Handles to it answer
    /// `NotFound` to writes from then on.
    ///
    /// # Errors
    /// `NotFound` where there is none of that name; `InvalidArgument` for the default keyspace.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let engine = self.engine();
        engine.check_writable()?;
        if name == self.default.name() {
            return Err(Error::invalid_argument(
                "the default keyspace cannot be dropped",
            ));
        }
        let state = engine.keyspaces.read().by_name.get(name).cloned();
        let Some(state) = state else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no keyspace is called {name:?}"),
            ));
        };
        let version = {
            // The commit leader is kept out: no write of the keyspace comes after its end.
            let mut writer = engine.commit_queue.lock();
            engine.ready_log(&mut writer)?;
            if engine.logs_writes() {
                // What was ordered before it must not be lost where the drop is not.
                writer.log.sync(engine)?;
            }
            let _edits_one_at_a_time = state.edit.lock();
            if state.is_dropped() {
                return Err(dropped(name));
            }
            let edit = KeyspaceEdit {
                id: state.id,
                drop: true,
                ..KeyspaceEdit::default()
            };
            let version = engine.versions.current(state.id).unwrap_or_default();
            let logged = engine.versions.log_and_apply(VersionEdit {
                keyspaces: vec![edit],
                last_sequence: Some(engine.visible_sequence()),
                ..VersionEdit::default()
            });
            if let Err(error) = logged {
                // It may be durable all the same: no write to the keyspace may be acknowledged
                // before a later edit has made sure that it is not.
                engine.health.latch_log_failure(&error);
                return Err(error);
            }
            state.mark_dropped();
            engine.keyspaces.write().remove(&state);
            version
        };
        let empty = Arc::default();
        let old = state.install(|_| engine.first_super_version(empty));
        engine
            .tables
            .retire(version.tables().map(|(_, _, meta)| meta.number));
        drop(old);
        engine.tables.remove_unread();
        Ok(())
    }

    /// Closes the database for all its handles: flushes memtables, waits for the background and gives
    /// the directory back. Closing twice is no error.
    ///
    /// # Errors
    /// Where the last flush fails. The database is closed all the same, and nothing acknowledged is
    /// lost: the next open reads it from the log.
    pub fn close(&self) -> Result<()> {
        self.engine().close()
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("engine", self.engine()).finish()
    }
}

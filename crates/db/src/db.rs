//! The database: what concerns all of its keyspaces. Its data methods are those of its default
//! keyspace, which a [`Db`] derefs to.
//!
//! Invariant: a handle is one pointer pair, cheap to clone; the last one dropped closes.

use crate::batch::WriteBatch;
use crate::commit;
use crate::disk_usage::{self, DiskUsage};
use crate::engine::{Engine, RecoveryState};
use crate::keyspace::Keyspace;
use crate::options::{Options, WriteOptions};
use crate::settings::{RuntimeOptions, Settings};
use crate::snapshot::Snapshot;
use crate::stats::{Stats, levels, memtable_bytes};
use crate::transaction::{self, Transaction};
use crate::transaction_options::TransactionOptions;
use crate::validate::{self, ValidationProgress, ValidationReport};
use crate::wal_control::Wal;
use esker_base::key_bounds::KeyBounds;
use esker_base::{Error, Result};
use std::fmt;
use std::ops::Deref;
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
    pub fn options(&self) -> Arc<Settings> {
        self.engine().settings.current()
    }

    /// Changes options while the database is open: all of `options` or, where one is out of its bounds
    /// or contradicts another, nothing. Whoever acts on an option finds the new value the next time it
    /// looks. But for `default_ttl`, which is persisted, they hold until the database is closed.
    ///
    /// # Errors
    /// `InvalidArgument` with the reason; `Io`, `NoSpace`, `ReadOnly` where what is persisted cannot be
    /// made durable: nothing has changed then.
    pub fn set_options(&self, options: &RuntimeOptions) -> Result<()> {
        self.engine().change_settings(options)
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
    pub fn write_opt(&self, mut batch: WriteBatch, options: &WriteOptions) -> Result<()> {
        batch.ttl = options.ttl.or(batch.ttl);
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

    /// Runs `body` in a serializable transaction and commits it; after a conflict or a deadlock, runs
    /// it again, up to a hundred times with growing, jittered pauses. See the repository's
    /// `docs/guide/transactions.md`.
    ///
    /// # Errors
    /// What `body` returns, `Conflict` or `Deadlock` after the last attempt, and otherwise as
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
        let keyspaces = engine.all_keyspaces();
        stats.memtable_bytes = keyspaces.iter().map(|state| memtable_bytes(state)).sum();
        stats.memory_bytes = engine.memory_bytes();
        stats.block_cache_bytes = engine.blocks.used_bytes() as u64;
        stats.snapshots = engine.snapshots.summary().0 as u64;
        stats.locks_held = engine.locks.held() as u64;
        stats.lock_waiters = engine.locks.waiting() as u64;
        stats.levels = levels(self.default.state());
        stats
    }

    /// Reads everything and compares it with what the manifest says: checksums, order, filters,
    /// indexes, counts, strays.
    ///
    /// # Errors
    /// `Closed`. `Io` or `NoSpace`, naming the file, where something could not be read now and nothing else
    /// is damaged; where something is, what could not be read is a note. What is wrong with the data stands
    /// in the report.
    pub fn validate(&self) -> Result<ValidationReport> {
        self.validate_with(&|_| true)
    }

    /// As [`Db::validate`], telling how far it is. The callback is called from several threads;
    /// returning `false` cancels.
    ///
    /// # Errors
    /// `Cancelled`, and as [`Db::validate`].
    pub fn validate_with(
        &self,
        progress: &(dyn Fn(ValidationProgress) -> bool + Sync),
    ) -> Result<ValidationReport> {
        validate::validate(self, progress)
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

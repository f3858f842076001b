//! How a database is opened: the builder, whose options stand in `settings`, and what a write may ask
//! for.
//!
//! Invariant: an open database has options that are within their bounds, do not contradict each
//! other, and agree with what the database persists; everything else is refused at open, with the
//! reason, before a byte is written.

use crate::Db;
use crate::hooks::RegisteredHooks;
use crate::index::definition::{IndexDefinition, IndexDefinitions};
use crate::open;
use crate::option_word::millis_of;
use crate::repair::{self, RepairReport};
use crate::settings::Settings;
use crate::settings::persisted::PersistedSettings;
use esker_base::Result;
use esker_base::clock::{Clock, SystemClock};
use esker_base::merge_operator::MergeOperator;
use esker_compaction::{CompactionFilter, Executor};
use esker_vfs::FileSystem;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// When a write is safe. See the table in the README.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Not logged: lost with the process, unless a flush came first. What changes several keyspaces, or
    /// indexes as well, is logged all the same, as [`Durability::Buffered`] is: nothing else keeps it whole.
    Volatile,
    /// In the operating system when the call returns: survives the process, not the power.
    Buffered,
    /// On stable storage when the call returns, and all that was written before as well: behind many
    /// buffered writes the first such write waits for those. The default.
    #[default]
    Sync,
}

/// What an open does about damage it finds in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecoveryPolicy {
    /// Refuse to open when anything that was synced is damaged or missing. The default.
    #[default]
    Strict,
    /// Keep everything before the first damage and give up the rest of the log.
    DiscardAfterDamage,
    /// Open what can be opened: read every table, leave out those that are missing or damaged, and go
    /// on behind damaged log records with those that verify. What was left out is in
    /// [`RecoveryState::losses`](crate::RecoveryState::losses); files are put aside into the directory
    /// `lost`, not removed. The result is no longer the state after a prefix of the writes: a key whose
    /// newest record was lost may show an older value, or come back from its deletion. Indexes are dropped
    /// where anything was left out, and filled anew where they are declared. For a person who
    /// wants to save what is left, not for every open. A database opened for reading only is not
    /// changed, and so leaves out no table.
    Salvage,
}

/// Options of one write.
///
/// ```
/// use esker::{Durability, WriteOptions};
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// db.put_opt("k", "v", &WriteOptions::new().durability(Durability::Buffered))?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub(crate) durability: Option<Durability>,
    /// Milliseconds, or never; nothing: the keyspace's default.
    pub(crate) ttl: Option<Option<u64>>,
}

impl WriteOptions {
    /// The database's default durability.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// When the write is safe.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The time to live of what is put and names none itself, in place of the keyspace's default;
    /// `None`: it does not expire.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = Some(ttl.into().map(millis_of));
        self
    }
}

/// How to open a database: a builder with a documented default for everything.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let dir = tempfile::tempdir().unwrap();
/// let db = esker::Options::new()
///     .cache_bytes(256 << 20)
///     .default_durability(esker::Durability::Buffered)
///     .open(dir.path())?;
/// db.put("key", "value")?;
/// db.close()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) settings: Settings,
    /// The options that were asked for by name: others give way to what a database persists.
    pub(crate) given: BTreeSet<&'static str>,
    pub(crate) file_system: Option<Arc<dyn FileSystem>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Option<Arc<dyn Executor>>,
    pub(crate) backup_directory: Option<PathBuf>,
    pub(crate) archive_directory: Option<PathBuf>,
    pub(crate) indexes: IndexDefinitions,
    pub(crate) hooks: RegisteredHooks,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// All defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            settings: Settings::defaults(),
            given: BTreeSet::new(),
            file_system: None,
            clock: Arc::new(SystemClock::new()),
            executor: None,
            backup_directory: None,
            archive_directory: None,
            indexes: IndexDefinitions::default(),
            hooks: RegisteredHooks::default(),
        }
    }

    /// Runs on another file system than the operating system's: a simulated disk, for instance.
    #[must_use]
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = Some(file_system);
        self
    }

    /// Keeps backups in this directory, on another disk for instance, as synced copies. Default: in the
    /// directory `backups` of the database, as hard links. A directory is for one database.
    #[must_use]
    pub fn backup_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.backup_directory = Some(directory.into());
        self
    }

    /// Keeps the archive of the log in this directory, on another disk for instance, and turns it on
    /// ([`Options::wal_archive`]). Default: the directory `archive` of the database. A directory is for
    /// one database.
    #[must_use]
    pub fn wal_archive_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.archive_directory = Some(directory.into());
        self.wal_archive(true)
    }

    /// Declares a secondary index on the keyspace of this name (`"default"` is the one that a [`Db`]
    /// derefs to), which need not exist yet. It must be declared at every open: a write without it
    /// makes it stale, and it is built anew at the next open that declares it. An index that is new,
    /// of a new version or stale is built in the background ([`Db::build_indexes`] waits for it), and
    /// queries that need it answer `NotReady` until then.
    #[must_use]
    pub fn index(mut self, keyspace: impl Into<String>, definition: IndexDefinition) -> Self {
        self.indexes.add(keyspace.into(), definition);
        self
    }

    /// Says how operands change values in the keyspace of this name (`"default"` is the one a [`Db`]
    /// derefs to), which need not exist yet. See [`merge_operators`](crate::merge_operators) for ready
    /// ones. Give it the same operator at every open: its name is persisted with the first operand, an
    /// open with another one is refused, and one without leaves operands unreadable
    /// ([`Options::renamed_merge_operator`] is for one that has only changed its name).
    #[must_use]
    pub fn merge_operator(
        mut self,
        keyspace: impl Into<String>,
        operator: impl MergeOperator,
    ) -> Self {
        self.hooks.entry(keyspace.into()).operator = Some(Arc::new(operator));
        self
    }

    /// Says that the merge operator of the keyspace of this name was called `former_name` once, and means
    /// the same by what was merged into it then: an open that finds that name takes it for the
    /// operator's own, and the next operand has the new one persisted. From then on the former name is
    /// not needed here any more, and an operator of that name is refused. May be said of several names.
    ///
    /// It is the owner's word that counts: nothing can check that two operators mean the same. Where they
    /// do not, read every value with the old one and write it again.
    ///
    /// ```
    /// use esker::merge_operators::Append;
    /// # fn main() -> esker::Result<()> {
    /// let options = esker::Options::new()
    ///     .merge_operator("default", Append::new(", "))
    ///     .renamed_merge_operator("default", "our.own.append");
    /// let db = options.open_in_memory()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn renamed_merge_operator(
        mut self,
        keyspace: impl Into<String>,
        former_name: impl Into<String>,
    ) -> Self {
        let hooks = self.hooks.entry(keyspace.into());
        hooks.former_names.push(former_name.into());
        self
    }

    /// Lets compactions of the keyspace of this name drop or change its values.
    #[must_use]
    pub fn compaction_filter(
        mut self,
        keyspace: impl Into<String>,
        filter: impl CompactionFilter,
    ) -> Self {
        self.hooks.entry(keyspace.into()).filter = Some(Arc::new(filter));
        self
    }

    /// Takes the time from another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Runs background jobs elsewhere than on threads of the database's own: one at a time in an
    /// order that a seed decides, for instance, so that a simulation can be run again. An executor
    /// serves one open database.
    #[doc(hidden)]
    #[must_use]
    pub fn executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.executor = Some(executor);
        self
    }

    /// Opens the database in `directory`, creating it if that is allowed and needed.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of their bounds, `NotFound` and `Locked` as the names say,
    /// `Corruption` where what is there is damaged, `Io` and `NoSpace` from the file system.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Db> {
        open::on_disk(self, directory.as_ref())
    }

    /// Opens a database that lives in memory and goes with its last handle.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of their bounds.
    pub fn open_in_memory(self) -> Result<Db> {
        open::in_memory(self)
    }

    /// Opens the database in `directory` without writing a byte; all writes answer `ReadOnly`.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_read_only(self, directory: impl AsRef<Path>) -> Result<Db> {
        open::read_only(self, directory.as_ref())
    }

    /// Makes a new manifest for the database in `directory` out of what is left, where that manifest,
    /// `CURRENT` or tables are gone or damaged. The database must not be open. Nothing is destroyed:
    /// files that the new manifest does not name are moved into the directory `lost`. What could not be
    /// brought back is in the report; a repaired database shows no deleted or older value in place of
    /// one that a lost table may have held.
    ///
    /// Without a whole manifest recovery points are lost, and keyspaces that had no table yet are called
    /// `recovered-` and a number. Where anything but the manifest is lost, or it is not whole, indexes are
    /// dropped, and the next open that declares them fills them anew. What the log holds is not judged: a
    /// merge operand in it goes on from what is left of its key.
    ///
    /// # Errors
    /// `NotFound` where there is nothing to repair, `Locked`, `Io` and `NoSpace` from the file system:
    /// the database is then as it was, or repaired.
    pub fn repair(self, directory: impl AsRef<Path>) -> Result<RepairReport> {
        repair::repair(self, directory.as_ref())
    }

    /// Checks every bound and settles what depends on something else.
    pub(crate) fn settle(&self) -> Result<Settings> {
        self.indexes.check()?;
        self.hooks.check(&self.indexes)?;
        self.settings.clone().settle_on_disk(&self.given)
    }

    /// As [`Options::settle`], for a database in memory.
    pub(crate) fn settle_in_memory(&self) -> Result<Settings> {
        self.indexes.check()?;
        self.hooks.check(&self.indexes)?;
        self.settings.clone().settle_in_memory(&self.given)
    }

    /// As [`Options::settle`], for a database that persists these options.
    pub(crate) fn settle_with(&self, persisted: &[u8]) -> Result<Settings> {
        let persisted = PersistedSettings::decode(persisted)?;
        self.settle()?.adopt(&persisted, &self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::ErrorKind;

    #[test]
    fn out_of_bounds_is_refused_with_the_name_of_the_option() {
        let cases = [
            (Options::new().write_buffer_bytes(1), "write_buffer_bytes"),
            (Options::new().background_threads(0), "background_threads"),
            (
                Options::new().filter_bits_per_key(f64::NAN),
                "filter_bits_per_key",
            ),
            (Options::new().max_key_bytes(usize::MAX), "max_key_bytes"),
            (Options::new().block_bytes(3), "block_bytes"),
        ];
        for (options, name) in cases {
            let error = options.open_in_memory().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn segments_are_small_enough_for_the_limit_to_mean_something() {
        let settings = Options::new()
            .wal_size_limit_bytes(10 << 20)
            .settle()
            .unwrap();
        assert!(settings.wal_segment_bytes() * 8 <= 10 << 20);
    }
}

//! Restoring to a moment: the newest backup from before it, and what the log says happened since.
//!
//! Invariants: the state is the one after a whole batch of the order, with all batches before it and
//! none after; where the log has a hole on the way, nothing is restored and the error names it. A new
//! directory appears whole or not at all; the open database is replaced by one edit, as by a backup
//! (`restore`), out of a database that is made beside it first. Batches are replayed as they were
//! logged, with their sequence numbers: what indexes, transactions and operators made of them is in
//! them.

use crate::archive;
use crate::archived_segment;
use crate::backup;
use crate::backup_metadata::BackupInfo;
use crate::checkpoint::{RESTORING, remove_directory};
use crate::db::Db;
use crate::engine::Engine;
use crate::log_history::LogFile;
use crate::restore;
use crate::restore_plan::Plan;
use esker_base::clock::{Clock, SystemClock};
use esker_base::filename::FileNumber;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_manifest::{
    AddedTable, KeyspaceEdit, ManifestState, RunPlacement, VersionEdit, VersionSet,
};
use esker_vfs::{FileSystem, OsFileSystem};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// So far above the numbers of the open database are those of files that are made for it elsewhere.
const NUMBER_GAP: FileNumber = 1 << 24;

/// A moment to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestorePoint {
    /// A backup or recovery point, by its name.
    Backup(String),
    /// After the last batch that ends at or before this sequence number.
    Sequence(u64),
    /// Milliseconds since 1970: everything that was committed by then, and perhaps what was committed
    /// in the 100 ms after it, but nothing later.
    Time(u64),
    /// The end of the log, with the keyspaces that the manifest of the database names.
    Latest,
}

/// What a restore has brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub(crate) backup: Option<String>,
    pub(crate) sequence: SequenceNumber,
    pub(crate) batches: u64,
}

impl Restored {
    /// The backup or recovery point that it began with; `None`: the log reaches back to the beginning.
    #[must_use]
    pub fn backup(&self) -> Option<&str> {
        self.backup.as_deref()
    }

    /// The sequence number of the last write that is there.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Batches that were replayed from the log.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches
    }
}

/// Where to restore from: a database that is not open, or what is left of it.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (path, copy) = (dir.path().join("db"), dir.path().join("copy"));
/// use esker::{Options, RestorePoint, RestoreSource};
/// let db = Options::new().wal_archive(true).open(&path)?;
/// db.put("key", "first")?;
/// let point = RestorePoint::Sequence(db.snapshot().sequence());
/// db.put("key", "second")?;
/// db.close()?;
/// RestoreSource::new(&path).restore(&point, &copy)?;
/// assert_eq!(esker::Db::open(&copy)?.get("key")?.as_deref(), Some(&b"first"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RestoreSource {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: PathBuf,
    pub(crate) backups: PathBuf,
    archive: PathBuf,
}

impl RestoreSource {
    /// The directory of a database, with its backups and its archive inside. It need not exist where
    /// those are elsewhere.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self {
            fs: Arc::new(OsFileSystem::new()),
            clock: Arc::new(SystemClock::new()),
            backups: directory.join(backup::DEFAULT_DIRECTORY),
            archive: directory.join(archive::DEFAULT_DIRECTORY),
            directory,
        }
    }

    /// Its backups are here, as [`Options::backup_directory`](crate::Options::backup_directory) said.
    #[must_use]
    pub fn backup_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.backups = directory.into();
        self
    }

    /// Its archive is here, as [`Options::wal_archive_directory`](crate::Options::wal_archive_directory) said.
    #[must_use]
    pub fn wal_archive_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.archive = directory.into();
        self
    }

    /// All of it is on another file system than the operating system's.
    #[must_use]
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.fs = file_system;
        self
    }

    /// The time is that of another clock than the machine's: what has expired by it is left out.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Restores `point` into `target`, a directory that does not exist or is empty: from the newest
    /// backup or recovery point before it, and the archived and live log. Nothing of the source is
    /// written.
    ///
    /// # Errors
    /// `Gap` where writes on the way to the point are in no log that is left; `NotFound` for a backup
    /// of another name and for a sequence number that nothing was written at yet; `Corruption` where
    /// what is needed is damaged; `InvalidArgument` for a target that is not empty; `Io` and `NoSpace`
    /// from the file system. The target does not exist then.
    pub fn restore(&self, point: &RestorePoint, target: impl AsRef<Path>) -> Result<Restored> {
        let manifest = VersionSet::recover_read_only(Arc::clone(&self.fs), &self.directory);
        let manifest = match manifest {
            Ok(versions) => Some(versions.state()),
            Err(error) if error.kind() == ErrorKind::Io || error.kind() == ErrorKind::NoSpace => {
                return Err(error);
            }
            // Backups and the archive are what is left.
            Err(_) => None,
        };
        let bases = backup::infos(&*self.fs, &self.backups, manifest.as_deref())?;
        let mut files = self.archived()?;
        let mut known_last = 0;
        if let Some(manifest) = &manifest {
            let live = manifest.segments.iter();
            files.extend(live.map(|&number| LogFile::live(&self.directory, number)));
            known_last = manifest.last_sequence;
        }
        let plan = Plan {
            source: self,
            bases,
            files,
            known_last,
            is_all_known: false,
            manifest,
            work: None,
            first_number: 0,
        };
        plan.make(point, target.as_ref())
    }

    fn archived(&self) -> Result<Vec<LogFile>> {
        let segments = archived_segment::list(&*self.fs, &self.archive)?;
        Ok(segments.iter().map(LogFile::archived).collect())
    }

    fn of(engine: &Engine) -> Self {
        Self {
            fs: Arc::clone(&engine.fs),
            clock: Arc::clone(&engine.clock),
            directory: engine.directory.clone(),
            backups: engine.backups.directory.clone(),
            archive: engine.archive.directory.clone(),
        }
    }
}

impl Db {
    /// Replaces everything in the database by what it was at `point`: the newest backup or recovery
    /// point before it, and the batches that the archived log has after that, whole. Otherwise as
    /// [`Db::restore_backup`]. The sequence numbers go on: the restored state is the newest of all,
    /// and the points that were there before stay restorable, so that a restore is undone by another. Since no
    /// log says what came back, a recovery point holds it ([`BackupInfo::restored_sequence`]): the moments
    /// behind the restore begin with that, and answer `Gap` once somebody has deleted it, until another
    /// backup or recovery point is made.
    ///
    /// # Errors
    /// `Unsupported` where the log is not archived ([`Options::wal_archive`](crate::Options::wal_archive)), but for a backup's name;
    /// `Gap` where writes on the way to the point are in no log that is left; `NotFound` for a sequence
    /// number that nothing was written at yet; otherwise as [`Db::restore_backup`]. The database is as
    /// it was then.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = esker::Options::new().wal_archive(true).open(dir.path())?;
    /// db.put("key", "value")?;
    /// let before = db.snapshot().sequence();
    /// db.delete("key")?;
    /// db.restore_to_point(&esker::RestorePoint::Sequence(before))?;
    /// assert_eq!(db.get("key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok(()) }
    /// ```
    pub fn restore_to_point(&self, point: &RestorePoint) -> Result<Restored> {
        let engine = self.engine();
        engine.check_on_disk("backups")?;
        let _one_at_a_time = engine.backups.lock.lock();
        if let RestorePoint::Backup(name) = point {
            let info = restore::restore(self, name)?;
            return Ok(Restored {
                backup: Some(name.clone()),
                sequence: info.sequence(),
                batches: 0,
            });
        }
        let first_number = engine.versions.new_file_number() + NUMBER_GAP;
        let beside = engine.directory.join(RESTORING);
        remove_directory(&*engine.fs, &beside)?;
        let restored = self.make_point(point, &beside, first_number);
        let installed = restored.and_then(|restored| {
            let info = describe(engine, &beside, restored.sequence)?;
            restore::restore_from(self, &info, point, &beside, first_number)?;
            Ok(restored)
        });
        if let Err(error) = remove_directory(&*engine.fs, &beside) {
            // The next open removes it.
            tracing::warn!(%error, "what a restore was made of stays");
        }
        installed
    }

    /// Makes a database in `target`, a directory that does not exist or is empty, of what this one was
    /// at `point`, while it stays as it is.
    ///
    /// # Errors
    /// As [`Db::restore_to_point`] and [`RestoreSource::restore`].
    pub fn restore_into(&self, point: &RestorePoint, target: impl AsRef<Path>) -> Result<Restored> {
        let engine = self.engine();
        engine.check_on_disk("backups")?;
        let _one_at_a_time = engine.backups.lock.lock();
        self.make_point(point, target.as_ref(), 0)
    }

    /// The caller holds the lock of the backups.
    fn make_point(
        &self,
        point: &RestorePoint,
        target: &Path,
        first_number: FileNumber,
    ) -> Result<Restored> {
        let engine = self.engine();
        let source = RestoreSource::of(engine);
        let is_backup = matches!(point, RestorePoint::Backup(_));
        if !is_backup {
            if !engine.archive.is_wanted() {
                let sentence = "the log is not archived: open the database with wal_archive, or restore \
                                a backup by its name";
                return Err(Error::new(ErrorKind::Unsupported, sentence));
            }
            self.archive_everything()?;
        }
        let known_last = engine.visible_sequence();
        // Nothing leaves the archive meanwhile.
        let _stays = (!is_backup).then(|| engine.archive.lock.lock());
        let manifest = engine.versions.state();
        let plan = Plan {
            source: &source,
            bases: backup::infos(&*engine.fs, &engine.backups.directory, Some(&manifest))?,
            files: if is_backup {
                Vec::new()
            } else {
                source.archived()?
            },
            known_last,
            is_all_known: true,
            manifest: Some(manifest),
            work: Some(&engine.work),
            first_number,
        };
        plan.make(point, target)
    }
}

/// The database in `directory`, which is complete, as if it were a backup of `engine`.
fn describe(engine: &Engine, directory: &Path, sequence: SequenceNumber) -> Result<BackupInfo> {
    let made = VersionSet::recover_read_only(Arc::clone(&engine.fs), directory)?;
    let contents = VersionEdit {
        database_id: Some(engine.versions.state().database_id),
        ..contents_of(&made.state())
    };
    Ok(BackupInfo {
        name: String::new(),
        description: String::new(),
        is_recovery_point: false,
        created_millis: engine.clock().now_millis(),
        sequence,
        esker_version: String::new(),
        new_bytes: 0,
        restored: None,
        contents,
    })
}

/// A manifest as an edit of an empty database.
fn contents_of(state: &ManifestState) -> VersionEdit {
    let keyspaces = state.keyspaces.iter().map(|keyspace| {
        let mut edit = KeyspaceEdit {
            id: keyspace.meta.id,
            create: Some((keyspace.meta.name.clone(), keyspace.meta.options.clone())),
            flushed_sequence: Some(keyspace.meta.flushed_sequence),
            ..KeyspaceEdit::default()
        };
        // Values are of no run, and come before what points to them.
        let values = keyspace.version.values.tables.iter().cloned();
        edit.added.extend(values.map(AddedTable::of_values));
        edit.lost_values.extend(&keyspace.version.values.lost);
        // Oldest first, because each run that an edit creates becomes the newest of its level.
        for (level, run) in keyspace.version.runs_newest_first().rev() {
            let placed = run.tables.iter().map(|meta| AddedTable {
                level,
                run: RunPlacement::Created(run.id),
                meta: Arc::clone(meta),
            });
            edit.added.extend(placed);
        }
        edit
    });
    VersionEdit {
        keyspaces: keyspaces.collect(),
        last_sequence: Some(state.last_sequence),
        ..VersionEdit::default()
    }
}

//! Backups and recovery points as users see them.
//!
//! Invariants: a backup is listed once it is whole and on stable storage, and not before (I1); one
//! operation on backups runs at a time, and none of them makes writers wait for long. Where backups
//! lie is the store's business, what they hold the capture's, how they come back the restore's.

use crate::backup_metadata::BackupInfo;
use crate::backup_name::free_name;
use crate::backup_retention::Retention;
use crate::backup_store::BackupStore;
use crate::capture::{Capture, capture};
use crate::checkpoint::{self, Source, make_database};
use crate::db::Db;
use crate::engine::{Engine, Mode};
use crate::recovery_point;
use crate::restore;
use crate::table_files::{self, Bring};
use crate::validate::{Issue, ValidationProgress, ValidationReport, is_refusal};
use esker_base::clock::SystemClock;
use esker_base::filename::table_path;
use esker_base::sync::Mutex;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result};
use esker_manifest::{ManifestState, VersionSet};
use esker_vfs::{FileSystem, OsFileSystem};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of backups inside that of the database.
pub(crate) const DEFAULT_DIRECTORY: &str = "backups";
/// The longest description, bytes.
const MAX_DESCRIPTION_BYTES: usize = 64 << 10;

/// Where a database keeps its backups.
#[derive(Debug)]
pub(crate) struct BackupPlace {
    pub(crate) directory: PathBuf,
    pub(crate) how: Bring,
    pub(crate) lock: Mutex<()>,
}

impl BackupPlace {
    /// The directory that was asked for, with copies, or the one inside `database`, with links.
    pub(crate) fn new(database: &Path, wanted: Option<PathBuf>) -> Self {
        let how = wanted.as_ref().map_or(Bring::Link, |_| Bring::Copy);
        Self {
            directory: wanted.unwrap_or_else(|| database.join(DEFAULT_DIRECTORY)),
            how,
            lock: Mutex::new(()),
        }
    }
}

/// Restores a backup, or a recovery point of a database that is not open, into `target`, a directory
/// that does not exist or is empty. `source` is the directory of the database or that of its backups;
/// nothing in it is written. Every table is read and checked. Tables are hard links where the file
/// system gives them, and copies otherwise.
///
/// # Errors
/// `NotFound` where `source` has nothing called `name`; `InvalidArgument` for a target that is not
/// empty; `Corruption` where the backup is damaged; `Io` and `NoSpace` from the file system. The
/// target does not exist then.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (source, target) = (dir.path().join("db"), dir.path().join("copy"));
/// let db = esker::Db::open(&source)?;
/// db.put("key", "value")?;
/// let backup = db.create_backup("nightly")?;
/// esker::backup::restore(&source, backup.name(), &target)?;
/// assert_eq!(esker::Db::open(&target)?.get("key")?.as_deref(), Some(&b"value"[..]));
/// # Ok(()) }
/// ```
pub fn restore(source: impl AsRef<Path>, name: &str, target: impl AsRef<Path>) -> Result<()> {
    let fs: Arc<dyn FileSystem> = Arc::new(OsFileSystem::new());
    restore_on(&fs, source.as_ref(), name, target.as_ref())
}

/// As [`restore`], on another file system than the operating system's.
///
/// # Errors
/// As [`restore`].
pub fn restore_on(
    fs: &Arc<dyn FileSystem>,
    source: &Path,
    name: &str,
    target: &Path,
) -> Result<()> {
    let inside = source.join(DEFAULT_DIRECTORY);
    for directory in [inside.as_path(), source] {
        let store = BackupStore::new(&**fs, directory);
        if store.contains(name)? {
            let info = store.read(name)?;
            return make(fs, &info, &|meta| store.table_path(meta), target);
        }
    }
    let manifest = VersionSet::recover_read_only(Arc::clone(fs), source);
    let manifest = manifest.map_err(|error| match error.kind() {
        ErrorKind::NotFound => crate::backup_store::no_backup(name).with_file(source),
        _ => error,
    })?;
    let info = recovery_point::find(&manifest.state(), name)?;
    make(fs, &info, &|meta| table_path(source, meta.number), target)
}

fn make(
    fs: &Arc<dyn FileSystem>,
    info: &BackupInfo,
    table: &dyn Fn(&TableMeta) -> PathBuf,
    target: &Path,
) -> Result<()> {
    let source = Source {
        fs,
        clock: &SystemClock::new(),
        contents: &info.contents,
        table,
        verify: true,
        advance: &|_| {},
        first_number: 0,
    };
    make_database(&source, target, &mut |_| Ok(()))
}

/// What there is to begin a restore with: the backups in `directory`, and the recovery points of a
/// manifest. One whose metadata cannot be read is left out.
pub(crate) fn infos(
    fs: &dyn FileSystem,
    directory: &Path,
    manifest: Option<&ManifestState>,
) -> Result<Vec<BackupInfo>> {
    let mut infos = stored(&BackupStore::new(fs, directory))?;
    if let Some(manifest) = manifest {
        infos.extend(recovery_point::list(manifest));
    }
    Ok(infos)
}

/// Where the backups in `directory` have a table.
pub(crate) fn stored_table(fs: &dyn FileSystem, directory: &Path, meta: &TableMeta) -> PathBuf {
    BackupStore::new(fs, directory).table_path(meta)
}

fn store(engine: &Engine) -> BackupStore<'_> {
    BackupStore::new(&*engine.fs, &engine.backups.directory)
}

/// The backup or recovery point called `name`.
pub(crate) fn find(engine: &Engine, name: &str) -> Result<BackupInfo> {
    let state = engine.versions.state();
    if state.recovery_points.contains_key(name) {
        recovery_point::find(&state, name)
    } else {
        store(engine).read(name)
    }
}

/// Bytes in the directory of backups.
pub(crate) fn stored_bytes(engine: &Engine) -> Result<u64> {
    store(engine).bytes()
}

/// The backups, without recovery points, oldest first.
fn backups(engine: &Engine) -> Result<Vec<BackupInfo>> {
    let mut infos = stored(&store(engine))?;
    sort(&mut infos);
    Ok(infos)
}

fn stored(store: &BackupStore<'_>) -> Result<Vec<BackupInfo>> {
    let mut infos = Vec::new();
    for name in store.names()? {
        match store.read(&name) {
            Ok(info) => infos.push(info),
            // A device that cannot read now is not damage: the list would be wrong without a word.
            Err(error) if is_refusal(&error) => return Err(error),
            Err(error) => tracing::warn!(name, %error, "a backup cannot be read"),
        }
    }
    Ok(infos)
}

fn sort(infos: &mut [BackupInfo]) {
    // By what they hold: clocks may have been turned back.
    infos.sort_by(|a, b| {
        let key = |info: &BackupInfo| (info.sequence, info.created_millis);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
}

/// The name of what is made at `millis`: no backup and no recovery point has it.
pub(crate) fn next_name(engine: &Engine, millis: u64) -> Result<String> {
    let points = Arc::clone(&engine.versions.state().recovery_points);
    // A list that cannot be read is no empty one: a name that is taken would replace its backup.
    let kept: BTreeSet<String> = store(engine).names()?.into_iter().collect();
    let is_taken = |name: &str| points.contains_key(name) || kept.contains(name);
    Ok(free_name(millis, is_taken))
}

/// Names a captured moment.
fn describe(
    engine: &Engine,
    description: &str,
    capture: &Capture,
    is_recovery_point: bool,
) -> Result<BackupInfo> {
    let created_millis = engine.clock().now_millis();
    Ok(BackupInfo {
        name: next_name(engine, created_millis)?,
        description: description.to_owned(),
        is_recovery_point,
        created_millis,
        sequence: capture.sequence,
        esker_version: env!("CARGO_PKG_VERSION").to_owned(),
        new_bytes: 0,
        restored: None,
        contents: capture.contents.clone(),
    })
}

/// Bytes of all tables of a backup.
pub(crate) fn table_bytes(info: &BackupInfo) -> u64 {
    info.tables().map(|meta| meta.file_bytes).sum()
}

fn check_description(description: &str) -> Result<()> {
    if description.len() > MAX_DESCRIPTION_BYTES {
        let sentence = format!("a description may have {MAX_DESCRIPTION_BYTES} bytes at most");
        return Err(Error::invalid_argument(sentence));
    }
    Ok(())
}

/// Reads everything that a backup consists of. What cannot be read now is no finding, but an error:
/// a backup that counts as damaged is deleted.
fn verify(
    engine: &Engine,
    name: &str,
    progress: &(dyn Fn(ValidationProgress) -> bool + Sync),
) -> Result<ValidationReport> {
    let mut report = ValidationReport::default();
    let info = match find(engine, name) {
        Ok(info) => info,
        Err(error) if error.kind() == ErrorKind::Corruption => {
            report.issues.push(Issue::damage(&error));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let store = store(engine);
    let mut done_bytes = 0;
    let total_bytes = table_bytes(&info);
    let mut advance = |bytes| {
        done_bytes += bytes;
        let so_far = ValidationProgress {
            done_bytes,
            total_bytes,
        };
        match progress(so_far) {
            true => Ok(()),
            false => {
                let sentence = "reading the backup was cancelled";
                Err(Error::new(ErrorKind::Cancelled, sentence))
            }
        }
    };
    for meta in info.tables() {
        let path = if info.is_recovery_point() {
            table_path(&engine.directory, meta.number)
        } else {
            store.table_path(meta)
        };
        match table_files::verify_named(&*engine.fs, &path, meta, &mut advance) {
            Ok(()) => report.bytes += meta.file_bytes,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) if is_refusal(&error) => return Err(error),
            Err(error) => report.issues.push(Issue::damage(&error)),
        }
        report.tables += 1;
    }
    Ok(report)
}

/// Backups, recovery points, checkpoints.
impl Db {
    /// Makes a backup of everything written so far, while writers go on. Tables that an earlier
    /// backup has are shared with it. It lies in the directory `backups` of the database, as hard
    /// links, or in [`Options::backup_directory`](crate::Options::backup_directory), as copies.
    ///
    /// # Errors
    /// `Unsupported` in memory; `Corruption` where a table to be copied is damaged; `Io` and `NoSpace`
    /// from the file system: there is no such backup then, unless what failed was the very last step and
    /// the file system did not take it back either. [`Db::list_backups`] tells, for good.
    pub fn create_backup(&self, description: &str) -> Result<BackupInfo> {
        let engine = self.engine();
        engine.check_on_disk("backups")?;
        check_description(description)?;
        let _one_at_a_time = engine.backups.lock.lock();
        let store = store(engine);
        store.sweep()?;
        let captured = capture(engine)?;
        let mut info = describe(engine, description, &captured, false)?;
        let source = |meta: &TableMeta| table_path(&engine.directory, meta.number);
        let work = engine.work.begin(table_bytes(&info));
        let advance = |bytes| work.advance(bytes);
        let added = store.add(&mut info, engine.backups.how, source, advance);
        drop(work);
        drop(captured);
        engine.tables.remove_unread();
        added.map(|()| info)
    }

    /// Makes a recovery point: a moment that stays restorable because its tables are kept where they
    /// are. Costs no more than a flush, and the space of what compaction would have removed.
    ///
    /// # Errors
    /// As [`Db::create_backup`].
    pub fn create_recovery_point(&self, description: &str) -> Result<BackupInfo> {
        let engine = self.engine();
        engine.check_on_disk("recovery points")?;
        check_description(description)?;
        let _one_at_a_time = engine.backups.lock.lock();
        let captured = capture(engine)?;
        let info = describe(engine, description, &captured, true)?;
        recovery_point::add(engine, &info, captured)?;
        Ok(info)
    }

    /// All backups and recovery points, newest last. What is listed outlives a loss of power. A backup
    /// whose metadata is damaged is left out; [`Db::verify_backup`] tells what is wrong with it.
    ///
    /// # Errors
    /// `Io` and `NoSpace` where the directory or a backup's metadata cannot be read, or the directory
    /// cannot be synced; `Closed`.
    pub fn list_backups(&self) -> Result<Vec<BackupInfo>> {
        let engine = self.engine();
        engine.check_open()?;
        let mut infos = backups(engine)?;
        if engine.mode == Mode::Disk {
            // Whoever named or removed one of them may have failed before its sync.
            store(engine).settle()?;
        }
        infos.extend(recovery_point::list(&engine.versions.state()));
        sort(&mut infos);
        Ok(infos)
    }

    /// What the backup or recovery point `name` says of itself.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Corruption` where its metadata is damaged.
    pub fn backup_info(&self, name: &str) -> Result<BackupInfo> {
        self.engine().check_open()?;
        find(self.engine(), name)
    }

    /// Reads every byte of a backup or recovery point and compares it with its checksums.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Io` and `NoSpace` where a file cannot be read now. What is wrong
    /// with it stands in the report.
    pub fn verify_backup(&self, name: &str) -> Result<ValidationReport> {
        self.verify_backup_with(name, &|_| true)
    }

    /// As [`Db::verify_backup`], telling how far it is; returning `false` from the callback cancels it.
    ///
    /// # Errors
    /// `Cancelled`; otherwise as [`Db::verify_backup`].
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = esker::Db::open(dir.path())?;
    /// db.put("k", "v")?;
    /// let backup = db.create_backup("nightly")?;
    /// let report = db.verify_backup_with(backup.name(), &|so_far| {
    ///     println!("{} of {} bytes", so_far.done_bytes, so_far.total_bytes);
    ///     true
    /// })?;
    /// assert!(report.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn verify_backup_with(
        &self,
        name: &str,
        progress: &(dyn Fn(ValidationProgress) -> bool + Sync),
    ) -> Result<ValidationReport> {
        self.engine().check_open()?;
        let _one_at_a_time = self.engine().backups.lock.lock();
        verify(self.engine(), name, progress)
    }

    /// Replaces everything in the database, all keyspaces, by what a backup or recovery point holds.
    /// All handles see the restored data; snapshots and cursors that are open keep what they see, and
    /// transactions that are open fail with `Conflict` if they read anything. Backups and recovery
    /// points stay. Every table is read and checked first; writers wait for a flush. Where the log is archived,
    /// a recovery point comes with the restore, so that every moment behind it is restorable
    /// ([`BackupInfo::restored_sequence`]).
    ///
    /// # Errors
    /// `NotFound` where there is none; `Corruption` where it is damaged; `Unsupported` where it is of
    /// another database: [`restore`] takes it into a new directory. The database is as it was then.
    pub fn restore_backup(&self, name: &str) -> Result<()> {
        let engine = self.engine();
        engine.check_on_disk("backups")?;
        let _one_at_a_time = engine.backups.lock.lock();
        restore::restore(self, name).map(drop)
    }

    /// Removes a backup or recovery point, and what it alone needed.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Io` from the file system.
    pub fn delete_backup(&self, name: &str) -> Result<()> {
        let engine = self.engine();
        engine.check_on_disk("backups")?;
        let _one_at_a_time = engine.backups.lock.lock();
        let store = store(engine);
        if !store.contains(name)? {
            return recovery_point::remove(engine, name);
        }
        store.remove(name)?;
        store.sweep()
    }

    /// Removes the backups that `retention` does not keep, and says which. Recovery points stay.
    ///
    /// # Errors
    /// `InvalidArgument` for a retention that keeps nothing; otherwise as [`Db::delete_backup`].
    pub fn prune_backups(&self, retention: Retention) -> Result<Vec<String>> {
        let engine = self.engine();
        engine.check_on_disk("backups")?;
        if retention == Retention::default() {
            let sentence = "a retention must keep something; delete backups by their names";
            return Err(Error::invalid_argument(sentence));
        }
        let _one_at_a_time = engine.backups.lock.lock();
        let store = store(engine);
        let mut removed = Vec::new();
        for backup in retention.doomed(&backups(engine)?) {
            store.remove(backup.name())?;
            removed.push(backup.name().to_owned());
        }
        store.sweep()?;
        removed.sort();
        Ok(removed)
    }

    /// Makes an openable copy of the database in `target`, a directory that does not exist or is
    /// empty, while writers go on: by hard links, and by copies where the file system has none or
    /// the target is on another device.
    ///
    /// # Errors
    /// `Unsupported` in memory; `InvalidArgument` for a target that is not empty; `Io` and `NoSpace`
    /// from the file system: the target does not exist then.
    pub fn checkpoint(&self, target: impl AsRef<Path>) -> Result<()> {
        checkpoint::checkpoint(self.engine(), target.as_ref())
    }
}

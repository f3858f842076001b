//! Restoring to a moment: the newest backup from before it, and what the log says happened since.
//!
//! Invariants: the state is the one after a whole batch of the order, with all batches before it and
//! none after; where the log has a hole on the way, nothing is restored and the error names it. A new
//! directory appears whole or not at all; the open database is replaced by one edit, as by a backup
//! (`restore`), out of a database that is made beside it first. Batches are replayed as they were
//! logged, with their sequence numbers: what indexes, transactions and operators made of them is in
//! them.

use crate::archive;
use crate::backup;
use crate::backup_metadata::BackupInfo;
use crate::checkpoint::{RESTORING, Source, make_database, remove_directory};
use crate::db::Db;
use crate::engine::Engine;
use crate::keyspace::KeyspaceState;
use crate::log_history::{Event, LogFile, LogHistory, gap};
use crate::log_mark::{Mark, Reasons};
use crate::options::Options;
use crate::restore;
use esker_base::clock::{Clock, SystemClock};
use esker_base::filename::{FileNumber, table_path};
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::{BatchView, KeyspaceId};
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_compaction::ManualExecutor;
use esker_manifest::{
    AddedTable, KeyspaceEdit, KeyspaceMeta, ManifestState, RunPlacement, VersionEdit, VersionSet,
};
use esker_vfs::{FileSystem, OsFileSystem};
use std::collections::HashSet;
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
    backup: Option<String>,
    sequence: SequenceNumber,
    batches: u64,
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
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    directory: PathBuf,
    backups: PathBuf,
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

    /// Its backups are here, as [`Options::backup_directory`] said.
    #[must_use]
    pub fn backup_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.backups = directory.into();
        self
    }

    /// Its archive is here, as [`Options::wal_archive_directory`] said.
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
            first_number: 0,
        };
        plan.make(point, target.as_ref())
    }

    fn archived(&self) -> Result<Vec<LogFile>> {
        let segments = archive::list(&*self.fs, &self.archive)?;
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

/// Everything that a restore may use.
struct Plan<'a> {
    source: &'a RestoreSource,
    bases: Vec<BackupInfo>,
    files: Vec<LogFile>,
    /// The database is known to have had this write.
    known_last: SequenceNumber,
    /// And no later one.
    is_all_known: bool,
    /// What is known of its keyspaces.
    manifest: Option<Arc<ManifestState>>,
    /// Numbers of new files begin here.
    first_number: FileNumber,
}

impl Plan<'_> {
    /// The newest backup that holds nothing from after the point.
    fn base(&self, point: &RestorePoint) -> Result<Option<&BackupInfo>> {
        let before = |info: &&BackupInfo| match point {
            RestorePoint::Backup(name) => info.name() == name,
            RestorePoint::Sequence(sequence) => info.sequence() <= *sequence,
            RestorePoint::Time(millis) => info.created_millis() <= *millis,
            RestorePoint::Latest => true,
        };
        let base = self
            .bases
            .iter()
            .filter(before)
            .max_by_key(|info| info.sequence());
        match (point, base) {
            (RestorePoint::Backup(name), None) => Err(crate::backup_store::no_backup(name)),
            (_, base) => Ok(base),
        }
    }

    fn make(&self, point: &RestorePoint, target: &Path) -> Result<Restored> {
        let source = self.source;
        if let (RestorePoint::Sequence(wanted), true) = (point, self.is_all_known) {
            check_written(*wanted, self.known_last)?;
        }
        let base = self.base(point)?;
        let nothing = nothing();
        let sequence = base.map_or(0, BackupInfo::sequence);
        let mut restored = Restored {
            backup: base.map(|info| info.name().to_owned()),
            sequence,
            batches: 0,
        };
        let is_point = base.is_some_and(BackupInfo::is_recovery_point);
        let table = |meta: &TableMeta| match is_point {
            true => table_path(&source.directory, meta.number),
            false => backup::stored_table(&*source.fs, &source.backups, meta),
        };
        let replays = !matches!(point, RestorePoint::Backup(_));
        let mut finish = |directory: &Path| {
            if replays {
                let history = LogHistory::after(&source.fs, self.files.iter().cloned(), sequence)?;
                let replayed = self.replay(point, history, directory, &mut restored);
                replayed.map_err(|error| before_the_gap(error, restored.sequence))?;
            }
            Ok(())
        };
        let source = Source {
            fs: &source.fs,
            clock: &*source.clock,
            contents: base.map_or(&nothing, |info| &info.contents),
            table: &table,
            verify: true,
            first_number: self.first_number,
        };
        make_database(&source, target, &mut finish)?;
        Ok(restored)
    }

    /// Replays the log into the database in `directory`, which holds the backup.
    fn replay(
        &self,
        point: &RestorePoint,
        mut history: LogHistory,
        directory: &Path,
        restored: &mut Restored,
    ) -> Result<()> {
        // No thread of its own, so that a simulation can do it again; nothing is registered, so that
        // records stay what they are.
        let options = Options::new()
            .file_system(Arc::clone(&self.source.fs))
            .clock(Arc::clone(&self.source.clock))
            .executor(Arc::new(ManualExecutor::new(0)))
            .ttl_cleanup_interval(None)
            .create_if_missing(false);
        let db = options.open(directory)?;
        self.replay_events(point, &mut history, &db, restored)?;
        db.flush()?;
        db.engine().versions.log_and_apply(VersionEdit {
            last_sequence: Some(restored.sequence),
            ..VersionEdit::default()
        })?;
        db.close()
    }

    fn replay_events(
        &self,
        point: &RestorePoint,
        history: &mut LogHistory,
        db: &Db,
        restored: &mut Restored,
    ) -> Result<()> {
        loop {
            let next = history.next_sequence();
            if matches!(point, RestorePoint::Sequence(wanted) if next > *wanted) {
                return Ok(());
            }
            match history.next()? {
                None => {
                    self.check_end(point, next)?;
                    return self.follow_manifest(point, db);
                }
                Some(Event::Mark(mark)) => {
                    if matches!(point, RestorePoint::Time(wanted) if mark.millis > *wanted) {
                        return Ok(());
                    }
                    follow(db, mark)?;
                }
                Some(Event::Batch(batch, _, millis)) => {
                    let end = archive::end_of(&batch);
                    match point {
                        RestorePoint::Sequence(wanted) if end > wanted + 1 => return Ok(()),
                        RestorePoint::Time(_) if millis.is_none() => {
                            let sentence = format!(
                                "the log does not say when write {next} was committed: it was not \
                                 archived then; restore to a sequence number"
                            );
                            return Err(Error::new(ErrorKind::Unsupported, sentence));
                        }
                        _ => insert(db, &batch)?,
                    }
                    restored.sequence = end - 1;
                    restored.batches += 1;
                }
            }
        }
    }

    /// At the end of the log, what the manifest alone knows of keyspaces: a crash may have taken the mark
    /// that would say so, and a keyspace that is gone never comes back.
    fn follow_manifest(&self, point: &RestorePoint, db: &Db) -> Result<()> {
        let (RestorePoint::Latest, Some(manifest)) = (point, &self.manifest) else {
            return Ok(());
        };
        let states = db.engine().all_keyspaces();
        let is_known = |id: KeyspaceId| states.iter().any(|state| state.id == id);
        let edit = |meta: &KeyspaceMeta| KeyspaceEdit {
            id: meta.id,
            // Where the log knows it, it may know of later options: the manifest may be an older copy.
            create: (!is_known(meta.id)).then(|| (meta.name.clone(), meta.options.clone())),
            ..KeyspaceEdit::default()
        };
        let mark = Mark {
            keyspaces: manifest.keyspaces.iter().map(|it| edit(&it.meta)).collect(),
            all_up_to: manifest.largest_keyspace,
            ..Mark::default()
        };
        follow(db, &mark)
    }

    /// The log has ended before `next`: whether that is where it should.
    fn check_end(&self, point: &RestorePoint, next: SequenceNumber) -> Result<()> {
        if next <= self.known_last {
            let wanted = match point {
                RestorePoint::Sequence(wanted) => self.known_last.min(*wanted),
                _ => self.known_last,
            };
            return Err(gap(next, wanted, Reasons::default()));
        }
        match point {
            RestorePoint::Sequence(wanted) => check_written(*wanted, next - 1),
            _ => Ok(()),
        }
    }
}

/// Refuses a sequence number beyond the last one.
fn check_written(wanted: SequenceNumber, last: SequenceNumber) -> Result<()> {
    if wanted <= last {
        return Ok(());
    }
    let sentence = format!(
        "nothing was written at sequence number {wanted} yet: the last one is {last}; restore to that \
         or an earlier one, or to the latest"
    );
    Err(Error::new(ErrorKind::NotFound, sentence))
}

/// Adds to an error about missing writes how far one can get.
fn before_the_gap(error: Error, reached: SequenceNumber) -> Error {
    if error.kind() != ErrorKind::Gap {
        return error;
    }
    let how_far = match reached {
        0 => "no moment before that can be restored".to_owned(),
        _ => format!("what can be restored before that ends with sequence number {reached}"),
    };
    Error::new(ErrorKind::Gap, format!("{}; {how_far}", error.message()))
}

/// What a database is before its first write.
fn nothing() -> VersionEdit {
    VersionEdit {
        keyspaces: vec![KeyspaceEdit {
            create: Some((
                esker_manifest::manifest_state::DEFAULT_KEYSPACE_NAME.into(),
                Vec::new(),
            )),
            flushed_sequence: Some(0),
            ..KeyspaceEdit::default()
        }],
        last_sequence: Some(0),
        ..VersionEdit::default()
    }
}

/// Brings the keyspaces of `db` to what a mark says.
fn follow(db: &Db, mark: &Mark) -> Result<()> {
    let engine = db.engine();
    let named: HashSet<KeyspaceId> = mark.keyspaces.iter().map(|edit| edit.id).collect();
    let is_gone = |id: KeyspaceId| {
        mark.all_up_to
            .is_some_and(|to| id <= to && !named.contains(&id))
    };
    let dropped: HashSet<KeyspaceId> = mark
        .keyspaces
        .iter()
        .filter(|edit| edit.drop)
        .map(|edit| edit.id)
        .collect();
    if mark.all_up_to.is_some() {
        // First, since another keyspace may have got the name.
        for state in engine.all_keyspaces() {
            if is_gone(state.id) {
                db.drop_state(&state.name)?;
            }
        }
    }
    for edit in &mark.keyspaces {
        let state = engine.keyspaces.read().by_id.get(&edit.id).cloned();
        match (&edit.create, state) {
            (Some((name, options)), None) => {
                engine.recreate_keyspace(edit.id, name, options)?;
            }
            (Some((_, options)), Some(state)) => engine.set_encoded_options(&state, options)?,
            (None, Some(state)) if dropped.contains(&edit.id) => db.drop_state(&state.name)?,
            (None, Some(state)) => {
                if let Some(options) = &edit.set_options {
                    engine.set_encoded_options(&state, options)?;
                }
            }
            (None, None) => {}
        }
    }
    Ok(())
}

/// Inserts a batch with the sequence numbers that it has.
fn insert(db: &Db, batch: &BatchView<'_>) -> Result<()> {
    let engine = db.engine();
    let mut writer = engine.commit_queue.lock();
    let mut states: Vec<Option<Arc<KeyspaceState>>> = Vec::new();
    for record in batch.records() {
        let id = record?.keyspace;
        // Records of a keyspace that was dropped before have nowhere to go.
        let state = engine.keyspaces.read().by_id.get(&id).cloned();
        if let Some(state) = &state {
            engine.make_room_in(&mut writer, state, &[])?;
        }
        states.push(state);
    }
    let numbered = (batch.sequence()..).zip(batch.records()).zip(&states);
    for ((sequence, record), state) in numbered {
        if let Some(state) = state {
            state.load().active.insert(sequence, &record?);
        }
    }
    let end = archive::end_of(batch);
    writer.next_sequence = end;
    engine.visible.publish(end - 1);
    Ok(())
}

impl Db {
    /// Replaces everything in the database by what it was at `point`: the newest backup or recovery
    /// point before it, and the batches that the archived log has after that, whole. Otherwise as
    /// [`Db::restore_backup`]. The sequence numbers go on: the restored state is the newest of all,
    /// and the points that were there before stay restorable. What was restored stands in no log: points
    /// behind it answer `Gap`, which says so, until a backup or a recovery point is made.
    ///
    /// # Errors
    /// `Unsupported` where the log is not archived ([`Options::wal_archive`]), but for a backup's name;
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
            restore::restore_from(self, &info, &beside, first_number)?;
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

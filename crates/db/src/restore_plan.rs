//! How a moment is restored: which backup it begins with, and what of the log is replayed over it.
//!
//! Invariants: those of `restore_point`, which makes the plan: whole batches in order, with the sequence
//! numbers that they had, up to the point and no further; where the log has a hole, an error that says how
//! far one can get.

use crate::archive;
use crate::backup;
use crate::backup_metadata::BackupInfo;
use crate::checkpoint::{Source, make_database};
use crate::db::Db;
use crate::keyspace::KeyspaceState;
use crate::log_history::{Event, LogFile, LogHistory, gap};
use crate::log_mark::{Mark, Reasons};
use crate::options::Options;
use crate::restore_point::{RestorePoint, RestoreSource, Restored};
use crate::work_progress::WorkGauge;
use esker_base::filename::{FileNumber, table_path};
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::{BatchView, KeyspaceId};
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_compaction::ManualExecutor;
use esker_manifest::{KeyspaceEdit, KeyspaceMeta, ManifestState, VersionEdit};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Everything that a restore may use.
pub(crate) struct Plan<'a> {
    pub(crate) source: &'a RestoreSource,
    pub(crate) bases: Vec<BackupInfo>,
    pub(crate) files: Vec<LogFile>,
    /// The database is known to have had this write.
    pub(crate) known_last: SequenceNumber,
    /// And no later one.
    pub(crate) is_all_known: bool,
    /// What is known of its keyspaces.
    pub(crate) manifest: Option<Arc<ManifestState>>,
    /// Is told how far it is.
    pub(crate) work: Option<&'a WorkGauge>,
    /// Numbers of new files begin here.
    pub(crate) first_number: FileNumber,
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

    /// The first restore into the open database after `base` that came after the point: no write from it
    /// on counts.
    fn first_restore_after(&self, point: &RestorePoint, base: SequenceNumber) -> SequenceNumber {
        let RestorePoint::Time(wanted) = point else {
            return SequenceNumber::MAX;
        };
        let is_later = |info: &&BackupInfo| {
            info.restored.is_some() && info.sequence() > base && info.created_millis() > *wanted
        };
        let later = self.bases.iter().filter(is_later);
        let first = later.map(BackupInfo::sequence).min();
        first.unwrap_or(SequenceNumber::MAX)
    }

    /// Makes the database of `point` in `target`.
    pub(crate) fn make(&self, point: &RestorePoint, target: &Path) -> Result<Restored> {
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
        let total_bytes = base.map_or(0, backup::table_bytes);
        let work = self.work.map(|work| work.begin(total_bytes));
        let advance = |bytes| {
            if let Some(work) = &work {
                work.advance(bytes);
            }
        };
        let source = Source {
            fs: &source.fs,
            clock: &*source.clock,
            contents: base.map_or(&nothing, |info| &info.contents),
            table: &table,
            verify: true,
            advance: &advance,
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
        let end = self.first_restore_after(point, restored.sequence);
        loop {
            let next = history.next_sequence();
            if next >= end {
                return Ok(());
            }
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

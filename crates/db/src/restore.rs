//! Restoring a backup or recovery point into the open database.
//!
//! Invariants: one durable edit replaces all tables of all keyspaces, so that after a crash the
//! database is as before or as in the backup; every table is read and checked before that. Where the log
//! is archived, a recovery point comes with that edit (`restored_base`). The
//! restore is ordered among the writes by a sequence number of its own: whoever reads at an earlier
//! one keeps what it sees, and no record that was logged before is replayed over it. Tables keep
//! their numbers, which are part of their checksums: a number names one file for ever.

use crate::backup;
use crate::backup_metadata::BackupInfo;
use crate::backup_store::BackupStore;
use crate::checkpoint::largest_number;
use crate::commit::Writer;
use crate::db::Db;
use crate::engine::{Engine, KeyspaceTable};
use crate::keyspace::KeyspaceState;
use crate::keyspace_options::KeyspaceOptions;
use crate::log_mark::Reasons;
use crate::obsolete_files::LiveTable;
use crate::restore_point::RestorePoint;
use crate::restored_base::Planned;
use crate::table_files::{self, Bring};
use esker_base::filename::{FileNumber, table_path, temporary_path};
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement, VersionEdit};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Replaces everything in the database by what `name` holds. The caller holds the lock of the backups.
pub(crate) fn restore(db: &Db, name: &str) -> Result<BackupInfo> {
    let engine = db.engine();
    let info = backup::find(engine, name)?;
    if info.contents.database_id != Some(engine.versions.state().database_id) {
        let sentence = "the backup is of another database; restore it into a new directory";
        return Err(Error::new(ErrorKind::Unsupported, sentence));
    }
    let store = BackupStore::new(&*engine.fs, &engine.backups.directory);
    let from = |meta: &TableMeta| store.table_path(meta);
    let others = (!info.is_recovery_point()).then_some(&from as &dyn Fn(&TableMeta) -> PathBuf);
    let what = format!("{name}, at sequence number {}", info.sequence());
    let base = Planned::new(engine, info.sequence(), &what)?;
    let how = engine.backups.how;
    replace_all(db, &info, others, how, base, FileNumber::MAX)?;
    Ok(info)
}

/// As [`restore`], of a database that was made of this one's past in `directory`. Its new files have
/// numbers from `first_number` on, which the open database must not have reached.
pub(crate) fn restore_from(
    db: &Db,
    info: &BackupInfo,
    point: &RestorePoint,
    directory: &Path,
    first_number: FileNumber,
) -> Result<()> {
    let what = match point {
        RestorePoint::Time(millis) => format!("the time {millis}, "),
        RestorePoint::Latest => "the end of the log, ".into(),
        _ => String::new(),
    };
    let what = format!("{what}sequence number {}", info.sequence());
    let base = Planned::new(db.engine(), info.sequence(), &what)?;
    let from = |meta: &TableMeta| table_path(directory, meta.number);
    replace_all(db, info, Some(&from), Bring::Link, base, first_number)
}

fn replace_all(
    db: &Db,
    info: &BackupInfo,
    from: Option<&dyn Fn(&TableMeta) -> PathBuf>,
    how: Bring,
    base: Option<Planned>,
    first_number: FileNumber,
) -> Result<()> {
    let engine = db.engine();
    let mut held = Vec::new();
    let restored = bring_tables(engine, info, from, how, &mut held)
        .and_then(|()| install(db, info, &held, base.as_ref(), first_number));
    if restored.is_err() {
        let needed = engine.versions.live_files();
        engine
            .tables
            .retire(info.numbers().filter(|number| !needed.contains(number)));
    }
    drop(held);
    engine.tables.remove_unread();
    restored?;
    db.drop_unnamed_entries()?;
    engine.schedule_index_builds();
    for keyspace in engine.all_keyspaces() {
        engine.schedule_compactions(Some(keyspace.id));
    }
    Ok(())
}

/// Sees to it that the file of every table is in the directory, whole, and stays.
fn bring_tables(
    engine: &Engine,
    info: &BackupInfo,
    from: Option<&dyn Fn(&TableMeta) -> PathBuf>,
    how: Bring,
    held: &mut Vec<Arc<LiveTable>>,
) -> Result<()> {
    let fs = &*engine.fs;
    let work = engine.work.begin(backup::table_bytes(info));
    for meta in info.tables() {
        let table = engine.tables.hold(meta);
        if table.handle.meta().checksum != meta.checksum {
            let sentence = "the database has another table of the same number as the backup";
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        let path = table_path(&engine.directory, meta.number);
        match (
            table_files::verify_named(fs, &path, meta, &mut |_| Ok(())),
            from,
        ) {
            (Err(error), None) => return Err(error),
            (Err(_), Some(from)) => {
                let from = from(meta);
                table_files::verify_named(fs, &from, meta, &mut |_| Ok(()))?;
                let temporary = temporary_path(&engine.directory, meta.number);
                table_files::bring(fs, &from, &temporary, &path, meta, how)?;
                // What was open, if anything, was the damaged file.
                table.handle.evict();
            }
            (Ok(()), _) => {}
        }
        held.push(table);
        work.advance(meta.file_bytes);
    }
    let synced = fs.sync_dir(&engine.directory);
    synced.map_err(|error| Error::io("sync the directory", &engine.directory, error))
}

fn install(
    db: &Db,
    info: &BackupInfo,
    held: &[Arc<LiveTable>],
    base: Option<&Planned>,
    first_number: FileNumber,
) -> Result<()> {
    let engine = db.engine();
    for (name, options) in info
        .contents
        .keyspaces
        .iter()
        .filter_map(|k| k.create.as_ref())
    {
        engine
            .hooks
            .check_operator(name, &KeyspaceOptions::decode(options)?)?;
    }
    let mut writer = engine.commit_queue.lock();
    engine.check_writable()?;
    let next = writer.next_sequence;
    writer.log.write_void(engine, next)?;
    // No memtable holds anything from here on: commits are kept out.
    engine.flush_and_cure(&mut writer)?;
    let known = engine.all_keyspaces();
    let edits: Vec<_> = known.iter().map(|state| state.edit.lock()).collect();
    let mut keyspaces = engine.keyspaces.write();
    if engine.versions.new_file_number() >= first_number {
        let sentence =
            "the database has made too many files while the restore was prepared; restore again";
        return Err(Error::new(ErrorKind::Conflict, sentence));
    }
    // Whoever takes a snapshot between two of the steps below keeps the state from before.
    let pin = db.snapshot();
    let since = writer.next_sequence;
    writer.log.note_unlogged(Reasons::RESTORED);
    let old: HashSet<FileNumber> = keyspaces
        .by_id
        .values()
        .filter_map(|state| engine.versions.current(state.id))
        .flat_map(|version| {
            version
                .tables()
                .map(|(_, _, meta)| meta.number)
                .collect::<Vec<_>>()
        })
        .collect();
    let mut edit = replacing_edit(engine, &keyspaces, info, since);
    if let Some(base) = base {
        base.add_to(engine, &mut edit, since)?;
        // Held from before the edit: it may be on disk even if it fails.
        engine.points.hold(base.name(), held.to_vec());
    }
    log(engine, &mut writer, edit, since, base)?;
    engine.tables.revive(held);
    replace_states(engine, &mut keyspaces, info, since);
    writer.next_sequence = since + 1;
    engine.visible.publish(since);
    drop(keyspaces);
    drop(edits);
    if let Err(error) = engine.forget_log(&mut writer.log) {
        // Nothing may be logged before the manifest has let go of the old log for certain.
        engine.health.latch_log_failure(&error);
    }
    // Indexes are what the backup says of them, and what is declared beside is begun anew: before
    // anybody writes, and after the old log was let go, since this is written to the new one.
    let attached = engine.attach_all_indexes(&mut writer, since);
    drop(writer);
    let kept: HashSet<FileNumber> = info.numbers().collect();
    engine.tables.retire(old.difference(&kept).copied());
    drop(pin);
    engine.forget_replaced();
    attached
}

/// Logs the edit. If its fate is unknown, the next writes must be safe from it.
fn log(
    engine: &Engine,
    writer: &mut Writer,
    edit: VersionEdit,
    since: SequenceNumber,
    base: Option<&Planned>,
) -> Result<()> {
    let Err(error) = engine.versions.log_and_apply(edit) else {
        return Ok(());
    };
    let let_go = || {
        base.iter()
            .for_each(|base| engine.points.let_go(base.name()))
    };
    if error.kind() == ErrorKind::InvalidArgument {
        let_go();
    } else {
        // It may be on disk, and would hide log records of this sequence after a crash.
        writer.next_sequence = since + 1;
        // A manifest without it takes over now, or writes stop.
        let superseded = engine.versions.log_and_apply(VersionEdit::default());
        match superseded {
            Ok(()) => let_go(),
            Err(error) => engine.health.latch_log_failure(&error),
        }
    }
    Err(error)
}

/// Everything goes and the backup's tables come.
fn replacing_edit(
    engine: &Engine,
    keyspaces: &KeyspaceTable,
    info: &BackupInfo,
    since: SequenceNumber,
) -> VersionEdit {
    let mut edit = VersionEdit {
        last_sequence: Some(since),
        next_file_number: Some(largest_number(&info.contents) + 1),
        ..VersionEdit::default()
    };
    let mut stay = HashSet::new();
    let mut next_id = engine.versions.next_keyspace_id();
    for wanted in &info.contents.keyspaces {
        let Some((name, options)) = &wanted.create else {
            continue;
        };
        let mut part = KeyspaceEdit {
            flushed_sequence: Some(since),
            added: renumbered(engine, &wanted.added),
            lost_values: wanted.lost_values.clone(),
            ..KeyspaceEdit::default()
        };
        if let Some(state) = keyspaces.by_name.get(name) {
            let version = engine.versions.current(state.id).unwrap_or_default();
            part.id = state.id;
            part.set_options = Some(options.clone());
            part.removed = version.tables().map(|(_, _, meta)| meta.number).collect();
            stay.insert(state.id);
        } else {
            part.id = next_id;
            part.create = Some((name.clone(), options.clone()));
            next_id += 1;
        }
        edit.keyspaces.push(part);
    }
    let gone = keyspaces.by_id.keys().filter(|id| !stay.contains(id));
    edit.keyspaces.extend(gone.map(|&id| KeyspaceEdit {
        id,
        drop: true,
        ..KeyspaceEdit::default()
    }));
    edit
}

/// The same runs under new numbers: plans that were made of the old ones find nothing.
fn renumbered(engine: &Engine, added: &[AddedTable]) -> Vec<AddedTable> {
    let mut drawn: HashMap<RunPlacement, u64> = HashMap::new();
    let place = |table: &AddedTable| {
        let id = drawn
            .entry(table.run)
            .or_insert_with(|| engine.versions.new_file_number());
        AddedTable {
            run: RunPlacement::Created(*id),
            ..table.clone()
        }
    };
    added.iter().map(place).collect()
}

/// Makes the restored versions what readers find.
fn replace_states(
    engine: &Engine,
    keyspaces: &mut KeyspaceTable,
    info: &BackupInfo,
    since: SequenceNumber,
) {
    let manifest = engine.versions.state();
    let named: HashSet<&str> = info.keyspace_names().into_iter().collect();
    let known: Vec<_> = keyspaces.by_id.values().cloned().collect();
    for state in known {
        if named.contains(state.name.as_str()) {
            let keyspace = manifest.keyspaces.get(state.id);
            let options = keyspace.map(|keyspace| KeyspaceOptions::decode(&keyspace.meta.options));
            if let Some(Ok(options)) = options {
                state.set_own_options(options);
            }
            replace(engine, &state, state.id, since);
        } else {
            state.mark_dropped();
            replace(engine, &state, state.id, since);
            keyspaces.remove(&state);
        }
    }
    for keyspace in manifest.keyspaces.iter() {
        let (id, name) = (keyspace.meta.id, &keyspace.meta.name);
        if !keyspaces.by_id.contains_key(&id) {
            let empty = engine.first_super_version(Arc::default());
            let options = KeyspaceOptions::decode(&keyspace.meta.options).unwrap_or_default();
            let state = KeyspaceState::new(
                id,
                name.clone(),
                options,
                empty,
                &engine.hooks,
                &engine.idle_cursors,
            );
            replace(engine, &state, id, since);
            keyspaces.insert(&state);
        }
    }
}

fn replace(engine: &Engine, state: &Arc<KeyspaceState>, id: KeyspaceId, since: SequenceNumber) {
    let version = engine.versions.current(id).unwrap_or_default();
    state.replace(engine.first_super_version(version), since);
    engine.replaced.add(state);
}

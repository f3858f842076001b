//! Bulk load: sorted entries straight into tables, past log and memtables.
//!
//! Invariants: the entries become visible together, at one sequence number taken when they are
//! installed, so that no snapshot moves; after a crash they are all there or none is; everything
//! ordered before is durable first (prefix recovery). Until they are installed the tables are
//! files that nothing names, which the next open would remove.

use crate::batch::WriteBatch;
use crate::commit::{self, check_entry};
use crate::engine::Engine;
use crate::keyspace::{Keyspace, dropped};
use crate::log_mark::Reasons;
use crate::open::LAST_LEVEL;
use crate::options::Durability;
use crate::super_version::SuperVersion;
use esker_base::filename::{FileNumber, table_path, temporary_path};
use esker_base::limits::MAX_INDEX_CHANGES_BYTES;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result, Trailer, ValueKind};
use esker_compaction::JobContext;
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement, VersionEdit};
use esker_sstable::{Making, Origin, TableWriter};
use std::sync::Arc;

/// Builds the tables of one load.
struct Loader<'a> {
    engine: &'a Arc<Engine>,
    /// How its tables are written.
    jobs: JobContext,
    /// When everything in it expires, milliseconds since 1970: the keyspace's default time to live.
    expiry_millis: Option<u64>,
    /// An expiry and a value, as they are stored.
    stored: Vec<u8>,
    writer: Option<TableWriter>,
    tables: Vec<TableMeta>,
    last_key: Vec<u8>,
    entries: u64,
    /// What the tables say of themselves, but for their place among the others.
    origin: Origin,
}

/// Loads `entries`, whose keys must ascend, and says how many there were.
pub(crate) fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    keyspace: &Keyspace,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Result<u64> {
    let engine = keyspace.engine();
    engine.check_writable()?;
    if keyspace.state().indexes.any() {
        return ingest_by_batch(keyspace, entries);
    }
    let making = Making::Load {
        after: engine.visible_sequence(),
    };
    let (writer, tables, last_key) = (None, Vec::new(), Vec::new());
    let ttl = keyspace.state().default_ttl_millis(&engine.settings);
    engine.background.state.lock().loads += 1;
    let mut loader = Loader {
        engine,
        jobs: engine.jobs_of(keyspace.state()),
        expiry_millis: ttl.map(|ttl| engine.clock().now_millis().saturating_add(ttl)),
        stored: Vec::new(),
        writer,
        tables,
        last_key,
        entries: 0,
        origin: engine.origin_of(keyspace.state(), making, []),
    };
    entries
        .into_iter()
        .try_for_each(|(key, value)| loader.add(key.as_ref(), value.as_ref()))?;
    loader.finish_table(true)?;
    loader.install(keyspace)?;
    Ok(loader.entries)
}

/// As [`ingest`], where indexes are to be changed with the records: one batch, by way of the log.
fn ingest_by_batch<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    keyspace: &Keyspace,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Result<u64> {
    let settings = &keyspace.engine().settings;
    let (mut batch, mut last_key, mut count) = (WriteBatch::new(), Vec::new(), 0);
    for (key, value) in entries {
        let (key, value) = (key.as_ref(), value.as_ref());
        check_entry(settings, key, value)?;
        check_order(&last_key, key)?;
        batch.put_in(keyspace, key, value);
        if batch.size_bytes() > MAX_INDEX_CHANGES_BYTES {
            let sentence = "more than a keyspace with indexes can be loaded with at once; \
                            load it in parts, or before an index is declared";
            return Err(Error::new(ErrorKind::LimitExceeded, sentence));
        }
        last_key.clear();
        last_key.extend_from_slice(key);
        count += 1;
    }
    commit::write_batch(keyspace.engine(), batch, Durability::Sync, None)?;
    Ok(count)
}

fn check_order(last_key: &[u8], key: &[u8]) -> Result<()> {
    if key > last_key {
        return Ok(());
    }
    let shown = key.get(..64).unwrap_or(key).escape_ascii();
    let sentence = format!("keys to ingest must ascend; \"{shown}\" comes too late");
    Err(Error::invalid_argument(sentence))
}

/// Also where the owner's iterator panics.
impl Drop for Loader<'_> {
    fn drop(&mut self) {
        self.remove_files();
        self.engine.background.state.lock().loads -= 1;
    }
}

impl Loader<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_entry(&self.engine.settings, key, value)?;
        check_order(&self.last_key, key)?;
        let full = |writer: &TableWriter| writer.estimated_bytes() >= self.jobs.target_file_bytes;
        if self.writer.as_ref().is_some_and(full) {
            self.finish_table(false)?;
        }
        if self.writer.is_none() {
            self.engine.check_memory()?;
            self.writer = Some(self.begin_table()?);
        }
        if let Some(writer) = &mut self.writer {
            match self.expiry_millis {
                None => writer.add(key, Trailer::new(0, ValueKind::Value), value)?,
                Some(expiry) => {
                    self.stored.clear();
                    self.stored.extend_from_slice(&expiry.to_le_bytes());
                    self.stored.extend_from_slice(value);
                    let trailer = Trailer::new(0, ValueKind::ValueWithExpiry);
                    writer.add(key, trailer, &self.stored)?;
                }
            }
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
        Ok(())
    }

    /// Removes what was made for a load that failed. Tables that an edit has named, or may have, are no longer
    /// among these. What cannot be removed goes with the next open.
    fn remove_files(&mut self) {
        let engine = self.engine;
        if let Some(writer) = self.writer.take() {
            let number = writer.number();
            writer.abandon();
            self.remove_unfinished(number);
        }
        if self.tables.is_empty() {
            return;
        }
        let made = self.tables.drain(..).map(|meta| meta.number);
        engine.tables.retire(made);
        engine.remove_unneeded_files();
        // A complete load that comes back with a loss of power, and of the manifest, would be taken for one that is
        // newer than what is written from now on.
        if let Err(error) = engine.fs.sync_dir(&engine.directory) {
            tracing::warn!(%error, "the tables of a load that failed may come back");
        }
    }

    fn begin_table(&mut self) -> Result<TableWriter> {
        let engine = self.engine;
        let number = engine.versions.new_file_number();
        if self.tables.is_empty() {
            self.origin.first = number;
        }
        let path = temporary_path(&engine.directory, number);
        let options = (self.jobs.table_options)(LAST_LEVEL);
        let created = TableWriter::create(&*engine.fs, &path, number, &options);
        if created.is_err() {
            // It may be there all the same.
            self.remove_unfinished(number);
        }
        created
    }

    /// Removes a table that failed before it was noted, by whichever name it has.
    fn remove_unfinished(&self, number: FileNumber) {
        let directory = &self.engine.directory;
        for path in [
            temporary_path(directory, number),
            table_path(directory, number),
        ] {
            if let Err(error) = self.engine.fs.remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "could not remove an unfinished table");
            }
        }
    }

    fn finish_table(&mut self, is_last: bool) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            let part = self.tables.len() as u64;
            writer.set_origin(Origin {
                part,
                is_last,
                ..self.origin.clone()
            });
            let number = writer.number();
            let finished = writer.finish(self.engine.clock().now_millis());
            let named = finished.and_then(|meta| self.jobs.give_name(number).map(|()| meta));
            if named.is_err() {
                self.remove_unfinished(number);
            }
            self.tables.push(named?);
        }
        Ok(())
    }

    /// Gives the tables their place in the order and makes them current.
    fn install(&mut self, keyspace: &Keyspace) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        let (engine, state) = (self.engine, keyspace.state());
        let synced = engine.fs.sync_dir(&engine.directory);
        synced.map_err(|error| Error::io("sync the directory", &engine.directory, error))?;
        let mut writer = engine.commit_queue.lock();
        engine.check_writable()?;
        engine.ready_log(&mut writer)?;
        if state.is_dropped() {
            return Err(dropped(&state.name));
        }
        // What is older must lie below the new run, in tables, and be durable wherever it is.
        if engine.logs_writes() {
            let next = writer.next_sequence;
            writer.log.write_void(engine, next)?;
            writer.log.sync(engine)?;
        }
        if !state.load().active.memtable.is_empty() {
            engine.seal(&writer, state);
        }
        engine.wait_until_flushed(state)?;
        // Never given to anything else, whatever becomes of the edit: if it failed and is durable all
        // the same, a write of this number would be taken for one that is in tables.
        let sequence = writer.next_sequence;
        writer.next_sequence = sequence + 1;
        writer.log.note_unlogged(Reasons::LOADED);
        let tables = self.tables.drain(..).map(|meta| TableMeta {
            ingested_sequence: sequence,
            smallest_sequence: sequence,
            largest_sequence: sequence,
            ..meta
        });
        let (level, run) = (0, RunPlacement::New);
        let added = tables
            .map(|meta| AddedTable {
                level,
                run,
                meta: Arc::new(meta),
            })
            .collect();
        let _edits_one_at_a_time = state.edit.lock();
        let edit = KeyspaceEdit {
            id: state.id,
            flushed_sequence: Some(sequence),
            added,
            ..KeyspaceEdit::default()
        };
        let numbers: Vec<_> = edit.added.iter().map(|added| added.meta.number).collect();
        let logged = engine.versions.log_and_apply(VersionEdit {
            last_sequence: Some(sequence),
            keyspaces: vec![edit],
            ..VersionEdit::default()
        });
        if logged.is_err() {
            engine.given_up.note_tables(numbers);
        }
        logged?;
        state.install(|view| {
            let version = engine.versions.current(state.id).unwrap_or_default();
            let (active, sealed) = (Arc::clone(&view.active), view.sealed.clone());
            SuperVersion::new(active, sealed, version, &engine.tables)
        });
        engine.visible.publish(sequence);
        drop(writer);
        engine.schedule_compactions(Some(state.id));
        Ok(())
    }
}

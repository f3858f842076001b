//! A consistent cut of all keyspaces, as tables: what backups, recovery points and checkpoints hold.
//!
//! Invariants: it holds every write up to its sequence number and none after; its tables are synced
//! and stay as long as it is held, whatever compaction does; writers wait only while memtables are
//! swapped. Most of what memtables hold is flushed first, with writers going on; what they write
//! during that flush goes into tables of the capture's own.

use crate::engine::Engine;
use crate::keyspace::KeyspaceState;
use crate::obsolete_files::LiveTable;
use crate::super_version::SuperVersion;
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::{Result, SequenceNumber};
use esker_compaction::RetentionRules;
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement, VersionEdit};
use esker_sstable::Making;
use std::sync::Arc;

/// A moment of the database.
pub(crate) struct Capture {
    pub(crate) sequence: SequenceNumber,
    /// Every keyspace with its tables, as an edit of an empty database.
    pub(crate) contents: VersionEdit,
    /// Keeps the files of the tables.
    pub(crate) tables: Vec<Arc<LiveTable>>,
}

/// What memtables held, in tables of the capture's own.
#[derive(Default)]
struct Tail {
    values: Vec<Arc<TableMeta>>,
    tables: Vec<Arc<TableMeta>>,
    held: Vec<Arc<LiveTable>>,
}

/// Captures the database as it is now.
pub(crate) fn capture(engine: &Arc<Engine>) -> Result<Capture> {
    engine.flush_all()?;
    let views;
    let sequence;
    {
        let mut writer = engine.commit_queue.lock();
        if engine.health.has_failed() {
            engine.flush_and_cure(&mut writer)?;
        }
        engine.secure_log(&mut writer)?;
        engine.seal_all(&writer);
        // Not the last number that was given: those of writes that failed are given again after a crash, and what
        // follows a backup in the log would lack them.
        sequence = engine.visible_sequence();
        // The map is locked too: no keyspace comes or goes between the views.
        let keyspaces = engine.keyspaces.read();
        let by_id = keyspaces.by_id.values();
        views = by_id
            .map(|state| (Arc::clone(state), state.load_full()))
            .collect::<Vec<_>>();
    }
    engine.schedule_flush();
    let mut capture = Capture {
        sequence,
        contents: VersionEdit {
            last_sequence: Some(sequence),
            ..VersionEdit::default()
        },
        tables: Vec::new(),
    };
    let mut wrote = false;
    for (state, view) in &views {
        let tail = write_tail(engine, state, view, sequence)?;
        wrote |= !tail.tables.is_empty();
        capture.add(engine, state, view, tail);
    }
    if wrote {
        let synced = engine.fs.sync_dir(&engine.directory);
        synced.map_err(|error| {
            esker_base::Error::io("sync the directory", &engine.directory, error)
        })?;
        // So that no later life of the database gives the numbers of these tables out again.
        engine.versions.log_and_apply(VersionEdit::default())?;
    }
    let state = engine.versions.state();
    capture.contents.database_id = Some(state.database_id);
    capture.contents.options = Some(state.options.to_vec());
    Ok(capture)
}

/// Brings the sealed memtables of a captured state into tables that no version names: their flush is
/// the background's business, and may put later writes into the same tables.
fn write_tail(
    engine: &Arc<Engine>,
    state: &KeyspaceState,
    view: &SuperVersion,
    sequence: SequenceNumber,
) -> Result<Tail> {
    if view.sealed.is_empty() {
        return Ok(Tail::default());
    }
    let memtables = view.sealed.iter().map(|buffer| &buffer.memtable);
    let lists: Vec<FragmentedTombstones> = memtables
        .clone()
        .filter(|memtable| memtable.has_range_tombstones())
        .map(|memtable| memtable.range_tombstones())
        .collect();
    let sources = memtables.map(|memtable| memtable.iter()).collect();
    let rules = RetentionRules {
        snapshots: vec![sequence],
        now_millis: engine.clock().now_millis(),
        ..RetentionRules::default()
    };
    let output = esker_compaction::flush(
        &engine.traced_jobs_of(state, Making::Flush, []),
        MergingIterator::new(sources),
        FragmentedTombstones::merge(&lists),
        &rules,
    )?;
    let held = output.all().map(|meta| engine.tables.get(meta)).collect();
    // They go with whoever holds them last: the capture, or the recovery point made of it.
    engine.tables.retire(output.all().map(|meta| meta.number));
    Ok(Tail {
        values: output.values,
        tables: output.tables,
        held,
    })
}

impl Capture {
    fn add(&mut self, engine: &Engine, state: &KeyspaceState, view: &SuperVersion, tail: Tail) {
        let mut edit = KeyspaceEdit {
            id: state.id,
            create: Some((state.name.clone(), state.own_options().encode())),
            flushed_sequence: Some(self.sequence),
            ..KeyspaceEdit::default()
        };
        // Values are of no run, and come before what points to them.
        for meta in &view.version.values.tables {
            self.tables.push(engine.tables.get(meta));
            edit.added.push(AddedTable::of_values(Arc::clone(meta)));
        }
        edit.lost_values.extend(&view.version.values.lost);
        // Oldest first, because each run that an edit creates becomes the newest of its level.
        for (level, run) in view.version.runs_newest_first().rev() {
            for meta in &run.tables {
                self.tables.push(engine.tables.get(meta));
                edit.added
                    .push(placed(level, RunPlacement::Created(run.id), meta));
            }
        }
        if !tail.tables.is_empty() {
            let run = RunPlacement::Created(engine.versions.new_file_number());
            let values = tail.values.iter().cloned();
            edit.added.extend(values.map(AddedTable::of_values));
            let tables = tail.tables.iter();
            edit.added.extend(tables.map(|meta| placed(0, run, meta)));
            self.tables.extend(tail.held);
        }
        self.contents.keyspaces.push(edit);
    }
}

fn placed(level: usize, run: RunPlacement, meta: &Arc<TableMeta>) -> AddedTable {
    AddedTable {
        level,
        run,
        meta: Arc::clone(meta),
    }
}

//! The tables of a flush, from the memtables they are made of to their place in the database.
//!
//! Invariant (I1): the memtables leave the super-version only after the tables, their names and the edit that
//! names them are durable. Used by `flush_job` and by `cure`, which differ in what they flush together.

use crate::engine::Engine;
use crate::hooks::KeyspaceHooks;
use crate::keyspace::KeyspaceState;
use crate::super_version::{SuperVersion, WriteBuffer};
use crate::table_references::RemovalsUntil;
use esker_base::filename::FileNumber;
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::{Error, Result, SequenceNumber};
use esker_compaction::{JobContext, JobOutput, OwnersFilter, RetentionRules};
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement};
use esker_sstable::{Making, Origin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Tables that hold what memtables of a keyspace held, and that nothing names yet.
pub(crate) struct Flushed {
    pub(crate) state: Arc<KeyspaceState>,
    /// All of the keyspace up to here is in tables once these are named.
    sequence: SequenceNumber,
    buffers: Vec<Arc<WriteBuffer>>,
    jobs: JobContext,
    began: RemovalsUntil,
    pub(crate) output: JobOutput,
}

impl Flushed {
    /// What names them.
    pub(crate) fn edit(&self) -> KeyspaceEdit {
        let (level, run) = (0, RunPlacement::New);
        let tables = self.output.tables.iter().cloned();
        let tables = tables.map(|meta| AddedTable { level, run, meta });
        let values = self.output.values.iter().cloned();
        KeyspaceEdit {
            id: self.state.id,
            flushed_sequence: Some(self.sequence),
            added: values.map(AddedTable::of_values).chain(tables).collect(),
            ..KeyspaceEdit::default()
        }
    }

    /// The numbers of the tables.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = FileNumber> {
        self.output.all().map(|meta| meta.number)
    }
}

impl Engine {
    /// Makes the names of written tables durable: whatever edit names them comes after this.
    pub(crate) fn sync_written(&self, written: &[Flushed]) -> Result<()> {
        if written
            .iter()
            .all(|flushed| flushed.numbers().next().is_none())
        {
            return Ok(());
        }
        let synced = self.fs.sync_dir(&self.directory);
        synced.map_err(|error| {
            self.retire_written(written);
            Error::io("sync the directory", &self.directory, error)
        })
    }

    /// Tables that nothing names, nor ever will, go.
    pub(crate) fn retire_written(&self, written: &[Flushed]) {
        self.tables
            .retire(written.iter().flat_map(Flushed::numbers));
    }

    /// Makes tables part of the database, by one edit.
    pub(crate) fn name_flushed(&self, written: Vec<Flushed>) -> Result<()> {
        self.sync_written(&written)?;
        let states: Vec<_> = written.iter().map(|it| Arc::clone(&it.state)).collect();
        let edits_one_at_a_time: Vec<_> = states.iter().map(|state| state.edit.lock()).collect();
        let is_dropped = |flushed: &&Flushed| flushed.state.is_dropped();
        for flushed in written.iter().filter(is_dropped) {
            // Dropped while they were written: nothing will ever name them.
            self.tables.retire(flushed.numbers());
        }
        let there = || written.iter().filter(|flushed| !flushed.state.is_dropped());
        let edits: Vec<_> = there().map(Flushed::edit).collect();
        if !edits.is_empty() {
            self.apply_or_give_up(edits, there().flat_map(Flushed::numbers))?;
        }
        for flushed in written {
            self.install_flushed(flushed, None);
        }
        drop(edits_one_at_a_time);
        Ok(())
    }

    /// Writes tables of memtables that take no more records, newest first: all that the keyspace holds
    /// and no table has, up to `sequence`. Up to `floor` everything of all keyspaces is in tables. Their
    /// names are not durable before [`Engine::sync_written`].
    pub(crate) fn write_out(
        &self,
        state: &Arc<KeyspaceState>,
        buffers: Vec<Arc<WriteBuffer>>,
        sequence: SequenceNumber,
        floor: SequenceNumber,
    ) -> Result<Flushed> {
        let began = self.tables.removals_so_far();
        let origin = Origin {
            flushed: sequence,
            ..self.origin_above(floor, state, Making::Flush, [])
        };
        let jobs = JobContext {
            origin: Some(Arc::new(origin)),
            caller_syncs_directory: true,
            ..self.jobs_of(state)
        };
        let output = self.write_level0(&jobs, state, &buffers)?;
        let state = Arc::clone(state);
        Ok(Flushed {
            state,
            sequence,
            buffers,
            jobs,
            began,
            output,
        })
    }

    /// Lets the tables take the place of the memtables that they were made of. `active` takes the
    /// writes from now on, where the active memtable was one of those.
    pub(crate) fn install_flushed(&self, flushed: Flushed, active: Option<Arc<WriteBuffer>>) {
        let Flushed {
            state,
            buffers,
            jobs,
            began,
            output,
            ..
        } = flushed;
        if !state.is_dropped() {
            self.job_is_done(&jobs, &output, began);
        }
        let is_flushed = |buffer: &Arc<WriteBuffer>| buffers.iter().any(|b| Arc::ptr_eq(b, buffer));
        let old = state.install(|view| {
            let sealed = view.sealed.iter().filter(|b| !is_flushed(b));
            let sealed = sealed.cloned().collect();
            let active = active.unwrap_or_else(|| Arc::clone(&view.active));
            let version = self.versions.current(state.id).unwrap_or_default();
            SuperVersion::new(active, sealed, version, &self.tables)
        });
        let counters = &self.counters;
        counters
            .flush_bytes_written
            .fetch_add(output.stats.bytes_written, Ordering::Relaxed);
        counters.flushes.fetch_add(1, Ordering::Relaxed);
        drop((old, buffers));
        self.note_pressure(&state);
    }

    fn write_level0(
        &self,
        jobs: &JobContext,
        state: &KeyspaceState,
        buffers: &[Arc<WriteBuffer>],
    ) -> Result<JobOutput> {
        let sources = buffers
            .iter()
            .map(|buffer| buffer.memtable.iter())
            .collect();
        let lists: Vec<FragmentedTombstones> = buffers
            .iter()
            .filter(|buffer| buffer.memtable.has_range_tombstones())
            .map(|buffer| buffer.memtable.range_tombstones())
            .collect();
        // An owner's filter is for merges: a flush has to be quick.
        let rules = RetentionRules {
            filter: None,
            ..self.retention_rules(state)
        };
        let tombstones = FragmentedTombstones::merge(&lists);
        esker_compaction::flush(jobs, MergingIterator::new(sources), tombstones, &rules)
    }

    /// What a merge of this keyspace's records must respect.
    pub(crate) fn retention_rules(&self, state: &KeyspaceState) -> RetentionRules {
        let KeyspaceHooks {
            operator, filter, ..
        } = state.hooks().clone();
        let snapshots = self.snapshots.retained(&self.visible);
        let filter = filter.map(|filter| OwnersFilter {
            filter,
            newest_snapshot: self.snapshots.newest(),
        });
        RetentionRules {
            snapshots,
            now_millis: self.clock.now_millis(),
            operator,
            filter,
            ..RetentionRules::default()
        }
    }
}

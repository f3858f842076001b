//! Compactions: plans of the pure picker, carried out and made current.
//!
//! Invariants (I1, I2): compactions of one keyspace never share a table; a plan's outputs are durable
//! before the edit that names them, the edit before the super-version that reads them, and inputs go
//! with their last reader. Edits of one keyspace are made one at a time, each against the version
//! that is current then.

use crate::background::State;
use crate::engine::{Engine, Mode};
use crate::keyspace::KeyspaceState;
use crate::super_version::SuperVersion;
use esker_base::filename::FileNumber;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;
use esker_base::{ErrorKind, Result};
use esker_compaction::executor::guarded;
use esker_compaction::{JobOutput, Lane, PickInput, Plan, PlanKind, RangePick, pick, pick_range};
use esker_manifest::{AddedTable, KeyspaceEdit, Version};
use esker_sstable::Making;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a requested compaction waits at most before it looks again at what others hold.
const BUSY_WAIT: Duration = Duration::from_millis(20);

impl Engine {
    /// Starts every compaction that is due and that a thread is free for.
    pub(crate) fn schedule_compactions(self: &Arc<Self>, changed: Option<KeyspaceId>) {
        let mut state = self.background.state.lock();
        state.candidates.extend(changed);
        if state.stopping || self.mode == Mode::ReadOnly {
            return;
        }
        while state.compactions < self.settings.background_threads() {
            let Some((keyspace, plan)) = self.pick_one(&mut state) else {
                break;
            };
            state.compactions += 1;
            state
                .busy
                .entry(keyspace.id)
                .or_default()
                .extend(plan.files());
            state.planned.push_back((keyspace, plan));
            let engine = Arc::clone(self);
            let job = Box::new(move || engine.planned_job());
            self.executor.spawn(Lane::Compaction, job);
        }
    }

    /// Carries out the oldest plan, if nobody who waited for its inputs has done so already.
    fn planned_job(self: &Arc<Self>) {
        let planned = self.background.state.lock().planned.pop_front();
        if let Some((keyspace, plan)) = planned {
            self.compaction_job(&keyspace, &plan);
        }
    }

    fn pick_one(&self, state: &mut State) -> Option<(Arc<KeyspaceState>, Plan)> {
        while let Some(&id) = state.candidates.first() {
            let keyspace = self.keyspaces.read().by_id.get(&id).cloned();
            let plan = keyspace
                .as_ref()
                .and_then(|keyspace| self.with_pick_input(state, keyspace, pick));
            if let (Some(keyspace), Some(plan)) = (keyspace, plan) {
                return Some((keyspace, plan));
            }
            state.candidates.remove(&id);
        }
        None
    }

    pub(crate) fn compaction_job(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>, plan: &Plan) {
        let mut result = guarded(|| self.carry_out(keyspace, plan));
        if let Err(error) = &result
            && error.kind() == ErrorKind::NoSpace
            && self.give_space_back()
        {
            result = guarded(|| self.carry_out(keyspace, plan));
        }
        let failed = result.is_err();
        {
            let mut state = self.background.state.lock();
            state.compactions -= 1;
            self.release_inputs(&mut state, keyspace.id, plan);
            state.compaction_error = result.err();
            if let Some(error) = &state.compaction_error {
                // Tried again when the next flush changes the keyspace.
                tracing::error!(%error, reason = ?plan.reason, "a compaction failed");
                state.candidates.remove(&keyspace.id);
            } else {
                state.candidates.insert(keyspace.id);
            }
            self.background.changed.notify_all();
        }
        if !failed {
            self.schedule_compactions(None);
        }
        self.remove_replaced_files(keyspace);
    }

    /// Carries a plan out and makes its result current (I1).
    fn carry_out(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>, plan: &Plan) -> Result<()> {
        // Not the whole view: the memtables of this moment would stay for as long as the merge runs, though
        // they are flushed.
        let view = keyspace.load().tables_alone();
        if !names_inputs(&view.version, plan) {
            // A restore has replaced them since the plan was made.
            return Ok(());
        }
        let began = self.tables.removals_so_far();
        let jobs = self.traced_jobs_of(keyspace, Making::Merge, plan.files());
        let outputs = if plan.kind == PlanKind::Merge {
            let rules = self.retention_rules(keyspace);
            let output = esker_compaction::run(&jobs, plan, &view.version, &rules)?;
            let counters = &self.counters;
            counters
                .compaction_bytes_read
                .fetch_add(output.stats.bytes_read, Ordering::Relaxed);
            counters
                .compaction_bytes_written
                .fetch_add(output.stats.bytes_written, Ordering::Relaxed);
            Some(output)
        } else {
            None
        };
        drop(view);
        let _edits_one_at_a_time = keyspace.edit.lock();
        let current = self.versions.current(keyspace.id).unwrap_or_default();
        if !names_inputs(&current, plan) {
            // Dropped or restored meanwhile: nothing will ever name what was written.
            let written = outputs.iter().flat_map(JobOutput::all);
            self.tables.retire(written.map(|meta| meta.number));
            return Ok(());
        }
        let edit = match &outputs {
            Some(output) => Some(plan.edit(&current, &output.tables)),
            None => plan.edit_without_job(&current),
        };
        let Some(mut edit) = edit else { return Ok(()) };
        let values = outputs
            .iter()
            .flat_map(|output| output.values.iter().cloned());
        edit.added.extend(values.map(AddedTable::of_values));
        edit.removed.extend(current.values_unneeded_after(&edit));
        let kept: HashSet<_> = edit.added.iter().map(|added| added.meta.number).collect();
        let gone: Vec<_> = edit
            .removed
            .iter()
            .copied()
            .filter(|n| !kept.contains(n))
            .collect();
        let edit = KeyspaceEdit {
            id: keyspace.id,
            ..edit
        };
        let made = outputs.iter().flat_map(JobOutput::all);
        self.apply_or_give_up(vec![edit], made.map(|meta| meta.number))?;
        if let Some(output) = &outputs {
            self.job_is_done(&jobs, output, began);
        }
        // Before the new view: a merge that begins from that one names them as gone.
        self.retire_inputs(plan, gone, outputs.as_ref());
        let old = keyspace.install(|view| {
            let version = self.versions.current(keyspace.id).unwrap_or_default();
            let (active, sealed) = (Arc::clone(&view.active), view.sealed.clone());
            SuperVersion::new(active, sealed, version, &self.tables)
        });
        drop(old);
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.note_pressure(keyspace);
        Ok(())
    }

    /// Says that the manifest no longer names `gone`, the tables of `plan` and values of theirs. Where no table was made
    /// that says so too, they go the oldest run first.
    fn retire_inputs(&self, plan: &Plan, gone: Vec<FileNumber>, made: Option<&JobOutput>) {
        if made.is_some_and(|output| !output.tables.is_empty()) {
            self.tables.retire(gone);
            return;
        }
        let mut left: BTreeSet<_> = gone.into_iter().collect();
        let mut steps = Vec::new();
        for run in plan.inputs.iter().rev() {
            let numbers = run.tables.iter().map(|meta| meta.number);
            steps.push(numbers.filter(|it| left.remove(it)).collect());
        }
        // Values after what points into them.
        steps.push(left);
        self.tables.retire_in_steps(steps);
    }

    /// Brings every table that overlaps `bounds` into its final form, in the calling thread. Running
    /// compactions go on beside it; what they hold is waited for. Planned ones of the keyspace are carried out
    /// here before anything is waited for: the caller may hold the writer lock, and the threads they wait for may all have
    /// jobs that wait for that.
    pub(crate) fn compact_keyspace(
        self: &Arc<Self>,
        keyspace: &Arc<KeyspaceState>,
        bounds: &KeyBounds,
    ) -> Result<()> {
        let before = self.versions.new_file_number();
        let version = self.versions.current(keyspace.id).unwrap_or_default();
        let tables = version.tables().map(|(_, _, meta)| meta.file_bytes);
        let _told = self.work.follow(&self.jobs.written_bytes, tables.sum());
        while let Some(plan) = self.next_requested(keyspace, bounds, before)? {
            let result = guarded(|| self.carry_out(keyspace, &plan));
            self.release_inputs(&mut self.background.state.lock(), keyspace.id, &plan);
            match result {
                Err(error) if error.kind() == ErrorKind::NoSpace && self.give_space_back() => {}
                result => result?,
            }
        }
        self.schedule_compactions(Some(keyspace.id));
        self.remove_unneeded_files();
        Ok(())
    }

    /// The next step of a requested compaction, its inputs marked busy.
    fn next_requested(
        self: &Arc<Self>,
        keyspace: &KeyspaceState,
        bounds: &KeyBounds,
        before: FileNumber,
    ) -> Result<Option<Plan>> {
        let even_final = keyspace.hooks().filter.is_some();
        loop {
            self.check_writable()?;
            let mut state = self.background.state.lock();
            let picked = self.with_pick_input(&state, keyspace, |input| {
                pick_range(input, bounds, before, even_final)
            });
            match picked {
                RangePick::Done => return Ok(None),
                RangePick::Busy => {
                    let planned = state.take_planned(keyspace.id);
                    drop(state);
                    if let Some((keyspace, plan)) = planned {
                        self.compaction_job(&keyspace, &plan);
                    } else if !self.executor.assist() {
                        // Looked at once more at the latest when the next job ends or this times
                        // out: a job may have ended while the lock was not held.
                        let mut state = self.background.state.lock();
                        self.background.changed.wait_for(&mut state, BUSY_WAIT);
                    }
                }
                RangePick::Plan(plan) => {
                    state
                        .busy
                        .entry(keyspace.id)
                        .or_default()
                        .extend(plan.files());
                    return Ok(Some(plan));
                }
            }
        }
    }

    fn release_inputs(&self, state: &mut State, keyspace: KeyspaceId, plan: &Plan) {
        if let Some(busy) = state.busy.get_mut(&keyspace) {
            for number in plan.files() {
                busy.remove(&number);
            }
        }
        self.background.changed.notify_all();
    }

    /// Everything that a picker decides by.
    pub(crate) fn with_pick_input<T>(
        &self,
        state: &State,
        keyspace: &KeyspaceState,
        pick: impl FnOnce(&PickInput<'_>) -> T,
    ) -> T {
        let none = HashSet::new();
        let version = Arc::clone(&keyspace.load().version);
        let tombstones = |meta: &Arc<TableMeta>| {
            let table = self.tables.get(meta).handle.table().ok()?;
            Some(table.range_tombstones().clone())
        };
        pick(&PickInput {
            version: &version,
            shape: &self.shape_of(keyspace),
            busy: state.busy.get(&keyspace.id).unwrap_or(&none),
            now_millis: self.clock.now_millis(),
            oldest_snapshot: self.snapshots.summary().1.unwrap_or(MAX_SEQUENCE),
            tombstones: Some(&tombstones),
        })
    }
}

/// Whether every input of `plan` is a table of `version`.
fn names_inputs(version: &Version, plan: &Plan) -> bool {
    // With their runs: a restore may bring the same tables back, and puts them into new runs.
    let named: HashSet<_> = version
        .tables()
        .map(|(level, run, meta)| (level, run, meta.number))
        .collect();
    plan.inputs.iter().all(|input| {
        let place = |meta: &Arc<TableMeta>| (input.level, input.run_id, meta.number);
        input.tables.iter().all(|meta| named.contains(&place(meta)))
    })
}

//! The background: one state machine that decides when to seal, flush and compact, and who waits
//! for it.
//!
//! Invariants: at most one flush runs; compactions of one keyspace never share a table; every job
//! that was started is counted and joined at close; nobody waits without somebody being due to wake
//! them (every change of the state notifies). A flush never waits for the writer lock before it has
//! told the writers that it is done, since a stalled leader holds that lock. Decisions are the pure
//! functions of the compaction crate; this file supplies their inputs and carries them out (I1).

use crate::commit::{Member, Writer};
use crate::engine::{Engine, Mode, closed};
use crate::keyspace::KeyspaceState;
use crate::open::LAST_LEVEL;
use crate::super_version::{SuperVersion, WriteBuffer};
use esker_base::filename::FileNumber;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::key_bounds::KeyBounds;
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, Result, SequenceNumber};
use esker_compaction::executor::guarded;
use esker_compaction::pacing::{self, Admission, Pressure};
use esker_compaction::{
    JobOutput, Lane, PickInput, Plan, PlanKind, RangePick, RetentionRules, ShapeOptions,
    debt_bytes, pick, pick_range,
};
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement, VersionEdit};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Delays of writers are added up until they are worth a sleep.
const LEAST_SLEEP: Duration = Duration::from_millis(1);
/// How long a requested compaction waits at most before it looks again at what others hold.
const BUSY_WAIT: Duration = Duration::from_millis(20);
/// How long a failed log is left alone before the next attempt to replace it.
const CURE_INTERVAL_MICROS: u64 = 50_000;

/// What runs, what is due, what failed.
#[derive(Debug, Default)]
struct State {
    flushing: bool,
    compactions: usize,
    /// Tables that running compactions consume.
    busy: HashMap<KeyspaceId, HashSet<FileNumber>>,
    /// Keyspaces whose version changed since the picker last found nothing to do.
    candidates: BTreeSet<KeyspaceId>,
    flush_error: Option<Error>,
    /// How many flushes have failed so far.
    flush_failures: u64,
    compaction_error: Option<Error>,
    stopping: bool,
}

/// The scheduler of one engine.
#[derive(Debug, Default)]
pub(crate) struct Background {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether writers are to be asked whether they are too fast.
    is_behind: AtomicBool,
    owed: Mutex<Duration>,
    /// Tells running jobs to give up.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Background {
    /// Cancels what runs and waits until nothing does.
    pub(crate) fn stop(&self, engine: &Engine) {
        self.cancelled.store(true, Ordering::Release);
        let mut state = self.state.lock();
        state.stopping = true;
        drop(state);
        engine.executor.join();
    }

    /// Wakes whoever waits. The lock makes sure that nobody is between looking and waiting.
    fn notify(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Whether no job runs, so that every file is either named or a stray.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        !state.flushing && state.compactions == 0
    }

    /// The last failures of a flush and of a compaction that have not been followed by a success.
    pub(crate) fn errors(&self) -> Vec<Error> {
        let state = self.state.lock();
        state
            .flush_error
            .iter()
            .chain(&state.compaction_error)
            .cloned()
            .collect()
    }
}

/// Room in memory and log for what comes.
impl Engine {
    /// Seals full memtables, waits where memory is full, and pays for compaction's debt. Called by
    /// the leader with the writer lock held.
    #[inline]
    pub(crate) fn make_room(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &[Member<'_>],
    ) -> Result<()> {
        let limit = self.settings.write_buffer_bytes();
        for state in members.iter().flat_map(Member::keyspaces) {
            if state.load().active.memtable.bytes() >= limit {
                self.seal_full(writer, state)?;
            }
        }
        if self.background.is_behind.load(Ordering::Relaxed) {
            self.pay_debt(members);
        }
        if self.logs_writes() && self.segments.bytes() > self.settings.wal_size_limit_bytes() {
            self.shrink_log(writer)?;
        }
        Ok(())
    }

    /// Seals a full memtable once a flush has made room for it.
    #[cold]
    fn seal_full(self: &Arc<Self>, writer: &mut Writer, state: &Arc<KeyspaceState>) -> Result<()> {
        let most = self.settings.max_sealed_memtables();
        self.wait_for_flush(|| state.load().sealed.len() < most)?;
        self.secure_log(writer)?;
        self.seal(writer, state);
        self.schedule_flush();
        Ok(())
    }

    /// Waits until `enough`, starting flushes; fails with the flush that cannot be done.
    fn wait_for_flush(self: &Arc<Self>, enough: impl Fn() -> bool) -> Result<()> {
        if enough() {
            return Ok(());
        }
        let started = self.clock.monotonic_micros();
        let failures = self.background.state.lock().flush_failures;
        let waited = loop {
            if enough() {
                break Ok(());
            }
            // Looked at before a flush is started: each call that comes here waits for one failure
            // at most. The next call tries again, since space may have returned.
            {
                let state = self.background.state.lock();
                if state.stopping {
                    break Err(closed());
                }
                if let Some(error) = &state.flush_error
                    && state.flush_failures > failures
                {
                    break Err(error.clone());
                }
            }
            self.schedule_flush();
            if self.executor.assist() {
                continue;
            }
            let mut state = self.background.state.lock();
            if state.flushing && !enough() {
                self.background.changed.wait(&mut state);
            }
        };
        let stalled = self.clock.monotonic_micros().saturating_sub(started);
        self.counters
            .stall_micros
            .fetch_add(stalled, Ordering::Relaxed);
        waited
    }

    /// Makes the active memtable a sealed one. Writer lock held, so no record is being inserted.
    pub(crate) fn seal(&self, writer: &Writer, state: &KeyspaceState) {
        self.seal_at(state, writer.next_sequence - 1);
    }

    /// As [`Engine::seal`]; every record of the keyspace up to `sequence` has been inserted.
    pub(crate) fn seal_at(&self, state: &KeyspaceState, sequence: SequenceNumber) {
        let next = self.new_buffer();
        state.install(|view| {
            view.active.seal(sequence);
            let mut sealed = Vec::with_capacity(view.sealed.len() + 1);
            sealed.push(Arc::clone(&view.active));
            sealed.extend(view.sealed.iter().cloned());
            view.with_memtables(next, sealed)
        });
    }

    /// Before a memtable is sealed, whose flush makes it durable, what other keyspaces hold and was
    /// ordered before it is made durable in the log: a power loss must not leave a later write
    /// without an earlier one, nor half a batch. With one keyspace in use nothing is to be done.
    fn secure_log(&self, writer: &mut Writer) -> Result<()> {
        if !self.logs_writes() || self.health.has_failed() {
            return Ok(());
        }
        let holds_records = |state: &Arc<KeyspaceState>| {
            let view = state.load();
            view.memtables().any(|memtable| !memtable.is_empty())
        };
        let holding = self.all_keyspaces();
        if holding.iter().filter(|state| holds_records(state)).count() < 2 {
            return Ok(());
        }
        writer.log.sync(self)
    }

    /// Seals every memtable that holds something.
    pub(crate) fn seal_all(&self, writer: &Writer) {
        for state in self.all_keyspaces() {
            if !state.load().active.memtable.is_empty() {
                self.seal(writer, &state);
            }
        }
    }

    /// The log is over its limit: flush what pins its oldest segment.
    #[cold]
    fn shrink_log(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        let Some(oldest) = self.segments.oldest() else {
            return Ok(());
        };
        self.secure_log(writer)?;
        for state in self.all_keyspaces() {
            let pins = state
                .load()
                .active
                .first_segment()
                .is_some_and(|first| first <= oldest);
            if pins {
                self.seal(writer, &state);
            }
        }
        self.schedule_flush();
        let hard_limit = self.settings.wal_size_limit_bytes() / 2 * 3;
        if self.segments.bytes() <= hard_limit {
            return Ok(());
        }
        // What keeps the log is flushed or, if it is the segment that takes records, left behind.
        let anything_sealed = || {
            self.all_keyspaces()
                .iter()
                .any(|s| !s.load().sealed.is_empty())
        };
        self.wait_for_flush(|| self.segments.bytes() <= hard_limit || !anything_sealed())
    }

    /// Holds the writers back in proportion to what compaction is behind by.
    #[cold]
    fn pay_debt(&self, members: &[Member<'_>]) {
        let bytes: usize = members.iter().map(Member::encoded_bytes).sum();
        let view = self.default_keyspace.load();
        if let Admission::Delay(delay) = pacing::admit(&self.pressure(&view), bytes) {
            let mut owed = self.background.owed.lock();
            *owed += delay;
            if *owed >= LEAST_SLEEP {
                let pause = std::mem::take(&mut *owed);
                drop(owed);
                self.clock.sleep(pause);
                let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
                self.counters
                    .stall_micros
                    .fetch_add(micros, Ordering::Relaxed);
            }
        }
    }

    fn pressure(&self, view: &SuperVersion) -> Pressure {
        let buffer_bytes = self.settings.write_buffer_bytes() as u64;
        let runs = self.settings.level0_runs();
        Pressure {
            sealed_memtables: view.sealed.len(),
            max_sealed_memtables: self.settings.max_sealed_memtables(),
            level0_runs: view
                .version
                .levels
                .first()
                .map_or(0, |level| level.runs.len()),
            soft_level0_runs: 3 * runs,
            hard_level0_runs: 6 * runs,
            debt_bytes: debt_bytes(&view.version, &self.shape()),
            soft_debt_bytes: buffer_bytes * 64,
            hard_debt_bytes: buffer_bytes * 256,
            ..Pressure::default()
        }
    }

    pub(crate) fn shape(&self) -> ShapeOptions {
        let settings = &self.settings;
        let flush_bytes = settings.write_buffer_bytes() as u64;
        ShapeOptions {
            shape: settings.compaction_shape(),
            level0_runs: settings.level0_runs(),
            tier_runs: settings.tier_runs(),
            size_ratio: settings.size_ratio(),
            base_bytes: flush_bytes * settings.level0_runs() as u64,
            target_file_bytes: settings.target_file_bytes(),
            max_levels: LAST_LEVEL + 1,
            recompress_from_level: if settings.compression() == settings.upper_compression() {
                0
            } else {
                LAST_LEVEL
            },
            max_merge_bytes: settings.target_file_bytes().saturating_mul(25),
            ..ShapeOptions::default()
        }
    }
}

/// Flushes.
impl Engine {
    /// Starts the flush job unless it runs or there is nothing to flush.
    pub(crate) fn schedule_flush(self: &Arc<Self>) {
        {
            let mut state = self.background.state.lock();
            if state.flushing || state.stopping || self.next_to_flush().is_none() {
                return;
            }
            state.flushing = true;
        }
        let engine = Arc::clone(self);
        self.executor
            .spawn(Lane::Flush, Box::new(move || engine.flush_job()));
    }

    fn next_to_flush(&self) -> Option<Arc<KeyspaceState>> {
        let keyspaces = self.keyspaces.read();
        keyspaces
            .by_id
            .values()
            .find(|state| !state.load().sealed.is_empty())
            .cloned()
    }

    fn flush_job(self: &Arc<Self>) {
        let mut result = Ok(());
        while let Some(state) = self.next_to_flush() {
            result = guarded(|| self.flush_sealed(&state));
            if result.is_err() {
                break;
            }
            self.background.notify();
            self.release_segments();
            self.schedule_compactions(Some(state.id));
        }
        let mut state = self.background.state.lock();
        state.flushing = false;
        match result {
            Ok(()) => state.flush_error = None,
            Err(error) => {
                tracing::error!(%error, "a flush failed");
                state.flush_error = Some(error);
                state.flush_failures += 1;
            }
        }
        self.background.changed.notify_all();
        drop(state);
        if self.background.state.lock().flush_error.is_none() && self.next_to_flush().is_some() {
            // Sealed between the last look and the end of the job.
            self.schedule_flush();
        }
        self.tables.remove_unread();
    }

    /// Brings the sealed memtables of a keyspace into one run of level 0 (I1).
    fn flush_sealed(self: &Arc<Self>, state: &Arc<KeyspaceState>) -> Result<()> {
        let view = state.load_full();
        let buffers = view.sealed.clone();
        let Some(newest) = buffers.first() else {
            return Ok(());
        };
        let flushed_sequence = newest.sealed_at();
        let output = self.write_level0(&buffers)?;
        let _edits_one_at_a_time = state.edit.lock();
        let (level, run) = (0, RunPlacement::New);
        let added = output
            .tables
            .iter()
            .cloned()
            .map(|meta| AddedTable {
                level,
                run: run.clone(),
                meta,
            })
            .collect();
        let edit = KeyspaceEdit {
            id: state.id,
            flushed_sequence: Some(flushed_sequence),
            added,
            ..KeyspaceEdit::default()
        };
        if !state.is_dropped() {
            self.apply(edit)?;
        }
        let flushed = |buffer: &Arc<WriteBuffer>| buffers.iter().any(|b| Arc::ptr_eq(b, buffer));
        let old = state.install(|view| {
            let sealed = view
                .sealed
                .iter()
                .filter(|b| !flushed(b))
                .cloned()
                .collect();
            let version = self.versions.current(state.id).unwrap_or_default();
            SuperVersion::new(Arc::clone(&view.active), sealed, version, &self.tables)
        });
        self.counters
            .flush_bytes_written
            .fetch_add(output.stats.bytes_written, Ordering::Relaxed);
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        drop((old, view, buffers));
        self.note_pressure(state);
        Ok(())
    }

    fn write_level0(&self, buffers: &[Arc<WriteBuffer>]) -> Result<JobOutput> {
        let sources = buffers
            .iter()
            .map(|buffer| buffer.memtable.iter())
            .collect();
        let lists: Vec<FragmentedTombstones> = buffers
            .iter()
            .filter(|buffer| buffer.memtable.has_range_tombstones())
            .map(|buffer| buffer.memtable.range_tombstones())
            .collect();
        let rules = self.retention_rules();
        let tombstones = FragmentedTombstones::merge(&lists);
        esker_compaction::flush(
            &self.jobs,
            MergingIterator::new(sources),
            tombstones,
            &rules,
        )
    }

    fn retention_rules(&self) -> RetentionRules {
        RetentionRules {
            snapshots: self.snapshots.retained(&self.visible),
            now_millis: self.clock.now_millis(),
        }
    }

    /// Logs one keyspace's edit, durably, with the sequence it may rely on.
    fn apply(&self, edit: KeyspaceEdit) -> Result<()> {
        self.versions.log_and_apply(VersionEdit {
            last_sequence: Some(self.visible_sequence()),
            keyspaces: vec![edit],
            ..VersionEdit::default()
        })
    }

    /// Frees the segments that no memtable needs. Their removal is an edit of its own: it need not
    /// be in the same as the flush's, since records that are in tables already are skipped when a
    /// log is read.
    fn release_segments(&self) {
        if !self.logs_writes() {
            return;
        }
        // The current segment first: a memtable that is pinned after this look is pinned to it or to
        // a later one.
        let current = self.segments.current().unwrap_or(u64::MAX);
        let pinned = self.all_keyspaces().into_iter().filter_map(|state| {
            let view = state.load();
            let buffers = std::iter::once(&view.active).chain(&view.sealed);
            buffers.filter_map(|buffer| buffer.first_segment()).min()
        });
        let needed = pinned.min().unwrap_or(u64::MAX).min(current);
        let unneeded = self.segments.below(needed);
        if unneeded.is_empty() {
            return;
        }
        let edit = VersionEdit {
            removed_segments: unneeded.clone(),
            ..VersionEdit::default()
        };
        match self.versions.log_and_apply(edit) {
            Ok(()) => self.segments.release(self, &unneeded),
            Err(error) => tracing::warn!(%error, "could not release log segments"),
        }
    }

    /// Flushes everything that memtables hold now and waits for it. Writers go on meanwhile.
    pub(crate) fn flush_all(self: &Arc<Self>) -> Result<()> {
        self.check_writable()?;
        let mut writer = self.commit_queue.lock();
        if self.health.has_failed() {
            return self.flush_and_cure(&mut writer);
        }
        self.secure_log(&mut writer)?;
        self.seal_all(&writer);
        let sealed_at = writer.next_sequence - 1;
        drop(writer);
        self.wait_for_flush(|| !self.holds_sealed(sealed_at))
    }

    /// Waits until no sealed memtable of a keyspace is left.
    pub(crate) fn wait_until_flushed(self: &Arc<Self>, state: &KeyspaceState) -> Result<()> {
        self.wait_for_flush(|| state.load().sealed.is_empty())
    }

    /// Whether a memtable that was sealed at or before `sequence` is not in tables.
    fn holds_sealed(&self, sequence: u64) -> bool {
        let keyspaces = self.keyspaces.read();
        keyspaces.by_id.values().any(|state| {
            state
                .load()
                .sealed
                .iter()
                .any(|buffer| buffer.sealed_at() <= sequence)
        })
    }

    /// Flushes everything with the writer lock held. Where the log had failed, all that it held is in
    /// tables then, and writes go on in a new segment.
    pub(crate) fn flush_and_cure(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        // Where this fails the log has failed, which the flush is the cure for.
        let _ = self.secure_log(writer);
        self.seal_all(writer);
        self.wait_for_flush(|| self.next_to_flush().is_none())?;
        if self.health.has_failed() {
            // Not before the manifest has let go of the failed log for certain: records of a new
            // segment would stand behind the place where the old one broke off.
            self.forget_log(&mut writer.log)?;
            self.health.cure();
        }
        Ok(())
    }

    /// Lets writes go on if the log works again; asks at most every so often, since it may mean to
    /// write out all memtables.
    #[cold]
    pub(crate) fn try_to_cure(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        let now = self.clock.monotonic_micros();
        if now < writer.next_cure_micros {
            return self.health.check();
        }
        let cured = self.flush_and_cure(writer);
        writer.next_cure_micros = self.clock.monotonic_micros() + CURE_INTERVAL_MICROS;
        cured.and_then(|()| self.health.check())
    }
}

/// Compactions.
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
            let engine = Arc::clone(self);
            let job = Box::new(move || engine.compaction_job(&keyspace, &plan));
            self.executor.spawn(Lane::Compaction, job);
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

    fn compaction_job(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>, plan: &Plan) {
        let result = guarded(|| self.carry_out(keyspace, plan));
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
        self.tables.remove_unread();
    }

    /// Carries a plan out and makes its result current (I1).
    fn carry_out(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>, plan: &Plan) -> Result<()> {
        let view = keyspace.load_full();
        let outputs = if plan.kind == PlanKind::Merge {
            let rules = self.retention_rules();
            let output = esker_compaction::run(&self.jobs, plan, &view.version, &rules)?;
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
        let edit = match &outputs {
            Some(output) => Some(plan.edit(&current, &output.tables)),
            None => plan.edit_without_job(&current),
        };
        let Some(edit) = edit else { return Ok(()) };
        if keyspace.is_dropped() {
            let written = outputs
                .iter()
                .flat_map(|output| &output.tables)
                .map(|meta| meta.number);
            self.tables.retire(written.collect::<Vec<_>>());
            return Ok(());
        }
        let kept: HashSet<_> = edit.added.iter().map(|added| added.meta.number).collect();
        let gone: Vec<_> = edit
            .removed
            .iter()
            .copied()
            .filter(|n| !kept.contains(n))
            .collect();
        self.apply(KeyspaceEdit {
            id: keyspace.id,
            ..edit
        })?;
        let old = keyspace.install(|view| {
            let version = self.versions.current(keyspace.id).unwrap_or_default();
            let (active, sealed) = (Arc::clone(&view.active), view.sealed.clone());
            SuperVersion::new(active, sealed, version, &self.tables)
        });
        self.tables.retire(gone);
        drop(old);
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.note_pressure(keyspace);
        Ok(())
    }

    fn note_pressure(&self, keyspace: &KeyspaceState) {
        let view = keyspace.load();
        let behind = pacing::admit(&self.pressure(&view), 1 << 20) != Admission::Go;
        self.background.is_behind.store(behind, Ordering::Relaxed);
    }

    /// Brings every table that overlaps `bounds` into its final form, in the calling thread. Running
    /// compactions go on beside it; what they hold is waited for.
    pub(crate) fn compact_keyspace(
        self: &Arc<Self>,
        keyspace: &Arc<KeyspaceState>,
        bounds: &KeyBounds,
    ) -> Result<()> {
        let before = self.versions.new_file_number();
        while let Some(plan) = self.next_requested(keyspace, bounds, before)? {
            let result = guarded(|| self.carry_out(keyspace, &plan));
            self.release_inputs(&mut self.background.state.lock(), keyspace.id, &plan);
            result?;
        }
        self.schedule_compactions(Some(keyspace.id));
        self.tables.remove_unread();
        Ok(())
    }

    /// The next step of a requested compaction, its inputs marked busy.
    fn next_requested(
        &self,
        keyspace: &KeyspaceState,
        bounds: &KeyBounds,
        before: FileNumber,
    ) -> Result<Option<Plan>> {
        loop {
            self.check_writable()?;
            let mut state = self.background.state.lock();
            let picked =
                self.with_pick_input(&state, keyspace, |input| pick_range(input, bounds, before));
            match picked {
                RangePick::Done => return Ok(None),
                RangePick::Busy => {
                    if !MutexGuard::unlocked(&mut state, || self.executor.assist()) {
                        // Looked at once more at the latest when the next job ends or this times
                        // out: a job may have ended while the lock was not held.
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
    fn with_pick_input<T>(
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
            shape: &self.shape(),
            busy: state.busy.get(&keyspace.id).unwrap_or(&none),
            now_millis: self.clock.now_millis(),
            oldest_snapshot: self.snapshots.summary().1.unwrap_or(MAX_SEQUENCE),
            tombstones: Some(&tombstones),
        })
    }

    /// Waits until no flush or compaction is due or running.
    pub(crate) fn wait_for_background(self: &Arc<Self>) -> Result<()> {
        self.check_open()?;
        for keyspace in self.all_keyspaces() {
            self.schedule_compactions(Some(keyspace.id));
        }
        loop {
            self.wait_for_flush(|| self.next_to_flush().is_none())?;
            if self.executor.assist() {
                continue;
            }
            let mut state = self.background.state.lock();
            if let Some(error) = &state.compaction_error {
                return Err(error.clone());
            }
            let idle = !state.flushing && state.compactions == 0 && state.candidates.is_empty();
            if idle {
                break;
            }
            let running = state.flushing || state.compactions > 0;
            if running {
                self.background.changed.wait(&mut state);
            } else {
                drop(state);
                self.schedule_compactions(None);
            }
        }
        self.tables.remove_unread();
        Ok(())
    }
}

//! Flushes: sealed memtables become runs of level 0, and the log that held them is released.
//!
//! Invariants (I1): a memtable leaves the super-version only after the tables that replace it, their
//! directory entry and the manifest edit are durable; a log segment is released only after that. A
//! flush tells waiting writers that it is done before it takes any lock of theirs. What a sealed memtable
//! holds, and all that was ordered before it, is durable in the log of several keyspaces (`secure_log`),
//! so that their flushes may follow one another; where the log has failed, `cure` flushes all together.

use crate::engine::Engine;
use crate::hooks::KeyspaceHooks;
use crate::keyspace::KeyspaceState;
use crate::super_version::{SuperVersion, WriteBuffer};
use esker_base::filename::FileNumber;
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_compaction::executor::guarded;
use esker_compaction::{JobContext, JobOutput, Lane, OwnersFilter, RetentionRules};
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement, VersionEdit};
use esker_sstable::{Making, Origin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Memtables of several keyspaces are flushed together, by one edit, as long as they are no larger than
/// this together: what edits and looks at all keyspaces cost would exceed what small flushes cost, and a
/// large memtable should not wait for others.
const GROUP_BYTES: usize = 1 << 20;
/// And no more of them than this.
const GROUP_KEYSPACES: usize = 128;

/// How many of the keyspaces that have something to flush, so many bytes each, are flushed together.
fn group_len(bytes: impl Iterator<Item = usize>) -> usize {
    let mut total = 0usize;
    let others = bytes.take(GROUP_KEYSPACES).take_while(|bytes| {
        total = total.saturating_add(*bytes);
        total <= GROUP_BYTES
    });
    others.count().max(1)
}

/// Flushes of less say little of how many bytes are flushed a second.
const MEASURED_BYTES: u64 = 1 << 20;

/// The oldest of a keyspace's sealed memtables, given and returned newest first, that are flushed together: as many
/// as are no larger together than `bytes`, the size of a full one. Writers that wait for room wait for one of
/// them, not for all.
fn oldest(mut sealed: Vec<Arc<WriteBuffer>>, bytes: usize) -> Vec<Arc<WriteBuffer>> {
    let sizes = sealed.iter().rev().map(|buffer| buffer.memtable.bytes());
    let count = oldest_len(sizes, bytes);
    sealed.drain(..sealed.len() - count);
    sealed
}

/// How many of memtables of these sizes, the oldest first.
fn oldest_len(sizes: impl Iterator<Item = usize>, bytes: usize) -> usize {
    let mut total = 0usize;
    let mut count = 0;
    for size in sizes {
        total = total.saturating_add(size);
        if count > 0 && total > bytes {
            break;
        }
        count += 1;
    }
    count
}

/// Tables that hold what memtables of a keyspace held, and that nothing names yet.
pub(crate) struct Flushed {
    pub(crate) state: Arc<KeyspaceState>,
    /// All of the keyspace up to here is in tables once these are named.
    sequence: SequenceNumber,
    buffers: Vec<Arc<WriteBuffer>>,
    jobs: JobContext,
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

    pub(crate) fn next_to_flush(&self) -> Option<Arc<KeyspaceState>> {
        let keyspaces = self.keyspaces.read();
        keyspaces
            .by_id
            .values()
            .find(|state| !state.load().sealed.is_empty())
            .cloned()
    }

    /// The keyspaces to be flushed next, in the order of their numbers; none where nothing is sealed. What was
    /// sealed first comes first: a keyspace that is written to all the time would keep others waiting.
    fn group_to_flush(&self) -> Vec<Arc<KeyspaceState>> {
        let keyspaces = self.keyspaces.read();
        let sealed = |state: &&Arc<KeyspaceState>| !state.load().sealed.is_empty();
        let mut group: Vec<_> = keyspaces.by_id.values().filter(sealed).cloned().collect();
        drop(keyspaces);
        let age = |state: &Arc<KeyspaceState>| state.load().sealed.last().map(|it| it.sealed_at());
        group.sort_by_cached_key(age);
        let bytes = |state: &Arc<KeyspaceState>| {
            let view = state.load();
            view.sealed.iter().map(|it| it.memtable.bytes()).sum()
        };
        group.truncate(group_len(group.iter().map(bytes)));
        group.sort_by_key(|state| state.id);
        group
    }

    fn flush_job(self: &Arc<Self>) {
        let mut result = Ok(());
        // On a full disk all that is sealed: what was sealed later may cover what came before, and leave less
        // to write.
        let mut all_sealed = self.has_found_no_space();
        loop {
            let group = self.group_to_flush();
            if group.is_empty() {
                break;
            }
            self.background.releasing.store(true, Ordering::Release);
            result = guarded(|| self.flush_group(&group, all_sealed));
            if result.is_ok() {
                self.background.state.lock().flush_error = None;
                self.background.notify();
                self.release_segments();
            }
            self.background.releasing.store(false, Ordering::Release);
            if let Err(error) = &result {
                let is_full = error.kind() == ErrorKind::NoSpace;
                if is_full && (!std::mem::replace(&mut all_sealed, true) || self.give_space_back())
                {
                    continue;
                }
                break;
            }
            all_sealed = false;
            self.background.notify();
            for state in &group {
                self.schedule_compactions(Some(state.id));
            }
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
        self.remove_unneeded_files();
    }

    fn has_found_no_space(&self) -> bool {
        let state = self.background.state.lock();
        let error = state.flush_error.as_ref();
        error.is_some_and(|error| error.kind() == ErrorKind::NoSpace)
    }

    /// Brings the oldest sealed memtables of keyspaces, given in the order of their numbers, or all of them, into
    /// one run of level 0 each, by one edit (I1). Where one cannot be written, those before it are flushed.
    fn flush_group(
        self: &Arc<Self>,
        states: &[Arc<KeyspaceState>],
        all_sealed: bool,
    ) -> Result<()> {
        let floor = self.floor();
        let (mut bytes, started) = (0, self.clock.monotonic_micros());
        let mut written = Vec::with_capacity(states.len());
        let mut result = Ok(());
        for state in states {
            let most_bytes = match all_sealed {
                true => usize::MAX,
                false => state.write_buffer_bytes(&self.settings),
            };
            let buffers = oldest(state.load().sealed.clone(), most_bytes);
            let Some(newest) = buffers.first() else {
                continue;
            };
            let sequence = newest.sealed_at();
            let sizes = buffers.iter().map(|buffer| buffer.memtable.bytes() as u64);
            let buffer_bytes = sizes.sum::<u64>();
            match self.write_out(state, buffers, sequence, floor) {
                Ok(flushed) => {
                    bytes += buffer_bytes;
                    written.push(flushed);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let flushed: Vec<_> = written.iter().map(|it| it.state.id).collect();
        self.name_flushed(written)?;
        if result.is_ok() {
            self.note_flush_rate(bytes, started);
        } else {
            // The job ends with the failure.
            for id in flushed {
                self.schedule_compactions(Some(id));
            }
        }
        result
    }

    /// Notes what writers keep pace with: so many bytes of memtables were flushed since `started`.
    fn note_flush_rate(&self, bytes: u64, started: u64) {
        let micros = self.clock.monotonic_micros().saturating_sub(started);
        if bytes >= MEASURED_BYTES && micros > 0 {
            let rate = bytes.saturating_mul(1_000_000) / micros;
            let known = &self.background.flush_bytes_per_second;
            known.store(rate, Ordering::Relaxed);
        }
    }

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
    fn name_flushed(&self, written: Vec<Flushed>) -> Result<()> {
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
            output,
            ..
        } = flushed;
        if !state.is_dropped() {
            self.job_is_done(&jobs);
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

    /// Frees the segments that no memtable needs. Their removal is an edit of its own: it need not
    /// be in the same as the flush's, since records that are in tables already are skipped when a
    /// log is read.
    pub(crate) fn release_segments(&self) {
        if !self.logs_writes() {
            return;
        }
        // In this order: a segment that is taken into use after the first look is not released, even
        // if it is full and left by the last one; one that was in use before has pinned its memtables.
        // (The simulation found a synced write that was released with its segment.)
        let live = self.segments.below(u64::MAX);
        let current = self.segments.current().unwrap_or(u64::MAX);
        let pinned = self.all_keyspaces().into_iter().filter_map(|state| {
            let view = state.load();
            let buffers = std::iter::once(&view.active).chain(&view.sealed);
            buffers.filter_map(|buffer| buffer.first_segment()).min()
        });
        let needed = pinned.min().unwrap_or(u64::MAX).min(current);
        let unneeded: Vec<_> = live.into_iter().filter(|&it| it < needed).collect();
        if unneeded.is_empty() {
            return;
        }
        if let Err(error) = self.archive_segments(&unneeded, SequenceNumber::MAX) {
            // They stay in the log, and are tried again with the next flush.
            tracing::warn!(%error, "could not archive log segments");
            return;
        }
        let edit = VersionEdit {
            removed_segments: unneeded.clone(),
            ..VersionEdit::default()
        };
        match self.versions.log_and_apply(edit) {
            Ok(()) => {
                self.segments.release(self, &unneeded);
                self.close_released();
            }
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

    /// As [`Engine::flush_all`], for one keyspace.
    pub(crate) fn flush_keyspace(self: &Arc<Self>, state: &Arc<KeyspaceState>) -> Result<()> {
        self.check_writable()?;
        let mut writer = self.commit_queue.lock();
        if self.health.has_failed() {
            return self.flush_and_cure(&mut writer);
        }
        self.secure_log(&mut writer)?;
        if !state.load().active.memtable.is_empty() {
            self.seal(&writer, state);
        }
        let sealed_at = writer.next_sequence - 1;
        drop(writer);
        let is_flushed = || {
            let view = state.load();
            view.sealed
                .iter()
                .all(|buffer| buffer.sealed_at() > sealed_at)
        };
        self.wait_for_flush(is_flushed)
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
}

#[cfg(test)]
mod tests;

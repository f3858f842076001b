//! Flushes: sealed memtables become runs of level 0, and the log that held them is released.
//!
//! Invariants (I1): a memtable leaves the super-version only after the tables that replace it, their
//! directory entry and the manifest edit are durable; a log segment is released only after that. A
//! flush tells waiting writers that it is done before it takes any lock of theirs. After a failed
//! log (I3), writing all memtables out is what makes a new log possible.

use crate::commit::Writer;
use crate::engine::Engine;
use crate::hooks::KeyspaceHooks;
use crate::keyspace::KeyspaceState;
use crate::super_version::{SuperVersion, WriteBuffer};
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::{ErrorKind, Result};
use esker_compaction::executor::guarded;
use esker_compaction::{JobContext, JobOutput, Lane, OwnersFilter, RetentionRules};
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement, VersionEdit};
use esker_sstable::{Making, Origin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How long a failed log is left alone before the next attempt to replace it.
const CURE_INTERVAL_MICROS: u64 = 50_000;

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

    fn flush_job(self: &Arc<Self>) {
        let mut result = Ok(());
        while let Some(state) = self.next_to_flush() {
            self.background.releasing.store(true, Ordering::Release);
            result = guarded(|| self.flush_sealed(&state));
            if result.is_ok() {
                self.background.notify();
                self.release_segments();
            }
            self.background.releasing.store(false, Ordering::Release);
            if let Err(error) = &result {
                if error.kind() == ErrorKind::NoSpace && self.give_space_back() {
                    continue;
                }
                break;
            }
            self.background.notify();
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
        self.remove_unneeded_files();
    }

    /// Brings the sealed memtables of a keyspace into one run of level 0 (I1).
    fn flush_sealed(self: &Arc<Self>, state: &Arc<KeyspaceState>) -> Result<()> {
        let view = state.load_full();
        let buffers = view.sealed.clone();
        let Some(newest) = buffers.first() else {
            return Ok(());
        };
        let flushed_sequence = newest.sealed_at();
        let origin = Origin {
            flushed: flushed_sequence,
            ..self.origin_of(state, Making::Flush, [])
        };
        let jobs = JobContext {
            origin: Some(Arc::new(origin)),
            ..self.jobs_of(state)
        };
        let output = self.write_level0(&jobs, state, &buffers)?;
        let _edits_one_at_a_time = state.edit.lock();
        let (level, run) = (0, RunPlacement::New);
        let added = output
            .tables
            .iter()
            .cloned()
            .map(|meta| AddedTable { level, run, meta })
            .collect();
        let edit = KeyspaceEdit {
            id: state.id,
            flushed_sequence: Some(flushed_sequence),
            added,
            ..KeyspaceEdit::default()
        };
        if state.is_dropped() {
            // Dropped while they were written: nothing will ever name them.
            self.tables
                .retire(output.tables.iter().map(|meta| meta.number));
        } else {
            self.apply_or_give_up(edit, &output.tables)?;
            self.job_is_done(&jobs);
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
        let KeyspaceHooks { operator, filter } = state.hooks().clone();
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

    /// Makes sure that the log takes records, replacing it where it has failed.
    pub(crate) fn ready_log(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        if self.health.has_failed() {
            self.try_to_cure(writer)
        } else {
            Ok(())
        }
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

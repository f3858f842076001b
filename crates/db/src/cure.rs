//! The cure of a failed log: all that memtables hold becomes durable in tables, by one edit that lets
//! go of the log as well, and writes go on in a new one (I3).
//!
//! Invariants: the tables of all keyspaces become part of the database together, or none does. A batch
//! over several of them would be torn otherwise by a loss of power between two edits, since no log that
//! can be trusted holds the rest of it. For the same reason nothing is sealed here, so that no flush
//! job finds it: memtables are written out where they stand, while the writer lock keeps them still. In
//! the same edit because records of a new segment would stand behind the place where the old log broke
//! off, and because what failed to be logged may be in it nevertheless. Called with the writer lock held.

use crate::commit::Writer;
use crate::engine::{Engine, closed};
use crate::flushed_tables::Flushed;
use crate::keyspace::KeyspaceState;
use esker_base::{ErrorKind, Result, SequenceNumber};
use esker_compaction::executor::guarded;
use esker_manifest::{KeyspaceEdit, VersionEdit};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How long a failed log is left alone before the next attempt to replace it.
const CURE_INTERVAL_MICROS: u64 = 50_000;

/// No flush job runs while it lives.
struct NoFlush<'a>(&'a Arc<Engine>);

impl Drop for NoFlush<'_> {
    fn drop(&mut self) {
        let background = &self.0.background;
        background.state.lock().flushing = false;
        background.changed.notify_all();
    }
}

impl Engine {
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

    /// Flushes everything with the writer lock held. Where the log had failed, writes go on in a new
    /// segment.
    pub(crate) fn flush_and_cure(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        // Where this fails the log has failed, which the flush is the cure for.
        let _ = self.secure_log(writer);
        if self.health.has_failed() {
            return self.cure(writer);
        }
        self.seal_all(writer);
        self.wait_for_flush(|| self.next_to_flush().is_none())
    }

    fn cure(self: &Arc<Self>, writer: &mut Writer) -> Result<()> {
        let started = self.clock.monotonic_micros();
        let no_flush = self.keep_flushes_out()?;
        let mut result = guarded(|| self.flush_together(writer));
        if let Err(error) = &result
            && error.kind() == ErrorKind::NoSpace
            && self.give_space_back()
        {
            result = guarded(|| self.flush_together(writer));
        }
        self.note_room(&result);
        {
            let mut state = self.background.state.lock();
            state.flush_failures += u64::from(result.is_err());
            state.flush_error = result.as_ref().err().cloned();
        }
        drop(no_flush);
        let stalled = self.clock.monotonic_micros().saturating_sub(started);
        let stalls = &self.counters.stall_micros;
        stalls.fetch_add(stalled, Ordering::Relaxed);
        for keyspace in self.all_keyspaces() {
            self.schedule_compactions(Some(keyspace.id));
        }
        self.remove_unneeded_files();
        result
    }

    /// Waits until no flush job runs, and lets none begin.
    fn keep_flushes_out(self: &Arc<Self>) -> Result<NoFlush<'_>> {
        loop {
            {
                let mut state = self.background.state.lock();
                if state.stopping {
                    return Err(closed());
                }
                if !state.flushing {
                    state.flushing = true;
                    return Ok(NoFlush(self));
                }
            }
            if self.executor.assist() {
                continue;
            }
            let mut state = self.background.state.lock();
            if state.flushing {
                self.background.changed.wait(&mut state);
            }
        }
    }

    /// Brings all that memtables hold into tables, by one edit that lets go of the log.
    fn flush_together(&self, writer: &mut Writer) -> Result<()> {
        let (sequence, held) = (self.visible_sequence(), self.held_sequence());
        let keyspaces = self.all_keyspaces();
        let floor = self.floor();
        let mut flushed = Vec::new();
        for state in &keyspaces {
            match self.write_out_all(state, held, floor) {
                Ok(written) => flushed.extend(written),
                Err(error) => {
                    self.retire_written(&flushed);
                    return Err(error);
                }
            }
        }
        self.sync_written(&flushed)?;
        // In the order of their numbers, as whoever takes several does.
        let edits_one_at_a_time: Vec<_> = keyspaces.iter().map(|it| it.edit.lock()).collect();
        let mut written = flushed.iter().peekable();
        let named = |state: &Arc<KeyspaceState>| {
            // Both are in the order of numbers.
            let its = written.next_if(|it| it.state.id == state.id);
            // Also where there was nothing to write: the log may hold a group that failed, and none of
            // it may come back where another part of it cannot.
            its.map_or_else(
                || KeyspaceEdit {
                    id: state.id,
                    flushed_sequence: Some(held),
                    ..KeyspaceEdit::default()
                },
                Flushed::edit,
            )
        };
        writer.log.abandon(self);
        let segments = self.segments.below(u64::MAX);
        if let Err(error) = self.archive_segments(&segments, sequence + 1) {
            self.retire_written(&flushed);
            return Err(error);
        }
        let edit = VersionEdit {
            keyspaces: keyspaces.iter().map(named).collect(),
            removed_segments: segments.clone(),
            last_sequence: Some(sequence),
            ..VersionEdit::default()
        };
        self.versions.note_time(self.clock.now_millis());
        if let Err(error) = self.versions.log_and_apply(edit) {
            let written = flushed.iter().flat_map(Flushed::numbers);
            self.given_up.note_tables(written);
            return Err(error);
        }
        for flushed in flushed {
            self.install_flushed(flushed, Some(self.new_buffer()));
        }
        drop(edits_one_at_a_time);
        self.let_log_go(&segments);
        self.health.cure();
        Ok(())
    }

    /// Writes out all memtables of a keyspace, the active one as well.
    fn write_out_all(
        &self,
        state: &Arc<KeyspaceState>,
        sequence: SequenceNumber,
        floor: SequenceNumber,
    ) -> Result<Option<Flushed>> {
        let view = state.load_full();
        let mut buffers = view.sealed.clone();
        if !view.active.memtable.is_empty() {
            buffers.insert(0, Arc::clone(&view.active));
        }
        if buffers.is_empty() {
            return Ok(None);
        }
        self.write_out(state, buffers, sequence, floor).map(Some)
    }
}

//! Flushes: sealed memtables become runs of level 0, and the log that held them is released.
//!
//! Invariants (I1): a log segment is released only after the memtables that need it have left the
//! super-version (`flushed_tables`). A flush tells waiting writers that it is done before it takes any lock
//! of theirs. A keyspace that cannot be flushed does not keep others from it. What a sealed memtable
//! holds, and all that was ordered before it, is durable in the log of several keyspaces (`secure_log`),
//! so that their flushes may follow one another; where the log has failed, `cure` flushes all together.

use crate::engine::Engine;
use crate::keyspace::KeyspaceState;
use crate::super_version::WriteBuffer;
use esker_base::filename::FileNumber;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_compaction::Lane;
use esker_compaction::executor::guarded;
use esker_manifest::{KeyspaceEdit, VersionEdit};
use std::collections::BTreeMap;
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

/// Keyspaces whose memtables this job cannot write, and why.
type LeftOut = BTreeMap<KeyspaceId, (Arc<KeyspaceState>, Error)>;

/// Memtables of a keyspace that could not be written.
struct Unwritten {
    state: Arc<KeyspaceState>,
    error: Error,
    /// Whether more of the keyspace were sealed than were tried.
    has_more: bool,
    /// Whether others were flushed before it.
    has_flushed: bool,
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
    fn group_to_flush(&self, left_out: &LeftOut) -> Vec<Arc<KeyspaceState>> {
        let keyspaces = self.keyspaces.read();
        let sealed = |state: &&Arc<KeyspaceState>| {
            !state.load().sealed.is_empty() && !left_out.contains_key(&state.id)
        };
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
        let mut left_out = LeftOut::new();
        let mut result = self.flush_what_is_sealed(&mut left_out);
        if result.is_ok() {
            let still_there = |state: &KeyspaceState| !state.is_dropped();
            let failed = left_out.into_values().filter(|it| still_there(&it.0));
            // Of several the one that others ask for: a full disk.
            let failed = failed.min_by_key(|(_, error)| error.kind() != ErrorKind::NoSpace);
            result = failed.map_or(Ok(()), |(_, error)| Err(error));
        }
        self.note_room(&result);
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

    /// Flushes until nothing is sealed but in keyspaces whose memtables cannot be written, which are noted: what
    /// keeps one from its tables need not keep others from theirs, and on a full disk theirs may be what gives
    /// room.
    fn flush_what_is_sealed(self: &Arc<Self>, left_out: &mut LeftOut) -> Result<()> {
        // On a full disk all that is sealed: what was sealed later may cover what came before, and leave less
        // to write.
        let mut all_sealed = self.has_found_no_space();
        loop {
            let group = self.group_to_flush(left_out);
            if group.is_empty() {
                return Ok(());
            }
            self.background.releasing.store(true, Ordering::Release);
            let result = guarded(|| self.flush_group(&group, all_sealed));
            // What is left out has failed, and is what waits for the end of the job.
            if matches!(result, Ok(None)) && left_out.is_empty() {
                self.background.state.lock().flush_error = None;
            }
            let has_flushed = match &result {
                Ok(unwritten) => unwritten.as_ref().is_none_or(|it| it.has_flushed),
                Err(_) => false,
            };
            if has_flushed {
                self.background.notify();
                self.release_segments();
            }
            self.background.releasing.store(false, Ordering::Release);
            let is_full = |error: &Error| error.kind() == ErrorKind::NoSpace;
            match result {
                Ok(None) => {
                    all_sealed = false;
                    self.background.notify();
                    for state in &group {
                        self.schedule_compactions(Some(state.id));
                    }
                }
                Ok(Some(it)) if it.has_more && is_full(&it.error) => all_sealed = true,
                Ok(Some(it)) => {
                    if !is_full(&it.error) || !self.give_space_back() {
                        left_out.insert(it.state.id, (it.state, it.error));
                    }
                }
                Err(error) if is_full(&error) && self.give_space_back() => {}
                Err(error) => return Err(error),
            }
        }
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
    ) -> Result<Option<Unwritten>> {
        let floor = self.floor();
        let (mut bytes, started) = (0, self.clock.monotonic_micros());
        let mut written = Vec::with_capacity(states.len());
        let mut unwritten = None;
        for state in states {
            let most_bytes = match all_sealed {
                true => usize::MAX,
                false => state.write_buffer_bytes(&self.settings),
            };
            let sealed = state.load().sealed.clone();
            let sealed_count = sealed.len();
            let buffers = oldest(sealed, most_bytes);
            let Some(newest) = buffers.first() else {
                continue;
            };
            let has_more = buffers.len() < sealed_count;
            let sequence = newest.sealed_at();
            let sizes = buffers.iter().map(|buffer| buffer.memtable.bytes() as u64);
            let buffer_bytes = sizes.sum::<u64>();
            match guarded(|| self.write_out(state, buffers, sequence, floor)) {
                Ok(flushed) => {
                    bytes += buffer_bytes;
                    written.push(flushed);
                }
                Err(error) => {
                    let state = Arc::clone(state);
                    unwritten = Some(Unwritten {
                        state,
                        error,
                        has_more,
                        has_flushed: !written.is_empty(),
                    });
                    break;
                }
            }
        }
        let flushed: Vec<_> = written.iter().map(|it| it.state.id).collect();
        self.name_flushed(written)?;
        if unwritten.is_none() {
            self.note_flush_rate(bytes, started);
        } else {
            for id in flushed {
                self.schedule_compactions(Some(id));
            }
        }
        Ok(unwritten)
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
            keyspaces: self.reach_of(&unneeded).into_iter().collect(),
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

    /// What keeps it known that the writes in segments happened that no memtable needs: what they held last may
    /// have been of a keyspace that was dropped, and no table of another one reach so far. Said of the keyspace that
    /// is always there, of which tables have all in them as well.
    fn reach_of(&self, unneeded: &[FileNumber]) -> Option<KeyspaceEdit> {
        let id = self.default_keyspace.id;
        let last = self.segments.last_in(unneeded).min(self.held_sequence());
        let state = self.versions.state();
        let known = state.keyspaces.get(id)?.meta.flushed_sequence;
        (known < last).then(|| KeyspaceEdit {
            id,
            flushed_sequence: Some(last),
            ..KeyspaceEdit::default()
        })
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

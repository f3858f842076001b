//! Backpressure: room in memory and log for what a commit leader is about to write.
//!
//! Invariant: memory and log stay bounded (I9). A full memtable is sealed only when fewer than the
//! allowed number wait for their flush; a log over its limit has what pins it flushed; compaction's
//! debt is paid in delays of the pure function [`pacing::admit`]. Called by the commit leader with
//! the writer lock held.

use crate::commit::{Member, Writer};
use crate::engine::Engine;
use crate::keyspace::KeyspaceState;
use crate::settings::budget::Shares;
use esker_base::{Result, SequenceNumber};
use esker_compaction::pacing::{self, Admission, Pace, Pressure};
use esker_compaction::{Lane, debt_bytes};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Delays of writers are added up until they are worth a sleep, of which few of a thousand writes have one.
const LEAST_SLEEP: Duration = Duration::from_millis(2);

/// Writers do not wait for a huge page where one takes this long: they take small pages until one takes less.
const SLOW_CHUNK: Duration = Duration::from_millis(2);

impl Engine {
    /// Seals full memtables, waits where memory is full, and pays for compaction's debt. Called by
    /// the leader with the writer lock held.
    #[inline]
    pub(crate) fn make_room(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &[Member<'_>],
    ) -> Result<()> {
        let (mut is_behind, mut short) = (false, None);
        let readers_wait = self.reader_waits.are_noted();
        let most = self.settings.max_sealed_memtables();
        for state in members.iter().flat_map(Member::keyspaces) {
            let limit = state.write_buffer_bytes(&self.settings);
            let view = state.load();
            if view.sealed.len() >= most {
                short = Some(state);
            }
            let bytes = view.active.memtable.bytes();
            if bytes >= limit {
                drop(view);
                self.seal_full(writer, state, members)?;
                // What the last memtable took was waited for: the next one has a pace of its own.
                writer.pace.take_if(|(paced, _)| Arc::ptr_eq(paced, state));
            } else {
                writer.log.note_filling(self, bytes, limit);
            }
            is_behind |= state.is_behind(readers_wait);
        }
        if let Some(short) = short {
            self.keep_pace(writer, short, members);
        } else if let Some((paced, _)) = &writer.pace
            && !self.is_short(paced)
        {
            writer.pace = None;
        }
        if readers_wait {
            self.wait_as_readers_do(&mut writer.rested_micros);
        }
        if is_behind {
            self.pay_debt(members);
        }
        let budget = self.settings.memory_budget_bytes();
        if budget > 0 && self.arenas.lent_bytes() > Shares::of(budget).memtables {
            self.shrink_memtables(writer, members, Shares::of(budget).memtables)?;
        }
        if self.logs_writes() && self.segments.bytes() > self.settings.wal_size_limit_bytes() {
            self.shrink_log(writer, members)?;
        }
        Ok(())
    }

    /// As [`Engine::make_room`], in the memory of one keyspace that `members` write to as well.
    pub(crate) fn make_room_in(
        self: &Arc<Self>,
        writer: &mut Writer,
        state: &Arc<KeyspaceState>,
        members: &[Member<'_>],
    ) -> Result<()> {
        if state.load().active.memtable.bytes() >= state.write_buffer_bytes(&self.settings) {
            self.seal_full(writer, state, members)?;
        }
        Ok(())
    }

    /// Seals a full memtable once a flush has made room for it.
    #[cold]
    fn seal_full(
        self: &Arc<Self>,
        writer: &mut Writer,
        state: &Arc<KeyspaceState>,
        members: &[Member<'_>],
    ) -> Result<()> {
        self.check_not_known_full(members)?;
        let most = self.settings.max_sealed_memtables();
        self.wait_for_flush(|| state.load().sealed.len() < most)?;
        self.secure_log(writer)?;
        self.seal(writer, state);
        self.background.hurry();
        if self
            .all_keyspaces()
            .iter()
            .all(|state| state.load().active.memtable.is_empty())
        {
            writer.log.leave_segment(self);
        }
        self.arenas.wake();
        self.schedule_flush();
        Ok(())
    }

    /// Makes the active memtable a sealed one. Writer lock held, so no record is being inserted.
    pub(crate) fn seal(&self, _writer: &Writer, state: &KeyspaceState) {
        // Not what was drawn last: a group whose logging failed is in no memtable, but perhaps in the
        // log. Were it taken for flushed in one keyspace, a recovery would find half of it (the
        // simulation did).
        self.seal_at(state, self.held_sequence());
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
    /// without an earlier one, nor half a batch. With one keyspace in use nothing is to be done, unless
    /// the log is archived: a write that a table keeps must not be missing in it.
    pub(crate) fn secure_log(&self, writer: &mut Writer) -> Result<()> {
        if !self.logs_writes() || self.health.has_failed() {
            return Ok(());
        }
        let holds_records = |state: &Arc<KeyspaceState>| {
            let view = state.load();
            view.memtables().any(|memtable| !memtable.is_empty())
        };
        let holding = self.all_keyspaces();
        if !self.archive.is_on() && holding.iter().filter(|state| holds_records(state)).count() < 2
        {
            return Ok(());
        }
        writer.log.sync(self)
    }

    /// Has the memory that the next writes will take made ready, so that none of them waits for it.
    /// Not where memory has a limit: what nobody has written to would be counted, and writes refused for it.
    #[cold]
    pub(crate) fn make_chunk_ahead(&self) {
        if self.executor.has_threads() && self.settings.memory_limit_bytes().is_none() {
            let (arenas, clock) = (Arc::clone(&self.arenas), Arc::clone(&self.clock));
            let job = move || {
                let started = clock.monotonic_micros();
                if arenas.make_chunk() {
                    let micros = clock.monotonic_micros().saturating_sub(started);
                    arenas.note_made(Duration::from_micros(micros) >= SLOW_CHUNK);
                }
            };
            self.executor.spawn(Lane::Memory, Box::new(job));
        }
    }

    /// Seals every memtable that holds something.
    pub(crate) fn seal_all(&self, writer: &Writer) {
        for state in self.all_keyspaces() {
            if !state.load().active.memtable.is_empty() {
                self.seal(writer, &state);
            }
        }
    }

    /// The memtables of all keyspaces together take more than their share of the budget: flushes the
    /// largest ones until they do not. What readers keep of flushed ones counts until they let go: where
    /// that is most of it, flushes would free next to nothing, and are left to full memtables.
    #[cold]
    fn shrink_memtables(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &[Member<'_>],
        share_bytes: usize,
    ) -> Result<()> {
        self.check_not_known_full(members)?;
        let fits = || self.arenas.lent_bytes() <= share_bytes;
        loop {
            self.wait_for_flush(|| fits() || self.next_to_flush().is_none())?;
            if fits() {
                return Ok(());
            }
            let keyspaces = self.all_keyspaces();
            let bytes = |state: &Arc<KeyspaceState>| state.load().active.memtable.bytes();
            let Some(largest) = keyspaces.iter().max_by_key(|state| bytes(state)) else {
                return Ok(());
            };
            if keyspaces.iter().map(bytes).sum::<usize>() < share_bytes / 4 {
                return Ok(());
            }
            self.secure_log(writer)?;
            self.seal(writer, largest);
        }
    }

    /// The log is over its limit: flush what pins its oldest segment.
    #[cold]
    fn shrink_log(self: &Arc<Self>, writer: &mut Writer, members: &[Member<'_>]) -> Result<()> {
        self.check_not_known_full(members)?;
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
        // A flush takes the memtables first and releases the log afterwards.
        let is_releasing = || self.background.releasing.load(Ordering::Acquire);
        self.wait_for_flush(|| {
            self.segments.bytes() <= hard_limit || !(anything_sealed() || is_releasing())
        })
    }

    /// Holds the writers back in proportion to what compaction is behind by.
    #[cold]
    fn pay_debt(&self, members: &[Member<'_>]) {
        let bytes: usize = members.iter().map(Member::encoded_bytes).sum();
        let keyspaces = members.iter().flat_map(Member::keyspaces);
        let now = self.clock.monotonic_micros();
        let readers_wait = self.reader_waits.are_recent(now);
        let behind = keyspaces.filter(|state| state.is_behind(readers_wait));
        let delays =
            behind.map(
                |state| match pacing::admit(&self.pressure(state, readers_wait), bytes) {
                    Admission::Delay(delay) => delay,
                    _ => Duration::ZERO,
                },
            );
        if let Some(delay) = delays.max().filter(|delay| !delay.is_zero()) {
            let mut owed = self.background.owed.lock();
            *owed += delay;
            if *owed >= LEAST_SLEEP {
                let pause = std::mem::take(&mut *owed);
                drop(owed);
                self.clock.sleep(pause);
                self.note_stalled(pause);
            }
        }
    }

    /// Whether no further memtable of the keyspace may be sealed.
    fn is_short(&self, state: &KeyspaceState) -> bool {
        !state.is_dropped() && state.load().sealed.len() >= self.settings.max_sealed_memtables()
    }

    /// Holds the writers of a keyspace to the pace of flushes while no further memtable of it may be sealed.
    #[cold]
    fn keep_pace(&self, writer: &mut Writer, short: &Arc<KeyspaceState>, members: &[Member<'_>]) {
        let bytes: usize = members.iter().map(Member::encoded_bytes).sum();
        let rate = self
            .background
            .flush_bytes_per_second
            .load(Ordering::Relaxed);
        let now = self.clock.monotonic_micros();
        // Groups of other keyspaces come between: what one of them began goes on.
        let kept = writer.pace.take().filter(|(state, _)| self.is_short(state));
        let begun = || (Arc::clone(short), Pace::begin(now));
        let (_, pace) = writer.pace.insert(kept.unwrap_or_else(begun));
        let pause = pace.admit(bytes, now, rate);
        if !pause.is_zero() {
            self.clock.sleep(pause);
            self.note_stalled(pause);
        }
    }

    pub(crate) fn note_stalled(&self, pause: Duration) {
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.counters
            .stall_micros
            .fetch_add(micros, Ordering::Relaxed);
    }

    fn pressure(&self, keyspace: &KeyspaceState, readers_wait: bool) -> Pressure {
        let view = keyspace.load();
        let buffer_bytes = keyspace.write_buffer_bytes(&self.settings) as u64;
        let shape = self.shape_of(keyspace);
        let [soft_level0_runs, hard_level0_runs] =
            pacing::level0_limits(shape.level0_runs, readers_wait);
        Pressure {
            sealed_memtables: view.sealed.len(),
            max_sealed_memtables: self.settings.max_sealed_memtables(),
            level0_runs: view
                .version
                .levels
                .first()
                .map_or(0, |level| level.runs.len()),
            soft_level0_runs,
            hard_level0_runs,
            debt_bytes: debt_bytes(&view.version, &shape),
            soft_debt_bytes: buffer_bytes * 64,
            hard_debt_bytes: buffer_bytes * 256,
            ..Pressure::default()
        }
    }

    pub(crate) fn note_pressure(&self, keyspace: &KeyspaceState) {
        let is_behind = |readers_wait| {
            pacing::admit(&self.pressure(keyspace, readers_wait), 1 << 20) != Admission::Go
        };
        keyspace.note_behind(is_behind(false), is_behind(true));
    }
}

#[cfg(test)]
mod tests;

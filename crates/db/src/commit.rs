//! The commit pipeline: how writes become ordered, logged, durable and visible.
//!
//! Invariants (I5): the holder of the writer lock is the leader; it gives a group of batches
//! consecutive sequence numbers, appends them to the log in one write, syncs once if any of them asks
//! for it, inserts them into the memtables, and publishes the last sequence with a release store. A
//! reader that loads the visible sequence therefore finds everything up to it inserted, and every
//! `Sync` batch up to it on stable storage. Sequence numbers of a group whose logging failed are
//! never used again: its records may or may not be in the log.
//!
//! Transactions are validated by their own threads before they come here; a leader checks only what
//! was ordered since (`validation` has the argument), in the order of its group.
//!
//! A thread that finds the writer lock free leads at once, with whoever waits. One that finds it
//! taken queues its batch, and is either done by the leader or told to lead (`writer_line`).

use crate::engine::{Engine, Mode};
use crate::index::pending::Layer;
use crate::log::Log;
use crate::log_mark::Reasons;
use crate::options::Durability;
use crate::reader_waits::note_write;
use esker_base::sync;
use esker_base::{Result, SequenceNumber, Trailer, ValueKind};
use esker_wal::SyncMode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

mod long_chains;
mod member;
mod queue;
mod settle;
mod write_batch;

pub(crate) use member::Member;
use queue::{Body, Waiter, group_of};
pub(crate) use queue::{CommitQueue, Writer};
pub(crate) use write_batch::{check_entry, write_batch};

impl Engine {
    /// Commits one batch; returns when its durability is met and it is visible.
    #[inline]
    pub(crate) fn commit(self: &Arc<Self>, mut member: Member<'_>) -> Result<()> {
        self.check_writable()?;
        note_write();
        if member.batch.count() == 0 && member.validation.is_none() {
            return self.commit_nothing(member.durability);
        }
        let queue = &self.commit_queue;
        if let Some(mut writer) = queue.try_lock()
            && queue.line.waiting_count() == 0
        {
            self.commit_group(&mut writer, std::slice::from_mut(&mut member));
            drop(writer);
            return member.outcome;
        }
        self.commit_queued(member)
    }

    /// Where a write of nothing asks for `Sync`, what was written before it is on stable storage when it
    /// returns, as it is behind any other.
    #[cold]
    fn commit_nothing(self: &Arc<Self>, durability: Durability) -> Result<()> {
        if durability < Durability::Sync || !self.logs_writes() {
            return Ok(());
        }
        let mut writer = self.commit_queue.lock();
        self.ready_log(&mut writer)?;
        writer.log.sync(self)
    }

    #[cold]
    fn commit_queued(self: &Arc<Self>, member: Member<'_>) -> Result<()> {
        let line = &self.commit_queue.line;
        let body = Body {
            batch: std::mem::take(member.batch),
            keyspaces: member.keyspaces.to_vec(),
            durability: member.durability,
            validation: member.validation.cloned(),
            outcome: Ok(()),
        };
        let waiter = line.wait(body, |writer| self.lead(writer, &line.take(group_of)));
        // Of whoever has led, this thread or another: behind the fence of the lock.
        self.commit_queue.watchers.wake();
        let mut body = waiter.body.lock();
        *member.batch = std::mem::take(&mut body.batch);
        body.outcome.clone()
    }

    /// Commits a group of queued batches and wakes their threads.
    fn lead(self: &Arc<Self>, writer: &mut Writer, group: &[Arc<Waiter>]) {
        let mut bodies: Vec<_> = group.iter().map(|waiter| waiter.body.lock()).collect();
        let mut members: Vec<Member<'_>> = bodies
            .iter_mut()
            .map(|body| {
                let body = &mut **body;
                Member::new(
                    &mut body.batch,
                    &body.keyspaces,
                    body.durability,
                    body.validation.as_ref(),
                )
            })
            .collect();
        self.commit_group(writer, &mut members);
        let outcomes: Vec<_> = members.into_iter().map(|member| member.outcome).collect();
        for (body, outcome) in bodies.iter_mut().zip(outcomes) {
            body.outcome = outcome;
        }
        drop(bodies);
        for waiter in group {
            waiter.finish();
        }
    }

    /// Commits one batch for a caller that holds the writer lock.
    pub(crate) fn commit_now(
        self: &Arc<Self>,
        writer: &mut Writer,
        mut member: Member<'_>,
    ) -> Result<()> {
        self.commit_group(writer, std::slice::from_mut(&mut member));
        member.outcome
    }

    /// Orders, logs, inserts and publishes a group. Each member's outcome says how it went for it.
    fn commit_group(self: &Arc<Self>, writer: &mut Writer, members: &mut [Member<'_>]) {
        if let Err(error) = self.try_commit_group(writer, members) {
            for member in members.iter_mut().filter(|member| member.outcome.is_ok()) {
                member.outcome = Err(error.clone());
            }
        }
        // Who tries the batch again has it derived again.
        let refused = members.iter_mut().filter(|member| member.outcome.is_err());
        refused.for_each(Member::forget_index_changes);
    }

    fn try_commit_group(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &mut [Member<'_>],
    ) -> Result<()> {
        self.check_writable()?;
        if self.health.has_failed() {
            self.try_to_cure(writer)?;
        }
        let mut is_full = false;
        if let Err(error) = self.make_room(writer, members) {
            is_full = self.refuse_all_but_deletes(members, &error);
            if !is_full {
                return Err(error);
            }
        }
        if self.mode == Mode::Memory {
            self.enforce_memory_limit(writer, members)?;
        }
        let validates = self.commit_queue.validating.load(Ordering::Relaxed) > 0;
        let needs_settling = |member: &Member<'_>| {
            member.is_indexed() || member.batch.may_hold(ValueKind::MergeOperand)
        };
        if validates || members.iter().any(needs_settling) {
            self.settle_group(writer, members, is_full)?;
        }
        let logged = self.order_and_log(writer, members);
        if let Err(error) = &logged {
            self.note_log_room(error);
        }
        let (sequence, payload_bytes) = match logged {
            // Where the log itself is well, there was no room for another segment of it.
            Err(error) if !self.health.has_failed() && members.len() > 1 => {
                is_full = self.refuse_all_but_deletes(members, &error);
                if !is_full {
                    return Err(error);
                }
                if members.iter().any(Member::is_indexed) {
                    // What is left was derived from writes that are refused now.
                    members.iter_mut().for_each(Member::forget_index_changes);
                    self.make_room_for_entries(writer, members, is_full)?;
                    let mut before = Layer::default();
                    for member in members.iter_mut() {
                        self.maintain_indexes(&mut before, member);
                    }
                }
                self.order_and_log(writer, members)?
            }
            logged => logged?,
        };
        for member in members.iter().filter(|member| member.outcome.is_ok()) {
            insert(writer.next_sequence, member, writer.log.current_number())?;
            writer.next_sequence += u64::from(member.batch.count());
        }
        debug_assert_eq!(writer.next_sequence, sequence);
        sync::point();
        self.visible.publish(sequence - 1);
        self.counters
            .user_bytes_written
            .fetch_add(payload_bytes as u64, Ordering::Relaxed);
        if writer.log.wants_tending() {
            writer.log.tend(self, sequence);
        }
        if self.arenas.wants_chunk() {
            self.make_chunk_ahead();
        }
        if is_full || writer.log.is_for_deletes() {
            self.relieve(writer, members);
        }
        Ok(())
    }

    /// Gives the group its sequence numbers and logs it; the number after its last and the bytes.
    #[inline]
    fn order_and_log(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &mut [Member<'_>],
    ) -> Result<(SequenceNumber, usize)> {
        let mut sequence = writer.next_sequence;
        let mut payload_bytes = 0;
        for member in members.iter_mut().filter(|member| member.outcome.is_ok()) {
            payload_bytes += member.batch.seal(sequence).len();
            sequence += u64::from(member.batch.count());
        }
        let unsaid = self.unsaid(writer);
        if let Err(error) = self.log_group(writer, members) {
            writer.log.note_failed(writer.next_sequence);
            // A mark that stands before the group has failed with it.
            if let Some((from, reasons)) = unsaid {
                writer.log.note_failed(from);
                writer.log.note_unlogged(reasons);
            }
            writer.next_sequence = sequence;
            return Err(error);
        }
        Ok((sequence, payload_bytes))
    }

    /// What the next mark is to say of numbers that do not stand in the log.
    #[inline]
    fn unsaid(&self, writer: &Writer) -> Option<(SequenceNumber, Reasons)> {
        let has_marks = self.archive.is_on();
        writer.log.marker.unsaid(has_marks, writer.next_sequence)
    }

    /// Tells the log of members of the group that begins at `first` that take sequence numbers past it.
    fn note_unlogged(&self, log: &mut Log, members: &[Member<'_>], first: SequenceNumber) {
        let mut going = members.iter().filter(|member| member.outcome.is_ok());
        if !going.any(|it| it.durability == Durability::Volatile && it.batch.count() > 0) {
            return;
        }
        if let Err(error) = log.write_void(self, first) {
            // They need no log.
            tracing::warn!(%error, "the log does not say which writes before never happened");
        }
        log.note_unlogged(Reasons::VOLATILE);
    }

    /// Appends the group to the log, and syncs if a member asks for it.
    fn log_group(self: &Arc<Self>, writer: &mut Writer, members: &[Member<'_>]) -> Result<()> {
        if !self.logs_writes() {
            return Ok(());
        }
        let logged = |member: &&Member<'_>| {
            member.outcome.is_ok()
                && member.durability > Durability::Volatile
                && member.batch.count() > 0
        };
        let sync = members
            .iter()
            .filter(logged)
            .any(|m| m.durability == Durability::Sync);
        let mode = if sync {
            SyncMode::Sync
        } else {
            SyncMode::Buffered
        };
        let first = writer.next_sequence;
        let only_deletes = || members.iter().filter(logged).all(Member::has_only_deletes);
        match members {
            [only] if logged(&only) => {
                writer
                    .log
                    .append(self, &[only.batch.bytes()], first, mode, only_deletes)?;
            }
            [only] => {
                self.note_unlogged(&mut writer.log, std::slice::from_ref(only), first);
                return Ok(());
            }
            _ => {
                self.note_unlogged(&mut writer.log, members, first);
                let payloads: Vec<_> = members
                    .iter()
                    .filter(logged)
                    .map(|m| m.batch.bytes())
                    .collect();
                let log = &mut writer.log;
                log.append(self, &payloads, first, mode, only_deletes)?;
                // Once more for those behind the last that is logged.
                self.note_unlogged(log, members, first);
            }
        }
        if sync { writer.log.sync(self) } else { Ok(()) }
    }
}

/// Inserts a member's records, which begin at `sequence`, into their memtables.
fn insert(mut sequence: SequenceNumber, member: &Member<'_>, segment: Option<u64>) -> Result<()> {
    let logged = member.durability > Durability::Volatile;
    let mut target = None;
    for record in member.batch.records() {
        sync::point();
        let record = record?;
        let known = target
            .as_ref()
            .is_some_and(|(id, _)| *id == record.keyspace);
        if !known {
            let view = member.keyspace(record.keyspace)?.load();
            if let (true, Some(segment)) = (logged, segment) {
                view.active.pin_segment(segment);
            }
            target = Some((record.keyspace, view));
        }
        if let Some((_, view)) = &target {
            let memtable = &view.active.memtable;
            if record.kind == ValueKind::RangeDelete {
                memtable.add_range_tombstone(record.key, record.value, sequence);
            } else {
                if record.kind == ValueKind::ValueWithExpiry {
                    view.active.note_expiring();
                }
                memtable.insert(
                    record.key,
                    Trailer::new(sequence, record.kind),
                    record.value,
                );
            }
        }
        sequence += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

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

use crate::batch::WriteBatch;
use crate::engine::{Engine, Mode};
use crate::index::maintain::IndexChanges;
use crate::index::pending::Layer;
use crate::keyspace::{KeyspaceState, dropped};
use crate::log_mark::Reasons;
use crate::options::Durability;
use crate::recent_writes::RecentWrites;
use crate::segments::Log;
use crate::settings::LiveSettings;
use crate::settings::budget::Shares;
use crate::ttl;
use crate::validation::Validation;
use crate::watchers::Watchers;
use crate::writer_line::{self, WriterLine};
use esker_base::sync;
use esker_base::write_batch::{BatchEncoder, KeyspaceId};
use esker_base::{Error, ErrorKind, Result, SequenceNumber, Trailer, ValueKind};
use esker_wal::SyncMode;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

mod long_chains;
mod settle;

/// Bytes after which a leader takes no further batch into its group.
const GROUP_BYTES: usize = 1 << 20;

/// One batch on its way.
pub(crate) struct Member<'a> {
    batch: &'a mut BatchEncoder,
    keyspaces: &'a [Arc<KeyspaceState>],
    durability: Durability,
    /// Hidden keyspaces of indexes that the batch changes as well.
    index_keyspaces: Vec<Arc<KeyspaceState>>,
    /// The batch before these changes were appended: how many records, how many bytes.
    own_records: Option<(u32, usize)>,
    /// What must not have changed since it was read, for a transaction.
    validation: Option<&'a Arc<Validation>>,
    outcome: Result<()>,
}

impl<'a> Member<'a> {
    pub(crate) fn new(
        batch: &'a mut BatchEncoder,
        keyspaces: &'a [Arc<KeyspaceState>],
        durability: Durability,
        validation: Option<&'a Arc<Validation>>,
    ) -> Self {
        Self {
            batch,
            keyspaces,
            durability,
            index_keyspaces: Vec::new(),
            own_records: None,
            validation,
            outcome: Ok(()),
        }
    }

    /// Whether it writes to a keyspace with indexes.
    #[inline]
    pub(crate) fn is_indexed(&self) -> bool {
        self.keyspaces.iter().any(|state| state.indexes.any())
    }

    pub(crate) fn batch(&self) -> &BatchEncoder {
        self.batch
    }

    /// Takes back what was appended to the batch.
    pub(crate) fn forget_index_changes(&mut self) {
        if let Some((count, encoded_bytes)) = self.own_records.take() {
            self.batch.truncate(count, encoded_bytes);
        }
    }

    /// Appends what the batch changes in indexes. It is logged from then on.
    pub(crate) fn add_index_changes(&mut self, changes: IndexChanges) {
        self.own_records = Some((self.batch.count(), self.batch.encoded_bytes()));
        self.batch.extend(&changes.records);
        self.index_keyspaces = changes.keyspaces;
        self.durability = self.durability.max(Durability::Buffered);
    }

    pub(crate) fn keyspaces(&self) -> &'a [Arc<KeyspaceState>] {
        self.keyspaces
    }

    pub(crate) fn encoded_bytes(&self) -> usize {
        self.batch.encoded_bytes()
    }

    /// Whether it takes away and adds nothing.
    pub(crate) fn has_only_deletes(&self) -> bool {
        let deletes = |kind| matches!(kind, ValueKind::Tombstone | ValueKind::RangeDelete);
        let mut records = self.batch.records();
        records.all(|record| record.is_ok_and(|record| deletes(record.kind)))
    }

    pub(crate) fn refuse(&mut self, error: &Error) {
        self.outcome = Err(error.clone());
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.outcome.is_err()
    }

    /// Commits other records in place of the batch's, as many and for the same keys.
    pub(crate) fn replace_batch(&mut self, batch: BatchEncoder) {
        debug_assert_eq!(batch.count(), self.batch.count());
        *self.batch = batch;
    }

    /// The keyspace of one of its records.
    pub(crate) fn keyspace(&self, id: KeyspaceId) -> Result<&Arc<KeyspaceState>> {
        let mut named = self.keyspaces.iter().chain(&self.index_keyspaces);
        let state = named.find(|state| state.id == id);
        state.ok_or_else(|| Error::invalid_argument("an unnamed keyspace"))
    }
}

/// A batch whose thread found the writer lock taken.
pub(crate) struct Body {
    batch: BatchEncoder,
    keyspaces: Vec<Arc<KeyspaceState>>,
    durability: Durability,
    validation: Option<Arc<Validation>>,
    outcome: Result<()>,
}

/// What only the leader touches.
pub(crate) struct Writer {
    pub(crate) next_sequence: SequenceNumber,
    pub(crate) log: Log,
    /// What was ordered lately, for the transactions that are validated.
    pub(crate) recent: RecentWrites,
    /// When a failed log may be looked at again, on the monotonic clock.
    pub(crate) next_cure_micros: u64,
    /// When deletes on a full disk may have a flush tried again, on the monotonic clock.
    pub(crate) next_relief_micros: u64,
}

type Waiter = writer_line::Waiter<Body>;
/// The held writer lock. Whoever watches for a write looks again once it was given up.
pub(crate) struct WriterGuard<'a> {
    // Fields are dropped in their order: first the lock, with a fence behind it.
    line: writer_line::WriterGuard<'a, Writer, Body>,
    _wake: WakeWatchers<'a>,
}

struct WakeWatchers<'a>(&'a Watchers);

impl Drop for WakeWatchers<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Deref for WriterGuard<'_> {
    type Target = Writer;

    #[inline]
    fn deref(&self) -> &Writer {
        &self.line
    }
}

impl DerefMut for WriterGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.line
    }
}

/// The writer lock and the batches that wait for it.
pub(crate) struct CommitQueue {
    line: WriterLine<Writer, Body>,
    /// Who waits for the next write: feeds of changes.
    pub(crate) watchers: Watchers,
    /// Transactions between their own search and their place in the order.
    pub(crate) validating: AtomicUsize,
}

impl CommitQueue {
    pub(crate) fn new(next_sequence: SequenceNumber, log: Log) -> Self {
        let writer = Writer {
            next_sequence,
            log,
            recent: RecentWrites::default(),
            next_cure_micros: 0,
            next_relief_micros: 0,
        };
        Self {
            line: WriterLine::new(writer),
            watchers: Watchers::default(),
            validating: AtomicUsize::new(0),
        }
    }

    /// Waits for the writer lock: for flushes, log control and whatever else keeps writers out.
    pub(crate) fn lock(&self) -> WriterGuard<'_> {
        WriterGuard {
            line: self.line.lock(),
            _wake: WakeWatchers(&self.watchers),
        }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<WriterGuard<'_>> {
        Some(WriterGuard {
            line: self.line.try_lock()?,
            _wake: WakeWatchers(&self.watchers),
        })
    }

    /// Whether nobody holds the writer lock now.
    pub(crate) fn is_free(&self) -> bool {
        self.try_lock().is_some()
    }
}

/// How many of those who wait make the next group.
fn group_of(waiting: &VecDeque<Arc<Waiter>>) -> usize {
    let (mut bytes, mut count) = (0, 0);
    for waiter in waiting {
        let body = waiter.body.lock();
        bytes += body.batch.encoded_bytes();
        if count > 0 && bytes > GROUP_BYTES {
            break;
        }
        count += 1;
        // What it changes in indexes is known only if it is not refused: nobody may build on it.
        if body.validation.is_some() && body.keyspaces.iter().any(|state| state.indexes.any()) {
            break;
        }
    }
    count
}

impl Engine {
    /// Commits one batch; returns when its durability is met and it is visible.
    #[inline]
    pub(crate) fn commit(self: &Arc<Self>, mut member: Member<'_>) -> Result<()> {
        self.check_writable()?;
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
        if let Err(error) = self.log_group(writer, members) {
            writer.log.note_failed(writer.next_sequence);
            writer.next_sequence = sequence;
            return Err(error);
        }
        Ok((sequence, payload_bytes))
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
                note_unlogged(&mut writer.log, std::slice::from_ref(only));
                return Ok(());
            }
            _ => {
                note_unlogged(&mut writer.log, members);
                let payloads: Vec<_> = members
                    .iter()
                    .filter(logged)
                    .map(|m| m.batch.bytes())
                    .collect();
                let log = &mut writer.log;
                log.append(self, &payloads, first, mode, only_deletes)?;
                // Once more for those behind the last that is logged.
                note_unlogged(log, members);
            }
        }
        if sync { writer.log.sync(self) } else { Ok(()) }
    }
}

/// Tells the log of members that take sequence numbers past it.
fn note_unlogged(log: &mut Log, members: &[Member<'_>]) {
    let mut going = members.iter().filter(|member| member.outcome.is_ok());
    if going.any(|member| member.durability == Durability::Volatile && member.batch.count() > 0) {
        log.note_unlogged(Reasons::VOLATILE);
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

/// Checks the bounds of one entry.
#[inline]
pub(crate) fn check_entry(settings: &LiveSettings, key: &[u8], value: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > settings.max_key_bytes() {
        return Err(refused_key(settings, key.len()));
    }
    if value.len() > settings.max_value_bytes() {
        return Err(refused_value(settings, value.len()));
    }
    Ok(())
}

/// Whether the budget, where there is one, has room for a batch.
fn check_budget(settings: &LiveSettings, batch: &WriteBatch) -> Result<()> {
    let budget = settings.memory_budget_bytes();
    if budget == 0 || batch.size_bytes() <= Shares::of(budget).batch {
        return Ok(());
    }
    let (bytes, most) = (batch.size_bytes(), Shares::of(budget).batch);
    let sentence = format!(
        "a batch of {bytes} bytes is larger than memory_budget_bytes allows, {most}: write it in parts, or \
         raise the budget"
    );
    Err(Error::new(ErrorKind::LimitExceeded, sentence))
}

#[cold]
fn refused_key(settings: &LiveSettings, bytes: usize) -> Error {
    let most = settings.max_key_bytes();
    Error::invalid_argument(format!(
        "a key must have 1 to {most} bytes; this one has {bytes}"
    ))
}

#[cold]
fn refused_value(settings: &LiveSettings, bytes: usize) -> Error {
    let most = settings.max_value_bytes();
    Error::invalid_argument(format!(
        "a value must have at most {most} bytes, not {bytes}"
    ))
}

/// Checks a batch against the database it is written to and commits it.
pub(crate) fn write_batch(
    engine: &Arc<Engine>,
    mut batch: WriteBatch,
    durability: Durability,
    validation: Option<&Arc<Validation>>,
) -> Result<()> {
    batch.check()?;
    batch.check_size()?;
    check_budget(&engine.settings, &batch)?;
    let mut keyspaces = vec![Arc::clone(&engine.default_keyspace)];
    for keyspace in &batch.keyspaces {
        if !Arc::ptr_eq(keyspace.engine(), engine) {
            let sentence = "the batch names a keyspace of another database";
            return Err(Error::invalid_argument(sentence));
        }
        if keyspace.state().is_dropped() {
            return Err(dropped(keyspace.name()));
        }
        if keyspace.id() != 0 {
            keyspaces.push(Arc::clone(keyspace.state()));
        }
    }
    let mut durability = durability;
    let mut first = None;
    for record in batch.encoder.records() {
        let record = record?;
        if *first.get_or_insert(record.keyspace) != record.keyspace {
            // What keeps it whole is the log: its keyspaces are flushed one after the other.
            durability = durability.max(Durability::Buffered);
        }
        match record.kind {
            ValueKind::RangeDelete => check_range(&engine.settings, record.key, record.value)?,
            ValueKind::ValueWithExpiry => {
                check_entry(&engine.settings, record.key, &record.value[8..])?;
            }
            ValueKind::MergeOperand => {
                check_entry(&engine.settings, record.key, record.value)?;
                let state = keyspaces.iter().find(|state| state.id == record.keyspace);
                if let Some(state) = state {
                    engine.note_operator(state)?;
                }
            }
            _ => check_entry(&engine.settings, record.key, record.value)?,
        }
    }
    ttl::settle(engine, &mut batch, &keyspaces)?;
    let mut commit = || {
        let encoder = &mut batch.encoder;
        engine.commit(Member::new(encoder, &keyspaces, durability, validation))
    };
    match validation {
        Some(validation) => validation.run(engine, commit),
        None => commit(),
    }
}

/// Bounds of a range delete are keys or their immediate successors.
fn check_range(settings: &LiveSettings, start: &[u8], end: &[u8]) -> Result<()> {
    let longest = start.len().max(end.len());
    if longest > settings.max_key_bytes() + 1 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("a bound of a range has {longest} bytes, more than any key"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! The writer lock, what it guards, and the batches that wait for it.
//!
//! Invariant: whoever watches for writes is woken after the lock was given up, behind its fence, so that
//! none is missed. Used by the commit leader, and by flushes and log control that keep writers out.

use crate::keyspace::KeyspaceState;
use crate::log::Log;
use crate::options::Durability;
use crate::recent_writes::RecentWrites;
use crate::validation::Validation;
use crate::watchers::Watchers;
use crate::writer_line::{self, WriterLine};
use esker_base::write_batch::BatchEncoder;
use esker_base::{Result, SequenceNumber};
use esker_compaction::pacing::Pace;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Bytes after which a leader takes no further batch into its group.
const GROUP_BYTES: usize = 1 << 20;

/// A batch whose thread found the writer lock taken.
pub(super) struct Body {
    pub(super) batch: BatchEncoder,
    pub(super) keyspaces: Vec<Arc<KeyspaceState>>,
    pub(super) durability: Durability,
    pub(super) validation: Option<Arc<Validation>>,
    pub(super) outcome: Result<()>,
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
    /// Of the writers of a keyspace of which as many memtables are sealed as may be, or were at the last look.
    pub(crate) pace: Option<(Arc<KeyspaceState>, Pace)>,
    /// When the last pause for readers ended, on the monotonic clock.
    pub(crate) rested_micros: u64,
}

/// A thread that waits with its batch.
pub(super) type Waiter = writer_line::Waiter<Body>;

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
    pub(super) line: WriterLine<Writer, Body>,
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
            pace: None,
            rested_micros: 0,
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
pub(super) fn group_of(waiting: &VecDeque<Arc<Waiter>>) -> usize {
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

//! What is left of cursors that were dropped, for the next ones.
//!
//! A short scan takes less time than it takes to make a cursor for it: to count a reader of each thing that is
//! looked at in and out again, locked instructions all of them, and to take memory from the allocator and give it
//! back. So a thread leaves here what its last cursor was made of.
//!
//! Invariants: what is kept is over a state that nothing has taken the place of: whoever replaces a state marks
//! it first and then empties every lane of it, while whoever keeps something looks for the mark with the lane
//! locked. So a replaced state's memtables and files live no longer than without this, and at most [`LANES`]
//! cursors are kept for a database. Nothing is kept that counts against a bound on memory. A lane is locked for a
//! few instructions; a reader that finds it locked goes without. Called by `cursor` through `keyspace::state`.

use super::body::Body;
use esker_base::SequenceNumber;
use esker_base::own_lines::OwnLines;
use esker_base::write_batch::KeyspaceId;
use parking_lot::Mutex;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// How many cursors are kept. Threads take turns in taking a place.
const LANES: usize = 8;

#[derive(Default)]
struct Lane {
    kept: Option<(KeyspaceId, Box<Body>)>,
    is_closed: bool,
}

/// The dropped cursors of a database.
pub(crate) struct IdleCursors {
    /// Tells it from those of other databases.
    number: u64,
    /// The lane of the next thread that has none here: one after the other, so that a simulated run, whose threads
    /// come in the same order, repeats itself.
    next_lane: AtomicUsize,
    lanes: [OwnLines<Mutex<Lane>>; LANES],
}

thread_local! {
    /// The database that this thread has last made or dropped a cursor of, and its lane there.
    static LANE: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

impl Default for IdleCursors {
    fn default() -> Self {
        // From 1 on: 0 is no database's.
        static MADE: AtomicU64 = AtomicU64::new(1);
        Self {
            number: MADE.fetch_add(1, Relaxed),
            next_lane: AtomicUsize::new(0),
            lanes: Default::default(),
        }
    }
}

impl IdleCursors {
    /// What this thread has kept of a cursor over the keyspace, if its state is the one for a reader at `sequence`,
    /// or for one that reads what is newest.
    #[inline]
    pub(crate) fn take(
        &self,
        keyspace: KeyspaceId,
        sequence: Option<SequenceNumber>,
    ) -> Option<Box<Body>> {
        let mut lane = self.lane().try_lock()?;
        let (of, cursor) = lane.kept.as_ref()?;
        let view = cursor.view.super_version();
        if *of != keyspace || view.is_replaced() || sequence.is_some_and(|at| at < view.since) {
            return None;
        }
        lane.kept.take().map(|(_, cursor)| cursor)
    }

    /// Keeps a cursor over the keyspace, unless `is_gone` says that the keyspace was dropped.
    #[inline]
    pub(crate) fn keep(
        &self,
        keyspace: KeyspaceId,
        cursor: Box<Body>,
        is_gone: impl FnOnce() -> bool,
    ) {
        let Some(mut lane) = self.lane().try_lock() else {
            return;
        };
        if lane.is_closed || cursor.view.super_version().is_replaced() || is_gone() {
            return;
        }
        let before = lane.kept.replace((keyspace, cursor));
        drop(lane);
        drop(before);
    }

    /// Lets go of every cursor over a state that is marked as replaced.
    pub(crate) fn forget_replaced(&self) {
        self.empty(|lane| {
            let kept = lane.kept.as_ref();
            kept.is_some_and(|(_, cursor)| cursor.view.super_version().is_replaced())
        });
    }

    /// Lets go of all, and keeps nothing from here on.
    pub(crate) fn close(&self) {
        self.empty(|lane| {
            lane.is_closed = true;
            true
        });
    }

    /// Lets go of what is to go.
    fn empty(&self, mut is_to_go: impl FnMut(&mut Lane) -> bool) {
        for lane in &self.lanes {
            let mut lane = lane.lock();
            let gone = is_to_go(&mut lane).then(|| lane.kept.take());
            // What goes with it takes other locks.
            drop(lane);
            drop(gone);
        }
    }

    /// The lane of this thread.
    #[inline]
    fn lane(&self) -> &Mutex<Lane> {
        let (number, lane) = LANE.get();
        let lane = match number == self.number {
            true => lane,
            false => self.next_lane(),
        };
        &self.lanes[lane % LANES]
    }

    #[cold]
    fn next_lane(&self) -> usize {
        let lane = self.next_lane.fetch_add(1, Relaxed);
        LANE.set((self.number, lane));
        lane
    }
}

impl fmt::Debug for IdleCursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleCursors").finish_non_exhaustive()
    }
}

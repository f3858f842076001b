//! The validation of a transaction: is what it has read still true at the moment it is ordered?
//!
//! Invariant: a transaction is ordered at sequence `n` only if no record of a key or range that it
//! has read was ordered after the snapshot it was read at and before `n`.
//!
//! Searching memtables and tables for every key read is the expensive part, and is done by the
//! transaction's own thread, outside of every lock, so that transactions which do not conflict
//! validate side by side:
//!
//! 1. The thread loads the visible sequence `v`, then the super-versions, and searches them for
//!    records newer than the snapshot. Everything up to `v` was inserted before `v` was published
//!    (I5), so what the search does not find was not written up to `v`. It may find records newer
//!    than `v`: those are conflicts all the same. Where `v` is the snapshot's own sequence, nothing has
//!    been written since, and nothing is searched.
//! 2. The commit leader, under the writer lock and in the order of its group, checks only what was
//!    ordered after `v`: the window of recent writes (`recent_writes`). Leaders record into it what
//!    each member of a group writes *before* they judge the next member, so that earlier members of
//!    the same group count as they must: they are ordered before, though not inserted yet.
//! 3. Leaders record only while some transaction is in step 1 or 2 (`CommitQueue::validating`), so
//!    that plain writes by themselves pay one relaxed load. Nothing depends on when that counter is
//!    seen: a leader that does not record leaves a gap in the sequence numbers that the window
//!    covers, and a transaction whose `v` lies before the gap, or before what the bounded window
//!    still holds, is not judged but sent back to step 1, with a later `v`. It then searches only
//!    for what is newer than its previous `v`.
//! 4. After [`ROUNDS`] of that, the leader does the whole search under the lock, earlier members of
//!    the group included: a transaction with a huge read set beside fast writers commits or fails.
//!
//! A record may have been dropped by a compaction before it is searched for. That is no conflict
//! missed: the snapshots of the read sets stay listed until the commit, so that a value which was
//! read keeps everything that hides it later; what else is dropped was written and deleted again,
//! and the key reads as it did.
//!
//! Callers: `transaction` begins it, `commit` judges.

use crate::commit::CommitQueue;
use crate::engine::Engine;
use crate::read_set::ReadSet;
use crate::recent_writes::{RecentWrite, RecentWrites};
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How often a transaction searches outside the lock before the leader does it for good.
const ROUNDS: usize = 4;

/// A transaction's reads on their way through the commit.
#[derive(Debug)]
pub(crate) struct Validation {
    reads: Vec<ReadSet>,
    /// Up to here nothing that was read has changed; 0 before the first search.
    checked: AtomicU64,
    /// Whether the leader has to decide, whatever it takes.
    is_last: AtomicBool,
    /// Set by a leader that could not judge.
    overrun: AtomicBool,
}

impl Validation {
    pub(crate) fn new(reads: Vec<ReadSet>) -> Arc<Self> {
        Arc::new(Self {
            reads,
            checked: AtomicU64::new(0),
            is_last: AtomicBool::new(false),
            overrun: AtomicBool::new(false),
        })
    }

    /// Fails if anything that was read has changed up to this moment.
    pub(crate) fn check_now(&self, engine: &Engine) -> Result<()> {
        let until = engine.visible_sequence();
        self.search(until)?;
        self.checked.store(until, Ordering::Relaxed);
        Ok(())
    }

    /// Commits by `commit`, which a leader judges, after the search that can be done before.
    pub(crate) fn run(
        &self,
        engine: &Engine,
        mut commit: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let _announced = Announced::new(&engine.commit_queue);
        for round in 1.. {
            self.check_now(engine)?;
            self.is_last.store(round >= ROUNDS, Ordering::Relaxed);
            let outcome = commit();
            if !self.overrun.swap(false, Ordering::Relaxed) {
                return outcome;
            }
        }
        Err(overrun())
    }

    /// Decides whether the transaction may be ordered right after `last`. Called by the leader under
    /// the writer lock; `pending` is what earlier members of the group write, not inserted yet.
    pub(crate) fn judge<'a>(
        &self,
        recent: &RecentWrites,
        last: SequenceNumber,
        pending: impl Iterator<Item = RecentWrite<'a>>,
    ) -> Result<()> {
        self.reads.iter().try_for_each(ReadSet::check_keyspaces)?;
        let checked = self.checked.load(Ordering::Relaxed);
        if recent.covers(checked, last) {
            return self.check_writes(recent.after(checked));
        }
        if self.is_last.load(Ordering::Relaxed) {
            self.search(last)?;
            return self.check_writes(pending);
        }
        self.overrun.store(true, Ordering::Relaxed);
        Err(overrun())
    }

    fn search(&self, until: SequenceNumber) -> Result<()> {
        let checked = self.checked.load(Ordering::Relaxed);
        let mut reads = self.reads.iter();
        reads.try_for_each(|reads| reads.check(checked, until))
    }

    fn check_writes<'a>(&self, writes: impl Iterator<Item = RecentWrite<'a>>) -> Result<()> {
        for write in writes {
            for reads in &self.reads {
                reads.check_write(&write)?;
            }
        }
        Ok(())
    }
}

/// The outcome of a member that goes back to its own search; no caller of the database sees it.
#[cold]
fn overrun() -> Error {
    let sentence = "too much was written while the transaction committed; retry it";
    Error::new(ErrorKind::Conflict, sentence)
}

/// Tells commit leaders to record what they write, for as long as it lives.
struct Announced<'a>(&'a AtomicUsize);

impl<'a> Announced<'a> {
    fn new(queue: &'a CommitQueue) -> Self {
        queue.validating.fetch_add(1, Ordering::SeqCst);
        Self(&queue.validating)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use std::iter;

    fn put(key: &str) -> RecentWrite<'_> {
        RecentWrite {
            keyspace: 0,
            key: key.as_bytes(),
            end: None,
        }
    }

    #[test]
    fn a_leader_that_cannot_know_sends_back_and_searches_in_the_last_round() {
        let db = Options::new().open_in_memory().unwrap();
        db.put("read", "1").unwrap();
        let mut reads = ReadSet::new(db.snapshot(), 1 << 20);
        reads.add_key(&db, b"read");
        let validation = Validation::new(vec![reads]);
        let last = db.engine().visible_sequence();
        validation.check_now(db.engine()).unwrap();
        let window = RecentWrites::default();
        validation.judge(&window, last, iter::empty()).unwrap();
        assert!(!validation.overrun.load(Ordering::Relaxed));

        // Something was ordered since, and nobody recorded what.
        assert!(validation.judge(&window, last + 1, iter::empty()).is_err());
        assert!(validation.overrun.swap(false, Ordering::Relaxed));

        validation.is_last.store(true, Ordering::Relaxed);
        let judge = |key| validation.judge(&window, last + 1, iter::once(put(key)));
        judge("other").unwrap();
        // What an earlier member of the group writes is not inserted yet, and counts.
        assert_eq!(judge("read").unwrap_err().kind(), ErrorKind::Conflict);
        db.put("read", "2").unwrap();
        assert_eq!(judge("other").unwrap_err().kind(), ErrorKind::Conflict);
        assert!(!validation.overrun.load(Ordering::Relaxed));
    }

    /// Whatever overruns the window, the transaction is judged in the end, and not more often.
    #[test]
    fn rounds_are_bounded() {
        let db = Options::new().open_in_memory().unwrap();
        let validation = Validation::new(vec![ReadSet::new(db.snapshot(), 1 << 20)]);
        let window = RecentWrites::default();
        let mut attempts = 0;
        let ran = validation.run(db.engine(), || {
            attempts += 1;
            // In every round somebody has written something that is not in the window.
            validation.judge(&window, u64::MAX, iter::empty())
        });
        ran.unwrap();
        assert_eq!(attempts, ROUNDS);
        assert_eq!(
            db.engine().commit_queue.validating.load(Ordering::Relaxed),
            0
        );
    }

    /// However much is written beside an old transaction, what it is checked against takes no more room, and
    /// its outcome is true: what changed a million writes ago is a conflict, what did not is none.
    #[test]
    fn an_old_transaction_beside_a_million_writes_is_judged_truly_in_bounded_memory() {
        let options = Options::new().write_buffer_bytes(1 << 20);
        let db = options.open_in_memory().unwrap();
        db.put("read", "1").unwrap();
        db.put("kept", "1").unwrap();
        let begin = |key: &str| {
            let mut tx = db.begin().unwrap();
            tx.get(key).unwrap();
            tx.range("m".."n").next();
            tx.put("written by an old one", key).unwrap();
            tx
        };
        let (changed, unchanged, phantom) = (begin("read"), begin("kept"), begin("kept"));
        db.put("read", "2").unwrap();
        // As if somebody were validated all the time: only then is anything recorded.
        let announced = Announced::new(&db.engine().commit_queue);
        let most = RecentWrites::MOST_BYTES;
        let mut largest = 0;
        for round in 0..10_000u32 {
            let mut batch = crate::WriteBatch::new();
            for number in 0..100u32 {
                batch.put(
                    [(round % 500).to_be_bytes(), number.to_be_bytes()].concat(),
                    "v",
                );
            }
            db.write(batch).unwrap();
            if round % 64 == 0 {
                let taken = db.engine().commit_queue.lock().recent.memory_bytes();
                assert!(taken <= most, "{taken} bytes after {round} batches");
                largest = largest.max(taken);
            }
        }
        drop(announced);
        assert!(largest > most / 16, "the window was in use: {largest}");
        unchanged.commit().unwrap();
        assert_eq!(changed.commit().unwrap_err().kind(), ErrorKind::Conflict);
        db.put("m inside", "of what was scanned").unwrap();
        assert_eq!(phantom.commit().unwrap_err().kind(), ErrorKind::Conflict);
    }
}

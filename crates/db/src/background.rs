//! The background: one state machine that decides when to seal, flush and compact, and who waits
//! for it. What is done is in `backpressure`, `flush_job` and `compaction_job`.
//!
//! Invariants: at most one flush runs; compactions of one keyspace never share a table; every job
//! that was started is counted and joined at close; nobody waits without somebody being due to wake
//! them (every change of the state notifies). A flush never waits for the writer lock before it has
//! told the writers that it is done, since a stalled leader holds that lock. Decisions are the pure
//! functions of the compaction crate; this file supplies their inputs and carries them out (I1).

use crate::engine::{Engine, Mode, closed};
use crate::keyspace::KeyspaceState;
use esker_base::filename::FileNumber;
use esker_base::sync::{Condvar, Mutex};
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, Result};
use esker_compaction::{Lane, Plan};
use esker_manifest::{KeyspaceEdit, VersionEdit};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What runs, what is due, what failed.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) flushing: bool,
    pub(crate) compactions: usize,
    /// Jobs that prepare what the log will need, or remove files.
    pub(crate) log_jobs: usize,
    /// Bulk loads, which are the work of their callers.
    pub(crate) loads: usize,
    /// A clean-up of expired keys is waiting for its turn or running.
    pub(crate) cleaning: bool,
    /// Tables that running compactions consume.
    pub(crate) busy: HashMap<KeyspaceId, HashSet<FileNumber>>,
    /// Plans whose job has not begun, the oldest first. Their inputs are busy, and they are counted in
    /// `compactions`.
    pub(crate) planned: VecDeque<(Arc<KeyspaceState>, Plan)>,
    /// Keyspaces whose version changed since the picker last found nothing to do.
    pub(crate) candidates: BTreeSet<KeyspaceId>,
    pub(crate) flush_error: Option<Error>,
    /// How many flushes have failed so far.
    pub(crate) flush_failures: u64,
    pub(crate) compaction_error: Option<Error>,
    pub(crate) stopping: bool,
}

impl State {
    /// The oldest plan for `keyspace` that nobody has begun to carry out.
    pub(crate) fn take_planned(
        &mut self,
        keyspace: KeyspaceId,
    ) -> Option<(Arc<KeyspaceState>, Plan)> {
        let of_keyspace = |(state, _): &(Arc<KeyspaceState>, Plan)| state.id == keyspace;
        let index = self.planned.iter().position(of_keyspace)?;
        self.planned.remove(index)
    }
}

/// The scheduler of one engine.
#[derive(Debug, Default)]
pub(crate) struct Background {
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
    pub(crate) owed: Mutex<Duration>,
    /// Bytes of memtables that the last flush worth measuring has flushed a second; 0 before the first.
    pub(crate) flush_bytes_per_second: AtomicU64,
    /// Whether somebody writes or waits, so that what is sealed should be in tables soon. Only advice to the flush
    /// that runs.
    pub(crate) flush_is_urgent: Arc<AtomicBool>,
    /// From before a flush takes memtables out of a keyspace until it has released the log that only
    /// they needed.
    pub(crate) releasing: AtomicBool,
    /// Whether a merge for reads has left memory that the system can have back.
    pub(crate) has_freed: AtomicBool,
    /// Tells running jobs to give up.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Background {
    /// Cancels what runs and waits until nothing does.
    pub(crate) fn stop(&self, engine: &Engine) {
        self.cancelled.store(true, Ordering::Release);
        let mut state = self.state.lock();
        state.stopping = true;
        drop(state);
        engine.executor.join();
    }

    /// Whether a job for the log may be begun; it is counted then.
    pub(crate) fn begin_log_job(&self) -> bool {
        let mut state = self.state.lock();
        if !state.stopping {
            state.log_jobs += 1;
        }
        !state.stopping
    }

    pub(crate) fn end_log_job(&self) {
        self.state.lock().log_jobs -= 1;
        self.changed.notify_all();
    }

    /// Has the flush that runs keep the processor, and those that come.
    pub(crate) fn hurry(&self) {
        self.flush_is_urgent.store(true, Ordering::Relaxed);
    }

    /// Wakes whoever waits. The lock makes sure that nobody is between looking and waiting.
    pub(crate) fn notify(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Whether a flush or a merge runs.
    pub(crate) fn is_working(&self) -> bool {
        let state = self.state.lock();
        state.flushing || state.compactions > 0
    }

    /// Whether no job runs, nor any bulk load, so that every file is either named or a stray.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        let jobs = state.compactions + state.log_jobs + state.loads;
        !state.flushing && jobs == 0 && !state.cleaning
    }

    /// The last failures of a flush and of a compaction that have not been followed by a success.
    pub(crate) fn errors(&self) -> Vec<Error> {
        let state = self.state.lock();
        state
            .flush_error
            .iter()
            .chain(&state.compaction_error)
            .cloned()
            .collect()
    }
}
/// What the jobs and those who wait for them share.
impl Engine {
    /// Waits until `enough`, starting flushes; fails with the flush that cannot be done.
    pub(crate) fn wait_for_flush(self: &Arc<Self>, enough: impl Fn() -> bool) -> Result<()> {
        if enough() {
            return Ok(());
        }
        let started = self.clock.monotonic_micros();
        self.background.hurry();
        let failures = {
            // One that runs already does not know what was sealed last, which may be what makes it
            // possible on a full disk: its failure does not count.
            let state = self.background.state.lock();
            state.flush_failures + u64::from(state.flushing)
        };
        let waited = loop {
            if enough() {
                break Ok(());
            }
            // Looked at before a flush is started: each call that comes here waits for one failure
            // at most. The next call tries again, since space may have returned.
            {
                let state = self.background.state.lock();
                if state.stopping {
                    break Err(closed());
                }
                if let Some(error) = &state.flush_error
                    && state.flush_failures > failures
                {
                    break Err(error.clone());
                }
            }
            self.schedule_flush();
            if self.executor.assist() {
                continue;
            }
            let mut state = self.background.state.lock();
            if state.flushing && !enough() {
                self.background.changed.wait(&mut state);
            }
        };
        let stalled = self.clock.monotonic_micros().saturating_sub(started);
        self.counters
            .stall_micros
            .fetch_add(stalled, Ordering::Relaxed);
        waited
    }

    /// Waits until no flush or compaction is due or running.
    pub(crate) fn wait_for_background(self: &Arc<Self>) -> Result<()> {
        self.check_open()?;
        // What failed earlier is tried again now, and may go well.
        self.background.state.lock().compaction_error = None;
        for keyspace in self.all_keyspaces() {
            self.schedule_compactions(Some(keyspace.id));
        }
        loop {
            self.wait_for_flush(|| self.next_to_flush().is_none())?;
            if self.executor.assist() {
                continue;
            }
            let mut state = self.background.state.lock();
            if let Some(error) = &state.compaction_error {
                return Err(error.clone());
            }
            let jobs = state.compactions + state.log_jobs;
            let running = state.flushing || state.cleaning || jobs > 0;
            if !running && state.candidates.is_empty() {
                break;
            }
            if running {
                self.background.changed.wait(&mut state);
            } else {
                drop(state);
                self.schedule_compactions(None);
            }
        }
        self.remove_unneeded_files();
        Ok(())
    }

    /// Has the files of tables removed whose last reader is gone, without keeping the caller. What is not
    /// on a disk is given back at once.
    pub(crate) fn remove_unread_soon(self: &Arc<Self>) {
        if self.mode == Mode::Memory || !self.background.begin_log_job() {
            self.tables.remove_unread();
            return;
        }
        let engine = Arc::clone(self);
        let job = move || {
            engine.tables.remove_unread();
            engine.background.end_log_job();
        };
        self.executor.spawn(Lane::Compaction, Box::new(job));
    }

    /// Logs one keyspace's edit, durably, with the sequence it may rely on.
    pub(crate) fn apply(&self, edit: KeyspaceEdit) -> Result<()> {
        self.apply_all(vec![edit])
    }

    /// As [`Engine::apply`], of several keyspaces together.
    fn apply_all(&self, keyspaces: Vec<KeyspaceEdit>) -> Result<()> {
        self.versions.note_time(self.clock.now_millis());
        self.versions.log_and_apply(VersionEdit {
            last_sequence: Some(self.visible_sequence()),
            keyspaces,
            ..VersionEdit::default()
        })
    }

    /// As [`Engine::apply`], for edits that name tables which were just made. Where it fails, nobody may
    /// name them again.
    pub(crate) fn apply_or_give_up(
        &self,
        edits: Vec<KeyspaceEdit>,
        made: impl IntoIterator<Item = FileNumber>,
    ) -> Result<()> {
        let applied = self.apply_all(edits);
        if applied.is_err() {
            self.given_up.note_tables(made);
        }
        applied
    }
}

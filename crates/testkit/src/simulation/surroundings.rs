//! What an engine is given in a simulation: executor, clock, and a file system on which every
//! operation is a point at which another thread may go on.
//!
//! Invariant: nothing here asks the machine for anything; wall time passes only when a client lets it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker::Clock;
use esker::executor::{Executor, Job, Lane};
use esker_base::sync;

use super::scheduler::{Scheduler, seat};
use crate::disk::{Interceptor, Operation, Verdict};

/// Every job is a task of the scheduler.
pub(crate) struct SimulatedExecutor {
    scheduler: Arc<Scheduler>,
}

impl SimulatedExecutor {
    pub(crate) fn new(scheduler: &Arc<Scheduler>) -> Arc<Self> {
        Arc::new(Self {
            scheduler: Arc::clone(scheduler),
        })
    }
}

impl fmt::Debug for SimulatedExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedExecutor")
    }
}

impl Executor for SimulatedExecutor {
    fn spawn(&self, lane: Lane, job: Job) {
        let name = match lane {
            Lane::Log => "log",
            Lane::Memory => "memory",
            Lane::Flush => "flush",
            Lane::Compaction => "compaction",
        };
        self.scheduler.spawn(name, true, job);
    }

    fn run_all(&self, parts: Vec<Job>) {
        let tasks: Vec<_> = parts
            .into_iter()
            .map(|part| self.scheduler.spawn("part", false, part))
            .collect();
        while !self.scheduler.have_ended(&tasks) {
            sync::park();
        }
    }

    fn join(&self) {
        while self.scheduler.has_jobs() {
            sync::park();
        }
    }

    fn assist(&self) -> bool {
        let has_jobs = self.scheduler.has_jobs();
        if has_jobs {
            sync::park();
        }
        has_jobs
    }
}

/// Stands still, but for what clients let pass: wall and monotonic time are one, as far as anybody can
/// tell. Who sleeps is not run for a while.
pub(crate) struct SimulatedClock {
    scheduler: Arc<Scheduler>,
    start_millis: u64,
    wall_millis: AtomicU64,
}

impl SimulatedClock {
    pub(crate) fn at_millis(scheduler: &Arc<Scheduler>, millis: u64) -> Arc<Self> {
        Arc::new(Self {
            scheduler: Arc::clone(scheduler),
            start_millis: millis,
            wall_millis: AtomicU64::new(millis),
        })
    }

    /// What it says, without being a point.
    pub(crate) fn wall_millis(&self) -> u64 {
        self.wall_millis.load(Ordering::Relaxed)
    }

    pub(crate) fn pass(&self, millis: u64) {
        self.wall_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl fmt::Debug for SimulatedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedClock")
    }
}

impl Clock for SimulatedClock {
    fn now_millis(&self) -> u64 {
        sync::point();
        self.wall_millis()
    }

    fn monotonic_micros(&self) -> u64 {
        (self.wall_millis() - self.start_millis) * 1000
    }

    fn sleep(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.scheduler.sleep(micros);
    }
}

/// Makes every file operation of a task a point, before and after it.
#[derive(Debug)]
pub(crate) struct Interruptions;

impl Interceptor for Interruptions {
    fn before(&self, _operation: &Operation, _len: &dyn Fn() -> io::Result<u64>) -> Verdict {
        sync::point();
        Verdict::Proceed
    }

    fn after(&self, operation: &Operation, error: Option<&io::Error>) {
        if let Some(seat) = seat() {
            let failed = if error.is_some() { " fails" } else { "" };
            seat.scheduler.note(&format!("{operation}{failed}"));
            sync::point();
        }
    }
}

//! Who runs background jobs (I12): a seam, the real pools behind it, and one that a test steps.
//!
//! Invariants: flushes have a lane of their own, so that no compaction delays them, and so has the
//! log, so that no flush delays that, and memory; a job that begins takes no processor from who writes; a job's panic
//! ends that job only; what merges most of their time is done by threads that let all others go first,
//! and that hold no lock for long; who waits for them takes up no other job; [`Executor::join`] returns when no job that was spawned is left. Threads are
//! started by the first job of a lane, so that opening a database starts none. rayon is named here
//! and nowhere else.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use esker_base::{Error, ErrorKind, Result};
use esker_vfs::{give_way, lower_priority, processor_wait_nanos, wait_when_woken};
use parking_lot::{Condvar, Mutex};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// What kind of work a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Writers will soon need it, and it is short: the next segment of the log.
    Log,
    /// Writers will soon need it, and it is short: memory for what they write next.
    Memory,
    /// Writers may be waiting for it.
    Flush,
    /// It can take its time.
    Compaction,
}

/// A job, or a part of one.
pub type Job = Box<dyn FnOnce() + Send + 'static>;

/// Runs jobs in the background.
pub trait Executor: Send + Sync + Debug + 'static {
    /// Has `job` run some time, on another thread or later; never before `spawn` returns on a
    /// thread that holds locks of the caller.
    fn spawn(&self, lane: Lane, job: Job);

    /// Runs the parts of a compaction, in any order, several at a time where there are threads, and
    /// returns when all have ended. Called from within a job. A part should hold no lock for long: other threads
    /// go first.
    fn run_all(&self, parts: Vec<Job>);

    /// Waits until no spawned job is left, those spawned meanwhile included. Called from within a
    /// job it waits for all others.
    fn join(&self);

    /// Runs one waiting job on the calling thread, if this executor has no threads of its own;
    /// whether it did. Who waits for the effect of a job calls this first, and sleeps only when it
    /// says `false`.
    fn assist(&self) -> bool {
        false
    }

    /// Lets another thread that waits for the processor have it. Called now and then by jobs that nobody waits
    /// for.
    fn give_way(&self) {}

    /// How long the calling thread has waited for a processor while it could have run, nanoseconds since it began;
    /// `None` where nobody knows, or should ask: a run that is to repeat itself.
    fn processor_wait_nanos(&self) -> Option<u64> {
        None
    }

    /// Whether jobs run on threads of their own. Where they do not, one may run in a thread that
    /// holds locks, and must not wait for them.
    fn has_threads(&self) -> bool {
        true
    }
}

/// Runs `work` and turns a panic into an error, so that a bug in one job is that job's failure.
///
/// # Errors
/// What `work` returns; [`Background`](ErrorKind::Background) with the message of a panic.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = format!(
            "a background job panicked: {}",
            panic_message(panic.as_ref())
        );
        Err(Error::new(ErrorKind::Background, message))
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Runs a job whose panics nobody else turns into errors.
fn run_job(job: Job) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
        let message = panic_message(panic.as_ref());
        tracing::error!(message, "a background job panicked outside of its guard");
    }
}

thread_local! {
    /// How many jobs are on this thread's stack.
    static JOBS_HERE: Cell<usize> = const { Cell::new(0) };
}

/// Counts jobs that were spawned and have not ended.
#[derive(Debug, Default)]
struct JobCount {
    left: Mutex<usize>,
    ended: Condvar,
}

impl JobCount {
    fn join(&self) {
        let own = JOBS_HERE.with(Cell::get);
        let mut left = self.left.lock();
        while *left > own {
            self.ended.wait(&mut left);
        }
    }
}

/// A spawned job's place in the count, given up when the job has ended or can never run.
struct Ticket {
    count: Arc<JobCount>,
}

impl Ticket {
    fn draw(count: &Arc<JobCount>) -> Self {
        *count.left.lock() += 1;
        Self {
            count: Arc::clone(count),
        }
    }

    fn run(self, job: Job) {
        JOBS_HERE.with(|here| here.set(here.get() + 1));
        run_job(job);
        JOBS_HERE.with(|here| here.set(here.get() - 1));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        *self.count.left.lock() -= 1;
        self.count.ended.notify_all();
    }
}

/// The real thing: one thread for flushes, one for the log, one for memory, a private rayon pool for compactions and
/// another one, of a lower priority, for their parts.
pub struct RayonExecutor {
    compaction_threads: usize,
    log: OnceLock<Option<ThreadPool>>,
    memory: OnceLock<Option<ThreadPool>>,
    flush: OnceLock<Option<ThreadPool>>,
    compaction: OnceLock<Option<ThreadPool>>,
    parts: OnceLock<Option<ThreadPool>>,
    jobs: Arc<JobCount>,
}

impl Debug for RayonExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RayonExecutor")
            .field("compaction_threads", &self.compaction_threads)
            .field("jobs", &*self.jobs.left.lock())
            .finish_non_exhaustive()
    }
}

impl RayonExecutor {
    /// Pools that start no thread yet. There is at least one compaction thread.
    #[must_use]
    pub fn new(compaction_threads: usize) -> Self {
        Self {
            compaction_threads: compaction_threads.max(1),
            log: OnceLock::new(),
            memory: OnceLock::new(),
            flush: OnceLock::new(),
            compaction: OnceLock::new(),
            parts: OnceLock::new(),
            jobs: Arc::default(),
        }
    }

    /// The pool of a lane; `None` where the system refused to give threads.
    fn pool(&self, lane: Lane) -> Option<&ThreadPool> {
        let (pool, name, threads) = match lane {
            Lane::Log => (&self.log, "esker-log", 1),
            Lane::Memory => (&self.memory, "esker-memory", 1),
            Lane::Flush => (&self.flush, "esker-flush", 1),
            Lane::Compaction => (&self.compaction, "esker-compact", self.compaction_threads),
        };
        pool.get_or_init(|| start_pool(name, threads, || wait_when_woken(true)))
            .as_ref()
    }

    /// The pool of the parts of compactions. Jobs are not run there: they take locks.
    fn parts_pool(&self) -> Option<&ThreadPool> {
        let start = || start_pool("esker-merge", self.compaction_threads, lower_priority);
        self.parts.get_or_init(start).as_ref()
    }
}

/// A pool each thread of which calls `begin` first; `None` where the system refuses to give threads.
fn start_pool(name: &'static str, threads: usize, begin: fn()) -> Option<ThreadPool> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |index| format!("{name}-{index}"))
        .start_handler(move |_| begin())
        .panic_handler(|panic| {
            let message = panic_message(panic.as_ref());
            tracing::error!(message, "a background thread panicked");
        })
        .build();
    pool.map_err(|error| tracing::error!(%error, "no background threads"))
        .ok()
}

impl Executor for RayonExecutor {
    fn spawn(&self, lane: Lane, job: Job) {
        let ticket = Ticket::draw(&self.jobs);
        if let Some(pool) = self.pool(lane) {
            pool.spawn(move || {
                // Only who gives the job keeps its processor: behind the device a job that writers wait for
                // must not wait for its turn as well.
                wait_when_woken(false);
                ticket.run(job);
                wait_when_woken(true);
            });
            return;
        }
        // Without a pool a thread of the job's own is the last resort.
        let thread = std::thread::Builder::new().name("esker-job".into());
        if let Err(error) = thread.spawn(move || ticket.run(job)) {
            tracing::error!(%error, "a background job was lost: the system has no threads left");
        }
    }

    fn run_all(&self, parts: Vec<Job>) {
        match self.parts_pool() {
            Some(pool) if pool.current_thread_index().is_none() => {
                // Not by a scope: who waits in one takes up other jobs of its own pool, on top of the one
                // that waits, and those may wait for that.
                let (ended, all_ended) = std::sync::mpsc::channel::<()>();
                for part in parts {
                    let ended = ended.clone();
                    pool.spawn(move || {
                        run_job(part);
                        drop(ended);
                    });
                }
                drop(ended);
                let _ = all_ended.recv();
            }
            _ => parts.into_iter().for_each(run_job),
        }
    }

    fn give_way(&self) {
        give_way();
    }

    fn processor_wait_nanos(&self) -> Option<u64> {
        processor_wait_nanos()
    }

    fn join(&self) {
        self.jobs.join();
    }
}

impl Drop for RayonExecutor {
    fn drop(&mut self) {
        // Dropping a rayon pool does not wait for its jobs.
        self.jobs.join();
    }
}

/// Keeps jobs until a test steps them, one at a time, in an order drawn from a seed. It has no
/// threads: waiting for an effect means calling [`Executor::assist`] until it is there.
#[derive(Debug)]
pub struct ManualExecutor {
    state: Mutex<ManualState>,
}

struct ManualState {
    jobs: Vec<(Lane, Job)>,
    random: u64,
}

impl Debug for ManualState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManualState")
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl ManualState {
    /// SplitMix64 (Steele, Lea and Flood 2014): an order that the seed decides.
    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * below as u128) >> 64) as usize
    }
}

impl ManualExecutor {
    /// An executor whose order `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(ManualState {
                jobs: Vec::new(),
                random: seed,
            }),
        }
    }

    /// Runs one waiting job; `false` where there is none.
    pub fn step(&self) -> bool {
        let mut state = self.state.lock();
        if state.jobs.is_empty() {
            return false;
        }
        let waiting = state.jobs.len();
        let index = state.draw(waiting);
        let (_, job) = state.jobs.remove(index);
        drop(state);
        run_job(job);
        true
    }

    /// The lanes of the jobs that wait, in the order they were spawned in.
    #[must_use]
    pub fn waiting(&self) -> Vec<Lane> {
        self.state
            .lock()
            .jobs
            .iter()
            .map(|(lane, _)| *lane)
            .collect()
    }
}

impl Executor for ManualExecutor {
    fn spawn(&self, lane: Lane, job: Job) {
        self.state.lock().jobs.push((lane, job));
    }

    fn run_all(&self, mut parts: Vec<Job>) {
        while !parts.is_empty() {
            let index = self.state.lock().draw(parts.len());
            run_job(parts.remove(index));
        }
    }

    fn join(&self) {
        while self.step() {}
    }

    fn assist(&self) -> bool {
        self.step()
    }

    fn has_threads(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;

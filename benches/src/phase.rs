//! Runs one phase: threads that start together, a quota or a deadline, progress, and one outcome.
//!
//! Invariant: every operation that a worker finished is counted once; the first error or an
//! interruption stops all workers within a few hundred operations. Called by `session` for each
//! verb; the verbs themselves are in [`workload`](crate::workload).

use crate::args::Config;
use crate::checks::{CheckReport, Checks};
use crate::engine::{Engine, EngineResult};
use crate::expectations::Expectations;
use crate::latency::{Recorder, Recording};
use crate::progress::Progress;
use crate::random::Rng;
use crate::values::Values;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(50);

/// What the threads of a phase tell each other.
#[derive(Debug)]
pub struct Signals {
    interrupted: Arc<AtomicBool>,
    failed: AtomicBool,
    foreground_ended: AtomicBool,
    deadline: Option<Instant>,
    progress: AtomicU64,
}

impl Signals {
    fn new(interrupted: Arc<AtomicBool>, duration: Option<Duration>) -> Self {
        Self {
            interrupted,
            failed: AtomicBool::new(false),
            foreground_ended: AtomicBool::new(false),
            deadline: duration.map(|duration| Instant::now() + duration),
            progress: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(Arc::default(), None)
    }

    /// Whether everybody is to stop at once.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.interrupted.load(Ordering::Relaxed)
    }

    /// Whether a worker goes on at `now`.
    #[must_use]
    pub fn go_on(&self, now: Instant, background: bool) -> bool {
        if self.stopped() {
            return false;
        }
        match background {
            true => !self.foreground_ended.load(Ordering::Relaxed),
            false => self.deadline.is_none_or(|deadline| now < deadline),
        }
    }

    /// Adds finished operations.
    pub fn add_progress(&self, operations: u64) {
        self.progress.fetch_add(operations, Ordering::Relaxed);
    }

    /// Operations finished so far, a moment ago.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }
}

/// How much one worker did, beside operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries written, read or passed over.
    pub entries: u64,
    /// Reads that found something.
    pub found: u64,
    /// Reads that found nothing.
    pub missed: u64,
    /// Bytes of keys and values written, of keys deleted.
    pub user_bytes_written: u64,
    /// Bytes of keys and values read.
    pub user_bytes_read: u64,
}

impl Tally {
    fn merge(&mut self, other: Tally) {
        self.entries += other.entries;
        self.found += other.found;
        self.missed += other.missed;
        self.user_bytes_written += other.user_bytes_written;
        self.user_bytes_read += other.user_bytes_read;
    }

    /// Counts a point read.
    #[inline]
    pub fn read(&mut self, found: bool, bytes: usize) {
        self.entries += 1;
        if found {
            self.found += 1;
            self.user_bytes_read += bytes as u64;
        } else {
            self.missed += 1;
        }
    }

    /// Counts a written or deleted entry of `bytes` bytes.
    #[inline]
    pub fn wrote(&mut self, bytes: usize) {
        self.entries += 1;
        self.user_bytes_written += bytes as u64;
    }
}

/// What every worker of a run shares.
#[derive(Debug)]
pub struct Shared<'a, E> {
    /// The engine under test.
    pub engine: &'a E,
    /// The settings of the run.
    pub config: &'a Config,
    /// What the engine must hold.
    pub expectations: &'a Expectations,
    /// What values are made of.
    pub values: &'a Values,
}

impl<E> Clone for Shared<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Shared<'_, E> {}

/// One thread of a phase.
#[derive(Debug)]
pub struct Worker<'a, E> {
    /// What it shares with the others.
    pub shared: Shared<'a, E>,
    /// Its number, from 0.
    pub index: u64,
    /// How many there are beside it, itself included.
    pub count: u64,
    /// How many operations it is to do; `u64::MAX` where the time decides.
    pub quota: u64,
    /// Its random numbers.
    pub rng: Rng,
    /// Its checks.
    pub checks: Checks<'a>,
    /// Its clock.
    pub recorder: Recorder<'a>,
    /// Its counts.
    pub tally: Tally,
}

impl<E: Engine> Worker<'_, E> {
    /// Does `operation` until the quota, the time or the patience of the user ends.
    ///
    /// # Errors
    /// The first error of an operation.
    #[inline]
    pub fn repeat(
        &mut self,
        mut operation: impl FnMut(&mut Self, u64) -> EngineResult<()>,
    ) -> EngineResult<()> {
        for done in 0..self.quota {
            self.recorder.wait_for_slot();
            operation(self, done)?;
            if !self.recorder.lap() {
                break;
            }
        }
        Ok(())
    }

    /// This worker's part of `0..items`, contiguous.
    #[must_use]
    pub fn part_of(&self, items: u64) -> std::ops::Range<u64> {
        part(items, self.index, self.count)
    }
}

/// Part `index` of `count` of `0..items`.
fn part(items: u64, index: u64, count: u64) -> std::ops::Range<u64> {
    let at = |index: u64| (u128::from(items) * u128::from(index) / u128::from(count)) as u64;
    at(index)..at(index + 1)
}

/// What a worker does.
pub type Work<'f, E> = &'f (dyn Fn(&mut Worker<'_, E>) -> EngineResult<()> + Sync);

/// What a phase consists of.
#[derive(Clone, Copy)]
pub struct Plan<'f, E> {
    /// The name on the progress bar.
    pub name: &'f str,
    /// How many operations all threads do together.
    pub operations: u64,
    /// Whether `--duration` decides the length instead of `operations`.
    pub timed: bool,
    /// How many threads.
    pub threads: usize,
    /// The generation that is written, if the phase writes.
    pub writing: Option<u8>,
    /// The number of the phase, for its random numbers.
    pub number: u64,
    /// What each thread does.
    pub work: Work<'f, E>,
    /// What one more thread does until the others have ended.
    pub beside: Option<Work<'f, E>>,
}

/// What a phase did.
#[derive(Debug)]
pub struct Outcome {
    /// From the start of the first thread to the end of the last.
    pub elapsed: Duration,
    /// The measured threads' operations and latencies.
    pub recording: Recording,
    /// Their counts.
    pub tally: Tally,
    /// What the thread beside did.
    pub beside: Option<Beside>,
    /// What the checks of all threads found.
    pub checks: CheckReport,
    /// Operations in each full second.
    pub per_second: Vec<u64>,
    /// The first error of the engine.
    pub error: Option<String>,
}

/// What the thread beside the measured ones did.
#[derive(Debug)]
pub struct Beside {
    /// From its start to its end.
    pub elapsed: Duration,
    /// Its operations and latencies.
    pub recording: Recording,
    /// Its counts.
    pub tally: Tally,
}

/// Threads take the time themselves: the one that waits for them may be woken late.
struct Ended {
    began: Instant,
    at: Instant,
    background: bool,
    recording: Recording,
    tally: Tally,
    checks: CheckReport,
    error: Option<String>,
}

/// Runs a phase to its end.
pub fn run<E: Engine>(
    shared: Shared<'_, E>,
    plan: &Plan<'_, E>,
    interrupted: &Arc<AtomicBool>,
) -> Outcome {
    let duration = shared.config.duration.filter(|_| plan.timed);
    let signals = Signals::new(Arc::clone(interrupted), duration);
    let threads = plan.threads as u64;
    let barrier = Barrier::new(plan.threads + usize::from(plan.beside.is_some()) + 1);
    let (ended, endings) = mpsc::channel();
    std::thread::scope(|scope| {
        for index in 0..threads {
            let (ended, barrier, signals) = (ended.clone(), &barrier, &signals);
            let quota = match duration {
                Some(_) => u64::MAX,
                None => part(plan.operations, index, threads).count() as u64,
            };
            scope.spawn(move || {
                let place = Place {
                    index,
                    count: threads,
                    quota,
                    background: false,
                };
                barrier.wait();
                let _ = ended.send(work(shared, plan, signals, place, plan.work));
            });
        }
        if let Some(beside) = plan.beside {
            let (ended, barrier, signals) = (ended.clone(), &barrier, &signals);
            scope.spawn(move || {
                let place = Place {
                    index: threads,
                    count: 1,
                    quota: u64::MAX,
                    background: true,
                };
                barrier.wait();
                let _ = ended.send(work(shared, plan, signals, place, beside));
            });
        }
        drop(ended);
        let progress = Progress::start(plan.name, plan.operations, duration);
        barrier.wait();
        collect(&endings, &signals, plan.threads, progress)
    })
}

struct Place {
    index: u64,
    count: u64,
    quota: u64,
    background: bool,
}

fn work<E: Engine>(
    shared: Shared<'_, E>,
    plan: &Plan<'_, E>,
    signals: &Signals,
    place: Place,
    work: Work<'_, E>,
) -> Ended {
    let began = Instant::now();
    // A rate is for all measured threads together; the thread beside runs freely.
    let rate = shared.config.rate.filter(|_| !place.background);
    let mut recorder = Recorder::new(signals, rate.map(|rate| rate / place.count as f64));
    if place.background {
        recorder = recorder.in_background();
    }
    let stream = plan.number << 16 | place.index;
    let mut worker = Worker {
        shared,
        index: if place.background { 0 } else { place.index },
        count: place.count,
        quota: place.quota,
        rng: Rng::new(shared.config.seed, stream),
        checks: Checks::new(shared.expectations, shared.values, plan.writing),
        recorder,
        tally: Tally::default(),
    };
    let result = work(&mut worker);
    let at = Instant::now();
    if result.is_err() {
        signals.failed.store(true, Ordering::Relaxed);
    }
    Ended {
        began,
        at,
        background: place.background,
        recording: worker.recorder.finish(),
        tally: worker.tally,
        checks: worker.checks.into_report(),
        error: result.err().map(|error| error.to_string()),
    }
}

/// Watches the workers until the last has ended, and adds up what they did.
fn collect(
    endings: &mpsc::Receiver<Ended>,
    signals: &Signals,
    threads: usize,
    mut progress: Progress,
) -> Outcome {
    let mut outcome = Outcome {
        elapsed: Duration::ZERO,
        recording: Recording::empty(),
        tally: Tally::default(),
        beside: None,
        checks: CheckReport::default(),
        per_second: Vec::new(),
        error: None,
    };
    let mut running = threads;
    let mut seconds = Seconds::new(Instant::now());
    let mut span: Option<(Instant, Instant)> = None;
    loop {
        match endings.recv_timeout(TICK) {
            Ok(ended) => {
                outcome.error = outcome.error.take().or(ended.error);
                outcome.checks.merge(ended.checks);
                if ended.background {
                    outcome.beside = Some(Beside {
                        elapsed: ended.at - ended.began,
                        recording: ended.recording,
                        tally: ended.tally,
                    });
                    continue;
                }
                let (first, last) = span.unwrap_or((ended.began, ended.at));
                span = Some((first.min(ended.began), last.max(ended.at)));
                outcome.recording.merge(&ended.recording);
                outcome.tally.merge(ended.tally);
                running -= 1;
                if running == 0 {
                    signals.foreground_ended.store(true, Ordering::Relaxed);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let done = signals.progress();
                progress.at(done);
                seconds.at(Instant::now(), done, &mut outcome.per_second);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    progress.end();
    outcome.elapsed = span.map_or(Duration::ZERO, |(first, last)| last - first);
    outcome
}

/// Cuts progress into seconds.
struct Seconds {
    next: Instant,
    counted: u64,
}

impl Seconds {
    fn new(start: Instant) -> Self {
        Self {
            next: start + Duration::from_secs(1),
            counted: 0,
        }
    }

    fn at(&mut self, now: Instant, done: u64, per_second: &mut Vec<u64>) {
        while now >= self.next {
            per_second.push(done - self.counted);
            self.counted = done;
            self.next += Duration::from_secs(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for (items, count) in [(10u64, 3u64), (2, 5), (0, 2), (7, 1)] {
            let all: Vec<u64> = (0..count)
                .flat_map(|index| part(items, index, count))
                .collect();
            assert_eq!(all, (0..items).collect::<Vec<_>>());
        }
    }

    #[test]
    fn progress_is_cut_into_whole_seconds() {
        let start = Instant::now();
        let mut seconds = Seconds::new(start);
        let mut per_second = Vec::new();
        seconds.at(start + Duration::from_millis(900), 90, &mut per_second);
        seconds.at(start + Duration::from_millis(1050), 105, &mut per_second);
        seconds.at(start + Duration::from_millis(3010), 200, &mut per_second);
        assert_eq!(per_second, [105, 95, 0]);
    }
}

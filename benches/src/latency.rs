//! How long operations take, without the measuring taking long itself.
//!
//! Reading the clock costs as much as reading a cached entry. So a [`Recorder`] times one operation
//! in N, chooses N so that the clock takes at most about `CLOCK_SHARE` of the run, and weighs what
//! it timed by N. The longest stall is caught all the same: the operations between two timed ones
//! are timed together, and no operation among them can have taken longer than all of them.
//! Where a rate is set, every operation is timed, from the moment it was meant to start: a store
//! that stalls is charged for the operations that had to wait (no coordinated omission).
//!
//! Invariant: after `finish`, the number of operations is exact, whatever N was.

use crate::phase::Signals;
use esker::{Clock, SystemClock};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The share of the run that reading the clock may take.
const CLOCK_SHARE: f64 = 0.02;
/// How many operations pass between two choices of N.
const CALIBRATION_OPERATIONS: u64 = 1024;
/// The largest N. Odd like every N, so that it keeps no step with anything done every 2^k times.
const MAX_INTERVAL: u32 = 255;
/// Progress is published at least so often where operations are slow.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);
/// The last part of a wait for a slot is spun: a sleep returns too late.
const SPIN: Duration = Duration::from_micros(120);

/// Latency percentiles of a phase, microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// The median.
    pub p50_micros: f64,
    /// The 90th percentile.
    pub p90_micros: f64,
    /// The 99th percentile.
    pub p99_micros: f64,
    /// The 99.9th percentile.
    pub p999_micros: f64,
    /// The longest that any operation can have taken: exact where every one was timed, else the
    /// time of a few consecutive ones.
    pub max_micros: f64,
    /// Operations that were timed by themselves.
    pub timed: u64,
    /// All operations for each timed one.
    pub timed_one_in: f64,
    /// Whether times run from the intended start (a rate was set) instead of the actual one.
    pub from_intended_start: bool,
}

/// Records the latencies of one worker.
#[derive(Debug)]
pub struct Recorder<'a> {
    signals: &'a Signals,
    histogram: Histogram<u64>,
    interval: u32,
    countdown: u32,
    operations: u64,
    unpublished: u64,
    timed: u64,
    last: Instant,
    published_at: Instant,
    calibrated_at: Instant,
    calibrated_operations: u64,
    longest: Duration,
    schedule: Option<Schedule>,
    background: bool,
}

/// Operation i is meant to start at `start + i * gap`.
#[derive(Debug)]
struct Schedule {
    next: Instant,
    gap: Duration,
    clock: SystemClock,
}

impl<'a> Recorder<'a> {
    /// A recorder that starts now. `rate` is in operations per second for this worker alone.
    #[must_use]
    pub fn new(signals: &'a Signals, rate: Option<f64>) -> Self {
        let now = Instant::now();
        let schedule = rate.map(|rate| Schedule {
            next: now,
            gap: Duration::from_secs_f64(1.0 / rate),
            clock: SystemClock::new(),
        });
        Self {
            signals,
            histogram: new_histogram(),
            interval: 1,
            countdown: 1,
            operations: 0,
            unpublished: 0,
            timed: 0,
            last: now,
            published_at: now,
            calibrated_at: now,
            calibrated_operations: 0,
            longest: Duration::ZERO,
            schedule,
            background: false,
        }
    }

    /// Makes it the recorder of a worker beside the measured ones: it runs until they have ended,
    /// and does not count as progress.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.background = true;
        self
    }

    /// Waits until the next operation is meant to start; at once where no rate is set.
    #[inline]
    pub fn wait_for_slot(&mut self) {
        if let Some(schedule) = &mut self.schedule {
            let start = schedule.next;
            schedule.next += schedule.gap;
            wait_until(start, &schedule.clock, self.signals);
            self.last = start;
        }
    }

    /// Notes that one operation has ended. Returns whether to go on.
    #[inline]
    pub fn lap(&mut self) -> bool {
        self.countdown -= 1;
        if self.countdown > 1 {
            return true;
        }
        self.read_the_clock()
    }

    fn read_the_clock(&mut self) -> bool {
        let now = Instant::now();
        let span = now - self.last;
        self.last = now;
        self.longest = self.longest.max(span);
        if self.countdown == 1 {
            // The span of the operations that were not timed; the timed one begins.
            return true;
        }
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.histogram
            .saturating_record_n(nanos, u64::from(self.interval));
        self.timed += 1;
        self.operations += u64::from(self.interval);
        self.unpublished += u64::from(self.interval);
        self.countdown = self.interval;
        if self.unpublished >= 16 * u64::from(self.interval)
            || now - self.published_at >= PUBLISH_EVERY
        {
            self.publish(now);
        }
        if self.schedule.is_none()
            && self.operations - self.calibrated_operations >= CALIBRATION_OPERATIONS
        {
            self.calibrate(now);
        }
        self.signals.go_on(now, self.background)
    }

    fn publish(&mut self, now: Instant) {
        if !self.background {
            self.signals.add_progress(self.unpublished);
        }
        self.unpublished = 0;
        self.published_at = now;
    }

    fn calibrate(&mut self, now: Instant) {
        let operations = self.operations - self.calibrated_operations;
        let mean_nanos = (now - self.calibrated_at).as_nanos() as f64 / operations as f64;
        self.interval = interval_for(mean_nanos, clock_nanos());
        self.countdown = self.interval;
        self.calibrated_at = now;
        self.calibrated_operations = self.operations;
    }

    /// Ends the recording: the exact number of operations, and the latencies.
    #[must_use]
    pub fn finish(mut self) -> Recording {
        let since = u64::from(self.interval - self.countdown);
        self.operations += since;
        self.unpublished += since;
        let now = Instant::now();
        if since > 0 {
            self.longest = self.longest.max(now - self.last);
        }
        self.publish(now);
        Recording {
            operations: self.operations,
            timed: self.timed,
            histogram: self.histogram,
            longest: self.longest,
            scheduled: self.schedule.is_some(),
        }
    }
}

/// What recorders recorded.
#[derive(Debug)]
pub struct Recording {
    /// Operations that ended.
    pub operations: u64,
    timed: u64,
    histogram: Histogram<u64>,
    longest: Duration,
    scheduled: bool,
}

impl Recording {
    /// Nothing recorded yet.
    #[must_use]
    pub fn empty() -> Self {
        let (longest, histogram) = (Duration::ZERO, new_histogram());
        Self {
            operations: 0,
            timed: 0,
            histogram,
            longest,
            scheduled: false,
        }
    }

    /// Operations that were timed one by one.
    #[must_use]
    pub fn of(times: &[Duration]) -> Self {
        let mut recording = Self::empty();
        for time in times {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            recording.histogram.saturating_record(nanos);
            recording.longest = recording.longest.max(*time);
        }
        recording.operations = times.len() as u64;
        recording.timed = recording.operations;
        recording
    }

    /// Adds another worker's recording.
    pub fn merge(&mut self, other: &Recording) {
        self.operations += other.operations;
        self.timed += other.timed;
        self.longest = self.longest.max(other.longest);
        self.scheduled |= other.scheduled;
        // Both have the same bounds, so that addition cannot fail.
        let _ = self.histogram.add(&other.histogram);
    }

    /// The percentiles; `None` where nothing was timed.
    #[must_use]
    pub fn report(&self) -> Option<LatencyReport> {
        if self.timed == 0 {
            return None;
        }
        let max_micros = self.longest.as_nanos() as f64 / 1000.0;
        let at = |quantile| {
            let nanos = self.histogram.value_at_quantile(quantile) as f64;
            (nanos / 1000.0).min(max_micros)
        };
        Some(LatencyReport {
            p50_micros: at(0.5),
            p90_micros: at(0.9),
            p99_micros: at(0.99),
            p999_micros: at(0.999),
            max_micros,
            timed: self.timed,
            timed_one_in: self.operations as f64 / self.timed as f64,
            from_intended_start: self.scheduled,
        })
    }
}

/// Two significant digits keep the counts in the first-level cache: percentiles are right to 1 %.
fn new_histogram() -> Histogram<u64> {
    // The arguments are constants within the documented bounds.
    Histogram::new_with_bounds(1, 3_600_000_000_000, 2)
        .unwrap_or_else(|error| unreachable!("constant bounds: {error}"))
}

fn wait_until(start: Instant, clock: &SystemClock, signals: &Signals) {
    loop {
        let now = Instant::now();
        if now >= start || signals.stopped() {
            return;
        }
        let wait = start - now;
        if wait > SPIN {
            clock.sleep((wait - SPIN).min(PUBLISH_EVERY));
        } else {
            std::hint::spin_loop();
        }
    }
}

/// The N at which two readings of the clock per N operations stay within [`CLOCK_SHARE`].
fn interval_for(mean_nanos: f64, clock_nanos: f64) -> u32 {
    let allowed = CLOCK_SHARE * mean_nanos.max(0.1);
    if clock_nanos <= allowed {
        return 1;
    }
    let interval = (2.0 * clock_nanos / allowed).ceil() as u32;
    (interval | 1).clamp(3, MAX_INTERVAL)
}

/// What one reading of the clock costs on this machine, nanoseconds.
fn clock_nanos() -> f64 {
    static COST: OnceLock<f64> = OnceLock::new();
    *COST.get_or_init(|| {
        const READINGS: u32 = 200;
        let rounds = (0..5).map(|_| {
            let start = Instant::now();
            (0..READINGS).for_each(|_| {
                std::hint::black_box(Instant::now());
            });
            start.elapsed().as_nanos() as f64 / f64::from(READINGS)
        });
        rounds.fold(f64::INFINITY, f64::min)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_keeps_the_clock_within_its_share_and_is_odd() {
        assert_eq!(interval_for(10_000.0, 25.0), 1);
        assert_eq!(interval_for(1250.0, 25.0), 1);
        assert_eq!(interval_for(500.0, 25.0), 5);
        assert_eq!(interval_for(30.0, 25.0), 85);
        assert_eq!(interval_for(0.0, 25.0), MAX_INTERVAL);
        for mean in 1..2000 {
            assert_eq!(interval_for(f64::from(mean), 25.0) % 2, 1);
        }
    }

    #[test]
    fn every_operation_is_counted_whatever_the_interval() {
        let signals = Signals::for_tests();
        for operations in [1u64, 2, 1023, 1024, 1025, 5000, 100_001] {
            let mut recorder = Recorder::new(&signals, None);
            for _ in 0..operations {
                recorder.wait_for_slot();
                assert!(recorder.lap());
            }
            let recording = recorder.finish();
            assert_eq!(recording.operations, operations);
            let report = recording.report().unwrap();
            assert!(report.timed >= 1 && report.timed <= operations);
            assert!(report.p50_micros <= report.p99_micros);
            assert!(report.p999_micros <= report.max_micros);
        }
        assert_eq!(
            signals.progress(),
            1 + 2 + 1023 + 1024 + 1025 + 5000 + 100_001
        );
    }

    #[test]
    fn a_stall_between_timed_operations_is_the_longest() {
        let signals = Signals::for_tests();
        let mut recorder = Recorder::new(&signals, None);
        let clock = SystemClock::new();
        for operation in 0..50_000 {
            if operation == 40_001 {
                clock.sleep(Duration::from_millis(30));
            }
            recorder.lap();
        }
        let report = recorder.finish().report().unwrap();
        assert!(report.max_micros >= 30_000.0, "{report:?}");
        assert!(report.timed_one_in > 1.0, "{report:?}");
    }

    #[test]
    fn with_a_rate_the_operations_behind_a_stall_are_charged_for_it() {
        let signals = Signals::for_tests();
        let mut recorder = Recorder::new(&signals, Some(10_000.0));
        let clock = SystemClock::new();
        for operation in 0..400 {
            recorder.wait_for_slot();
            if operation == 100 {
                clock.sleep(Duration::from_millis(20));
            }
            recorder.lap();
        }
        let report = recorder.finish().report().unwrap();
        // About 200 of the 400 operations were due during the stall and waited for its end.
        assert!(report.p90_micros > 5_000.0, "{report:?}");
        assert!(report.from_intended_start && report.timed == 400);
    }

    #[test]
    fn recordings_of_workers_are_merged() {
        let signals = Signals::for_tests();
        let mut all = Recording::empty();
        assert_eq!(all.report(), None);
        for _ in 0..3 {
            let mut recorder = Recorder::new(&signals, None);
            (0..10).for_each(|_| {
                recorder.lap();
            });
            all.merge(&recorder.finish());
        }
        assert_eq!((all.operations, all.report().unwrap().timed), (30, 30));
    }
}

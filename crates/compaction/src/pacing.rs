//! Backpressure: how long a writer waits so that compaction keeps up, as a pure function.
//!
//! Writers are slowed early and by little, in proportion to what compaction is behind by, instead
//! of stopped late and for long (bLSM, SIGMOD 2012; RocksDB's delayed writes). Only memory stops
//! them: when no more memtables may be sealed, a write waits for a flush; until then a [`Pace`] has writers
//! write no faster than flushes do.
//!
//! Invariant: the delay grows steadily with each kind of pressure and is zero below the soft
//! limits; debt and level-0 runs never stop a writer. Called by db's commit leader, which adds
//! delays up until they are worth a sleep.

use std::time::Duration;

/// How far flushes and compactions are behind, and the limits that this is measured against.
#[derive(Clone, Debug, PartialEq)]
pub struct Pressure {
    /// Memtables that wait for a flush, the one being flushed included.
    pub sealed_memtables: usize,
    /// Sealed memtables at which a writer whose memtable is full must wait.
    pub max_sealed_memtables: usize,
    /// Whether this write finds the active memtable full, so that it would have to be sealed.
    pub memtable_full: bool,
    /// Runs in level 0.
    pub level0_runs: usize,
    /// Level-0 runs above which writers are delayed.
    pub soft_level0_runs: usize,
    /// Level-0 runs at which writers are held to [`Pressure::slow_bytes_per_second`].
    pub hard_level0_runs: usize,
    /// What [`debt_bytes`](crate::picker::debt_bytes) says.
    pub debt_bytes: u64,
    /// The debt above which writers are delayed, bytes.
    pub soft_debt_bytes: u64,
    /// The debt at which writers are held to [`Pressure::slow_bytes_per_second`], bytes.
    pub hard_debt_bytes: u64,
    /// The rate that the writers together are held to at a hard limit; beyond it, less.
    pub slow_bytes_per_second: u64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            sealed_memtables: 0,
            max_sealed_memtables: 3,
            memtable_full: false,
            level0_runs: 0,
            soft_level0_runs: 12,
            hard_level0_runs: 24,
            debt_bytes: 0,
            soft_debt_bytes: 4 << 30,
            hard_debt_bytes: 16 << 30,
            slow_bytes_per_second: 16 << 20,
        }
    }
}

/// What a writer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Write now.
    Go,
    /// Write, and let this much time pass for it: sleep it off at once, or add it up with that of
    /// other writes until it is worth a sleep.
    Delay(Duration),
    /// Wait until a memtable has been flushed, then ask again.
    Stop,
}

/// No single write is delayed longer than this.
pub const MAX_DELAY: Duration = Duration::from_millis(500);

/// However far compaction is behind, writers are not slowed below this part of the slow rate.
const MOST_OVER_HARD_LIMIT: f64 = 8.0;

/// What a writer of `bytes` is to do under `pressure`.
///
/// ```
/// use esker_compaction::pacing::{Admission, Pressure, admit};
/// assert_eq!(admit(&Pressure::default(), 100), Admission::Go);
/// let behind = Pressure { debt_bytes: 10 << 30, ..Pressure::default() };
/// assert!(matches!(admit(&behind, 100), Admission::Delay(delay) if delay.as_micros() < 10));
/// ```
#[must_use]
pub fn admit(pressure: &Pressure, bytes: usize) -> Admission {
    if pressure.memtable_full && pressure.sealed_memtables >= pressure.max_sealed_memtables {
        return Admission::Stop;
    }
    let runs = [
        pressure.level0_runs,
        pressure.soft_level0_runs,
        pressure.hard_level0_runs,
    ];
    let [runs, soft_runs, hard_runs] = runs.map(|count| count as u64);
    let behind = excess(runs, soft_runs, hard_runs).max(excess(
        pressure.debt_bytes,
        pressure.soft_debt_bytes,
        pressure.hard_debt_bytes,
    ));
    if behind <= 0.0 {
        return Admission::Go;
    }
    let seconds = bytes as f64 / pressure.slow_bytes_per_second.max(1) as f64 * behind;
    let delay = Duration::from_secs_f64(seconds.min(MAX_DELAY.as_secs_f64()));
    if delay.is_zero() {
        Admission::Go
    } else {
        Admission::Delay(delay)
    }
}

/// However few runs are merged, a merge and a flush that comes meanwhile leave so many for a while, and the delay of each
/// further one is no more than this part of the slow rate's.
const LEAST_SOFT_RUNS: usize = 3;
const LEAST_SPAN_RUNS: usize = 4;

/// Level-0 runs above which writers are delayed, and at which they are held to
/// [`Pressure::slow_bytes_per_second`], where so many of them are merged. While readers wait for processors fewer
/// are let come together: merges wait as well, and each run is one more for every read to ask.
#[must_use]
pub fn level0_limits(runs_to_merge: usize, readers_wait: bool) -> [usize; 2] {
    let runs = runs_to_merge.max(1);
    if readers_wait {
        let soft = (runs - 1).max(LEAST_SOFT_RUNS);
        [
            soft.min(3 * runs),
            (2 * runs).max(soft + LEAST_SPAN_RUNS).min(6 * runs),
        ]
    } else {
        [3 * runs, 6 * runs]
    }
}

/// The pace of writers while as many memtables are sealed as may be: no faster than flushes make room, so that
/// they do not all stop, for what is left of a flush, when the memtable that they fill is full.
///
/// ```
/// use esker_compaction::pacing::Pace;
/// use std::time::Duration;
/// let mut pace = Pace::begin(0);
/// assert_eq!(pace.admit(100, 50, 1_000_000), Duration::ZERO);
/// assert_eq!(pace.admit(9_900, 8_000, 1_000_000), Duration::from_millis(2));
/// assert_eq!(pace.admit(100, 10_000, 1_000_000), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    started_micros: u64,
    bytes: u64,
}

/// Waits below this are not worth a sleep.
const LEAST_WAIT: Duration = Duration::from_millis(1);

impl Pace {
    /// Begins at a moment of the monotonic clock.
    #[must_use]
    pub fn begin(now_micros: u64) -> Self {
        Self {
            started_micros: now_micros,
            bytes: 0,
        }
    }

    /// How long the writer of `bytes` is to wait before it, where flushes make room for so many bytes a second
    /// (0: not known).
    pub fn admit(
        &mut self,
        bytes: usize,
        now_micros: u64,
        flush_bytes_per_second: u64,
    ) -> Duration {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if flush_bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let due = u128::from(self.bytes) * 1_000_000 / u128::from(flush_bytes_per_second);
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        let elapsed = now_micros.saturating_sub(self.started_micros);
        let wait = Duration::from_micros(due.saturating_sub(elapsed)).min(MAX_DELAY);
        if wait < LEAST_WAIT {
            Duration::ZERO
        } else {
            wait
        }
    }
}

/// 0 up to `soft`, 1 at `hard`, on the same line beyond.
fn excess(value: u64, soft: u64, hard: u64) -> f64 {
    let over = value.saturating_sub(soft) as f64;
    let span = hard.saturating_sub(soft).max(1) as f64;
    (over / span).min(MOST_OVER_HARD_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Pressure {
        Pressure {
            max_sealed_memtables: 2,
            soft_level0_runs: 10,
            hard_level0_runs: 20,
            soft_debt_bytes: 1000,
            hard_debt_bytes: 2000,
            slow_bytes_per_second: 1_000_000,
            ..Pressure::default()
        }
    }

    #[test]
    fn delay_is_in_proportion_and_only_memory_stops() {
        let micros = |micros| Admission::Delay(Duration::from_micros(micros));
        // (sealed, full, level-0 runs, debt, what a write of 100 bytes is told)
        let cases = [
            (0, false, 0, 0, Admission::Go),
            (0, true, 10, 1000, Admission::Go),
            (1, true, 0, 0, Admission::Go),
            (2, false, 0, 0, Admission::Go),
            (2, true, 0, 0, Admission::Stop),
            (0, false, 15, 0, micros(50)),
            (0, false, 20, 0, micros(100)),
            (0, false, 0, 1100, micros(10)),
            (0, false, 0, 2000, micros(100)),
            (0, false, 15, 1100, micros(50)),
            (0, false, 0, 5000, micros(400)),
            (0, false, 10_000, u64::MAX, micros(800)),
        ];
        for (sealed_memtables, memtable_full, level0_runs, debt_bytes, expected) in cases {
            let pressure = Pressure {
                sealed_memtables,
                memtable_full,
                level0_runs,
                debt_bytes,
                ..limits()
            };
            assert_eq!(admit(&pressure, 100), expected, "{pressure:?}");
        }
    }

    #[test]
    fn fewer_runs_are_let_come_together_while_readers_wait() {
        // Runs that are merged, whether readers wait, limits.
        let cases = [
            (4, false, [12, 24]),
            (4, true, [3, 8]),
            (1, false, [3, 6]),
            (1, true, [3, 6]),
            (0, true, [3, 6]),
            (2, true, [3, 7]),
            (8, true, [7, 16]),
        ];
        for (runs, readers_wait, expected) in cases {
            assert_eq!(level0_limits(runs, readers_wait), expected);
        }
    }

    #[test]
    fn delays_are_bounded_and_absurd_limits_do_no_harm() {
        let pressure = Pressure {
            debt_bytes: u64::MAX,
            ..limits()
        };
        assert_eq!(admit(&pressure, usize::MAX), Admission::Delay(MAX_DELAY));
        let inverted = Pressure {
            soft_debt_bytes: 9,
            hard_debt_bytes: 3,
            slow_bytes_per_second: 0,
            ..pressure
        };
        assert_eq!(admit(&inverted, 1), Admission::Delay(MAX_DELAY));
        assert_eq!(admit(&inverted, 0), Admission::Go);
    }

    #[test]
    fn a_pace_lets_through_what_flushes_make_room_for_and_never_waits_long() {
        const RATE: u64 = 50_000_000;
        let mut pace = Pace::begin(7_000);
        let (mut now, mut written, mut longest) = (7_000u64, 0u64, Duration::ZERO);
        for _ in 0..5_000 {
            let wait = pace.admit(16_400, now, RATE);
            longest = longest.max(wait);
            written += 16_400;
            now += 10 + wait.as_micros() as u64;
        }
        let seconds = (now - 7_000) as f64 / 1e6;
        let rate = written as f64 / seconds;
        assert!((rate / RATE as f64 - 1.0).abs() < 0.02, "{rate}");
        assert!(longest < Duration::from_millis(2));
        // A slow writer is never held back; one that wrote a lot at once is, but not for ever.
        let mut pace = Pace::begin(0);
        assert_eq!(pace.admit(1000, 1_000_000, 2000), Duration::ZERO);
        assert_eq!(pace.admit(usize::MAX, 1_000_000, 1), MAX_DELAY);
        assert_eq!(Pace::begin(9).admit(usize::MAX, 0, 0), Duration::ZERO);
    }

    #[test]
    fn more_pressure_is_never_less_delay() {
        let mut last = Duration::ZERO;
        for debt_bytes in (0..12_000).step_by(37) {
            let delay = match admit(
                &Pressure {
                    debt_bytes,
                    ..limits()
                },
                10_000,
            ) {
                Admission::Delay(delay) => delay,
                Admission::Go => Duration::ZERO,
                Admission::Stop => panic!("debt stops nobody"),
            };
            assert!(delay >= last);
            last = delay;
        }
    }
}

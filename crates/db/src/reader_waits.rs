//! What readers wait for a processor while others write, and what writers wait for it.
//!
//! Flushes and merges are the work of writers, and where all threads together want more processors than there are, it
//! is readers that they take them from as well: a reader beside a writer that never pauses had one for half of
//! the time, and merges, which let others go first, fell behind, so that it had more runs to ask. Now a thread that
//! reads and does not write looks every few milliseconds how long the system had it wait for a processor, and writers
//! wait as long, in pauses, for no more than half of the time. Level 0 is held to fewer runs meanwhile
//! ([`level0_limits`](esker_compaction::pacing::level0_limits)).
//!
//! Invariants: nobody waits for a lock here but that of the background's state, which is held for moments; nothing is
//! looked at while nobody writes or no job runs, and the system is asked by way of the executor, so that a simulated
//! run, whose executor does not say, repeats itself; threads that write are left out, since what they wait is theirs already. Reads come here by
//! `read_toll`, writers by `backpressure`.

use crate::engine::Engine;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A thread looks when it has read as often, which takes it milliseconds; a look costs as much as a few reads.
const READS_PER_LOOK: u32 = 8192;
/// Microseconds between two looks of a thread, at least, and at most if what it waited between them is to count: it
/// may have done other things in a longer time.
const LEAST_BETWEEN_MICROS: u64 = 1_000;
const MOST_BETWEEN_MICROS: u64 = 100_000;
/// Whoever has a processor of its own waits less than this from look to look, nanoseconds.
const LEAST_WAIT_NANOS: u64 = 50_000;
/// One pause of a writer: long enough that few of a thousand writes have one.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MICROS: u64 = PAUSE.as_micros() as u64;
const PAUSE_NANOS: u64 = PAUSE.as_nanos() as u64;
/// What readers have waited beyond this is forgotten: writers could not make up for it.
const MOST_OWED_NANOS: u64 = 5 * PAUSE_NANOS;
/// Readers that were last seen waiting so long ago do not wait any more.
const RECENT_MICROS: u64 = 50_000;

thread_local! {
    static THREAD: ThreadLooks = const { ThreadLooks::new() };
}

/// What a thread knows of itself.
#[derive(Debug)]
struct ThreadLooks {
    has_written: Cell<bool>,
    reads: Cell<u32>,
    /// The last look: when, on the monotonic clock, and how long the thread had waited by then.
    last: Cell<Option<(u64, u64)>>,
}

impl ThreadLooks {
    const fn new() -> Self {
        Self {
            has_written: Cell::new(false),
            reads: Cell::new(0),
            last: Cell::new(None),
        }
    }

    /// Counts reads; whether it is time for a look.
    fn add(&self, reads: u32) -> bool {
        let sum = self.reads.get().saturating_add(reads);
        let is_due = sum >= READS_PER_LOOK;
        self.reads.set(if is_due { 0 } else { sum });
        is_due
    }

    /// How long the thread has waited since the last look, nanoseconds; 0 if that says nothing.
    fn look(&self, now_micros: u64, waited_nanos: impl FnOnce() -> Option<u64>) -> u64 {
        if self.has_written.take() {
            self.last.set(None);
            return 0;
        }
        let since = |(then, _)| now_micros.saturating_sub(then);
        let elapsed = self.last.get().map(since);
        if elapsed.is_some_and(|elapsed| elapsed < LEAST_BETWEEN_MICROS) {
            return 0;
        }
        let Some(waited) = waited_nanos() else {
            return 0;
        };
        match self.last.replace(Some((now_micros, waited))) {
            Some((_, before)) if elapsed <= Some(MOST_BETWEEN_MICROS) => {
                waited.saturating_sub(before)
            }
            _ => 0,
        }
    }
}

/// The calling thread writes: what it waits for a processor is no reader's waiting.
#[inline]
pub(crate) fn note_write() {
    THREAD.with(|thread| thread.has_written.set(true));
}

/// What the readers of a database have waited lately.
#[derive(Debug, Default)]
pub(crate) struct ReaderWaits {
    /// What writers have not waited yet of it, nanoseconds.
    owed_nanos: AtomicU64,
    /// When a reader was last seen to have waited, on the monotonic clock; 0: not lately.
    noted_micros: AtomicU64,
}

impl ReaderWaits {
    pub(crate) fn note(&self, waited_nanos: u64, now_micros: u64) {
        // What was owed before a time in which nobody waited is not made up for now.
        let owed = match self.are_recent(now_micros) {
            true => self.owed_nanos.load(Relaxed).saturating_add(waited_nanos),
            false => waited_nanos,
        };
        // Of two readers at once one may be forgotten: that is a few milliseconds.
        self.owed_nanos.store(owed.min(MOST_OWED_NANOS), Relaxed);
        self.noted_micros.store(now_micros.max(1), Relaxed);
    }

    /// Whether readers may be waiting: what a writer can afford to ask every time.
    #[inline]
    pub(crate) fn are_noted(&self) -> bool {
        self.noted_micros.load(Relaxed) != 0
    }

    /// Whether readers were seen waiting lately. What they waited before that is forgotten.
    pub(crate) fn are_recent(&self, now_micros: u64) -> bool {
        let noted = self.noted_micros.load(Relaxed);
        let is_recent = noted != 0 && now_micros.saturating_sub(noted) <= RECENT_MICROS;
        if !is_recent {
            self.owed_nanos.store(0, Relaxed);
            self.noted_micros.store(0, Relaxed);
        }
        is_recent
    }

    #[inline]
    fn is_pause_due(&self) -> bool {
        self.owed_nanos.load(Relaxed) >= PAUSE_NANOS
    }

    /// Whether a writer is to make a pause now, where the last one ended at `rested_micros`.
    fn take_pause(&self, now_micros: u64, rested_micros: u64) -> bool {
        let is_rested = now_micros.saturating_sub(rested_micros) < PAUSE_MICROS;
        if is_rested || !self.are_recent(now_micros) || !self.is_pause_due() {
            return false;
        }
        let owed = self.owed_nanos.load(Relaxed);
        self.owed_nanos
            .store(owed.saturating_sub(PAUSE_NANOS), Relaxed);
        true
    }
}

impl Engine {
    /// Counts reads of the calling thread while somebody writes.
    pub(crate) fn note_reads_beside_writes(&self, reads: u32) {
        if THREAD.with(|thread| thread.add(reads)) {
            self.look_at_reader();
        }
    }

    #[cold]
    fn look_at_reader(&self) {
        let now = self.clock.monotonic_micros();
        let ask = || self.executor.processor_wait_nanos();
        let waited = THREAD.with(|thread| thread.look(now, ask));
        if waited >= LEAST_WAIT_NANOS && self.background.is_working() {
            self.reader_waits.note(waited, now);
        }
    }

    /// Makes a pause where readers have waited as long. `rested_micros` is when the last one ended. Called by the
    /// leader with the writer lock held.
    #[inline]
    pub(crate) fn wait_as_readers_do(&self, rested_micros: &mut u64) {
        if self.reader_waits.is_pause_due() {
            self.pause_for_readers(rested_micros);
        }
    }

    #[cold]
    fn pause_for_readers(&self, rested_micros: &mut u64) {
        let now = self.clock.monotonic_micros();
        if self.reader_waits.take_pause(now, *rested_micros) {
            self.clock.sleep(PAUSE);
            self.note_stalled(PAUSE);
            *rested_micros = self.clock.monotonic_micros();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_looks_when_it_has_read_often() {
        let thread = ThreadLooks::new();
        let looks = (0..READS_PER_LOOK).filter(|_| thread.add(4)).count();
        assert_eq!(looks, 4);
        assert!(thread.add(u32::MAX));
        assert!(!thread.add(READS_PER_LOOK - 1));
        assert!(thread.add(1));
    }

    #[test]
    fn only_what_a_reader_waited_between_two_looks_counts() {
        let thread = ThreadLooks::new();
        let look = |now, waited| thread.look(now, || Some(waited));
        assert_eq!(look(5_000, 900_000), 0, "the first look");
        assert_eq!(look(8_000, 1_000_000), 100_000);
        assert_eq!(thread.look(8_900, || panic!("too soon")), 0);
        assert_eq!(look(10_000, 1_300_000), 300_000);
        assert_eq!(
            look(10_000 + MOST_BETWEEN_MICROS + 1, 9_000_000),
            0,
            "of other times"
        );
        assert_eq!(look(120_000, 9_000_007), 7);
        assert_eq!(thread.look(130_000, || None), 0, "the system does not say");
        thread.has_written.set(true);
        assert_eq!(look(140_000, 9_900_000), 0, "it has written");
        assert_eq!(look(150_000, 9_900_001), 0, "the first look since then");
        assert_eq!(look(160_000, 9_900_003), 2);
    }

    #[test]
    fn writers_wait_as_long_as_readers_and_half_of_the_time_at_most() {
        let waits = ReaderWaits::default();
        assert!(!waits.are_noted() && !waits.take_pause(9_000, 0));
        let mut rested = 0;
        let mut paused = 0;
        // A reader that waits half of the time, for a second.
        for now in (10_000..1_010_000u64).step_by(500) {
            waits.note(250_000, now);
            if now >= rested && waits.take_pause(now, rested) {
                paused += PAUSE_MICROS;
                rested = now + PAUSE_MICROS;
            }
        }
        assert!(waits.are_noted());
        assert!(
            (480_000..=500_000).contains(&paused),
            "{paused} microseconds"
        );
        // Ten that wait all of it, and one that waits a hundredth.
        for (each, most) in [(5_000_000, 500_000), (5_000, 10_000)] {
            let waits = ReaderWaits::default();
            let (mut rested, mut paused) = (0, 0);
            for now in (10_000..1_010_000u64).step_by(500) {
                waits.note(each, now);
                if now >= rested && waits.take_pause(now, rested) {
                    paused += PAUSE_MICROS;
                    rested = now + PAUSE_MICROS;
                }
            }
            assert!(
                (most * 8 / 10..=most).contains(&paused),
                "{paused} microseconds"
            );
        }
    }

    #[test]
    fn what_readers_waited_is_forgotten_when_they_do_not_wait_any_more() {
        let waits = ReaderWaits::default();
        waits.note(3 * PAUSE_NANOS, 1_000_000);
        assert!(waits.are_recent(1_000_000 + RECENT_MICROS));
        assert!(waits.take_pause(1_000_000 + RECENT_MICROS, 0));
        assert!(!waits.take_pause(1_000_001 + RECENT_MICROS, 0));
        assert!(!waits.are_noted() && !waits.is_pause_due());
        // Also where no writer has looked in the meantime.
        waits.note(PAUSE_NANOS, 1_500_000);
        waits.note(1, 1_500_001 + RECENT_MICROS);
        assert!(!waits.is_pause_due());
        // Nor is more kept than can be made up for.
        waits.note(u64::MAX, 2_000_000);
        let pauses = (0..100).filter(|_| waits.take_pause(2_000_000, 0));
        assert_eq!(pauses.count() as u64, MOST_OWED_NANOS / PAUSE_NANOS);
    }
}

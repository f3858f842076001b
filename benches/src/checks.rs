//! Whether what the engine answered is right, counted per worker.
//!
//! Invariant: an answer that contradicts the acknowledged writes is a failure, and one failure
//! makes the run fail. A stored value is checked for its key, generation and length each time, and
//! byte for byte once in [`WHOLE_EVERY`] times (always, by `verify`).

use crate::expectations::{ABSENT, Expectations, MAX_KEYS, UNKNOWN};
use crate::keys::Keys;
use crate::values::{Defect, Values};
use serde::{Deserialize, Serialize};

/// One value in this many is compared whole.
pub const WHOLE_EVERY: u32 = 64;
/// So many keys of a gap are looked at where a short scan passed over it: the rest would cost more
/// than the scan.
const SHORT_SCAN_GAP: usize = 256;
/// So many failures are described; the rest are counted.
const DESCRIBED_FAILURES: usize = 5;

/// What the checks of a phase found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Answers that were checked.
    pub checked: u64,
    /// Values of these that were compared byte for byte.
    pub compared_whole: u64,
    /// Answers that were wrong.
    pub failures: u64,
    /// The first few failures, in words.
    pub first_failures: Vec<String>,
}

impl CheckReport {
    /// Adds another worker's findings.
    pub fn merge(&mut self, other: CheckReport) {
        self.checked += other.checked;
        self.compared_whole += other.compared_whole;
        self.failures += other.failures;
        let room = DESCRIBED_FAILURES.saturating_sub(self.first_failures.len());
        self.first_failures
            .extend(other.first_failures.into_iter().take(room));
    }
}

/// The checks of one worker in one phase.
#[derive(Debug)]
pub struct Checks<'a> {
    expectations: &'a Expectations,
    values: &'a Values,
    /// What is written while this worker reads, if anything is.
    writing: Option<u8>,
    until_whole: u32,
    whole_every: u32,
    report: CheckReport,
}

impl<'a> Checks<'a> {
    /// Checks against `expectations`; `writing` is the generation that the phase writes, if it
    /// does: keys may change into it at any moment.
    #[must_use]
    pub fn new(expectations: &'a Expectations, values: &'a Values, writing: Option<u8>) -> Self {
        let (until_whole, whole_every) = (WHOLE_EVERY, WHOLE_EVERY);
        let report = CheckReport::default();
        Self {
            expectations,
            values,
            writing,
            until_whole,
            whole_every,
            report,
        }
    }

    /// Compares every value whole from now on.
    pub fn compare_all_whole(&mut self) {
        self.until_whole = 1;
        self.whole_every = 1;
    }

    /// The state of key `index`: load it before the read that [`Checks::answer`] judges.
    #[inline]
    #[must_use]
    pub fn before(&self, index: u64) -> u8 {
        self.expectations.get(index)
    }

    /// Judges the answer to a point read of key `index`, which was in state `before` when the read
    /// began. Returns whether the key was found.
    #[inline]
    pub fn answer(&mut self, index: u64, before: u8, answer: Option<&[u8]>) -> bool {
        match answer {
            Some(value) => {
                self.value(index, before, value);
                true
            }
            None => {
                self.report.checked += 1;
                if before != ABSENT && before != UNKNOWN {
                    self.fail(|| format!("key {index} of generation {before} was not found"));
                }
                false
            }
        }
    }

    /// Judges a value that was read for key `index`.
    #[inline]
    pub fn value(&mut self, index: u64, before: u8, value: &[u8]) {
        self.report.checked += 1;
        self.until_whole -= 1;
        let whole = self.until_whole == 0;
        if whole {
            self.until_whole = self.whole_every;
            self.report.compared_whole += 1;
        }
        if let Err(defect) = self.values.check(index, value, whole) {
            self.defect(index, value, defect);
            return;
        }
        if before == UNKNOWN {
            return;
        }
        if value.len() != self.values.value_bytes() {
            let bytes = value.len();
            self.fail(|| format!("the value of key {index} has {bytes} bytes"));
        }
        let generation = Values::generation(value).unwrap_or(before);
        if generation != before && Some(generation) != self.writing {
            self.fail(|| {
                if before == ABSENT {
                    format!("key {index} was found in generation {generation}, but is deleted")
                } else {
                    format!("key {index} is of generation {before}, {generation} was found")
                }
            });
        }
    }

    /// Judges the answer for a key that nobody ever wrote.
    #[inline]
    pub fn missing(&mut self, key: &[u8], answer: Option<&[u8]>) {
        self.report.checked += 1;
        if answer.is_some() {
            let key = String::from_utf8_lossy(key).into_owned();
            self.fail(|| format!("the key {key:?} was found and never written"));
        }
    }

    /// Counts a failure of another kind.
    pub fn fail(&mut self, describe: impl FnOnce() -> String) {
        self.report.failures += 1;
        if self.report.first_failures.len() < DESCRIBED_FAILURES {
            self.report.first_failures.push(describe());
        }
    }

    #[cold]
    fn defect(&mut self, index: u64, value: &[u8], defect: Defect) {
        let bytes = value.len();
        self.fail(|| match defect {
            Defect::Header => {
                format!("the value read for key {index} ({bytes} bytes) is not one of that key")
            }
            Defect::Contents => format!("the value of key {index} has a wrong byte"),
        });
    }

    /// What was found.
    #[must_use]
    pub fn into_report(self) -> CheckReport {
        self.report
    }
}

/// Follows one scan: order, completeness and every value.
#[derive(Debug)]
pub struct ScanChecks {
    keys: Keys,
    forward: bool,
    gap_limit: usize,
    /// Forwards: the smallest index that may come next. Backwards: one above the largest.
    edge: u64,
    entries: u64,
    bytes: u64,
}

impl ScanChecks {
    /// Follows a forward scan that begins at the first key at or after index `from`.
    #[must_use]
    pub fn forward(keys: Keys, from: u64) -> Self {
        Self::new(keys, true, from)
    }

    /// Follows a backward scan that begins at the last key below index `below`.
    #[must_use]
    pub fn backward(keys: Keys, below: u64) -> Self {
        Self::new(keys, false, below)
    }

    /// Follows a forward scan of a few entries: looks at the first part of a long gap only.
    #[must_use]
    pub fn short(keys: Keys, from: u64) -> Self {
        Self {
            gap_limit: SHORT_SCAN_GAP,
            ..Self::new(keys, true, from)
        }
    }

    fn new(keys: Keys, forward: bool, edge: u64) -> Self {
        Self {
            keys,
            forward,
            gap_limit: usize::MAX,
            edge,
            entries: 0,
            bytes: 0,
        }
    }

    /// Judges the next entry.
    #[inline]
    pub fn entry(&mut self, checks: &mut Checks<'_>, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.bytes += (key.len() + value.len()) as u64;
        let index = self.keys.parse(key).filter(|&index| index < MAX_KEYS);
        let Some(index) = index else {
            let key = String::from_utf8_lossy(key).into_owned();
            checks.fail(|| format!("a scan found the key {key:?}, which nobody wrote"));
            return;
        };
        let state = checks.before(index);
        if self.forward {
            if index < self.edge {
                return self.out_of_order(checks, index);
            }
            if index > self.edge {
                self.gap(checks, self.edge..index);
            }
            self.edge = index + 1;
        } else {
            if index >= self.edge {
                return self.out_of_order(checks, index);
            }
            if index + 1 < self.edge {
                self.gap(checks, index + 1..self.edge);
            }
            self.edge = index;
        }
        checks.value(index, state, value);
    }

    /// The scan came to its end: whatever lies between its last entry and `bound` must be absent.
    /// Forwards, `bound` is one above the last index of the scan's part; backwards, the first one.
    pub fn end(&mut self, checks: &mut Checks<'_>, bound: u64) {
        match self.forward {
            true => self.gap(checks, self.edge..bound),
            false => self.gap(checks, bound..self.edge),
        }
    }

    /// How many entries came, and their bytes.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.entries, self.bytes)
    }

    #[cold]
    fn out_of_order(&self, checks: &mut Checks<'_>, index: u64) {
        let (edge, entries) = (self.edge, self.entries);
        checks.fail(|| {
            format!("entry {entries} of a scan is key {index}, out of order at the edge {edge}")
        });
    }

    /// Keys that the scan passed over: none of them may be live. A key in the generation that is
    /// being written may have come after the scan took its view.
    fn gap(&self, checks: &mut Checks<'_>, passed: std::ops::Range<u64>) {
        for index in passed.take(self.gap_limit) {
            let state = checks.before(index);
            if state == ABSENT || state == UNKNOWN || Some(state) == checks.writing {
                continue;
            }
            checks.fail(|| format!("a scan passed over key {index} of generation {state}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyBuffer;

    struct World {
        expectations: Expectations,
        values: Values,
    }

    impl World {
        fn new() -> Self {
            let expectations = Expectations::new(ABSENT);
            for index in [1, 2, 5] {
                expectations.set(index, 3);
            }
            Self {
                expectations,
                values: Values::new(100, 0.5),
            }
        }

        fn value(&self, index: u64, generation: u8) -> Vec<u8> {
            let mut value = Vec::new();
            self.values.write(index, generation, &mut value);
            value
        }

        fn failures(&self, writing: Option<u8>, act: impl FnOnce(&mut Checks<'_>)) -> u64 {
            let mut checks = Checks::new(&self.expectations, &self.values, writing);
            act(&mut checks);
            checks.into_report().failures
        }

        fn scan(&self, writing: Option<u8>, forward: bool, indexes: &[u64]) -> u64 {
            self.failures(writing, |checks| {
                let mut scan = match forward {
                    true => ScanChecks::forward(Keys::decimal(16), 0),
                    false => ScanChecks::backward(Keys::decimal(16), 10),
                };
                let mut key = KeyBuffer::new(Keys::decimal(16));
                for &index in indexes {
                    scan.entry(checks, key.set(index), &self.value(index, 3));
                }
                scan.end(checks, if forward { 10 } else { 0 });
            })
        }
    }

    #[test]
    fn point_reads_are_judged_by_the_state_before_them() {
        let world = World::new();
        let cases: [(u64, Option<u8>, Option<u8>, u64); 8] = [
            // (key, generation found, generation being written, failures)
            (1, Some(3), None, 0),
            (1, Some(2), None, 1),
            (1, Some(4), None, 1),
            (1, Some(4), Some(4), 0),
            (1, None, Some(4), 1),
            (3, None, None, 0),
            (3, Some(3), None, 1),
            (3, Some(4), Some(4), 0),
        ];
        for case in cases {
            let (index, found, writing, failures) = case;
            let value = found.map(|generation| world.value(index, generation));
            let got = world.failures(writing, |checks| {
                let before = checks.before(index);
                checks.answer(index, before, value.as_deref());
            });
            assert_eq!(got, failures, "{case:?}");
        }
    }

    #[test]
    fn a_value_of_another_length_is_wrong_where_the_state_is_known() {
        let world = World::new();
        let mut long = Vec::new();
        Values::new(200, 0.5).write(1, 3, &mut long);
        assert_eq!(world.failures(None, |checks| checks.value(1, 3, &long)), 1);
        assert_eq!(
            world.failures(None, |checks| checks.value(1, UNKNOWN, &long)),
            0
        );
    }

    #[test]
    fn one_value_in_many_is_compared_whole() {
        let world = World::new();
        let mut damaged = world.value(1, 3);
        damaged[60] ^= 1;
        let many = u64::from(WHOLE_EVERY) * 10;
        let failures = world.failures(None, |checks| {
            (0..many).for_each(|_| checks.value(1, 3, &damaged));
        });
        assert_eq!(failures, 10);
    }

    #[test]
    fn scans_must_be_complete_and_in_order() {
        let world = World::new();
        for (forward, right) in [(true, [1, 2, 5]), (false, [5, 2, 1])] {
            assert_eq!(world.scan(None, forward, &right), 0);
            assert_eq!(
                world.scan(None, forward, &right[..2]),
                1,
                "the end is missing"
            );
            assert_eq!(
                world.scan(None, forward, &right[1..]),
                1,
                "the beginning is missing"
            );
            assert_eq!(
                world.scan(None, forward, &[right[0], right[2]]),
                1,
                "one left out"
            );
            assert_eq!(world.scan(None, forward, &[]), 3);
            let [a, b, c] = right;
            assert_eq!(world.scan(None, forward, &[a, b, b, c]), 1, "one twice");
            assert!(world.scan(None, forward, &[b, a, c]) > 0, "out of order");
            assert_eq!(
                world.scan(Some(3), forward, &[a]),
                0,
                "may have come after the view"
            );
        }
        assert!(world.scan(None, true, &[1, 2, 4, 5]) > 0, "a deleted key");
    }
}

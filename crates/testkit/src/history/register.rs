//! Single keys that are put and got by several threads: whether the history is linearizable.
//!
//! Invariant: all puts of a key in a history have different values, so that a get says which put it
//! saw. Each value has a *zone*, from the first end of an operation on it to the last begin of one. A
//! zone that runs forwards (somebody was done with the value before somebody else began with it) is
//! time during which the key had that value for certain; the history is linearizable if and only if
//! no two such overlap and no zone that runs backwards lies within one.

use std::collections::BTreeMap;
use std::fmt;

/// The number of a value; [`INITIAL`] is what the key had before its first put.
pub type ValueId = u64;

/// What a key has before anybody puts anything: no value.
pub const INITIAL: ValueId = 0;

/// One put or get of one key, as its thread saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether the value was put; else it was got.
    pub is_put: bool,
    /// Which value.
    pub value: ValueId,
    /// A moment before the call, on a clock that all threads share; above 0.
    pub begun: u64,
    /// A moment after the answer; `u64::MAX` for a put that was never answered.
    pub ended: u64,
}

/// Why no order explains a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// This value was got, and never put.
    NeverPut(ValueId),
    /// This value was got by somebody who was done before its put began.
    TooEarly(ValueId),
    /// The key must have had both values at one moment.
    Both(ValueId, ValueId),
    /// The key had the first value throughout the time in which it had to have the second.
    Within(ValueId, ValueId),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverPut(value) => write!(f, "value {value} was never put"),
            Self::TooEarly(value) => write!(f, "value {value} was got before it was put"),
            Self::Both(one, other) => write!(f, "values {one} and {other} at the same time"),
            Self::Within(one, other) => write!(f, "value {other} in the time of value {one}"),
        }
    }
}

impl std::error::Error for Violation {}

#[derive(Clone, Copy, Debug)]
struct Zone {
    value: ValueId,
    first_end: u64,
    last_begin: u64,
}

/// Whether one order, in which each event happens between its begin and its end, explains `events`.
///
/// ```
/// use esker_testkit::history::register::{Event, INITIAL, check};
///
/// let event = |is_put, value, begun, ended| Event { is_put, value, begun, ended };
/// let put = event(true, 7, 1, 4);
/// assert!(check(&[put, event(false, 7, 2, 3), event(false, 7, 5, 6)]).is_ok());
/// assert!(check(&[put, event(false, INITIAL, 2, 3)]).is_ok());
/// assert!(check(&[put, event(false, INITIAL, 5, 6)]).is_err(), "a stale read");
/// ```
///
/// # Errors
/// What speaks against it.
pub fn check(events: &[Event]) -> Result<(), Violation> {
    let mut puts = BTreeMap::from([(INITIAL, (0, 0))]);
    for event in events.iter().filter(|event| event.is_put) {
        puts.insert(event.value, (event.begun, event.ended));
    }
    let zone = |(value, (begun, ended)): (&ValueId, &(u64, u64))| Zone {
        value: *value,
        first_end: *ended,
        last_begin: *begun,
    };
    let mut zones: BTreeMap<ValueId, Zone> = puts.iter().map(|put| (*put.0, zone(put))).collect();
    for event in events.iter().filter(|event| !event.is_put) {
        let Some(zone) = zones.get_mut(&event.value) else {
            return Err(Violation::NeverPut(event.value));
        };
        if event.ended < puts[&event.value].0 {
            return Err(Violation::TooEarly(event.value));
        }
        zone.first_end = zone.first_end.min(event.ended);
        zone.last_begin = zone.last_begin.max(event.begun);
    }
    // A put that was never answered and never seen may not have happened.
    let happened = |zone: &Zone| zone.first_end != u64::MAX;
    let (forwards, backwards): (Vec<Zone>, Vec<Zone>) = zones
        .into_values()
        .filter(happened)
        .partition(|zone| zone.first_end < zone.last_begin);
    let mut forwards = forwards;
    forwards.sort_by_key(|zone| zone.first_end);
    for pair in forwards.windows(2) {
        if pair[1].first_end < pair[0].last_begin {
            return Err(Violation::Both(pair[0].value, pair[1].value));
        }
    }
    for inner in &backwards {
        let after = forwards.partition_point(|zone| zone.first_end < inner.last_begin);
        if let Some(outer) = after.checked_sub(1).map(|at| forwards[at])
            && inner.first_end < outer.last_begin
        {
            return Err(Violation::Within(outer.value, inner.value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn put(value: ValueId, begun: u64, ended: u64) -> Event {
        Event {
            is_put: true,
            value,
            begun,
            ended,
        }
    }

    fn got(value: ValueId, begun: u64, ended: u64) -> Event {
        Event {
            is_put: false,
            ..put(value, begun, ended)
        }
    }

    #[test]
    fn planted_violations_are_found() {
        let cases = [
            (vec![got(9, 1, 2)], Violation::NeverPut(9)),
            (vec![got(9, 1, 2), put(9, 3, 4)], Violation::TooEarly(9)),
            // Back to the first value after the second was seen.
            (
                vec![put(1, 1, 2), put(2, 3, 4), got(2, 5, 6), got(1, 7, 8)],
                Violation::Both(1, 2),
            ),
            // A put between two gets of the same other value.
            (
                vec![put(1, 1, 2), got(1, 3, 4), put(2, 5, 6), got(1, 7, 8)],
                Violation::Within(1, 2),
            ),
            // Nothing again after a put.
            (
                vec![put(1, 1, 2), got(INITIAL, 3, 4)],
                Violation::Within(INITIAL, 1),
            ),
        ];
        for (events, expected) in cases {
            assert_eq!(check(&events), Err(expected), "{events:?}");
        }
    }

    #[test]
    fn a_put_without_answer_may_have_happened_or_not() {
        let unanswered = put(1, 1, u64::MAX);
        assert_eq!(check(&[unanswered, got(INITIAL, 5, 6)]), Ok(()));
        assert_eq!(
            check(&[unanswered, got(INITIAL, 5, 6), got(1, 7, 8)]),
            Ok(())
        );
        assert!(check(&[unanswered, got(1, 5, 6), got(INITIAL, 7, 8)]).is_err());
    }

    /// Tries every order: what the zones are measured by.
    fn has_order(events: &[Event], current: ValueId, done: u32) -> bool {
        if done.count_ones() as usize == events.len() {
            return true;
        }
        let open = |at: usize| done & (1 << at) == 0;
        let ends = (0..events.len()).filter(|at| open(*at));
        let first_end = ends.map(|at| events[at].ended).min().unwrap_or(u64::MAX);
        (0..events.len()).any(|at| {
            let event = &events[at];
            let next = if event.is_put { event.value } else { current };
            open(at)
                && event.begun <= first_end
                && (event.is_put || event.value == current)
                && has_order(events, next, done | 1 << at)
        })
    }

    #[test]
    fn zones_agree_with_trying_every_order() {
        let mut verdicts = [0; 2];
        for seed in 0..4000 {
            let mut random = Random::new(seed);
            let puts = 1 + random.below(3);
            let mut moments: Vec<u64> = (1..=14).collect();
            let mut event = |is_put, value| {
                let mut draw = || moments.swap_remove(random.index(moments.len()));
                let (a, b) = (draw(), draw());
                Event {
                    is_put,
                    value,
                    begun: a.min(b),
                    ended: a.max(b),
                }
            };
            let mut events: Vec<_> = (1..=puts).map(|value| event(true, value)).collect();
            for get in 0..(7 - puts).min(4) {
                events.push(event(false, (seed / 7 + get * seed) % (puts + 1)));
            }
            let expected = has_order(&events, INITIAL, 0);
            assert_eq!(check(&events).is_ok(), expected, "seed {seed}: {events:?}");
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts[0] > 300 && verdicts[1] > 300, "{verdicts:?}");
    }
}

//! The oracle against hand-made states, and against a slow one that tries every choice.

use super::*;
use crate::seed::{Random, seeds};

fn put(key: &str, value: &str) -> Action {
    Action::Put {
        keyspace: 0,
        key: key.into(),
        value: value.into(),
        ttl_millis: None,
    }
}

fn delete(key: &str) -> Action {
    Action::Delete {
        keyspace: 0,
        key: key.into(),
    }
}

fn delete_range(start: &str, end: &str) -> Action {
    Action::DeleteRange {
        keyspace: 0,
        start: start.into(),
        end: end.into(),
    }
}

/// `a=1 b=2`
fn state(text: &str) -> State {
    let pairs = text
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| ((0, key.into()), value.into()))
        .collect()
}

fn power(moment: usize) -> Crash {
    Crash {
        moment,
        loss: Loss::Power,
        now_millis: 0,
    }
}

fn process(moment: usize) -> Crash {
    Crash {
        loss: Loss::Process,
        ..power(moment)
    }
}

/// Writes one after the other, ten moments each: begun at 10 i, acknowledged at 10 i + 5.
fn oracle(writes: &[(Durability, &[Action])]) -> Oracle {
    let mut oracle = Oracle::new();
    for (index, (durability, actions)) in writes.iter().enumerate() {
        let id = oracle.begin(index * 10, 0, *durability, actions.to_vec());
        oracle.acknowledge(id, index * 10 + 5);
    }
    oracle
}

#[test]
fn a_synced_write_has_to_be_there_with_all_before_it() {
    use Durability::{Buffered, Sync};
    let oracle = oracle(&[
        (Buffered, &[put("a", "1")]),
        (Sync, &[put("b", "2")]),
        (Buffered, &[put("c", "3")]),
    ]);
    let cases = [
        ("", 0, true),
        ("a=1", 0, false),
        ("", 15, false),
        ("a=1", 4, true),
        ("a=1", 14, true),
        ("a=1 b=2", 14, true),
        ("b=2", 14, false),
        ("a=1", 15, false),
        ("a=1 b=2", 15, true),
        ("a=1 b=2 c=3", 20, false),
        ("a=1 b=2 c=3", 21, true),
        ("a=1 b=2", 100, true),
        ("a=1 b=2 c=4", 100, false),
        ("a=1 b=2 d=4", 100, false),
    ];
    for (found, moment, legal) in cases {
        let result = oracle.check(&state(found), &power(moment));
        assert_eq!(result.is_ok(), legal, "{found:?} at {moment}: {result:?}");
    }
    assert!(oracle.check(&state("a=1 b=2"), &process(100)).is_err());
    assert!(oracle.check(&state("a=1 b=2 c=3"), &process(100)).is_ok());
}

#[test]
fn batches_are_whole_and_their_last_action_counts() {
    let batch = [
        delete_range("a", "z"),
        put("b", "0"),
        put("b", "2"),
        put("c", "3"),
        delete("c"),
    ];
    let oracle = oracle(&[
        (Durability::Sync, &[put("a", "1"), put("c", "1")]),
        (Durability::Buffered, &batch),
    ]);
    for (found, legal) in [
        ("a=1 c=1", true),
        ("b=2", true),
        ("a=1 b=2", false),
        ("b=2 c=3", false),
        ("b=0", false),
    ] {
        assert_eq!(
            oracle.check(&state(found), &power(100)).is_ok(),
            legal,
            "{found}"
        );
    }
    assert_eq!(oracle.state(0), state("b=2"));
    assert_eq!(oracle.get(0, b"b", 0), Some(&b"2"[..]));
    assert_eq!(oracle.get(0, b"c", 0), None);
    assert_eq!(oracle.get(1, b"b", 0), None, "keyspaces are apart");
}

#[test]
fn what_is_deleted_does_not_return() {
    use Durability::Sync;
    let oracle = oracle(&[
        (Sync, &[put("a", "1"), put("b", "1")]),
        (Sync, &[delete("a")]),
        (Sync, &[delete_range("b", "c")]),
    ]);
    assert!(oracle.check(&state(""), &power(100)).is_ok());
    for found in ["a=1", "b=1", "a=1 b=1"] {
        let violation = oracle.check(&state(found), &power(100)).unwrap_err();
        assert_eq!((violation.least, violation.most), (3, 3));
        assert!(
            violation.to_string().contains("should be nothing"),
            "{violation}"
        );
    }
}

#[test]
fn expired_keys_are_not_expected() {
    let mut oracle = Oracle::new();
    let write = Action::Put {
        keyspace: 0,
        key: b"a".to_vec(),
        value: b"1".to_vec(),
        ttl_millis: Some(10),
    };
    let id = oracle.begin(0, 1000, Durability::Sync, vec![write]);
    oracle.acknowledge(id, 1);
    for (now_millis, lives) in [(1009, true), (1010, false)] {
        let crash = Crash {
            now_millis,
            ..power(5)
        };
        assert_eq!(oracle.check(&state("a=1"), &crash).is_ok(), lives);
        assert_eq!(oracle.check(&state(""), &crash).is_ok(), !lives);
        assert_eq!(
            oracle.state(now_millis),
            state(if lives { "a=1" } else { "" })
        );
    }
}

#[test]
fn volatile_writes_outlive_nothing_but_a_flush() {
    use Durability::{Sync, Volatile};
    let mut oracle = oracle(&[
        (Volatile, &[put("a", "1")]),
        (Sync, &[put("b", "2")]),
        (Volatile, &[put("c", "3")]),
    ]);
    let check = |oracle: &Oracle, found: &str, crash: Crash| {
        let result = oracle.check(&state(found), &crash);
        assert_eq!(
            oracle.check(
                &state(found),
                &Crash {
                    loss: Loss::Process,
                    ..crash
                }
            ),
            result
        );
        result.is_ok()
    };
    for (found, legal) in [
        ("b=2", true),
        ("a=1 b=2", true),
        ("a=1 b=2 c=3", true),
        ("b=2 c=3", false),
        ("a=1", false),
    ] {
        assert_eq!(check(&oracle, found, power(29)), legal, "{found}");
    }
    oracle.flushed(30);
    assert!(check(&oracle, "b=2", power(29)));
    assert!(!check(&oracle, "b=2", power(30)));
    assert!(check(&oracle, "a=1 b=2 c=3", power(30)));
}

#[test]
fn a_failed_write_is_there_or_not_but_whole() {
    use Durability::Sync;
    let mut oracle = oracle(&[(Sync, &[put("a", "1")])]);
    let failed = oracle.begin(10, 0, Sync, vec![put("a", "2"), put("b", "2")]);
    oracle.fail(failed);
    assert_eq!(oracle.state(0), state("a=1"));
    let later = oracle.begin(20, 0, Sync, vec![put("c", "3")]);
    oracle.acknowledge(later, 25);
    for (found, legal) in [
        ("a=1 c=3", true),
        ("a=2 b=2 c=3", true),
        ("a=2 c=3", false),
        ("a=1 b=2 c=3", false),
        ("a=2 b=2", false),
    ] {
        assert_eq!(
            oracle.check(&state(found), &power(100)).is_ok(),
            legal,
            "{found}"
        );
    }
}

#[test]
fn a_recovered_oracle_goes_on_from_what_was_found() {
    use Durability::{Buffered, Sync};
    let mut first = oracle(&[(Sync, &[put("a", "1")]), (Buffered, &[put("b", "2")])]);
    let failed = first.begin(20, 0, Sync, vec![put("c", "3")]);
    first.fail(failed);
    for found in ["a=1", "a=1 b=2", "a=1 b=2 c=3"] {
        let outcome = first.check(&state(found), &power(100)).unwrap();
        let mut second = first.recovered(&outcome);
        assert_eq!(second.state(0), state(found));
        // What was recovered is durable: recovery itself must not lose it.
        assert!(second.check(&state(found), &power(0)).is_ok());
        assert!(second.check(&state(""), &power(100)).is_err());
        let id = second.begin(1, 0, Sync, vec![delete("a")]);
        second.acknowledge(id, 2);
        assert!(second.check(&state(found), &power(2)).is_err());
    }
}

/// Tries every choice that the rules allow, forwards, as they are written down.
fn slow_check(oracle: &Oracle, found: &State, crash: &Crash) -> bool {
    let flushed =
        |(moment, writes): &(usize, usize)| if *moment <= crash.moment { *writes } else { 0 };
    let flushed = oracle.flushes.iter().map(flushed).max().unwrap_or(0);
    let begun = oracle
        .writes
        .iter()
        .filter(|write| write.begun < crash.moment)
        .count();
    (0..=begun).any(|prefix| {
        let late = &oracle.writes[prefix..];
        if prefix < flushed || late.iter().any(|write| write.must_survive(crash)) {
            return false;
        }
        (flushed..=prefix).any(|volatile_prefix| {
            let failed: Vec<usize> = (0..prefix)
                .filter(|at| oracle.writes[*at].answer == Answer::Failed)
                .collect();
            (0..1u32 << failed.len()).any(|choice| {
                let failed = failed.iter().enumerate();
                let failed = failed.filter(|(bit, _)| choice >> bit & 1 == 1);
                let failed = failed.map(|(_, at)| WriteId(*at)).collect();
                let outcome = Outcome {
                    prefix,
                    volatile_prefix,
                    failed,
                };
                oracle.recovered(&outcome).state(crash.now_millis) == *found
            })
        })
    })
}

fn random_oracle(random: &mut Random) -> Oracle {
    let key = |random: &mut Random| ["a", "b", "c", "d"][random.index(4)];
    let mut oracle = Oracle::new();
    let mut moment = 0;
    for write in 0..random.index(7) {
        let actions = (0..1 + random.index(2)).map(|_| match random.below(5) {
            0 => delete(key(random)),
            1 => delete_range(key(random), key(random)),
            // Few different values, so that several choices give the same state.
            2 | 3 => put(key(random), ["1", "2"][random.index(2)]),
            _ => {
                let (key, value) = (key(random).into(), write.to_string().into());
                let ttl_millis = Some(random.below(4));
                Action::Put {
                    keyspace: 0,
                    key,
                    value,
                    ttl_millis,
                }
            }
        });
        let actions = actions.collect();
        let class = [Durability::Sync, Durability::Buffered, Durability::Volatile][random.index(3)];
        let id = oracle.begin(moment, random.below(4), class, actions);
        moment += 1 + random.index(2);
        match random.below(4) {
            0 => oracle.fail(id),
            _ => oracle.acknowledge(id, moment),
        }
        if random.chance(6) {
            moment += 1;
            oracle.flushed(moment);
        }
    }
    oracle
}

#[test]
fn agrees_with_trying_every_choice() {
    let (mut legal, mut illegal) = (0, 0);
    for seed in seeds(4000) {
        let mut random = Random::new(seed);
        let oracle = random_oracle(&mut random);
        let loss = [Loss::Power, Loss::Process][random.index(2)];
        let crash = Crash {
            moment: random.index(16),
            loss,
            now_millis: random.below(6),
        };
        // Half of the states are some state of this history, legal here or not.
        let failed = (0..oracle.writes())
            .filter(|_| random.chance(2))
            .map(WriteId)
            .collect();
        let prefix = random.index(oracle.writes() + 1);
        let outcome = Outcome {
            prefix,
            volatile_prefix: random.index(prefix + 1),
            failed,
        };
        let mut found = oracle.recovered(&outcome).state(crash.now_millis);
        if random.chance(2) {
            let key = ["a", "b", "c", "d"][random.index(4)];
            found.insert((0, key.into()), b"1".to_vec());
        }
        let expected = slow_check(&oracle, &found, &crash);
        let result = oracle.check(&found, &crash);
        assert_eq!(
            result.is_ok(),
            expected,
            "seed {seed}: {oracle:#?} {crash:?} {found:?}"
        );
        if let Ok(outcome) = result {
            assert_eq!(
                oracle.recovered(&outcome).state(crash.now_millis),
                found,
                "seed {seed}"
            );
        }
        *if expected { &mut legal } else { &mut illegal } += 1;
    }
    // A single seed that was asked for says nothing about the proportions.
    assert!(
        legal + illegal == 1 || (legal > 500 && illegal > 500),
        "{legal}, {illegal}"
    );
}

//! Planted anomalies, each found by its name, and histories that must pass.

use std::collections::BTreeMap;

use super::*;
use crate::Random;

use Operation::{Append, Read};

/// Committed transactions that all overlap.
fn history(transactions: &[&[Operation]]) -> Vec<Transaction> {
    transactions
        .iter()
        .map(|operations| Transaction {
            operations: operations.to_vec(),
            ending: Ending::Committed,
            begun: 1,
            ended: 2,
        })
        .collect()
}

fn kind(history: &[Transaction], level: Level) -> Option<Kind> {
    check(history, level).err().map(|anomaly| anomaly.kind)
}

#[test]
fn each_planted_anomaly_is_found_by_its_name() {
    let read = |list, elements: &[u64]| Read(list, elements.to_vec());
    let cases: Vec<(Kind, Vec<Transaction>)> = vec![
        (Kind::Internal, history(&[&[Append(1, 1), read(1, &[])]])),
        (
            Kind::Internal,
            history(&[&[read(1, &[]), read(1, &[5])], &[Append(1, 5)]]),
        ),
        (Kind::Garbage, history(&[&[read(1, &[7])]])),
        (
            Kind::Garbage,
            history(&[&[Append(1, 7)], &[read(1, &[7, 7])]]),
        ),
        (
            Kind::IncompatibleOrder,
            history(&[
                &[Append(1, 1)],
                &[Append(1, 2)],
                &[read(1, &[1, 2])],
                &[read(1, &[2])],
            ]),
        ),
        // Each overwrites the other.
        (
            Kind::G0,
            history(&[
                &[Append(1, 1), Append(2, 2)],
                &[Append(1, 3), Append(2, 4)],
                &[read(1, &[1, 3]), read(2, &[4, 2])],
            ]),
        ),
        (
            Kind::G1b,
            history(&[&[Append(1, 1), Append(1, 2)], &[read(1, &[1])]]),
        ),
        // Each reads what the other wrote.
        (
            Kind::G1c,
            history(&[
                &[Append(1, 1), read(2, &[2])],
                &[Append(2, 2), read(1, &[1])],
            ]),
        ),
        // Half of another's writes: a batch that was seen before it was whole.
        (
            Kind::GSingle,
            history(&[
                &[Append(1, 1), Append(2, 2)],
                &[read(1, &[1]), read(2, &[])],
                &[read(2, &[2])],
            ]),
        ),
        // A lost update.
        (
            Kind::GSingle,
            history(&[
                &[read(1, &[]), Append(1, 1)],
                &[read(1, &[]), Append(1, 2)],
                &[read(1, &[1, 2])],
            ]),
        ),
    ];
    for (expected, history) in cases {
        assert_eq!(
            kind(&history, Level::Snapshot),
            Some(expected),
            "{history:?}"
        );
        assert_eq!(
            kind(&history, Level::StrictSerializable),
            Some(expected),
            "{history:?}"
        );
    }
}

#[test]
fn an_aborted_write_must_not_be_seen_and_an_unknown_one_may_be() {
    let mut it = history(&[&[Append(1, 1)], &[Read(1, vec![1])]]);
    assert_eq!(kind(&it, Level::StrictSerializable), None);
    it[0].ending = Ending::Aborted;
    assert_eq!(kind(&it, Level::Snapshot), Some(Kind::G1a));
    it[0].ending = Ending::Unknown;
    assert_eq!(kind(&it, Level::StrictSerializable), None);
    it[1].operations = vec![Read(1, vec![])];
    it[1].begun = 5;
    assert_eq!(kind(&it, Level::StrictSerializable), None);
}

#[test]
fn real_time_counts_for_the_strict_level_alone() {
    let mut it = history(&[&[Append(1, 1)], &[Read(1, vec![])], &[Read(1, vec![1])]]);
    assert_eq!(kind(&it, Level::StrictSerializable), None);
    it[1].begun = 3;
    it[1].ended = 4;
    assert_eq!(kind(&it, Level::Serializable), None);
    assert_eq!(
        kind(&it, Level::StrictSerializable),
        Some(Kind::RealTime),
        "a stale read"
    );
    it.truncate(2);
    assert_eq!(kind(&it, Level::Serializable), None);
    assert_eq!(
        kind(&it, Level::StrictSerializable),
        Some(Kind::LostWrite),
        "an acknowledged write that nobody ever finds"
    );
}

/// Transactions that truly run one after the other, told with times that overlap.
#[test]
fn serial_histories_pass_and_lose_their_order_when_a_read_is_changed() {
    let mut found = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut lists: BTreeMap<ListId, Vec<Element>> = BTreeMap::new();
        let mut history = Vec::new();
        for number in 0..40u64 {
            let mut operations = Vec::new();
            for step in 0..1 + random.below(4) {
                let list = random.below(4);
                let elements = lists.entry(list).or_default();
                if random.chance(2) {
                    elements.push(number * 10 + step);
                    operations.push(Append(list, number * 10 + step));
                } else {
                    operations.push(Read(list, elements.clone()));
                }
            }
            let begun = 10 * number;
            history.push(Transaction {
                operations,
                ending: Ending::Committed,
                begun: begun.saturating_sub(random.below(30)),
                ended: begun + 1 + random.below(30),
            });
        }
        assert_eq!(
            check(&history, Level::StrictSerializable),
            Ok(()),
            "seed {seed}"
        );
        // The last read of all forgets what it saw last: too old by one write at least.
        let reads = history.iter_mut().flat_map(|it| it.operations.iter_mut());
        let last = reads.rev().find_map(|operation| match operation {
            Read(_, elements) if !elements.is_empty() => Some(elements),
            _ => None,
        });
        last.unwrap().pop();
        found += u32::from(check(&history, Level::StrictSerializable).is_err());
    }
    assert!(found > 150, "{found} of 300 stale reads were found");
}

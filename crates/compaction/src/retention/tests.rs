//! Retention against a model: whatever a reader saw before, it sees after.

use std::collections::BTreeSet;
use std::sync::Arc;

use esker_base::merge_operator::{Associative, AssociativeMerge};
use esker_base::operand_chain::OperandChain;
use esker_base::table_meta::TableMeta;
use proptest::prelude::*;

use super::*;
use crate::compaction_filter::{CompactionFilter, FilterDecision, Filters};
use crate::vec_iter::{Record, VecIter, record};

const NOW: u64 = 1000;

fn expiring(key: &[u8], sequence: u64, expiry: u64) -> Record {
    let mut value = expiry.to_le_bytes().to_vec();
    value.extend_from_slice(format!("{sequence}").as_bytes());
    (
        key.to_vec(),
        Trailer::new(sequence, ValueKind::ValueWithExpiry),
        value,
    )
}

fn retain(
    records: &[Record],
    tombstones: &[RangeTombstone],
    older: &OlderTables,
    rules: &RetentionRules,
) -> (Vec<Record>, FragmentedTombstones, RetentionStats) {
    let all = FragmentedTombstones::build(tombstones.to_vec());
    let kept = rules.retain_tombstones(&all, older);
    let job = JobTombstones { all, kept };
    let source = VecIter::new(records.to_vec());
    let filter = Expiry {
        now_millis: rules.now_millis,
    };
    let mut retention = Retention::new(source, &[], rules, &job, older.clone(), filter);
    let mut out = Vec::new();
    while retention.advance().unwrap() {
        let starts = out
            .last()
            .is_none_or(|(key, ..): &Record| key != retention.user_key());
        assert_eq!(retention.starts_key(), starts);
        let (key, value) = (retention.user_key().to_vec(), retention.value().to_vec());
        out.push((key, retention.trailer(), value));
    }
    let stats = *retention.stats();
    (out, job.kept, stats)
}

/// What a reader at `visible` sees of `key` in a pile of records and tombstones.
fn read(
    records: &[Record],
    tombstones: &FragmentedTombstones,
    key: &[u8],
    visible: SequenceNumber,
) -> Option<Vec<u8>> {
    let mut seen: Vec<_> = records
        .iter()
        .filter(|(other, trailer, _)| other == key && trailer.sequence() <= visible)
        .collect();
    seen.sort_by_key(|(_, trailer, _)| std::cmp::Reverse(trailer.sequence()));
    let covering = tombstones.covering_sequence(key, visible).unwrap_or(0);
    let mut chain = OperandChain::default();
    for (_, trailer, value) in seen {
        if covering > trailer.sequence() {
            break;
        }
        match trailer.kind()? {
            ValueKind::MergeOperand => chain.push_older(value),
            kind if !chain.is_empty() => {
                chain.set_base(kind, value);
                break;
            }
            ValueKind::Value => return Some(value.clone()),
            ValueKind::ValueWithExpiry => {
                let expiry = u64::from_le_bytes(*value.first_chunk::<8>().unwrap());
                return (expiry > NOW).then(|| value.clone());
            }
            _ => return None,
        }
    }
    (!chain.is_empty()).then(|| chain.fold(&*concat(), key).unwrap())
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8),
    PutExpiring(u8, u64),
    Delete(u8),
    DeleteRange(u8, u8),
    Merge(u8),
}

/// Writes operands one after the other.
#[derive(Debug)]
struct Concat;

impl AssociativeMerge for Concat {
    fn name(&self) -> &str {
        "concat"
    }
    fn merge(&self, _key: &[u8], left: &[u8], right: &[u8]) -> Result<Vec<u8>> {
        Ok([left, right].concat())
    }
}

fn concat() -> Arc<dyn MergeOperator> {
    Arc::new(Associative(Concat))
}

fn operation() -> impl Strategy<Value = Op> {
    let key = 0..6_u8;
    prop_oneof![
        3 => key.clone().prop_map(Op::Put),
        1 => (key.clone(), prop_oneof![Just(5), Just(NOW), Just(2 * NOW)])
            .prop_map(|(key, expiry)| Op::PutExpiring(key, expiry)),
        2 => key.clone().prop_map(Op::Delete),
        3 => key.clone().prop_map(Op::Merge),
        1 => (key.clone(), 1..7_u8).prop_map(|(start, end)| Op::DeleteRange(start, end)),
    ]
}

fn key(key: u8) -> Vec<u8> {
    vec![b'a' + key]
}

/// Turns operations, oldest first, into records and tombstones with ascending sequence numbers.
fn perform(operations: &[Op], first_sequence: u64) -> (Vec<Record>, Vec<RangeTombstone>) {
    let (mut records, mut tombstones) = (Vec::new(), Vec::new());
    for (sequence, operation) in (first_sequence..).zip(operations) {
        match operation {
            Op::Put(k) => records.push(record(&key(*k), sequence, ValueKind::Value)),
            Op::PutExpiring(k, expiry) => records.push(expiring(&key(*k), sequence, *expiry)),
            Op::Merge(k) => records.push(record(&key(*k), sequence, ValueKind::MergeOperand)),
            Op::Delete(k) => {
                let trailer = Trailer::new(sequence, ValueKind::Tombstone);
                records.push((key(*k), trailer, Vec::new()));
            }
            Op::DeleteRange(start, end) => tombstones.push(RangeTombstone {
                start: key(*start),
                end: if *end == 6 { Vec::new() } else { key(*end) },
                sequence,
            }),
        }
    }
    (records, tombstones)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_reader_sees_the_same_before_and_after(
        older in proptest::collection::vec(operation(), 0..8),
        merged in proptest::collection::vec(operation(), 0..30),
        newer in proptest::collection::vec(operation(), 0..4),
        snapshots in proptest::collection::btree_set(1..45_u64, 0..4),
        with_operator in proptest::bool::weighted(0.8),
    ) {
        let snapshots: BTreeSet<u64> = snapshots;
        let first = older.len() as u64 + 1;
        let (older_records, older_tombstones) = perform(&older, 1);
        let (records, tombstones) = perform(&merged, first);
        let (newer_records, newer_tombstones) = perform(&newer, first + merged.len() as u64);
        let rules = RetentionRules {
            snapshots: snapshots.iter().copied().collect(),
            now_millis: NOW,
            operator: with_operator.then(concat),
            ..RetentionRules::default()
        };
        // One table a key, so that the exact answer is "this key only"; one over everything
        // where a range is deleted below.
        let below = if older_tombstones.is_empty() {
            let keys: BTreeSet<_> = older_records.iter().map(|(key, ..)| key.clone()).collect();
            let table = |key: Vec<u8>| Arc::new(TableMeta {
                bounds: KeyBounds::inclusive(key.clone(), key),
                ..TableMeta::default()
            });
            OlderTables::new([keys.into_iter().map(table).collect()])
        } else {
            OlderTables::everywhere()
        };
        let (out, kept, stats) = retain(&records, &tombstones, &below, &rules);
        prop_assert_eq!(stats.records_in as usize, records.len());
        prop_assert_eq!(stats.records_out as usize, out.len());

        let pile = |middle: &[Record]| [&older_records, middle, &newer_records].concat();
        let around = [older_tombstones, newer_tombstones].concat();
        let before = [around.clone(), tombstones.clone()].concat();
        let after = FragmentedTombstones::merge([&FragmentedTombstones::build(around), &kept]);
        let before = FragmentedTombstones::build(before);
        for visible in snapshots.iter().copied().chain([MAX_SEQUENCE]) {
            for k in 0..6 {
                let saw = read(&pile(&records), &before, &key(k), visible);
                let sees = read(&pile(&out), &after, &key(k), visible);
                prop_assert_eq!(saw, sees, "key {} at {}", k, visible);
            }
        }

        // Strictly ascending, and no more than a stripe can tell apart.
        for pair in out.windows(2) {
            let order = esker_base::internal_key::compare(
                &pair[0].0, pair[0].1, &pair[1].0, pair[1].1,
            );
            prop_assert!(order.is_lt());
        }
        if older.is_empty() && snapshots.is_empty() && with_operator {
            prop_assert!(kept.is_empty());
            for (_, trailer, _) in &out {
                prop_assert_eq!(trailer.sequence(), 0);
                prop_assert!(trailer.kind() != Some(ValueKind::Tombstone));
            }
        }
    }
}

#[test]
fn an_expired_value_goes_on_hiding_what_is_below() {
    let rules = RetentionRules {
        now_millis: NOW,
        ..RetentionRules::default()
    };
    let records = [expiring(b"k", 9, NOW), record(b"k", 5, ValueKind::Value)];
    let (out, _, stats) = retain(&records, &[], &OlderTables::everywhere(), &rules);
    assert_eq!(
        out,
        [(b"k".to_vec(), Trailer::new(9, ValueKind::Tombstone), vec![])]
    );
    assert_eq!((stats.removed, stats.superseded), (1, 1));
    let (out, _, stats) = retain(&records, &[], &OlderTables::none(), &rules);
    assert_eq!((out.len(), stats.tombstones_dropped), (0, 1));
    // A moment earlier it is alive, and loses its sequence number only at the bottom.
    let alive = RetentionRules {
        now_millis: NOW - 1,
        ..rules
    };
    let (out, ..) = retain(&records, &[], &OlderTables::none(), &alive);
    assert_eq!(out[0].1, Trailer::new(0, ValueKind::ValueWithExpiry));
}

#[test]
fn reserved_kinds_are_handed_on_untouched() {
    let rules = RetentionRules {
        now_millis: NOW,
        ..RetentionRules::default()
    };
    let kinds = [ValueKind::SingleDelete, ValueKind::IndexEntry];
    let mut records: Vec<_> = (1..)
        .zip(kinds)
        .map(|(sequence, kind)| record(b"k", sequence, kind))
        .collect();
    records.push(record(b"l", 9, ValueKind::Value));
    let cover = RangeTombstone {
        start: vec![],
        end: vec![],
        sequence: 8,
    };
    let (out, ..) = retain(&records, &[cover], &OlderTables::none(), &rules);
    assert_eq!(
        out[..2]
            .iter()
            .map(|(_, t, _)| t.sequence())
            .collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(out[2].1, Trailer::new(0, ValueKind::Value));

    // Under a value that lost its sequence number they could not keep their order: an error.
    records.push(record(b"k", 7, ValueKind::Value));
    let job = JobTombstones::default();
    let filter = Expiry { now_millis: NOW };
    let source = VecIter::new(records);
    let mut retention = Retention::new(source, &[], &rules, &job, OlderTables::none(), filter);
    assert!(retention.advance().unwrap());
    assert_eq!(
        retention.advance().unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[test]
fn it_stops_before_its_end() {
    let rules = RetentionRules::default();
    let job = JobTombstones::default();
    let records = [b"a", b"b", b"c"]
        .map(|key| record(key, 1, ValueKind::Value))
        .to_vec();
    let filter = Expiry { now_millis: 0 };
    let source = VecIter::new(records);
    let older = OlderTables::everywhere();
    let mut retention = Retention::new(source, b"c", &rules, &job, older, filter);
    assert!(retention.advance().unwrap() && retention.advance().unwrap());
    assert!(!retention.advance().unwrap());
    assert_eq!(retention.stats().records_in, 2);
}

fn operands(count: u64) -> Vec<Record> {
    (1..=count)
        .map(|sequence| record(b"k", sequence, ValueKind::MergeOperand))
        .collect()
}

fn with_concat() -> RetentionRules {
    RetentionRules {
        operator: Some(concat()),
        ..RetentionRules::default()
    }
}

#[test]
fn operands_become_a_value_where_nothing_can_lie_under_them_and_one_operand_elsewhere() {
    let merged = b"[107]@1[107]@2[107]@3".to_vec();
    let (out, _, stats) = retain(&operands(3), &[], &OlderTables::none(), &with_concat());
    let value = Trailer::new(0, ValueKind::Value);
    assert_eq!(out, [(b"k".to_vec(), value, merged.clone())]);
    assert_eq!(stats.operands_merged, 3);
    let (out, ..) = retain(
        &operands(3),
        &[],
        &OlderTables::everywhere(),
        &with_concat(),
    );
    let operand = Trailer::new(3, ValueKind::MergeOperand);
    assert_eq!(out, [(b"k".to_vec(), operand, merged)]);
}

#[test]
fn a_snapshot_keeps_operands_apart() {
    let rules = RetentionRules {
        snapshots: vec![2],
        ..with_concat()
    };
    let (out, ..) = retain(&operands(4), &[], &OlderTables::none(), &rules);
    let kept: Vec<_> = out
        .iter()
        .map(|(_, trailer, _)| (trailer.sequence(), trailer.kind()))
        .collect();
    let expected = [
        (4, Some(ValueKind::MergeOperand)),
        (0, Some(ValueKind::Value)),
    ];
    assert_eq!(kept, expected);
}

/// Refuses or panics, as its first operand says.
#[derive(Debug)]
struct Broken;

impl MergeOperator for Broken {
    fn name(&self) -> &str {
        "broken"
    }
    fn merge(&self, _key: &[u8], existing: Option<&[u8]>, _: &[&[u8]]) -> Result<Vec<u8>> {
        assert!(existing.is_none(), "a planted panic");
        Err(Error::invalid_argument("refused"))
    }
}

#[test]
fn what_an_operator_cannot_merge_stays_with_what_it_lies_on() {
    for with_base in [false, true] {
        let mut records = operands(3);
        if with_base {
            records[0] = record(b"k", 1, ValueKind::Value);
        }
        let rules = RetentionRules {
            operator: Some(Arc::new(Broken)),
            ..RetentionRules::default()
        };
        let (out, ..) = retain(&records, &[], &OlderTables::everywhere(), &rules);
        let sequences: Vec<_> = out.iter().map(|(_, t, _)| t.sequence()).collect();
        assert_eq!(sequences, [3, 2, 1], "with a base: {with_base}");
    }
}

/// Removes values that end in an odd digit, shortens the others; panics at the key `p`.
#[derive(Debug)]
struct OddOnes;

impl CompactionFilter for OddOnes {
    fn filter(&self, key: &[u8], value: &[u8], _: Option<u64>) -> FilterDecision {
        assert_ne!(key, b"p", "a planted panic");
        match value {
            [.., last] if last % 2 == 1 => FilterDecision::Remove,
            _ => FilterDecision::Replace(b"even".to_vec()),
        }
    }
}

#[test]
fn an_owners_filter_leaves_what_snapshots_see_alone() {
    let records = [
        record(b"a", 2, ValueKind::Value),
        record(b"b", 3, ValueKind::Value),
        expiring(b"c", 4, 2 * NOW),
        record(b"c", 1, ValueKind::Value),
        record(b"p", 5, ValueKind::Value),
    ];
    let rules = RetentionRules {
        snapshots: vec![2],
        now_millis: NOW,
        filter: Some(OwnersFilter {
            filter: Arc::new(OddOnes),
            newest_snapshot: Some(2),
        }),
        ..RetentionRules::default()
    };
    let job = JobTombstones::default();
    let filter = Filters::new(&rules);
    let source = VecIter::new(records.to_vec());
    let older = OlderTables::everywhere();
    let mut retention = Retention::new(source, &[], &rules, &job, older, filter);
    let mut out = Vec::new();
    while retention.advance().unwrap() {
        let trailer = retention.trailer();
        out.push((
            trailer.sequence(),
            trailer.kind(),
            retention.value().to_vec(),
        ));
    }
    let value = |sequence| (sequence, Some(ValueKind::Value));
    let kept: Vec<_> = out.iter().map(|(s, k, _)| (*s, *k)).collect();
    let removed = (3, Some(ValueKind::Tombstone));
    let replaced = (4, Some(ValueKind::ValueWithExpiry));
    assert_eq!(kept, [value(2), removed, replaced, value(1), value(5)]);
    assert_eq!(out[2].2, [&(2 * NOW).to_le_bytes()[..], b"even"].concat());
}

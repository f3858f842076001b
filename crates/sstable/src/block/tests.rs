//! Both block layouts against a sorted list, and against bytes nobody encoded.

use std::cmp::Ordering as KeyOrder;

use esker_base::internal_key::compare;
use esker_base::{Trailer, ValueKind};
use proptest::prelude::*;

use super::*;
use crate::block_builder::BlockBuilder;
use crate::block_iter::BlockIter;
use crate::options::BlockLayoutChoice;

type Record = (Vec<u8>, Trailer, Vec<u8>);

fn build(records: &[Record], layout: BlockLayoutChoice) -> Vec<u8> {
    let mut builder = BlockBuilder::new(layout);
    for (key, trailer, value) in records {
        builder.add(key, *trailer, value);
    }
    let mut out = Vec::new();
    builder.finish(&mut out);
    out
}

fn trailer(sequence: u64) -> Trailer {
    Trailer::new(sequence, ValueKind::Value)
}

fn current(iter: &BlockIter) -> Option<Record> {
    iter.valid().then(|| {
        (
            iter.user_key().to_vec(),
            iter.trailer(),
            iter.value().to_vec(),
        )
    })
}

/// Keys from a tiny alphabet with long common parts, zeros among them, so that prefixes collide.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)];
    let tail = proptest::collection::vec(letter, 0..14);
    (
        prop_oneof![
            Just(""),
            Just("http://example.com/"),
            Just("http://example.com/aaaaaaaa")
        ],
        tail,
    )
        .prop_map(|(head, tail)| {
            let mut key = head.as_bytes().to_vec();
            key.extend(tail);
            if key.is_empty() { vec![0] } else { key }
        })
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let value = proptest::collection::vec(any::<u8>(), 0..20);
    let sequence = prop_oneof![Just(0u64), 0u64..5];
    proptest::collection::vec((keys(), sequence, value), 1..80).prop_map(|records| {
        let mut records: Vec<Record> = records
            .into_iter()
            .map(|(key, s, value)| (key, trailer(s), value))
            .collect();
        records.sort_by(|a, b| compare(&a.0, a.1, &b.0, b.1));
        records.dedup_by(|a, b| compare(&a.0, a.1, &b.0, b.1) == KeyOrder::Equal);
        records
    })
}

fn layouts() -> [BlockLayoutChoice; 2] {
    [BlockLayoutChoice::Slot, BlockLayoutChoice::Restart]
}

proptest! {
    #[test]
    fn a_block_is_its_sorted_list(records in records(), probes in proptest::collection::vec((keys(), 0u64..6), 20)) {
        for layout in layouts() {
            let block = parse(&build(&records, layout), None).unwrap();
            prop_assert_eq!(block.entries(), records.len());
            let mut iter = BlockIter::new();
            iter.enter(block.clone());
            iter.seek_to_first();
            for record in &records {
                prop_assert_eq!(current(&iter), Some(record.clone()));
                iter.next();
            }
            prop_assert!(!iter.valid());
            iter.seek_to_last();
            for record in records.iter().rev() {
                prop_assert_eq!(current(&iter), Some(record.clone()));
                iter.prev();
            }
            prop_assert!(!iter.valid());
            let own = records.iter().map(|(key, t, _)| (key.clone(), t.sequence()));
            for (key, sequence) in probes.iter().cloned().chain(own) {
                let target = Trailer::seek(sequence);
                let expected =
                    records.iter().find(|r| compare(&r.0, r.1, &key, target) != KeyOrder::Less);
                iter.seek(&key, target);
                prop_assert_eq!(current(&iter), expected.cloned());
                let hit = expected.filter(|record| record.0 == key);
                let found = block.find(&key, target);
                prop_assert_eq!(
                    found.map(|(t, range)| (t, block.bytes()[range].to_vec())),
                    hit.map(|record| (record.1, record.2.clone()))
                );
            }
        }
    }

    #[test]
    fn mutated_blocks_are_refused_or_searched_without_harm(
        records in records(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        probe in keys(),
    ) {
        for layout in layouts() {
            let mut bytes = build(&records, layout);
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            exercise(bytes, &probe);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_searched_without_harm(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        layout in 1u8..3,
        probe in keys(),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = layout;
        }
        exercise(bytes, &probe);
    }
}

/// Calls everything on a block of untrusted bytes.
fn exercise(bytes: Vec<u8>, probe: &[u8]) {
    let Ok(block) = parse(&bytes, None) else {
        return;
    };
    let _ = block.find(probe, Trailer::seek(3));
    let mut iter = BlockIter::new();
    iter.enter(block.clone());
    iter.seek(probe, Trailer::seek(3));
    iter.seek_to_first();
    let mut entries = 0;
    while iter.valid() {
        let _ = (iter.user_key().len(), iter.value().len());
        entries += 1;
        iter.next();
    }
    assert_eq!(entries, block.entries());
    iter.seek_to_last();
    while iter.valid() {
        entries -= 1;
        iter.prev();
    }
    assert_eq!(entries, 0);
}

#[test]
fn one_trailer_for_all_is_stored_once() {
    let records: Vec<Record> = (0..30u32)
        .map(|i| (i.to_be_bytes().to_vec(), trailer(0), vec![]))
        .collect();
    let mut mixed = records.clone();
    mixed[29].1 = trailer(1);
    for layout in layouts() {
        let uniform = build(&records, layout);
        assert_eq!(uniform[1], FLAG_UNIFORM_TRAILER);
        assert_eq!(build(&mixed, layout).len(), uniform.len() + 29 * 8);
    }
}

#[test]
fn large_blocks_have_wide_offsets_and_large_keys_fit() {
    let big_key = vec![7; esker_base::limits::MAX_KEY_BYTES];
    let records = [
        (vec![1], trailer(3), vec![1; 70_000]),
        (vec![1, 0], trailer(2), vec![2; 70_000]),
        (big_key.clone(), trailer(1), vec![3]),
    ];
    for layout in layouts() {
        let bytes = build(&records, layout);
        assert_eq!(bytes[1] & FLAG_WIDE_OFFSETS, FLAG_WIDE_OFFSETS);
        let block = parse(&bytes, None).unwrap();
        let (_, range) = block.find(&big_key, Trailer::seek(9)).unwrap();
        assert_eq!(block.bytes()[range], [3]);
        let (_, range) = block.find(&[1, 0], Trailer::seek(9)).unwrap();
        assert_eq!(block.bytes()[range].len(), 70_000);
        assert!(block.find(&[1, 0, 0], Trailer::seek(9)).is_none());
    }
}

#[test]
fn a_pinned_value_is_cut_without_copying() {
    let bytes = build(
        &[(vec![1], trailer(1), b"12345678value".to_vec())],
        BlockLayoutChoice::Auto,
    );
    let block = parse(&bytes, None).unwrap();
    let (_, range) = block.find(&[1], Trailer::seek(9)).unwrap();
    let value = PinnedValue::new(block, range);
    assert_eq!(&*value.slice(8), b"value");
    assert!(value.slice(13).is_empty());
}

#[test]
fn memory_is_counted_in_the_sizes_that_allocators_have() {
    for (bytes, taken) in [
        (1, 16),
        (17, 32),
        (64, 64),
        (65, 80),
        (128, 128),
        (129, 160),
        (4000, 4096),
        (4096, 4096),
        (4097, 5120),
        (16 << 10, 16 << 10),
        ((16 << 10) + 1, 20 << 10),
        ((20 << 10) + 1, 24 << 10),
        (1 << 20, 1 << 20),
        ((1 << 20) + 1, 5 << 18),
    ] {
        assert_eq!(allocated_bytes(bytes), taken, "{bytes}");
    }
    for bytes in 64..100_000 {
        let taken = allocated_bytes(bytes);
        assert!(bytes <= taken && 4 * taken <= 5 * bytes + 64, "{bytes}");
        assert_eq!(allocated_bytes(taken), taken);
    }
}

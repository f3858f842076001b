//! Random tables under random options: whatever was written is found, and nothing else.

use std::cmp::Ordering;

use esker_base::internal_key::compare;
use esker_base::iterator::Direction;
use proptest::prelude::*;

use super::*;

pub(super) fn options() -> impl Strategy<Value = TableOptions> {
    let layouts = [
        BlockLayoutChoice::Auto,
        BlockLayoutChoice::Slot,
        BlockLayoutChoice::Restart,
    ];
    let filters = [FilterKind::None, FilterKind::Blocked, FilterKind::Standard];
    (
        64usize..600,
        any::<bool>(),
        0..3usize,
        0..3usize,
        prop_oneof![3 => 1usize..400, 1 => Just(1 << 20)],
        1.0..20.0f64,
    )
        .prop_map(
            move |(
                block_bytes,
                lz4,
                filter,
                layout,
                index_partition_bytes,
                filter_bits_per_key,
            )| {
                TableOptions {
                    block_bytes,
                    compression: if lz4 {
                        Compression::Lz4
                    } else {
                        Compression::None
                    },
                    filter: filters[filter],
                    filter_bits_per_key,
                    index_partition_bytes,
                    layout: layouts[layout],
                    block_expiries: true,
                }
            },
        )
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    let heads = prop_oneof![
        Just(""),
        Just("http://a.example/"),
        Just("http://b.example/long/")
    ];
    (
        heads,
        proptest::collection::vec(prop_oneof![Just(0u8), 97..100u8, Just(255)], 0..12),
    )
        .prop_map(|(head, tail)| [head.as_bytes(), &tail].concat())
        .prop_filter("keys are not empty", |key| !key.is_empty())
}

pub(super) fn records() -> impl Strategy<Value = Vec<Record>> {
    let stored = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..30),
        (0usize..900).prop_map(|bytes| vec![b'z'; bytes]),
    ];
    let kind = prop_oneof![
        4 => Just(ValueKind::Value),
        1 => Just(ValueKind::Tombstone),
        1 => Just(ValueKind::MergeOperand)
    ];
    proptest::collection::vec((keys(), 0u64..8, kind, stored), 1..250).prop_map(|records| {
        let mut records: Vec<Record> = records
            .into_iter()
            .map(|(key, s, kind, v)| (key, Trailer::new(s, kind), v))
            .collect();
        records.sort_by(|a, b| compare(&a.0, a.1, &b.0, b.1));
        records.dedup_by(|a, b| a.0 == b.0 && a.1.sequence() == b.1.sequence());
        records
    })
}

/// The first record at or after the target.
fn lower_bound(records: &[Record], key: &[u8], trailer: Trailer) -> usize {
    records.partition_point(|r| compare(&r.0, r.1, key, trailer) == Ordering::Less)
}

/// Whoever asks an iterator on record `at` whether a neighbour has another key gets a true answer, or, of
/// restart blocks and between partitions of the index, none.
fn check_neighbours(
    iter: &TableIter,
    records: &[Record],
    at: usize,
    is_exact: bool,
) -> std::result::Result<(), TestCaseError> {
    let neighbours = [
        (Direction::Forward, at + 1),
        (Direction::Backward, at.wrapping_sub(1)),
    ];
    for (direction, neighbour) in neighbours {
        let Some(neighbour) = records.get(neighbour) else {
            continue;
        };
        let (said, differs) = (
            iter.neighbour_differs(direction),
            neighbour.0 != records[at].0,
        );
        prop_assert!(differs || !said, "{:?} of record {}", direction, at);
        prop_assert!(
            said || !differs || !is_exact,
            "{:?} of record {}",
            direction,
            at
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_table_is_its_sorted_list(
        options in options(),
        records in records(),
        probes in proptest::collection::vec((keys(), 0u64..9), 30),
        cache_bytes in prop_oneof![Just(0usize), Just(3000), Just(1 << 20)],
    ) {
        let shelf = Shelf::new(cache_bytes);
        let meta = shelf.write(9, &options, &records);
        let table = shelf.open(&meta).unwrap();
        table.verify_against(&meta, &mut |_| true).unwrap();
        prop_assert_eq!(meta.entries, records.len() as u64);
        prop_assert_eq!(&meta.bounds.smallest, &records[0].0);
        prop_assert_eq!(&meta.bounds.largest, &records[records.len() - 1].0);
        for fill in [FillCache::Yes, FillCache::No] {
            let mut iter = TableIter::over(Arc::clone(&table), fill);
            prop_assert_eq!(&collect(&mut iter), &records);
            prop_assert_eq!(&collect_backwards(&mut iter), &records);
            for (key, sequence) in &probes {
                let target = Trailer::seek(*sequence);
                let at = lower_bound(&records, key, target);
                iter.seek(key, target).unwrap();
                prop_assert_eq!(current(&iter), records.get(at).cloned());
                if iter.valid() {
                    prop_assert_eq!(&*iter.pinned_value(), iter.value());
                    iter.prev().unwrap();
                    prop_assert_eq!(current(&iter), at.checked_sub(1).map(|i| records[i].clone()));
                }
                iter.seek_for_prev(key, target).unwrap();
                prop_assert_eq!(current(&iter), at.checked_sub(1).map(|i| records[i].clone()));
                if iter.valid() {
                    iter.next().unwrap();
                    prop_assert_eq!(current(&iter), records.get(at).cloned());
                }
            }
            let is_exact =
                options.layout == BlockLayoutChoice::Slot && options.index_partition_bytes > 400;
            for (at, (key, trailer, _)) in records.iter().enumerate() {
                iter.seek_for_prev(key, *trailer).unwrap();
                prop_assert_eq!(iter.trailer(), *trailer);
                prop_assert_eq!(iter.user_key(), key.as_slice());
                check_neighbours(&iter, &records, at, is_exact)?;
            }
        }
        let own = records.iter().map(|r| (r.0.clone(), r.1.sequence()));
        for (key, sequence) in probes.into_iter().chain(own) {
            let at = lower_bound(&records, &key, Trailer::seek(sequence));
            let expected = records.get(at).filter(|r| r.0 == key).map(|r| (r.1, r.2.clone()));
            prop_assert_eq!(get(&table, &key, sequence), expected);
        }
        prop_assert!(shelf.blocks.used_bytes() <= cache_bytes);
        drop(table);
        prop_assert_eq!(shelf.blocks.used_bytes(), 0);
    }
}

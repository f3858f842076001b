//! Fragments against the plain list of tombstones that they were built from.

use super::*;
use proptest::prelude::*;

fn tombstone(start: &str, end: &str, sequence: SequenceNumber) -> RangeTombstone {
    RangeTombstone {
        start: start.into(),
        end: end.into(),
        sequence,
    }
}

/// Keys over two letters: few enough that ranges touch, nest and repeat. The empty one is drawn as
/// an end (unbounded) and as a start (from the beginning) too.
fn bound() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![3 => Just(&b""[..]), 1 => Just(&b"sameprefix"[..])];
    let tail = prop::collection::vec(
        prop_oneof![Just(b'a'), Just(b'b'), Just(0), Just(0xff)],
        0..4,
    );
    (head, tail).prop_map(|(head, tail)| [head, &tail].concat())
}

fn tombstones() -> impl Strategy<Value = Vec<RangeTombstone>> {
    let one = (bound(), bound(), 0u64..12);
    prop::collection::vec(
        one.prop_map(|(start, end, sequence)| RangeTombstone {
            start,
            end,
            sequence,
        }),
        0..16,
    )
}

/// Every sequence that deletes `key`, newest first.
fn covering(list: &[RangeTombstone], key: &[u8]) -> Vec<SequenceNumber> {
    let covers = |tombstone: &&RangeTombstone| {
        tombstone.start.as_slice() <= key
            && (tombstone.end.is_empty() || key < tombstone.end.as_slice())
    };
    let mut sequences: Vec<_> = list
        .iter()
        .filter(covers)
        .map(|found| found.sequence)
        .collect();
    sequences.sort_unstable_by(|a, b| b.cmp(a));
    sequences.dedup();
    sequences
}

fn check_invariants(fragments: &FragmentedTombstones) {
    let parts: Vec<_> = fragments.iter().collect();
    assert_eq!(parts.len(), fragments.len());
    for (start, end, sequences) in &parts {
        assert!(end_is_above(end, start));
        assert!(!sequences.is_empty());
        assert!(sequences.windows(2).all(|pair| pair[0] > pair[1]));
    }
    for pair in parts.windows(2) {
        assert!(!pair[0].1.is_empty() && pair[0].1 <= pair[1].0);
        assert!(
            pair[0].1 != pair[1].0 || pair[0].2 != pair[1].2,
            "should have been joined"
        );
    }
}

#[test]
fn overlaps_are_cut_and_equal_neighbours_joined() {
    let fragments = FragmentedTombstones::build([
        tombstone("a", "e", 5),
        tombstone("c", "g", 9),
        tombstone("g", "k", 9),
        tombstone("x", "", 3),
        tombstone("q", "q", 7),
        tombstone("r", "q", 7),
        tombstone("a", "e", 5),
    ]);
    let parts: Vec<_> = fragments.iter().collect();
    let expected: [(&[u8], &[u8], &[u64]); 4] = [
        (b"a", b"c", &[5]),
        (b"c", b"e", &[9, 5]),
        (b"e", b"k", &[9]),
        (b"x", b"", &[3]),
    ];
    assert_eq!(parts, expected);
    assert_eq!(fragments.tombstone_count(), 5);
    assert_eq!(
        (fragments.oldest_sequence(), fragments.newest_sequence()),
        (Some(3), Some(9))
    );
    assert_eq!(fragments.bounds(), Some(KeyBounds::half_open("a", "")));
}

#[test]
fn nothing_deleted_is_one_gap_without_ends() {
    let none = FragmentedTombstones::build([]);
    assert!(none.is_empty() && none.bounds().is_none() && none.newest_sequence().is_none());
    assert_eq!(none.covering_sequence(b"k", u64::MAX), None);
    let gap = Fragment {
        start: &[],
        end: &[],
        sequence: None,
    };
    assert_eq!(none.fragment_at(b"k", u64::MAX), gap);
    let mut bytes = Vec::new();
    none.encode(&mut bytes);
    assert_eq!(FragmentedTombstones::decode(&bytes).unwrap(), none);
}

#[test]
fn everything_deleted_is_one_fragment_without_ends() {
    let all = FragmentedTombstones::build([tombstone("", "", 4), tombstone("", "", 2)]);
    assert_eq!(all.len(), 1);
    assert_eq!(all.covering_sequence(&[0xff; 30], 3), Some(2));
    assert_eq!(all.covering_sequence(b"", 1), None);
    let fragment = Fragment {
        start: &[],
        end: &[],
        sequence: None,
    };
    assert_eq!(all.fragment_at(b"k", 1), fragment);
}

#[test]
fn gaps_reach_from_end_to_start() {
    let fragments = FragmentedTombstones::build([tombstone("b", "c", 5), tombstone("f", "g", 6)]);
    let at = |key: &[u8], visible| {
        let fragment = fragments.fragment_at(key, visible);
        (
            fragment.start.to_vec(),
            fragment.end.to_vec(),
            fragment.sequence,
        )
    };
    assert_eq!(at(b"a", 9), (b"".to_vec(), b"b".to_vec(), None));
    assert_eq!(at(b"b", 9), (b"b".to_vec(), b"c".to_vec(), Some(5)));
    assert_eq!(at(b"b", 4), (b"b".to_vec(), b"c".to_vec(), None));
    assert_eq!(at(b"c", 9), (b"c".to_vec(), b"f".to_vec(), None));
    assert_eq!(at(b"g", 9), (b"g".to_vec(), b"".to_vec(), None));
}

#[test]
fn damage_is_refused_with_its_offset() {
    let cases: [(&str, &[u8], u64); 10] = [
        ("empty", &[], 0),
        ("cut short", &[1, 2, 1, b'a', 1, b'b'], 6),
        ("trailing bytes", &[0, 0], 1),
        ("no sequence", &[1, 0, 1, b'a', 1, b'b', 9], 6),
        ("start at end", &[1, 2, 1, b'a', 1, b'a', 9], 1),
        (
            "out of order",
            &[2, 2, 1, b'c', 1, b'd', 9, 2, 1, b'a', 1, b'b', 9],
            7,
        ),
        (
            "after an unbounded one",
            &[2, 2, 1, b'c', 0, 9, 2, 1, b'd', 1, b'e', 9],
            6,
        ),
        ("nothing to touch", &[1, 3, 1, b'a', 1, b'b', 9], 1),
        ("sequences repeat", &[1, 4, 1, b'a', 1, b'b', 9, 0], 6),
        ("sequences below zero", &[1, 4, 1, b'a', 1, b'b', 9, 10], 6),
    ];
    for (name, bytes, offset) in cases {
        let error = FragmentedTombstones::decode(bytes).unwrap_err();
        assert_eq!(error.offset(), Some(offset), "{name}: {error}");
    }
    let mut large = vec![1, 2, 1, b'a', 1, b'b'];
    put_varint(&mut large, MAX_SEQUENCE + 1);
    assert!(FragmentedTombstones::decode(&large).is_err());
}

/// What any bytes may do: be refused, or give a set that holds the invariant, takes memory in
/// proportion to the bytes and survives another round.
fn check_decoding(bytes: &[u8]) {
    let Ok(decoded) = FragmentedTombstones::decode(bytes) else {
        return;
    };
    check_invariants(&decoded);
    assert!(decoded.memory_bytes() <= 64 * bytes.len() + 1024);
    let mut again = Vec::new();
    decoded.encode(&mut again);
    assert_eq!(FragmentedTombstones::decode(&again).unwrap(), decoded);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn fragments_answer_as_the_list_does(
        list in tombstones(),
        keys in prop::collection::vec(bound(), 1..20),
        visible in 0u64..14,
    ) {
        let fragments = FragmentedTombstones::build(list.clone());
        check_invariants(&fragments);
        for key in keys {
            let sequences = covering(&list, &key);
            let newest = sequences.iter().copied().find(|&sequence| sequence <= visible);
            prop_assert_eq!(fragments.covering_sequence(&key, visible), newest);
            let fragment = fragments.fragment_at(&key, visible);
            prop_assert_eq!(fragment.sequence, newest);
            prop_assert!(fragment.start <= &key[..] && end_is_above(fragment.end, &key));
            // Everything in the interval has the same answer, and it could not be longer.
            prop_assert_eq!(covering(&list, fragment.start), sequences.clone());
            if !fragment.end.is_empty() {
                prop_assert_ne!(covering(&list, fragment.end), sequences);
            }
        }
    }

    #[test]
    fn merging_lists_is_building_from_all(lists in prop::collection::vec(tombstones(), 0..5)) {
        let built: Vec<_> = lists.iter().cloned().map(FragmentedTombstones::build).collect();
        let merged = FragmentedTombstones::merge(&built);
        prop_assert_eq!(merged, FragmentedTombstones::build(lists.concat()));
    }

    #[test]
    fn clipping_keeps_what_is_inside_and_the_parts_merge_to_the_whole(
        list in tombstones(),
        start in bound(),
        end in bound(),
        keys in prop::collection::vec(bound(), 1..20),
    ) {
        let whole = FragmentedTombstones::build(list);
        let part = whole.clipped(&start, &end);
        check_invariants(&part);
        for key in keys {
            let inside = start <= key && end_is_above(&end, &key);
            let expected = if inside { whole.covering_sequence(&key, 100) } else { None };
            prop_assert_eq!(part.covering_sequence(&key, 100), expected);
        }
        if end_is_above(&end, &start) {
            let before = if start.is_empty() { FragmentedTombstones::default() }
                else { whole.clipped(b"", &start) };
            let after = if end.is_empty() { FragmentedTombstones::default() }
                else { whole.clipped(&end, b"") };
            let parts = [before, part, after];
            prop_assert_eq!(FragmentedTombstones::merge(&parts), whole);
        } else {
            prop_assert!(part.is_empty());
        }
    }

    #[test]
    fn the_encoding_round_trips_and_no_part_of_it_passes(list in tombstones()) {
        let fragments = FragmentedTombstones::build(list);
        let mut bytes = Vec::new();
        fragments.encode(&mut bytes);
        prop_assert_eq!(FragmentedTombstones::decode(&bytes).unwrap(), fragments);
        for cut in 0..bytes.len() {
            prop_assert!(FragmentedTombstones::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn mutated_bytes_are_refused_or_valid(
        list in tombstones(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Vec::new();
        FragmentedTombstones::build(list).encode(&mut bytes);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        check_decoding(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_valid(
        bytes in prop::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..64),
    ) {
        check_decoding(&bytes);
    }
}

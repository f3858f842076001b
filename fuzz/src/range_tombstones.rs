//! The payload of a table's range-tombstone block.

use esker_base::range_tombstone::FragmentedTombstones;

/// Tombstones that decode hold their invariant and survive every operation on them.
pub fn range_tombstones(data: &[u8]) {
    let Ok(tombstones) = FragmentedTombstones::decode(data) else {
        return;
    };
    assert!(tombstones.memory_bytes() <= 64 * data.len() + 1024);
    let mut bytes = Vec::new();
    tombstones.encode(&mut bytes);
    let again = FragmentedTombstones::decode(&bytes).expect("what was encoded");
    assert_eq!(again, tombstones);
    for (start, end, sequences) in tombstones.iter() {
        assert!(end.is_empty() || start < end);
        let fragment = tombstones.fragment_at(start, u64::MAX);
        assert_eq!((fragment.start, fragment.end), (start, end));
        assert_eq!(fragment.sequence, sequences.first().copied());
        assert_eq!(
            tombstones.covering_sequence(end, 0),
            tombstones.fragment_at(end, 0).sequence
        );
    }
    if let Some((middle, _, _)) = tombstones.iter().nth(tombstones.len() / 2) {
        let halves = [
            tombstones.clipped(b"", middle),
            tombstones.clipped(middle, b""),
        ];
        if !middle.is_empty() {
            assert_eq!(FragmentedTombstones::merge(&halves), tombstones);
        }
    }
}

//! What is trusted next to a lost table.

use super::*;
use esker_memtable::{Memtable, MemtableKind};

/// What is left of `records`, newest first, when a table over `b..=d` with sequence numbers up to 100 is
/// lost.
fn trusted(records: &[(&[u8], u64, ValueKind)]) -> Vec<(Vec<u8>, u64)> {
    let memtable = Arc::new(Memtable::new(MemtableKind::default()));
    for (key, sequence, kind) in records {
        memtable.insert(key, Trailer::new(*sequence, *kind), b"v");
    }
    let lost = TableMeta {
        number: 9,
        bounds: KeyBounds {
            smallest: b"b".to_vec(),
            largest: b"d".to_vec(),
            largest_is_exclusive: false,
        },
        largest_sequence: 100,
        ..TableMeta::default()
    };
    let left_out = Arc::new(AtomicU64::new(0));
    let mut iterator = Trusted {
        inner: memtable.iter(),
        below: memtable.iter(),
        doubts: vec![Doubt::of(&lost)],
        left_out: Arc::clone(&left_out),
    };
    let mut kept = Vec::new();
    iterator.seek_to_first().unwrap();
    while iterator.valid() {
        kept.push((iterator.user_key().to_vec(), iterator.trailer().sequence()));
        iterator.next().unwrap();
    }
    let counted = kept.len() as u64 + left_out.load(Ordering::Relaxed);
    assert_eq!(counted, records.len() as u64);
    kept
}

#[test]
fn what_a_lost_table_may_have_replaced_is_left_out() {
    use ValueKind::{Tombstone, Value};
    let records: [(&[u8], u64, ValueKind); 5] = [
        (b"a", 50, Value),
        (b"b", 50, Value),
        (b"c", 150, Tombstone),
        (b"c", 50, Value),
        (b"d", 100, Value),
    ];
    let kept = [
        (b"a".to_vec(), 50),
        (b"c".to_vec(), 150),
        (b"d".to_vec(), 100),
    ];
    assert_eq!(trusted(&records), kept);
}

/// A counter's increments without what they were added to would be a count that never was.
#[test]
fn an_operand_is_kept_only_with_what_it_lies_on() {
    use ValueKind::{MergeOperand, Tombstone, Value};
    // The base may have been replaced: the whole chain goes.
    let replaced: [(&[u8], u64, ValueKind); 3] = [
        (b"c", 170, MergeOperand),
        (b"c", 160, MergeOperand),
        (b"c", 50, Value),
    ];
    assert!(trusted(&replaced).is_empty());
    // The base may have been in the lost table.
    assert!(trusted(&[(b"c", 170, MergeOperand)]).is_empty());
    // Newer than everything lost, down to the base.
    for base in [Value, Tombstone] {
        let whole: [(&[u8], u64, ValueKind); 3] = [
            (b"c", 170, MergeOperand),
            (b"c", 160, base),
            (b"c", 50, Value),
        ];
        assert_eq!(
            trusted(&whole),
            [(b"c".to_vec(), 170), (b"c".to_vec(), 160)]
        );
    }
    // Nothing is lost there.
    let elsewhere: [(&[u8], u64, ValueKind); 2] = [(b"e", 170, MergeOperand), (b"e", 50, Value)];
    assert_eq!(trusted(&elsewhere).len(), 2);
}

//! Both memtables against a sorted map: random inserts, lookups and iterators that walk in both
//! directions while the memtable grows under them.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use esker_base::iterator::{Direction, InternalIterator, Step};
use esker_base::{SequenceNumber, Trailer, ValueKind};
use esker_memtable::{ArenaPool, Memtable, MemtableIter, MemtableKind};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

const CASES: u32 = if cfg!(miri) { 2 } else { 96 };
const OPERATIONS: usize = if cfg!(miri) { 30 } else { 250 };

type Position = (Vec<u8>, Reverse<u64>);
type Model = BTreeMap<Position, Vec<u8>>;

/// Families of keys that differ in how much neighbours share.
#[derive(Clone, Copy, Debug)]
enum Family {
    /// Shared first eight bytes, as db_bench writes them.
    Decimal,
    /// All bytes differ.
    Random,
    /// Long shared prefixes of varying length.
    Url,
    /// Keys that are prefixes of each other, with zero bytes: equal words, unequal keys.
    Zeros,
    /// A handful of keys with many versions.
    Hot,
}

const FAMILIES: [Family; 5] = [
    Family::Decimal,
    Family::Random,
    Family::Url,
    Family::Zeros,
    Family::Hot,
];

fn key(family: Family, number: u64) -> Vec<u8> {
    let scrambled = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match family {
        Family::Decimal => format!("{number:016}").into_bytes(),
        Family::Random => [scrambled, !scrambled]
            .iter()
            .flat_map(|w| w.to_be_bytes())
            .collect(),
        Family::Url => {
            let host =
                ["a", "example", "example-of-a-long-host-name"][(scrambled >> 62) as usize % 3];
            format!("https://www.{host}.com/users/{number}/profile").into_bytes()
        }
        Family::Zeros => {
            let mut key = vec![0; (number % 23) as usize];
            if number.is_multiple_of(3) {
                key.push((number / 23) as u8);
            }
            key
        }
        Family::Hot => vec![b'h'; 1 + (number % 4) as usize],
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Insert {
        family: Family,
        from: u64,
        step: i64,
        count: u64,
    },
    Get {
        family: Family,
        number: u64,
        back: u64,
    },
    Open {
        slot: usize,
    },
    First {
        slot: usize,
    },
    Last {
        slot: usize,
    },
    Seek {
        slot: usize,
        family: Family,
        number: u64,
        back: u64,
    },
    SeekForPrev {
        slot: usize,
        family: Family,
        number: u64,
        back: u64,
    },
    Next {
        slot: usize,
        count: usize,
    },
    Previous {
        slot: usize,
        count: usize,
    },
}

const SLOTS: usize = 3;

fn operation() -> impl Strategy<Value = Operation> {
    let slot = 0..SLOTS;
    let family = || prop::sample::select(&FAMILIES[..]);
    let number = || 0..3000u64;
    let back = || 0..400u64;
    let steps = 1..if cfg!(miri) { 20 } else { 150usize };
    let most = if cfg!(miri) { 20 } else { 200u64 };
    prop_oneof![
        6 => (family(), number(), prop::sample::select(vec![1i64, -1, 7, -13, 997]), 1..most)
            .prop_map(|(family, from, step, count)| Operation::Insert { family, from, step, count }),
        4 => (family(), number(), back())
            .prop_map(|(family, number, back)| Operation::Get { family, number, back }),
        1 => slot.clone().prop_map(|slot| Operation::Open { slot }),
        1 => slot.clone().prop_map(|slot| Operation::First { slot }),
        1 => slot.clone().prop_map(|slot| Operation::Last { slot }),
        2 => (slot.clone(), family(), number(), back())
            .prop_map(|(slot, family, number, back)| Operation::Seek { slot, family, number, back }),
        2 => (slot.clone(), family(), number(), back()).prop_map(|(slot, family, number, back)|
            Operation::SeekForPrev { slot, family, number, back }),
        4 => (slot.clone(), steps.clone()).prop_map(|(slot, count)| Operation::Next { slot, count }),
        4 => (slot, steps).prop_map(|(slot, count)| Operation::Previous { slot, count }),
    ]
}

/// An iterator as a reader at one sequence number uses it: what is newer is passed over.
struct Reader {
    iter: MemtableIter,
    visible: SequenceNumber,
}

impl Reader {
    fn sees(&self, position: &Position) -> bool {
        position.1.0 >> 8 <= self.visible
    }

    fn position(&self) -> Option<Position> {
        self.iter.valid().then(|| {
            (
                self.iter.user_key().to_vec(),
                Reverse(self.iter.trailer().raw()),
            )
        })
    }

    fn settle(&mut self, forwards: bool) {
        while self.iter.valid() && self.iter.trailer().sequence() > self.visible {
            if forwards {
                self.iter.next().unwrap()
            } else {
                self.iter.prev().unwrap()
            }
        }
    }

    fn check(&self, expected: Option<(&Position, &Vec<u8>)>) {
        assert_eq!(
            self.position().as_ref(),
            expected.map(|(position, _)| position)
        );
        if let Some((_, value)) = expected {
            assert_eq!(self.iter.value(), value);
        }
    }

    fn after<'a>(
        &self,
        model: &'a Model,
        from: Bound<&Position>,
    ) -> Option<(&'a Position, &'a Vec<u8>)> {
        model
            .range::<Position, _>((from, Bound::Unbounded))
            .find(|(position, _)| self.sees(position))
    }

    fn before<'a>(
        &self,
        model: &'a Model,
        to: Bound<&Position>,
    ) -> Option<(&'a Position, &'a Vec<u8>)> {
        model
            .range::<Position, _>((Bound::Unbounded, to))
            .rev()
            .find(|(position, _)| self.sees(position))
    }

    fn step(&mut self, model: &Model, forwards: bool) -> bool {
        let Some(at) = self.position() else {
            return false;
        };
        let way = match forwards {
            true => Direction::Forward,
            false => Direction::Backward,
        };
        let step = self.iter.step(way).unwrap();
        match (step, way) {
            (Step::Stayed, Direction::Forward) => self.iter.next().unwrap(),
            (Step::Stayed, Direction::Backward) => self.iter.prev().unwrap(),
            (Step::To(trailer), _) => {
                assert_eq!(self.iter.trailer(), trailer);
                assert_ne!(self.iter.user_key(), at.0);
            }
            (Step::End, _) => assert!(!self.iter.valid()),
        }
        // A step that leads somewhere has passed all records of the key.
        let passed = match step {
            Step::To(_) => (at.0.clone(), Reverse(Trailer::OLDEST.raw())),
            _ => at.clone(),
        };
        let expected = match way {
            Direction::Forward => self.after(model, Bound::Excluded(&passed)),
            Direction::Backward => self.before(model, Bound::Excluded(&at)),
        };
        self.settle(forwards);
        self.check(expected);
        true
    }
}

struct Run {
    memtable: Arc<Memtable>,
    model: Model,
    sequence: SequenceNumber,
    readers: Vec<Reader>,
}

impl Run {
    fn new(kind: MemtableKind, pool: &Arc<ArenaPool>) -> Self {
        let memtable = Arc::new(Memtable::with_pool(kind, Arc::clone(pool)));
        let readers = (0..SLOTS)
            .map(|_| Reader {
                iter: memtable.iter(),
                visible: 0,
            })
            .collect();
        Self {
            memtable,
            model: Model::new(),
            sequence: 0,
            readers,
        }
    }

    fn insert(&mut self, family: Family, number: u64) {
        self.sequence += 1;
        let kind = if self.sequence.is_multiple_of(5) {
            ValueKind::Tombstone
        } else {
            ValueKind::Value
        };
        let trailer = Trailer::new(self.sequence, kind);
        let key = key(family, number);
        let value = vec![self.sequence as u8; (self.sequence % 40) as usize];
        self.memtable.insert(&key, trailer, &value);
        self.model.insert((key, Reverse(trailer.raw())), value);
    }

    fn get(&self, key: &[u8], visible: SequenceNumber) {
        let from = (key.to_vec(), Reverse(Trailer::seek(visible).raw()));
        let expected = self
            .model
            .range(from..)
            .next()
            .filter(|((found, _), _)| found == key);
        self.memtable.prefetch(key);
        let found = self.memtable.get(key, visible);
        assert_eq!(
            found.map(|(trailer, value)| (trailer.raw(), value)),
            expected.map(|((_, trailer), value)| (trailer.0, value.as_slice())),
        );
    }

    fn apply(&mut self, operation: &Operation) {
        let visible = |back: u64| self.sequence.saturating_sub(back);
        match *operation {
            Operation::Insert {
                family,
                from,
                step,
                count,
            } => {
                for index in 0..count {
                    let number = (from as i64 + step * index as i64).rem_euclid(3000);
                    self.insert(family, number as u64);
                }
            }
            Operation::Get {
                family,
                number,
                back,
            } => self.get(&key(family, number), visible(back)),
            Operation::Open { slot } => {
                self.readers[slot] = Reader {
                    iter: self.memtable.iter(),
                    visible: self.sequence,
                };
            }
            Operation::First { slot } => {
                let reader = &mut self.readers[slot];
                reader.iter.seek_to_first().unwrap();
                reader.settle(true);
                reader.check(reader.after(&self.model, Bound::Unbounded));
            }
            Operation::Last { slot } => {
                let reader = &mut self.readers[slot];
                reader.iter.seek_to_last().unwrap();
                reader.settle(false);
                reader.check(reader.before(&self.model, Bound::Unbounded));
            }
            Operation::Seek {
                slot,
                family,
                number,
                back,
            } => {
                let (key, trailer) = (key(family, number), Trailer::seek(visible(back)));
                let reader = &mut self.readers[slot];
                reader.iter.seek(&key, trailer).unwrap();
                reader.settle(true);
                let at = (key, Reverse(trailer.raw()));
                reader.check(reader.after(&self.model, Bound::Included(&at)));
            }
            Operation::SeekForPrev {
                slot,
                family,
                number,
                back,
            } => {
                let (key, trailer) = (key(family, number), Trailer::seek(visible(back)));
                let reader = &mut self.readers[slot];
                reader.iter.seek_for_prev(&key, trailer).unwrap();
                reader.settle(false);
                let at = (key, Reverse(trailer.raw()));
                reader.check(reader.before(&self.model, Bound::Included(&at)));
            }
            Operation::Next { slot, count } => {
                let _ = (0..count).all(|_| self.readers[slot].step(&self.model, true));
            }
            Operation::Previous { slot, count } => {
                let _ = (0..count).all(|_| self.readers[slot].step(&self.model, false));
            }
        }
    }

    /// Everything, in both directions, and every exact seek.
    fn finish(mut self) {
        assert_eq!(self.memtable.entries(), self.model.len() as u64);
        assert_eq!(self.memtable.is_empty(), self.model.is_empty());
        assert_eq!(
            self.memtable.largest_sequence(),
            (self.sequence > 0).then_some(self.sequence)
        );
        assert_eq!(
            self.memtable.smallest_sequence(),
            (self.sequence > 0).then_some(1)
        );
        let reader = Reader {
            iter: self.memtable.iter(),
            visible: self.sequence,
        };
        self.readers[0] = reader;
        for (start, forwards) in [
            (Operation::First { slot: 0 }, true),
            (Operation::Last { slot: 0 }, false),
        ] {
            self.apply(&start);
            while self.readers[0].step(&self.model, forwards) {}
        }
        // From key to key, whatever stands between them.
        self.apply(&Operation::First { slot: 0 });
        while let Some((key, _)) = self.readers[0].position() {
            let reader = &mut self.readers[0];
            reader.iter.pass_key(&key).unwrap();
            let passed = (key, Reverse(Trailer::OLDEST.raw()));
            reader.check(reader.after(&self.model, Bound::Excluded(&passed)));
        }
        for (position, value) in &self.model {
            let (key, trailer) = (&position.0, Trailer::from_raw(position.1.0));
            let reader = &mut self.readers[0];
            reader.iter.seek(key, trailer).unwrap();
            reader.check(Some((position, value)));
            reader.iter.seek_for_prev(key, trailer).unwrap();
            reader.check(Some((position, value)));
            let found = self.memtable.get(key, trailer.sequence());
            assert_eq!(found, Some((trailer, value.as_slice())));
        }
    }
}

fn agrees_with_a_sorted_map(kind: MemtableKind, operations: &[Operation]) {
    let mut run = Run::new(kind, &ArenaPool::new(1 << 20));
    for operation in operations {
        run.apply(operation);
    }
    run.finish();
}

/// The tests, for each kind in a module of its own: Miri checks the B+tree with all it has, but
/// crossbeam's list and epochs only without the aliasing rules, which they break.
macro_rules! tests_of {
    ($module:ident, $kind:expr, $($test:ident)*) => {
        mod $module {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

                #[test]
                fn agrees_with_a_sorted_map(
                    operations in prop::collection::vec(operation(), 0..OPERATIONS),
                ) {
                    super::agrees_with_a_sorted_map($kind, &operations);
                }
            }

            $(
                #[test]
                fn $test() {
                    super::$test($kind);
                }
            )*
        }
    };
}

macro_rules! tests {
    ($($test:ident)*) => {
        tests_of!(skip_list, MemtableKind::SkipList, $($test)*);
        tests_of!(b_tree, MemtableKind::BTree, $($test)*);
    };
}

tests! {
    every_family_in_ascending_descending_and_scattered_order
    an_empty_memtable_has_nothing_and_costs_nothing
    the_iterator_outlives_the_memtable_and_values_may_be_large
    a_pool_keeps_chunks_within_its_limit_and_hands_them_out_again
    range_tombstones_cover_from_the_sequence_on_at_which_they_were_added
    a_walk_by_steps_meets_every_key_once_and_compares_few
}

fn every_family_in_ascending_descending_and_scattered_order(kind: MemtableKind) {
    let count = if cfg!(miri) { 60 } else { 3000 };
    let pool = ArenaPool::new(1 << 20);
    for family in FAMILIES {
        let steps: &[u64] = if cfg!(miri) { &[997] } else { &[1, 2999, 997] };
        for step in steps {
            let mut run = Run::new(kind, &pool);
            for index in 0..count {
                run.insert(family, index * step % 3000);
            }
            run.finish();
        }
    }
}

fn an_empty_memtable_has_nothing_and_costs_nothing(kind: MemtableKind) {
    let memtable = Arc::new(Memtable::new(kind));
    assert!(memtable.is_empty() && memtable.bytes() == 0 && memtable.reserved_bytes() == 0);
    assert_eq!(
        (memtable.smallest_sequence(), memtable.largest_sequence()),
        (None, None)
    );
    assert!(memtable.get(b"a", u64::MAX >> 8).is_none());
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    assert!(!iter.valid());
    iter.seek_to_last().unwrap();
    assert!(!iter.valid());
    iter.seek(b"", Trailer::seek(9)).unwrap();
    assert!(!iter.valid());
    iter.seek_for_prev(b"z", Trailer::OLDEST).unwrap();
    assert!(!iter.valid());
}

fn the_iterator_outlives_the_memtable_and_values_may_be_large(kind: MemtableKind) {
    let large = vec![7; if cfg!(miri) { 300_000 } else { 5 << 20 }];
    let memtable = Arc::new(Memtable::new(kind));
    for sequence in 1..=3 {
        memtable.insert(b"large", Trailer::new(sequence, ValueKind::Value), &large);
    }
    memtable.insert(b"small", Trailer::new(4, ValueKind::Value), b"");
    assert!(memtable.bytes() >= 3 * large.len() && memtable.reserved_bytes() >= memtable.bytes());
    let mut iter = memtable.iter();
    drop(memtable);
    iter.seek_to_first().unwrap();
    assert_eq!(
        (iter.user_key(), iter.value()),
        (&b"large"[..], large.as_slice())
    );
    iter.seek_to_last().unwrap();
    assert_eq!((iter.user_key(), iter.value()), (&b"small"[..], &b""[..]));
}

fn a_pool_keeps_chunks_within_its_limit_and_hands_them_out_again(kind: MemtableKind) {
    let pool = ArenaPool::new(200_000);
    for round in 0..3 {
        let memtable = Memtable::with_pool(kind, Arc::clone(&pool));
        for sequence in 1..=500 {
            let key = format!("key {sequence}");
            memtable.insert(
                key.as_bytes(),
                Trailer::new(sequence, ValueKind::Value),
                &[round; 90],
            );
        }
        let reserved = memtable.reserved_bytes();
        drop(memtable);
        assert!(pool.held_bytes() > 0 && pool.held_bytes() <= 200_000.min(reserved + 200_000));
    }
}

fn range_tombstones_cover_from_the_sequence_on_at_which_they_were_added(kind: MemtableKind) {
    let memtable = Memtable::new(kind);
    assert!(!memtable.has_range_tombstones() && memtable.covering_sequence(b"k", 9).is_none());
    let count = if cfg!(miri) { 20 } else { 300u64 };
    for sequence in 1..=count {
        let (start, end) = (
            format!("{:04}", sequence * 7 % count),
            format!("{:04}", sequence * 7 % count + 3),
        );
        memtable.add_range_tombstone(start.as_bytes(), end.as_bytes(), sequence);
    }
    assert!(memtable.has_range_tombstones() && !memtable.is_empty() && memtable.bytes() > 0);
    assert_eq!(
        (memtable.smallest_sequence(), memtable.largest_sequence()),
        (Some(1), Some(count))
    );
    let all = memtable.range_tombstones();
    for number in 0..count {
        for visible in [0, 1, count / 2, count] {
            let covers = |sequence: &u64| {
                let start = sequence * 7 % count;
                (start..start + 3).contains(&number)
            };
            let expected = (1..=visible).rev().find(covers);
            let key = format!("{number:04}");
            assert_eq!(
                memtable.covering_sequence(key.as_bytes(), visible),
                expected
            );
            assert_eq!(all.covering_sequence(key.as_bytes(), visible), expected);
        }
    }
}

/// The records of a key in the order of their numbers, in the opposite one, and mixed with those of keys that begin
/// like it and have equal words.
fn a_walk_by_steps_meets_every_key_once_and_compares_few(kind: MemtableKind) {
    let memtable = Arc::new(Memtable::new(kind));
    let (keys, versions) = if cfg!(miri) { (6, 5) } else { (40u64, 30u64) };
    for number in 0..keys * versions {
        let (key, round) = (number * 7 % keys, number / keys);
        let sequence = match key % 2 {
            0 => 1 + round,
            _ => versions - round,
        };
        let key = [b"key\0\0\0\0\0".as_slice(), &vec![0; key as usize]].concat();
        memtable.insert(&key, Trailer::new(sequence, ValueKind::Value), b"");
    }
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    let (mut met, mut stayed) = (vec![iter.user_key().to_vec()], 0);
    while iter.valid() {
        match iter.step(Direction::Forward).unwrap() {
            Step::To(trailer) if met.last().is_some_and(|last| last != iter.user_key()) => {
                assert_eq!(trailer.sequence(), versions, "the newest of its key");
                met.push(iter.user_key().to_vec());
            }
            Step::To(_) => panic!("a step to the same key"),
            Step::End => break,
            Step::Stayed => {
                stayed += 1;
                iter.next().unwrap();
                if iter.valid() && met.last().is_some_and(|last| last != iter.user_key()) {
                    met.push(iter.user_key().to_vec());
                }
            }
        }
    }
    assert_eq!(met.len() as u64, keys);
    assert!(met.is_sorted());
    assert!(
        stayed < keys * versions * 3 / 4,
        "{stayed} records were looked at"
    );
}

//! The merge against a sorted vector, under any sequence of movements.

use super::*;
use crate::error::Error;
use crate::internal_key::{self, ValueKind};
use proptest::prelude::*;

type Record = (Vec<u8>, Trailer);

/// A cursor over a sorted vector: the model of an internal iterator, and a child of the merges.
/// The value of every record is its key reversed.
#[derive(Clone, Debug, Default)]
struct VectorIterator {
    records: Vec<Record>,
    values: Vec<Vec<u8>>,
    /// `records.len()` where it stands on none.
    at: usize,
    /// Movements until one fails.
    movements_left: Option<u32>,
}

impl VectorIterator {
    fn new(mut records: Vec<Record>) -> Self {
        records.sort_by(|a, b| internal_key::compare(&a.0, a.1, &b.0, b.1));
        let values = records
            .iter()
            .map(|(key, _)| key.iter().rev().copied().collect())
            .collect();
        let at = records.len();
        Self {
            records,
            values,
            at,
            movements_left: None,
        }
    }

    fn go(&mut self, at: Option<usize>) -> Result<()> {
        self.at = at.unwrap_or(self.records.len());
        match &mut self.movements_left {
            Some(0) => {
                self.at = self.records.len();
                Err(Error::corruption("the child failed"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn count_before(&self, key: &[u8], trailer: Trailer, allowed: Ordering) -> usize {
        self.records.partition_point(|(other, other_trailer)| {
            let order = internal_key::compare(other, *other_trailer, key, trailer);
            order == Ordering::Less || order == allowed
        })
    }
}

impl InternalIterator for VectorIterator {
    fn valid(&self) -> bool {
        self.at < self.records.len()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.go(Some(0))
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.go(self.records.len().checked_sub(1))
    }
    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.go(Some(self.count_before(user_key, trailer, Ordering::Less)))
    }
    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.go(self
            .count_before(user_key, trailer, Ordering::Equal)
            .checked_sub(1))
    }
    fn next(&mut self) -> Result<()> {
        assert!(self.valid(), "next on an invalid iterator");
        self.go(Some(self.at + 1))
    }
    fn prev(&mut self) -> Result<()> {
        assert!(self.valid(), "prev on an invalid iterator");
        self.go(self.at.checked_sub(1))
    }
    fn user_key(&self) -> &[u8] {
        &self.records[self.at].0
    }
    fn trailer(&self) -> Trailer {
        self.records[self.at].1
    }
    fn value(&self) -> &[u8] {
        &self.values[self.at]
    }
    fn neighbour_differs(&self, direction: Direction) -> bool {
        let neighbour = match direction {
            Direction::Forward => self.at + 1,
            Direction::Backward => self.at.wrapping_sub(1),
        };
        let neighbour = self.records.get(neighbour);
        neighbour.is_none_or(|neighbour| neighbour.0 != self.user_key())
    }
}

#[derive(Clone, Debug)]
enum Movement {
    First,
    Last,
    Seek(Vec<u8>, Trailer),
    SeekForPrev(Vec<u8>, Trailer),
    Next,
    Prev,
    /// To the next key.
    PassKey,
    /// Steps that way, at most so often, as long as that leads anywhere.
    Steps(Direction, u32),
}

fn apply(iterator: &mut impl InternalIterator, movement: &Movement) -> Result<()> {
    match movement {
        Movement::First => iterator.seek_to_first(),
        Movement::Last => iterator.seek_to_last(),
        Movement::Seek(key, trailer) => iterator.seek(key, *trailer),
        Movement::SeekForPrev(key, trailer) => iterator.seek_for_prev(key, *trailer),
        Movement::Next if iterator.valid() => iterator.next(),
        Movement::Prev if iterator.valid() => iterator.prev(),
        Movement::PassKey if iterator.valid() => {
            let key = iterator.user_key().to_vec();
            iterator.pass_key(&key).map(|_| ())
        }
        Movement::Next | Movement::Prev | Movement::PassKey => Ok(()),
        Movement::Steps(direction, most) => steps(iterator, *direction, *most),
    }
}

/// Whether a merge that goes this way moves: it knows no neighbour the other way.
fn is_followed(movement: &Movement, way: Direction) -> bool {
    !matches!(movement, Movement::Steps(direction, _) if *direction != way)
}

/// Steps, and checks that a step tells where it has led.
fn steps(iterator: &mut impl InternalIterator, direction: Direction, most: u32) -> Result<()> {
    for _ in 0..most {
        if !iterator.valid() {
            break;
        }
        let key = iterator.user_key().to_vec();
        let is_known = iterator.neighbour_differs(direction);
        match iterator.step(direction)? {
            Step::Stayed => {
                assert!(!is_known && iterator.user_key() == key);
                break;
            }
            Step::End => assert!(is_known && !iterator.valid()),
            Step::To(trailer) => {
                assert!(is_known && iterator.trailer() == trailer);
                assert_ne!(iterator.user_key(), key);
            }
        }
    }
    Ok(())
}

/// Keys that agree in their first sixteen bytes, keys that are padding or all ones, and short ones.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![
        3 => Just(&b""[..]),
        3 => Just(&b"the same sixteen bytes"[..]),
        1 => Just(&[0; 16][..]),
        1 => Just(&[0xff; 16][..]),
    ];
    (
        head,
        prop::collection::vec(
            prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(0xff)],
            0..3,
        ),
    )
        .prop_map(|(head, tail)| [head, &tail].concat())
}

fn trailer() -> impl Strategy<Value = Trailer> {
    (0u64..6).prop_map(|sequence| Trailer::new(sequence, ValueKind::Value))
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Forward), Just(Direction::Backward)]
}

fn movement() -> impl Strategy<Value = Movement> {
    prop_oneof![
        1 => Just(Movement::First),
        1 => Just(Movement::Last),
        2 => (key(), trailer()).prop_map(|(key, trailer)| Movement::Seek(key, trailer)),
        2 => (key(), trailer()).prop_map(|(key, trailer)| Movement::SeekForPrev(key, trailer)),
        8 => Just(Movement::Next),
        8 => Just(Movement::Prev),
        4 => Just(Movement::PassKey),
        4 => (direction(), 1u32..6).prop_map(|(way, most)| Movement::Steps(way, most)),
    ]
}

/// Distinct records, each dealt to one of up to nine children.
fn children() -> impl Strategy<Value = Vec<Vec<Record>>> {
    (0usize..=9).prop_flat_map(|count| {
        let records = prop::collection::btree_map(
            (key(), 0u64..6),
            any::<prop::sample::Index>(),
            0..if count == 0 { 1 } else { 60 },
        );
        records.prop_map(move |records| {
            let mut children = vec![Vec::new(); count];
            for ((key, sequence), child) in records {
                let record = (key, Trailer::new(sequence, ValueKind::Value));
                children[child.index(count)].push(record);
            }
            children
        })
    })
}

fn merge(children: &[Vec<Record>]) -> MergingIterator<VectorIterator> {
    MergingIterator::new(children.iter().cloned().map(VectorIterator::new).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_movements_agree_with_a_sorted_vector(
        children in children(),
        movements in prop::collection::vec(movement(), 0..60),
    ) {
        let mut model = VectorIterator::new(children.concat());
        let mut merged = merge(&children);
        for movement in movements {
            if is_followed(&movement, merged.direction) {
                apply(&mut model, &movement).unwrap();
            }
            apply(&mut merged, &movement).unwrap();
            prop_assert_eq!(merged.valid(), model.valid(), "{:?}", movement);
            if model.valid() {
                prop_assert_eq!(merged.user_key(), model.user_key(), "{:?}", movement);
                prop_assert_eq!(merged.trailer(), model.trailer(), "{:?}", movement);
                prop_assert_eq!(merged.value(), model.value(), "{:?}", movement);
                let child = &merged.children[merged.child_index()];
                prop_assert_eq!(merged.current_child().at, child.at);
                prop_assert_eq!(child.user_key(), model.user_key());
                // Where every child knows its neighbour, the merge knows its own.
                let direction = merged.direction;
                prop_assert_eq!(
                    merged.neighbour_differs(direction),
                    model.neighbour_differs(direction)
                );
            }
        }
    }

    #[test]
    fn a_failing_child_fails_the_movement_and_invalidates_the_merge(
        children in children(),
        failing: prop::sample::Index,
        movements_left in 0u32..20,
        movements in prop::collection::vec(movement(), 0..60),
    ) {
        prop_assume!(!children.is_empty());
        let mut model = VectorIterator::new(children.concat());
        let mut merged = merge(&children);
        let failing = failing.index(children.len());
        merged.children[failing].movements_left = Some(movements_left);
        for movement in movements {
            if is_followed(&movement, merged.direction) {
                apply(&mut model, &movement).unwrap();
            }
            if apply(&mut merged, &movement).is_err() {
                prop_assert!(!merged.valid());
                merged.children[failing].movements_left = None;
                merged.seek_to_first().unwrap();
                model.seek_to_first().unwrap();
            }
            prop_assert_eq!(merged.valid(), model.valid());
            if model.valid() {
                prop_assert_eq!(merged.user_key(), model.user_key());
                prop_assert_eq!(merged.trailer(), model.trailer());
            }
        }
    }

    #[test]
    fn equal_records_come_once_each_per_pass_the_lower_child_first(
        children in prop::collection::vec(
            prop::collection::vec((key(), trailer()), 0..8), 0..=9),
        movements in prop::collection::vec(movement(), 0..30),
    ) {
        let mut merged = merge(&children);
        let total: usize = children.iter().map(Vec::len).sum();
        for movement in &movements {
            apply(&mut merged, movement).unwrap();
        }
        for (start, step) in [(Movement::First, Movement::Next), (Movement::Last, Movement::Prev)] {
            let mut seen = Vec::new();
            apply(&mut merged, &start).unwrap();
            while merged.valid() && seen.len() <= total {
                seen.push((merged.user_key().to_vec(), merged.trailer(), merged.child_index()));
                apply(&mut merged, &step).unwrap();
            }
            prop_assert_eq!(seen.len(), total);
            for pair in seen.windows(2) {
                let order = internal_key::compare(&pair[0].0, pair[0].1, &pair[1].0, pair[1].1);
                match (order, &step) {
                    (Ordering::Equal, _) => prop_assert!(pair[0].2 <= pair[1].2),
                    (order, Movement::Next) => prop_assert_eq!(order, Ordering::Less),
                    (order, _) => prop_assert_eq!(order, Ordering::Greater),
                }
            }
        }
    }
}

/// The story: to pass a key its end was searched for, and found at the first of the records that stood in that very
/// place; these were passed one by one, and the end was searched for again, for ever.
#[test]
fn a_key_with_records_in_the_last_place_that_there_is_is_passed() {
    let last = |key: &str, count| vec![(key.as_bytes().to_vec(), Trailer::OLDEST); count];
    let children = [[last("a", 40), last("b", 1)].concat(), last("a", 20)];
    for from_behind in [false, true] {
        let mut merged = merge(&children);
        if from_behind {
            merged.seek_for_prev(b"a", Trailer::OLDEST).unwrap();
        } else {
            merged.seek_to_first().unwrap();
        }
        merged.pass_key(b"a").unwrap();
        assert!(merged.valid() && merged.user_key() == b"b");
    }
}

#[test]
fn no_child_no_record() {
    let mut merged: MergingIterator<VectorIterator> = MergingIterator::new(Vec::new());
    assert!(!merged.valid());
    for movement in [
        Movement::First,
        Movement::Last,
        Movement::Seek(vec![], Trailer::seek(0)),
    ] {
        apply(&mut merged, &movement).unwrap();
        assert!(!merged.valid());
    }
}

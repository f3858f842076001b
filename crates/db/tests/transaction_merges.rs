//! Operands, times to live and defaults of a keyspace in a transaction, against the same operations outside
//! of one, and against the same in one batch: values and times to live are the same, while the transaction
//! runs and after it, with indexes and without.

use esker::merge_operators::Append;
use esker::{Db, IndexDefinition, Keyspace, KeyspaceOptions, ManualClock, Options, Transaction};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Deed {
    Put(usize),
    PutWithTtl(usize, u64),
    Merge(usize),
    Delete(usize),
    DeleteRange,
    SetTtl(usize, u64),
    Persist(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let key = || 0..KEYS.len();
    prop_oneof![
        3 => key().prop_map(Deed::Put),
        2 => (key(), 1_u64..20).prop_map(|(key, seconds)| Deed::PutWithTtl(key, seconds)),
        5 => key().prop_map(Deed::Merge),
        1 => key().prop_map(Deed::Delete),
        1 => Just(Deed::DeleteRange),
        2 => (key(), 1_u64..20).prop_map(|(key, seconds)| Deed::SetTtl(key, seconds)),
        2 => key().prop_map(Deed::Persist),
    ]
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    proptest::collection::vec(deed(), 0..12)
}

struct World {
    clock: Arc<ManualClock>,
    db: Db,
    keyspace: Keyspace,
}

fn world(default_ttl: Option<Duration>, is_indexed: bool) -> World {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let mut options = Options::new()
        .clock(clock.clone())
        .ttl_cleanup_interval(None)
        .merge_operator("words", Append::new("+"));
    if is_indexed {
        let by_length = IndexDefinition::new("by_length", 1, |_key, value, keys| {
            keys.add(&(value.len() as u64));
            Ok(())
        });
        options = options.index("words", by_length);
    }
    let db = options.open_in_memory().unwrap();
    let own = KeyspaceOptions::new().default_ttl(default_ttl);
    let keyspace = db.keyspace_with("words", &own).unwrap();
    if is_indexed {
        db.build_indexes().unwrap();
    }
    World {
        clock,
        db,
        keyspace,
    }
}

impl World {
    fn directly(&self, deed: &Deed) {
        let keyspace = &self.keyspace;
        match *deed {
            Deed::Put(key) => keyspace.put(KEYS[key], "v").unwrap(),
            Deed::PutWithTtl(key, seconds) => {
                keyspace
                    .put_with_ttl(KEYS[key], "t", Duration::from_secs(seconds))
                    .unwrap();
            }
            Deed::Merge(key) => keyspace.merge(KEYS[key], "m").unwrap(),
            Deed::Delete(key) => keyspace.delete(KEYS[key]).unwrap(),
            Deed::DeleteRange => keyspace.delete_range("a".."c").unwrap(),
            Deed::SetTtl(key, seconds) => {
                keyspace
                    .set_ttl(KEYS[key], Duration::from_secs(seconds))
                    .map(drop)
                    .unwrap();
            }
            Deed::Persist(key) => keyspace.persist(KEYS[key]).map(drop).unwrap(),
        }
    }

    fn in_transaction(&self, tx: &mut Transaction, deed: &Deed) {
        let keyspace = &self.keyspace;
        match *deed {
            Deed::Put(key) => tx.put_in(keyspace, KEYS[key], "v").unwrap(),
            Deed::PutWithTtl(key, seconds) => {
                tx.put_with_ttl_in(keyspace, KEYS[key], "t", Duration::from_secs(seconds))
                    .unwrap();
            }
            Deed::Merge(key) => tx.merge_in(keyspace, KEYS[key], "m").unwrap(),
            Deed::Delete(key) => tx.delete_in(keyspace, KEYS[key]).unwrap(),
            Deed::DeleteRange => tx.delete_range_in(keyspace, "a".."c").unwrap(),
            Deed::SetTtl(key, seconds) => {
                tx.set_ttl_in(keyspace, KEYS[key], Duration::from_secs(seconds))
                    .map(drop)
                    .unwrap();
            }
            Deed::Persist(key) => tx.persist_in(keyspace, KEYS[key]).map(drop).unwrap(),
        }
    }

    /// Every key with its value and its time to live.
    fn seen(&self) -> Vec<Seen> {
        let entries = KEYS.map(|key| {
            let value = self.keyspace.get(key).unwrap();
            (
                key,
                value.map(|value| value.to_vec()),
                self.keyspace.ttl(key).unwrap(),
            )
        });
        let scanned: Vec<Vec<u8>> = self
            .keyspace
            .iter()
            .map(|entry| entry.unwrap().1.to_vec())
            .collect();
        let valued: Vec<Vec<u8>> = entries
            .iter()
            .filter_map(|(_, value, _)| value.clone())
            .collect();
        assert_eq!(scanned, valued);
        entries.to_vec()
    }

    fn seen_by(&self, tx: &mut Transaction) -> Vec<Seen> {
        let entries = KEYS.map(|key| {
            let value = tx.get_in(&self.keyspace, key).unwrap();
            let ttl = tx.ttl_in(&self.keyspace, key).unwrap();
            (key, value.map(|value| value.to_vec()), ttl)
        });
        let scanned: Vec<Vec<u8>> = tx
            .iter_in(&self.keyspace)
            .map(|entry| entry.unwrap().1.to_vec())
            .collect();
        let valued: Vec<Vec<u8>> = entries
            .iter()
            .filter_map(|(_, value, _)| value.clone())
            .collect();
        assert_eq!(scanned, valued);
        entries.to_vec()
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

type Seen = (&'static str, Option<Vec<u8>>, Option<Duration>);

fn compare(
    default_ttl: Option<Duration>,
    is_indexed: bool,
    before: &[Deed],
    pause: u64,
    deeds: &[Deed],
) {
    let (outside, inside) = (
        world(default_ttl, is_indexed),
        world(default_ttl, is_indexed),
    );
    for deed in before {
        outside.directly(deed);
        inside.directly(deed);
    }
    outside.advance(pause);
    inside.advance(pause);
    let mut tx = inside.db.begin().unwrap();
    for (at, deed) in deeds.iter().enumerate() {
        outside.directly(deed);
        inside.in_transaction(&mut tx, deed);
        assert_eq!(
            inside.seen_by(&mut tx),
            outside.seen(),
            "after {:?}",
            &deeds[..=at]
        );
    }
    tx.commit().unwrap();
    assert_eq!(
        inside.seen(),
        outside.seen(),
        "after the commit of {deeds:?}"
    );
    for seconds in [1, 3, 10, 3600] {
        outside.advance(seconds);
        inside.advance(seconds);
        assert_eq!(inside.seen(), outside.seen(), "{seconds} seconds later");
    }
    assert!(inside.db.validate().unwrap().is_ok());
    assert_eq!(
        inside.db.cleanup_expired().unwrap(),
        outside.db.cleanup_expired().unwrap()
    );
}

/// In a keyspace with indexes a transaction makes a value of an operand at once, and that value was a put
/// like any other at the commit: it got the keyspace's default, and vanished after an hour.
#[test]
fn the_value_that_an_operand_becomes_gets_no_default() {
    compare(Some(HOUR), true, &[], 0, &[Deed::Merge(0)]);
    let before = [Deed::Put(0), Deed::Persist(0)];
    compare(Some(HOUR), true, &before, 0, &[Deed::Merge(0)]);
}

/// Of a put without a time to live that was merged into, a transaction said that it would not expire, and
/// `persist` left it alone: it expired after an hour all the same.
#[test]
fn what_was_put_and_merged_into_tells_of_its_default_and_can_be_kept() {
    for is_indexed in [false, true] {
        let deeds = [Deed::Put(0), Deed::Merge(0), Deed::Merge(0)];
        compare(Some(HOUR), is_indexed, &[], 0, &deeds);
        let deeds = [
            Deed::Put(0),
            Deed::Merge(0),
            Deed::Persist(0),
            Deed::Merge(0),
        ];
        compare(Some(HOUR), is_indexed, &[], 0, &deeds);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_transaction_does_what_the_same_operations_do_outside_of_one(
        default_ttl in prop::option::of(Just(HOUR)),
        is_indexed: bool,
        before in deeds(),
        pause in 0_u64..15,
        deeds in deeds(),
    ) {
        compare(default_ttl, is_indexed, &before, pause, &deeds);
    }

    /// Without defaults, which begin at the commit, time may pass between the operations as well.
    #[test]
    fn time_that_passes_within_a_transaction_changes_nothing_of_that(
        is_indexed: bool,
        before in deeds(),
        deeds in proptest::collection::vec((deed(), 0_u64..6), 0..12),
    ) {
        let (outside, inside) = (world(None, is_indexed), world(None, is_indexed));
        for deed in &before {
            outside.directly(deed);
            inside.directly(deed);
        }
        let mut tx = inside.db.begin().unwrap();
        for (deed, seconds) in &deeds {
            outside.directly(deed);
            inside.in_transaction(&mut tx, deed);
            outside.advance(*seconds);
            inside.advance(*seconds);
            assert_eq!(inside.seen_by(&mut tx), outside.seen(), "after {deed:?} of {deeds:?}");
        }
        tx.commit().unwrap();
        for seconds in [0, 1, 3, 10] {
            outside.advance(seconds);
            inside.advance(seconds);
            assert_eq!(inside.seen(), outside.seen(), "{deeds:?}, {seconds} seconds later");
        }
    }
}

//! Savepoints: nested as deep as one likes, gone back to in any order, against a model.

use super::{kind, memory};
use esker::{Db, ErrorKind, Savepoint, Transaction};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn entries(tx: &mut Transaction) -> Model {
    let copy = |entry: esker::Result<(esker::Value, esker::Value)>| {
        let (key, value) = entry.unwrap();
        (key.to_vec(), value.to_vec())
    };
    tx.iter().map(copy).collect()
}

fn committed(db: &Db) -> Model {
    let entries = db.iter().map(|entry| entry.unwrap());
    entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

#[test]
fn two_thousand_savepoints_deep() {
    const DEPTH: u32 = 2000;
    let db = memory();
    let mut tx = db.begin().unwrap();
    let mut points: Vec<Savepoint> = Vec::new();
    for level in 0..DEPTH {
        points.push(tx.savepoint());
        tx.put(level.to_be_bytes(), "here").unwrap();
        tx.put("level", level.to_be_bytes()).unwrap();
    }
    assert_eq!(tx.iter().count(), DEPTH as usize + 1);
    // Out of the innermost ones by hundreds, each time seeing what was there then.
    while points.len() > 100 {
        points.truncate(points.len() - 99);
        let point = points.pop().unwrap();
        tx.rollback_to(point).unwrap();
        let level = points.len() as u32;
        assert_eq!(tx.iter().count(), level as usize + 1);
        let last = tx.get("level").unwrap().unwrap();
        assert_eq!(&*last, (level - 1).to_be_bytes());
    }
    let level = points.len();
    tx.commit().unwrap();
    assert_eq!(db.count().unwrap(), level as u64 + 1);
}

#[test]
fn a_savepoint_is_good_until_something_before_it_is_gone_back_to() {
    let db = memory();
    let mut tx = db.begin().unwrap();
    let outer = tx.savepoint();
    let also_outer = tx.savepoint();
    tx.put("a", "1").unwrap();
    let inner = tx.savepoint();
    tx.put("b", "1").unwrap();

    // Twice to the same place, by a clone.
    tx.rollback_to(inner.clone()).unwrap();
    assert_eq!(tx.iter().count(), 1);
    tx.put("c", "1").unwrap();
    tx.rollback_to(inner.clone()).unwrap();
    assert_eq!((tx.iter().count(), tx.len()), (1, 1));

    tx.rollback_to(outer).unwrap();
    assert!(tx.is_empty());
    assert_eq!(kind(tx.rollback_to(inner)), ErrorKind::InvalidArgument);
    // Also where as much was written since as there was.
    let other = tx.savepoint();
    tx.put("a", "2").unwrap();
    tx.rollback_to(also_outer).unwrap();
    assert!(tx.is_empty());

    let mut stranger = db.begin().unwrap();
    stranger.put("x", "1").unwrap();
    assert_eq!(
        kind(stranger.rollback_to(other)),
        ErrorKind::InvalidArgument
    );
    assert_eq!(stranger.len(), 1, "nothing was changed");
    tx.put("kept", "1").unwrap();
    tx.commit().unwrap();
    assert_eq!(committed(&db).len(), 1);
}

/// What was read stays protected when the writes after it are taken back.
#[test]
fn reads_outlive_a_rollback_to_a_savepoint() {
    let db = memory();
    let mut tx = db.begin().unwrap();
    let point = tx.savepoint();
    assert!(tx.get("read").unwrap().is_none());
    tx.put("a", "1").unwrap();
    tx.rollback_to(point).unwrap();
    tx.put("b", "1").unwrap();
    db.put("read", "now").unwrap();
    assert_eq!(kind(tx.commit()), ErrorKind::Conflict);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Savepoint,
    /// Back to the savepoint so many before the last.
    Back(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0u8..12, any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        2 => (0u8..12).prop_map(Op::Delete),
        1 => (0u8..12, 0u8..12).prop_map(|(a, b)| Op::DeleteRange(a.min(b), a.max(b))),
        3 => Just(Op::Savepoint),
        2 => (0usize..4).prop_map(Op::Back),
    ];
    prop::collection::vec(op, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agrees_with_a_stack_of_copies(base in prop::collection::btree_set(0u8..12, 0..8), ops in ops()) {
        let db = memory();
        let mut model = Model::new();
        for key in base {
            db.put([key], "base").unwrap();
            model.insert(vec![key], b"base".to_vec());
        }
        let mut tx = db.begin().unwrap();
        let mut stack: Vec<(Savepoint, Model)> = Vec::new();
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    tx.put([key], [value]).unwrap();
                    model.insert(vec![key], vec![value]);
                }
                Op::Delete(key) => {
                    tx.delete([key]).unwrap();
                    model.remove([key].as_slice());
                }
                Op::DeleteRange(from, to) => {
                    tx.delete_range([from]..[to]).unwrap();
                    model.retain(|key, _| !(from..to).contains(&key[0]));
                }
                Op::Savepoint => stack.push((tx.savepoint(), model.clone())),
                Op::Back(depth) => {
                    if depth < stack.len() {
                        stack.truncate(stack.len() - depth);
                        let (point, then) = stack.last().cloned().unwrap();
                        tx.rollback_to(point).unwrap();
                        model = then;
                    }
                }
            }
            for key in 0..12 {
                let expected = model.get([key].as_slice()).map(Vec::as_slice);
                let found = tx.get([key]).unwrap();
                prop_assert_eq!(found.as_deref(), expected);
            }
        }
        prop_assert_eq!(entries(&mut tx), model.clone());
        tx.commit().unwrap();
        prop_assert_eq!(committed(&db), model);
    }
}

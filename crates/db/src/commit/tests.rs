//! Groups: what is in one is decided by holding the writer lock until everybody waits.

use super::*;
use crate::Db;
use crate::options::Options;
use esker_base::{Error, ErrorKind};
use std::thread;

/// Commits `transactions` in one group, in an order that the queue decides.
fn in_one_group(db: &Db, transactions: Vec<crate::Transaction>) -> Vec<Result<()>> {
    let commit = |tx: crate::Transaction| move || tx.commit();
    all_in_one_group(db, transactions.into_iter().map(commit).collect())
}

/// Makes `writes` in one group, in an order that the queue decides.
fn all_in_one_group<W>(db: &Db, writes: Vec<W>) -> Vec<Result<()>>
where
    W: FnOnce() -> Result<()> + Send,
{
    let queue = &db.engine().commit_queue;
    let held = queue.lock();
    thread::scope(|scope| {
        let commits: Vec<_> = writes.into_iter().map(|write| scope.spawn(write)).collect();
        while queue.line.waiting_count() < commits.len() {
            thread::yield_now();
        }
        drop(held);
        let join = |commit: thread::ScopedJoinHandle<'_, Result<()>>| commit.join().unwrap();
        commits.into_iter().map(join).collect()
    })
}

/// Each has searched before any of them was ordered: only the leader can tell that they conflict.
#[test]
fn of_transactions_of_one_group_that_conflict_one_commits() {
    for by_range in [false, true] {
        let db = Options::new().open_in_memory().unwrap();
        let transactions = (0..4)
            .map(|number: u8| {
                let mut tx = db.begin().unwrap();
                if by_range {
                    assert_eq!(tx.range("a".."z").count(), 0);
                } else {
                    assert!(tx.get("k").unwrap().is_none());
                }
                tx.put("k", [number]).unwrap();
                tx
            })
            .collect();
        let outcomes = in_one_group(&db, transactions);
        let refused = |outcome: &&Result<()>| {
            let kind = outcome.as_ref().err().map(Error::kind);
            assert!(kind.is_none_or(|kind| kind == ErrorKind::Conflict));
            kind.is_some()
        };
        assert_eq!(outcomes.iter().filter(refused).count(), 3, "{outcomes:?}");
        let winner = outcomes.iter().position(Result::is_ok).unwrap();
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&[winner as u8][..]));
    }
}

#[test]
fn of_transactions_of_one_group_that_do_not_conflict_all_commit() {
    let db = Options::new().open_in_memory().unwrap();
    let transactions = (0..4u8)
        .map(|number| {
            let mut tx = db.begin().unwrap();
            assert!(tx.get([number]).unwrap().is_none());
            tx.put([number], "v").unwrap();
            tx
        })
        .collect();
    let outcomes = in_one_group(&db, transactions);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(db.count().unwrap(), 4);
}

/// Index entries of a whole group were once derived before any of its members was settled: of two
/// writes of one record in a group, the later one did not remove the entry that the earlier one had
/// just made, and a record was found under a key that it no longer had.
#[test]
fn writes_of_one_record_in_one_group_leave_the_entries_of_the_last() {
    let by_value = crate::IndexDefinition::new("by_value", 1, |_key, value, keys| {
        keys.add(value);
        Ok(())
    });
    let db = Options::new()
        .index("default", by_value)
        .merge_operator("default", crate::merge_operators::Append::new("+"))
        .open_in_memory()
        .unwrap();
    for round in 0..20u8 {
        let write = |number: u8| {
            let db = &db;
            move || match number % 4 {
                0 => db.delete("k"),
                1 => db.merge("k", [number]),
                _ => db.put("k", [number, round]),
            }
        };
        let outcomes = all_in_one_group(&db, (0..8).map(write).collect());
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let found = crate::Query::new(&db)
            .index_range("by_value", Vec::<u8>::new()..)
            .rows();
        let found: Vec<_> = found
            .unwrap()
            .map(|row| row.unwrap().value().to_vec())
            .collect();
        let stands: Vec<_> = db.get("k").unwrap().iter().map(|v| v.to_vec()).collect();
        assert_eq!(found, stands);
        assert!(db.validate().unwrap().is_ok());
    }
}

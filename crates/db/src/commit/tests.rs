//! Groups: what is in one is decided by holding the writer lock until everybody waits.

use super::*;
use crate::Db;
use crate::options::Options;

/// Commits `transactions` in one group, in an order that the queue decides.
fn in_one_group(db: &Db, transactions: Vec<crate::Transaction>) -> Vec<Result<()>> {
    let queue = &db.engine().commit_queue;
    let held = queue.lock();
    thread::scope(|scope| {
        let commits: Vec<_> = transactions
            .into_iter()
            .map(|tx| scope.spawn(|| tx.commit()))
            .collect();
        while queue.waiting_count.load(Ordering::SeqCst) < commits.len() {
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

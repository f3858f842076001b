//! Transactions: which anomalies each isolation level and concurrency mode lets happen, what a scan
//! protects, locks, savepoints, and histories from many threads, with crashes in between.
//!
//! `docs/guide/transactions.md` promises what is checked here.

mod anomalies;
mod crashes;
mod histories;
mod locking;
mod savepoints;
mod scans;

use esker::merge_operators::Append;
use esker::{Concurrency, Db, ErrorKind, Isolation, Options, TransactionOptions};
use std::time::Duration;

/// All four ways to run a transaction. Locks do not wait: a wait shows as `TimedOut`.
fn modes() -> [(Isolation, Concurrency); 4] {
    [
        (Isolation::Serializable, Concurrency::Optimistic),
        (Isolation::Serializable, Concurrency::Pessimistic),
        (Isolation::Snapshot, Concurrency::Optimistic),
        (Isolation::Snapshot, Concurrency::Pessimistic),
    ]
}

fn options((isolation, concurrency): (Isolation, Concurrency)) -> TransactionOptions {
    TransactionOptions::new()
        .isolation(isolation)
        .concurrency(concurrency)
        .lock_timeout(Duration::ZERO)
}

fn memory() -> Db {
    Options::new()
        .write_buffer_bytes(64 << 10)
        .merge_operator("default", Append::default())
        .open_in_memory()
        .unwrap()
}

fn text(value: Option<esker::Value>) -> Option<String> {
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn kind<T: std::fmt::Debug>(result: esker::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

//! Who waits for whom: how a deadlock is seen before it happens.
//!
//! Invariant: the graph has no circle. Locks have one holder and are handed over in order, so that a
//! transaction waits for exactly one other: the one before it in the queue, or the holder for the
//! first. A new edge can close a circle only through the transaction it begins at, which is found
//! by following the edges from its other end; all edges change under one mutex, so that of two that
//! would close a circle together the second one sees the first.
//!
//! An edge may outlive the wait by a moment, while its lock is handed over; it then leads to a
//! transaction that runs, waits for nobody and thus closes no circle.

use super::TransactionId;
use esker_base::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::collections::HashMap;

/// For each transaction that waits, the one that it waits for.
#[derive(Debug, Default)]
pub(super) struct WaitGraph {
    edges: Mutex<HashMap<TransactionId, TransactionId>>,
}

impl WaitGraph {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.edges.lock().len()
    }

    /// Notes that `transaction` is going to wait for `other`.
    ///
    /// # Errors
    /// `Deadlock` where that would close a circle; nothing is noted then.
    pub(super) fn wait(&self, transaction: TransactionId, other: TransactionId) -> Result<()> {
        let mut edges = self.edges.lock();
        let (mut at, mut length) = (Some(other), 1);
        while let Some(next) = at {
            if next == transaction {
                return Err(deadlock(length));
            }
            length += 1;
            at = edges.get(&next).copied();
        }
        edges.insert(transaction, other);
        Ok(())
    }

    /// Notes that `transaction` does not wait any more. The one `behind` it in the queue, if any, now
    /// waits for the one before it; that adds no circle, for it did so by way of `transaction`.
    pub(super) fn leave(&self, transaction: TransactionId, behind: Option<TransactionId>) {
        let mut edges = self.edges.lock();
        let before = edges.remove(&transaction);
        if let (Some(behind), Some(before)) = (behind, before) {
            edges.insert(behind, before);
        }
    }
}

#[cold]
fn deadlock(length: usize) -> Error {
    let sentence = format!(
        "waiting for the lock would close a circle of {length} transactions that wait for each \
         other"
    );
    Error::new(ErrorKind::Deadlock, sentence)
}

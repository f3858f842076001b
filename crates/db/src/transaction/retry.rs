//! Running a transaction until it commits: bounded, with jittered pauses.
//!
//! Invariant: what is tried again is a conflict or a deadlock, each of which says that nothing was
//! written; any other failure, a lock's timeout included, goes to the caller.

use super::Transaction;
use crate::db::Db;
use crate::transaction_options::TransactionOptions;
use esker_base::{Error, ErrorKind, Result};
use std::time::Duration;

/// The longest pause between two attempts, as a power of two of 10 microseconds.
const LONGEST_PAUSE: u32 = 10;

/// Runs `body` in a transaction, again after each conflict, until it commits.
pub(crate) fn transact<T>(
    db: &Db,
    options: &TransactionOptions,
    mut body: impl FnMut(&mut Transaction) -> Result<T>,
) -> Result<T> {
    for attempt in 0.. {
        let mut transaction = Transaction::new(db, options)?;
        // Ends here, one way or the other: what it locked is free while this thread pauses.
        let outcome = body(&mut transaction).and_then(|value| transaction.commit().map(|()| value));
        match outcome {
            Err(error) if is_worth_a_retry(&error) && attempt < options.retries => {
                pause(db, attempt);
            }
            outcome => return outcome,
        }
    }
    let sentence = "the transaction was given up";
    Err(Error::new(ErrorKind::Conflict, sentence))
}

fn is_worth_a_retry(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Deadlock)
}

/// Waits, longer with each attempt, and never twice the same: two that met do not meet again.
fn pause(db: &Db, attempt: u32) {
    let clock = db.engine().clock();
    let most = 10u64 << attempt.min(LONGEST_PAUSE);
    let jitter = clock.monotonic_micros().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    clock.sleep(Duration::from_micros(most / 2 + (jitter >> 32) % most));
}

//! How a transaction is run: isolation, concurrency control, durability, limits.
//!
//! Invariant: every combination is meaningful, and every default is the careful choice.

use crate::options::Durability;
use crate::read_set::READ_SET_BYTES;
use std::time::Duration;

/// What a transaction is protected from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// From everything: transactions are as if run one after the other. The default.
    #[default]
    Serializable,
    /// From everything but write skew: only keys that are written, or read by
    /// [`get_for_update`](crate::Transaction::get_for_update), are checked.
    Snapshot,
}

/// How conflicts between transactions are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Concurrency {
    /// Nothing waits; a transaction that another one has overtaken fails when it commits. The default,
    /// and the faster choice where conflicts are rare.
    #[default]
    Optimistic,
    /// Keys that are written or read by [`get_for_update`](crate::Transaction::get_for_update) are
    /// locked until the transaction ends, and whoever wants them meanwhile waits in order. The
    /// better choice where many transactions want the same keys. What is read otherwise is checked
    /// at commit, as in the optimistic mode.
    Pessimistic,
}

/// How a transaction is run.
///
/// ```
/// use esker::{Isolation, TransactionOptions};
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// let options = TransactionOptions::new().isolation(Isolation::Snapshot).pessimistic();
/// let mut tx = db.begin_with(&options)?;
/// tx.put("k", "v")?;
/// tx.commit()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    pub(crate) isolation: Isolation,
    pub(crate) concurrency: Concurrency,
    pub(crate) durability: Option<Durability>,
    pub(crate) retries: u32,
    pub(crate) lock_timeout: Duration,
    pub(crate) read_set_bytes: usize,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            concurrency: Concurrency::default(),
            durability: None,
            retries: 100,
            lock_timeout: Duration::from_secs(1),
            read_set_bytes: READ_SET_BYTES,
        }
    }
}

impl TransactionOptions {
    /// Serializable and optimistic, with the database's default durability, 100 retries, a second's
    /// wait for a lock and 16 MiB for what was read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the transaction is protected from.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How conflicts with other transactions are met.
    #[must_use]
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Locks keys instead of failing at commit: [`Concurrency::Pessimistic`].
    #[must_use]
    pub fn pessimistic(self) -> Self {
        self.concurrency(Concurrency::Pessimistic)
    }

    /// When its commit is safe.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How often [`Db::transact_with`](crate::Db::transact_with) tries again after a conflict or a
    /// deadlock before it gives up. Default 100.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long a pessimistic transaction waits for one lock before it fails with `TimedOut`. Default
    /// one second; zero does not wait.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Memory for what the transaction remembers of its reads, bytes, about. Default 16 MiB. Beyond
    /// it, neighbouring keys and ranges are remembered as one range, the gap between them included:
    /// the transaction can then conflict with a write beside what it read, never miss one.
    #[must_use]
    pub fn read_set_bytes(mut self, bytes: usize) -> Self {
        self.read_set_bytes = bytes;
        self
    }
}

//! `begin`, `commit`, `rollback`: the transaction that a session is in.
//!
//! Invariant: a session is in one transaction at most; `get`, `set`, `delete`, `exists`, `keys`,
//! `scan`, `size` and `count` then work on it, and verbs that could not are refused. It is never
//! left open and never lost without a word.

use esker::{Isolation, Transaction, TransactionOptions};

use super::{Context, Session};
use crate::display::counted;
use crate::failure::{Failure, Result};
use crate::reply::Reply;
use crate::verb_arguments::Begin;

/// A transaction, and what it has done.
#[derive(Debug)]
pub(crate) struct OpenTransaction {
    pub(crate) transaction: Transaction,
    /// Keys set and deleted.
    pub(crate) writes: u64,
}

impl OpenTransaction {
    /// "3 writes".
    pub(crate) fn size(&self) -> String {
        counted(self.writes, "write", "writes")
    }
}

impl Session {
    pub(super) fn begin(&mut self, verb: &Begin) -> Result<Reply> {
        if let Some(open) = &self.transaction {
            let size = open.size();
            let sentence =
                format!("a transaction of {size} is open; commit it or roll it back first");
            return Err(Failure::Usage(sentence));
        }
        let isolation = if verb.snapshot {
            Isolation::Snapshot
        } else {
            Isolation::Serializable
        };
        let options = TransactionOptions::new().isolation(isolation);
        let transaction = self.db()?.begin_with(&options)?;
        self.transaction = Some(OpenTransaction {
            transaction,
            writes: 0,
        });
        Ok(Reply::done("transaction begun"))
    }

    pub(super) fn commit(&mut self) -> Result<Reply> {
        let open = self.take_transaction("commit")?;
        let (writes, size) = (open.writes, open.size());
        open.transaction.commit().map_err(|error| {
            let failure = Failure::from(error);
            match failure {
                Failure::Refused(message) => Failure::Refused(format!(
                    "{message}; the transaction of {size} is rolled back: begin again"
                )),
                other => other,
            }
        })?;
        Ok(Reply::done(format!("{size} committed")).field("writes", writes))
    }

    pub(super) fn rollback(&mut self) -> Result<Reply> {
        let open = self.take_transaction("roll back")?;
        let (writes, size) = (open.writes, open.size());
        open.transaction.rollback()?;
        Ok(Reply::done(format!("{size} rolled back")).field("writes", writes))
    }

    fn take_transaction(&mut self, action: &str) -> Result<OpenTransaction> {
        self.db()?;
        let sentence = || format!("there is no transaction to {action}; begin starts one");
        self.transaction
            .take()
            .ok_or_else(|| Failure::Usage(sentence()))
    }

    /// Rolls an open transaction back before the database is left, if that is agreed to.
    pub(super) fn leave_transaction(
        &mut self,
        context: &mut Context<'_>,
        verb: &str,
    ) -> Result<()> {
        let Some(open) = &self.transaction else {
            return Ok(());
        };
        if open.writes > 0 {
            let size = open.size();
            context.confirm(&format!(
                "This rolls the open transaction back ({verb}): {size} not committed will be lost."
            ))?;
        }
        self.abandon_transaction();
        Ok(())
    }

    /// Rolls an open transaction back, and says so.
    pub(crate) fn abandon_transaction(&mut self) {
        if let Some(open) = self.transaction.take() {
            let size = open.size();
            drop(open);
            eprintln!("esker: the open transaction of {size} was rolled back");
        }
    }

    /// Refuses a verb that a transaction cannot take in.
    pub(super) fn outside_transaction(&self, verb: &str) -> Result<()> {
        if self.transaction.is_none() {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "{verb} is no part of transactions; commit or rollback first"
        )))
    }

    /// Counts a write, if it went into a transaction.
    pub(super) fn wrote(&mut self) {
        if let Some(open) = &mut self.transaction {
            open.writes += 1;
        }
    }
}

//! Transactions of a database under test: commits that the oracle follows as one write, and commits
//! that have to be refused.

use esker::ErrorKind;
use esker_testkit::{Action, Durability, Step};

use crate::session::{Failure, Session};

fn place(action: &Action) -> (u32, &[u8]) {
    match action {
        Action::Put { keyspace, key, .. } | Action::Delete { keyspace, key } => (*keyspace, key),
        Action::DeleteRange {
            keyspace, start, ..
        } => (*keyspace, start),
    }
}

impl Session {
    pub(crate) fn transaction(
        &mut self,
        actions: &[Action],
        disturbed: bool,
    ) -> Result<(), Failure> {
        let Some((keyspace, key)) = actions.first().map(place) else {
            return Ok(());
        };
        let mut transaction = self.db.begin()?;
        let read = transaction.get_in(&self.keyspace(keyspace)?, key)?;
        if read.as_deref() != self.oracle.get(keyspace, key, self.world.now()) {
            return Err(Failure::Wrong("a transaction reads something else".into()));
        }
        if disturbed {
            let put = Action::Put {
                keyspace,
                key: key.to_vec(),
                value: b"by another".to_vec(),
                ttl_millis: None,
            };
            self.step(&Step::Write {
                actions: vec![put],
                durability: Durability::Sync,
            })?;
        }
        for action in actions {
            match action {
                Action::Put {
                    keyspace,
                    key,
                    value,
                    ..
                } => transaction.put_in(&self.keyspace(*keyspace)?, key, value)?,
                Action::Delete { keyspace, key } => {
                    transaction.delete_in(&self.keyspace(*keyspace)?, key)?;
                }
                Action::DeleteRange { start, end, .. } => {
                    transaction.delete_range(start.clone()..end.clone())?;
                }
            }
        }
        let committed = self.write(actions.to_vec(), Durability::Sync, |_| transaction.commit());
        match committed {
            Err(Failure::Refused(error)) if disturbed && error.kind() == ErrorKind::Conflict => {
                Ok(())
            }
            Ok(()) if disturbed => Err(Failure::Wrong("a conflict went unnoticed".into())),
            committed => committed,
        }
    }
}

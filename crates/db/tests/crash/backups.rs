//! Backups and recovery points of a database under test: which there have to be, and what each holds.
//!
//! Invariant: a backup goes by its description, which tells it from every other of all lives; what it
//! holds is noted before it is made, so that one whose making was cut short is known as well.

use std::collections::BTreeMap;

use esker::{ErrorKind, RestorePoint};
use esker_testkit::{Action, Crash, Durability, Oracle};

use crate::deed::KEYSPACES;
use crate::session::{Failure, Session, everything, read};

/// What is known of the backups, across all lives of a database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backups {
    by_description: BTreeMap<String, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// What makes an empty database what was backed up, at `made_millis`.
    contents: Vec<Action>,
    made_millis: u64,
    /// The moment of the disk when it was there for certain.
    acknowledged: Option<usize>,
    /// From this moment on it may be gone.
    deleted: Option<usize>,
}

impl Known {
    /// What a restore at `now` does to the oracle.
    fn restored(&self, now: u64) -> Vec<Action> {
        let since = now - self.made_millis;
        let still_there = |action: &Action| match action {
            Action::Put {
                keyspace,
                key,
                value,
                ttl_millis,
            } => Some(Action::Put {
                keyspace: *keyspace,
                key: key.clone(),
                value: value.clone(),
                ttl_millis: match ttl_millis {
                    Some(ttl) => Some(ttl.checked_sub(since).filter(|left| *left > 0)?),
                    None => None,
                },
            }),
            _ => None,
        };
        let cleared = (0..KEYSPACES).map(everything);
        cleared
            .chain(self.contents.iter().filter_map(still_there))
            .collect()
    }
}

impl Backups {
    /// What another life begins with, in which all that is still there is there for certain.
    fn survivors(&self, listed: &[String]) -> Self {
        let survivor = |name: &String| {
            let known = self.by_description.get(name)?.clone();
            Some((
                name.clone(),
                Known {
                    acknowledged: Some(0),
                    deleted: None,
                    ..known
                },
            ))
        };
        Self {
            by_description: listed.iter().filter_map(survivor).collect(),
        }
    }
}

impl Session {
    pub(crate) fn back_up(&mut self, number: u64, is_point: bool) -> Result<(), Failure> {
        let (moment, now) = (self.moment(), self.world.now());
        let mut description = format!("{number} at {moment}");
        while self.backups.by_description.contains_key(&description) {
            description.push('\'');
        }
        let known = Known {
            contents: self.oracle.rebuild(now),
            made_millis: now,
            acknowledged: None,
            deleted: None,
        };
        self.backups
            .by_description
            .insert(description.clone(), known);
        match is_point {
            true => self.db.create_recovery_point(&description)?,
            false => self.db.create_backup(&description)?,
        };
        let moment = self.moment();
        if let Some(known) = self.backups.by_description.get_mut(&description) {
            known.acknowledged = Some(moment);
        }
        self.made_durable()
    }

    /// The name and description of the backup at `index` of the list, counted around.
    fn backup_at(&self, index: usize) -> Result<Option<(String, String)>, Failure> {
        let listed = self.db.list_backups()?;
        if listed.is_empty() {
            return Ok(None);
        }
        let info = &listed[index % listed.len()];
        Ok(Some((info.name().into(), info.description().into())))
    }

    pub(crate) fn restore(&mut self, index: usize) -> Result<(), Failure> {
        let Some((name, description)) = self.backup_at(index)? else {
            return Ok(());
        };
        let Some(known) = self.backups.by_description.get(&description) else {
            return Err(Failure::Wrong(format!("nobody made backup {description}")));
        };
        let actions = known.restored(self.world.now());
        self.write(actions, Durability::Sync, |session| {
            session.db.restore_backup(&name)
        })
    }

    /// The end of the log is what the database holds, unless something went past the log.
    pub(crate) fn restore_latest(&mut self) -> Result<(), Failure> {
        if !self.db.wal().is_archived() {
            return Ok(());
        }
        let before = read(&self.db)?;
        match self.db.restore_to_point(&RestorePoint::Latest) {
            Err(error) if error.kind() == ErrorKind::Gap => return Ok(()),
            restored => drop(restored?),
        }
        if read(&self.db)? != before {
            return Err(Failure::Wrong("the end of the log is another state".into()));
        }
        self.made_durable()
    }

    pub(crate) fn delete_backup(&mut self, index: usize) -> Result<(), Failure> {
        let Some((name, description)) = self.backup_at(index)? else {
            return Ok(());
        };
        let moment = self.moment();
        if let Some(known) = self.backups.by_description.get_mut(&description) {
            known.deleted.get_or_insert(moment);
        }
        Ok(self.db.delete_backup(&name)?)
    }

    /// What an oracle makes of the state and the backups that this life found after `crash`: what to go
    /// on with.
    pub(crate) fn judge_all(
        &self,
        oracle: &Oracle,
        backups: &Backups,
        crash: &Crash,
    ) -> Result<(Oracle, Backups), Failure> {
        let oracle = self.judge(oracle, crash)?;
        Ok((oracle, self.judge_backups(backups, crash)?))
    }

    fn judge_backups(&self, before: &Backups, crash: &Crash) -> Result<Backups, Failure> {
        let wrong = |sentence: String| Err(Failure::Wrong(sentence));
        let listed = self.db.list_backups()?;
        let described: Vec<String> = listed.iter().map(|it| it.description().into()).collect();
        for (description, known) in &before.by_description {
            let made = known.acknowledged.is_some_and(|at| at <= crash.moment);
            let deleted = known.deleted.is_some_and(|at| at < crash.moment);
            if made && !deleted && !described.contains(description) {
                return wrong(format!("backup {description} is gone"));
            }
        }
        for info in &listed {
            if !before.by_description.contains_key(info.description()) {
                return wrong(format!("nobody made backup {}", info.description()));
            }
            let report = self.db.verify_backup(info.name())?;
            if let Some(issue) = report.issues().first() {
                return wrong(format!("backup {} has {issue:?}", info.description()));
            }
        }
        Ok(before.survivors(&described))
    }
}

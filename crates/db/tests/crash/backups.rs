//! Backups and recovery points of a database under test: which there have to be, and what each holds.
//!
//! Invariant: a backup goes by its description, which tells it from every other of all lives, and the point
//! that a restore leaves by the restore's number; what it holds is noted before it is made, so that one whose
//! making was cut short is known as well.

use std::collections::BTreeMap;

use esker::{BackupInfo, ErrorKind, RestorePoint};
use esker_testkit::{Action, Crash, Durability, Oracle};

use crate::deed::KEYSPACES;
use crate::session::{Failure, Session, everything, read};

/// Moments that are remembered: the last ones of a life.
const NOTED: usize = 12;

/// What is known of the backups, across all lives of a database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backups {
    by_description: BTreeMap<String, Known>,
    /// Moments of this life, by sequence numbers, that the archive has to bring back.
    moments: Vec<(u64, Known)>,
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
    fn new(contents: Vec<Action>, made_millis: u64) -> Self {
        Self {
            contents,
            made_millis,
            acknowledged: None,
            deleted: None,
        }
    }

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
            moments: Vec::new(),
        }
    }
}

/// What a backup or point goes by in the books.
fn called(info: &BackupInfo) -> String {
    match info.restored_sequence() {
        Some(_) => left_by(info.sequence()),
        None => info.description().to_owned(),
    }
}

/// What the point goes by that the restore at this sequence number has left.
fn left_by(since: u64) -> String {
    format!("left by restore {since}")
}

impl Session {
    pub(crate) fn back_up(&mut self, number: u64, is_point: bool) -> Result<(), Failure> {
        let (moment, now) = (self.moment(), self.world.now());
        let mut description = format!("{number} at {moment}");
        while self.backups.by_description.contains_key(&description) {
            description.push('\'');
        }
        let known = Known::new(self.oracle.rebuild(now), now);
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

    /// The name of the backup at `index` of the list, counted around, and what the books call it.
    fn backup_at(&self, index: usize) -> Result<Option<(String, String)>, Failure> {
        let listed = self.db.list_backups()?;
        if listed.is_empty() {
            return Ok(None);
        }
        let info = &listed[index % listed.len()];
        Ok(Some((info.name().into(), called(info))))
    }

    /// Runs a restore that leaves `contents`, and, where the log is archived, a point that holds them, unless
    /// it says that it could not be done.
    fn leave_point(
        &mut self,
        contents: Vec<Action>,
        restore: impl FnOnce(&mut Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        if !self.db.wal().is_archived() {
            return restore(self).map(drop);
        }
        let known = Known::new(contents, self.world.now());
        let since = self.db.snapshot().sequence() + 1;
        let books = &mut self.backups.by_description;
        books.insert(left_by(since), known.clone());
        if !restore(self)? {
            return Ok(());
        }
        let moment = self.moment();
        let listed = self.db.list_backups()?;
        let left = listed.iter().filter(|it| it.restored_sequence().is_some());
        let Some(left) = left.max_by_key(|it| it.sequence()) else {
            return Err(Failure::Wrong("a restore has left no point".into()));
        };
        let acknowledged = Some(moment);
        let known = Known {
            acknowledged,
            ..known
        };
        // Under another number where some were drawn for what failed.
        self.backups.by_description.insert(called(left), known);
        Ok(())
    }

    pub(crate) fn restore(&mut self, index: usize) -> Result<(), Failure> {
        let Some((name, description)) = self.backup_at(index)? else {
            return Ok(());
        };
        let Some(known) = self.backups.by_description.get(&description) else {
            return Err(Failure::Wrong(format!("nobody made backup {description}")));
        };
        let actions = known.restored(self.world.now());
        self.leave_point(actions.clone(), |session| {
            session.write(actions, Durability::Sync, |session| {
                session.db.restore_backup(&name)
            })?;
            Ok(true)
        })
    }

    /// Notes the moment of a write with a number after `before`, which its number brings back. (A keyspace
    /// that is dropped later has no number of its own: it is there again.)
    pub(crate) fn note_moment(&mut self, before: u64) {
        let (sequence, now) = (self.db.snapshot().sequence(), self.world.now());
        if sequence > before && self.db.wal().is_archived() {
            let known = Known::new(self.oracle.rebuild(now), now);
            let moments = &mut self.backups.moments;
            moments.push((sequence, known));
            let outdated = moments.len().saturating_sub(NOTED);
            moments.drain(..outdated);
        }
    }

    /// Goes back to a noted moment, before or behind other restores.
    pub(crate) fn restore_moment(&mut self, index: usize) -> Result<(), Failure> {
        let moments = &self.backups.moments;
        if moments.is_empty() {
            return Ok(());
        }
        let (sequence, known) = moments[index % moments.len()].clone();
        let point = RestorePoint::Sequence(sequence);
        let (moment, now) = (self.moment(), self.world.now());
        let actions = known.restored(now);
        self.leave_point(actions.clone(), |session| {
            let restored = session.db.restore_to_point(&point);
            if matches!(&restored, Err(error) if error.kind() == ErrorKind::Gap) {
                // Something has gone past the log: nothing was changed.
                return Ok(false);
            }
            let id = session.oracle.begin(moment, now, Durability::Sync, actions);
            match restored {
                Ok(_) => session.oracle.acknowledge(id, session.moment()),
                Err(error) => {
                    session.oracle.fail(id);
                    return Err(Failure::Refused(error));
                }
            }
            Ok(true)
        })
    }

    /// The end of the log is what the database holds, unless something went past the log.
    pub(crate) fn restore_latest(&mut self) -> Result<(), Failure> {
        if !self.db.wal().is_archived() {
            return Ok(());
        }
        let before = read(&self.db)?;
        let contents = self.oracle.rebuild(self.world.now());
        let mut is_whole = true;
        self.leave_point(contents, |session| {
            match session.db.restore_to_point(&RestorePoint::Latest) {
                Err(error) if error.kind() == ErrorKind::Gap => is_whole = false,
                restored => drop(restored?),
            }
            Ok(is_whole)
        })?;
        if !is_whole {
            return Ok(());
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
        let described: Vec<String> = listed.iter().map(called).collect();
        for (description, known) in &before.by_description {
            let made = known.acknowledged.is_some_and(|at| at <= crash.moment);
            let deleted = known.deleted.is_some_and(|at| at < crash.moment);
            if made && !deleted && !described.contains(description) {
                return wrong(format!("backup {description} is gone"));
            }
        }
        for info in &listed {
            if !before.by_description.contains_key(&called(info)) {
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

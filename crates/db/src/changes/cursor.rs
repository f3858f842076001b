//! Named cursors of the feed of changes: durable positions that keep the log behind them.
//!
//! Invariants: a position is an entry of the manifest, which moves forward in one durable edit and never
//! back, and only over what is on stable storage by then: after a crash no write gets a number that a
//! cursor has passed. From the edit that makes a cursor on, what it has not acknowledged is archived
//! before the log lets go of it, and stays until it is acknowledged or beyond
//! `change_retention_bytes`; then the cursor says `Lagged`. Locks: `cursor_edit` before the writer's.

use super::Changes;
use crate::db::Db;
use crate::engine::{Engine, Mode};
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_manifest::{ChangeCursorEdit, VersionEdit};
use std::fmt;
use std::sync::Arc;

/// The longest name of a cursor, bytes.
const MAX_NAME_BYTES: usize = 255;

/// What is known of a change cursor: [`Db::change_cursors`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeCursorInfo {
    name: String,
    acknowledged: SequenceNumber,
    pinned_bytes: u64,
}

impl ChangeCursorInfo {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything up to this sequence number is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What it needs of the archived segments, bytes.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }
}

/// A named position in the feed of changes that survives its program: [`Db::create_change_cursor`].
///
/// Read with [`ChangeCursor::changes`], and [`ChangeCursor::acknowledge`] what need not come again. What
/// was read and not acknowledged comes once more after a crash.
#[derive(Clone)]
pub struct ChangeCursor {
    db: Db,
    name: String,
}

impl ChangeCursor {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything up to this sequence number is acknowledged.
    ///
    /// # Errors
    /// `NotFound` where it was deleted; `Closed`.
    pub fn acknowledged(&self) -> Result<u64> {
        self.db.engine().check_open()?;
        find(self.db.engine(), &self.name)
    }

    /// The changes behind what is acknowledged. Where the log was let go of beyond
    /// `change_retention_bytes`, the feed answers `Lagged` and names what is missing, as it does with
    /// `Gap` for writes that went past the log.
    ///
    /// # Errors
    /// As [`ChangeCursor::acknowledged`].
    pub fn changes(&self) -> Result<Changes> {
        let acknowledged = self.acknowledged()?;
        Ok(Changes::of_cursor(&self.db, acknowledged + 1))
    }

    /// Acknowledges everything up to `sequence`, usually a
    /// [`ChangeBatch::last_sequence`](crate::ChangeBatch::last_sequence), durably: it will not come again,
    /// and the log need not keep it. Costs two syncs at most, so do it for many batches at once.
    /// Acknowledging a number that is acknowledged already does nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a number that nothing was written at yet, or one before what is acknowledged;
    /// `NotFound` where the cursor was deleted; `ReadOnly` and `Closed` as the names say; `Io`, `NoSpace`
    /// and `Background` where it cannot be made durable: it may or may not have moved then.
    pub fn acknowledge(&self, sequence: u64) -> Result<()> {
        let engine = self.db.engine();
        engine.check_on_disk("change cursors")?;
        {
            let _one_at_a_time = engine.cursor_edit.lock();
            let known = find(engine, &self.name)?;
            if sequence == known {
                return Ok(());
            }
            let last = engine.visible_sequence();
            if sequence < known || sequence > last {
                let sentence = format!(
                    "a cursor that has acknowledged {known} cannot acknowledge {sequence}: it never goes \
                     back, and the last write has {last}"
                );
                return Err(Error::invalid_argument(sentence));
            }
            self.db.wal().sync()?;
            set(engine, &self.name, sequence)?;
        }
        prune(engine);
        Ok(())
    }
}

impl fmt::Debug for ChangeCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeCursor")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// While it lives, a cursor is being made.
struct Making<'a>(&'a Engine);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.archive.set_making(None);
    }
}

fn find(engine: &Engine, name: &str) -> Result<SequenceNumber> {
    let state = engine.versions.state();
    state.change_cursors.get(name).copied().ok_or_else(|| {
        let sentence = format!("there is no change cursor called {name:?}");
        Error::new(ErrorKind::NotFound, sentence)
    })
}

/// Moves a cursor, or makes it. No write gets a number up to `acknowledged` again, whatever becomes of the
/// log.
fn set(engine: &Engine, name: &str, acknowledged: SequenceNumber) -> Result<()> {
    engine.versions.log_and_apply(VersionEdit {
        change_cursors: vec![ChangeCursorEdit::Set {
            name: name.to_owned(),
            acknowledged,
        }],
        last_sequence: Some(acknowledged),
        ..VersionEdit::default()
    })
}

/// Lets go of what no cursor needs any more. What cannot be removed now is tried again later.
fn prune(engine: &Engine) {
    let _one_at_a_time = engine.archive.lock.lock();
    if let Err(error) = engine.prune_archive() {
        tracing::warn!(%error, "log segments that no cursor needs stay");
    }
}

impl Engine {
    /// What a crash left of segments that were kept for cursors and need not be any more.
    pub(crate) fn remove_unfollowed(&self) {
        let entries = self.fs.read_dir(&self.archive.followed);
        if entries.is_ok_and(|entries| !entries.is_empty())
            && let Err(error) = self.tidy_followed()
        {
            tracing::warn!(%error, "log segments that no cursor needs stay");
        }
    }

    /// Whether a database of this kind has change cursors at all.
    fn check_has_cursors(&self) -> Result<()> {
        self.check_open()?;
        match self.mode {
            Mode::Memory => {
                let sentence = "an in-memory database has no change cursors";
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
            _ => Ok(()),
        }
    }
}

impl Db {
    /// Makes a cursor in the feed of changes, with everything that was written so far acknowledged. From
    /// now on the log is kept, up to `change_retention_bytes`, until the cursor has acknowledged it.
    ///
    /// # Errors
    /// `InvalidArgument` where there is one of that name, or the name has no or more than 255 bytes;
    /// `Unsupported` in memory; `ReadOnly` and `Closed` as the names say; `Io` and `NoSpace` from the
    /// file system.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = esker::Db::open(dir.path())?;
    /// let cursor = db.create_change_cursor("search index")?;
    /// db.put("key", "value")?;
    /// db.wal().clear()?;
    /// for batch in cursor.changes()? {
    ///     cursor.acknowledge(batch?.last_sequence())?;
    /// }
    /// assert!(cursor.changes()?.next().is_none());
    /// # Ok(()) }
    /// ```
    pub fn create_change_cursor(&self, name: &str) -> Result<ChangeCursor> {
        self.make_change_cursor(name, None)
    }

    /// As [`Db::create_change_cursor`], with everything before `from_sequence` acknowledged: the changes
    /// from there on are to come.
    ///
    /// # Errors
    /// As [`Db::create_change_cursor`]; `Gap` where changes from there on are in no log that is left;
    /// otherwise as [`Db::changes`].
    pub fn create_change_cursor_from(
        &self,
        name: &str,
        from_sequence: u64,
    ) -> Result<ChangeCursor> {
        self.make_change_cursor(name, Some(from_sequence))
    }

    fn make_change_cursor(&self, name: &str, from: Option<u64>) -> Result<ChangeCursor> {
        let engine = self.engine();
        engine.check_on_disk("change cursors")?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let sentence = format!("the name of a cursor has 1 to {MAX_NAME_BYTES} bytes");
            return Err(Error::invalid_argument(sentence));
        }
        let _one_at_a_time = engine.cursor_edit.lock();
        if engine.versions.state().change_cursors.contains_key(name) {
            let sentence = format!("there is a change cursor called {name:?} already");
            return Err(Error::invalid_argument(sentence));
        }
        let _made = Making(engine);
        let acknowledged = self.begin_to_follow(from)?;
        set(engine, name, acknowledged)?;
        Ok(ChangeCursor {
            db: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Has the log kept from `from` or from now on, for a cursor that is not in the manifest yet; what it
    /// will have acknowledged.
    fn begin_to_follow(&self, from: Option<u64>) -> Result<SequenceNumber> {
        let engine = self.engine();
        let acknowledged = {
            let mut writer = engine.commit_queue.lock();
            engine.check_writable()?;
            engine.ready_log(&mut writer)?;
            let last = engine.visible_sequence();
            let acknowledged = from.map_or(last, |from| from.saturating_sub(1).min(last));
            engine.archive.set_making(Some(acknowledged));
            if !engine.archive.is_on() {
                let next = writer.next_sequence;
                writer.log.begin_marks(next);
            }
            // Where something fails it stays on: too much is kept until the next open, and nothing lost.
            engine.archive.set_followed(true);
            writer.log.sync(engine)?;
            acknowledged
        };
        // Kept from here on, so that what is found now stays.
        match from.map(|from| self.changes(from)?.next().transpose()) {
            Some(Err(error)) => Err(error),
            _ => Ok(acknowledged),
        }
    }

    /// The change cursor called `name`.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Unsupported` in memory; `Closed`.
    pub fn change_cursor(&self, name: &str) -> Result<ChangeCursor> {
        let engine = self.engine();
        engine.check_has_cursors()?;
        find(engine, name)?;
        Ok(ChangeCursor {
            db: self.clone(),
            name: name.to_owned(),
        })
    }

    /// All change cursors, by name.
    ///
    /// # Errors
    /// `Unsupported` in memory; `Io` where the archive cannot be listed; `Closed`.
    pub fn change_cursors(&self) -> Result<Vec<ChangeCursorInfo>> {
        let engine = self.engine();
        engine.check_has_cursors()?;
        let cursors = Arc::clone(&engine.versions.state().change_cursors);
        let (pinned, _) = engine.pinned_by_cursors()?;
        let bytes = |name: &str| {
            let known = pinned.iter().find(|(known, _)| known == name);
            known.map_or(0, |(_, bytes)| *bytes)
        };
        let infos = cursors
            .iter()
            .map(|(name, &acknowledged)| ChangeCursorInfo {
                name: name.clone(),
                acknowledged,
                pinned_bytes: bytes(name),
            });
        Ok(infos.collect())
    }

    /// Deletes a change cursor. What it alone kept of the log goes.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Unsupported`, `ReadOnly`, `Closed`, `Io` and `NoSpace` as for
    /// [`Db::create_change_cursor`].
    pub fn delete_change_cursor(&self, name: &str) -> Result<()> {
        let engine = self.engine();
        engine.check_on_disk("change cursors")?;
        {
            let _one_at_a_time = engine.cursor_edit.lock();
            find(engine, name)?;
            engine.versions.log_and_apply(VersionEdit {
                change_cursors: vec![ChangeCursorEdit::Removed {
                    name: name.to_owned(),
                }],
                ..VersionEdit::default()
            })?;
            // With the leader kept out: a group has its marks or has none.
            let _writer = engine.commit_queue.lock();
            let is_followed = !engine.versions.state().change_cursors.is_empty();
            engine.archive.set_followed(is_followed);
        }
        prune(engine);
        Ok(())
    }
}

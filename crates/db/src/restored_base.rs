//! The recovery point that a restore leaves where the log is archived: what every moment behind the
//! restore is replayed over, since no log says what came back.
//!
//! Invariants: it comes with the restore, in the same edit, so that there is never the one without the
//! other; it holds what readers find at the restore's own sequence number, which is given to no other
//! write; it makes no file and copies none. It goes, unless somebody deletes it first, with the first
//! segment of the archive that is replayed over it. Called by restores into the open database and by
//! the retention of the archive.

use crate::backup;
use crate::backup_metadata::BackupInfo;
use crate::engine::Engine;
use crate::recovery_point;
use esker_base::{Result, SequenceNumber};
use esker_manifest::{KeyspaceEdit, ManifestState, RecoveryPointEdit, VersionEdit};

/// A point that is about to be made, as far as it is known before writers are kept out.
pub(crate) struct Planned {
    name: String,
    restored: SequenceNumber,
    what: String,
}

impl Planned {
    /// The point that a restore of `restored` leaves, `what` being that in words; `None` where no
    /// archive asks for one.
    pub(crate) fn new(
        engine: &Engine,
        restored: SequenceNumber,
        what: &str,
    ) -> Result<Option<Self>> {
        if !engine.archive.is_wanted() {
            return Ok(None);
        }
        Ok(Some(Self {
            name: backup::next_name(engine, engine.clock().now_millis())?,
            restored,
            what: what.to_owned(),
        }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes it a part of the edit of the restore, which is the write `since`.
    pub(crate) fn add_to(
        &self,
        engine: &Engine,
        edit: &mut VersionEdit,
        since: SequenceNumber,
    ) -> Result<()> {
        let state = engine.versions.state();
        let info = BackupInfo {
            name: self.name.clone(),
            description: format!("write {since} restored {}", self.what),
            is_recovery_point: true,
            created_millis: engine.clock().now_millis(),
            sequence: since,
            esker_version: env!("CARGO_PKG_VERSION").to_owned(),
            new_bytes: 0,
            restored: Some(self.restored),
            contents: VersionEdit {
                keyspaces: made_of_nothing(&edit.keyspaces, &state),
                last_sequence: Some(since),
                database_id: Some(state.database_id),
                options: Some(state.options.to_vec()),
                ..VersionEdit::default()
            },
        };
        edit.recovery_points.push(RecoveryPointEdit::Added {
            name: self.name.clone(),
            bytes: info.encode()?,
        });
        Ok(())
    }
}

/// The keyspaces that an edit which replaces everything leaves, as an edit of an empty database.
fn made_of_nothing(edits: &[KeyspaceEdit], state: &ManifestState) -> Vec<KeyspaceEdit> {
    let stay = edits.iter().filter(|edit| !edit.drop);
    let mut made: Vec<_> = stay
        .map(|edit| {
            let known = || {
                let name = &state.keyspaces.get(edit.id)?.meta.name;
                Some((name.clone(), edit.set_options.clone()?))
            };
            KeyspaceEdit {
                create: edit.create.clone().or_else(known),
                set_options: None,
                removed: Vec::new(),
                ..edit.clone()
            }
        })
        .collect();
    made.sort_by_key(|edit| edit.id);
    made
}

/// Removes the points whose moments end with the archived write `last`, which goes.
///
/// # Errors
/// Of the manifest: they are still there, or gone.
pub(crate) fn remove_before(engine: &Engine, last: SequenceNumber) -> Result<()> {
    let points = recovery_point::list(&engine.versions.state());
    let is_over = |info: &&BackupInfo| info.restored.is_some() && info.sequence() < last;
    let over: Vec<String> = points
        .iter()
        .filter(is_over)
        .map(|info| info.name().to_owned())
        .collect();
    recovery_point::remove_all(engine, over)
}

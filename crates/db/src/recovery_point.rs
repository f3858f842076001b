//! Recovery points: named moments of the database whose tables stay where they are.
//!
//! Invariants: a point is an entry of the manifest, so that it comes and goes durably in one edit; as
//! long as it exists its tables are held as a reader would hold them, in this life of the database
//! from the edit on and in later ones from before strays are removed.

use crate::backup_metadata::BackupInfo;
use crate::backup_store::no_backup;
use crate::capture::Capture;
use crate::engine::Engine;
use crate::obsolete_files::{LiveTable, LiveTables};
use esker_base::Result;
use esker_base::filename::FileNumber;
use esker_base::sync::Mutex;
use esker_manifest::{ManifestState, RecoveryPointEdit, VersionEdit};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The tables that each point holds.
#[derive(Debug, Default)]
pub(crate) struct RecoveryPoints {
    held: Mutex<BTreeMap<String, Vec<Arc<LiveTable>>>>,
}

impl RecoveryPoints {
    /// Takes hold of the tables of all points that a manifest names.
    pub(crate) fn of(state: &ManifestState, tables: &LiveTables) -> Self {
        let mut held = BTreeMap::new();
        for (name, bytes) in state.recovery_points.iter() {
            let point = BackupInfo::decode(bytes);
            let point = point.inspect_err(|error| {
                tracing::warn!(name, %error, "a recovery point cannot be read");
            });
            if let Ok(point) = point {
                held.insert(
                    name.clone(),
                    point.tables().map(|meta| tables.get(meta)).collect(),
                );
            }
        }
        let live: BTreeSet<FileNumber> = state
            .keyspaces
            .iter()
            .flat_map(|keyspace| keyspace.version.tables().map(|(_, _, meta)| meta.number))
            .collect();
        let all = held.values().flatten();
        let only_held: BTreeSet<_> = all
            .map(|table: &Arc<LiveTable>| table.handle.meta().number)
            .filter(|number| !live.contains(number))
            .collect();
        tables.retire(only_held);
        Self {
            held: Mutex::new(held),
        }
    }

    /// Holds the tables of a point that is about to be made.
    pub(crate) fn hold(&self, name: &str, tables: Vec<Arc<LiveTable>>) {
        self.held.lock().insert(name.to_owned(), tables);
    }

    /// Lets go of what a point holds that no manifest names.
    pub(crate) fn let_go(&self, name: &str) {
        let held = self.held.lock().remove(name);
        drop(held);
    }

    /// The numbers of all tables that points hold.
    pub(crate) fn numbers(&self) -> BTreeSet<FileNumber> {
        let held = self.held.lock();
        let tables = held.values().flatten();
        tables.map(|table| table.handle.meta().number).collect()
    }
}

/// The tables of all points.
pub(crate) fn numbers(state: &ManifestState) -> BTreeSet<FileNumber> {
    let points = list(state);
    points.iter().flat_map(BackupInfo::numbers).collect()
}

/// All points, by name. One that cannot be read is left out.
pub(crate) fn list(state: &ManifestState) -> Vec<BackupInfo> {
    let points = state.recovery_points.values();
    points
        .filter_map(|bytes| BackupInfo::decode(bytes).ok())
        .collect()
}

/// The point called `name`.
pub(crate) fn find(state: &ManifestState, name: &str) -> Result<BackupInfo> {
    let bytes = state.recovery_points.get(name);
    BackupInfo::decode(bytes.ok_or_else(|| no_backup(name))?)
}

/// Whether every point can be read, so that it is known which tables they need.
pub(crate) fn all_readable(state: &ManifestState) -> bool {
    let points = &state.recovery_points;
    points
        .values()
        .all(|bytes| BackupInfo::decode(bytes).is_ok())
}

/// Makes a captured moment a point.
pub(crate) fn add(engine: &Engine, info: &BackupInfo, capture: Capture) -> Result<()> {
    let added = RecoveryPointEdit::Added {
        name: info.name().to_owned(),
        bytes: info.encode()?,
    };
    // Held from before the edit: it may be on disk even if it fails.
    engine.points.hold(info.name(), capture.tables);
    engine.versions.log_and_apply(VersionEdit {
        recovery_points: vec![added],
        ..VersionEdit::default()
    })
}

/// Removes a point; what it alone held goes.
pub(crate) fn remove(engine: &Engine, name: &str) -> Result<()> {
    if !engine.versions.state().recovery_points.contains_key(name) {
        return Err(no_backup(name));
    }
    remove_all(engine, vec![name.to_owned()])?;
    engine.tables.remove_unread();
    Ok(())
}

/// Removes these points; what they alone held goes with the next files that do.
pub(crate) fn remove_all(engine: &Engine, names: Vec<String>) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let removed = names.iter().cloned();
    engine.versions.log_and_apply(VersionEdit {
        recovery_points: removed
            .map(|name| RecoveryPointEdit::Removed { name })
            .collect(),
        ..VersionEdit::default()
    })?;
    for name in names {
        engine.points.let_go(&name);
    }
    Ok(())
}

/// What each point holds that nothing else needs.
pub(crate) fn pinned_bytes(state: &ManifestState) -> Vec<(String, u64)> {
    let live: BTreeSet<FileNumber> = state
        .keyspaces
        .iter()
        .flat_map(|keyspace| keyspace.version.tables().map(|(_, _, meta)| meta.number))
        .collect();
    let pinned = |point: &BackupInfo| -> u64 {
        let tables = point.tables().filter(|meta| !live.contains(&meta.number));
        tables.map(|meta| meta.file_bytes).sum()
    };
    let points = list(state);
    points
        .iter()
        .map(|point| (point.name().to_owned(), pinned(point)))
        .collect()
}

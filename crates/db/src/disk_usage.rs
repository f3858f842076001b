//! What a database takes on disk, and for what.

use crate::backup;
use crate::engine::{Engine, Mode};
use crate::recovery_point;
use esker_base::Result;
use esker_base::filename::FileKind;
use esker_manifest::ValueUse;
use std::path::Path;
use std::sync::Arc;

/// Bytes on disk by what they are for: [`Db::disk_usage`](crate::Db::disk_usage).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    total_bytes: u64,
    live_bytes: u64,
    value_bytes: u64,
    value_garbage_bytes: u64,
    wal_bytes: u64,
    garbage_bytes: u64,
    manifest_bytes: u64,
    backup_bytes: u64,
    archived_bytes: u64,
    pinned_bytes: u64,
    pinned_by: Vec<(String, u64)>,
    cursor_bytes: u64,
    pinned_by_cursors: Vec<(String, u64)>,
}

impl DiskUsage {
    /// The lengths of all files in the directory and below.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Tables that the current versions name.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Of the live bytes, tables of values.
    #[must_use]
    pub fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// Of the tables of values, about how much no pointer leads to any more: it goes with its table once
    /// that holds too much of it.
    #[must_use]
    pub fn value_garbage_bytes(&self) -> u64 {
        self.value_garbage_bytes
    }

    /// Log segments, allocated or recycled space included.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.wal_bytes
    }

    /// Tables that no current version and no recovery point names: they go with their last reader.
    #[must_use]
    pub fn garbage_bytes(&self) -> u64 {
        self.garbage_bytes
    }

    /// Files of backups. Those that are hard links of live tables take no space of their own.
    #[must_use]
    pub fn backup_bytes(&self) -> u64 {
        self.backup_bytes
    }

    /// Segments in the archive of the log, wherever that is, those kept for change cursors included.
    #[must_use]
    pub fn archived_bytes(&self) -> u64 {
        self.archived_bytes
    }

    /// Tables that only recovery points keep.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// What each recovery point keeps that no current version names: its name and bytes. Points share
    /// tables, so that the sum may be more than [`DiskUsage::pinned_bytes`].
    #[must_use]
    pub fn pinned_by(&self) -> &[(String, u64)] {
        &self.pinned_by
    }

    /// Of the archived segments, those that change cursors need. Where the log is archived beyond that,
    /// they would be there without them.
    #[must_use]
    pub fn cursor_bytes(&self) -> u64 {
        self.cursor_bytes
    }

    /// What each change cursor needs of the archived segments: its name and bytes. They share segments:
    /// the slowest needs them all.
    #[must_use]
    pub fn pinned_by_cursors(&self) -> &[(String, u64)] {
        &self.pinned_by_cursors
    }

    /// Manifests.
    #[must_use]
    pub fn manifest_bytes(&self) -> u64 {
        self.manifest_bytes
    }
}

pub(crate) fn measure(engine: &Engine) -> Result<DiskUsage> {
    engine.check_open()?;
    let mut usage = DiskUsage::default();
    for keyspace in engine.all_keyspaces() {
        let version = Arc::clone(&keyspace.load().version);
        let uses = version.value_uses();
        usage.value_bytes += version.value_bytes();
        usage.value_garbage_bytes += uses.iter().map(ValueUse::garbage_bytes).sum::<u64>();
        usage.live_bytes += version.total_bytes() + version.value_bytes();
    }
    if engine.mode == Mode::Memory {
        usage.total_bytes = usage.live_bytes;
        return Ok(usage);
    }
    let live = engine.versions.live_files();
    let pinned = engine.points.numbers();
    usage.pinned_by = recovery_point::pinned_bytes(&engine.versions.state());
    usage.backup_bytes = backup::stored_bytes(engine)?;
    usage.archived_bytes = engine.archived_bytes()?;
    (usage.pinned_by_cursors, usage.cursor_bytes) = engine.pinned_by_cursors()?;
    let mut on_disk = 0;
    let mut below = Vec::new();
    let directory = &engine.directory;
    let list = |path: &Path| {
        let entries = engine.fs.read_dir(path);
        entries.map_err(|error| esker_base::Error::io("list the directory", path, error))
    };
    for entry in list(directory)? {
        if entry.is_dir {
            below.push(directory.join(&entry.name));
            continue;
        }
        on_disk += entry.bytes;
        match FileKind::parse(&entry.name) {
            Some(FileKind::Table(number)) if live.contains(&number) => {}
            Some(FileKind::Table(number)) if pinned.contains(&number) => {
                usage.pinned_bytes += entry.bytes;
            }
            Some(FileKind::Table(_)) => usage.garbage_bytes += entry.bytes,
            Some(FileKind::WalSegment(_)) => usage.wal_bytes += entry.bytes,
            Some(FileKind::Manifest(_)) => usage.manifest_bytes += entry.bytes,
            _ => {}
        }
    }
    while let Some(path) = below.pop() {
        for entry in list(&path)? {
            on_disk += entry.bytes;
            if entry.is_dir {
                below.push(path.join(&entry.name));
            }
        }
    }
    usage.total_bytes = on_disk.max(usage.live_bytes);
    Ok(usage)
}

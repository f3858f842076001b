//! The manifest as it is on disk, the files of backups and recovery points, and strays.
//!
//! Invariant: files of jobs that run, and of readers, are no findings. Backups are looked at by
//! presence and length here; reading them is `verify_backup`'s work.

use super::{Issue, MANIFEST_ADVICE, Shared};
use crate::backup_metadata::BackupInfo;
use crate::backup_store::BackupStore;
use crate::engine::Engine;
use esker_base::filename::{FileKind, FileNumber, manifest_path, table_path};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result};
use esker_manifest::VersionSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads the manifest as the next open would.
pub(super) fn verify_manifest(engine: &Engine, shared: &Shared<'_>) {
    let read = || VersionSet::recover_read_only(Arc::clone(&engine.fs), &engine.directory);
    if read().is_ok() {
        return;
    }
    // It may have changed under the reader. Edits are held up only where something seems wrong.
    let versions = &engine.versions;
    let number = versions.manifest_number();
    if let Err(error) = versions.between_edits(read) {
        let error = error.with_file(&manifest_path(&engine.directory, number));
        shared.failed(error, |error| Issue::with_advice(error, MANIFEST_ADVICE));
    }
}

const BACKUP_ADVICE: &str =
    "delete this backup and make another; the database itself is not concerned";

fn of_backup(what: &str, name: &str, error: &Error) -> Issue {
    let mut issue = Issue::warning(error, BACKUP_ADVICE);
    issue.message = format!("{what} {name}: {}", issue.message);
    issue
}

/// Looks for everything that backups and recovery points need.
pub(super) fn verify_backups(engine: &Engine, shared: &Shared<'_>) {
    let state = engine.versions.state();
    for (name, bytes) in state.recovery_points.iter() {
        let point = BackupInfo::decode(bytes);
        let checked = point.and_then(|point| {
            let mut tables = point.tables();
            tables.try_for_each(|meta| {
                check_presence(engine, &table_path(&engine.directory, meta.number), meta)
            })
        });
        if let Err(error) = checked
            && engine.versions.state().recovery_points.contains_key(name)
        {
            shared.failed(error, |error| of_backup("recovery point", name, error));
        }
    }
    // One operation on backups at a time, and this is one: no table comes or goes meanwhile.
    let _one_at_a_time = engine.backups.lock.lock();
    let store = BackupStore::new(&*engine.fs, &engine.backups.directory);
    let names = store.names().unwrap_or_else(|error| {
        shared.failed(error, |error| Issue::warning(error, BACKUP_ADVICE));
        Vec::new()
    });
    for name in names {
        let checked = store.read(&name).and_then(|info| {
            let mut tables = info.tables();
            tables.try_for_each(|meta| check_presence(engine, &store.table_path(meta), meta))
        });
        if let Err(error) = checked {
            shared.failed(error, |error| of_backup("backup", &name, error));
        }
    }
}

fn check_presence(engine: &Engine, path: &Path, meta: &TableMeta) -> Result<()> {
    let found = engine.fs.metadata(path).map(|entry| entry.bytes);
    let sentence = match found {
        Ok(bytes) if bytes == meta.file_bytes => return Ok(()),
        Ok(bytes) => format!("a table has {bytes} bytes instead of {}", meta.file_bytes),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("look at a table", path, error));
        }
        Err(error) => format!("a table cannot be found: {error}"),
    };
    let error = Error::corruption(sentence);
    Err(error.with_file(path).with_keys(&meta.bounds))
}

/// Files that look like ours and that nothing names. Files of jobs that run now have numbers beyond
/// the manifest's counter at the time of their edit, so only smaller ones are told.
pub(super) fn find_strays(engine: &Engine, shared: &Shared<'_>) {
    find_strays_beside(engine, shared);
    let entries = match engine.fs.read_dir(&engine.directory) {
        Ok(entries) => entries,
        Err(error) => {
            let error = Error::io("list the directory", &engine.directory, error);
            return shared.failed(error, Issue::damage);
        }
    };
    for entry in entries {
        let path = engine.directory.join(&entry.name);
        // A job may have named it since the directory was read, or removed it: once none runs, a
        // second look is the last word.
        let stray = is_unnamed(engine, &entry.name)
            && engine.background.is_idle()
            && is_unnamed(engine, &entry.name)
            && engine.fs.metadata(&path).is_ok();
        if stray {
            shared.found(Issue::note(
                path,
                "nothing names this file",
                "the next open removes it",
            ));
        }
    }
}

/// The same in the directories of backups, of the archive and of what is kept for change cursors.
fn find_strays_beside(engine: &Engine, shared: &Shared<'_>) {
    let found = |path: PathBuf, advice: &'static str| {
        shared.found(Issue::note(path, "nothing names this file", advice));
    };
    {
        let _one_at_a_time = engine.backups.lock.lock();
        let store = BackupStore::new(&*engine.fs, &engine.backups.directory);
        // Where a backup cannot be read, it is not known what it names, and that is found elsewhere.
        let strays = store.strays().unwrap_or_else(|error| {
            shared.failed(error, |error| Issue::warning(error, BACKUP_ADVICE));
            None
        });
        for path in strays.unwrap_or_default() {
            found(
                path,
                "the next backup, or the next that is deleted, removes it",
            );
        }
    }
    let _one_at_a_time = engine.archive.lock.lock();
    for path in engine.archive_strays() {
        found(
            path,
            "it goes with the next segment that is archived there; what was for change cursors, with the next \
             open for writing as well",
        );
    }
}

/// Whether nothing names a file that looks like ours, as far as one look can tell.
fn is_unnamed(engine: &Engine, name: &str) -> bool {
    let state = engine.versions.state();
    // Files of failed edits wait for a new MANIFEST, and are removed after it.
    let live = |number: &FileNumber| {
        engine.given_up.holds(*number) || engine.versions.live_files().contains(number)
    };
    match FileKind::parse(name) {
        Some(FileKind::Temporary(number)) => {
            // A table with a later number may be in the making.
            number.is_none_or(|number| number < state.next_file_number)
                && !engine
                    .reserve_files()
                    .contains(&engine.directory.join(name))
        }
        Some(FileKind::Table(number)) if number < state.next_file_number => {
            !engine.tables.is_read(number) && !live(&number)
        }
        Some(FileKind::WalSegment(number)) if number < state.next_file_number => {
            !state.segments.contains(&number)
                && !engine.segments.is_kept(number)
                && !engine.given_up.holds(number)
        }
        // A later one may be about to take over.
        Some(FileKind::Manifest(number)) => {
            number < engine.versions.manifest_number() && !live(&number)
        }
        _ => false,
    }
}

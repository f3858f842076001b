//! Making a database in another directory out of tables that exist: checkpoints, and restoring to a
//! new place.
//!
//! Invariant: the target appears by one rename of a directory in which everything is on stable
//! storage, or not at all; what a crash leaves is a directory beside it called `*.partial`, which the
//! next attempt takes over.

use crate::capture::capture;
use crate::database_directory::database_id;
use crate::engine::Engine;
use crate::table_files::{self, Bring, remove_if_there};
use esker_base::clock::Clock;
use esker_base::filename::{FileNumber, table_path, temporary_path};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result};
use esker_manifest::{ManifestOptions, RunPlacement, VersionEdit, VersionSet};
use esker_vfs::FileSystem;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a new database is made of.
pub(crate) struct Source<'a> {
    pub(crate) fs: &'a Arc<dyn FileSystem>,
    pub(crate) clock: &'a dyn Clock,
    /// Every keyspace with its tables, as an edit of an empty database.
    pub(crate) contents: &'a VersionEdit,
    /// Where a table is.
    pub(crate) table: &'a dyn Fn(&TableMeta) -> PathBuf,
    /// Whether tables that were linked are to be read and checked too.
    pub(crate) verify: bool,
    /// Is told the bytes of each table that is there.
    pub(crate) advance: &'a dyn Fn(u64),
    /// Numbers of files that are made later begin here, or above those that there are.
    pub(crate) first_number: FileNumber,
}

/// Inside a database: what a restore of it is made of. What a crash leaves the next open removes.
pub(crate) const RESTORING: &str = "restoring";

/// Makes an openable copy of `engine` in `target`.
pub(crate) fn checkpoint(engine: &Arc<Engine>, target: &Path) -> Result<()> {
    engine.check_on_disk("checkpoints")?;
    let captured = capture(engine)?;
    let made = make_database(
        &Source {
            fs: &engine.fs,
            clock: engine.clock(),
            contents: &captured.contents,
            table: &|meta| table_path(&engine.directory, meta.number),
            verify: false,
            advance: &|_| {},
            first_number: 0,
        },
        target,
        &mut |_| Ok(()),
    );
    drop(captured);
    engine.tables.remove_unread();
    made
}

/// Makes a database in `target`, which is an empty directory or none. `finish` is given the directory
/// in which it is complete but for what that adds to it.
pub(crate) fn make_database(
    source: &Source<'_>,
    target: &Path,
    finish: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<()> {
    let fs = &**source.fs;
    let (parent, partial) = places(fs, target)?;
    check_vacant(fs, target)?;
    empty(fs, &partial)?;
    fs.create_dir_all(&partial)
        .map_err(|error| Error::io("create the directory", &partial, error))?;
    let initial = VersionEdit {
        database_id: Some(database_id(source.clock, target)),
        ..VersionEdit::default()
    };
    // CURRENT first: a directory with tables and no CURRENT would be taken for damage.
    let options = ManifestOptions::default();
    let versions = VersionSet::create(Arc::clone(source.fs), &partial, options, initial)?;
    let tables = source.contents.keyspaces.iter().flat_map(|k| &k.added);
    for meta in tables.map(|added| &added.meta) {
        let to = table_path(&partial, meta.number);
        let temporary = temporary_path(&partial, meta.number);
        let from = (source.table)(meta);
        let copied = table_files::bring(fs, &from, &temporary, &to, meta, Bring::Link)?;
        if source.verify && !copied {
            table_files::verify(fs, &to, meta)?;
        }
        (source.advance)(meta.file_bytes);
    }
    sync_dir(fs, &partial)?;
    let first = first_edit(source.contents, source.first_number);
    versions.log_and_apply(first)?;
    drop(versions);
    if let Err(error) = finish(&partial) {
        // It takes space; the error is what counts.
        let _ = remove_directory(fs, &partial);
        return Err(error);
    }
    sync_dir(fs, &partial)?;
    if fs.metadata(target).is_ok() {
        fs.remove_dir(target)
            .map_err(|error| Error::io("replace the directory", target, error))?;
    }
    fs.rename(&partial, target)
        .map_err(|error| Error::io("name the directory", target, error))?;
    sync_dir(fs, &parent)?;
    sync_above(fs, &parent);
    Ok(())
}

/// The edit that fills a new database, which has its default keyspace already.
fn first_edit(contents: &VersionEdit, first_number: FileNumber) -> VersionEdit {
    let mut edit = VersionEdit {
        last_sequence: contents.last_sequence,
        next_file_number: Some(first_number.max(largest_number(contents) + 1)),
        keyspaces: contents.keyspaces.clone(),
        ..VersionEdit::default()
    };
    for keyspace in edit.keyspaces.iter_mut().filter(|k| k.id == 0) {
        keyspace.create = None;
    }
    edit
}

/// The largest number of any table or run.
pub(crate) fn largest_number(contents: &VersionEdit) -> FileNumber {
    let added = contents.keyspaces.iter().flat_map(|k| &k.added);
    let numbers = added.map(|added| match added.run {
        RunPlacement::Created(id) | RunPlacement::Existing(id) => id.max(added.meta.number),
        RunPlacement::New => added.meta.number,
    });
    numbers.max().unwrap_or(0)
}

/// The directory above `target`, which is made if needed, and the one that becomes the target.
fn places(fs: &dyn FileSystem, target: &Path) -> Result<(PathBuf, PathBuf)> {
    let Some(name) = target.file_name() else {
        let sentence = "the target must be a path that ends with a name";
        return Err(Error::invalid_argument(sentence).with_file(target));
    };
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs.create_dir_all(&parent)
        .map_err(|error| Error::io("create the directory", &parent, error))?;
    let mut partial = name.to_os_string();
    partial.push(".partial");
    let partial = parent.join(partial);
    Ok((parent, partial))
}

fn check_vacant(fs: &dyn FileSystem, target: &Path) -> Result<()> {
    match fs.read_dir(target) {
        Ok(entries) if entries.is_empty() => Ok(()),
        Ok(_) => {
            let sentence = "the target is not empty; name a directory that does not exist";
            Err(Error::new(ErrorKind::InvalidArgument, sentence).with_file(target))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("list the directory", target, error)),
    }
}

/// Removes the files that an attempt cut short has left.
fn empty(fs: &dyn FileSystem, partial: &Path) -> Result<()> {
    match fs.read_dir(partial) {
        Ok(entries) => entries
            .iter()
            .try_for_each(|entry| remove_if_there(fs, &partial.join(&entry.name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("list the directory", partial, error)),
    }
}

/// Removes a directory of files that an attempt has made, if there is one, and what it was made in.
pub(crate) fn remove_directory(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let mut partial = directory.as_os_str().to_os_string();
    partial.push(".partial");
    for directory in [directory, Path::new(&partial)] {
        if fs.metadata(directory).is_ok() {
            empty(fs, directory)?;
            fs.remove_dir(directory)
                .map_err(|error| Error::io("remove the directory", directory, error))?;
        }
    }
    Ok(())
}

/// Makes directories durable that were made for the target. The first one that cannot be synced ends
/// it: what lies above was not made by us.
fn sync_above(fs: &dyn FileSystem, directory: &Path) {
    let mut above = directory.ancestors().skip(1);
    while above.next().is_some_and(|path| fs.sync_dir(path).is_ok()) {}
}

fn sync_dir(fs: &dyn FileSystem, path: &Path) -> Result<()> {
    fs.sync_dir(path)
        .map_err(|error| Error::io("sync the directory", path, error))
}

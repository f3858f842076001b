//! Which MANIFEST has taken over from which, told without `CURRENT`.
//!
//! Invariant: a MANIFEST that says *is published* had durably been named by `CURRENT`. So a `CURRENT`
//! that is missing, or that names an older one, has been lost or turned back, and nobody may act on
//! it: that would silently roll back every edit since. Called at opening and before a creation.

use std::io;
use std::path::Path;

use esker_base::filename::{FileKind, FileNumber, current_path, manifest_name, manifest_path};
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::fs::{DirEntry, FileSystem};
use esker_wal::SegmentReader;

use crate::version_edit::VersionEdit;

/// Whether MANIFEST `number` had taken over. One that cannot be read had not, as far as it can tell:
/// a crash while it was made leaves it so.
pub(crate) fn is_published(
    fs: &dyn FileSystem,
    directory: &Path,
    number: FileNumber,
) -> Result<bool> {
    let path = manifest_path(directory, number);
    let mut reader = match SegmentReader::open(fs, &path, number) {
        Ok(reader) => reader,
        Err(error) if error.kind() == ErrorKind::Corruption => return Ok(false),
        Err(error) => return Err(error),
    };
    while let Some(record) = reader.next()? {
        // An edit of a later version is none of ours to judge, and says something all the same.
        match VersionEdit::decode(record) {
            Ok(edit) if !edit.is_published => {}
            Ok(_) => return Ok(true),
            Err(error) => return Ok(error.kind() == ErrorKind::Unsupported),
        }
    }
    Ok(false)
}

/// Checks that no MANIFEST has taken over from `current`, the one that `CURRENT` names.
pub(crate) fn check_is_latest(
    fs: &dyn FileSystem,
    directory: &Path,
    current: FileNumber,
) -> Result<()> {
    for entry in list(fs, directory)? {
        let Some(FileKind::Manifest(number)) = FileKind::parse(&entry.name) else {
            continue;
        };
        if number > current && is_published(fs, directory, number)? {
            let message = format!(
                "CURRENT names {}, but {} had taken over from it",
                manifest_name(current),
                entry.name
            );
            let error = Error::corruption(message).with_offset(0);
            return Err(error.with_file(&current_path(directory)));
        }
    }
    Ok(())
}

/// What is in the directory; nothing where it is not there.
pub(crate) fn list(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<DirEntry>> {
    match fs.read_dir(directory) {
        Ok(entries) => Ok(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read the directory", directory, error)),
    }
}

//! The directory of a database: what may become one, who has it locked, and how it lasts.
//!
//! Invariant: a directory that holds anything else, or a database without its CURRENT, gets no file but the lock. Used
//! by `open`, `repair` and `checkpoint`.

use crate::settings::Settings;
use esker_base::checksum::checksum;
use esker_base::clock::Clock;
use esker_base::filename::{FileKind, lock_path};
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::{FileLock, FileSystem};
use std::io;
use std::path::Path;

pub(crate) fn check_may_exist(settings: &Settings, directory: &Path) -> Result<()> {
    if settings.error_if_exists() {
        let sentence =
            "the directory holds a database already, which option error_if_exists refuses";
        return Err(Error::invalid_argument(sentence).with_file(directory));
    }
    Ok(())
}

pub(crate) fn io_error(action: &str, path: &Path, error: io::Error) -> Error {
    Error::io(&format!("{action} the directory"), path, error)
}

pub(crate) fn not_a_database(directory: &Path) -> Error {
    Error::new(ErrorKind::NotFound, "there is no esker database here").with_file(directory)
}

pub(crate) fn locked(directory: &Path) -> Error {
    let sentence = "the database is open already, here or in another process";
    Error::new(ErrorKind::Locked, sentence).with_file(directory)
}

pub(crate) fn check_is_directory(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    match fs.metadata(directory) {
        Ok(entry) if entry.is_dir => Ok(()),
        Ok(_) => {
            let sentence = "a database is a directory, and this is a file";
            Err(Error::invalid_argument(sentence).with_file(directory))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_a_database(directory)),
        Err(error) => Err(io_error("look at", directory, error)),
    }
}

/// Makes sure that the directory is there.
pub(crate) fn prepare_directory(
    fs: &dyn FileSystem,
    directory: &Path,
    settings: &Settings,
) -> Result<()> {
    match check_is_directory(fs, directory) {
        Err(error) if error.kind() == ErrorKind::NotFound && settings.create_if_missing() => fs
            .create_dir_all(directory)
            .map_err(|e| io_error("create", directory, e)),
        known => known,
    }
}

pub(crate) fn lock(fs: &dyn FileSystem, directory: &Path) -> Result<Box<dyn FileLock>> {
    let path = lock_path(directory);
    fs.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => locked(directory),
        _ => Error::io("lock the database", &path, error),
    })
}

/// A directory without CURRENT may become a database only if nothing of another one, or of anything
/// else, would be mistaken for its own or lost.
pub(crate) fn check_vacant(
    fs: &dyn FileSystem,
    directory: &Path,
    settings: &Settings,
) -> Result<()> {
    let entries = fs
        .read_dir(directory)
        .map_err(|e| io_error("list", directory, e))?;
    let mut stranger = None;
    for entry in &entries {
        match FileKind::parse(&entry.name) {
            Some(FileKind::Lock | FileKind::Temporary(_) | FileKind::Manifest(_)) => {}
            Some(_) => {
                let sentence = "the directory holds a database without its CURRENT file";
                return Err(Error::corruption(sentence).with_file(&directory.join(&entry.name)));
            }
            None => stranger = Some(&entry.name),
        }
    }
    if !settings.create_if_missing() {
        return Err(not_a_database(directory));
    }
    match stranger {
        None => Ok(()),
        Some(name) => {
            let sentence = "the directory is not empty and holds no esker database";
            Err(Error::invalid_argument(sentence).with_file(&directory.join(name)))
        }
    }
}

/// Makes the directory itself durable in those above it, also where it was found: an earlier attempt
/// may have made it and got no further. The first one that we may not look into ends it: what lies
/// above was not made by us.
pub(crate) fn sync_parents(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let mut above = directory.parent();
    while let Some(path) = above {
        match fs.sync_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(io_error("sync", path, error)),
        }
        above = path.parent();
    }
    Ok(())
}

/// A number that tells this database from every other: from the clock and its place.
pub(crate) fn database_id(clock: &dyn Clock, directory: &Path) -> [u8; 16] {
    let place = directory.as_os_str().as_encoded_bytes();
    let low = checksum(place, clock.now_millis()).to_le_bytes();
    let high = checksum(
        place,
        clock.monotonic_micros() ^ u64::from(std::process::id()),
    );
    let mut id = [0; 16];
    id[..8].copy_from_slice(&low);
    id[8..].copy_from_slice(&high.to_le_bytes());
    id
}

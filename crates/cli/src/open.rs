//! Opens the database that the command line names, as little as the verb needs.
//!
//! Invariant: verbs that only look open the database without writing a byte, and only verbs that
//! bring data create one. Called by every verb but the dumps.

use std::path::Path;

use esker::{Db, Options};

use crate::args::Places;
use crate::failure::{Failure, Result};

/// Opens an existing database for looking at it.
pub(crate) fn for_reading(directory: &Path, places: &Places) -> Result<Db> {
    let opened = placed(Options::new(), places)?
        .create_if_missing(false)
        .open_read_only(directory);
    opened.map_err(Failure::opening)
}

/// Opens an existing database for changing it.
pub(crate) fn for_writing(directory: &Path, places: &Places) -> Result<Db> {
    let options = writable(directory, places)?.create_if_missing(false);
    options.open(directory).map_err(Failure::opening)
}

/// Opens a database for changing it; creates it where there is none.
pub(crate) fn or_create(directory: &Path, places: &Places) -> Result<Db> {
    let options = writable(directory, places)?.create_if_missing(true);
    options.open(directory).map_err(Failure::opening)
}

/// A database with an archive of its log in the usual place goes on with it: what is written here would
/// be a hole in it otherwise.
fn writable(directory: &Path, places: &Places) -> Result<Options> {
    let options = Options::new().wal_archive(directory.join("archive").is_dir());
    placed(options, places)
}

/// `options` with the directories that were named. What is no directory is refused now, not when the
/// first backup is made or the first segment archived.
fn placed(mut options: Options, places: &Places) -> Result<Options> {
    let named = [&places.backup_directory, &places.wal_archive_directory];
    for directory in named.into_iter().flatten() {
        if directory.exists() && !directory.is_dir() {
            let sentence = format!("{} is not a directory", directory.display());
            return Err(Failure::Engine(sentence));
        }
    }
    if let Some(directory) = &places.backup_directory {
        options = options.backup_directory(directory);
    }
    if let Some(directory) = &places.wal_archive_directory {
        options = options.wal_archive_directory(directory);
    }
    Ok(options)
}

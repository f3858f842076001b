//! Opens the database that the command line names, as little as the verb needs.
//!
//! Invariant: verbs that only look open the database without writing a byte, and only verbs that
//! bring data create one. Called by every verb but the dumps.

use std::path::Path;

use esker::{Db, Options};

use crate::failure::{Failure, Result};

/// Opens an existing database for looking at it.
pub(crate) fn for_reading(directory: &Path) -> Result<Db> {
    let opened = Options::new()
        .create_if_missing(false)
        .open_read_only(directory);
    opened.map_err(Failure::opening)
}

/// Opens an existing database for changing it.
pub(crate) fn for_writing(directory: &Path) -> Result<Db> {
    let opened = writable(directory).create_if_missing(false).open(directory);
    opened.map_err(Failure::opening)
}

/// Opens a database for changing it; creates it where there is none.
pub(crate) fn or_create(directory: &Path) -> Result<Db> {
    let opened = writable(directory).create_if_missing(true).open(directory);
    opened.map_err(Failure::opening)
}

/// A database with an archive of its log in the usual place goes on with it: what is written here would
/// be a hole in it otherwise.
fn writable(directory: &Path) -> Options {
    Options::new().wal_archive(directory.join("archive").is_dir())
}

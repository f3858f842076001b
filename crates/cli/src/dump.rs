//! `dump-wal`, `dump-table` and `dump-manifest`: what is in one file of a database.
//!
//! Invariant: reads that one file and nothing else; works on a file of a database that is open, or
//! that cannot be opened any more.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::failure::Result;
use crate::streams::Output;
use crate::verb_arguments::Dump;

/// A function of [`esker::inspect`].
type Inspector = fn(&Path, &mut dyn Write) -> esker::Result<()>;

/// Prints what `inspector` says of the file.
pub(crate) fn run(db: Option<&Path>, verb: &Dump, inspector: Inspector) -> Result<()> {
    let mut output = Output::standard();
    let result = write(db, verb, inspector, output.as_write());
    // What could be read is printed before the damage is named.
    let finished = output.finish();
    result?;
    finished
}

/// Writes what `inspector` says of the file to `output`.
pub(crate) fn write(
    db: Option<&Path>,
    verb: &Dump,
    inspector: Inspector,
    output: &mut dyn Write,
) -> Result<()> {
    Ok(inspector(&located(db, &verb.file), output)?)
}

/// A bare name is meant within the database's directory, or within its archive where that has such a
/// file; anything else is a path as it stands.
fn located(db: Option<&Path>, file: &Path) -> PathBuf {
    match db {
        Some(directory) if file.components().count() == 1 => {
            let archived = directory.join("archive").join(file);
            match archived.is_file() {
                true => archived,
                false => directory.join(file),
            }
        }
        _ => file.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_are_files_of_the_database() {
        let db = Some(Path::new("d"));
        assert_eq!(
            located(db, Path::new("000001.wal")),
            Path::new("d/000001.wal")
        );
        assert_eq!(
            located(db, Path::new("e/000001.wal")),
            Path::new("e/000001.wal")
        );
        assert_eq!(
            located(db, Path::new("/000001.wal")),
            Path::new("/000001.wal")
        );
        assert_eq!(
            located(None, Path::new("000001.wal")),
            Path::new("000001.wal")
        );
    }
}

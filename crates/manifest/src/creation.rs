//! Whether a directory without `CURRENT` may become a database.
//!
//! Invariant: nothing that a database wrote is ever taken for an empty directory. A crash while a
//! database is being made leaves at most a MANIFEST that was never published and an empty log segment; anything more means
//! that `CURRENT` was lost, and a new database would bury what is left.

use std::path::Path;

use esker_base::filename::{FileKind, current_path};
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::fs::FileSystem;
use esker_wal::SegmentReader;

use crate::succession;

/// Checks that no data stands in `directory`, which has no `CURRENT`.
pub(crate) fn check_nothing_is_lost(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let entries = succession::list(fs, directory)?;
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let holds_data = match FileKind::parse(&entry.name) {
            Some(FileKind::Table(_) | FileKind::ValueLog(_)) => true,
            Some(FileKind::WalSegment(number)) => {
                let path = directory.join(&entry.name);
                match SegmentReader::open(fs, &path, number) {
                    Ok(mut reader) => !matches!(reader.next(), Ok(None)),
                    // The header page of a segment that was being made may not be there yet.
                    Err(error) => error.kind() != ErrorKind::Corruption,
                }
            }
            // What made it durable has made CURRENT durable too.
            Some(FileKind::Manifest(number)) => succession::is_published(fs, directory, number)?,
            _ => false,
        };
        if holds_data {
            let message = format!("CURRENT is missing, but {} holds data", entry.name);
            return Err(Error::corruption(message).with_file(&current_path(directory)));
        }
    }
    Ok(())
}

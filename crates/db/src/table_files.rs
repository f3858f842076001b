//! Bringing the file of a table to another place: by a second name where that goes, else by a copy.
//!
//! Invariants: what stands at the target is whole, synced and what the table's description says, or
//! it is not there; a copy is checked against the checksum of its file while it is made, so that
//! damage is never copied.

use esker_base::checksum::StreamingChecksum;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result};
use esker_sstable::{BlockCache, Table};
use esker_vfs::FileSystem;
use std::io;
use std::path::Path;

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;
/// What follows the bytes that the checksum of a table's file covers: the footer
/// (docs/format/table.md), which has one of its own.
const FOOTER_BYTES: u64 = 120;

/// How a file is to be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bring {
    /// A second name of the same file; a copy where the file system does not give one.
    Link,
    /// A copy, for a place that is to outlive the damage of this one.
    Copy,
}

/// Brings the table at `from` to `to`, over `temporary`, a free path in the same directory. The
/// caller syncs the directory. Says whether it was copied (and so checked).
pub(crate) fn bring(
    fs: &dyn FileSystem,
    from: &Path,
    temporary: &Path,
    to: &Path,
    meta: &TableMeta,
    how: Bring,
) -> Result<bool> {
    remove_if_there(fs, temporary)?;
    if how == Bring::Link {
        match fs.hard_link(from, temporary) {
            Ok(()) => {
                let renamed = fs.rename(temporary, to);
                // Where both are names of one file, a rename does nothing at all.
                remove_if_there(fs, temporary)?;
                renamed.map_err(|error| Error::io("rename the table", to, error))?;
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(from));
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(Error::io("link the table", to, error));
            }
            Err(_) => {}
        }
    }
    let copied = copy(fs, from, temporary, meta).and_then(|()| {
        fs.rename(temporary, to)
            .map_err(|error| Error::io("rename the table", to, error))
    });
    if copied.is_err() {
        let _ = fs.remove_file(temporary);
    }
    copied.map(|()| true)
}

fn copy(fs: &dyn FileSystem, from: &Path, to: &Path, meta: &TableMeta) -> Result<()> {
    let target = fs
        .create(to)
        .map_err(|error| Error::io("create the copy of a table", to, error))?;
    read(fs, from, meta, &mut |offset, piece| {
        target
            .write_at(offset, piece)
            .map_err(|error| Error::io("copy a table", to, error))
    })?;
    target
        .sync_data()
        .map_err(|error| Error::io("sync the copy of a table", to, error))
}

/// Reads the table at `path` and compares it with its description: length and checksum.
pub(crate) fn verify(fs: &dyn FileSystem, path: &Path, meta: &TableMeta) -> Result<()> {
    read(fs, path, meta, &mut |_, _| Ok(()))
}

/// As [`verify`], for a table that a backup or a recovery point names: one that is missing is damage. Tells
/// `advance` how many bytes more were read, and ends with its error.
pub(crate) fn verify_named(
    fs: &dyn FileSystem,
    path: &Path,
    meta: &TableMeta,
    advance: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut piece_read = |_: u64, piece: &[u8]| advance(piece.len() as u64);
    read(fs, path, meta, &mut piece_read).map_err(|error| {
        let source = std::error::Error::source(&error);
        let source = source.and_then(|source| source.downcast_ref::<io::Error>());
        match source.map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => missing(path),
            _ => error,
        }
    })
}

fn read(
    fs: &dyn FileSystem,
    path: &Path,
    meta: &TableMeta,
    piece_read: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    // Checks length, footer and properties against the description.
    drop(Table::open_checked(fs, path, meta, BlockCache::new(0))?);
    let io = |error| Error::io("read the table", path, error);
    let file = fs.open_read(path).map_err(io)?;
    let bytes = meta.file_bytes;
    file.sequential(true);
    let mut sum = StreamingChecksum::new(0);
    let mut buffer = vec![0; PIECE_BYTES.min(usize::try_from(bytes).unwrap_or(PIECE_BYTES))];
    let (mut offset, summed) = (0, bytes.saturating_sub(FOOTER_BYTES));
    while offset < bytes {
        let end = if offset < summed { summed } else { bytes };
        let count = (end - offset).min(buffer.len() as u64) as usize;
        let piece = &mut buffer[..count];
        file.read_exact_at(piece, offset).map_err(io)?;
        if offset < summed {
            sum.update(piece);
        }
        piece_read(offset, piece)?;
        offset += count as u64;
    }
    if sum.value() == meta.checksum {
        return Ok(());
    }
    let sentence = "a table does not match the checksum of its file";
    Err(Error::corruption(sentence).with_file(path).with_offset(0))
}

/// Removes a file that need not be there.
pub(crate) fn remove_if_there(fs: &dyn FileSystem, path: &Path) -> Result<()> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove an unfinished file", path, error))
        }
        _ => Ok(()),
    }
}

fn missing(path: &Path) -> Error {
    Error::corruption("a table of the backup is missing").with_file(path)
}

//! From `CURRENT` to the state: replaying the live MANIFEST.
//!
//! Invariants: a torn record that was never synced is dropped, damage below the synced watermark is
//! an error that names file and offset (I4), and a snapshot without its end is never taken for a
//! whole one. A `CURRENT` that names a manifest from which another had taken over is damage. Nothing
//! is written here.

use std::collections::HashSet;
use std::path::Path;

use esker_base::filename::{FileNumber, current_path, manifest_path};
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::fs::FileSystem;
use esker_wal::{SegmentEnd, SegmentHeader, SegmentReader};

use crate::current_file;
use crate::live_index::LiveIndex;
use crate::manifest_state::ManifestState;
use crate::succession;
use crate::version_edit::VersionEdit;

/// What a MANIFEST said.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) state: ManifestState,
    pub(crate) index: LiveIndex,
    pub(crate) number: FileNumber,
    pub(crate) header: SegmentHeader,
    /// Where the last record ends.
    pub(crate) end_offset: u64,
    /// Whether a writer may go on there.
    pub(crate) is_clean: bool,
    /// Whether all of the state, and `CURRENT`, are known to be on stable storage.
    pub(crate) is_durable: bool,
}

/// Reads the live MANIFEST.
pub(crate) fn recover(fs: &dyn FileSystem, directory: &Path) -> Result<Recovered> {
    let Some(number) = current_file::read(fs, directory)? else {
        let error = Error::new(ErrorKind::NotFound, "there is no database");
        return Err(error.with_file(&current_path(directory)));
    };
    succession::check_is_latest(fs, directory, number)?;
    let path = manifest_path(directory, number);
    replay(fs, &path, number).map_err(|error| error.with_file(&path))
}

/// What one MANIFEST says, whole or not and named by `CURRENT` or not.
#[derive(Debug, Default)]
pub struct ManifestReading {
    /// The state up to its end, or up to the damage; `None` where its first snapshot is not complete.
    pub state: Option<ManifestState>,
    /// Whether it is known to have taken over from the one before it.
    pub is_published: bool,
    /// Tables that it had let go of.
    pub gone: HashSet<FileNumber>,
    /// What is wrong with it.
    pub damage: Option<Error>,
}

/// Reads MANIFEST `number` as far as it can be read.
pub(crate) fn read(
    fs: &dyn FileSystem,
    directory: &Path,
    number: FileNumber,
) -> Result<ManifestReading> {
    let path = manifest_path(directory, number);
    let mut replay = Replay::default();
    let mut gone = HashSet::new();
    let damage = match read_edits(fs, &path, number, &mut replay, &mut gone) {
        Ok(()) if replay.is_complete => None,
        Ok(()) => Some(Error::corruption("the manifest ends within its snapshot").with_file(&path)),
        Err(error) if error.kind() == ErrorKind::Corruption => Some(error.with_file(&path)),
        Err(error) => return Err(error.with_file(&path)),
    };
    gone.retain(|table| replay.index.table(*table).is_none());
    Ok(ManifestReading {
        state: replay.is_complete.then_some(replay.state),
        is_published: replay.is_published,
        gone,
        damage,
    })
}

fn read_edits(
    fs: &dyn FileSystem,
    path: &Path,
    number: FileNumber,
    replay: &mut Replay,
    gone: &mut HashSet<FileNumber>,
) -> Result<()> {
    let mut reader = SegmentReader::open(fs, path, number)?;
    while let Some(record) = reader.next()? {
        let edit = VersionEdit::decode(record).map_err(|error| at(error, reader.offset()))?;
        let before = replay.state.clone();
        if let Err(error) = replay.apply(&edit) {
            // What could not be applied may have been applied in part.
            replay.state = before;
            return Err(at(error, reader.offset()));
        }
        gone.extend(edit.keyspaces.iter().flat_map(|keyspace| &keyspace.removed));
    }
    match reader.outcome() {
        Some(SegmentEnd::Damaged { offset, reason, .. }) => {
            Err(Error::corruption(reason.clone()).with_offset(*offset))
        }
        _ => Ok(()),
    }
}

fn replay(fs: &dyn FileSystem, path: &Path, number: FileNumber) -> Result<Recovered> {
    let mut reader = SegmentReader::open(fs, path, number).map_err(named_but_missing)?;
    let mut replay = Replay::default();
    loop {
        let Some(record) = reader.next()? else { break };
        let edit = VersionEdit::decode(record).map_err(|error| at(error, reader.offset()))?;
        replay
            .apply(&edit)
            .map_err(|error| at(error, reader.offset()))?;
        if !edit.is_published {
            replay.end_offset = reader.end_offset();
        }
    }
    let is_clean = match reader.outcome() {
        Some(SegmentEnd::Clean) => true,
        Some(SegmentEnd::Torn) => false,
        Some(SegmentEnd::Damaged { offset, reason, .. }) => {
            return Err(Error::corruption(reason.clone()).with_offset(*offset));
        }
        Some(SegmentEnd::Sealed { .. }) | None => {
            return Err(Error::corruption("the manifest ends like a log segment"));
        }
    };
    if !replay.is_complete {
        let error = Error::corruption("the manifest ends within its snapshot");
        return Err(error.with_offset(reader.end_offset()));
    }
    Ok(Recovered {
        state: replay.state,
        index: replay.index,
        number,
        header: *reader.header(),
        end_offset: reader.end_offset(),
        is_clean,
        is_durable: replay.is_published && replay.end_offset <= reader.synced_bytes(),
    })
}

/// Damage inside a record has the offset of the record, not one within its payload.
fn at(error: Error, offset: u64) -> Error {
    Error::new(error.kind(), error.message().to_owned()).with_offset(offset)
}

/// A MANIFEST that `CURRENT` names must be there.
fn named_but_missing(error: Error) -> Error {
    let is_missing = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::NotFound);
    if is_missing {
        Error::corruption("CURRENT names a manifest that is not there")
    } else {
        error
    }
}

/// The state so far.
#[derive(Debug, Default)]
struct Replay {
    state: ManifestState,
    index: LiveIndex,
    is_complete: bool,
    is_published: bool,
    /// Where the last record ends that says anything about the state.
    end_offset: u64,
}

impl Replay {
    fn apply(&mut self, edit: &VersionEdit) -> Result<()> {
        // An intact record that cannot be applied was written after one that is gone or wrong.
        self.state
            .apply(edit, &self.index)
            .map_err(|error| Error::corruption(error.message().to_owned()))?;
        self.index.note(edit);
        self.is_complete |= edit.completes_snapshot;
        self.is_published |= edit.is_published;
        Ok(())
    }
}

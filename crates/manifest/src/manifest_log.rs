//! The MANIFEST file that is being written, and how the next one takes over from it.
//!
//! Invariants: a MANIFEST begins with a snapshot of the whole state and is named by `CURRENT` only
//! after that snapshot is on stable storage (I1). A file in which a write or sync failed is never
//! written again (I3): the next edit begins a new one. Until a new one has taken over for certain,
//! every MANIFEST that `CURRENT` might name after a crash counts as live.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_base::filename::{FileNumber, manifest_path};
use esker_base::{Error, Result};
use esker_vfs::fs::FileSystem;
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};

use crate::current_file;
use crate::manifest_state::ManifestState;
use crate::version_edit::VersionEdit;

const PAGE_BYTES: u64 = 4096;

/// Where the next edit goes.
#[derive(Debug)]
pub(crate) enum Position {
    /// To the file that is open.
    Open(Box<SegmentWriter>),
    /// To a file that was found with a clean end and has not been opened for writing yet.
    Found {
        number: FileNumber,
        header: SegmentHeader,
        offset: u64,
    },
    /// To a new file.
    Next,
}

/// The live MANIFEST.
#[derive(Debug)]
pub(crate) struct ManifestLog {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    rotate_bytes: u64,
    position: Position,
    /// The MANIFEST files that `CURRENT` may name after a crash, the certain one first.
    live: Vec<FileNumber>,
    bytes: u64,
}

impl ManifestLog {
    /// A log that goes on at `position`; `live` is the number in `CURRENT`, if there is one.
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        rotate_bytes: u64,
        position: Position,
        live: Option<FileNumber>,
    ) -> Self {
        let bytes = if let Position::Found { offset, .. } = &position {
            *offset
        } else {
            0
        };
        let live = live.into_iter().collect();
        Self {
            fs,
            directory: directory.to_path_buf(),
            rotate_bytes,
            position,
            live,
            bytes,
        }
    }

    pub(crate) fn live(&self) -> &[FileNumber] {
        &self.live
    }

    /// Bytes of the live MANIFEST in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the open file can take a record of `payload_bytes`. Opens a file that was found.
    pub(crate) fn has_room(&mut self, payload_bytes: usize) -> Result<bool> {
        if let Position::Found {
            number,
            header,
            offset,
        } = self.position
        {
            let path = manifest_path(&self.directory, number);
            let options = SegmentOptions::default();
            let writer = SegmentWriter::reopen(&*self.fs, &path, header, offset, options)?;
            self.position = Position::Open(Box::new(writer));
        }
        Ok(match &self.position {
            Position::Open(writer) => {
                let record_bytes = SegmentWriter::record_bytes(payload_bytes);
                !writer.is_poisoned() && record_bytes <= writer.remaining_bytes()
            }
            _ => false,
        })
    }

    /// Whether so little is left in the open file that it is time for the next one, while edits can
    /// still do without: on a full disk there is none.
    pub(crate) fn is_nearly_full(&self) -> bool {
        match &self.position {
            Position::Open(writer) => writer.remaining_bytes() < self.rotate_bytes / 8,
            _ => false,
        }
    }

    /// Appends an edit and brings it to stable storage.
    pub(crate) fn append(&mut self, record: &[u8]) -> Result<()> {
        let Position::Open(writer) = &mut self.position else {
            return Err(Error::invalid_argument("no manifest is open"));
        };
        let outcome = writer
            .append_one(record, SyncMode::Sync)
            .and_then(|()| writer.sync());
        self.bytes = writer.bytes();
        // A writer that failed is poisoned, and so has no room for the next edit.
        outcome
    }

    /// Begins MANIFEST `number` with `state`, large enough for a further record of `payload_bytes`,
    /// and lets it take over. Where that fails before `CURRENT` may name it, the file that was open
    /// stays so.
    pub(crate) fn rotate(
        &mut self,
        number: FileNumber,
        state: &ManifestState,
        payload_bytes: usize,
    ) -> Result<()> {
        let open = std::mem::replace(&mut self.position, Position::Next);
        let path = manifest_path(&self.directory, number);
        let begun = self.begin(&path, number, state, payload_bytes);
        let mut writer = match begun {
            Ok(writer) => writer,
            Err(error) => {
                let _ = self.fs.remove_file(&path);
                self.position = open;
                return Err(error);
            }
        };
        let mut may_be_live = false;
        let replaced = current_file::replace(&*self.fs, &self.directory, number, || {
            may_be_live = true;
        });
        if let Err(error) = replaced {
            if may_be_live {
                self.live.push(number);
            } else {
                let _ = self.fs.remove_file(&path);
                self.position = open;
            }
            return Err(error);
        }
        // Nothing can lead to an older one any more. One that stays is a stray for the next opening.
        for older in std::mem::replace(&mut self.live, vec![number]) {
            if older != number {
                let _ = self.fs.remove_file(&manifest_path(&self.directory, older));
            }
        }
        let published = VersionEdit {
            is_published: true,
            ..VersionEdit::default()
        }
        .encode()?;
        // Not synced: where it is missing later, the next opening only begins a new file.
        let _ = writer.append_one(&published, SyncMode::Buffered);
        self.bytes = writer.bytes();
        self.position = Position::Open(Box::new(writer));
        Ok(())
    }

    /// Writes a MANIFEST of a snapshot alone, durably, directory entry included.
    fn begin(
        &self,
        path: &Path,
        number: FileNumber,
        state: &ManifestState,
        payload_bytes: usize,
    ) -> Result<SegmentWriter> {
        let snapshot = state.snapshot();
        let records: Vec<Vec<u8>> = snapshot
            .iter()
            .map(VersionEdit::encode)
            .collect::<Result<_>>()?;
        let payloads: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let snapshot_bytes: u64 = payloads
            .iter()
            .map(|payload| SegmentWriter::record_bytes(payload.len()))
            .sum();
        let needed = SegmentOptions::segment_bytes_for(payload_bytes) + 2 * snapshot_bytes;
        let segment_bytes = needed.max(self.rotate_bytes).next_multiple_of(PAGE_BYTES);
        let options = SegmentOptions {
            segment_bytes,
            ..SegmentOptions::default()
        };
        current_file::remove_stray(&*self.fs, path)?;
        let previous = self.live.first().copied().unwrap_or(0);
        let header = SegmentHeader {
            number,
            previous,
            first_sequence: state.last_sequence,
        };
        let mut writer = SegmentWriter::create(&*self.fs, path, header, options)?;
        writer.append(&payloads, SyncMode::Sync)?;
        writer.sync()?;
        let synced = self.fs.sync_dir(&self.directory);
        synced.map_err(|e| Error::io("sync the directory", &self.directory, e))?;
        Ok(writer)
    }
}

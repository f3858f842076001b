//! Going on where no whole record stands: behind a jump over copies, or with the copy of the group that
//! should stand there.
//!
//! Invariant: a group is taken from its copy only as the next one in the log, so that what is read stays
//! a prefix of what was appended; whether its sync ever returned makes no difference to that. The file is
//! not changed by reading; who goes on behind such a group first puts it back.

use esker_base::{Error, Result};
use esker_vfs::fs::FileSystem;

use super::{Found, SegmentReader};
use crate::copies::{self, CopyFindings};
use crate::format::{RecordHeader, SyncedRecord};

/// A part of a group that was read from its copy.
#[derive(Debug)]
pub(super) struct Restored {
    offset: u64,
    bytes: Vec<u8>,
}

impl SegmentReader {
    /// Whether records were read from copies: they do not stand in their place, because a power loss or
    /// damage has taken them.
    #[must_use]
    pub fn has_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    /// Writes what was read from copies to its place, durably: anything that is written behind it could
    /// overwrite the copies. Of no use while somebody else writes the segment.
    ///
    /// # Errors
    /// Whatever the file system says: the copies are still whole then.
    pub fn put_back(&self, fs: &dyn FileSystem) -> Result<()> {
        if self.restored.is_empty() {
            return Ok(());
        }
        let put_back = || {
            let file = fs.open_write(&self.path)?;
            for group in &self.restored {
                file.write_at(group.offset, &group.bytes)?;
            }
            file.sync_data()
        };
        put_back().map_err(|e| Error::io("put log records back in their place", &self.path, e))
    }

    /// The record behind a jump that was made at `at`, and where it stands. Its place says itself that it
    /// is the next one: a watermark at the front of a page says that everything below `at` was synced,
    /// and no more.
    pub(super) fn find_beyond(&mut self, at: u64) -> Result<(u64, Found)> {
        for page in copies::jumps(at, self.limit) {
            if let Found::Record(header) = self.find(page)?
                && self.says_synced(page, &header) == Some(at)
            {
                return Ok((page, Found::Record(header)));
            }
        }
        Ok((at, Found::Nothing))
    }

    fn says_synced(&self, at: u64, header: &RecordHeader) -> Option<u64> {
        let record = SyncedRecord::decode(header.record_type, self.payload(at, header))?;
        record.end.is_none().then_some(record.synced_bytes)
    }

    /// The record that should stand at `at`, from the copy of its group, and where it stands.
    pub(super) fn find_in_copies(
        &mut self,
        at: u64,
        findings: &mut CopyFindings,
    ) -> Result<(u64, Found)> {
        *findings = copies::find(&*self.file, &self.path, self.page.number, at, self.limit)?;
        let Some(copy) = findings.covering.take() else {
            return Ok((at, Found::Nothing));
        };
        let next = at.max(copy.from);
        let missing = copy.bytes.get((next - copy.from) as usize..);
        self.buffer = missing.unwrap_or_default().to_vec();
        self.buffer_offset = next;
        let found = self.find(next)?;
        if matches!(found, Found::Record(_)) {
            self.restored.push(Restored {
                offset: next,
                bytes: missing.unwrap_or_default().to_vec(),
            });
            self.synced_bytes = self.synced_bytes.max(copy.synced_bytes);
            return Ok((next, found));
        }
        Ok((at, Found::Nothing))
    }
}

//! A file of the archive of the log, known by its name alone: which segment it was, which writes it
//! holds, and when it was archived.
//!
//! Invariant: a name is read back as what it was made of, and every other name is a stranger's. Called
//! by the archive, by restores and by validation. Layout and names: docs/format/archive.md.

use esker_base::filename::FileNumber;
use esker_base::{Error, Result, SequenceNumber};
use esker_vfs::FileSystem;
use std::io;
use std::path::{Path, PathBuf};

const EXTENSION: &str = ".wal";

/// A file of the archive: [`Wal::archived`](crate::Wal::archived).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedSegment {
    pub(crate) number: FileNumber,
    pub(crate) first_sequence: SequenceNumber,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) archived_millis: u64,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
}

impl ArchivedSegment {
    /// The number that the segment had in the log.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The sequence number of its first write.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The sequence number of its last write; one less than the first where it holds none.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// When it was archived, milliseconds since 1970: everything in it was written before.
    #[must_use]
    pub fn archived_millis(&self) -> u64 {
        self.archived_millis
    }

    /// The length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of its file.
    pub(crate) fn name(&self) -> String {
        let (number, first, last) = (self.number, self.first_sequence, self.last_sequence);
        format!(
            "{number:06}-{first}-{last}-{}{EXTENSION}",
            self.archived_millis
        )
    }

    /// The file of this name in an archive.
    pub(crate) fn parse(directory: &Path, name: &str, bytes: u64) -> Option<Self> {
        let mut parts = name.strip_suffix(EXTENSION)?.split('-');
        let mut number = || parts.next()?.parse().ok();
        let segment = Self {
            number: number()?,
            first_sequence: number()?,
            last_sequence: number()?,
            archived_millis: number()?,
            bytes,
            path: directory.join(name),
        };
        (segment.name() == name).then_some(segment)
    }
}

/// The files of an archive, oldest first.
pub(crate) fn list(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<ArchivedSegment>> {
    let entries = match fs.read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("list the archive", directory, error)),
    };
    let mut segments: Vec<_> = entries
        .iter()
        .filter_map(|entry| ArchivedSegment::parse(directory, &entry.name, entry.bytes))
        .collect();
    segments.sort_by_key(|segment| (segment.number, segment.last_sequence));
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_strangers_are_left_alone() {
        let directory = Path::new("archive");
        let mut segment = ArchivedSegment {
            number: 12,
            first_sequence: 1,
            last_sequence: 340,
            archived_millis: 1_700_000_000_000,
            bytes: 9000,
            path: PathBuf::new(),
        };
        assert_eq!(segment.name(), "000012-1-340-1700000000000.wal");
        segment.path = directory.join(segment.name());
        let parsed = ArchivedSegment::parse(directory, &segment.name(), 9000);
        assert_eq!(parsed, Some(segment));
        for name in [
            "000012.wal",
            "12-1-2-3.wal",
            "000012-1-2-3.tmp",
            "000012-1-2-3-4.wal",
            "a",
        ] {
            assert_eq!(ArchivedSegment::parse(directory, name, 1), None, "{name}");
        }
    }
}

//! The names of the files in a database directory, made and read in one place.
//!
//! Invariant: a number names one file for ever; numbers come from one counter and are never reused.

use std::path::{Path, PathBuf};

/// The number in a file's name.
pub type FileNumber = u64;

/// What a file in a database directory is, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// `000012.sst`: a table.
    Table(FileNumber),
    /// `000012.wal`: a write-ahead log segment.
    WalSegment(FileNumber),
    /// `MANIFEST-000012`: a log of version edits.
    Manifest(FileNumber),
    /// `000012.vlog`: a value log (reserved).
    ValueLog(FileNumber),
    /// `CURRENT`: names the live manifest.
    Current,
    /// `LOCK`: held by the process that has the database open.
    Lock,
    /// `*.tmp`: a file that is not finished, with its number if its name is one (`000012.tmp`).
    Temporary(Option<FileNumber>),
}

impl FileKind {
    /// What the file called `name` is; `None` for names that are not ours.
    ///
    /// ```
    /// use esker_base::filename::FileKind;
    /// assert_eq!(FileKind::parse("000012.sst"), Some(FileKind::Table(12)));
    /// assert_eq!(FileKind::parse("notes.txt"), None);
    /// ```
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "CURRENT" => return Some(Self::Current),
            "LOCK" => return Some(Self::Lock),
            _ => {}
        }
        if let Some(number) = name.strip_prefix("MANIFEST-") {
            return parse_number(number).map(Self::Manifest);
        }
        let (stem, extension) = name.rsplit_once('.')?;
        match extension {
            "sst" => parse_number(stem).map(Self::Table),
            "wal" => parse_number(stem).map(Self::WalSegment),
            "vlog" => parse_number(stem).map(Self::ValueLog),
            "tmp" => Some(Self::Temporary(parse_number(stem))),
            _ => None,
        }
    }
}

fn parse_number(digits: &str) -> Option<FileNumber> {
    let plain = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// No file of a database has a larger number, since they go up by one: what is called so is a stranger's, and no
/// reason to give out only what is larger, until the numbers begin anew with those of live files.
pub const LARGEST_NUMBER: FileNumber = FileNumber::MAX >> 1;

/// The path of table `number` in `directory`.
#[must_use]
pub fn table_path(directory: &Path, number: FileNumber) -> PathBuf {
    directory.join(format!("{number:06}.sst"))
}

/// The path of log segment `number` in `directory`.
#[must_use]
pub fn wal_path(directory: &Path, number: FileNumber) -> PathBuf {
    directory.join(format!("{number:06}.wal"))
}

/// The path of manifest `number` in `directory`.
#[must_use]
pub fn manifest_path(directory: &Path, number: FileNumber) -> PathBuf {
    directory.join(manifest_name(number))
}

/// The name of manifest `number`, as it stands in `CURRENT`.
#[must_use]
pub fn manifest_name(number: FileNumber) -> String {
    format!("MANIFEST-{number:06}")
}

/// The path of the file that names the live manifest.
#[must_use]
pub fn current_path(directory: &Path) -> PathBuf {
    directory.join("CURRENT")
}

/// The path of the file that is locked while the database is open.
#[must_use]
pub fn lock_path(directory: &Path) -> PathBuf {
    directory.join("LOCK")
}

/// The path of an unfinished file for `number`.
#[must_use]
pub fn temporary_path(directory: &Path, number: FileNumber) -> PathBuf {
    directory.join(format!("{number:06}.tmp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_left_alone() {
        let directory = Path::new("d");
        let cases = [
            (table_path(directory, 7), FileKind::Table(7)),
            (
                wal_path(directory, 1_234_567),
                FileKind::WalSegment(1_234_567),
            ),
            (manifest_path(directory, 1), FileKind::Manifest(1)),
            (current_path(directory), FileKind::Current),
            (lock_path(directory), FileKind::Lock),
            (temporary_path(directory, 3), FileKind::Temporary(Some(3))),
            (directory.join("reserve.tmp"), FileKind::Temporary(None)),
        ];
        for (path, kind) in cases {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(FileKind::parse(name), Some(kind));
        }
        for name in [
            "",
            "12.sst",
            "00001x.sst",
            "MANIFEST-",
            "README",
            "+00012.wal",
            ".sst",
        ] {
            assert_eq!(FileKind::parse(name), None, "{name}");
        }
    }
}

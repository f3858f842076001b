//! Opening what can be opened: what salvage leaves out, and where it puts it.
//!
//! Invariants: nothing is destroyed: a file that is left out is renamed into the directory `lost`,
//! after the manifest has let go of it durably (I1); whatever is left out is said, with file, bytes
//! and reason. A device that cannot read now is not damage, and nothing is given up for it. Called at
//! open and by `repair`.

use crate::table_files;
use esker_base::filename::table_path;
use esker_base::limits::VALUE_LEVEL;
use esker_base::{Error, ErrorKind, Result};
use esker_manifest::{KeyspaceEdit, VersionEdit, VersionSet};
use esker_vfs::FileSystem;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where files go that are left out, within the database's directory.
pub(crate) const LOST_DIRECTORY: &str = "lost";

/// Something that was damaged or missing and that an open or a repair went on without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub(crate) file: PathBuf,
    pub(crate) offset: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) records: Option<u64>,
    pub(crate) reason: String,
}

impl Loss {
    pub(crate) fn new(file: &Path, reason: impl Into<String>) -> Self {
        Self {
            file: file.to_path_buf(),
            offset: None,
            bytes: 0,
            records: None,
            reason: reason.into(),
        }
    }

    /// What an error says of the file at `path`.
    pub(crate) fn of(path: &Path, error: &Error) -> Self {
        Self {
            offset: error.offset(),
            ..Self::new(path, error.message())
        }
    }

    /// The file that is damaged or missing, by the name it had in the database.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Where in the file the damage begins, where that is known.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// How many bytes of the file were left out; 0 where it is missing.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many records were left out, where that is known.
    #[must_use]
    pub fn records(&self) -> Option<u64> {
        self.records
    }

    /// What is wrong, as a sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn warn(&self) {
        tracing::warn!(
            file = %self.file.display(),
            offset = self.offset,
            bytes = self.bytes,
            records = self.records,
            "left out: {}",
            self.reason
        );
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(offset) = self.offset {
            write!(f, " from byte {offset}")?;
        }
        write!(f, ": {}; {} bytes", self.reason, self.bytes)?;
        match self.records {
            Some(records) => write!(f, " with {records} records left out"),
            None => write!(f, " left out"),
        }
    }
}

/// Takes every table out of the manifest that is missing or damaged anywhere, and puts its file
/// aside.
pub(crate) fn leave_out_tables(
    fs: &dyn FileSystem,
    directory: &Path,
    versions: &VersionSet,
) -> Result<Vec<Loss>> {
    let mut losses = Vec::new();
    let mut edit = VersionEdit::default();
    for keyspace in versions.keyspaces() {
        let mut removed = Vec::new();
        let version = versions.current(keyspace.id).unwrap_or_default();
        let mut lost_values = Vec::new();
        for (level, _, meta) in version.tables() {
            let path = table_path(directory, meta.number);
            match table_files::verify(fs, &path, meta) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Corruption => {
                    removed.push(meta.number);
                    if level == VALUE_LEVEL {
                        lost_values.push(meta.number);
                    }
                    losses.push(Loss {
                        bytes: meta.file_bytes,
                        records: Some(meta.entries + meta.range_tombstones),
                        ..Loss::of(&path, &error)
                    });
                }
                Err(error) => return Err(error),
            }
        }
        if !removed.is_empty() {
            edit.keyspaces.push(KeyspaceEdit {
                id: keyspace.id,
                removed,
                lost_values,
                ..KeyspaceEdit::default()
            });
        }
    }
    if losses.is_empty() {
        return Ok(losses);
    }
    versions.log_and_apply(edit)?;
    for loss in &losses {
        loss.warn();
        put_aside(fs, directory, &loss.file)?;
    }
    Ok(losses)
}

/// Renames the file at `path` into the directory `lost`, under a name that is free there. One that is
/// not there is none to keep.
pub(crate) fn put_aside(fs: &dyn FileSystem, directory: &Path, path: &Path) -> Result<()> {
    let there = fs.metadata(path);
    if there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let lost = directory.join(LOST_DIRECTORY);
    let put = |action: &str, error| Error::io(action, path, error);
    fs.create_dir_all(&lost)
        .map_err(|error| put("make a place for what is lost", error))?;
    let name = path.file_name().unwrap_or_default();
    let mut target = lost.join(name);
    let mut attempt = 0;
    loop {
        match fs.metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(put("look for a free name for", error)),
            Ok(_) => attempt += 1,
        }
        target = lost.join(format!("{}.{attempt}", name.to_string_lossy()));
    }
    fs.rename(path, &target)
        .and_then(|()| fs.sync_dir(&lost))
        .and_then(|()| fs.sync_dir(directory))
        .map_err(|error| put("put aside what is lost", error))
}

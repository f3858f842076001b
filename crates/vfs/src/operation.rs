//! What was asked of a file system, as plain data: the common language of the decorators.
//!
//! Invariant: one call of a trait method is one operation, and its display is one line that depends
//! on nothing but the call, so that a log of them can be compared with a golden one. Written by
//! [`trace`](crate::trace), [`fault`](crate::fault) and [`crash`](crate::crash).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which call it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationKind {
    /// [`FileSystem::open_read`](crate::FileSystem::open_read)
    OpenRead,
    /// [`FileSystem::create`](crate::FileSystem::create)
    Create,
    /// [`FileSystem::open_write`](crate::FileSystem::open_write)
    OpenWrite,
    /// [`FileSystem::create_dir_all`](crate::FileSystem::create_dir_all)
    CreateDir,
    /// [`FileSystem::read_dir`](crate::FileSystem::read_dir)
    ReadDir,
    /// [`FileSystem::remove_file`](crate::FileSystem::remove_file)
    RemoveFile,
    /// [`FileSystem::remove_dir`](crate::FileSystem::remove_dir)
    RemoveDir,
    /// [`FileSystem::rename`](crate::FileSystem::rename)
    Rename,
    /// [`FileSystem::hard_link`](crate::FileSystem::hard_link)
    HardLink,
    /// [`FileSystem::sync_dir`](crate::FileSystem::sync_dir)
    SyncDir,
    /// [`FileSystem::metadata`](crate::FileSystem::metadata)
    Metadata,
    /// [`FileSystem::lock`](crate::FileSystem::lock)
    Lock,
    /// [`RandomAccessFile::read_exact_at`](crate::RandomAccessFile::read_exact_at)
    Read,
    /// [`WritableFile::write_at`](crate::WritableFile::write_at)
    Write,
    /// [`WritableFile::sync_data`](crate::WritableFile::sync_data)
    Sync,
    /// [`WritableFile::allocate`](crate::WritableFile::allocate)
    Allocate,
    /// [`WritableFile::set_len`](crate::WritableFile::set_len)
    SetLen,
    /// [`WritableFile::map`](crate::WritableFile::map)
    Map,
    /// [`MappedWriter::copy_at`](crate::MappedWriter::copy_at): a store into memory, which no
    /// device can refuse.
    Copy,
}

impl OperationKind {
    /// Whether it changes a file, a directory or what of them is durable.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(
            self,
            Self::OpenRead
                | Self::OpenWrite
                | Self::ReadDir
                | Self::Metadata
                | Self::Lock
                | Self::Read
                | Self::Map
        )
    }

    fn name(self) -> &'static str {
        match self {
            Self::OpenRead => "open-read",
            Self::Create => "create",
            Self::OpenWrite => "open-write",
            Self::CreateDir => "create-dir",
            Self::ReadDir => "read-dir",
            Self::RemoveFile => "remove",
            Self::RemoveDir => "remove-dir",
            Self::Rename => "rename",
            Self::HardLink => "link",
            Self::SyncDir => "sync-dir",
            Self::Metadata => "metadata",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Allocate => "allocate",
            Self::SetLen => "set-len",
            Self::Map => "map",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One call. A file goes by the path that it was opened under, whatever it is called by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which call.
    pub kind: OperationKind,
    /// The file or directory; the old name for a rename, the existing one for a link.
    pub path: Arc<Path>,
    /// The new name, for a rename and a link.
    pub target: Option<PathBuf>,
    /// Where in the file a read, write or copy begins; else 0.
    pub offset: u64,
    /// Bytes read, written or copied; the new length of an allocation, cut or window; else 0.
    pub bytes: u64,
}

impl Operation {
    pub(crate) fn on_path(kind: OperationKind, path: &Path) -> Self {
        Self {
            kind,
            path: path.into(),
            target: None,
            offset: 0,
            bytes: 0,
        }
    }

    pub(crate) fn on_paths(kind: OperationKind, path: &Path, target: &Path) -> Self {
        Self {
            target: Some(target.to_path_buf()),
            ..Self::on_path(kind, path)
        }
    }

    pub(crate) fn on_file(kind: OperationKind, path: &Arc<Path>, offset: u64, bytes: u64) -> Self {
        Self {
            kind,
            path: Arc::clone(path),
            target: None,
            offset,
            bytes,
        }
    }

    /// The same operation with paths as seen from `base`, where they lie below it: what makes a log
    /// the same in every temporary directory.
    #[must_use]
    pub fn relative_to(&self, base: &Path) -> Self {
        let relative = |path: &Path| match path.strip_prefix(base) {
            Ok(inside) if inside.as_os_str().is_empty() => PathBuf::from("."),
            Ok(inside) => inside.to_path_buf(),
            Err(_) => path.to_path_buf(),
        };
        Self {
            path: relative(&self.path).into(),
            target: self.target.as_deref().map(relative),
            ..self.clone()
        }
    }
}

/// One line: `write 000003.log 4096+120`, `rename a -> b`, `allocate 000003.log 65536`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path.display())?;
        if let Some(target) = &self.target {
            write!(f, " -> {}", target.display())?;
        }
        match self.kind {
            OperationKind::Read | OperationKind::Write | OperationKind::Copy => {
                write!(f, " {}+{}", self.offset, self.bytes)
            }
            OperationKind::Allocate | OperationKind::SetLen | OperationKind::Map => {
                write!(f, " {}", self.bytes)
            }
            _ => Ok(()),
        }
    }
}

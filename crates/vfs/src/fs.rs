//! The seam between esker and files: the traits that every file system of the engine implements.
//!
//! Invariants: the engine above names no other file API (I12). Nothing is durable until
//! `sync_data` of the file *and* `sync_dir` of its directory have returned `Ok`; a failed sync is
//! final for its file (I3) and the engine never retries it. Implementations: [`os`](crate::os) (the
//! real thing), [`mem`](crate::mem), and the decorators that tests use.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: String,
    /// The length of the file, bytes (0 for directories).
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A file system.
pub trait FileSystem: Send + Sync + Debug + 'static {
    /// Opens an existing file for positional reads.
    ///
    /// # Errors
    /// Whatever the operating system says; likewise for everything below.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>>;

    /// Creates a file for writing; an existing one is an error (`AlreadyExists`).
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>>;

    /// Opens an existing file for writing, its contents kept.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>>;

    /// Makes a directory and its missing parents.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// What is in a directory, by name.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Removes a file.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory; an existing target file is replaced atomically.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`]; `Unsupported` or `CrossesDevices` where a copy is needed.
    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()>;

    /// Makes creations, removals and renames in the directory durable.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// What is at `path`: its name, length and whether it is a directory.
    ///
    /// # Errors
    /// `NotFound` where there is nothing.
    fn metadata(&self, path: &Path) -> io::Result<DirEntry>;

    /// Creates `path` if needed and locks it against every other handle and process until the
    /// guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` where somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;

    /// How many files the process may have open at once, sockets and all; `None` where that is not
    /// known.
    fn open_files_limit(&self) -> Option<u64> {
        None
    }

    /// The path by which the same directory always goes, for messages and comparisons.
    ///
    /// # Errors
    /// As [`FileSystem::open_read`].
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
}

/// A held directory lock; dropping it gives it back.
pub trait FileLock: Send + Sync + Debug {}

/// An open file that is read at positions, from any thread.
pub trait RandomAccessFile: Send + Sync + Debug {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file is too short.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The length of the file now, bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    ///
    /// # Errors
    /// As [`RandomAccessFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Where the first byte at or after `offset` lies that may be other than zero; `None` where there
    /// is none. A file system that keeps no account of holes says `offset`.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    /// Tells the operating system to read the whole file ahead (`true`) or only what is asked for.
    fn sequential(&self, _on: bool) {}

    /// Tells the operating system that `bytes` from `offset` on will be read, so that it begins to fetch
    /// them into its own cache. Waits for nothing; where there is no such call, nothing happens.
    fn will_read(&self, _offset: u64, _bytes: u64) {}
}

/// An open file that is written at positions, from any thread. Writes beyond the end extend it.
pub trait WritableFile: Send + Sync + Debug {
    /// Writes all of `data` at `offset`, into the operating system: it then survives the process.
    ///
    /// # Errors
    /// Whatever the operating system says; a part may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the contents (and the length) durable. A failure is final for this file (I3).
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn sync_data(&self) -> io::Result<()>;

    /// Says that a sync will follow, and that nobody writes to these bytes before it: the device may begin with
    /// them now. Only advice; whether they could be written is for the sync to say.
    fn begin_write_back(&self, _offset: u64, _bytes: u64) {}

    /// Writes as [`WritableFile::write_at`] does, and returns once these bytes, and whatever it takes to
    /// find them again, are durable. Of other bytes of the file, written before or meanwhile, it says
    /// nothing: a sync of everything may have more to wait for. A failure is final for this file (I3).
    ///
    /// # Errors
    /// Whatever the operating system says; a part may have been written.
    fn write_synced_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)?;
        self.sync_data()
    }

    /// As [`WritableFile::write_synced_at`] of `pages[changed]`, in the midst of whole pages of 4096 bytes that
    /// begin at `offset`. The others of these bytes are what the file holds already, and nobody else is
    /// writing to these pages: so a file system may write the pages whole, as it does with any page of its cache
    /// of which a part was changed. Bytes that are stored again as they are survive a power loss in the
    /// middle of it (SQLite calls that powersafe overwrite); so simulated disks are given the changed ones.
    ///
    /// # Errors
    /// As [`WritableFile::write_synced_at`]; `InvalidInput` where `changed` is not in `pages`.
    fn write_synced_within(
        &self,
        offset: u64,
        pages: &[u8],
        changed: Range<usize>,
    ) -> io::Result<()> {
        let from = offset + changed.start as u64;
        match pages.get(changed) {
            Some(data) => self.write_synced_at(from, data),
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Reserves space for the first `bytes` bytes, so that writes below cannot run out of it. The
    /// length becomes at least `bytes`; what was never written reads as zeros.
    ///
    /// # Errors
    /// `StorageFull` where there is no space.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file to `bytes`.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The length of the file now, bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    ///
    /// # Errors
    /// As [`WritableFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// A window on the first `bytes` bytes through which writes are copies of memory: as durable as
    /// `write_at`, without its system call. `None` where this file system has none, or where the
    /// space below is not certain to be there (the file must have been `allocate`d: a write to a
    /// hole on a full device would kill the process).
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn map(&self, _bytes: u64) -> io::Result<Option<Box<dyn MappedWriter>>> {
        Ok(None)
    }

    /// For simulated disks alone: a layer above has reported a sync of this file as failed. As Linux
    /// does then, the disk takes the unsynced pages for clean, and no later sync writes them. The
    /// engine never calls it; real file systems have nothing to do.
    fn lose_unsynced(&self) {}
}

/// A window of memory on a file. See [`WritableFile::map`].
pub trait MappedWriter: Send + Sync + Debug {
    /// Copies `data` to `offset`.
    ///
    /// # Errors
    /// `InvalidInput` where the range lies outside the window; nothing is written then.
    fn copy_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Nothing is copied below `offset` soon: what lies there need not count as memory of the process. The
    /// file holds it as before.
    fn let_go(&mut self, _offset: u64) {}
}

/// Whether a file could not be opened because too many are open, in the process or in the system.
#[must_use]
pub fn has_no_handles_left(error: &io::Error) -> bool {
    let kinds = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    kinds
        .iter()
        .any(|kind| error.raw_os_error() == Some(kind.raw_os_error()))
}

/// What [`MappedWriter::copy_at`] says to a range that is not in its window.
pub(crate) fn outside_window() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the range lies outside the mapped window",
    )
}

//! The real file system: the one place that calls the operating system about files.
//!
//! Invariants: reads and writes are positional, so that handles carry no cursor and need no lock. A
//! mapped window is given out only where a store into it cannot fail (see [`OsFileSystem`]).
//! Everything above reaches it through [`FileSystem`].

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fs::{DirEntry, FileLock, FileSystem, RandomAccessFile, WritableFile};
#[cfg(target_os = "linux")]
use crate::fs::{MappedWriter, outside_window};
#[cfg(target_os = "linux")]
use crate::os_direct::DirectWriter;
use crate::reservation::Reservation;
#[cfg(target_os = "linux")]
use crate::reservation::WindowGuard;

/// The files that this process has locked, by canonical path: some systems let one process take
/// the same lock twice.
static LOCKED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// The file system of the operating system.
///
/// [`WritableFile::map`] gives a window only on Linux, on file systems that rewrite allocated blocks
/// in place (ext4, XFS, tmpfs, and overlays, whose upper layer is taken to be one of these), after
/// [`WritableFile::allocate`] on the same handle has really reserved the space. While a window is
/// open, its handle refuses to cut the file below it. What remains is a device that fails under a
/// store, or somebody who cuts the file through another handle in spite of the directory's lock:
/// either ends the process with SIGBUS.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

impl OsFileSystem {
    /// The file system of the operating system.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl FileSystem for OsFileSystem {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>> {
        let file = File::open(path)?;
        // Opening a directory for reading succeeds; every read of it would fail.
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(OsReadable { file }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        // Reading as well, because a shared mapping asks for it.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(Arc::new(OsWritable::new(file)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(OsWritable::new(file)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // A file may be gone by the time it is asked about; then it is not there.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(dir_entry(name, &metadata));
        }
        entries.sort();
        Ok(entries)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        fs::hard_link(existing, new)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let directory = File::open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        match directory.sync_all() {
            // EINVAL: this file system has no such call for directories; there is nothing to do.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    fn metadata(&self, path: &Path) -> io::Result<DirEntry> {
        let metadata = fs::metadata(path)?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(dir_entry(name, &metadata))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let key = fs::canonicalize(path)?;
        let mut locked = LOCKED.lock();
        let locked = locked.get_or_insert_default();
        if locked.contains(&key) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        locked.insert(key.clone());
        Ok(Box::new(OsLock { file, key }))
    }

    fn open_files_limit(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }
}

fn dir_entry(name: String, metadata: &fs::Metadata) -> DirEntry {
    let is_dir = metadata.is_dir();
    DirEntry {
        name,
        bytes: if is_dir { 0 } else { metadata.len() },
        is_dir,
    }
}

/// A held lock: on the file for other processes, in [`LOCKED`] for this one.
#[derive(Debug)]
struct OsLock {
    file: File,
    key: PathBuf,
}

impl FileLock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        // The lock would go with the descriptor; a child process that inherited it may keep that.
        let mut locked = LOCKED.lock();
        let _ = self.file.unlock();
        if let Some(locked) = locked.as_mut() {
            locked.remove(&self.key);
        }
    }
}

#[derive(Debug)]
struct OsReadable {
    file: File,
}

impl RandomAccessFile for OsReadable {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    // Space that was allocated and never written is a hole to this call. It moves the position of the
    // descriptor, which positional reads do not look at.
    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data.max(offset))),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system without the call: everything may be data.
            Err(rustix::io::Errno::INVAL) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn sequential(&self, on: bool) {
        use rustix::fs::Advice;
        let advice = if on {
            Advice::Sequential
        } else {
            Advice::Random
        };
        let _ = rustix::fs::fadvise(&self.file, 0, None, advice);
    }

    #[cfg(target_os = "linux")]
    fn will_read(&self, offset: u64, bytes: u64) {
        // Zero bytes would stand for all up to the end.
        if let Some(bytes) = std::num::NonZeroU64::new(bytes) {
            let advice = rustix::fs::Advice::WillNeed;
            let _ = rustix::fs::fadvise(&self.file, offset, Some(bytes), advice);
        }
    }
}

#[derive(Debug)]
struct OsWritable {
    file: File,
    reservation: Reservation,
    #[cfg(target_os = "linux")]
    direct: DirectWriter,
}

impl OsWritable {
    fn new(file: File) -> Self {
        Self {
            file,
            reservation: Reservation::default(),
            #[cfg(target_os = "linux")]
            direct: DirectWriter::default(),
        }
    }
}

impl WritableFile for OsWritable {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn begin_write_back(&self, offset: u64, bytes: u64) {
        crate::os_write_back::begin(&self.file, offset, bytes);
    }

    /// One system call, which waits for the pages of `data` alone.
    #[cfg(target_os = "linux")]
    fn write_synced_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        use rustix::io::{Errno, ReadWriteFlags, pwritev2};
        let mut written = 0;
        while written < data.len() {
            let rest = [io::IoSlice::new(&data[written..])];
            let at = offset + written as u64;
            match pwritev2(&self.file, &rest, at, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(Errno::INTR) => {}
                // A kernel or a file system without that flag writes nothing then.
                Err(Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.write_at(at, &data[written..])?;
                    return self.sync_data();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Past the page cache where that is possible: there is no page to be marked, written back and waited
    /// for, and other files' pages do not stand in line before it.
    #[cfg(target_os = "linux")]
    fn write_synced_within(
        &self,
        offset: u64,
        pages: &[u8],
        changed: Range<usize>,
    ) -> io::Result<()> {
        let from = offset + changed.start as u64;
        let data = pages.get(changed).ok_or(io::ErrorKind::InvalidInput)?;
        if self.direct.write_synced(&self.file, offset, pages)? {
            return Ok(());
        }
        self.write_synced_at(from, data)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        if reserve(&self.file, bytes)? {
            self.reservation.extend_to(bytes);
        } else if self.len()? < bytes {
            // Nothing can be reserved here: a full device will show at the write.
            self.file.set_len(bytes)?;
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.reservation.cut_to(bytes, || self.file.set_len(bytes))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    #[cfg(target_os = "linux")]
    fn map(&self, bytes: u64) -> io::Result<Option<Box<dyn MappedWriter>>> {
        let opened = self.reservation.open_window(bytes, || {
            let (Ok(window_bytes), true) = (usize::try_from(bytes), bytes <= self.len()?) else {
                return Ok(None);
            };
            if !rewrites_in_place(&self.file)? {
                return Ok(None);
            }
            crate::os_map::Window::new(&self.file, window_bytes).map(Some)
        })?;
        Ok(opened.map(|(window, guard)| {
            Box::new(OsMapped {
                window,
                _guard: guard,
            }) as Box<dyn MappedWriter>
        }))
    }
}

/// Reserves the first `bytes` bytes; false where the file system has no such call.
#[cfg(target_os = "linux")]
fn reserve(file: &File, bytes: u64) -> io::Result<bool> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _bytes: u64) -> io::Result<bool> {
    Ok(false)
}

/// Whether a block that was allocated once can always be written again without new space. Copying
/// file systems (btrfs, ZFS, bcachefs, F2FS) and remote ones cannot promise that.
#[cfg(target_os = "linux")]
fn rewrites_in_place(file: &File) -> io::Result<bool> {
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAY: u64 = 0x794c_7630;
    // The field's type differs between architectures; the numbers all have 32 bits.
    let kind = rustix::fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff;
    Ok([EXT, XFS, TMPFS, OVERLAY].contains(&kind))
}

/// A window on a file. Fields drop in order: unmapped first, then no longer counted as open.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct OsMapped {
    window: crate::os_map::Window,
    _guard: WindowGuard,
}

#[cfg(target_os = "linux")]
impl MappedWriter for OsMapped {
    fn copy_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.window.copy_at(offset, data) {
            Ok(())
        } else {
            Err(outside_window())
        }
    }

    fn let_go(&mut self, offset: u64) {
        self.window.let_go(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_another_handle_holds_is_refused() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("LOCK");
        // As another process would hold it: without an entry in this one's register.
        let other = File::create(&path)?;
        other.lock()?;
        let refused = OsFileSystem::new().lock(&path).map(drop);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        other.unlock()?;
        let held = OsFileSystem::new().lock(&path)?;
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.lock()
    }

    #[test]
    fn a_lock_is_one_by_whichever_path() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link)?;
        let fs = OsFileSystem::new();
        let held = fs.lock(&directory.path().join("LOCK"))?;
        let refused = fs.lock(&link.join("LOCK")).map(drop);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        fs.lock(&link.join("LOCK")).map(drop)
    }

    #[test]
    fn data_is_found_behind_space_that_was_never_written() -> io::Result<()> {
        const BYTES: u64 = 1 << 20;
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("segment");
        let fs = OsFileSystem::new();
        let file = fs.create(&path)?;
        file.allocate(BYTES)?;
        file.write_at(BYTES / 2, b"data")?;
        let reader = fs.open_read(&path)?;
        // Where holes are not kept account of, the answer may come early but never late.
        let found = reader.next_data(0)?;
        assert!(found.is_some_and(|offset| offset <= BYTES / 2), "{found:?}");
        assert_eq!(reader.next_data(BYTES / 2 + 1)?, Some(BYTES / 2 + 1));
        let mut window = file.map(BYTES)?;
        if let Some(window) = &mut window {
            window.copy_at(BYTES - 4096, b"copied")?;
            let behind = reader.next_data(BYTES - 8192)?;
            assert!(
                behind.is_some_and(|offset| offset <= BYTES - 4096),
                "{behind:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn contents_are_not_changed_by_locking() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("LOCK");
        let fs = OsFileSystem::new();
        fs.create(&path)?.write_at(0, b"kept")?;
        fs.lock(&path)?;
        assert_eq!(fs.metadata(&path)?.bytes, 4);
        Ok(())
    }
}

//! The engine's way to its files when the process may open no more of them: tables that are open only
//! because they were used are closed, and the call is made again.
//!
//! Invariant: whatever is not about too many open files is passed on as it is, to and fro.

use crate::cursor::IdleCursors;
use esker_sstable::TableCache;
use esker_vfs::fs::has_no_handles_left;
use esker_vfs::{DirEntry, FileLock, FileSystem, RandomAccessFile, WritableFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

/// A file system that makes room for handles among the open tables.
#[derive(Debug)]
pub(crate) struct HandleSaver {
    inner: Arc<dyn FileSystem>,
    tables: OnceLock<(Weak<TableCache>, Weak<IdleCursors>)>,
}

impl HandleSaver {
    pub(crate) fn new(inner: Arc<dyn FileSystem>) -> Arc<Self> {
        let tables = OnceLock::new();
        Arc::new(Self { inner, tables })
    }

    /// From now on tables of `cache` are closed where handles are needed, also those that dropped cursors keep.
    pub(crate) fn saves_on(&self, cache: &Arc<TableCache>, idle_cursors: &Arc<IdleCursors>) {
        let tables = (Arc::downgrade(cache), Arc::downgrade(idle_cursors));
        let _ = self.tables.set(tables);
    }

    fn retry<T>(&self, call: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match call() {
                Err(error) if has_no_handles_left(&error) && self.close_one() => {}
                result => return result,
            }
        }
    }

    fn close_one(&self) -> bool {
        let Some((tables, idle_cursors)) = self.tables.get() else {
            return false;
        };
        let idle_cursors = idle_cursors.upgrade();
        // Perhaps of the last tables that were open: the cache may have closed its own before.
        let any_idle = idle_cursors.is_some_and(|idle_cursors| idle_cursors.forget_all());
        let any_open = tables.upgrade().is_some_and(|tables| tables.close_one());
        any_idle || any_open
    }
}

impl FileSystem for HandleSaver {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>> {
        self.retry(|| self.inner.open_read(path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        self.retry(|| self.inner.create(path))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        self.retry(|| self.inner.open_write(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.retry(|| self.inner.read_dir(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.inner.hard_link(existing, new)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // A directory that could not be opened has not been synced: this is no second attempt (I3).
        self.retry(|| self.inner.sync_dir(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<DirEntry> {
        self.inner.metadata(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.inner.lock(path)
    }

    fn open_files_limit(&self) -> Option<u64> {
        self.inner.open_files_limit()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.canonicalize(path)
    }
}

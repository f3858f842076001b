//! The engine's way to its files when the process may open no more of them: files of tables are closed, and the call
//! is made again. One that is read after that is opened once more, so that no number of merges and scans can have
//! all handles.
//!
//! Invariants: whatever is not about too many open files is passed on as it is, to and fro. Every file of a table that
//! is open stands in the queue. Only those of tables are closed: nobody writes to them, or gives them another name,
//! and none is removed before its last reader is gone.

use arc_swap::ArcSwapOption;
use esker_base::filename::FileKind;
use esker_vfs::fs::has_no_handles_left;
use esker_vfs::{DirEntry, FileLock, FileSystem, RandomAccessFile, WritableFile};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// The queue is first searched for files that are gone when it is this long.
const FIRST_PURGE: usize = 64;

/// A file system that makes room for handles among the files of tables.
#[derive(Debug)]
pub(crate) struct HandleSaver {
    files: Arc<Files>,
}

/// The files, and which of them can be closed.
#[derive(Debug)]
struct Files {
    inner: Arc<dyn FileSystem>,
    /// Files of tables that are open, the one that was opened first in front.
    open: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    tables: VecDeque<Weak<Reopened>>,
    purge_at: usize,
}

/// The file of a table, for as long as it is open.
#[derive(Debug)]
struct Opened(Arc<dyn RandomAccessFile>);

/// The file of a table: open, or to be opened again when it is read.
#[derive(Debug)]
struct Reopened {
    files: Arc<Files>,
    path: PathBuf,
    file: ArcSwapOption<Opened>,
    this: Weak<Self>,
}

impl HandleSaver {
    pub(crate) fn new(inner: Arc<dyn FileSystem>) -> Arc<Self> {
        let queue = Queue {
            tables: VecDeque::new(),
            purge_at: FIRST_PURGE,
        };
        let files = Arc::new(Files {
            inner,
            open: Mutex::new(queue),
        });
        Arc::new(Self { files })
    }

    fn retry<T>(&self, call: impl Fn(&dyn FileSystem) -> io::Result<T>) -> io::Result<T> {
        self.files.retry(|| call(&*self.files.inner))
    }
}

impl Files {
    fn retry<T>(&self, call: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match call() {
                Err(error) if has_no_handles_left(&error) && self.close_one() => {}
                result => return result,
            }
        }
    }

    /// Closes the file that was opened first, as soon as nobody is reading it; `false` where none is open.
    fn close_one(&self) -> bool {
        loop {
            let Some(first) = self.open.lock().tables.pop_front() else {
                return false;
            };
            if first
                .upgrade()
                .is_some_and(|table| table.file.swap(None).is_some())
            {
                return true;
            }
        }
    }

    /// Enters a file that was just opened.
    fn enter(&self, table: &Reopened) {
        let mut open = self.open.lock();
        if open.tables.len() >= open.purge_at {
            open.tables.retain(|table| table.strong_count() > 0);
            open.purge_at = FIRST_PURGE.max(2 * open.tables.len());
        }
        open.tables.push_back(table.this.clone());
    }

    fn open_table(self: &Arc<Self>, path: &Path) -> io::Result<Arc<Reopened>> {
        let table = Arc::new_cyclic(|this| Reopened {
            files: Arc::clone(self),
            path: path.to_path_buf(),
            file: ArcSwapOption::empty(),
            this: this.clone(),
        });
        table.open()?;
        Ok(table)
    }
}

impl Reopened {
    #[inline]
    fn with<T>(&self, read: impl FnOnce(&dyn RandomAccessFile) -> io::Result<T>) -> io::Result<T> {
        match &*self.file.load() {
            Some(file) => read(&*file.0),
            None => read(&*self.open()?.0),
        }
    }

    #[cold]
    fn open(&self) -> io::Result<Arc<Opened>> {
        let open = || self.files.inner.open_read(&self.path);
        let file = Arc::new(Opened(self.files.retry(open)?));
        let nothing: Option<Arc<Opened>> = None;
        let before = self
            .file
            .compare_and_swap(&nothing, Some(Arc::clone(&file)));
        if let Some(faster) = &*before {
            return Ok(Arc::clone(faster));
        }
        self.files.enter(self);
        Ok(file)
    }
}

impl RandomAccessFile for Reopened {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|file| file.read_exact_at(buffer, offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.with(|file| file.next_data(offset))
    }

    fn sequential(&self, on: bool) {
        let _ = self.with(|file| {
            file.sequential(on);
            Ok(())
        });
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        let _ = self.with(|file| {
            file.will_read(offset, bytes);
            Ok(())
        });
    }
}

impl FileSystem for HandleSaver {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>> {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(FileKind::parse) {
            Some(FileKind::Table(_)) => Ok(self.files.open_table(path)?),
            _ => self.retry(|inner| inner.open_read(path)),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        self.retry(|inner| inner.create(path))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        self.retry(|inner| inner.open_write(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.files.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.retry(|inner| inner.read_dir(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.files.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.files.inner.remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.inner.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.files.inner.hard_link(existing, new)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // A directory that could not be opened has not been synced: this is no second attempt (I3).
        self.retry(|inner| inner.sync_dir(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<DirEntry> {
        self.files.inner.metadata(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.files.inner.lock(path)
    }

    fn open_files_limit(&self) -> Option<u64> {
        self.files.inner.open_files_limit()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.files.inner.canonicalize(path)
    }
}

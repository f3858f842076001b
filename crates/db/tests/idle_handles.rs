//! Tables that dropped cursors keep open are closed where the process may open no more files, though no other table is
//! open that could be closed.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use esker::Options;
use esker_testkit::disk::{
    DirEntry, FileLock, FileSystem, MemFileSystem, RandomAccessFile, WritableFile,
};

/// So many files may be open for reading at once.
#[derive(Debug)]
struct FewHandles {
    inner: MemFileSystem,
    most: AtomicUsize,
    opened: Mutex<Vec<Weak<dyn RandomAccessFile>>>,
}

impl FewHandles {
    fn open(&self) -> usize {
        let mut opened = self.opened.lock().unwrap();
        opened.retain(|file| file.strong_count() > 0);
        opened.len()
    }
}

impl FileSystem for FewHandles {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>> {
        if self.open() >= self.most.load(Ordering::Relaxed) {
            const TOO_MANY_OPEN_FILES: i32 = 24;
            return Err(io::Error::from_raw_os_error(TOO_MANY_OPEN_FILES));
        }
        let file = self.inner.open_read(path)?;
        self.opened.lock().unwrap().push(Arc::downgrade(&file));
        Ok(file)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        self.inner.create(path)
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        self.inner.open_write(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
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
        self.inner.sync_dir(path)
    }
    fn metadata(&self, path: &Path) -> io::Result<DirEntry> {
        self.inner.metadata(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.inner.lock(path)
    }
}

#[test]
fn the_last_open_tables_are_those_of_dropped_cursors() {
    let disk = Arc::new(FewHandles {
        inner: MemFileSystem::new(),
        most: AtomicUsize::new(100),
        opened: Mutex::default(),
    });
    let options = || Options::new().file_system(disk.clone());
    let db = options().open("/db").unwrap();
    db.put("here", "1").unwrap();
    db.keyspace("other").unwrap().put("there", "2").unwrap();
    db.close().unwrap();
    let db = options().open("/db").unwrap();
    let other = db.keyspace("other").unwrap();
    let read = |keyspace: &esker::Keyspace, key: &str| {
        let mut cursor = keyspace.cursor();
        cursor.seek(key).map(|()| cursor)
    };
    // The first loads the block, which the second keeps.
    drop(read(&db, "here").unwrap());
    let cursor = read(&db, "here").unwrap();
    disk.most.store(0, Ordering::Relaxed);
    assert!(read(&other, "there").is_err(), "all others were closed");
    assert_eq!(disk.open(), 1, "the one that the cursor reads");
    disk.most.store(1, Ordering::Relaxed);
    drop(cursor);
    let cursor = read(&other, "there").unwrap();
    assert_eq!(cursor.value(), b"2");
}

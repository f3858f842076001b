//! One file handle is enough for whatever reads tables: those that others are reading are closed where the process may
//! open no more files, and opened again when they are read on.
//!
//! The story: what a merge or a cursor was reading could not be closed. A merge of many runs that were late, or a few
//! cursors over as many, had all handles, and every call failed that needed one.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use esker::Options;
use esker_compaction::ManualExecutor;
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

fn few_handles() -> Arc<FewHandles> {
    Arc::new(FewHandles {
        inner: MemFileSystem::new(),
        most: AtomicUsize::new(100),
        opened: Mutex::default(),
    })
}

const RUNS: u8 = 20;

/// Each of so many runs has every key, and values of several blocks.
/// Nothing is done in the background.
fn open_with_runs(disk: &Arc<FewHandles>) -> esker::Db {
    let options = || {
        let options = Options::new().file_system(disk.clone()).cache_bytes(0);
        options
            .level0_runs(usize::from(RUNS) + 1)
            .executor(Arc::new(ManualExecutor::new(0)))
    };
    let db = options().open("/db").unwrap();
    for run in 0..RUNS {
        for key in 0..100u8 {
            db.put([key, run], [run; 500]).unwrap();
            db.put([key], [run; 500]).unwrap();
        }
        db.flush().unwrap();
    }
    db.close().unwrap();
    let db = options().open("/db").unwrap();
    assert!(db.stats().levels()[0].runs > 8);
    db
}

#[test]
fn merges_and_cursors_over_many_runs_need_one_handle() {
    let disk = few_handles();
    let db = open_with_runs(&disk);
    disk.most.store(1, Ordering::Relaxed);
    let mut cursors: Vec<_> = (0..3).map(|_| db.cursor()).collect();
    for cursor in &mut cursors {
        cursor.seek_to_first().unwrap();
    }
    assert_eq!(disk.open(), 1);
    db.compact().unwrap();
    let entries = 100 * (u64::from(RUNS) + 1);
    assert_eq!(db.count().unwrap(), entries);
    // Those of before the merge read on in what it has replaced.
    for cursor in &mut cursors {
        let mut count = 0;
        while cursor.valid() {
            let run = cursor.key().get(1).copied().unwrap_or(RUNS - 1);
            assert_eq!(cursor.value(), [run; 500]);
            count += 1;
            cursor.next().unwrap();
        }
        assert_eq!(count, entries);
    }
    assert!(db.validate().unwrap().is_ok());
    assert!(disk.open() <= 1);
}

#[test]
fn where_no_handle_is_left_at_all_a_read_fails_and_later_goes_well() {
    let disk = few_handles();
    let db = open_with_runs(&disk);
    disk.most.store(1, Ordering::Relaxed);
    let mut cursor = db.cursor();
    cursor.seek_to_first().unwrap();
    disk.most.store(0, Ordering::Relaxed);
    let error = db.count().unwrap_err();
    assert_eq!(error.kind(), esker::ErrorKind::Io);
    assert_eq!(disk.open(), 0, "what is read was closed as well");
    disk.most.store(1, Ordering::Relaxed);
    assert_eq!(db.get([50]).unwrap().as_deref(), Some(&[RUNS - 1; 500][..]));
    let mut count = 0;
    while cursor.valid() {
        count += 1;
        cursor.next().unwrap();
    }
    assert_eq!(count, 100 * (u32::from(RUNS) + 1));
}

#[test]
fn threads_that_share_few_handles_all_come_to_their_end() {
    let disk = few_handles();
    let db = open_with_runs(&disk);
    disk.most.store(16, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let db = &db;
            scope.spawn(move || {
                for round in 0..20u8 {
                    let key = [(thread * 20 + round) % 100];
                    let found = db.get(key).unwrap();
                    assert_eq!(found.as_deref(), Some(&[RUNS - 1; 500][..]));
                    let after = db.range([key[0]]..).take(50);
                    after.for_each(|entry| assert_eq!(entry.unwrap().1.len(), 500));
                }
            });
        }
        db.compact().unwrap();
    });
    assert!(db.validate().unwrap().is_ok());
}

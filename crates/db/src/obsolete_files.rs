//! Tables that no version names any more, and the moment their files may go.
//!
//! Invariant (I1): a file is removed only after the edit that dropped it is durable and the last
//! reader that could open it is gone. A [`LiveTable`] is held by every super-version that names the
//! table; the last one dropped after the table became obsolete queues the file for removal, and the
//! background removes it, off every reader's path.

use esker_base::filename::{FileNumber, table_path};
use esker_base::sync::Mutex;
use esker_sstable::{TableCache, TableHandle};
use esker_vfs::FileSystem;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use esker_base::table_meta::TableMeta;

/// A table that a current or still-read version names.
#[derive(Debug)]
pub(crate) struct LiveTable {
    pub(crate) handle: Arc<TableHandle>,
    number: FileNumber,
    obsolete: AtomicBool,
    removals: Arc<Mutex<Vec<FileNumber>>>,
}

impl Drop for LiveTable {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.removals.lock().push(self.number);
        }
    }
}

/// All live tables of a database, by number.
#[derive(Debug)]
pub(crate) struct LiveTables {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    cache: Arc<TableCache>,
    by_number: Mutex<HashMap<FileNumber, Weak<LiveTable>>>,
    removals: Arc<Mutex<Vec<FileNumber>>>,
    /// Retired, and the file still there.
    retired: Mutex<BTreeSet<FileNumber>>,
    /// Removed, and not known to stay so: no sync of the directory is known to have come after.
    removed: Mutex<BTreeSet<FileNumber>>,
    /// Held while files are removed, and while a restore takes hold of a table: a file is either
    /// removed before that, or not at all.
    removing: Mutex<()>,
}

impl LiveTables {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, directory: PathBuf, cache: Arc<TableCache>) -> Self {
        Self {
            fs,
            directory,
            cache,
            by_number: Mutex::default(),
            removals: Arc::default(),
            retired: Mutex::default(),
            removed: Mutex::default(),
            removing: Mutex::default(),
        }
    }

    /// The table of `meta`, shared by everybody who names it.
    pub(crate) fn get(&self, meta: &Arc<TableMeta>) -> Arc<LiveTable> {
        let mut tables = self.by_number.lock();
        if let Some(table) = tables.get(&meta.number).and_then(Weak::upgrade) {
            return table;
        }
        let table = Arc::new(LiveTable {
            handle: self.cache.handle(Arc::clone(meta)),
            number: meta.number,
            obsolete: AtomicBool::new(false),
            removals: Arc::clone(&self.removals),
        });
        tables.insert(meta.number, Arc::downgrade(&table));
        table
    }

    /// As [`LiveTables::get`], for a table that may be retired: its file, if it is still there, is
    /// not removed before the reference that is returned is dropped.
    pub(crate) fn hold(&self, meta: &Arc<TableMeta>) -> Arc<LiveTable> {
        let _no_removal_meanwhile = self.removing.lock();
        self.get(meta)
    }

    /// Says that the durable manifest names tables again that may have been retired.
    pub(crate) fn revive(&self, held: &[Arc<LiveTable>]) {
        let mut retired = self.retired.lock();
        for table in held {
            table.obsolete.store(false, Ordering::Release);
            retired.remove(&table.number);
        }
    }

    /// Says that the durable manifest no longer names `numbers`: each file goes with its last reader.
    pub(crate) fn retire(&self, numbers: impl IntoIterator<Item = FileNumber>) {
        let mut unread = Vec::new();
        {
            let tables = self.by_number.lock();
            for number in numbers {
                self.retired.lock().insert(number);
                match tables.get(&number).and_then(Weak::upgrade) {
                    Some(table) => {
                        table.obsolete.store(true, Ordering::Release);
                        // Dropped after the lock: it may be the last reference.
                        unread.push(table);
                    }
                    None => self.removals.lock().push(number),
                }
            }
        }
        drop(unread);
    }

    /// Removes the files whose last reader is gone. A file that cannot be removed now is tried again
    /// at the next call; after a crash the next open finds it as a stray.
    pub(crate) fn remove_unread(&self) {
        let _one_at_a_time = self.removing.lock();
        let numbers = std::mem::take(&mut *self.removals.lock());
        for number in numbers {
            // Somebody took hold of it again: it goes with them, or stays if it was revived.
            if !self.forget_unread(number) {
                continue;
            }
            match self.fs.remove_file(&table_path(&self.directory, number)) {
                Ok(()) => {
                    self.note_removed(number);
                    self.retired.lock().remove(&number);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.note_removed(number);
                    self.retired.lock().remove(&number);
                }
                Err(error) => {
                    tracing::warn!(number, %error, "could not remove an obsolete table");
                    self.removals.lock().push(number);
                }
            }
        }
    }

    /// Notes that the file of table `number` was removed.
    pub(crate) fn note_removed(&self, number: FileNumber) {
        self.removed.lock().insert(number);
    }

    /// Tables that no version names and whose files are there, or may be there after a crash.
    pub(crate) fn gone(&self) -> Vec<FileNumber> {
        let mut gone: Vec<_> = self.retired.lock().iter().copied().collect();
        gone.extend(self.removed.lock().iter());
        gone
    }

    /// Says that the directory was synced after `numbers` were given by [`LiveTables::gone`].
    pub(crate) fn forget_removed(&self, numbers: &[FileNumber]) {
        let mut removed = self.removed.lock();
        for number in numbers {
            removed.remove(number);
        }
    }

    /// Forgets a table that nobody holds; `false` where somebody does.
    fn forget_unread(&self, number: FileNumber) -> bool {
        let mut tables = self.by_number.lock();
        let held = tables
            .get(&number)
            .is_some_and(|table| table.strong_count() > 0);
        if !held {
            tables.remove(&number);
        }
        !held
    }

    /// Whether a reader still holds table `number`, or its file waits for its removal.
    pub(crate) fn is_read(&self, number: FileNumber) -> bool {
        let held = self
            .by_number
            .lock()
            .get(&number)
            .is_some_and(|t| t.strong_count() > 0);
        held || self.retired.lock().contains(&number)
    }
}

//! Who holds which table, and when the file of one that no version names may go.
//!
//! Invariant (I1): a file is removed only after its table was retired and its last holder is gone, once,
//! and not while somebody takes hold of it again. The last holder of a retired table queues its file for
//! removal, and [`TableReferences::remove_unread`] removes it, off every reader's path.
//! `tests/interleavings` tries every order.

use crate::interleaved::{Arc, AtomicBool, Mutex, Ordering, Weak};
use esker_base::filename::FileNumber;
use std::collections::{HashMap, HashSet};

/// A table that somebody holds.
#[derive(Debug)]
pub(crate) struct Held<H> {
    pub(crate) handle: H,
    number: FileNumber,
    obsolete: AtomicBool,
    removals: Arc<Mutex<Vec<FileNumber>>>,
}

impl<H> Drop for Held<H> {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.removals.lock().push(self.number);
        }
    }
}

/// All tables that are held or retired, by number.
#[derive(Debug)]
pub(crate) struct TableReferences<H> {
    by_number: Mutex<HashMap<FileNumber, Weak<Held<H>>>>,
    removals: Arc<Mutex<Vec<FileNumber>>>,
    /// Retired, and the file still there.
    retired: Mutex<HashSet<FileNumber>>,
    /// Removed, and not known to stay so: no sync of the directory is known to have come after.
    removed: Mutex<HashSet<FileNumber>>,
    /// Held while files are removed, and while a restore takes hold of a table: a file is either
    /// removed before that, or not at all.
    removing: Mutex<()>,
}

impl<H> TableReferences<H> {
    pub(crate) fn new() -> Self {
        Self {
            by_number: Mutex::new(HashMap::new()),
            removals: Arc::new(Mutex::new(Vec::new())),
            retired: Mutex::new(HashSet::new()),
            removed: Mutex::new(HashSet::new()),
            removing: Mutex::new(()),
        }
    }

    /// Table `number`, shared by everybody who holds it; `handle` makes what the first of them needs.
    pub(crate) fn get(&self, number: FileNumber, handle: impl FnOnce() -> H) -> Arc<Held<H>> {
        let mut tables = self.by_number.lock();
        if let Some(table) = tables.get(&number).and_then(Weak::upgrade) {
            return table;
        }
        let table = Arc::new(Held {
            handle: handle(),
            number,
            obsolete: AtomicBool::new(false),
            removals: Arc::clone(&self.removals),
        });
        tables.insert(number, Arc::downgrade(&table));
        table
    }

    /// As [`TableReferences::get`], for a table that may be retired: its file, if it is still there, is
    /// not removed before the reference that is returned is dropped.
    pub(crate) fn hold(&self, number: FileNumber, handle: impl FnOnce() -> H) -> Arc<Held<H>> {
        let _no_removal_meanwhile = self.removing.lock();
        self.get(number, handle)
    }

    /// Says that the durable manifest names tables again that may have been retired.
    pub(crate) fn revive(&self, held: &[Arc<Held<H>>]) {
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

    /// Has `remove` remove the files whose last reader is gone. One for which it says `false` is tried
    /// again at the next call.
    pub(crate) fn remove_unread(&self, remove: impl Fn(FileNumber) -> bool) {
        let _one_at_a_time = self.removing.lock();
        let numbers = std::mem::take(&mut *self.removals.lock());
        for number in numbers {
            // Somebody took hold of it again: it goes with them, or stays if it was revived.
            if !self.forget_unread(number) {
                continue;
            }
            if remove(number) {
                self.note_removed(number);
                self.retired.lock().remove(&number);
            } else {
                self.removals.lock().push(number);
            }
        }
    }

    /// Notes that the file of table `number` was removed.
    pub(crate) fn note_removed(&self, number: FileNumber) {
        self.removed.lock().insert(number);
    }

    /// Whether a table that no version names has still its file.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.lock().is_empty()
    }

    /// Tables that no version names and whose files are there, or may be there after a crash.
    pub(crate) fn gone(&self) -> Vec<FileNumber> {
        let mut gone: Vec<_> = self.retired.lock().iter().copied().collect();
        gone.extend(self.removed.lock().iter());
        gone
    }

    /// Says that the directory was synced after `numbers` were given by [`TableReferences::gone`].
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

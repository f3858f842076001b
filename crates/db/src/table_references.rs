//! Who holds which table, and when the file of one that no version names may go.
//!
//! Invariant (I1): a file is removed only after its table was retired and its last holder is gone, once,
//! and not while somebody takes hold of it again. The last holder of a retired table queues its file for
//! removal, and [`TableReferences::remove_unread`] removes it, off every reader's path. Where nothing on the disk says yet
//! that it is gone, it goes in its turn ([`UntoldRemovals`]).
//! `tests/interleavings` tries every order.

use crate::interleaved::{Arc, AtomicBool, Mutex, Ordering, Weak};
use crate::untold_removals::UntoldRemovals;
use esker_base::filename::FileNumber;
use std::collections::{BTreeSet, HashMap, HashSet};

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

/// Files that were removed, each with how many had been before.
#[derive(Debug, Default)]
struct Removed {
    files: HashMap<FileNumber, u64>,
    count: u64,
}

/// A moment among the removals of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemovalsUntil(u64);

/// All tables that are held or retired, by number.
#[derive(Debug)]
pub(crate) struct TableReferences<H> {
    by_number: Mutex<HashMap<FileNumber, Weak<Held<H>>>>,
    removals: Arc<Mutex<Vec<FileNumber>>>,
    /// Retired, and the file still there.
    retired: Mutex<HashSet<FileNumber>>,
    /// Removed, and not known to stay so: no sync of the directory is known to have come after.
    removed: Mutex<Removed>,
    /// Those of the retired whose files go in their turn.
    untold: Mutex<UntoldRemovals>,
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
            removed: Mutex::new(Removed::default()),
            untold: Mutex::new(UntoldRemovals::default()),
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
        for table in held {
            table.obsolete.store(false, Ordering::Release);
            self.retired.lock().remove(&table.number);
            self.untold.lock().forget(&[table.number]);
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

    /// As [`TableReferences::retire`], of tables of which nothing on the disk says that they are gone: the files of a
    /// step go when those of the steps before, and of everything retired before, are gone for certain, or
    /// when [`TableReferences::note_told`] says that they are named.
    pub(crate) fn retire_in_steps(&self, steps: Vec<BTreeSet<FileNumber>>) {
        let numbers: Vec<_> = steps.iter().flatten().copied().collect();
        self.untold.lock().add(steps);
        self.retire(numbers);
    }

    /// As [`TableReferences::retire_in_steps`], of tables that have no order: they wait until they are named.
    pub(crate) fn retire_until_named(&self, numbers: Vec<FileNumber>) {
        self.untold.lock().add_unordered(numbers.iter().copied());
        self.retire(numbers);
    }

    /// Says that a table of the database, which is durable, names `numbers` as gone.
    pub(crate) fn note_told(&self, numbers: &[FileNumber]) {
        self.untold.lock().forget(numbers);
    }

    /// Says whether room is needed, so that no file waits for its turn. Whether that is new.
    pub(crate) fn set_wants_room(&self, wants_room: bool) -> bool {
        self.untold.lock().set_wants_room(wants_room)
    }

    /// Has `remove` remove the files whose last reader is gone. One for which it says `false` is tried
    /// again at the next call. `sync` makes earlier removals last, and says whether it could.
    pub(crate) fn remove_unread(
        &self,
        remove: impl Fn(FileNumber) -> bool,
        sync: impl Fn() -> bool,
    ) {
        let _one_at_a_time = self.removing.lock();
        let (others, in_turn) = self.take_unread();
        self.remove_all(others, &remove);
        self.removals.lock().extend(in_turn);
        while let Some(step) = self.take_next_step(&sync) {
            if !self.remove_all(step, &remove) {
                break;
            }
        }
    }

    /// What may go at once of the files that nobody reads, and what may not.
    fn take_unread(&self) -> (Vec<FileNumber>, Vec<FileNumber>) {
        let numbers = std::mem::take(&mut *self.removals.lock());
        let untold = self.untold.lock();
        numbers.into_iter().partition(|it| !untold.holds(*it))
    }

    /// The unread files of the step whose turn it is, if there are any. All removals before it last.
    fn take_next_step(&self, sync: impl Fn() -> bool) -> Option<Vec<FileNumber>> {
        let retired: Vec<_> = self.retired.lock().iter().copied().collect();
        let unread = self.removals.lock().clone();
        let step = self.untold.lock().next_of(&unread, &retired);
        let until = self.removals_so_far();
        let is_synced = self.removed.lock().files.is_empty();
        if step.is_empty() || !(is_synced || sync()) {
            return None;
        }
        self.forget_removed(until);
        self.removals.lock().retain(|it| !step.contains(it));
        Some(step.into_iter().collect())
    }

    /// Removes those that nobody took hold of again: these go with them, or stay if they were revived. Whether
    /// any file went.
    fn remove_all(&self, numbers: Vec<FileNumber>, remove: impl Fn(FileNumber) -> bool) -> bool {
        let mut any = false;
        for number in numbers {
            if !self.forget_unread(number) {
                continue;
            }
            if remove(number) {
                any = true;
                self.note_removed(number);
                self.retired.lock().remove(&number);
                self.untold.lock().forget(&[number]);
            } else {
                self.removals.lock().push(number);
            }
        }
        any
    }

    /// Notes that the file of table `number` was removed.
    pub(crate) fn note_removed(&self, number: FileNumber) {
        let mut removed = self.removed.lock();
        let before = removed.count;
        removed.files.insert(number, before);
        removed.count += 1;
    }

    /// The removals that a sync of the directory covers which begins now.
    pub(crate) fn removals_so_far(&self) -> RemovalsUntil {
        RemovalsUntil(self.removed.lock().count)
    }

    /// Whether a table that no version names has still its file.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.lock().is_empty()
    }

    /// Tables that no version names and whose files are there, or may be there after a crash.
    pub(crate) fn gone(&self) -> Vec<FileNumber> {
        let mut gone: Vec<_> = self.retired.lock().iter().copied().collect();
        gone.extend(self.removed.lock().files.keys());
        gone
    }

    /// Says that the directory was synced after the removals `until` then. Not by number: one that was there when
    /// a job named it as gone may have been removed behind the job's sync.
    pub(crate) fn forget_removed(&self, until: RemovalsUntil) {
        let mut removed = self.removed.lock();
        removed.files.retain(|_, before| *before >= until.0);
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

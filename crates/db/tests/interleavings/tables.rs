//! Who holds which table, and when its file goes.

use crate::explore;
use crate::interleaved::{self, AtomicUsize, Mutex};
use crate::table_references::TableReferences;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;
use std::sync::Arc;

const TABLE: u64 = 7;

/// The file of one table and who holds it.
struct Files {
    references: TableReferences<()>,
    exists: Mutex<bool>,
    removals: AtomicUsize,
}

impl Files {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            references: TableReferences::new(),
            exists: Mutex::new(true),
            removals: AtomicUsize::new(0),
        })
    }

    fn remove_unread(&self) {
        let remove = |_| {
            *self.exists.lock() = false;
            self.removals.fetch_add(1, SeqCst);
            true
        };
        self.references.remove_unread(remove, || true);
    }

    fn exists(&self) -> bool {
        *self.exists.lock()
    }
}

#[test]
fn the_file_of_a_retired_table_goes_once_and_after_its_last_reader() {
    explore(3, || {
        let files = Files::new();
        let held = files.references.get(TABLE, || ());
        let reader = {
            let files = Arc::clone(&files);
            thread::spawn(move || {
                let again = files.references.get(TABLE, || ());
                drop(held);
                assert!(files.exists(), "removed under its reader");
                drop(again);
            })
        };
        let other = {
            let files = Arc::clone(&files);
            thread::spawn(move || files.remove_unread())
        };
        files.references.retire([TABLE]);
        files.remove_unread();
        reader.join().unwrap();
        other.join().unwrap();
        files.remove_unread();
        assert!(!files.exists(), "the file stays for ever");
        assert_eq!(files.removals.load(SeqCst), 1);
        assert_eq!(files.references.gone(), [TABLE]);
        assert!(!files.references.is_read(TABLE));
    });
}

/// A restore takes hold of a table that was retired, looks whether its file is there, and has the manifest
/// name it again.
#[test]
fn a_table_that_was_taken_hold_of_in_time_stays() {
    explore(3, || {
        let files = Files::new();
        files.references.retire([TABLE]);
        let remover = {
            let files = Arc::clone(&files);
            thread::spawn(move || files.remove_unread())
        };
        let held = files.references.hold(TABLE, || ());
        let in_time = files.exists();
        if in_time {
            files.references.revive(&[interleaved::Arc::clone(&held)]);
        }
        remover.join().unwrap();
        assert_eq!(files.exists(), in_time, "removed though it was held");
        drop(held);
        files.remove_unread();
        assert_eq!(files.exists(), in_time, "a revived table goes");
        if in_time {
            assert!(files.references.gone().is_empty());
        }
    });
}

/// As above, where the table was read until now: whoever read it last has its file go when they are done.
#[test]
fn a_table_that_is_revived_under_its_last_reader_stays() {
    explore(3, || {
        let files = Files::new();
        let last_reader = files.references.get(TABLE, || ());
        files.references.retire([TABLE]);
        let held = files.references.hold(TABLE, || ());
        let remover = {
            let files = Arc::clone(&files);
            thread::spawn(move || {
                drop(last_reader);
                files.remove_unread();
            })
        };
        files.references.revive(&[interleaved::Arc::clone(&held)]);
        drop(held);
        files.remove_unread();
        remover.join().unwrap();
        files.remove_unread();
        assert!(files.exists(), "a revived table goes");
    });
}

/// A restore that fails after it took hold of a retired table gives it back.
#[test]
fn a_table_that_was_held_in_vain_goes_all_the_same() {
    explore(3, || {
        let files = Files::new();
        files.references.retire([TABLE]);
        let remover = {
            let files = Arc::clone(&files);
            thread::spawn(move || files.remove_unread())
        };
        let held = files.references.hold(TABLE, || ());
        files.references.retire([TABLE]);
        drop(held);
        files.remove_unread();
        remover.join().unwrap();
        files.remove_unread();
        assert!(!files.exists(), "the file stays for ever");
    });
}

/// The story: a file that a reader kept when a job named it was removed behind the job's sync of the directory, and
/// was taken for one whose removal that had made last. No later table named it, and a loss of power brought it back.
#[test]
fn a_file_that_goes_behind_the_sync_of_a_job_that_names_it_is_named_again() {
    explore(3, || {
        let files = Files::new();
        let kept = files.references.get(TABLE, || ());
        files.references.retire([TABLE]);
        let reader = {
            let files = Arc::clone(&files);
            thread::spawn(move || {
                drop(kept);
                files.remove_unread();
            })
        };
        let began = files.references.removals_so_far();
        let was_there = files.exists();
        assert!(files.references.gone().contains(&TABLE));
        // Here the job syncs the directory.
        files.references.forget_removed(began);
        reader.join().unwrap();
        assert!(!was_there || files.references.gone().contains(&TABLE));
        let began = files.references.removals_so_far();
        files.references.forget_removed(began);
        assert!(files.references.gone().is_empty());
    });
}

/// Files of which nothing says that they are gone: after what a reader keeps, the oldest first, and with a sync between.
#[test]
fn untold_files_go_in_their_turn() {
    const KEPT: u64 = 3;
    const STEPS: [u64; 2] = [9, 5];
    explore(3, || {
        let references = Arc::new(TableReferences::<()>::new());
        let removed = Arc::new(Mutex::new(Vec::new()));
        let synced = Arc::new(AtomicUsize::new(0));
        let remove_unread = {
            let (references, removed) = (Arc::clone(&references), Arc::clone(&removed));
            let synced = Arc::clone(&synced);
            move || {
                let remove = |number| {
                    removed.lock().push((number, synced.load(SeqCst)));
                    true
                };
                let sync = || {
                    synced.fetch_add(1, SeqCst);
                    true
                };
                references.remove_unread(remove, sync);
            }
        };
        let kept = references.get(KEPT, || ());
        references.retire([KEPT]);
        references.retire_in_steps(STEPS.map(|number| [number].into()).to_vec());
        let reader = thread::spawn(move || drop(kept));
        remove_unread();
        let early: Vec<u64> = removed.lock().iter().map(|(number, _)| *number).collect();
        assert!(early.is_empty() || early == [KEPT, 9, 5], "{early:?}");
        reader.join().unwrap();
        remove_unread();
        assert_eq!(*removed.lock(), [(KEPT, 0), (9, 1), (5, 2)]);
    });
}

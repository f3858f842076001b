//! Repair without a manifest while readers keep tables that are gone: these never come back, whatever a crash
//! leaves of the tables that hid them or named them as gone.
//!
//! The story: nothing is left of a merge whose records a range delete hides, so there was no table to say that its
//! inputs are gone. The file with the range delete went, a cursor kept the run below, and repair took that for
//! current: what was deleted came back. The same for tables that were dropped unread, and with a keyspace.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FileSystem, ImagePolicy, MemFileSystem,
    OperationKind,
};
use esker::{Cursor, Db, Options};

const DIRECTORY: &str = "/db";
const KEYSPACES: [&str; 2] = ["default", "other"];

fn options(fs: &(impl FileSystem + Clone)) -> Options {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Options::new()
        .file_system(fs)
        .write_buffer_bytes(256 << 10)
        .target_file_bytes(4 << 10)
        .block_bytes(256)
        .wal_segment_bytes(16 << 10)
}

type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn contents(db: &Db) -> State {
    let mut state = State::new();
    for name in db.keyspace_names().unwrap() {
        let keyspace = db.keyspace(&name).unwrap();
        let entries = keyspace.iter().map(Result::unwrap);
        let map: BTreeMap<_, _> = entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        if !map.is_empty() {
            state.insert(name, map);
        }
    }
    state
}

fn put(db: &Db, name: &str, keys: std::ops::Range<u32>, value: &str) {
    let keyspace = db.keyspace(name).unwrap();
    for key in keys {
        let key = format!("key{key:04}");
        keyspace.put(key, value.repeat(150)).unwrap();
    }
}

fn delete(db: &Db, name: &str, below: &str) {
    let keyspace = db.keyspace(name).unwrap();
    keyspace.delete_range("key"..below).unwrap();
}

/// Flushes, behind writes that have the log go on in other segments: the one with a delete would bring back one that is
/// lost.
fn flush(db: &Db) {
    put(db, "default", 100..300, "x");
    db.flush().unwrap();
}

fn cursor(db: &Db, name: &str) -> Cursor {
    let mut cursor = db.keyspace(name).unwrap().cursor();
    cursor.seek_to_first().unwrap();
    cursor
}

fn tables(fs: &dyn FileSystem) -> usize {
    let entries = fs.read_dir(Path::new(DIRECTORY)).unwrap().into_iter();
    entries.filter(|entry| entry.name.ends_with(".sst")).count()
}

/// A database whose every moment can be looked at after a power loss and without its manifest.
struct Watched {
    disk: CrashFileSystem,
    db: Db,
}

impl Watched {
    fn new() -> Self {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let db = options(&disk).open(DIRECTORY).unwrap();
        Self::of(disk, db)
    }

    /// `db` is new, and on `disk`.
    fn of(disk: CrashFileSystem, db: Db) -> Self {
        // So that tables know the names of both.
        for name in KEYSPACES {
            put(&db, name, 0..60, "a");
        }
        db.flush().unwrap();
        Self { disk, db }
    }

    /// Has `step` made, and sees that repair finds what was there before it or what is there behind it, wherever
    /// it is cut short.
    fn checked(&self, step: impl FnOnce(&Db)) {
        let before = contents(&self.db);
        let begin = self.disk.operations();
        step(&self.db);
        let after = contents(&self.db);
        self.look(begin, |found, is_over| {
            *found == after || (*found == before && !is_over)
        });
    }

    /// Nothing is read any more: every file that nothing names is gone.
    fn end(self) {
        let before = tables(&self.disk);
        self.db.close().unwrap();
        assert_eq!(tables(&self.disk), before, "removed at close");
        let db = options(&self.disk).open(DIRECTORY).unwrap();
        assert_eq!(tables(&self.disk), before, "removed at the next open");
        db.close().unwrap();
    }

    /// Sees that `is_right` of what repair finds, at each operation since `begin`; and whether it is the last.
    fn look(&self, begin: usize, is_right: impl Fn(&State, bool) -> bool) {
        let mut replay = self.disk.replay();
        let end = self.disk.operations();
        for operation in begin..=end {
            let seeds = (0..8).map(|number| operation as u64 * 8 + number);
            let policies = [ImagePolicy::PROCESS_END, ImagePolicy::ONLY_SYNCED]
                .into_iter()
                .chain(seeds.map(ImagePolicy::random_subset));
            for policy in policies {
                let found = repaired(&replay.image(operation, &policy));
                let is_over = operation == end;
                assert!(
                    is_right(&found, is_over),
                    "operation {operation} of {begin} to {end}, {policy:?}: {:?}",
                    summary(&found),
                );
            }
        }
    }
}

/// How many keys of which value.
fn summary(state: &State) -> BTreeMap<(&str, char), usize> {
    let mut counts = BTreeMap::new();
    for (name, map) in state {
        for value in map.values() {
            *counts.entry((&**name, char::from(value[0]))).or_default() += 1;
        }
    }
    counts
}

fn repaired(image: &MemFileSystem) -> State {
    for entry in image.read_dir(Path::new(DIRECTORY)).unwrap() {
        if entry.name == "CURRENT" || entry.name.starts_with("MANIFEST") {
            image
                .remove_file(&Path::new(DIRECTORY).join(entry.name))
                .unwrap();
        }
    }
    options(image).repair(DIRECTORY).unwrap();
    let db = options(image).open(DIRECTORY).unwrap();
    let state = contents(&db);
    db.close().unwrap();
    state
}

/// Nothing is left of the merge, and a cursor keeps the run that the range delete hid.
#[test]
fn a_merge_that_leaves_nothing_hides_what_a_cursor_keeps() {
    let watched = Watched::new();
    watched.db.compact().unwrap();
    let held = cursor(&watched.db, "other");
    delete(&watched.db, "other", "l");
    flush(&watched.db);
    let other = watched.db.keyspace("other").unwrap();
    watched.checked(|_| other.compact().unwrap());
    watched.checked(|_| drop(held));
    watched.checked(|db| db.compact().unwrap());
    watched.end();
}

/// As above, of what an earlier merge had replaced: its own output was the last to name it.
#[test]
fn a_merge_that_leaves_nothing_was_not_the_last_to_name_what_a_cursor_keeps() {
    let watched = Watched::new();
    let held = cursor(&watched.db, "other");
    put(&watched.db, "other", 30..90, "b");
    flush(&watched.db);
    watched.checked(|db| db.compact().unwrap());
    delete(&watched.db, "other", "l");
    flush(&watched.db);
    let other = watched.db.keyspace("other").unwrap();
    watched.checked(|_| other.compact().unwrap());
    // A flush names them all: what no cursor keeps can go.
    let kept = tables(&watched.disk);
    put(&watched.db, "default", 0..60, "c");
    watched.checked(|db| db.flush().unwrap());
    watched.checked(|db| db.compact().unwrap());
    assert!(tables(&watched.disk) < kept, "what is named stays");
    watched.checked(|_| drop(held));
    watched.checked(|db| db.compact().unwrap());
    watched.end();
}

/// A merge tells of what went before it only if repair asks it, and that does not while all its inputs are kept.
#[test]
fn a_merge_whose_inputs_are_kept_does_not_tell_what_is_gone() {
    let watched = Watched::new();
    watched.db.compact().unwrap();
    let mut held = vec![cursor(&watched.db, "other")];
    delete(&watched.db, "other", "l");
    put(&watched.db, "default", 30..90, "b");
    flush(&watched.db);
    held.push(cursor(&watched.db, "default"));
    let other = watched.db.keyspace("other").unwrap();
    watched.checked(|_| other.compact().unwrap());
    watched.checked(|db| db.compact().unwrap());
    watched.checked(|db| db.compact().unwrap());
}

/// Nobody reads: the power goes while the files do.
#[test]
fn a_power_loss_between_removals_brings_nothing_back() {
    let watched = Watched::new();
    watched.db.compact().unwrap();
    put(&watched.db, "other", 50..150, "b");
    delete(&watched.db, "other", "l");
    flush(&watched.db);
    let other = watched.db.keyspace("other").unwrap();
    watched.checked(|_| other.compact().unwrap());
    watched.end();
}

/// Where a keyspace was dropped and the manifest lost before any table was made since, what its files and the log
/// still have is there again: but nothing that was older in it.
#[test]
fn what_is_left_of_a_dropped_keyspace_is_not_older_than_it_was() {
    let watched = Watched::new();
    watched.db.compact().unwrap();
    delete(&watched.db, "other", "key0030");
    put(&watched.db, "other", 40..90, "b");
    flush(&watched.db);
    let before = contents(&watched.db);
    let begin = watched.disk.operations();
    watched.db.drop_keyspace("other").unwrap();
    watched.db.compact().unwrap();
    watched.look(begin, |found, _| {
        let was = &before["other"];
        let others = found.iter().filter(|(name, _)| *name != "default");
        let mut left = others.flat_map(|(_, map)| map);
        found["default"] == before["default"]
            && left.all(|(key, value)| was.get(key) == Some(value))
    });
    watched.end();
}

/// The power goes before the files do, and again while the next life removes them.
fn check_strays(watched: &Watched, merge: impl FnOnce(&Db)) {
    let before = contents(&watched.db);
    let begin = watched.disk.operations();
    merge(&watched.db);
    let mut replay = watched.disk.replay();
    let mut most = 0;
    for operation in begin..=watched.disk.operations() {
        let image = replay.image(operation, &ImagePolicy::PROCESS_END);
        let disk = CrashFileSystem::new(image);
        let db = options(&disk).open(DIRECTORY).unwrap();
        most = most.max(db.recovery_state().strays_removed());
        let next = Watched { disk, db };
        next.look(0, |found, _| *found == before);
    }
    assert!(most > 2, "{most} strays at most");
}

/// The story: an open removed them in the order of the directory, and no sync between: the file with the range delete
/// was gone, the run below was there again, and nothing said that it was not current.
#[test]
fn files_that_a_crash_has_left_do_not_come_back_in_part() {
    let watched = Watched::new();
    watched.db.compact().unwrap();
    put(&watched.db, "other", 50..150, "b");
    delete(&watched.db, "other", "l");
    flush(&watched.db);
    check_strays(&watched, |db| {
        db.keyspace("other").unwrap().compact().unwrap();
    });
}

/// As above, where a reader has kept what the table that names it was made of.
#[test]
fn files_that_a_reader_and_a_crash_have_left_do_not_come_back_in_part() {
    let watched = Watched::new();
    let _held = cursor(&watched.db, "other");
    put(&watched.db, "other", 30..90, "b");
    flush(&watched.db);
    watched.db.compact().unwrap();
    delete(&watched.db, "other", "l");
    flush(&watched.db);
    check_strays(&watched, |db| {
        db.keyspace("other").unwrap().compact().unwrap();
    });
}

/// The story: a load that begins is older than what is written and flushed meanwhile, which it hides. An open took it for
/// the older one, and removed it first.
#[test]
fn what_a_load_hid_does_not_come_back_in_part() {
    let watched = Watched::new();
    watched.db.compact().unwrap();
    let mut keys = 0..40;
    let entries = std::iter::from_fn(|| {
        let key = keys.next()?;
        if key == 0 {
            put(&watched.db, "other", 0..40, "b");
            flush(&watched.db);
        }
        Some((format!("key{key:04}"), "l".repeat(150)))
    });
    watched
        .db
        .keyspace("other")
        .unwrap()
        .ingest(entries)
        .unwrap();
    let was = contents(&watched.db)["other"].clone();
    let begin = watched.disk.operations();
    watched.db.drop_keyspace("other").unwrap();
    let mut replay = watched.disk.replay();
    for operation in begin..=watched.disk.operations() {
        let disk = CrashFileSystem::new(replay.image(operation, &ImagePolicy::PROCESS_END));
        let db = options(&disk).open(DIRECTORY).unwrap();
        let next = Watched { disk, db };
        let is_held = |found: &State| {
            let mut left = found.get("other").into_iter().flatten();
            left.all(|(key, value)| was.get(key) == Some(value))
        };
        next.look(0, |found, _| is_held(found));
        // What has no order goes when a flush has named it.
        put(&next.db, "default", 0..60, "c");
        let begin = next.disk.operations();
        next.db.flush().unwrap();
        next.db.wait_for_background_work().unwrap();
        let named = next.db.validate().unwrap().tables();
        assert_eq!(tables(&next.disk) as u64, named, "operation {operation}");
        let is_dropped = !contents(&next.db).contains_key("other");
        next.look(begin, |found, is_over| {
            is_held(found) && !(is_over && is_dropped && found.contains_key("other"))
        });
    }
}

/// The story: an open synced between its own removals, and not those of a process that had ended in the middle of some.
#[test]
fn removals_of_two_processes_do_not_bring_anything_back() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faults = FaultFileSystem::new(Arc::new(disk.clone()));
    let db = options(&faults).open(DIRECTORY).unwrap();
    let mut watched = Watched::of(disk, db);
    watched.db.compact().unwrap();
    put(&watched.db, "other", 50..150, "b");
    delete(&watched.db, "other", "l");
    flush(&watched.db);
    let before = contents(&watched.db);
    let begin = watched.disk.operations();
    // Behind the first step.
    let mut was_removed = false;
    faults.set_plan(move |_, operation| {
        let is_table = operation.path.extension().is_some_and(|it| it == "sst");
        was_removed |= operation.kind == OperationKind::RemoveFile && is_table;
        let is_sync = operation.kind == OperationKind::SyncDir;
        (was_removed && is_sync).then_some(Fault::Refuse(DeviceError::Io))
    });
    watched.db.keyspace("other").unwrap().compact().unwrap();
    watched.db.wait_for_background_work().unwrap();
    watched.db.close().unwrap();
    watched.db = options(&watched.disk).open(DIRECTORY).unwrap();
    assert!(watched.db.recovery_state().strays_removed() >= 1);
    // Moments more, at which other files are back.
    put(&watched.db, "default", 0..20, "a");
    watched.look(begin, |found, _| *found == before);
}

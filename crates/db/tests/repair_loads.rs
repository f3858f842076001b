//! Repair and bulk loads: a load that no manifest and no table names is there as a whole or not at all, and
//! above all that was written before it, in every way of reading and after every merge.
//!
//! A load lies complete on disk before what was written earlier is flushed for it. A crash between the two
//! and the loss of the manifest made repair count the load as it is, and the next open put the earlier
//! writes into a memtable above it. A merge of the load, with nothing below, then took its sequence number
//! away, and a range delete of that memtable hid it: the keys vanished some time after they had been read.
//! A load that was complete had the same to suffer where merges had left nothing of the flush before it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FaultRule, FileSystem, ImagePolicy,
    MemFileSystem, OperationKind,
};
use esker::{Db, Keyspace, Options};

const DIRECTORY: &str = "/db";

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(fs: &(impl FileSystem + Clone)) -> Options {
    Options::new().file_system(Arc::new(fs.clone()))
}

fn files(fs: &dyn FileSystem) -> Vec<String> {
    let entries = fs.read_dir(Path::new(DIRECTORY)).unwrap();
    let files = entries.into_iter().filter(|entry| !entry.is_dir);
    files.map(|entry| entry.name).collect()
}

fn remove(fs: &dyn FileSystem, is_removed: impl Fn(&str) -> bool) {
    for name in files(fs).into_iter().filter(|name| is_removed(name)) {
        fs.remove_file(&Path::new(DIRECTORY).join(name)).unwrap();
    }
}

fn is_evidence(name: &str) -> bool {
    name == "CURRENT" || name.starts_with("MANIFEST")
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:02}").into_bytes()
}

/// What a keyspace holds, by a scan, which every key's point read agrees with.
fn contents(keyspace: &Keyspace, case: &str) -> Map {
    let pairs = keyspace.iter().map(Result::unwrap);
    let map: Map = pairs.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    for number in 0..20 {
        let found = keyspace.get(key(number)).unwrap().map(|v| v.to_vec());
        assert_eq!(
            found.as_ref(),
            map.get(&key(number)),
            "key {number}: {case}"
        );
    }
    map
}

/// Repairs what lost its manifest, looks, and looks again after each thing that could change what is
/// found: a flush, a merge of all, another life, and the loss of the new manifest.
fn checked(disk: &MemFileSystem, case: &str) -> Map {
    remove(disk, is_evidence);
    options(disk).repair(DIRECTORY).unwrap();
    let twice = disk.fork();
    remove(&twice, is_evidence);
    options(&twice).repair(DIRECTORY).unwrap();
    let db = options(disk).open(DIRECTORY).unwrap();
    let default = db.keyspace("default").unwrap();
    let found = contents(&default, case);
    db.flush().unwrap();
    assert_eq!(contents(&default, case), found, "after a flush: {case}");
    db.compact().unwrap();
    assert_eq!(contents(&default, case), found, "after a merge: {case}");
    drop(default);
    db.close().unwrap();
    for (disk, what) in [(disk, "another life"), (&twice, "a second repair")] {
        let db = options(disk).open(DIRECTORY).unwrap();
        let default = db.keyspace("default").unwrap();
        assert_eq!(contents(&default, case), found, "{what}: {case}");
        assert!(db.validate().unwrap().is_ok(), "{what}: {case}");
    }
    found
}

/// Ten keys in a table; then, in the log alone, what a load of all of them is to hide, in two keyspaces.
fn begun(disk: &(impl FileSystem + Clone)) -> (Db, Map) {
    let db = options(disk).open(DIRECTORY).unwrap();
    for number in 0..10 {
        db.put(key(number), "old").unwrap();
    }
    db.flush().unwrap();
    let other = db.keyspace("other").unwrap();
    other.put("a", "b").unwrap();
    db.put(key(0), "newer").unwrap();
    db.delete(key(1)).unwrap();
    db.delete_range(key(2)..key(7)).unwrap();
    other.delete("a").unwrap();
    db.put(key(15), "beside").unwrap();
    drop(other);
    let before = contents(&db.keyspace("default").unwrap(), "before the load");
    (db, before)
}

fn load() -> Map {
    (0..12)
        .map(|number| (key(number), b"loaded".to_vec()))
        .collect()
}

#[test]
fn a_load_that_a_crash_cut_short_is_whole_above_what_was_before_it() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let (db, before) = begun(&disk);
    let first = disk.operations();
    db.ingest(load()).unwrap();
    let last = disk.operations();
    let mut after = before.clone();
    after.extend(load());
    let mut counted = 0;
    for operation in first..=last {
        for policy in [ImagePolicy::PROCESS_END, ImagePolicy::ONLY_SYNCED] {
            let case = format!("operation {operation} of {first}..={last}, {policy:?}");
            let found = checked(&disk.image(operation, &policy), &case);
            assert!(found == before || found == after, "{found:?}: {case}");
            assert!(operation < last || found == after, "{case}");
            counted += u32::from(found == after);
        }
    }
    assert!(counted > 4, "the load counted {counted} times");
    db.close().unwrap();
}

/// Everything is deleted and loaded anew, and what was deleted goes with the range delete: the log alone
/// still has that, and writes behind the load.
#[test]
fn a_load_outlives_the_range_delete_before_it() {
    for writes_on in [false, true] {
        let disk = MemFileSystem::new();
        let (db, _) = begun(&disk);
        db.delete_range(key(0)..key(99)).unwrap();
        let earlier = files(&disk);
        db.ingest(load()).unwrap();
        let mut expected = load();
        if writes_on {
            db.put(key(3), "last").unwrap();
            db.delete(key(4)).unwrap();
            expected.insert(key(3), b"last".to_vec());
            expected.remove(&key(4));
        }
        let image = disk.fork();
        db.close().unwrap();
        // The load's table is begun first, then those of the flush that it waits for.
        let mut tables = files(&image);
        tables.retain(|name| name.ends_with(".sst") && !earlier.contains(name));
        let loaded = tables.iter().min().unwrap();
        remove(&image, |name| name.ends_with(".sst") && name != loaded);
        let case = format!("writes on: {writes_on}");
        assert_eq!(checked(&image, &case), expected, "{case}");
    }
}

/// What an interrupted repair has written says nothing of the log: the tables beside it are the same as
/// before, and what was in the log alone is there still. However often it begins again, and whether its
/// manifest is lost again, nothing is.
#[test]
fn a_repair_of_a_load_that_is_interrupted_is_made_again() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let (db, before) = begun(&disk);
    let first = disk.operations();
    db.ingest(load()).unwrap();
    let last = disk.operations();
    db.close().unwrap();
    let mut after = before;
    after.extend(load());
    let image_at = |operation| disk.image(operation, &ImagePolicy::ONLY_SYNCED);
    let complete = (first..last).find(|&at| checked(&image_at(at), "search") == after);
    let image = image_at(complete.unwrap());
    remove(&image, is_evidence);
    let repairing = CrashFileSystem::new(image);
    options(&repairing).repair(DIRECTORY).unwrap();
    for operation in 0..=repairing.operations() {
        for policy in [ImagePolicy::PROCESS_END, ImagePolicy::ONLY_SYNCED] {
            let case = format!("operation {operation} of the repair, {policy:?}");
            let found = checked(&repairing.image(operation, &policy), &case);
            assert_eq!(found, after, "{case}");
        }
    }
}

/// The story: the tables of a load that failed for the flush before it were removed, but no directory sync said
/// so. With a loss of power they were there again, a whole load, which repair took for newer than all that the log
/// had.
#[test]
fn a_load_that_failed_hides_nothing_that_was_written_later() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faults = FaultFileSystem::new(Arc::new(disk.clone()));
    let (db, mut expected) = begun(&faults);
    db.wait_for_background_work().unwrap();
    // The load's table is made, that of the flush before it is not.
    let fault = FaultRule::new(Fault::Refuse(DeviceError::Io)).on(&[OperationKind::Create]);
    faults.add_rule(fault.path_contains(".tmp").after(1).times(1));
    db.ingest(load()).unwrap_err();
    db.put(key(3), "later").unwrap();
    expected.insert(key(3), b"later".to_vec());
    let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
    assert_eq!(checked(&image, "a failed load"), expected);
    db.close().unwrap();
}

//! Repair and tables whose bytes are not all there: what was acknowledged as durable comes back, and nothing
//! older in place of what is lost.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::merge_operators::Append;
use esker::vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem, Random};
use esker::{Db, Durability, Options, WriteOptions};
use esker_testkit::seed::{self, noise};

const DIRECTORY: &str = "/db";

fn options(fs: &(impl FileSystem + Clone)) -> Options {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Options::new()
        .file_system(fs)
        .write_buffer_bytes(64 << 10)
        .target_file_bytes(4 << 10)
        .block_bytes(256)
        .value_separation_threshold_bytes(200)
}

fn key(random: &mut Random) -> String {
    format!("key{:03}", random.below(120))
}

fn value(random: &mut Random, number: u64) -> Vec<u8> {
    let repeats = if random.below(8) == 0 { 80 } else { 8 };
    format!("{number} ").repeat(repeats).into_bytes()
}

fn without_evidence(image: &MemFileSystem) {
    for entry in image.read_dir(Path::new(DIRECTORY)).unwrap() {
        if entry.name == "CURRENT" || entry.name.starts_with("MANIFEST") {
            let path = Path::new(DIRECTORY).join(entry.name);
            image.remove_file(&path).unwrap();
        }
    }
}

/// The tables that are there, the newest last.
fn tables(disk: &MemFileSystem) -> Vec<PathBuf> {
    let entries = disk.read_dir(Path::new(DIRECTORY)).unwrap().into_iter();
    let paths = entries.map(|entry| Path::new(DIRECTORY).join(entry.name));
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "sst"))
        .collect();
    paths.sort();
    paths
}

/// The newest manifest, and its last byte that is written: there may be zeros behind it.
fn manifest_end(disk: &MemFileSystem) -> (PathBuf, u64) {
    let entries = disk.read_dir(Path::new(DIRECTORY)).unwrap().into_iter();
    let names = entries.map(|entry| entry.name);
    let name = names.filter(|name| name.starts_with("MANIFEST")).max();
    let path = Path::new(DIRECTORY).join(name.unwrap());
    let file = disk.open_read(&path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    (path, last as u64)
}

fn contents(db: &Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = db.iter().map(Result::unwrap);
    entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

/// A database that is repaired from each of several images of its disk between `begin` and now.
fn repaired(
    disk: &CrashFileSystem,
    begin: usize,
    seed: u64,
    mut check: impl FnMut(&Db, &str),
) -> u64 {
    let mut replay = disk.replay();
    let images = if cfg!(debug_assertions) { 2 } else { 6 };
    let mut points = 0;
    for operation in begin..=disk.operations() {
        for number in 0..images {
            let policy = ImagePolicy::random_subset(seed * 1000 + number);
            let case = format!("seed {seed}, operation {operation}, {policy:?}");
            let image = replay.image(operation, &policy);
            without_evidence(&image);
            let report = options(&image).repair(DIRECTORY);
            let report = report.unwrap_or_else(|error| panic!("{error}: {case}"));
            let case = format!("{case}\n{report}");
            let db = options(&image).open(DIRECTORY);
            let db = db.unwrap_or_else(|error| panic!("{error}: {case}"));
            check(&db, &case);
            db.close().unwrap();
            points += 1;
        }
    }
    points
}

fn rounds() -> u64 {
    if cfg!(debug_assertions) { 6 } else { 40 }
}

/// All that the flush writes is in the log as well, and durable there.
///
/// The story: tables had their names from the first byte. When the power went while a flush wrote one, its end
/// could be on the disk and its middle not. Repair took it for a damaged table of the database: nothing of its
/// keys in the log, and nothing older in other tables, counted beside it. A table gets its name now when its
/// contents are durable.
#[test]
fn what_is_synced_in_the_log_is_there() {
    let mut points = 0;
    for seed in seed::seeds(rounds()) {
        let mut random = Random::of_part(seed, 1);
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let db = options(&disk).open(DIRECTORY).unwrap();
        let mut model = BTreeMap::new();
        for number in 0..150 {
            let (key, value) = (key(&mut random), value(&mut random, number));
            if random.below(6) == 0 {
                db.delete(&key).unwrap();
                model.remove(key.as_bytes());
            } else {
                db.put(&key, &value).unwrap();
                model.insert(key.into_bytes(), value);
            }
            if random.below(60) == 0 {
                db.flush().unwrap();
            }
        }
        let begin = disk.operations();
        db.flush().unwrap();
        points += repaired(&disk, begin, seed, |db, case| {
            assert_eq!(contents(db), model, "{case}");
        });
        db.close().unwrap();
    }
    println!("repair in the middle of a flush: points tried: {points}");
}

/// What the flush writes was never promised to survive, but what it replaces was.
#[test]
fn what_was_durable_before_unsynced_writes_is_there() {
    for seed in seed::seeds(rounds()) {
        let mut random = Random::of_part(seed, 2);
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let db = options(&disk).open(DIRECTORY).unwrap();
        let mut values: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let buffered = WriteOptions::new().durability(Durability::Buffered);
        for number in 0..100 {
            let (key, value) = (key(&mut random), value(&mut random, number));
            db.put(&key, &value).unwrap();
            values.insert(key.into_bytes(), vec![value]);
        }
        db.flush().unwrap();
        for number in 100..200 {
            let (key, value) = (key(&mut random), value(&mut random, number));
            db.put_opt(&key, &value, &buffered).unwrap();
            if let Some(values) = values.get_mut(key.as_bytes()) {
                values.push(value);
            }
        }
        let begin = disk.operations();
        db.flush().unwrap();
        repaired(&disk, begin, seed, |db, case| {
            for (key, values) in &values {
                let found = db.get(key).unwrap().map(|value| value.to_vec());
                let is_one = found.as_ref().is_some_and(|found| values.contains(found));
                assert!(is_one, "{} is lost: {case}", key.escape_ascii());
            }
        });
        db.close().unwrap();
    }
}

/// The story: a table whose footer is damaged cannot say what it held, and nobody asked the part of the manifest
/// that was left: values that it had replaced came back.
#[test]
fn what_a_manifest_says_of_an_unreadable_table_counts() {
    let disk = MemFileSystem::new();
    let db = options(&disk).open(DIRECTORY).unwrap();
    for key in ["a", "b", "c"] {
        db.put(key, "old").unwrap();
    }
    db.compact().unwrap();
    db.put("b", "new").unwrap();
    db.flush().unwrap();
    let table = tables(&disk).pop().unwrap();
    let (manifest, known) = manifest_end(&disk);
    // One flush more, which is too little for a merge.
    db.put("z", "last").unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    let end = disk.metadata(&table).unwrap().bytes;
    let file = disk.open_write(&table).unwrap();
    file.write_at(end - 20, &[0xa5; 20]).unwrap();
    let file = disk.open_write(&manifest).unwrap();
    file.write_at(known + 10, &[0xa5; 4]).unwrap();
    let report = options(&disk).repair(DIRECTORY);
    let report = report.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(!report.manifest_was_whole(), "{report}");
    assert!(
        report.losses().iter().any(|loss| loss.file() == table),
        "{report}"
    );
    let db = options(&disk).open(DIRECTORY).unwrap();
    let left = contents(&db);
    let keys: Vec<_> = left.keys().map(Vec::as_slice).collect();
    assert_eq!(keys, [b"a", b"c", b"z"], "{report}");
}

/// The story: a table of values that could not say what it was counted as one of records, and hid all that was
/// older between the first and the last of its keys.
#[test]
fn a_damaged_table_of_values_takes_no_value_with_it_that_it_does_not_hold() {
    let disk = MemFileSystem::new();
    let db = options(&disk).open(DIRECTORY).unwrap();
    // Small values, older than all that is large.
    for key in ["b", "c", "d"] {
        db.put(key, "small").unwrap();
    }
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    let before = tables(&disk);
    // Two large ones around them, which are kept apart.
    for key in [b'a', b'e'] {
        db.put([key], noise(u64::from(key), 3000)).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    let mut new = tables(&disk);
    new.retain(|path| !before.contains(path));
    let is_large = |path: &PathBuf| disk.metadata(path).unwrap().bytes > 5000;
    let new: Vec<_> = new.into_iter().filter(is_large).collect();
    assert_eq!(new.len(), 1, "one table of values: {new:?}");
    let mut by_case = Vec::new();
    let (manifest, known) = manifest_end(&disk);
    db.put("z", "last").unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    let file = disk.open_write(&manifest).unwrap();
    file.write_at(known + 10, &[0xa5; 4]).unwrap();
    for path in &new {
        let image = disk.fork();
        let end = image.metadata(path).unwrap().bytes;
        let file = image.open_write(path).unwrap();
        file.write_at(end - 20, &[0xa5; 20]).unwrap();
        let report = options(&image).repair(DIRECTORY).unwrap();
        assert!(!report.manifest_was_whole(), "{report}");
        let db = options(&image).open(DIRECTORY).unwrap();
        let found: BTreeMap<&str, String> = ["a", "b", "c", "d", "e", "z"]
            .into_iter()
            .map(|key| {
                let value = match db.get(key) {
                    Ok(Some(value)) => format!("{} bytes", value.len()),
                    Ok(None) => "none".to_owned(),
                    Err(error) => format!("error: {error}"),
                };
                (key, value)
            })
            .collect();
        by_case.push(found);
    }
    let whole =
        |found: &BTreeMap<&str, String>| ["b", "c", "d"].iter().all(|&key| found[key] == "5 bytes");
    assert!(by_case.iter().all(whole), "{by_case:#?}");
}

/// The story: what the tables of a flush that was cut short held was in the log as well, and after a repair operands
/// counted twice.
#[test]
fn operands_of_a_flush_that_was_cut_short_count_once() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let merging = |disk: Arc<dyn FileSystem>| {
        let options = options(&MemFileSystem::new()).file_system(disk);
        options.merge_operator("default", Append::new("+"))
    };
    let db = merging(Arc::new(disk.clone())).open(DIRECTORY).unwrap();
    let merged = ["a", "m", "z"];
    for key in merged {
        db.put(key, "base").unwrap();
    }
    db.flush().unwrap();
    for operand in ["0", "1", "2"] {
        for key in merged {
            db.merge(key, operand).unwrap();
        }
    }
    for number in 0..100 {
        let value = format!("{number} ").repeat(30);
        for key in ["f", "t"] {
            db.put(format!("{key}{number}"), &value).unwrap();
        }
    }
    let expected = contents(&db);
    let begin = disk.operations();
    db.flush().unwrap();
    let mut unfinished = 0;
    for operation in begin..=disk.operations() {
        let image = disk.image(operation, &ImagePolicy::PROCESS_END);
        without_evidence(&image);
        let before = tables(&image).len();
        let image: Arc<dyn FileSystem> = Arc::new(image);
        let report = merging(Arc::clone(&image)).repair(DIRECTORY).unwrap();
        unfinished += usize::from(before > 1 && report.tables_rewritten() == 0);
        let db = merging(image).open(DIRECTORY).unwrap();
        assert_eq!(contents(&db), expected, "operation {operation}: {report}");
        for key in merged {
            let value = db.get(key).unwrap();
            assert_eq!(value.as_deref(), Some(&b"base+0+1+2"[..]), "{report}");
        }
        db.close().unwrap();
    }
    assert!(unfinished > 2, "{unfinished}");
    db.close().unwrap();
}

//! Damage to every kind of file of a closed database and of one whose process ended: opening and
//! reading give the right answer, or an error of kind `Corruption` that names the file. Never a wrong
//! value, a panic, or a synced record that is missing without a word.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use esker::vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem, Random};
use esker::{Db, ErrorKind, Options, RecoveryPolicy};

const DIRECTORY: &str = "/db";

/// Every value that a key ever had, the last one last.
type Map = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

fn open(disk: &MemFileSystem, policy: RecoveryPolicy) -> esker::Result<Db> {
    Options::new()
        .file_system(Arc::new(disk.clone()))
        .write_buffer_bytes(4 << 10)
        .target_file_bytes(4 << 10)
        .block_bytes(256)
        .wal_size_limit_bytes(64 << 10)
        .wal_segment_bytes(16 << 10)
        .manifest_bytes(4 << 10)
        .recovery(policy)
        .open(DIRECTORY)
}

/// A database with tables, and with synced records in its log if its process `ended` before a close.
fn database(ended: bool) -> (MemFileSystem, Map) {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let options = Options::new()
        .file_system(Arc::new(disk.clone()))
        .write_buffer_bytes(64 << 10)
        .block_bytes(256)
        .manifest_bytes(4 << 10)
        .wal_size_limit_bytes(64 << 10)
        .wal_segment_bytes(16 << 10);
    let db = options.open(DIRECTORY).unwrap();
    let mut map = Map::new();
    for round in 0..3u32 {
        for number in 0..60u32 {
            let key = format!("key {:04}", (number * 7 + round) % 150).into_bytes();
            let value = format!("value {round} {number} ").repeat(3).into_bytes();
            db.put(&key, &value).unwrap();
            map.entry(key).or_default().push(value);
        }
        if round < 2 {
            db.flush().unwrap();
        }
    }
    if !ended {
        db.close().unwrap();
    }
    let image = disk.image(disk.operations(), &ImagePolicy::PROCESS_END);
    (image, map)
}

/// What damage does to the bytes of a file; `None` removes it.
fn damage(bytes: &[u8], random: &mut Random) -> (String, Option<Vec<u8>>) {
    let mut changed = bytes.to_vec();
    let at = random
        .index(bytes.len().max(1))
        .min(bytes.len().saturating_sub(1));
    match random.below(6) {
        0 | 1 if !bytes.is_empty() => {
            let bit = random.below(8);
            changed[at] ^= 1 << bit;
            (format!("bit {bit} of byte {at} flipped"), Some(changed))
        }
        2 => {
            let page = at / 512 * 512;
            let end = (page + 512).min(bytes.len());
            changed[page..end].fill(0);
            (format!("bytes {page} to {end} zeroed"), Some(changed))
        }
        3 => {
            changed.truncate(at);
            (format!("cut at {at}"), Some(changed))
        }
        4 => {
            let more = 1 + random.index(600);
            changed.resize(bytes.len() + more, 0xa5);
            (format!("longer by {more} bytes"), Some(changed))
        }
        _ => ("removed".to_owned(), None),
    }
}

fn contents(disk: &MemFileSystem, name: &str) -> Vec<u8> {
    let file = disk.open_read(&Path::new(DIRECTORY).join(name)).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn replace(disk: &MemFileSystem, name: &str, bytes: Option<&[u8]>) {
    let path = Path::new(DIRECTORY).join(name);
    disk.remove_file(&path).unwrap();
    if let Some(bytes) = bytes {
        disk.create(&path).unwrap().write_at(0, bytes).unwrap();
    }
}

/// Opens and reads everything, each key by itself too. An error is returned; a value that the key
/// never had panics. The keys that are missing or have an older value are counted.
fn read(disk: &MemFileSystem, policy: RecoveryPolicy, map: &Map) -> esker::Result<usize> {
    let db = open(disk, policy)?;
    let (mut older, mut there) = (0, 0);
    for (key, values) in map {
        let found = db.get(key)?;
        there += usize::from(found.is_some());
        if found.as_deref() != values.last().map(Vec::as_slice) {
            older += 1;
        }
        let known = |found: &[u8]| values.iter().any(|value| value == found);
        assert!(
            found.is_none_or(|found| known(&found)),
            "{}",
            key.escape_ascii()
        );
    }
    let mut count = 0;
    for entry in db.iter() {
        let (key, value) = entry?;
        assert!(map[&*key].iter().any(|known| *known == *value));
        count += 1;
    }
    assert_eq!(count, there, "a scan and gets disagree");
    Ok(older)
}

/// Damages each file of the database `rounds` times; how many cases there were.
fn damage_each(ended: bool, policy: RecoveryPolicy, rounds: u64) -> u64 {
    let (disk, map) = database(ended);
    let mut cases = 0;
    for entry in disk.read_dir(Path::new(DIRECTORY)).unwrap() {
        let name = entry.name;
        if name == "LOCK" {
            continue;
        }
        let bytes = contents(&disk, &name);
        for seed in 0..rounds {
            let image = disk.fork();
            let (what, damaged) = damage(&bytes, &mut Random::of_part(seed, bytes.len() as u64));
            replace(&image, &name, damaged.as_deref());
            let case = format!("{name}, {what}, {policy:?}, seed {seed}");
            let read = catch_unwind(AssertUnwindSafe(|| read(&image, policy, &map)));
            let read = read.unwrap_or_else(|_| panic!("panicked: {case}"));
            match read {
                Ok(0) => {}
                // The policy gives up what comes after the damage, in the log.
                Ok(_) if policy == RecoveryPolicy::DiscardAfterDamage && name.ends_with(".wal") => {
                }
                Ok(missing) => panic!("{missing} keys silently went back: {case}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}: {case}");
                    assert!(
                        error.to_string().contains(DIRECTORY),
                        "names no file: {error}: {case}"
                    );
                }
            }
            cases += 1;
        }
    }
    println!("damage, process ended {ended}, {policy:?}: points tried: {cases}");
    cases
}

const ROUNDS: u64 = if cfg!(debug_assertions) { 60 } else { 1500 };

#[test]
fn a_closed_database_is_right_or_says_what_is_damaged() {
    assert!(damage_each(false, RecoveryPolicy::Strict, ROUNDS) > 0);
}

#[test]
fn synced_records_of_a_log_are_there_or_reported() {
    assert!(damage_each(true, RecoveryPolicy::Strict, ROUNDS) > 0);
}

#[test]
fn giving_up_after_damage_keeps_what_came_before() {
    assert!(damage_each(true, RecoveryPolicy::DiscardAfterDamage, ROUNDS) > 0);
}

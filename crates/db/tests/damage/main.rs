//! Damage to every kind of file of a closed database and of one whose process ended: opening and
//! reading give the right answer, or an error of kind `Corruption` that names the file. Never a wrong
//! value, a panic, or a synced record that is missing without a word.

#![allow(clippy::unwrap_used)]

mod after_power_loss;
mod allocations;
#[path = "../crash/watchdog.rs"]
mod watchdog;

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
        .wal_segment_bytes(24 << 10)
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
        .wal_segment_bytes(24 << 10)
        .value_separation_threshold_bytes(44);
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
            db.create_backup("").unwrap();
        }
    }
    db.create_recovery_point("").unwrap();
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
    match random.below(11) {
        6 | 7 => {
            // The last of what is written, or from anywhere on.
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let at = if random.below(2) == 0 {
                end / 4096 * 4096
            } else {
                at.min(end)
            };
            changed[at..].fill(0);
            (format!("zeroed from {at} on"), Some(changed))
        }
        8 => {
            let page = at / 4096 * 4096;
            let end = (page + 4096).min(bytes.len());
            changed[page..end].fill(0);
            (format!("page at {page} zeroed"), Some(changed))
        }
        9 => {
            let garbage: Vec<u8> = (0..256).map(|_| random.below(256) as u8).collect();
            let end = (at + garbage.len()).min(bytes.len());
            changed[at..end].copy_from_slice(&garbage[..end - at]);
            (format!("garbage from {at} to {end}"), Some(changed))
        }
        10 => {
            changed.clear();
            ("emptied".to_owned(), Some(changed))
        }
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

/// Every file of the database, those of its backups included, by its path in the directory.
fn files(disk: &MemFileSystem) -> Vec<String> {
    let mut files = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        for entry in disk
            .read_dir(&Path::new(DIRECTORY).join(&directory))
            .unwrap()
        {
            let path = format!("{directory}{}", entry.name);
            if entry.is_dir {
                directories.push(format!("{path}/"));
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
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

/// What was read of a damaged database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answers {
    /// Keys that are missing or have an older value.
    wrong: usize,
    /// Whether the open said that it gave something up.
    is_said: bool,
}

/// Opens and reads everything, each key by itself too, the backups, and everything once more after a
/// close. An error is returned; a value that the key never had panics.
fn read(disk: &MemFileSystem, policy: RecoveryPolicy, map: &Map) -> esker::Result<Answers> {
    let db = open(disk, policy)?;
    let is_said = !db.recovery_state().losses().is_empty();
    let (mut wrong, mut there) = (0, 0);
    for (key, values) in map {
        let found = db.get(key)?;
        there += usize::from(found.is_some());
        if found.as_deref() != values.last().map(Vec::as_slice) {
            wrong += 1;
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
    for entry in db.iter().rev() {
        entry?;
        count -= 1;
    }
    assert_eq!(count, 0, "a scan backwards disagrees");
    // Whatever is damaged among the backups: an answer, and nothing of it reaches the database.
    for backup in db.list_backups().unwrap_or_default() {
        let _ = db.verify_backup(backup.name());
    }
    let _ = db.validate()?;
    db.close()?;
    let db = open(disk, RecoveryPolicy::Strict)?;
    let again = map.iter().filter(|(key, values)| {
        let found = db.get(key).unwrap();
        found.as_deref() != values.last().map(Vec::as_slice)
    });
    assert_eq!(again.count(), wrong, "another answer after a reopen");
    Ok(Answers { wrong, is_said })
}

/// Checks what comes of a database in which the files `damaged` are not what they were.
fn check(disk: &MemFileSystem, policy: RecoveryPolicy, map: &Map, damaged: &[&str], case: &str) {
    watchdog::alive(|| case.to_owned());
    allocations::begin();
    let read = catch_unwind(AssertUnwindSafe(|| read(disk, policy, map)));
    let most = allocations::largest();
    watchdog::done();
    assert!(most <= MOST_AT_ONCE_BYTES, "{most} bytes at once: {case}");
    match read.unwrap_or_else(|_| panic!("panicked: {case}")) {
        Ok(Answers { wrong: 0, .. }) => {}
        // The policies give up what they say.
        Ok(answers) if policy != RecoveryPolicy::Strict && answers.is_said => {}
        Ok(answers) => panic!("{} keys silently went back: {case}", answers.wrong),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}: {case}");
            let file = error.file().map(|file| file.display().to_string());
            let file = file.unwrap_or_else(|| panic!("names no file: {error}: {case}"));
            let is_named = damaged
                .iter()
                .any(|name| file == format!("{DIRECTORY}/{name}"))
                || file == format!("{DIRECTORY}/CURRENT");
            assert!(is_named, "names another file: {error}: {case}");
        }
    }
}

/// Damages each file of the database `rounds` times; how many cases there were.
fn damage_each(ended: bool, policy: RecoveryPolicy, rounds: u64) -> u64 {
    let (disk, map) = database(ended);
    let mut cases = 0;
    for name in files(&disk) {
        let bytes = contents(&disk, &name);
        for seed in 0..rounds {
            let image = disk.fork();
            let (what, damaged) = damage(&bytes, &mut Random::of_part(seed, bytes.len() as u64));
            replace(&image, &name, damaged.as_deref());
            let case = format!("{name}, {what}, {policy:?}, ended {ended}, seed {seed}");
            check(&image, policy, &map, &[&name], &case);
            cases += 1;
        }
    }
    println!("damage, process ended {ended}, {policy:?}: points tried: {cases}");
    cases
}

/// Swaps any two files of the database.
fn swap_each(ended: bool, policy: RecoveryPolicy) -> u64 {
    let (disk, map) = database(ended);
    let files = files(&disk);
    let mut cases = 0;
    for (at, a) in files.iter().enumerate() {
        for b in &files[at + 1..] {
            let (of_a, of_b) = (contents(&disk, a), contents(&disk, b));
            if of_a == of_b {
                continue;
            }
            let image = disk.fork();
            replace(&image, a, Some(&of_b));
            replace(&image, b, Some(&of_a));
            let case = format!("{a} and {b} swapped, {policy:?}, ended {ended}");
            check(&image, policy, &map, &[a, b], &case);
            // And one of them twice.
            let image = disk.fork();
            replace(&image, a, Some(&of_b));
            check(
                &image,
                policy,
                &map,
                &[a],
                &format!("{b} in place of {a}, {policy:?}"),
            );
            cases += 2;
        }
    }
    println!("swaps, process ended {ended}, {policy:?}: points tried: {cases}");
    cases
}

const ROUNDS: u64 = if cfg!(debug_assertions) { 60 } else { 1500 };
/// More than any case asks for in one piece: the memory of a memtable, a batch, a file.
const MOST_AT_ONCE_BYTES: usize = 4 << 20;

#[test]
fn a_closed_database_is_right_or_says_what_is_damaged() {
    assert!(damage_each(false, RecoveryPolicy::Strict, ROUNDS) > 0);
}

#[test]
fn synced_records_of_a_log_are_there_or_reported() {
    assert!(damage_each(true, RecoveryPolicy::Strict, ROUNDS) > 0);
}

#[test]
fn giving_up_after_damage_says_what_it_gives_up() {
    assert!(damage_each(true, RecoveryPolicy::DiscardAfterDamage, ROUNDS) > 0);
}

#[test]
fn salvage_says_what_it_leaves_out() {
    assert!(damage_each(false, RecoveryPolicy::Salvage, ROUNDS) > 0);
    assert!(damage_each(true, RecoveryPolicy::Salvage, ROUNDS) > 0);
}

#[test]
fn swapped_files_are_told_apart() {
    for policy in [
        RecoveryPolicy::Strict,
        RecoveryPolicy::DiscardAfterDamage,
        RecoveryPolicy::Salvage,
    ] {
        assert!(swap_each(false, policy) + swap_each(true, policy) > 0);
    }
}

/// A file that the manifest names is missing: the error says which.
#[test]
fn a_missing_file_is_named() {
    let (disk, _) = database(true);
    for name in files(&disk) {
        let is_needed = name.ends_with(".sst") && !name.contains('/') || name.ends_with(".wal");
        if !is_needed && !name.starts_with("MANIFEST") && name != "CURRENT" {
            continue;
        }
        let image = disk.fork();
        replace(&image, &name, None);
        let path = Path::new(DIRECTORY).join(&name);
        match open(&image, RecoveryPolicy::Strict) {
            // Kept for a recovery point, or waiting for its reuse.
            Ok(db) => assert!(
                name.ends_with(".sst") || name.ends_with(".wal"),
                "{name} {db:?}"
            ),
            Err(error) => assert_eq!(
                (error.kind(), error.file()),
                (ErrorKind::Corruption, Some(&*path)),
                "{name}"
            ),
        }
    }
}

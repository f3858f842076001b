//! A power loss that takes whatever was not synced, notes of syncs among it, and then one damage to the
//! log or a manifest: every acknowledged `Sync` write is there, or the open says what is damaged. Both
//! come together where a device is dying.

use std::path::Path;
use std::sync::Arc;

use esker::vfs::{CrashFileSystem, ImagePolicy, MemFileSystem, Random};
use esker::vfs::{UnsyncedData, UnsyncedNames};
use esker::{Durability, ErrorKind, Options, RecoveryPolicy, WriteBatch, WriteOptions};

use super::{DIRECTORY, contents, files, open, replace};

fn key(number: usize) -> Vec<u8> {
    format!("key {number:05}").into_bytes()
}

/// Writes in order, most of them synced, with flushes, rotations and changes of the manifest between;
/// how many were acknowledged as synced after how many operations.
fn workload(disk: &CrashFileSystem, seed: u64) -> Vec<(usize, usize)> {
    let db = Options::new()
        .file_system(Arc::new(disk.clone()))
        .write_buffer_bytes(64 << 10)
        .manifest_bytes(8 << 10)
        .wal_segment_bytes(if seed.is_multiple_of(2) {
            24 << 10
        } else {
            96 << 10
        })
        .open(DIRECTORY)
        .unwrap();
    let mut random = Random::new(seed);
    let mut synced = Vec::new();
    let mut count = 0;
    for _ in 0..60 {
        let mut batch = WriteBatch::new();
        for _ in 0..1 + random.index(3) {
            let length = if random.below(12) == 0 {
                6000
            } else {
                random.index(300)
            };
            batch.put(key(count), vec![count as u8; length]);
            count += 1;
        }
        let durability = match random.below(8) {
            0 => Durability::Buffered,
            _ => Durability::Sync,
        };
        db.write_opt(batch, &WriteOptions::new().durability(durability))
            .unwrap();
        match random.below(25) {
            0 => db.flush().unwrap(),
            1 => drop(db.keyspace(&format!("k {count}")).unwrap()),
            _ => {}
        }
        if durability == Durability::Sync {
            synced.push((disk.operations(), count));
        }
    }
    synced
}

/// What a dying device makes of a file's bytes, or of the last that was written to it.
fn damage(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let at = match random.below(3) {
        0 => end.saturating_sub(1 + random.index(600)),
        1 => end.saturating_sub(1 + random.index(3 * 4096)),
        _ => random.index(end),
    };
    let unit = [1, 512, 4096][random.index(3)];
    if unit == 1 {
        changed[at] ^= 1 << random.below(8);
    } else {
        let start = at / unit * unit;
        let end = (start + unit).min(bytes.len());
        changed[start..end].fill(0);
    }
    changed
}

/// All of the acknowledged, or what is damaged.
fn check(disk: &MemFileSystem, sure: usize, damaged: Option<&str>, case: &str) {
    let db = match open(disk, RecoveryPolicy::Strict) {
        Ok(db) => db,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}: {case}");
            let named = damaged.map(|name| Path::new(DIRECTORY).join(name));
            assert!(
                named.is_some() && error.file() == named.as_deref(),
                "{error}: {case}"
            );
            assert!(error.offset().is_some(), "{error}: {case}");
            return;
        }
    };
    let there = db.prefix("key").count();
    assert!(there >= sure, "{there} of {sure} are there: {case}");
    assert!(
        there == 0 || db.get(key(there - 1)).unwrap().is_some(),
        "{case}"
    );
    db.put("after", "it").unwrap();
    drop(db);
    let db = open(disk, RecoveryPolicy::Strict).unwrap_or_else(|error| panic!("{error}: {case}"));
    assert_eq!(db.prefix("key").count(), there, "{case}");
    assert!(db.get("after").unwrap().is_some(), "{case}");
}

fn sweep(seed: u64, rounds: u64) -> u64 {
    use UnsyncedData::{Garbage, Kept, Lost, RandomSectors, TornTail};
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let synced = workload(&disk, seed);
    let mut replay = disk.replay();
    let mut points = 0;
    for (index, &(acknowledged, sure)) in synced.iter().enumerate() {
        let next = synced
            .get(index + 1)
            .map_or(disk.operations(), |next| next.0);
        for operations in [acknowledged, (acknowledged + next) / 2] {
            let data = [Lost, RandomSectors, Lost, TornTail, Garbage, Kept][operations % 6];
            let names = UnsyncedNames::Kept;
            let policy = ImagePolicy {
                data,
                names,
                seed: operations as u64,
            };
            let image = replay.image(operations, &policy);
            let case = format!("seed {seed}, {operations} operations, {policy:?}");
            check(&image.fork(), sure, None, &case);
            let logs = files(&image).into_iter();
            for name in logs.filter(|name| name.ends_with(".wal") || name.starts_with("MANIFEST")) {
                let bytes = contents(&image, &name);
                for round in 0..rounds * u64::from(!bytes.is_empty()) {
                    let mut random = Random::of_part(round, operations as u64);
                    let damaged = damage(&bytes, &mut random);
                    if damaged == bytes {
                        continue;
                    }
                    let image = image.fork();
                    replace(&image, &name, Some(&damaged));
                    check(
                        &image,
                        sure,
                        Some(&name),
                        &format!("{case}, {name}, round {round}"),
                    );
                    points += 1;
                }
            }
        }
    }
    points
}

/// Found by a laboratory outside of the repository: the note of the last sync was lost with the power, a
/// bit of its record flipped, and the write was gone without a word.
#[test]
fn damage_after_a_power_loss_takes_no_acknowledged_write_silently() {
    let (seeds, rounds) = if cfg!(debug_assertions) {
        (6, 2)
    } else {
        (40, 20)
    };
    let points: u64 = (0..seeds).map(|seed| sweep(seed, rounds)).sum();
    println!("damage after a power loss: points tried: {points}");
    assert!(points > 0);
}

#[test]
fn what_was_taken_from_a_copy_is_back_in_its_place_before_anything_is_written() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let options = Options::new().file_system(Arc::new(disk.clone()));
    let db = options.open(DIRECTORY).unwrap();
    db.put("first", "kept").unwrap();
    db.put("last", "hit by it").unwrap();
    let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
    let mut names = files(&image).into_iter();
    let name = names.find(|name| name.ends_with(".wal")).unwrap();
    let bytes = contents(&image, &name);
    let place = bytes.windows(9).position(|window| window == b"hit by it");
    let mut damaged = bytes.clone();
    damaged[place.unwrap()] ^= 1;
    replace(&image, &name, Some(&damaged));
    // Who may not write leaves it, and reads it all the same.
    let options = Options::new().file_system(Arc::new(image.clone()));
    let reader = options.open_read_only(DIRECTORY).unwrap();
    assert_eq!(&*reader.get("last").unwrap().unwrap(), b"hit by it");
    drop(reader);
    assert_eq!(contents(&image, &name), damaged);
    let db = open(&image, RecoveryPolicy::Strict).unwrap();
    assert_eq!(contents(&image, &name), bytes);
    assert_eq!(&*db.get("last").unwrap().unwrap(), b"hit by it");
}

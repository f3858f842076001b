//! A backup of a database that is written to is the state at one sequence number: whatever two writers do,
//! what it holds is what their batches up to there make, in whatever keyspaces they are.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{BackupInfo, Db, Durability, Options, WriteBatch, WriteOptions};
use esker_testkit::seed::{Random, seeds};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HOME: &str = "/db";
const BACKUPS: u64 = 5;
/// Rounds before each backup, and after the last.
const PART: u64 = 120;
const ROUNDS: u64 = PART * (BACKUPS + 1);

type Map = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// What a batch of a writer does, as its seed says: the model and the batch follow the same numbers.
#[derive(Clone, Debug)]
enum Change {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    DeleteRange(u8, Vec<u8>, Vec<u8>),
}

fn changes(random: &mut Random, writer: u64, round: u64) -> Vec<Change> {
    let key = |random: &mut Random| format!("{writer}/{:03}", random.below(200)).into_bytes();
    let mut changes = Vec::new();
    for _ in 0..=random.below(4) {
        let keyspace = random.below(2) as u8;
        let one = key(random);
        changes.push(match random.below(12) {
            0..=7 => {
                let value = format!("{round} {}", "x".repeat(random.below(200) as usize));
                Change::Put(keyspace, one, value.into_bytes())
            }
            8..=10 => Change::Delete(keyspace, one),
            _ => {
                let other = key(random);
                let (start, end) = if one <= other {
                    (one, other)
                } else {
                    (other, one)
                };
                Change::DeleteRange(keyspace, start, end)
            }
        });
    }
    changes
}

fn apply(map: &mut Map, changes: &[Change]) {
    for change in changes {
        match change.clone() {
            Change::Put(keyspace, key, value) => _ = map.insert((keyspace, key), value),
            Change::Delete(keyspace, key) => _ = map.remove(&(keyspace, key)),
            Change::DeleteRange(keyspace, start, end) => {
                map.retain(|(of, key), _| *of != keyspace || *key < start || *key >= end);
            }
        }
    }
}

/// How many rounds a writer has behind it; all, once it ends in whatever way, so that nobody waits for it.
struct Progress<'a>(&'a AtomicU64);

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.0.store(ROUNDS, Ordering::Release);
    }
}

/// How many backups have begun; all, once no more will.
struct Begun<'a>(&'a AtomicU64);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.store(BACKUPS, Ordering::Release);
    }
}

/// Two writers, whose last batch is told by a key of each, and backups among them.
fn run(db: &Db, seed: u64) -> Vec<BackupInfo> {
    let names = ["left", "right"];
    let keyspaces = names.map(|name| db.keyspace(name).unwrap());
    let progress = [0, 1].map(|_| AtomicU64::new(0));
    let begun = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let (keyspaces, begun) = (&keyspaces, &begun);
            let progress = Progress(&progress[writer as usize]);
            scope.spawn(move || {
                // All of it, or its drop would come at once.
                let progress = progress;
                let mut random = Random::new(seed * 2 + writer);
                for round in 0..ROUNDS {
                    while begun.load(Ordering::Acquire) < (round / PART).min(BACKUPS) {
                        std::thread::yield_now();
                    }
                    let mut batch = WriteBatch::new();
                    for change in changes(&mut random, writer, round) {
                        match change {
                            Change::Put(at, key, value) => {
                                batch.put_in(&keyspaces[usize::from(at)], key, value);
                            }
                            Change::Delete(at, key) => {
                                batch.delete_in(&keyspaces[usize::from(at)], key);
                            }
                            Change::DeleteRange(at, start, end) => {
                                batch.delete_range_in(&keyspaces[usize::from(at)], start..end);
                            }
                        }
                    }
                    batch.put(format!("rounds of {writer}"), (round + 1).to_string());
                    let options = WriteOptions::new().durability(Durability::Buffered);
                    db.write_opt(batch, &options).unwrap();
                    progress.0.store(round + 1, Ordering::Release);
                }
            });
        }
        let mut random = Random::new(seed);
        let begun = Begun(&begun);
        let backups = (1..=BACKUPS).map(|number| {
            // The writers wait here for each other, so that the backup comes among their next rounds.
            let rounds = || {
                progress
                    .iter()
                    .map(|of| of.load(Ordering::Acquire))
                    .sum::<u64>()
            };
            while rounds() < 2 * PART * number {
                std::thread::yield_now();
            }
            begun.0.store(number, Ordering::Release);
            match random.below(3) {
                0 => db.create_recovery_point("a moment").unwrap(),
                _ => db.create_backup("a moment").unwrap(),
            }
        });
        backups.collect()
    })
}

fn contents(db: &Db) -> Map {
    let mut map = Map::new();
    for (at, name) in [(0, "left"), (1, "right")] {
        for entry in db.keyspace(name).unwrap().iter() {
            let (key, value) = entry.unwrap();
            map.insert((at, key.to_vec()), value.to_vec());
        }
    }
    map
}

/// What the writers had made after so many rounds each.
fn expected(seed: u64, rounds: [u64; 2]) -> Map {
    let mut map = Map::new();
    for writer in 0..2u64 {
        let mut random = Random::new(seed * 2 + writer);
        let mut own = Map::new();
        for round in 0..rounds[writer as usize] {
            apply(&mut own, &changes(&mut random, writer, round));
        }
        // Their keys are apart.
        map.extend(own);
    }
    map
}

fn rounds_of(db: &Db, writer: u64) -> u64 {
    let value = db.get(format!("rounds of {writer}")).unwrap();
    value.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap())
}

#[test]
fn a_backup_among_two_writers_is_one_moment() {
    for seed in seeds(6) {
        let fs = Arc::new(MemFileSystem::new());
        fs.create_dir_all(Path::new(HOME)).unwrap();
        let options = Options::new()
            .file_system(fs.clone())
            .write_buffer_bytes(16 << 10)
            .target_file_bytes(16 << 10)
            .wal_size_limit_bytes(128 << 10);
        let db = options.clone().open(HOME).unwrap();
        let backups = run(&db, seed);
        let last = contents(&db);
        assert!(
            last == expected(seed, [ROUNDS; 2]),
            "seed {seed}: the model is right"
        );
        for (at, backup) in backups.iter().enumerate() {
            let name = backup.name();
            assert!(db.verify_backup(name).unwrap().is_ok(), "seed {seed}");
            let copy = format!("/copy {at}");
            db.restore_into(&esker::RestorePoint::Backup(name.into()), &copy)
                .unwrap();
            let copied = options.clone().open(&copy).unwrap();
            let rounds = [0, 1].map(|writer| rounds_of(&copied, writer));
            let part = PART * (at as u64 + 1)..=PART * (at as u64 + 2);
            assert!(
                rounds.iter().all(|of| part.contains(of)),
                "seed {seed}: {rounds:?}"
            );
            assert!(
                contents(&copied) == expected(seed, rounds),
                "seed {seed}, {name}, {rounds:?}"
            );
            assert_eq!(
                copied.snapshot().sequence(),
                backup.sequence(),
                "seed {seed}, {name}"
            );
            copied.close().unwrap();
        }
        // In place, newest first, and what was there last is not needed any more.
        for backup in backups.iter().rev() {
            db.restore_backup(backup.name()).unwrap();
            let rounds = [0, 1].map(|writer| rounds_of(&db, writer));
            assert!(
                contents(&db) == expected(seed, rounds),
                "seed {seed}, in place"
            );
        }
        db.close().unwrap();
    }
}

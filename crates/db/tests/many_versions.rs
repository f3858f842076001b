//! Scans past hundreds of versions of few keys, some of which begin like others: every entry once, in order, forwards
//! and backwards, of now and of every snapshot. A cursor leaves such a key by search, and a memtable knows
//! which records have the key of the one before: a wrong place would repeat an entry, or leave one out.

use esker::merge_operators::Append;
use esker::vfs::MemFileSystem;
use esker::{Db, Entries, Options, Snapshot, WriteBatch};
use esker_testkit::seed::{Random, seeds};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ascending; all but the last have their first eight bytes in common, padded with zeros or not.
const KEYS: [&str; 6] = [
    "k",
    "k\0",
    "k\0\0\0\0\0\0\0",
    "k\0\0\0\0\0\0\0\0",
    "k\0\0\0\0\0\0\0\0a",
    "l",
];

type Model = BTreeMap<&'static str, String>;

fn text(entries: Entries, is_reversed: bool) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pair = |entry: <Entries as Iterator>::Item| {
        let (key, value) = entry.unwrap();
        (text(&key), text(&value))
    };
    if is_reversed {
        let mut found: Vec<_> = entries.rev().map(pair).collect();
        found.reverse();
        return found;
    }
    entries.map(pair).collect()
}

fn check(model: &Model, range: impl Fn(&'static str, &'static str) -> Entries) {
    for (first, &from) in KEYS.iter().enumerate() {
        for &to in &KEYS[first..] {
            let expected: Vec<_> = model
                .range(from..to)
                .map(|(key, value)| ((*key).to_string(), value.clone()))
                .collect();
            for is_reversed in [false, true] {
                assert_eq!(
                    text(range(from, to), is_reversed),
                    expected,
                    "{from:?}..{to:?}"
                );
            }
        }
    }
}

/// Puts, deletes, range deletes and a few merges of one key, many times.
fn batch(random: &mut Random, model: &mut Model, count: &mut u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let mut key = KEYS[random.below(KEYS.len() as u64) as usize];
    for _ in 0..=random.below(40) {
        *count += 1;
        if random.below(4) == 0 {
            key = KEYS[random.below(KEYS.len() as u64) as usize];
        }
        let value = count.to_string();
        match random.below(100) {
            0 => {
                let (a, b) = (KEYS[0], KEYS[random.below(6) as usize]);
                batch.delete_range(a..b);
                model.retain(|&key, _| key < a || key >= b);
            }
            1..20 => {
                batch.delete(key);
                model.remove(key);
            }
            20..25 => {
                batch.merge(key, &value);
                let whole = model.entry(key).or_default();
                if !whole.is_empty() {
                    whole.push('+');
                }
                whole.push_str(&value);
            }
            _ => {
                batch.put(key, &value);
                model.insert(key, value);
            }
        }
    }
    batch
}

fn check_all(db: &Db, model: &Model, snapshots: &[(Snapshot, Model)]) {
    check(model, |from, to| db.range(from..to));
    for (snapshot, model) in snapshots {
        check(model, |from, to| snapshot.range(from..to));
    }
}

#[test]
fn scans_meet_every_key_once_whatever_its_versions() {
    for seed in seeds(8) {
        let mut random = Random::new(seed);
        let options = Options::new()
            .file_system(Arc::new(MemFileSystem::new()))
            .merge_operator("default", Append::new("+"));
        let db = options.open("/db").unwrap();
        let (mut model, mut snapshots, mut count) = (Model::new(), Vec::new(), 0);
        for round in 0..200 {
            let batch = batch(&mut random, &mut model, &mut count);
            db.write(batch).unwrap();
            match random.below(20) {
                0 | 1 => snapshots.push((db.snapshot(), model.clone())),
                2 if random.below(4) == 0 => db.flush().unwrap(),
                _ => {}
            }
            // At first while all records have room in one leaf of a memtable.
            if round < 4 || round % 20 == 19 {
                check_all(&db, &model, &snapshots);
            }
        }
        db.compact().unwrap();
        check_all(&db, &model, &snapshots);
    }
}

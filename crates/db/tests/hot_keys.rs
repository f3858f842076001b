//! Keys that are merged into again and again between two flushes: readers find the right value, and
//! do not walk everything that was ever merged to find it.

use esker::merge_operators::{Append, Counter};
use esker::vfs::MemFileSystem;
use esker::{Db, MergeOperator, Options, Snapshot, WriteBatch};
use esker_testkit::seed::Random;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Counts, and notes the longest chain that it was asked to fold.
#[derive(Clone, Debug, Default)]
struct Watched {
    longest: Arc<AtomicUsize>,
}

impl MergeOperator for Watched {
    fn name(&self) -> &str {
        "watched"
    }
    fn merge(&self, key: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> esker::Result<Vec<u8>> {
        self.longest.fetch_max(operands.len(), Ordering::Relaxed);
        Counter.merge(key, base, operands)
    }
}

/// A counter that was merged a hundred thousand times in memory cost each of its readers a walk over
/// as many operands.
#[test]
fn readers_of_a_hot_counter_walk_a_bounded_chain() {
    let watched = Watched::default();
    let db = Options::new()
        .merge_operator("default", watched.clone())
        .open_in_memory()
        .unwrap();
    let mut first = None;
    for round in 0..20_000_i64 {
        db.merge("hot", Counter::encode(1)).unwrap();
        if round % 3 == 0 {
            db.merge("warm", Counter::encode(2)).unwrap();
        }
        if round % 100 == 99 {
            let hot = db.get("hot").unwrap().unwrap();
            assert_eq!(Counter::decode(&hot).unwrap(), round + 1);
            first.get_or_insert_with(|| db.snapshot());
        }
    }
    let warm = db.get("warm").unwrap().unwrap();
    assert_eq!(Counter::decode(&warm).unwrap(), 2 * 6667);
    let at_first = first.unwrap().get("hot").unwrap().unwrap();
    assert_eq!(Counter::decode(&at_first).unwrap(), 100);
    let longest = watched.longest.load(Ordering::Relaxed);
    assert!((32..1000).contains(&longest), "{longest}");
}

/// A value that grows is not written again for every few bytes that are appended to it.
#[test]
fn appending_costs_in_proportion_to_what_is_appended() {
    let db = Options::new()
        .merge_operator("default", Append::new(","))
        .open_in_memory()
        .unwrap();
    let operands: u64 = 30_000;
    for _ in 0..operands {
        db.merge("list", "0123456789").unwrap();
    }
    assert_eq!(
        db.get("list").unwrap().unwrap().len() as u64,
        11 * operands - 1
    );
    let written = db.stats().user_bytes_written();
    // Each record beside its ten bytes takes its key and a few bytes more.
    assert!(written < 10 * 11 * operands, "{written}");
}

type Model = BTreeMap<String, String>;

fn append(model: &mut Model, key: &str, operand: &str) {
    let value = model.entry(key.to_string()).or_default();
    if !value.is_empty() {
        value.push('+');
    }
    value.push_str(operand);
}

/// One batch of random operations, most of them merges.
fn random_batch(random: &mut Random, model: &mut Model, count: &mut u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..=random.below(12) {
        let key = ["a", "b", "c"][random.below(3) as usize];
        *count += 1;
        let operand = count.to_string();
        match random.below(400) {
            0 => {
                batch.put(key, &operand);
                model.insert(key.into(), operand);
            }
            1 => {
                batch.delete(key);
                model.remove(key);
            }
            2 => {
                batch.delete_range("a".."c");
                model.retain(|key, _| key == "c");
            }
            3 => {
                batch.put_with_ttl(key, &operand, Duration::from_secs(3600));
                model.insert(key.into(), operand);
            }
            _ => {
                batch.merge(key, &operand);
                append(model, key, &operand);
            }
        }
    }
    batch
}

fn seen(entries: esker::Entries) -> Model {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    entries
        .map(|entry| {
            entry
                .map(|(key, value)| (text(&key), text(&value)))
                .unwrap()
        })
        .collect()
}

fn check(db: &Db, model: &Model, snapshots: &[(Snapshot, Model)]) {
    assert_eq!(seen(db.iter()), *model);
    for key in ["a", "b", "c"] {
        let value = db.get(key).unwrap();
        assert_eq!(
            value.as_deref(),
            model.get(key).map(String::as_bytes),
            "{key}"
        );
    }
    for (snapshot, model) in snapshots {
        assert_eq!(seen(snapshot.iter()), *model);
    }
}

/// Wherever chains are ended, every reader and snapshot sees what all operands make, after a reopen
/// and a compaction too.
#[test]
fn ended_chains_are_seen_by_nobody() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let options = Options::new()
            .file_system(Arc::new(MemFileSystem::new()))
            .merge_operator("default", Append::new("+"));
        let db = options.clone().open("/db").unwrap();
        let (mut model, mut snapshots, mut count) = (Model::new(), Vec::new(), 0);
        for _ in 0..300 {
            let batch = random_batch(&mut random, &mut model, &mut count);
            db.write(batch).unwrap();
            match random.below(40) {
                0 => snapshots.push((db.snapshot(), model.clone())),
                1 => check(&db, &model, &snapshots),
                2 if random.below(4) == 0 => db.flush().unwrap(),
                _ => {}
            }
        }
        check(&db, &model, &snapshots);
        drop(snapshots);
        db.close().unwrap();
        let db = options.open("/db").unwrap();
        check(&db, &model, &[]);
        db.compact().unwrap();
        check(&db, &model, &[]);
        db.close().unwrap();
    }
}

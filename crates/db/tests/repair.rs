//! Repair: whatever of a database's manifest, tables and moments is taken away, what comes back is
//! current, and what does not is said. Never a deleted or an older value.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker::vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem, Random};
use esker::{
    Cursor, Db, ErrorKind, IndexDefinition, Issue, Options, Query, RecoveryPolicy, RepairReport,
};
use esker_testkit::seed;

const DIRECTORY: &str = "/db";
const KEYSPACES: [&str; 2] = ["default", "other"];

/// What is in each keyspace, by name; empty ones are left out.
type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn options(fs: &Arc<dyn FileSystem>) -> Options {
    Options::new()
        .file_system(Arc::clone(fs))
        .write_buffer_bytes(4 << 10)
        .target_file_bytes(4 << 10)
        .block_bytes(256)
        .level0_runs(2)
        .tier_runs(2)
        .wal_size_limit_bytes(64 << 10)
        .wal_segment_bytes(16 << 10)
        .manifest_bytes(4 << 10)
        .value_separation_threshold_bytes(60)
}

fn shared(fs: &(impl FileSystem + Clone)) -> Arc<dyn FileSystem> {
    Arc::new(fs.clone())
}

fn key(random: &mut Random) -> Vec<u8> {
    format!("key{:03}", random.below(120)).into_bytes()
}

/// A life of a database, and what it held after each step, by the operations on its disk by then.
struct Life {
    disk: CrashFileSystem,
    states: Vec<(usize, State)>,
}

impl Life {
    fn live(seed: u64, steps: u64) -> Self {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let mut random = Random::of_part(seed, 77);
        let mut state = State::new();
        let mut db = options(&shared(&disk)).open(DIRECTORY).unwrap();
        // So that tables know the names of both.
        for name in KEYSPACES {
            let value = vec![b'v'; 40];
            db.keyspace(name).unwrap().put("first", &value).unwrap();
            state
                .entry(name.to_owned())
                .or_default()
                .insert(b"first".to_vec(), value);
        }
        db.flush().unwrap();
        let mut states = vec![(disk.operations(), state.clone())];
        let mut held: Vec<Cursor> = Vec::new();
        for number in 0..steps {
            step(&mut db, &disk, &mut random, &mut state, &mut held, number);
            states.push((disk.operations(), state.clone()));
        }
        drop(held);
        Self { disk, states }
    }

    /// What may be found after a crash at `operation`.
    fn at(&self, operation: usize) -> &[(usize, State)] {
        let next = self.states.partition_point(|(at, _)| *at <= operation);
        &self.states[next.saturating_sub(1)..(next + 1).min(self.states.len())]
    }
}

fn step(
    db: &mut Db,
    disk: &CrashFileSystem,
    random: &mut Random,
    state: &mut State,
    held: &mut Vec<Cursor>,
    number: u64,
) {
    let name = KEYSPACES[random.index(2)];
    let keyspace = db.keyspace(name).unwrap();
    let map = state.entry(name.to_owned()).or_default();
    match random.below(40) {
        0..=21 => {
            let (key, value) = (key(random), format!("{number} ").repeat(30).into_bytes());
            keyspace.put(&key, &value).unwrap();
            map.insert(key, value);
        }
        22..=27 => {
            let key = key(random);
            keyspace.delete(&key).unwrap();
            map.remove(&key);
        }
        28..=30 => {
            let (a, b) = (key(random), key(random));
            let (start, end) = (a.clone().min(b.clone()), a.max(b));
            keyspace.delete_range(start.clone()..end.clone()).unwrap();
            map.retain(|key, _| *key < start || *key >= end);
        }
        31 | 32 => db.flush().unwrap(),
        33 => db.compact().unwrap(),
        34 => {
            let mut cursor = keyspace.cursor();
            cursor.seek_to_first().unwrap();
            held.push(cursor);
        }
        35 => held.clear(),
        36 => {
            let prefix = key(random);
            let entries: Vec<(Vec<u8>, Vec<u8>)> = (0..20u8)
                .map(|i| ([&prefix[..], &[b'a' + i]].concat(), vec![i; 50]))
                .collect();
            keyspace.ingest(entries.clone()).unwrap();
            map.extend(entries);
        }
        37 => _ = db.create_recovery_point("a moment").unwrap(),
        38 => _ = db.create_backup("").unwrap(),
        _ => {
            held.clear();
            db.close().unwrap();
            *db = options(&shared(disk)).open(DIRECTORY).unwrap();
        }
    }
}

fn files(fs: &dyn FileSystem) -> Vec<String> {
    let entries = fs.read_dir(Path::new(DIRECTORY)).unwrap_or_default();
    entries
        .into_iter()
        .filter(|e| !e.is_dir)
        .map(|e| e.name)
        .collect()
}

fn remove(fs: &dyn FileSystem, is_removed: impl Fn(&str) -> bool) {
    for name in files(fs).into_iter().filter(|name| is_removed(name)) {
        fs.remove_file(&Path::new(DIRECTORY).join(name)).unwrap();
    }
}

fn is_evidence(name: &str) -> bool {
    name == "CURRENT" || name.starts_with("MANIFEST")
}

fn contents(db: &Db) -> State {
    let mut state = State::new();
    for name in db.keyspace_names().unwrap() {
        let entries = db
            .keyspace(&name)
            .unwrap()
            .iter()
            .map(Result::unwrap)
            .map(|(k, v)| (k.to_vec(), v.to_vec()));
        let map: BTreeMap<_, _> = entries.collect();
        if !map.is_empty() {
            state.insert(name, map);
        }
    }
    state
}

/// Repairs, opens strictly, and gives what is there. What was repaired validates and takes writes.
fn repaired(fs: &MemFileSystem) -> esker::Result<(RepairReport, State)> {
    let report = options(&shared(fs)).repair(DIRECTORY)?;
    let db = options(&shared(fs)).open(DIRECTORY)?;
    let state = contents(&db);
    assert!(db.validate()?.is_ok(), "{:?}", db.validate()?.issues());
    db.put("after", "the repair")?;
    db.delete("after")?;
    db.compact()?;
    assert_eq!(
        contents(&db),
        state,
        "a compaction changed what a repair had made"
    );
    db.close()?;
    Ok((report, state))
}

fn without_empty(state: &State) -> State {
    let full = state.iter().filter(|(_, map)| !map.is_empty());
    full.map(|(name, map)| (name.clone(), map.clone()))
        .collect()
}

fn rounds() -> u64 {
    if cfg!(debug_assertions) { 8 } else { 60 }
}

fn policies(seed: u64) -> [ImagePolicy; 3] {
    [
        ImagePolicy::PROCESS_END,
        ImagePolicy::ONLY_SYNCED,
        ImagePolicy::random_subset(seed),
    ]
}

/// The manifest and `CURRENT` are gone, at any moment of any life: everything is there, and nothing
/// that was overwritten or deleted is.
#[test]
fn without_a_manifest_the_tables_and_the_log_are_the_database() {
    let mut points = 0;
    for seed in seed::seeds(rounds()) {
        let life = Life::live(seed, 150);
        let mut random = Random::of_part(seed, 78);
        let first = life.states[0].0;
        for round in 0..12 {
            let last = life.disk.operations();
            let operation = if round == 0 {
                last
            } else {
                first + random.index(last - first)
            };
            for policy in policies(seed) {
                let case = format!("seed {seed}, operation {operation}, {policy:?}");
                let image = life.disk.image(operation, &policy);
                remove(&image, is_evidence);
                let (report, state) = repaired(&image).unwrap_or_else(|e| panic!("{e}: {case}"));
                assert!(!report.manifest_was_whole(), "{case}");
                let expected: Vec<State> = life
                    .at(operation)
                    .iter()
                    .map(|(_, state)| without_empty(state))
                    .collect();
                if !expected.contains(&state) {
                    differences(&expected[0], &state);
                    panic!("not the database: {case}\n{report}");
                }
                points += 1;
            }
        }
    }
    println!("repair without a manifest: points tried: {points}");
}

fn differences(expected: &State, found: &State) {
    for name in KEYSPACES {
        let (none_a, none_b) = (BTreeMap::new(), BTreeMap::new());
        let a = expected.get(name).unwrap_or(&none_a);
        let b = found.get(name).unwrap_or(&none_b);
        for key in a.keys().chain(b.keys()) {
            if a.get(key) != b.get(key) {
                let show =
                    |v: Option<&Vec<u8>>| v.map(|v| v[..8.min(v.len())].escape_ascii().to_string());
                let (a, b) = (show(a.get(key)), show(b.get(key)));
                eprintln!("{name} {}: wanted {a:?}, found {b:?}", key.escape_ascii());
            }
        }
    }
}

/// With a table damaged, with and without the manifest: every value that is there is the current one,
/// and what is missing is said.
#[test]
fn a_lost_table_brings_back_nothing_older() {
    for seed in seed::seeds(rounds()) {
        let life = Life::live(seed, 120);
        let (last, final_state) = life.states.last().unwrap();
        let whole = life.disk.image(*last, &ImagePolicy::PROCESS_END);
        let tables: Vec<String> = files(&whole)
            .into_iter()
            .filter(|name| name.ends_with(".sst"))
            .collect();
        for name in &tables {
            for keeps_manifest in [true, false] {
                let case = format!("seed {seed}, {name}, manifest {keeps_manifest}");
                let image = whole.fork();
                let path = Path::new(DIRECTORY).join(name);
                let file = image.open_write(&path).unwrap();
                // The first data block.
                file.write_at(3, &[0xa5; 8]).unwrap();
                if !keeps_manifest {
                    remove(&image, is_evidence);
                }
                let (report, state) = repaired(&image).unwrap_or_else(|e| panic!("{e}: {case}"));
                assert_eq!(report.manifest_was_whole(), keeps_manifest, "{case}");
                for (name, map) in &state {
                    for (key, value) in map {
                        let current = final_state.get(name).and_then(|map| map.get(key));
                        let shown = key.escape_ascii();
                        assert_eq!(
                            current,
                            Some(value),
                            "{shown} is not current: {case}\n{report}"
                        );
                    }
                }
                let is_less = state != without_empty(final_state);
                let is_said = report.losses().iter().any(|loss| loss.file() == path);
                assert!(
                    is_said || !is_less,
                    "less than there was, unsaid: {case}\n{report}"
                );
                if is_said {
                    // In its place where a recovery point names it, else aside.
                    let aside = Path::new(DIRECTORY).join("lost").join(name);
                    let is_kept = image.metadata(&aside).is_ok() || image.metadata(&path).is_ok();
                    assert!(
                        is_kept,
                        "not kept: {case}
{report}"
                    );
                }
            }
        }
    }
}

/// The story: a table that holds nothing but a range delete has it at its front, and cannot be opened where that is
/// damaged. What it deleted came back, since nobody knew what the table had been about.
#[test]
fn a_range_delete_that_is_lost_brings_nothing_back() {
    let disk = MemFileSystem::new();
    let db = options(&shared(&disk)).open(DIRECTORY).unwrap();
    for key in ["a", "b", "c"] {
        db.put(key, key).unwrap();
    }
    db.compact().unwrap();
    db.delete_range("b".."c").unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    let tables = files(&disk).into_iter();
    let newest = tables.filter(|name| name.ends_with(".sst")).max().unwrap();
    let path = Path::new(DIRECTORY).join(&newest);
    disk.open_write(&path)
        .unwrap()
        .write_at(3, &[0xa5; 8])
        .unwrap();
    remove(&disk, is_evidence);
    let (report, state) = repaired(&disk).unwrap();
    assert!(report.losses().iter().any(|loss| loss.file() == path));
    let keys: Vec<_> = state["default"].keys().cloned().collect();
    assert_eq!(keys, [b"a", b"c"], "{report}");
}

/// Each damage to the manifest alone loses nothing of a closed database, whatever is left of it.
#[test]
fn a_damaged_manifest_or_current_loses_nothing() {
    let life = Life::live(3, 150);
    let mut disk = life
        .disk
        .image(life.disk.operations(), &ImagePolicy::PROCESS_END);
    let db = options(&shared(&disk)).open(DIRECTORY).unwrap();
    db.close().unwrap();
    let expected = without_empty(&life.states.last().unwrap().1);
    let manifest = files(&disk)
        .into_iter()
        .find(|name| name.starts_with("MANIFEST"))
        .unwrap();
    let manifest = Path::new(DIRECTORY).join(manifest);
    let bytes = disk.metadata(&manifest).unwrap().bytes;
    for at in (0..bytes).step_by(if cfg!(debug_assertions) { 397 } else { 61 }) {
        let image = disk.fork();
        let zeros = vec![0; (bytes - at) as usize];
        image
            .open_write(&manifest)
            .unwrap()
            .write_at(at, &zeros)
            .unwrap();
        let (report, state) = repaired(&image).unwrap_or_else(|e| panic!("{e}: zeros from {at}"));
        assert_eq!(state, expected, "zeros from {at}\n{report}");
    }
    let current = PathBuf::from(DIRECTORY).join("CURRENT");
    disk = disk.fork();
    disk.remove_file(&current).unwrap();
    let error = options(&shared(&disk)).open(DIRECTORY).unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::Corruption, Some(&*current))
    );
    let (report, state) = repaired(&disk).unwrap();
    assert!(
        report.manifest_was_whole() && report.put_aside().len() == 1,
        "{report}"
    );
    assert_eq!(state, expected);
}

/// A repair may be interrupted at every operation, and made again.
#[test]
fn a_repair_that_is_interrupted_is_made_again() {
    let life = Life::live(5, 80);
    let image = life
        .disk
        .image(life.disk.operations(), &ImagePolicy::PROCESS_END);
    remove(&image, is_evidence);
    let expected = without_empty(&life.states.last().unwrap().1);
    let disk = CrashFileSystem::new(image);
    options(&shared(&disk)).repair(DIRECTORY).unwrap();
    for operation in 0..=disk.operations() {
        for policy in policies(operation as u64) {
            let image = disk.image(operation, &policy);
            let case = format!("operation {operation}, {policy:?}");
            let (report, state) = repaired(&image).unwrap_or_else(|e| panic!("{e}: {case}"));
            assert_eq!(state, expected, "{case}\n{report}");
        }
    }
}

#[test]
fn what_is_no_database_is_left_alone() {
    let fs = MemFileSystem::new();
    let repair = |fs: &MemFileSystem| options(&shared(fs)).repair(DIRECTORY);
    assert_eq!(repair(&fs).unwrap_err().kind(), ErrorKind::NotFound);
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    assert_eq!(repair(&fs).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(files(&fs).is_empty());
    let db = options(&shared(&fs)).open(DIRECTORY).unwrap();
    assert_eq!(repair(&fs).unwrap_err().kind(), ErrorKind::Locked);
    db.put("k", "v").unwrap();
    db.close().unwrap();
    let (report, state) = repaired(&fs).unwrap();
    assert!(report.losses().is_empty() && report.manifest_was_whole());
    assert_eq!(state["default"][&b"k"[..]], b"v");
}

/// What salvage gives up is said, kept aside, and does not stand in the way of the next open.
#[test]
fn salvage_opens_what_can_be_opened() {
    for seed in seed::seeds(rounds()) {
        let life = Life::live(seed, 100);
        let (last, final_state) = life.states.last().unwrap();
        let whole = life.disk.image(*last, &ImagePolicy::PROCESS_END);
        for name in files(&whole) {
            let is_table = name.ends_with(".sst");
            if !is_table && !name.ends_with(".wal") {
                continue;
            }
            for is_removed in [true, false] {
                let case = format!("seed {seed}, {name}, removed {is_removed}");
                let image = whole.fork();
                let path = Path::new(DIRECTORY).join(&name);
                if is_removed {
                    image.remove_file(&path).unwrap();
                } else {
                    let file = image.open_write(&path).unwrap();
                    let middle = if is_table { 3 } else { 8192 + 30 };
                    file.write_at(middle, &[0xa5; 8]).unwrap();
                }
                let open = |policy| options(&shared(&image)).recovery(policy).open(DIRECTORY);
                let db = open(RecoveryPolicy::Salvage).unwrap_or_else(|e| panic!("{e}: {case}"));
                let losses = db.recovery_state().losses().to_vec();
                let state = contents(&db);
                let is_less = state != without_empty(final_state);
                assert!(
                    !is_less || losses.iter().any(|loss| loss.file() == path),
                    "{case}"
                );
                if is_table && !is_removed && !losses.is_empty() {
                    let aside = Path::new(DIRECTORY).join("lost").join(&name);
                    assert!(image.metadata(&aside).is_ok(), "not kept: {case}");
                }
                db.put("after", "salvage").unwrap();
                db.close().unwrap();
                let db = open(RecoveryPolicy::Strict).unwrap_or_else(|e| panic!("{e}: {case}"));
                assert!(db.recovery_state().losses().is_empty(), "{case}");
                assert_eq!(db.get("after").unwrap().as_deref(), Some(&b"salvage"[..]));
                // A recovery point that needs what is lost stays, and validation says so.
                let validated = db.validate().unwrap();
                let mut issues = validated.issues().iter();
                let is_of_point = |issue: &Issue| issue.message().starts_with("recovery point");
                assert!(issues.all(is_of_point), "{:?}: {case}", validated.issues());
                db.delete("after").unwrap();
                assert_eq!(contents(&db), state, "{case}");
            }
        }
    }
}

/// Indexes agree with what is left of their records, whatever was lost of either.
#[test]
fn indexes_agree_with_what_is_left() {
    let fs = MemFileSystem::new();
    let declared = || {
        let by_word = IndexDefinition::new("by_word", 1, |_key, value, keys| {
            let text = String::from_utf8_lossy(value);
            text.split_whitespace().for_each(|word| keys.add(word));
            Ok(())
        });
        options(&shared(&fs)).index("default", by_word)
    };
    let db = declared().open(DIRECTORY).unwrap();
    let mut random = Random::of_part(9, 80);
    for number in 0..600 {
        let words = format!("w{} all {}", number % 7, "-".repeat(60));
        db.put(key(&mut random), words).unwrap();
    }
    db.flush().unwrap();
    db.put("last", "w3 all").unwrap();
    db.close().unwrap();
    let whole = fs.fork();
    let tables: Vec<String> = files(&whole)
        .into_iter()
        .filter(|name| name.ends_with(".sst"))
        .collect();
    let mut fewest = u64::MAX;
    for damaged in std::iter::once(None).chain(tables.iter().map(Some)) {
        for (keeps_manifest, salvages) in [(true, false), (false, false), (true, true)] {
            let case = format!("{damaged:?}, manifest {keeps_manifest}, salvage {salvages}");
            let image = whole.fork();
            if let Some(name) = damaged {
                let path = Path::new(DIRECTORY).join(name);
                let file = image.open_write(&path).unwrap();
                file.write_at(3, &[0xa5; 8]).unwrap();
            }
            if !keeps_manifest {
                remove(&image, is_evidence);
            }
            let mut declared = declared().file_system(shared(&image));
            if salvages {
                declared = declared.recovery(RecoveryPolicy::Salvage);
            } else {
                declared.clone().repair(DIRECTORY).unwrap();
            }
            let db = declared
                .open(DIRECTORY)
                .unwrap_or_else(|e| panic!("{e}: {case}"));
            db.build_indexes().unwrap();
            let rows = Query::new(&db)
                .index_equal("by_word", "all")
                .rows()
                .unwrap();
            let found = rows.map(Result::unwrap).count() as u64;
            assert_eq!(found, db.count().unwrap(), "{case}");
            assert!(db.validate().unwrap().is_ok(), "{case}");
            fewest = fewest.min(found);
            if damaged.is_none() {
                assert!(found > 100, "{case}");
            }
            db.close().unwrap();
        }
    }
    assert!(fewest < 100, "no damage cost a record");
}

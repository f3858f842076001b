//! What the feed of changes tells of keyspaces: a follower that does what it is told has the keyspaces that the
//! database has, whatever came, went and came again, across flushes, crashes and segments that are let go of.
//!
//! The story: the feed told nothing of keyspaces, so that a follower kept what was dropped.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{ChangeBatch, Db, Durability, KeyspaceChange, Operation, Options};
use esker_testkit::Random;
use esker_testkit::disk::{CrashFileSystem, ImagePolicy};

const HOME: &str = "/db";

/// Keyspaces by name, with the number that is theirs and what they hold.
type Copy = BTreeMap<String, (u32, BTreeMap<Vec<u8>, Vec<u8>>)>;

fn options(fs: Arc<dyn FileSystem>) -> Options {
    Options::new()
        .file_system(fs)
        .wal_size_limit_bytes(64 << 10)
        .wal_segment_bytes(16 << 10)
        .ttl_cleanup_interval(None)
        .default_durability(Durability::Buffered)
}

/// Does to a copy what a batch says.
fn follow(copy: &mut Copy, batch: &ChangeBatch) {
    for change in batch.keyspaces() {
        match change {
            KeyspaceChange::Created { name, number } => make(copy, name, *number),
            KeyspaceChange::Dropped { name, number } => {
                if copy.get(name).is_some_and(|(known, _)| known == number) {
                    copy.remove(name);
                }
            }
            KeyspaceChange::All { keyspaces } => {
                copy.retain(|name, _| keyspaces.iter().any(|(known, _)| known == name));
                keyspaces
                    .iter()
                    .for_each(|(name, number)| make(copy, name, *number));
            }
            other => panic!("{other:?}"),
        }
    }
    for change in batch.changes() {
        let (_, map) = copy.get_mut(change.keyspace()).expect("it was told of");
        match change.operation() {
            Operation::Put { key, value } => drop(map.insert(key.to_vec(), value.to_vec())),
            other => panic!("{other:?}"),
        }
    }
}

/// A keyspace of this name and number: what another one of the name held is gone.
fn make(copy: &mut Copy, name: &str, number: u32) {
    if copy.get(name).is_none_or(|(known, _)| *known != number) {
        copy.insert(name.to_string(), (number, BTreeMap::new()));
    }
}

fn contents(db: &Db) -> BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>> {
    let names = db.keyspace_names().unwrap().into_iter();
    let map = |name: &String| {
        let entries = db.keyspace(name).unwrap().iter().map(Result::unwrap);
        entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    };
    names.map(|name| (name.clone(), map(&name))).collect()
}

#[track_caller]
fn agree(db: &Db, copy: &Copy, place: &str) {
    let copied = copy
        .iter()
        .map(|(name, (_, map))| (name.clone(), map.clone()));
    assert_eq!(contents(db), copied.collect::<BTreeMap<_, _>>(), "{place}");
}

fn do_something(db: &Db, random: &mut Random) {
    let name = format!("keyspace {}", random.index(4));
    match random.index(20) {
        0 | 1 => drop(db.drop_keyspace(&name)),
        2 => db.flush().unwrap(),
        3 => db.wal().rotate().unwrap(),
        4 => db.wal().clear().unwrap(),
        5 => drop(db.keyspace(&name).unwrap()),
        _ => {
            let key = random.below(50).to_be_bytes();
            let value = random.below(1 << 40).to_be_bytes();
            db.keyspace(&name).unwrap().put(key, value).unwrap();
        }
    }
}

#[test]
fn a_follower_has_the_keyspaces_that_there_are() {
    for seed in 0..12u64 {
        let (disk, mut random) = (
            CrashFileSystem::new(MemFileSystem::new()),
            Random::new(seed),
        );
        let mut disk = disk;
        let mut db = options(Arc::new(disk.clone())).open(HOME).unwrap();
        let mut copy = Copy::new();
        db.create_change_cursor("follower").unwrap();
        for step in 0..400 {
            let place = format!("seed {seed}, step {step}");
            match random.index(40) {
                0..4 => {
                    // What comes last is told with the next write.
                    db.put("last", step.to_string()).unwrap();
                    let cursor = db.change_cursor("follower").unwrap();
                    let mut last = None;
                    for batch in cursor.changes().unwrap() {
                        let batch = batch.unwrap();
                        follow(&mut copy, &batch);
                        last = Some(batch.last_sequence());
                    }
                    agree(&db, &copy, &place);
                    if random.index(2) == 0 {
                        cursor.acknowledge(last.unwrap()).unwrap();
                        if random.index(2) == 0 {
                            db.wal().clear().unwrap();
                        }
                    }
                }
                4 => {
                    db.close().unwrap();
                    db = options(Arc::new(disk.clone())).open(HOME).unwrap();
                }
                5 => {
                    // All is durable, so that the copy is not ahead of what is left.
                    db.wal().sync().unwrap();
                    let image = disk.image(disk.operations(), &ImagePolicy::from_seed(seed));
                    disk = CrashFileSystem::new(image);
                    drop(db);
                    db = options(Arc::new(disk.clone())).open(HOME).unwrap();
                }
                _ => do_something(&db, &mut random),
            }
        }
    }
}

/// A drop that stands last in a segment is said again in the next one: the first goes once everything that
/// was written in it is acknowledged.
#[test]
fn a_drop_outlives_the_segment_that_it_stands_in() {
    for how in ["rotated", "reopened"] {
        let fs = MemFileSystem::new();
        fs.create_dir_all(Path::new(HOME)).unwrap();
        let mut db = options(Arc::new(fs.clone())).open(HOME).unwrap();
        let cursor = db.create_change_cursor("follower").unwrap();
        db.put("flushed later", "v").unwrap();
        db.keyspace("passing").unwrap().put("k", "v").unwrap();
        let mut copy = Copy::new();
        let batches: Vec<_> = cursor.changes().unwrap().map(Result::unwrap).collect();
        batches.iter().for_each(|batch| follow(&mut copy, batch));
        let last = batches.last().unwrap().last_sequence();
        assert!(copy.contains_key("passing"));
        db.drop_keyspace("passing").unwrap();
        match how {
            "rotated" => db.wal().rotate().unwrap(),
            _ => {
                drop(cursor);
                db.close().unwrap();
                db = options(Arc::new(fs.clone())).open(HOME).unwrap();
            }
        }
        let cursor = db.change_cursor("follower").unwrap();
        cursor.acknowledge(last).unwrap();
        // Lets go of every segment but the one that is written to.
        db.flush().unwrap();
        db.put("k", "v").unwrap();
        for batch in cursor.changes().unwrap() {
            follow(&mut copy, &batch.unwrap());
        }
        agree(&db, &copy, how);
        assert!(!copy.contains_key("passing"), "{how}");
    }
}

/// The story: a mark that says again, at the beginning of a segment, what earlier ones said had the feed tell
/// of all that came before all that went. Who goes by names made the second of a name, and dropped it again.
#[test]
fn what_came_and_went_is_told_in_its_order_also_where_one_mark_says_all_of_it() {
    let fs = MemFileSystem::new();
    fs.create_dir_all(Path::new(HOME)).unwrap();
    let db = options(Arc::new(fs)).open(HOME).unwrap();
    let cursor = db.create_change_cursor("follower").unwrap();
    db.put("flushed later", "v").unwrap();
    let passing = db.keyspace("passing").unwrap();
    passing.put("k", "v").unwrap();
    let batches = cursor.changes().unwrap().map(Result::unwrap);
    let last = batches.last().unwrap().last_sequence();
    for _ in 0..2 {
        db.drop_keyspace("passing").unwrap();
        db.keyspace("passing").unwrap();
    }
    db.wal().rotate().unwrap();
    cursor.acknowledge(last).unwrap();
    // Lets go of every segment but the one that is written to.
    db.flush().unwrap();
    db.put("k", "v").unwrap();
    let mut batches = cursor.changes().unwrap().map(Result::unwrap);
    let told = batches.next().unwrap().keyspaces().to_vec();
    let steps = told.iter().map(|change| match change {
        KeyspaceChange::Created { name, number } => (true, name.as_str(), *number),
        KeyspaceChange::Dropped { name, number } => (false, name.as_str(), *number),
        other => panic!("{other:?}"),
    });
    let steps: Vec<_> = steps.filter(|(_, name, _)| *name == "passing").collect();
    let (mut there, mut second) = (true, steps[0].2);
    for &(created, _, number) in &steps {
        assert_eq!(created, !there, "{told:?}");
        assert_eq!(number, second + u32::from(created), "{told:?}");
        (there, second) = (created, number);
    }
    assert_eq!((steps.len(), there), (4, true), "{told:?}");
    db.close().unwrap();
}

/// Ten thousand that come and go between two writes are told as a whole.
#[test]
fn very_many_are_told_in_bounded_room() {
    let fs = Arc::new(MemFileSystem::new());
    let db = options(fs).wal_archive(true).open(HOME).unwrap();
    db.put("first", "1").unwrap();
    for number in 0..3000u32 {
        db.keyspace(&format!("{number}")).unwrap();
        if number % 3 > 0 {
            db.drop_keyspace(&format!("{number}")).unwrap();
        }
    }
    db.put("last", "1").unwrap();
    let mut copy = Copy::new();
    for batch in db.changes(1).unwrap() {
        follow(&mut copy, &batch.unwrap());
    }
    assert_eq!(copy.len(), 1001);
    agree(&db, &copy, "many");
    assert!(db.wal().size_bytes().unwrap() < 4 << 20);
    db.close().unwrap();
}

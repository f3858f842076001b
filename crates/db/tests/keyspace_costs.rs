//! What it costs to make, to flush and to drop keyspaces, in operations of the file system: the same
//! whatever the keyspace and the database hold. The files of a dropped one go in the background.
//!
//! The story: the call removed the files of the tables one by one before it returned. And a flush of many
//! keyspaces made an edit for each, and synced the directory for each.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use esker::vfs::{FileSystem, MemFileSystem, OperationKind, TraceFileSystem};
use esker::{Db, Durability, Options};
use esker_compaction::ManualExecutor;

struct Traced {
    memory: MemFileSystem,
    trace: Arc<TraceFileSystem>,
    executor: Arc<ManualExecutor>,
    options: Options,
}

impl Traced {
    fn new() -> Self {
        let memory = MemFileSystem::new();
        let trace = Arc::new(TraceFileSystem::new(Arc::new(memory.clone())));
        let executor = Arc::new(ManualExecutor::new(1));
        let options = Options::new()
            .file_system(trace.clone())
            .executor(executor.clone())
            .default_durability(Durability::Buffered)
            .target_file_bytes(4 << 10)
            .write_buffer_bytes(16 << 20);
        Self {
            memory,
            trace,
            executor,
            options,
        }
    }

    fn settle(&self) {
        while self.executor.step() {}
    }

    /// What of the file system `deed` asks for itself; what it leaves to the background is done after it.
    fn operations_of(&self, deed: impl FnOnce()) -> Vec<OperationKind> {
        self.settle();
        self.trace.clear();
        deed();
        let entries = self.trace.entries();
        self.settle();
        entries.iter().map(|entry| entry.operation.kind).collect()
    }

    fn tables(&self) -> usize {
        tables(&self.memory)
    }
}

fn tables(fs: &MemFileSystem) -> usize {
    let entries = fs.read_dir(Path::new("/db")).unwrap();
    let names = entries.iter().map(|entry| &entry.name);
    names.filter(|name| name.ends_with(".sst")).count()
}

/// Fills a keyspace with about so many tables.
fn fill(db: &Db, name: &str, tables: u32) {
    let keyspace = db.keyspace(name).unwrap();
    for number in 0..tables * 6 {
        // Nothing that compresses.
        let value: Vec<u8> = (0..1000u32)
            .map(|at| (number.wrapping_mul(2_654_435_761) ^ at.wrapping_mul(40_503)) as u8)
            .collect();
        keyspace.put(number.to_be_bytes(), value).unwrap();
    }
    db.flush().unwrap();
}

#[test]
fn dropping_a_keyspace_costs_the_same_whatever_it_holds() {
    let traced = Traced::new();
    let db = traced.options.clone().open("/db").unwrap();
    let mut costs = Vec::new();
    for (name, tables) in [("one", 1), ("many", 150)] {
        fill(&db, name, tables);
        traced.settle();
        let there = traced.tables();
        assert!(there >= tables as usize, "{name}: {there} tables");
        // So that the log is at the same place.
        db.wal().sync().unwrap();
        costs.push(traced.operations_of(|| db.drop_keyspace(name).unwrap()));
        assert_eq!(
            traced.tables(),
            0,
            "{name}: its files went in the background"
        );
    }
    assert_eq!(costs[0], costs[1]);
    assert!(costs[0].len() <= 8, "{:?}", costs[0]);
    assert!(
        !costs[0].contains(&OperationKind::RemoveFile),
        "{:?}",
        costs[0]
    );
    assert!(db.validate().unwrap().is_ok());
    db.close().unwrap();
}

/// Who closes at once, or is killed, leaves no file either.
#[test]
fn what_was_left_to_the_background_is_done_by_the_close_or_the_next_open() {
    let traced = Traced::new();
    let db = traced.options.clone().open("/db").unwrap();
    fill(&db, "closed", 5);
    fill(&db, "killed", 5);
    traced.settle();
    db.drop_keyspace("closed").unwrap();
    db.close().unwrap();
    let db = traced.options.clone().open("/db").unwrap();
    let kept = traced.tables();
    assert!(kept >= 5, "{kept}");
    db.drop_keyspace("killed").unwrap();
    assert_eq!(traced.tables(), kept, "nobody has run the background");
    // As a kill would leave it.
    let left = traced.memory.fork();
    let reopened = Options::new().file_system(Arc::new(left.clone()));
    let reopened = reopened.open("/db").unwrap();
    assert_eq!(tables(&left), 0);
    reopened.close().unwrap();
    db.close().unwrap();
    assert_eq!(traced.tables(), 0);
}

#[test]
fn making_a_keyspace_costs_the_same_however_many_there_are() {
    let traced = Traced::new();
    let db = traced.options.clone().open("/db").unwrap();
    db.put("k", "v").unwrap();
    let make = |name: &str| traced.operations_of(|| drop(db.keyspace(name).unwrap()));
    let first = make("first");
    fill(&db, "full", 50);
    for number in 0..300 {
        db.keyspace(&format!("{number}")).unwrap();
    }
    let last = make("last");
    assert_eq!(first, last);
    // The edit, its sync, the note that proves that, its sync, and a watermark.
    assert!(first.len() <= 5, "{first:?}");
    db.close().unwrap();
}

#[test]
fn many_small_keyspaces_are_flushed_by_few_edits() {
    let traced = Traced::new();
    let db = traced.options.clone().open("/db").unwrap();
    let keyspaces: Vec<_> = (0..300)
        .map(|number| db.keyspace(&format!("{number}")).unwrap())
        .collect();
    for keyspace in &keyspaces {
        keyspace.put("k", "v").unwrap();
    }
    let operations = traced.operations_of(|| db.flush().unwrap());
    let count = |kind| operations.iter().filter(|it| **it == kind).count();
    assert_eq!(traced.tables(), keyspaces.len());
    // Each table is synced, since nothing else holds what is in it.
    let syncs = count(OperationKind::Sync);
    assert!((300..=312).contains(&syncs), "{syncs} syncs");
    let names = count(OperationKind::SyncDir);
    assert!(names <= 6, "{names} syncs of the directory");
    for keyspace in &keyspaces {
        assert_eq!(keyspace.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    }
    assert!(db.validate().unwrap().is_ok());
    db.close().unwrap();
}

//! What a merge keeps in memory while it runs: never the memtables that were there when it began.
//!
//! The story: a merge held on to the whole view of the moment it began, for the sake of the files in it. The
//! memtables in that view stayed until the merge ended, though they were flushed long before: a fill whose
//! merges take longer than its flushes had four write buffers in memory where three are the bound.
#![allow(clippy::unwrap_used)]

use esker::{CompactionFilter, Db, Durability, FilterDecision, Options, WriteOptions};
use std::sync::{Arc, Mutex, OnceLock};

const BUFFER_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
struct Filling {
    db: OnceLock<Db>,
    memory_bytes: Mutex<Option<esker::Result<u64>>>,
}

/// Writes two write buffers into the database, and flushes each, within the first merge that asks.
#[derive(Debug)]
struct Filter(Arc<Filling>);

impl CompactionFilter for Filter {
    fn filter(&self, _: &[u8], _: &[u8], _: Option<u64>) -> FilterDecision {
        let Some(db) = self.0.db.get() else {
            return FilterDecision::Keep;
        };
        if let Ok(mut told) = self.0.memory_bytes.try_lock()
            && told.is_none()
        {
            let filled = fill(db).and_then(|()| fill(db));
            *told = Some(filled.map(|()| db.stats().memory_bytes()));
        }
        FilterDecision::Keep
    }
}

/// Writes nearly as much as a memtable takes, and flushes it.
fn fill(db: &Db) -> esker::Result<()> {
    let value = vec![7; 1 << 10];
    let buffered = WriteOptions::new().durability(Durability::Buffered);
    for number in 0..BUFFER_BYTES as u32 * 7 / 8 / (1 << 10) {
        db.put_opt(number.to_be_bytes(), &value, &buffered)?;
    }
    db.flush()
}

#[test]
fn a_merge_keeps_no_memtable_that_is_flushed_while_it_runs() {
    let home = tempfile::tempdir().unwrap();
    let filling = Arc::new(Filling::default());
    let db = Options::new()
        .write_buffer_bytes(BUFFER_BYTES)
        .cache_bytes(0)
        .max_subcompactions(1)
        .compaction_filter("default", Filter(filling.clone()))
        .open(home.path())
        .unwrap();
    db.put("a", "1").unwrap();
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    filling.db.set(db.clone()).unwrap();
    db.compact().unwrap();
    let told = filling.memory_bytes.lock().unwrap().take();
    let memory_bytes = told.expect("the merge asked its filter").unwrap();
    // What the pool keeps for the next memtable, and indexes and filters.
    let most = BUFFER_BYTES as u64 + (1 << 20);
    assert!(memory_bytes <= most, "{memory_bytes} bytes of {most}");
    db.close().unwrap();
}

//! How far a long thing is, seen from within it: a compaction filter asks, which the merge calls.
#![allow(clippy::unwrap_used)]

use esker::{CompactionFilter, Db, FilterDecision, Options, WorkProgress};
use std::sync::{Arc, Mutex, OnceLock};

#[derive(Debug, Default)]
struct Asking {
    db: OnceLock<Db>,
    told: Mutex<Vec<Option<WorkProgress>>>,
}

#[derive(Debug)]
struct Filter(Arc<Asking>);

impl CompactionFilter for Filter {
    fn filter(&self, _: &[u8], _: &[u8], _: Option<u64>) -> FilterDecision {
        if let Some(db) = self.0.db.get() {
            self.0.told.lock().unwrap().push(db.work_progress());
        }
        FilterDecision::Keep
    }
}

#[test]
fn a_compaction_tells_how_far_it_is() {
    let home = tempfile::tempdir().unwrap();
    let asking = Arc::new(Asking::default());
    let db = Options::new()
        .target_file_bytes(4 << 10)
        .max_subcompactions(1)
        .compaction_filter("default", Filter(asking.clone()))
        .open(home.path())
        .unwrap();
    for number in 0..2000u32 {
        db.put(number.to_be_bytes(), number.to_string().repeat(20))
            .unwrap();
    }
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    let tables: u64 = db.stats().levels().iter().map(|it| it.bytes).sum();
    asking.db.set(db.clone()).unwrap();
    assert_eq!(db.work_progress(), None);
    db.compact().unwrap();
    assert_eq!(db.work_progress(), None);
    let told = std::mem::take(&mut *asking.told.lock().unwrap());
    let done: Vec<u64> = told
        .iter()
        .map(|told| {
            let told = told.expect("it is under way");
            assert_eq!(told.total_bytes, tables);
            told.done_bytes
        })
        .collect();
    assert!(done.len() >= 2000, "{}", done.len());
    assert!(done.is_sorted());
    assert_eq!(done[0], 0);
    let last = done[done.len() - 1];
    assert!(last > tables / 2 && last <= tables, "{last} of {tables}");
    for made in [
        db.create_backup("").unwrap(),
        db.create_backup("again").unwrap(),
    ] {
        assert_eq!(db.work_progress(), None);
        db.restore_backup(made.name()).unwrap();
        assert_eq!(db.work_progress(), None);
    }
    db.close().unwrap();
}

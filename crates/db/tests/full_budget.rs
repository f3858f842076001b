//! What goes on where users' scans hold all of a memory budget that there is for what is read: only further scans are
//! refused.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use esker::merge_operators::Append;
use esker::{Cursor, Db, ErrorKind, Options};
use esker_testkit::disk::MemFileSystem;
use esker_testkit::seed::noise;

const BUDGET: u64 = 32 << 20;
const SCANS: u8 = 60;

/// Scans that begin together and walk to the largest values then, until there is no memory for one more.
fn take_all(db: &Db) -> Vec<Cursor> {
    let mut scans: Vec<_> = (0..SCANS).map(|_| db.cursor()).collect();
    for scan in &mut scans {
        scan.seek("small").unwrap();
        assert!(scan.valid());
    }
    let walk = |(number, scan): (usize, &mut Cursor)| scan.seek([1, number as u8]);
    let refused = scans
        .iter_mut()
        .enumerate()
        .map(walk)
        .filter_map(Result::err);
    let refused: Vec<_> = refused.map(|error| error.kind()).collect();
    assert!(!refused.is_empty() && refused.len() < SCANS.into());
    assert!(refused.iter().all(|&kind| kind == ErrorKind::LimitExceeded));
    scans
}

/// The story: a transaction failed to commit because others scanned, and so did a lookup of a key with operands.
#[test]
fn commits_and_lookups_are_not_refused() {
    let db = Options::new()
        .file_system(Arc::new(MemFileSystem::new()))
        .memory_budget_bytes(BUDGET)
        .merge_operator("default", Append::new("+"))
        .open("/db")
        .unwrap();
    db.put("small", "1").unwrap();
    db.merge("operands", "2").unwrap();
    for number in 0..SCANS {
        db.put([1, number], noise(u64::from(number), BUDGET as usize / 128))
            .unwrap();
    }
    db.flush().unwrap();
    let mut transaction = db.begin().unwrap();
    assert_eq!(transaction.range("a".."z").count(), 2);
    transaction.put("small", "2").unwrap();
    db.put("zz", noise(1, 100)).unwrap();
    db.put("zzz", noise(2, 100)).unwrap();
    db.flush().unwrap();
    let scans = take_all(&db);
    assert_eq!(db.get("operands").unwrap().as_deref(), Some(&b"2"[..]));
    transaction.commit().unwrap();
    assert!(db.cursor().seek("small").is_err(), "no other scan begins");
    drop(scans);
    db.cursor().seek("small").unwrap();
}

//! A database in memory that may take so much and no more.

use esker::{Db, ErrorKind, Options, WriteBatch};

const LIMIT: u64 = 8 << 20;

fn open() -> Db {
    Options::new()
        .memory_limit_bytes(LIMIT)
        .open_in_memory()
        .unwrap()
}

/// Puts values of a kilobyte until one is refused; says how many there were room for.
fn fill(db: &Db, from: u32) -> u32 {
    for i in from.. {
        if let Err(error) = db.put(i.to_be_bytes(), [i as u8; 1000]) {
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            assert!(error.to_string().contains("memory_limit_bytes"), "{error}");
            return i - from;
        }
        if db.stats().memory_bytes() > LIMIT {
            // A merge that is about to end holds what it has read beside what it wrote.
            db.wait_for_background_work().unwrap();
        }
        assert!(db.stats().memory_bytes() <= LIMIT, "after {i}");
        assert!(i < 1 << 20, "the limit is no limit");
    }
    0
}

#[test]
fn writes_are_refused_at_the_limit_and_reads_go_on() {
    let db = open();
    let fitted = fill(&db, 0);
    assert!(u64::from(fitted) * 1000 > LIMIT / 2, "only {fitted} values");
    assert_eq!(db.count().unwrap(), u64::from(fitted));
    assert_eq!(&*db.get(0u32.to_be_bytes()).unwrap().unwrap(), [0; 1000]);
    // A batch is refused whole, whatever else is in it.
    let mut batch = WriteBatch::new();
    batch.delete(0u32.to_be_bytes());
    batch.put("large", vec![1; 1 << 20]);
    let error = db.write(batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(db.get(0u32.to_be_bytes()).unwrap().is_some());
    let error = db.ingest((0..fitted).map(|i| (i.to_be_bytes(), [0; 1000])));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(db.count().unwrap(), u64::from(fitted));
}

#[test]
fn deletes_work_at_the_limit_and_free_memory() {
    let db = open();
    let fitted = fill(&db, 0);
    for i in 0..fitted / 2 {
        db.delete(i.to_be_bytes()).unwrap();
    }
    let again = fill(&db, fitted);
    assert!(again > fitted / 4, "{again} after deleting {}", fitted / 2);
    db.delete_range::<&[u8]>(..).unwrap();
    assert!(fill(&db, 0) > fitted / 2);
    // Dropping a keyspace does too.
    db.clear().unwrap();
    let other = db.keyspace("other").unwrap();
    let mut count = 0;
    while other.put(format!("{count}"), [0; 1000]).is_ok() {
        count += 1;
    }
    assert!(count > fitted / 2);
    assert_eq!(
        db.put("k", [0; 1 << 16]).unwrap_err().kind(),
        ErrorKind::LimitExceeded
    );
    db.drop_keyspace("other").unwrap();
    db.put("k", [0; 1 << 16]).unwrap();
}

/// Overwriting the same keys for ever stays within the limit: what is overwritten is reclaimed.
#[test]
fn overwriting_never_fills_it() {
    let db = open();
    for i in 0..40_000u32 {
        db.put((i % 1000).to_be_bytes(), [i as u8; 1000]).unwrap();
    }
    assert_eq!(db.count().unwrap(), 1000);
    // A merge that is about to end holds what it has read beside what it wrote.
    db.wait_for_background_work().unwrap();
    assert!(db.stats().memory_bytes() <= LIMIT);
}

#[test]
fn a_limit_is_for_memory_and_leaves_room_for_what_else_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let error = Options::new()
        .memory_limit_bytes(LIMIT)
        .open(directory.path().join("db"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let options = Options::new().memory_limit_bytes(LIMIT);
    for contradiction in [
        options.clone().cache_bytes(LIMIT as usize),
        options.clone().write_buffer_bytes(LIMIT as usize),
        Options::new().memory_limit_bytes(1000),
    ] {
        let error = contradiction.open_in_memory().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("memory_limit_bytes"), "{error}");
    }
    // It may be raised while the database is open.
    let db = open();
    let fitted = fill(&db, 0);
    let more = esker::RuntimeOptions::new().memory_limit_bytes(2 * LIMIT);
    db.set_options(&more).unwrap();
    db.put(fitted.to_be_bytes(), [0; 1000]).unwrap();
}

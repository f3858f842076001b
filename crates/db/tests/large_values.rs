//! Values that fill a block alone, kept with their keys: merges take them over as they are stored, and still come
//! to an end.

use esker::vfs::Random;
use esker::{Db, ErrorKind, Options};

/// A value that does not compress.
fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    Random::new(number).fill(&mut value);
    value
}

fn merged_bytes(db: &Db) -> u64 {
    db.stats().compaction_bytes_written()
}

/// The story: merges let large values keep their sequence number, so that what is stored of them stays as it is. A
/// requested compaction took their tables for such that a merge would improve, and wrote them again each time.
#[test]
fn what_was_compacted_is_not_compacted_again() {
    for bytes in [100, 5000, 40_000] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new().write_buffer_bytes(256 << 10);
        let db = options.open(directory.path()).unwrap();
        for number in 0..120u64 {
            db.put((number % 100).to_be_bytes(), value(number, bytes))
                .unwrap();
        }
        db.compact().unwrap();
        let once = merged_bytes(&db);
        db.compact().unwrap();
        assert_eq!(merged_bytes(&db), once, "values of {bytes} bytes");
        for number in 0..100u64 {
            let newest = if number < 20 { number + 100 } else { number };
            let found = db.get(number.to_be_bytes()).unwrap().unwrap();
            assert!(*found == *value(newest, bytes), "{number}");
        }
    }
}

/// The same story, where every put at the limit of a full database had everything merged again.
#[test]
fn a_full_database_of_large_values_does_not_merge_all_day() {
    const LIMIT: u64 = 16 << 20;
    let db = Options::new()
        .memory_limit_bytes(LIMIT)
        .open_in_memory()
        .unwrap();
    let mut refused = 0;
    for number in 0..2 * LIMIT / 5000 {
        if let Err(error) = db.put(number.to_be_bytes(), value(number, 5000)) {
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            refused += 1;
        }
    }
    assert!(refused > 1000, "{refused}");
    let merged = merged_bytes(&db);
    assert!(merged < 4 * LIMIT, "{merged} bytes were merged");
}

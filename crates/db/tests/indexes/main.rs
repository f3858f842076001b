//! Secondary indexes agree with their records: after every kind of write, reopenings, versions,
//! programs that do not know them, restores, crashes; and unique ones refuse what breaks them.
#![allow(clippy::unwrap_used)]

use esker::{
    Db, Durability, ErrorKind, IndexDefinition, IndexStatus, Keyspace, ManualClock, Options, Query,
    WriteBatch,
};
use std::sync::Arc;
use std::time::Duration;

mod builds;
mod model;

/// Values are "words of text": each word is an index key.
fn by_word(version: u64) -> IndexDefinition {
    IndexDefinition::new("by_word", version, |_key, value, keys| {
        let text = String::from_utf8_lossy(value);
        text.split_whitespace().for_each(|word| keys.add(word));
        Ok(())
    })
}

/// The first word is nobody else's.
fn by_name() -> IndexDefinition {
    let extract = |_key: &[u8], value: &[u8], keys: &mut esker::IndexKeys| {
        let text = String::from_utf8_lossy(value);
        if let Some(word) = text.split_whitespace().next() {
            keys.add(word);
        }
        Ok(())
    };
    IndexDefinition::new("by_name", 1, extract).unique(true)
}

fn declared() -> Options {
    Options::new()
        .default_durability(Durability::Buffered)
        .write_buffer_bytes(8 << 10)
        .target_file_bytes(8 << 10)
        .index("notes", by_word(1))
}

fn found(notes: &Keyspace, word: &str) -> Vec<String> {
    let rows = Query::new(notes)
        .index_equal("by_word", word)
        .rows()
        .unwrap();
    rows.map(|row| String::from_utf8(row.unwrap().key().to_vec()).unwrap())
        .collect()
}

fn agrees(db: &Db) {
    let report = db.validate().unwrap();
    assert!(report.is_ok(), "{:?}", report.issues());
}

#[test]
fn every_kind_of_write_is_found_again() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let db = declared().clock(clock.clone()).open_in_memory().unwrap();
    let notes = db.keyspace("notes").unwrap();
    assert!(matches!(notes.indexes()[0].status(), IndexStatus::Ready));
    notes.put("a", "red green").unwrap();
    notes.put("b", "red").unwrap();
    assert_eq!(found(&notes, "red"), ["a", "b"]);
    notes.put("a", "green blue").unwrap();
    assert_eq!(found(&notes, "red"), ["b"]);
    assert_eq!(found(&notes, "green"), ["a"]);

    // Within one batch later operations see earlier ones.
    let mut batch = WriteBatch::new();
    batch.put_in(&notes, "c", "red");
    batch.put_in(&notes, "c", "blue");
    batch.delete_in(&notes, "b");
    batch.put_in(&notes, "b", "white");
    batch.put_with_ttl_in(&notes, "d", "blue", Duration::from_secs(10));
    db.write(batch).unwrap();
    assert!(found(&notes, "red").is_empty());
    assert_eq!(found(&notes, "blue"), ["a", "c", "d"]);

    clock.advance(Duration::from_secs(10));
    assert_eq!(found(&notes, "blue"), ["a", "c"]);
    agrees(&db);
    assert_eq!(db.cleanup_expired().unwrap(), 1);
    assert!(notes.set_ttl("c", Duration::from_secs(5)).unwrap());
    agrees(&db);
    assert!(notes.persist("c").unwrap());
    clock.advance(Duration::from_secs(5));
    assert_eq!(found(&notes, "blue"), ["a", "c"]);

    notes.delete_range("b".."d").unwrap();
    assert_eq!(found(&notes, "blue"), ["a"]);
    assert!(found(&notes, "white").is_empty());
    agrees(&db);
    assert_eq!(notes.ingest([("a", "red"), ("x", "blue")]).unwrap(), 2);
    assert_eq!(found(&notes, "blue"), ["x"]);
    notes.clear().unwrap();
    assert!(found(&notes, "blue").is_empty());
    agrees(&db);
    // What is hidden stays hidden.
    assert_eq!(db.keyspace_names().unwrap(), ["default", "notes"]);
    let reserved = db.keyspace("\0esker.indexes").unwrap_err();
    assert_eq!(reserved.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn unique_indexes_refuse_a_whole_batch() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = Options::new()
        .clock(clock.clone())
        .index("users", by_name());
    let db = options.open_in_memory().unwrap();
    let users = db.keyspace("users").unwrap();
    users.put("1", "ada first").unwrap();
    users.put("1", "ada again").unwrap();
    let mut batch = WriteBatch::new();
    batch.put("elsewhere", "x");
    batch.put_in(&users, "2", "ada");
    let error = db.write(batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    assert!(error.to_string().contains("ada"), "{error}");
    assert!(db.get("elsewhere").unwrap().is_none());

    // What counts is the state after the batch: names may be handed over.
    let mut batch = WriteBatch::new();
    batch.put_in(&users, "2", "ada");
    batch.put_in(&users, "1", "grace");
    db.write(batch).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_in(&users, "3", "emmy");
    batch.put_in(&users, "4", "emmy");
    assert_eq!(
        db.write(batch).unwrap_err().kind(),
        ErrorKind::UniqueViolation
    );
    assert_eq!(users.count().unwrap(), 2);

    // An expired record does not keep its name.
    users
        .put_with_ttl("5", "alan", Duration::from_secs(1))
        .unwrap();
    assert!(users.put("6", "alan").is_err());
    clock.advance(Duration::from_secs(1));
    users.put("6", "alan").unwrap();
    users.clear().unwrap();
    users.put("7", "alan").unwrap();
    agrees(&db);
}

#[test]
fn threads_that_write_one_name_get_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().index("users", by_name());
    let db = options.open(dir.path()).unwrap();
    let users = db.keyspace("users").unwrap();
    // Synced, so that commits queue and form groups.
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                let users = users.clone();
                scope.spawn(move || {
                    let attempt = |name: &u32| {
                        let key = format!("{thread}/{name}");
                        users.put(key, format!("name{name}")).is_ok()
                    };
                    (0..40u32).filter(attempt).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!((won, users.count().unwrap()), (40, 40));
    agrees(&db);
}

#[test]
fn an_extractor_that_fails_or_panics_refuses_the_write() {
    let picky = IndexDefinition::new("picky", 1, |_key, value, keys| {
        assert!(value != b"panic", "on purpose");
        if value == b"bad" {
            return Err(esker::Error::invalid_argument("no such note"));
        }
        keys.add(value);
        Ok(())
    });
    let db = Options::new()
        .index("notes", picky)
        .open_in_memory()
        .unwrap();
    let notes = db.keyspace("notes").unwrap();
    notes.put("a", "good").unwrap();
    for (value, sentence) in [("panic", "panicked"), ("bad", "no such note")] {
        let error = notes.put("a", value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(sentence), "{error}");
    }
    assert_eq!(notes.get("a").unwrap().as_deref(), Some(&b"good"[..]));
    notes.put("b", "good").unwrap();
    agrees(&db);
}

#[test]
fn transactions_find_their_own_writes_and_are_protected_from_phantoms() {
    let db = declared().open_in_memory().unwrap();
    let notes = db.keyspace("notes").unwrap();
    notes.put("a", "red").unwrap();
    notes.put("b", "red").unwrap();
    let within = |tx: &mut esker::Transaction| -> Vec<Vec<u8>> {
        let query = Query::within(&notes, tx).index_equal("by_word", "red");
        query
            .rows()
            .unwrap()
            .map(|row| row.unwrap().key().to_vec())
            .collect()
    };
    let mut tx = db.begin().unwrap();
    tx.put_in(&notes, "c", "red").unwrap();
    tx.put_in(&notes, "a", "blue").unwrap();
    assert_eq!(within(&mut tx), [b"b", b"c"]);
    let savepoint = tx.savepoint();
    tx.delete_in(&notes, "b").unwrap();
    assert_eq!(within(&mut tx), [b"c"]);
    tx.rollback_to(savepoint).unwrap();
    assert_eq!(within(&mut tx), [b"b", b"c"]);
    assert_eq!(found(&notes, "red"), ["a", "b"]);
    tx.commit().unwrap();
    assert_eq!(found(&notes, "red"), ["b", "c"]);
    agrees(&db);

    // A record that enters what was read by the index is a phantom; one beside it is not.
    for (value, conflicts) in [("green", false), ("red", true)] {
        let mut tx = db.begin().unwrap();
        let seen = within(&mut tx).len();
        tx.put("seen", seen.to_string()).unwrap();
        notes.put("z", value).unwrap();
        let outcome = tx.commit();
        assert_eq!(outcome.is_err(), conflicts, "{value}");
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
    }
    agrees(&db);
}

#[test]
fn what_would_take_too_much_memory_is_refused_whole() {
    // Index keys of 100 kB, from values that say no more than their number.
    let heavy = IndexDefinition::new("heavy", 1, |_key, value, keys| {
        keys.add(&(value, "x".repeat(100_000)));
        Ok(())
    });
    let db = Options::new()
        .index("notes", heavy)
        .open_in_memory()
        .unwrap();
    let notes = db.keyspace("notes").unwrap();
    for i in 0..700u16 {
        notes.put(i.to_be_bytes(), i.to_be_bytes()).unwrap();
    }
    let from_first = notes.delete_range(1u16.to_be_bytes()..).unwrap_err();
    assert_eq!(from_first.kind(), ErrorKind::LimitExceeded);
    assert_eq!(notes.count().unwrap(), 700);
    notes
        .delete_range(1u16.to_be_bytes()..400u16.to_be_bytes())
        .unwrap();
    assert_eq!(notes.count().unwrap(), 301);
    let by_index = Query::new(&notes).index_prefix("heavy", &());
    assert_eq!(by_index.count().unwrap(), 301);
    notes.clear().unwrap();
    assert_eq!(
        Query::new(&notes)
            .index_prefix("heavy", &())
            .count()
            .unwrap(),
        0
    );

    let large = "v".repeat(1 << 20);
    let entries = (0..80u16).map(|i| (i.to_be_bytes(), &large));
    assert_eq!(
        notes.ingest(entries).unwrap_err().kind(),
        ErrorKind::LimitExceeded
    );
    assert_eq!(notes.count().unwrap(), 0);
}

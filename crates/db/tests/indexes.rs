//! Secondary indexes agree with their records: after every kind of write, reopenings, versions,
//! programs that do not know them, restores, crashes; and unique ones refuse what breaks them.
#![allow(clippy::unwrap_used)]

use esker::{
    Db, Durability, ErrorKind, IndexDefinition, IndexStatus, Keyspace, ManualClock, Options, Query,
    WriteBatch,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
fn an_index_is_built_over_what_is_there_and_again_for_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let plain = || Options::new().default_durability(Durability::Buffered);
    let db = plain().open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    for i in 0..1000 {
        notes
            .put(format!("{i:04}"), format!("n{} all", i % 10))
            .unwrap();
    }
    db.close().unwrap();

    let db = plain().index("notes", by_word(1)).open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    // Written while it is built, or after: found either way.
    notes.put("0005", "changed").unwrap();
    notes.delete("0015").unwrap();
    let mut last = 0;
    db.build_indexes_with(&mut |progress| {
        assert!(progress.done_records >= last && progress.index == "by_word");
        last = progress.done_records;
        true
    })
    .unwrap();
    assert_eq!(found(&notes, "n5").len(), 98);
    assert_eq!(found(&notes, "changed"), ["0005"]);
    assert_eq!(found(&notes, "all").len(), 998);
    agrees(&db);
    db.close().unwrap();

    // A clean open believes what is stored.
    let db = plain().index("notes", by_word(1)).open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    assert!(matches!(notes.indexes()[0].status(), IndexStatus::Ready));
    db.close().unwrap();

    let shouting = IndexDefinition::new("by_word", 2, |_key, value, keys| {
        keys.add(&String::from_utf8_lossy(value).to_uppercase());
        Ok(())
    });
    let db = plain().index("notes", shouting).open(dir.path()).unwrap();
    db.build_indexes().unwrap();
    let notes = db.keyspace("notes").unwrap();
    assert!(found(&notes, "all").is_empty());
    assert_eq!(found(&notes, "N7 ALL").len(), 100);
    agrees(&db);
    db.close().unwrap();
}

#[test]
fn a_program_that_does_not_know_the_index_makes_it_stale() {
    let dir = tempfile::tempdir().unwrap();
    let db = declared().open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    notes.put("a", "red").unwrap();
    db.close().unwrap();

    // Reading alone changes nothing.
    let stranger = Db::open(dir.path()).unwrap();
    assert_eq!(stranger.keyspace("notes").unwrap().count().unwrap(), 1);
    stranger.put("elsewhere", "x").unwrap();
    stranger.close().unwrap();
    let db = declared().open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    assert!(matches!(notes.indexes()[0].status(), IndexStatus::Ready));
    db.close().unwrap();

    let stranger = Db::open(dir.path()).unwrap();
    let notes = stranger.keyspace("notes").unwrap();
    notes.put("b", "red").unwrap();
    notes.delete("a").unwrap();
    stranger.close().unwrap();
    let db = declared().open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    db.build_indexes().unwrap();
    assert_eq!(found(&notes, "red"), ["b"]);
    agrees(&db);
    db.close().unwrap();
}

#[test]
fn a_violation_that_is_there_already_fails_the_build_and_can_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let users = db.keyspace("users").unwrap();
    users.put("1", "ada").unwrap();
    users.put("2", "ada").unwrap();
    db.close().unwrap();
    let options = Options::new().index("users", by_name());
    let db = options.open(dir.path()).unwrap();
    let users = db.keyspace("users").unwrap();
    assert_eq!(
        db.build_indexes().unwrap_err().kind(),
        ErrorKind::UniqueViolation
    );
    assert!(matches!(
        users.indexes()[0].status(),
        IndexStatus::Failed(_)
    ));
    let rows = Query::new(&users).index_equal("by_name", "ada").rows();
    assert_eq!(rows.unwrap_err().kind(), ErrorKind::NotReady);
    users.put("2", "grace").unwrap();
    db.build_indexes().unwrap();
    agrees(&db);
    let rows = Query::new(&users)
        .index_equal("by_name", "ada")
        .rows()
        .unwrap();
    assert_eq!(rows.count(), 1);
}

#[test]
fn backups_take_indexes_along_and_restores_bring_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let db = declared().open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    notes.put("a", "red").unwrap();
    let with = db.create_backup("with").unwrap();
    notes.put("b", "red").unwrap();
    notes.put("a", "blue").unwrap();
    db.restore_backup(with.name()).unwrap();
    db.build_indexes().unwrap();
    assert_eq!(found(&notes, "red"), ["a"]);
    agrees(&db);
    notes.put("c", "red").unwrap();
    assert_eq!(found(&notes, "red"), ["a", "c"]);
    db.close().unwrap();

    // From before the index was declared: it is built over what was restored.
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    db.keyspace("notes").unwrap().put("old", "red").unwrap();
    let without = db.create_backup("without").unwrap();
    db.close().unwrap();
    let db = declared().open(dir.path()).unwrap();
    db.build_indexes().unwrap();
    let notes = db.keyspace("notes").unwrap();
    notes.put("new", "red").unwrap();
    db.restore_backup(without.name()).unwrap();
    db.build_indexes().unwrap();
    let notes = db.keyspace("notes").unwrap();
    assert_eq!(found(&notes, "red"), ["old"]);
    agrees(&db);
}

#[test]
fn a_dropped_keyspace_takes_its_indexes_along() {
    let db = declared().open_in_memory().unwrap();
    let notes = db.keyspace("notes").unwrap();
    notes.put("a", "red").unwrap();
    db.drop_keyspace("notes").unwrap();
    let notes = db.keyspace("notes").unwrap();
    assert!(found(&notes, "red").is_empty());
    notes.put("b", "red").unwrap();
    assert_eq!(found(&notes, "red"), ["b"]);
    agrees(&db);
}

#[test]
fn validation_finds_a_disagreement_and_a_rebuild_mends_it() {
    // Two extractors under one version: what the version promises is broken on purpose.
    let dir = tempfile::tempdir().unwrap();
    let db = declared().open(dir.path()).unwrap();
    let notes = db.keyspace("notes").unwrap();
    notes.put("a", "red").unwrap();
    notes.put("b", "").unwrap();
    db.close().unwrap();
    let liar = IndexDefinition::new("by_word", 1, |_key, value, keys| {
        if value.is_empty() {
            keys.add("empty");
        }
        Ok(())
    });
    let db = Options::new()
        .index("notes", liar)
        .open(dir.path())
        .unwrap();
    let report = db.validate().unwrap();
    let messages: Vec<_> = report
        .issues()
        .iter()
        .map(|issue| issue.message())
        .collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages.iter().any(|m| m.contains("\"b\" is missing")),
        "{messages:?}"
    );
    let extra = "\"a\" has an entry that its record does not have";
    assert!(messages.iter().any(|m| m.contains(extra)), "{messages:?}");
    let notes = db.keyspace("notes").unwrap();
    notes.rebuild_index("by_word").unwrap();
    agrees(&db);
    assert_eq!(found(&notes, "empty"), ["b"]);
}

#[derive(Clone, Debug)]
enum Deed {
    Put(u8, Vec<u8>),
    PutExpiring(u8, Vec<u8>, u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Batch(Vec<(u8, Option<Vec<u8>>)>),
    Clear,
    Advance(u8),
    Flush,
    Compact,
    Reopen,
    Stranger(u8, Vec<u8>),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let words = || proptest::collection::vec(b'a'..b'f', 0..4);
    let key = || 0u8..24;
    let deed = prop_oneof![
        8 => (key(), words()).prop_map(|(k, w)| Deed::Put(k, w)),
        3 => (key(), words(), 1u8..9).prop_map(|(k, w, t)| Deed::PutExpiring(k, w, t)),
        3 => key().prop_map(Deed::Delete),
        2 => (key(), key()).prop_map(|(a, b)| Deed::DeleteRange(a.min(b), a.max(b))),
        4 => proptest::collection::vec((key(), proptest::option::of(words())), 1..6)
            .prop_map(Deed::Batch),
        1 => Just(Deed::Clear),
        2 => (1u8..9).prop_map(Deed::Advance),
        1 => Just(Deed::Flush),
        1 => Just(Deed::Compact),
        1 => Just(Deed::Reopen),
        1 => (key(), words()).prop_map(|(k, w)| Deed::Stranger(k, w)),
    ];
    proptest::collection::vec(deed, 1..60)
}

fn text(words: &[u8]) -> String {
    words
        .iter()
        .map(|&word| char::from(word).to_string() + " ")
        .collect()
}

/// What is to be there: the value and when it expires.
type Model = BTreeMap<String, (String, u64)>;

fn check_against(notes: &Keyspace, model: &Model, now_millis: u64) -> Result<(), TestCaseError> {
    for word in ["a", "b", "c", "d", "e"] {
        let live = model.iter().filter(|(_, (_, expiry))| *expiry > now_millis);
        let having = live.filter(|(_, (text, _))| text.split_whitespace().any(|w| w == word));
        let expected: Vec<_> = having.map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(found(notes, word), expected, "{}", word);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_of_deeds_keeps_the_index_true(deeds in deeds()) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let mut now = 1_000_000u64;
        let open = || declared().clock(clock.clone()).open(dir.path()).unwrap();
        let (mut db, mut model) = (open(), Model::new());
        let mut notes = db.keyspace("notes").unwrap();
        let name = |key: u8| format!("k{key:02}");
        for deed in deeds {
            match deed {
                Deed::Put(key, words) => {
                    notes.put(name(key), text(&words)).unwrap();
                    model.insert(name(key), (text(&words), u64::MAX));
                }
                Deed::PutExpiring(key, words, seconds) => {
                    let ttl = Duration::from_secs(seconds.into());
                    notes.put_with_ttl(name(key), text(&words), ttl).unwrap();
                    model.insert(name(key), (text(&words), now + u64::from(seconds) * 1000));
                }
                Deed::Delete(key) => {
                    notes.delete(name(key)).unwrap();
                    model.remove(&name(key));
                }
                Deed::DeleteRange(from, to) => {
                    notes.delete_range(name(from)..name(to)).unwrap();
                    model.retain(|key, _| *key < name(from) || *key >= name(to));
                }
                Deed::Batch(operations) => {
                    let mut batch = WriteBatch::new();
                    for (key, words) in operations {
                        match words {
                            Some(words) => {
                                batch.put_in(&notes, name(key), text(&words));
                                model.insert(name(key), (text(&words), u64::MAX));
                            }
                            None => {
                                batch.delete_in(&notes, name(key));
                                model.remove(&name(key));
                            }
                        }
                    }
                    db.write(batch).unwrap();
                }
                Deed::Clear => {
                    notes.clear().unwrap();
                    model.clear();
                }
                Deed::Advance(seconds) => {
                    clock.advance(Duration::from_secs(seconds.into()));
                    now += u64::from(seconds) * 1000;
                }
                Deed::Flush => db.flush().unwrap(),
                Deed::Compact => db.compact().unwrap(),
                Deed::Reopen => {
                    db.close().unwrap();
                    db = open();
                    db.build_indexes().unwrap();
                    notes = db.keyspace("notes").unwrap();
                }
                Deed::Stranger(key, words) => {
                    db.close().unwrap();
                    let stranger = Options::new().clock(clock.clone()).open(dir.path()).unwrap();
                    stranger.keyspace("notes").unwrap().put(name(key), text(&words)).unwrap();
                    stranger.close().unwrap();
                    model.insert(name(key), (text(&words), u64::MAX));
                    db = open();
                    db.build_indexes().unwrap();
                    notes = db.keyspace("notes").unwrap();
                }
            }
            check_against(&notes, &model, now)?;
        }
        let report = db.validate().unwrap();
        prop_assert!(report.is_ok(), "{:?}", report.issues());
    }
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

//! An index is built over what is there, notices what it missed, and comes and goes with its keyspace,
//! with backups and with programs that do not know it.

use super::{agrees, by_name, by_word, declared, found};
use esker::{Db, Durability, ErrorKind, IndexDefinition, IndexStatus, Options, Query};

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

//! Merge operators, compaction filters, compare-and-swap and `fetch_update`: alone, and together with
//! expiry, snapshots, range deletes and many threads. (`model.rs` has random mixtures.)

use esker::merge_operators::{Append, Counter};
use esker::vfs::MemFileSystem;
use esker::{
    CompactionFilter, Db, ErrorKind, FilterDecision, IndexDefinition, ManualClock, MergeOperator,
    Options, WriteBatch,
};
use std::sync::Arc;
use std::time::Duration;

fn text(db: &Db, key: &str) -> Option<String> {
    let value = db.get(key).unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// A clock at second 1000 and options with it.
fn with_clock() -> (Arc<ManualClock>, Options) {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = Options::new()
        .clock(clock.clone())
        .file_system(Arc::new(MemFileSystem::new()))
        .merge_operator("default", Append::new("+"));
    (clock, options)
}

#[test]
fn an_operand_changes_the_value_that_lives_and_keeps_its_expiry() {
    let (clock, options) = with_clock();
    let db = options.open("/db").unwrap();
    db.put_with_ttl("k", "a", Duration::from_secs(10)).unwrap();
    db.merge("k", "b").unwrap();
    db.flush().unwrap();
    db.merge("k", "c").unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("a+b+c"));
    assert_eq!(db.ttl("k").unwrap(), Some(Duration::from_secs(10)));
    clock.advance(Duration::from_secs(10));
    assert_eq!(text(&db, "k"), None);
    // What is merged from now on begins anew, whatever compaction has made of the rest.
    db.merge("k", "d").unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("d"));
    assert_eq!(db.ttl("k").unwrap(), None);
    db.compact().unwrap();
    db.merge("k", "e").unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("d+e"));
    db.close().unwrap();
}

#[test]
fn within_a_batch_later_operations_see_earlier_ones() {
    let (_clock, options) = with_clock();
    let db = options.open("/db").unwrap();
    let mut batch = WriteBatch::new();
    batch.put_with_ttl("k", "a", Duration::from_secs(5));
    batch.merge("k", "b");
    batch.delete_range("x".."z");
    batch.put_with_ttl("y", "gone", Duration::from_secs(5));
    batch.delete_range("x".."z");
    batch.merge("y", "new");
    db.write(batch).unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("a+b"));
    assert_eq!(db.ttl("k").unwrap(), Some(Duration::from_secs(5)));
    assert_eq!(text(&db, "y").as_deref(), Some("new"));
    assert_eq!(db.ttl("y").unwrap(), None);
}

#[test]
fn snapshots_and_range_deletes_cut_a_chain_where_they_lie() {
    let (_clock, options) = with_clock();
    let db = options.open("/db").unwrap();
    db.merge("k", "1").unwrap();
    let first = db.snapshot();
    db.merge("k", "2").unwrap();
    db.delete_range("a".."z").unwrap();
    let emptied = db.snapshot();
    db.merge("k", "3").unwrap();
    for compacted in [false, true] {
        if compacted {
            db.compact().unwrap();
        }
        assert_eq!(first.get("k").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(emptied.get("k").unwrap().as_deref(), None);
        assert_eq!(text(&db, "k").as_deref(), Some("3"));
        let all: Vec<_> = db
            .iter()
            .rev()
            .map(|entry| entry.unwrap().1.to_vec())
            .collect();
        assert_eq!(all, [b"3".to_vec()]);
    }
    drop((first, emptied));
    db.compact().unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("3"));
}

#[test]
fn counters_of_many_threads_lose_nothing_through_flushes_and_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .merge_operator("counts", Counter)
        .default_durability(esker::Durability::Buffered)
        .write_buffer_bytes(32 << 10);
    let db = options.clone().open(dir.path()).unwrap();
    let counts = db.keyspace("counts").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..2000u32 {
                    counts
                        .merge((i % 7).to_be_bytes(), Counter::encode(1))
                        .unwrap();
                    counts.merge("all", Counter::encode(2)).unwrap();
                }
            });
        }
    });
    let count = |db: &Db, key: &[u8]| {
        let value = db.keyspace("counts").unwrap().get(key).unwrap().unwrap();
        Counter::decode(&value).unwrap()
    };
    assert_eq!(count(&db, b"all"), 16_000);
    db.close().unwrap();
    let db = options.open(dir.path()).unwrap();
    let each: i64 = (0..7u32).map(|i| count(&db, &i.to_be_bytes())).sum();
    assert_eq!((count(&db, b"all"), each), (16_000, 8000));
    db.compact().unwrap();
    assert_eq!(count(&db, b"all"), 16_000);
    db.close().unwrap();
}

#[test]
fn a_keyspace_without_an_operator_says_so() {
    let fs = Arc::new(MemFileSystem::new());
    let options = Options::new().file_system(fs);
    let with = options.clone().merge_operator("default", Counter);
    let db = with.open("/db").unwrap();
    db.merge("k", Counter::encode(1)).unwrap();
    db.flush().unwrap();
    db.merge("k", Counter::encode(1)).unwrap();
    db.close().unwrap();

    let db = options.clone().open("/db").unwrap();
    let mut batch = WriteBatch::new();
    batch.merge("k", "x");
    let refused = [
        db.get("k").map(|_| ()),
        db.iter().try_for_each(|entry| entry.map(|_| ())),
        db.iter().rev().try_for_each(|entry| entry.map(|_| ())),
        db.merge("k", "x"),
        db.write(batch),
    ];
    for (index, result) in refused.into_iter().enumerate() {
        assert_eq!(
            result.unwrap_err().kind(),
            ErrorKind::Unsupported,
            "{index}"
        );
    }
    // Nothing is lost by that, compaction included.
    db.compact().unwrap();
    db.close().unwrap();
    let db = options
        .merge_operator("default", Counter)
        .open("/db")
        .unwrap();
    assert_eq!(Counter::decode(&db.get("k").unwrap().unwrap()).unwrap(), 2);
    db.close().unwrap();
}

#[test]
fn what_an_operator_refuses_is_its_readers_error_and_nobody_elses() {
    let options = Options::new().merge_operator("default", Counter);
    let db = options.open_in_memory().unwrap();
    db.put("word", "not a number").unwrap();
    db.merge("word", Counter::encode(1)).unwrap();
    db.merge("number", Counter::encode(1)).unwrap();
    let error = db.get("word").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("word"), "{error}");
    assert!(db.get("number").unwrap().is_some());
    db.compact().unwrap();
    assert!(db.get("word").is_err());
    db.put("word", Counter::encode(1)).unwrap();
    assert!(db.get("word").unwrap().is_some());

    // Where the leader has to merge, the writer is told, and nothing of its batch is written.
    db.put_with_ttl("word", "no number", Duration::from_secs(60))
        .unwrap();
    let mut batch = WriteBatch::new();
    batch.put("beside", "it");
    batch.merge("word", Counter::encode(1));
    let error = db.write(batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(db.get("beside").unwrap().as_deref(), None);
}

/// Removes values that begin with `-`, and shouts those that begin with `!`.
#[derive(Debug)]
struct Tidy;

impl CompactionFilter for Tidy {
    fn filter(&self, _key: &[u8], value: &[u8], _expiry: Option<u64>) -> FilterDecision {
        match value.first() {
            Some(b'-') => FilterDecision::Remove,
            Some(b'!') => FilterDecision::Replace(value[1..].to_ascii_uppercase()),
            _ => FilterDecision::Keep,
        }
    }
}

#[test]
fn a_filter_meets_every_value_of_a_compaction_but_those_that_snapshots_see() {
    let (clock, options) = with_clock();
    let db = options
        .compaction_filter("default", Tidy)
        .open("/db")
        .unwrap();
    db.put("old", "-").unwrap();
    db.put("stays", "as it is").unwrap();
    db.put_with_ttl("session", "!loud", Duration::from_secs(9))
        .unwrap();
    db.merge("merged", "-").unwrap();
    db.merge("merged", "x").unwrap();
    let snapshot = db.snapshot();
    db.compact().unwrap();
    assert_eq!(text(&db, "old").as_deref(), Some("-"));
    assert_eq!(snapshot.get("old").unwrap().as_deref(), Some(&b"-"[..]));
    db.put("new", "-").unwrap();
    db.compact().unwrap();
    assert_eq!(text(&db, "new"), None, "no snapshot sees it");
    drop(snapshot);
    // Tables that are final otherwise are written once more for the filter's sake.
    db.compact().unwrap();
    assert_eq!((text(&db, "old"), text(&db, "merged")), (None, None));
    assert_eq!(text(&db, "stays").as_deref(), Some("as it is"));
    assert_eq!(text(&db, "session").as_deref(), Some("LOUD"));
    assert_eq!(db.ttl("session").unwrap(), Some(Duration::from_secs(9)));
    clock.advance(Duration::from_secs(9));
    assert_eq!(text(&db, "session"), None);
    assert!(db.validate().unwrap().is_ok());
    db.close().unwrap();
}

#[test]
fn compare_and_swap_elects_one_leader_each_term() {
    let db = Options::new().open_in_memory().unwrap();
    let elected: usize = std::thread::scope(|scope| {
        let run = |name: String| {
            let db = &db;
            move || {
                let mut won = 0;
                for term in 0..200u32 {
                    let key = term.to_be_bytes();
                    let outcome = db
                        .compare_and_swap(key, None::<&[u8]>, Some(&name))
                        .unwrap();
                    match outcome {
                        Ok(()) => won += 1,
                        Err(found) => assert!(found.is_some()),
                    }
                }
                won
            }
        };
        let threads: Vec<_> = (0..4)
            .map(|i| scope.spawn(run(format!("candidate {i}"))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(elected, 200);
    let key = 0u32.to_be_bytes();
    let leader = db.get(key).unwrap().unwrap();
    assert!(
        db.compare_and_swap(key, Some("nobody"), None::<&str>)
            .unwrap()
            .is_err()
    );
    assert!(
        db.compare_and_swap(key, Some(&*leader), None::<&str>)
            .unwrap()
            .is_ok()
    );
    assert_eq!(db.get(key).unwrap().as_deref(), None);
}

#[test]
fn fetch_update_loses_no_update_and_keeps_the_expiry() {
    let (_clock, options) = with_clock();
    let db = options.open("/db").unwrap();
    db.put_with_ttl("n", 0u64.to_le_bytes(), Duration::from_secs(7))
        .unwrap();
    let add_one = |value: Option<&[u8]>| {
        let now = u64::from_le_bytes(value?.try_into().ok()?);
        Some((now + 1).to_le_bytes().to_vec())
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| _ = db.fetch_update("n", add_one).unwrap()));
        }
    });
    let before = db.fetch_update("n", |_| None).unwrap().unwrap();
    assert_eq!(before.as_ref(), 1000u64.to_le_bytes());
    assert!(db.fetch_update("n", |_| None).unwrap().is_none());
    db.put_with_ttl("t", "a", Duration::from_secs(7)).unwrap();
    db.fetch_update("t", |_| Some(b"b".to_vec())).unwrap();
    assert_eq!(db.ttl("t").unwrap(), Some(Duration::from_secs(7)));
    assert_eq!(text(&db, "t").as_deref(), Some("b"));
}

#[test]
fn a_transaction_sees_its_operands_over_its_snapshot_and_its_own_writes() {
    let (clock, options) = with_clock();
    let db = options.open("/db").unwrap();
    db.put("plain", "a").unwrap();
    db.put_with_ttl("expiring", "a", Duration::from_secs(8))
        .unwrap();
    let mut tx = db.begin().unwrap();
    tx.merge("plain", "b").unwrap();
    tx.merge("expiring", "b").unwrap();
    tx.merge("new", "x").unwrap();
    let point = tx.savepoint();
    tx.put_with_ttl("own", "1", Duration::from_secs(3)).unwrap();
    tx.merge("own", "2").unwrap();
    tx.delete("new").unwrap();
    tx.merge("new", "y").unwrap();
    let get = |tx: &mut esker::Transaction, key: &str| {
        let value = tx.get(key).unwrap().unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    };
    let keys = ["plain", "expiring", "own", "new"];
    let seen: Vec<_> = keys.iter().map(|key| get(&mut tx, key)).collect();
    assert_eq!(seen, ["a+b", "a+b", "1+2", "y"]);
    let backwards: Vec<_> = tx.iter().rev().map(|e| e.unwrap().1.to_vec()).collect();
    assert_eq!(backwards, [&b"a+b"[..], b"1+2", b"y", b"a+b"]);
    tx.rollback_to(point).unwrap();
    assert_eq!(get(&mut tx, "new"), "x");
    assert!(tx.get("own").unwrap().is_none());
    tx.commit().unwrap();
    assert_eq!(text(&db, "plain").as_deref(), Some("a+b"));
    assert_eq!(db.ttl("expiring").unwrap(), Some(Duration::from_secs(8)));
    clock.advance(Duration::from_secs(8));
    assert_eq!(text(&db, "expiring"), None);

    // A blind merge does not conflict with another, and meets what was written since.
    let mut tx = db.begin().unwrap();
    tx.merge("plain", "d").unwrap();
    db.put_with_ttl("plain", "c", Duration::from_secs(1))
        .unwrap();
    tx.commit().unwrap();
    assert_eq!(text(&db, "plain").as_deref(), Some("c+d"));
    assert_eq!(db.ttl("plain").unwrap(), Some(Duration::from_secs(1)));
}

/// An operator by another name.
#[derive(Debug)]
struct Renamed;

impl MergeOperator for Renamed {
    fn name(&self) -> &str {
        "renamed"
    }
    fn merge(&self, _: &[u8], _: Option<&[u8]>, _: &[&[u8]]) -> esker::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// Operands of one operator were once folded by whichever came next: a counter opened as text read as
/// text, and its first compaction wrote that down.
#[test]
fn another_operator_is_refused_and_the_needed_one_is_named() {
    let fs = Arc::new(MemFileSystem::new());
    let options = Options::new().file_system(fs);
    let counting = options.clone().merge_operator("visits", Counter);
    let db = counting.clone().open("/db").unwrap();
    let visits = db.keyspace("visits").unwrap();
    assert_eq!(visits.options().merge_operator(), None);
    visits.merge("k", Counter::encode(1)).unwrap();
    assert_eq!(visits.options().merge_operator(), Some("esker.counter"));
    // What is set later leaves the name alone.
    let hour = esker::KeyspaceOptions::new().default_ttl(Duration::from_secs(3600));
    visits.set_options(&hour).unwrap();
    let backup = db.create_backup("one visit").unwrap();
    db.close().unwrap();

    let others = [
        options.clone().merge_operator("visits", Renamed),
        options.clone().merge_operator("visits", Append::new("+")),
    ];
    for other in others {
        for outcome in [other.clone().open("/db"), other.open_read_only("/db")] {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let sentence = error.to_string();
            let told = ["esker.counter", "visits", "renamed_merge_operator"];
            assert!(
                told.iter().all(|part| sentence.contains(part)),
                "{sentence}"
            );
        }
    }
    // Without one everything but the operands can be read, and the error says what is missing.
    let db = options.clone().open("/db").unwrap();
    let visits = db.keyspace("visits").unwrap();
    visits.put("plain", "1").unwrap();
    assert!(visits.get("plain").unwrap().is_some());
    let error = visits.get("k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("esker.counter"), "{error}");
    db.drop_keyspace("visits").unwrap();
    db.close().unwrap();

    // A keyspace of the same name owes the dropped one nothing, but a restore brings that back.
    let db = options
        .clone()
        .merge_operator("visits", Renamed)
        .open("/db")
        .unwrap();
    db.keyspace("visits").unwrap().merge("k", "x").unwrap();
    let error = db.restore_backup(backup.name()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("esker.counter"), "{error}");
    db.drop_keyspace("visits").unwrap();
    db.close().unwrap();
    let db = counting.open("/db").unwrap();
    db.restore_backup(backup.name()).unwrap();
    let value = db.keyspace("visits").unwrap().get("k").unwrap().unwrap();
    assert_eq!(Counter::decode(&value).unwrap(), 1);
    db.close().unwrap();
}

/// `Append` under a name of its own.
#[derive(Debug, Clone)]
struct Joined(Append);

impl MergeOperator for Joined {
    fn name(&self) -> &str {
        "joined"
    }
    fn merge(&self, key: &[u8], old: Option<&[u8]>, new: &[&[u8]]) -> esker::Result<Vec<u8>> {
        self.0.merge(key, old, new)
    }
}

/// The operator's owner may say that it has a new name. The first operand that is merged makes that so.
#[test]
fn an_operator_may_be_renamed_deliberately() {
    let options = Options::new().file_system(Arc::new(MemFileSystem::new()));
    let old = options.clone().merge_operator("default", Append::new("+"));
    let db = old.clone().open("/db").unwrap();
    db.merge("k", "a").unwrap();
    let backup = db.create_backup("under the old name").unwrap();
    db.close().unwrap();

    let own = |db: &Db| {
        let default = db.keyspace("default").unwrap();
        default.options().merge_operator().map(str::to_string)
    };
    let silent = options
        .clone()
        .merge_operator("default", Joined(Append::new("+")));
    assert!(silent.clone().open("/db").is_err());
    let elsewhere = silent.clone().renamed_merge_operator("default", "another");
    assert!(elsewhere.open("/db").is_err());
    let said = silent
        .clone()
        .renamed_merge_operator("default", "esker.append(+)");
    let db = said.clone().open_read_only("/db").unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("a"));
    db.close().unwrap();
    // Nothing was merged under the new name: the old one still does.
    old.clone().open("/db").unwrap().close().unwrap();

    let db = said.clone().open("/db").unwrap();
    assert_eq!(own(&db).as_deref(), Some("esker.append(+)"));
    db.merge("k", "b").unwrap();
    assert_eq!(own(&db).as_deref(), Some("joined"));
    db.close().unwrap();
    let error = old.open("/db").unwrap_err();
    assert!(error.to_string().contains("\"joined\""), "{error}");
    let db = silent.clone().open("/db").unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("a+b"));
    // A backup brings the old name back, and has to be told of.
    assert!(db.restore_backup(backup.name()).is_err());
    db.close().unwrap();
    let db = said.open("/db").unwrap();
    db.restore_backup(backup.name()).unwrap();
    assert_eq!(text(&db, "k").as_deref(), Some("a"));
    db.merge("k", "c").unwrap();
    assert_eq!(own(&db).as_deref(), Some("joined"));
    db.close().unwrap();
    silent.open("/db").unwrap().close().unwrap();

    let nobody = options.renamed_merge_operator("default", "esker.counter");
    let error = nobody.open("/db").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// By a batch and by a transaction as by a single merge.
#[test]
fn every_way_to_merge_notes_the_operator() {
    let db = Options::new()
        .merge_operator("a", Counter)
        .merge_operator("b", Append::default())
        .open_in_memory()
        .unwrap();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    let mut batch = WriteBatch::new();
    batch.merge_in(&a, "k", Counter::encode(1));
    db.write(batch).unwrap();
    let mut tx = db.begin().unwrap();
    tx.merge_in(&b, "k", "x").unwrap();
    assert_eq!(b.options().merge_operator(), None);
    tx.commit().unwrap();
    assert_eq!(a.options().merge_operator(), Some("esker.counter"));
    assert_eq!(b.options().merge_operator(), Some("esker.append()"));
}

#[test]
fn a_keyspace_with_indexes_takes_no_filter() {
    let index = IndexDefinition::new("by_value", 1, |_key, value, keys| {
        keys.add(value);
        Ok(())
    });
    let options = Options::new()
        .index("default", index)
        .compaction_filter("default", Tidy);
    let error = options.open_in_memory().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn operators_must_have_names() {
    let nameless = Options::new().merge_operator("", Renamed);
    assert_eq!(
        nameless.open_in_memory().unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

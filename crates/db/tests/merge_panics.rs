//! A merge operator that panics, wherever the engine calls it: the caller gets a typed error that names
//! operator and key, nothing that was acknowledged is lost, no lock stays held, background work goes on,
//! and once the operator can do it, everything that was merged is there.
//!
//! The story: until this was written, the commit leader and compaction caught such panics, and reads did not.
//! A `get` or a transaction's merge took its caller's thread along.
#![allow(clippy::unwrap_used)]

use esker::merge_operators::Append;
use esker::vfs::MemFileSystem;
use esker::{
    Db, Error, ErrorKind, IndexDefinition, MergeOperator, Options, Query, Result, WriteBatch,
};
use std::panic::{self, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Appends, and panics at the operand "boom" for as long as it is `broken`.
#[derive(Clone, Debug)]
struct Fragile {
    append: Append,
    broken: Arc<AtomicBool>,
}

impl Fragile {
    fn new() -> Self {
        Self {
            append: Append::new("+"),
            broken: Arc::new(AtomicBool::new(true)),
        }
    }

    fn heal(&self) {
        self.broken.store(false, Ordering::SeqCst);
    }

    fn look_at(&self, operand: &[u8]) {
        let panics = operand == b"boom" && self.broken.load(Ordering::SeqCst);
        assert!(!panics, "this operator was made to panic");
    }
}

impl MergeOperator for Fragile {
    fn name(&self) -> &str {
        "fragile"
    }

    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>> {
        operands.iter().for_each(|operand| self.look_at(operand));
        self.append.merge(key, existing, operands)
    }

    fn combine(&self, key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        self.look_at(older);
        self.look_at(newer);
        self.append.combine(key, older, newer)
    }
}

/// The panics of this file's operators are wanted, and not to be shown.
fn quietly<R>(test: impl FnOnce() -> R + UnwindSafe) -> R {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("made to panic") {
            hook(info);
        }
    }));
    test()
}

fn opened(operator: &Fragile) -> (Options, Db) {
    let options = Options::new()
        .file_system(Arc::new(MemFileSystem::new()))
        .merge_operator("default", operator.clone());
    let db = options.clone().open("/db").unwrap();
    (options, db)
}

fn text(db: &Db, key: &str) -> Option<String> {
    let value = db.get(key).unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[track_caller]
fn assert_told(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let said = error.to_string();
    assert!(
        said.contains("\"fragile\"") && said.contains("panicked") && said.contains("\"k\""),
        "{said}"
    );
}

#[test]
fn every_read_tells_its_caller_and_nobody_else_notices() {
    quietly(|| {
        let operator = Fragile::new();
        let (_, db) = opened(&operator);
        for key in ["a", "k", "z"] {
            db.put(key, key).unwrap();
        }
        db.merge("k", "boom").unwrap();
        for place in ["in memory", "in tables", "compacted"] {
            match place {
                "in tables" => db.flush().unwrap(),
                "compacted" => db.compact().unwrap(),
                _ => {}
            }
            assert_told(&db.get("k").unwrap_err());
            assert_told(&db.multi_get(["a", "k"]).unwrap_err());
            assert_told(&db.snapshot().get("k").unwrap_err());
            let forward: Vec<_> = db.iter().collect();
            let backward: Vec<_> = db.iter().rev().collect();
            for walked in [forward, backward] {
                assert_eq!(walked.len(), 2, "{place}: it ends at the error");
                assert_told(walked[1].as_ref().unwrap_err());
            }
            assert_told(
                &db.compare_and_swap("k", None::<&str>, Some("x"))
                    .unwrap_err(),
            );
            assert_told(&db.fetch_update("k", |_| Some(b"x".to_vec())).unwrap_err());
            assert_told(&db.set_ttl("k", Duration::from_secs(9)).unwrap_err());
            let counted = Query::new(&db).filter(|_, _| true).count();
            assert_told(&counted.unwrap_err());
            let mut tx = db.begin().unwrap();
            assert_told(&tx.get("k").unwrap_err());
            assert_told(&tx.iter().nth(1).unwrap().unwrap_err());
            assert_eq!(text(&db, "z").as_deref(), Some("z"), "{place}");
        }
        operator.heal();
        assert_eq!(text(&db, "k").as_deref(), Some("k+boom"));
        db.close().unwrap();
    });
}

#[test]
fn flushes_and_compactions_go_on_and_keep_the_operands() {
    quietly(|| {
        let operator = Fragile::new();
        let (options, db) = opened(&operator);
        for round in 0..4 {
            db.merge("k", "boom").unwrap();
            db.merge("k", format!("{round}")).unwrap();
            db.merge("other", "x").unwrap();
            db.flush().unwrap();
        }
        db.compact().unwrap();
        db.wait_for_background_work().unwrap();
        assert_eq!(text(&db, "other").as_deref(), Some("x+x+x+x"));
        assert_told(&db.get("k").unwrap_err());
        assert!(db.validate().unwrap().is_ok());
        db.close().unwrap();
        let db = options.open("/db").unwrap();
        operator.heal();
        let all = "boom+0+boom+1+boom+2+boom+3";
        assert_eq!(text(&db, "k").as_deref(), Some(all));
        db.compact().unwrap();
        assert_eq!(text(&db, "k").as_deref(), Some(all));
        db.close().unwrap();
    });
}

/// Operands over values that expire are merged by the commit leader.
#[test]
fn the_leader_refuses_the_batch_that_panics_and_commits_the_rest_of_its_group() {
    quietly(|| {
        let operator = Fragile::new();
        let (options, db) = opened(&operator);
        let hour = Duration::from_secs(3600);
        db.put_with_ttl("k", "v", hour).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let db = &db;
                scope.spawn(move || {
                    for round in 0..100 {
                        db.put(format!("{thread}/{round}"), "acknowledged").unwrap();
                        let mut batch = WriteBatch::new();
                        batch.put(format!("refused/{thread}/{round}"), "with the operand");
                        batch.merge("k", "boom");
                        assert_told(&db.write(batch).unwrap_err());
                    }
                });
            }
        });
        assert_eq!(text(&db, "k").as_deref(), Some("v"));
        assert_eq!(db.prefix("refused/").count(), 0);
        let mut tx = db.begin().unwrap();
        assert_told(&tx.merge("k", "boom").unwrap_err());
        tx.merge("k", "fine").unwrap();
        tx.commit().unwrap();
        // A transaction that cannot know: the value came after its snapshot.
        let mut tx = db.begin().unwrap();
        tx.merge("late", "boom").unwrap();
        db.put_with_ttl("late", "v", hour).unwrap();
        let error = tx.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        db.close().unwrap();
        let db = options.open("/db").unwrap();
        assert_eq!(text(&db, "k").as_deref(), Some("v+fine"));
        assert_eq!(db.iter().count(), 4 * 100 + 2);
        db.close().unwrap();
    });
}

/// The leader also merges now and then where a chain in memory grows long.
#[test]
fn a_long_chain_that_cannot_be_merged_stays_a_chain() {
    quietly(|| {
        let operator = Fragile::new();
        let (options, db) = opened(&operator);
        db.merge("k", "boom").unwrap();
        for _ in 0..400 {
            db.merge("k", "x").unwrap();
        }
        assert_told(&db.get("k").unwrap_err());
        db.close().unwrap();
        let db = options.open("/db").unwrap();
        operator.heal();
        let expected = format!("boom{}", "+x".repeat(400));
        assert_eq!(text(&db, "k"), Some(expected));
        db.close().unwrap();
    });
}

#[test]
fn indexes_are_kept_or_built_as_soon_as_the_operator_can() {
    quietly(|| {
        let operator = Fragile::new();
        let (options, db) = opened(&operator);
        // From before the keyspace has an index.
        db.merge("k", "boom").unwrap();
        db.put("a", "1").unwrap();
        db.close().unwrap();
        let by_value = IndexDefinition::new("by_value", 1, |_key, value, keys| {
            keys.add(&value);
            Ok(())
        });
        let indexed = options.index("default", by_value);
        let db = indexed.clone().open("/db").unwrap();
        assert_told(&db.build_indexes().unwrap_err());
        let ask = |value: &str| {
            Query::new(&db)
                .index_equal("by_value", value.as_bytes())
                .count()
        };
        assert_eq!(ask("1").unwrap_err().kind(), ErrorKind::NotReady);
        // Its entries follow from what it makes: the leader has to merge.
        assert_told(&db.merge("k", "more").unwrap_err());
        let mut tx = db.begin().unwrap();
        assert_told(&tx.merge("k", "more").unwrap_err());
        drop(tx);
        db.merge("a", "2").unwrap();
        operator.heal();
        db.build_indexes().unwrap();
        db.merge("k", "more").unwrap();
        assert_eq!(ask("boom+more").unwrap(), 1);
        assert_eq!(ask("boom").unwrap(), 0);
        assert_eq!(ask("1+2").unwrap(), 1);
        assert!(db.validate().unwrap().is_ok());
        db.close().unwrap();
    });
}

//! What a database does, whichever engine it runs on: every test here runs on disk and in memory, with
//! memtables so small that what it looks at lies in memtables and in tables of several levels.

use esker::{
    Cursor, Db, Durability, ErrorKind, KeyspaceOptions, ManualClock, Options, RuntimeOptions,
    Value, WriteBatch, WriteOptions,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod times_to_live;

use times_to_live::{
    a_clock_that_is_turned_back, cleaning_up, expiry_on_every_read_path, extreme_times_to_live,
};

const SECOND: Duration = Duration::from_secs(1);

/// An engine with a clock that the test moves.
struct Engine {
    db: Db,
    clock: Arc<ManualClock>,
    /// Where it lives, if on disk; gone with the test.
    _directory: Option<tempfile::TempDir>,
}

fn options(clock: &Arc<ManualClock>) -> Options {
    Options::new()
        .clock(clock.clone())
        .write_buffer_bytes(16 << 10)
        .target_file_bytes(16 << 10)
        .block_bytes(512)
        .level0_runs(2)
        .default_durability(Durability::Buffered)
}

fn on_disk() -> Engine {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let directory = tempfile::tempdir().unwrap();
    Engine {
        db: options(&clock).open(directory.path().join("db")).unwrap(),
        clock,
        _directory: Some(directory),
    }
}

fn in_memory() -> Engine {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    Engine {
        db: options(&clock).open_in_memory().unwrap(),
        clock,
        _directory: None,
    }
}

fn within_a_memory_limit() -> Engine {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = options(&clock).memory_limit_bytes(64 << 20);
    Engine {
        db: options.open_in_memory().unwrap(),
        clock,
        _directory: None,
    }
}

macro_rules! behaviours {
    ($($name:ident)*) => {
        behaviours! { @engine on_disk $($name)* }
        behaviours! { @engine in_memory $($name)* }
        behaviours! { @engine within_a_memory_limit $($name)* }
    };
    (@engine $engine:ident $($name:ident)*) => {
        mod $engine {
            $(#[test]
            fn $name() {
                super::$name(&super::$engine());
            })*
        }
    };
}

behaviours! {
    points_batches_and_counts
    ranges_in_both_directions
    cursors_move_freely
    snapshots_do_not_move
    range_deletes
    expiry_on_every_read_path
    extreme_times_to_live
    a_clock_that_is_turned_back
    cleaning_up
    keyspaces
    transactions
    bulk_loads
    bad_input_changes_nothing
    options_that_change
    maintenance_changes_nothing
    random_operations_as_a_map
    closing
}

fn keys(db: &Db) -> Vec<Vec<u8>> {
    db.iter().map(|entry| entry.unwrap().0.to_vec()).collect()
}

fn text(value: Option<Value>) -> Option<String> {
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// Moves what is there through the levels, differently for each `round`.
fn settle(db: &Db, round: usize) {
    match round % 3 {
        0 => {}
        1 => db.flush().unwrap(),
        _ => db.compact().unwrap(),
    }
}

fn points_batches_and_counts(engine: &Engine) {
    let db = &engine.db;
    for round in 0..3 {
        db.put("a", format!("{round}")).unwrap();
        let mut batch = WriteBatch::new();
        batch.put("b", "first");
        batch.put("b", "last");
        batch.put("c", "gone");
        batch.delete("c");
        db.write(batch).unwrap();
        db.delete("never there").unwrap();
        settle(db, round);
        assert_eq!(text(db.get("a").unwrap()), Some(round.to_string()));
        assert_eq!(text(db.get("b").unwrap()).as_deref(), Some("last"));
        assert!(db.contains_key("b").unwrap() && !db.contains_key("c").unwrap());
        let values = db.multi_get(["c", "b", "a", "never"]).unwrap();
        let values: Vec<_> = values.into_iter().map(text).collect();
        let expected = [None, Some("last".into()), Some(round.to_string()), None];
        assert_eq!(values, expected);
        assert_eq!(db.count().unwrap(), 2);
    }
    db.put("empty value", "").unwrap();
    assert_eq!(text(db.get("empty value").unwrap()).as_deref(), Some(""));
    db.clear().unwrap();
    assert_eq!(db.count().unwrap(), 0);
}

fn ranges_in_both_directions(engine: &Engine) {
    let db = &engine.db;
    for i in 0..500u32 {
        db.put(format!("k{i:03}"), [7; 100]).unwrap();
        if i % 100 == 99 {
            settle(db, i as usize / 100);
        }
    }
    let names = |entries: esker::Entries| -> Vec<String> {
        let keys = entries.map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap());
        keys.collect()
    };
    assert_eq!(names(db.range("k010".."k013")), ["k010", "k011", "k012"]);
    assert_eq!(names(db.range("k010"..="k012")), ["k010", "k011", "k012"]);
    assert_eq!(names(db.prefix("k49")).len(), 10);
    assert_eq!(db.range("k498"..).count(), 2);
    assert_eq!(db.range(.."k002").count(), 2);
    let mut backwards: Vec<_> = db
        .iter()
        .rev()
        .map(|entry| entry.unwrap().0.to_vec())
        .collect();
    backwards.reverse();
    assert_eq!(backwards, keys(db));
    // Both ends meet once.
    let mut both = db.range("k100".."k105");
    let mut seen = 0;
    while both.next().is_some() && both.next_back().is_some() {
        seen += 2;
    }
    assert_eq!(seen, 4);
}

fn cursors_move_freely(engine: &Engine) {
    let db = &engine.db;
    for i in (0..300u32).step_by(3) {
        db.put(i.to_be_bytes(), i.to_string()).unwrap();
        if i == 150 {
            db.flush().unwrap();
        }
    }
    let at = |cursor: &Cursor| cursor.valid().then(|| cursor.key().to_vec());
    let key = |i: u32| Some(i.to_be_bytes().to_vec());
    let mut cursor = db.cursor();
    cursor.seek(100u32.to_be_bytes()).unwrap();
    assert_eq!(at(&cursor), key(102));
    assert_eq!(cursor.value(), b"102");
    cursor.prev().unwrap();
    assert_eq!(at(&cursor), key(99));
    cursor.seek_for_prev(98u32.to_be_bytes()).unwrap();
    assert_eq!(at(&cursor), key(96));
    cursor.next().unwrap();
    assert_eq!(at(&cursor), key(99));
    cursor.seek_to_last().unwrap();
    assert_eq!(at(&cursor), key(297));
    cursor.next().unwrap();
    assert_eq!(at(&cursor), None);
    cursor.seek_to_first().unwrap();
    db.put(1u32.to_be_bytes(), "later").unwrap();
    cursor.next().unwrap();
    assert_eq!(at(&cursor), key(3), "a cursor does not move in time");
}

fn snapshots_do_not_move(engine: &Engine) {
    let db = &engine.db;
    let other = db.keyspace("other").unwrap();
    for i in 0..200u32 {
        db.put(i.to_be_bytes(), [1; 200]).unwrap();
    }
    other.put("k", "old").unwrap();
    let snapshot = db.snapshot();
    for i in 0..200u32 {
        db.put(i.to_be_bytes(), [2; 200]).unwrap();
    }
    db.delete_range(100u32.to_be_bytes()..).unwrap();
    other.put("k", "new").unwrap();
    for round in 0..3 {
        settle(db, round);
        assert_eq!((db.count().unwrap(), snapshot.count().unwrap()), (100, 200));
        let value = snapshot.get(150u32.to_be_bytes()).unwrap().unwrap();
        assert_eq!(&*value, [1; 200]);
        assert_eq!(
            text(snapshot.get_in(&other, "k").unwrap()).as_deref(),
            Some("old")
        );
        assert_eq!(snapshot.of(&other).iter().count(), 1);
        assert_eq!(
            (
                snapshot.count_in(&other).unwrap(),
                snapshot.iter_in(&other).count()
            ),
            (1, 1)
        );
        assert_eq!(snapshot.range_in(&other, "a".."z").rev().count(), 1);
        assert_eq!(snapshot.ttl_in(&other, "k").unwrap(), None);
        let found = snapshot.multi_get_in(&other, ["k", "l"]).unwrap();
        assert!(found[0].is_some() && found[1].is_none());
    }
}

fn range_deletes(engine: &Engine) {
    let db = &engine.db;
    for round in 0..3usize {
        for i in 0..100u32 {
            db.put(i.to_be_bytes(), "v").unwrap();
        }
        settle(db, round);
        db.delete_range(10u32.to_be_bytes()..90u32.to_be_bytes())
            .unwrap();
        db.put(50u32.to_be_bytes(), "after").unwrap();
        settle(db, round + 1);
        assert_eq!(db.count().unwrap(), 21);
        assert_eq!(db.iter().rev().count(), 21);
        assert!(db.get(10u32.to_be_bytes()).unwrap().is_none());
        assert!(db.get(90u32.to_be_bytes()).unwrap().is_some());
        assert_eq!(
            text(db.get(50u32.to_be_bytes()).unwrap()).as_deref(),
            Some("after")
        );
        db.delete_range::<&[u8]>(..).unwrap();
        assert_eq!(db.count().unwrap(), 0);
    }
}

fn keyspaces(engine: &Engine) {
    let db = &engine.db;
    let brief = KeyspaceOptions::new().default_ttl(10 * SECOND);
    let users = db.keyspace("users").unwrap();
    let sessions = db.keyspace_with("sessions", &brief).unwrap();
    let mut batch = WriteBatch::new();
    batch.put("k", "default");
    batch.put_in(&users, "k", "users");
    batch.put_in(&sessions, "k", "sessions");
    db.write(batch).unwrap();
    for round in 0..3 {
        settle(db, round);
        assert_eq!(text(db.get("k").unwrap()).as_deref(), Some("default"));
        assert_eq!(text(users.get("k").unwrap()).as_deref(), Some("users"));
        assert_eq!(
            text(sessions.get("k").unwrap()).as_deref(),
            Some("sessions")
        );
    }
    assert_eq!(sessions.ttl("k").unwrap(), Some(10 * SECOND));
    users.delete_range("a".."z").unwrap();
    users.flush().unwrap();
    users.compact_range("a".."z").unwrap();
    assert_eq!((users.count().unwrap(), sessions.count().unwrap()), (0, 1));
    assert_eq!(
        db.keyspace_names().unwrap(),
        ["default", "sessions", "users"]
    );
    db.drop_keyspace("sessions").unwrap();
    assert_eq!(
        sessions.put("k", "v").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        db.drop_keyspace("sessions").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let again = db.keyspace("sessions").unwrap();
    assert_eq!(again.count().unwrap(), 0);
    assert_eq!(
        again.options().default_ttl(),
        None,
        "a new one under an old name"
    );
    assert_eq!(
        db.drop_keyspace("default").unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

fn transactions(engine: &Engine) {
    let db = &engine.db;
    db.put("balance", "10").unwrap();
    let mut tx = db.begin().unwrap();
    tx.put("own", "v").unwrap();
    assert!(tx.get("own").unwrap().is_some() && db.get("own").unwrap().is_none());
    let point = tx.savepoint();
    tx.delete("balance").unwrap();
    assert_eq!(tx.iter().count(), 1);
    tx.rollback_to(point).unwrap();
    assert_eq!(tx.iter().count(), 2);
    tx.commit().unwrap();
    let mut first = db.begin().unwrap();
    let mut second = db.begin().unwrap();
    assert!(first.get("x").unwrap().is_none() && second.get("x").unwrap().is_none());
    first.put("x", "1").unwrap();
    second.put("x", "2").unwrap();
    first.commit().unwrap();
    assert_eq!(second.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(text(db.get("x").unwrap()).as_deref(), Some("1"));
    let mut dropped = db.begin().unwrap();
    dropped.put("x", "3").unwrap();
    drop(dropped);
    assert_eq!(text(db.get("x").unwrap()).as_deref(), Some("1"));
}

fn bulk_loads(engine: &Engine) {
    let db = &engine.db;
    db.put(5u32.to_be_bytes(), "older").unwrap();
    let loaded = db
        .ingest((0..2000u32).map(|i| (i.to_be_bytes(), "loaded")))
        .unwrap();
    assert_eq!(loaded, 2000);
    db.put(7u32.to_be_bytes(), "newer").unwrap();
    for round in 0..3 {
        settle(db, round);
        assert_eq!(db.count().unwrap(), 2000);
        assert_eq!(
            text(db.get(5u32.to_be_bytes()).unwrap()).as_deref(),
            Some("loaded")
        );
        assert_eq!(
            text(db.get(7u32.to_be_bytes()).unwrap()).as_deref(),
            Some("newer")
        );
    }
    let unsorted = db.ingest([("b", "1"), ("a", "2")]).unwrap_err();
    assert_eq!(unsorted.kind(), ErrorKind::InvalidArgument);
    assert_eq!(db.count().unwrap(), 2000);
}

fn bad_input_changes_nothing(engine: &Engine) {
    let db = &engine.db;
    let kind = |result: esker::Result<()>| result.unwrap_err().kind();
    let limit = RuntimeOptions::new().max_key_bytes(8).max_value_bytes(8);
    db.set_options(&limit).unwrap();
    assert_eq!(kind(db.put("", "v")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.put("nine bytes", "v")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.put("k", "nine bytes")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.delete_range("b".."a")), ErrorKind::InvalidArgument);
    let mut batch = WriteBatch::new();
    batch.put("fine", "v");
    batch.put("", "v");
    assert_eq!(kind(db.write(batch)), ErrorKind::InvalidArgument);
    let elsewhere = Options::new().open_in_memory().unwrap();
    assert_eq!(
        kind(db.snapshot().count_in(&elsewhere).map(drop)),
        ErrorKind::InvalidArgument
    );
    let mut batch = WriteBatch::new();
    batch.put_in(&elsewhere, "k", "v");
    assert_eq!(kind(db.write(batch)), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.keyspace("").map(drop)), ErrorKind::InvalidArgument);
    assert_eq!(db.count().unwrap(), 0);
    db.put("k", "v").unwrap();
}

fn options_that_change(engine: &Engine) {
    let db = &engine.db;
    let change = RuntimeOptions::new()
        .default_ttl(10 * SECOND)
        .default_durability(Durability::Volatile);
    db.set_options(&change).unwrap();
    assert_eq!(db.options().default_durability(), Durability::Volatile);
    db.put("k", "v").unwrap();
    assert_eq!(db.ttl("k").unwrap(), Some(10 * SECOND));
    db.put_opt("forever", "v", &WriteOptions::new().ttl(None))
        .unwrap();
    engine.clock.advance(10 * SECOND);
    assert_eq!(keys(db), [b"forever"]);
}

fn maintenance_changes_nothing(engine: &Engine) {
    let db = &engine.db;
    for i in 0..3000u32 {
        db.put((i % 700).to_be_bytes(), i.to_string()).unwrap();
    }
    let before: Vec<_> = db.iter().map(Result::unwrap).collect();
    assert_eq!(before.len(), 700);
    let same = || assert!(db.iter().map(Result::unwrap).eq(before.iter().cloned()));
    db.flush().unwrap();
    same();
    db.wait_for_background_work().unwrap();
    same();
    db.compact_range(100u32.to_be_bytes()..200u32.to_be_bytes())
        .unwrap();
    same();
    db.compact().unwrap();
    same();
    let report = db.validate().unwrap();
    assert!(report.is_ok(), "{:?}", report.issues());
    let stats = db.stats();
    assert!(stats.user_bytes_written() > 0 && stats.memory_bytes() > 0);
    assert_eq!(db.levels_entries(), 700, "everything overwritten is gone");
    assert!(db.background_errors().is_empty());
}

trait LevelsEntries {
    fn levels_entries(&self) -> u64;
}

impl LevelsEntries for Db {
    fn levels_entries(&self) -> u64 {
        self.stats()
            .levels()
            .iter()
            .map(|level| level.entries)
            .sum()
    }
}

/// Random puts, deletes, range deletes, flushes and merges, compared with a sorted map after each
/// hundred.
fn random_operations_as_a_map(engine: &Engine) {
    let db = &engine.db;
    let mut map = BTreeMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for step in 0..3000u32 {
        let key = draw(400).to_be_bytes().to_vec();
        match draw(100) {
            0..70 => {
                let value = vec![step as u8; draw(200) as usize];
                db.put(&key, &value).unwrap();
                map.insert(key, value);
            }
            70..95 => {
                db.delete(&key).unwrap();
                map.remove(&key);
            }
            95..97 => {
                let end =
                    (u64::from_be_bytes(key.clone().try_into().unwrap()) + draw(40)).to_be_bytes();
                db.delete_range(&key[..]..&end[..]).unwrap();
                map.retain(|known, _| *known < key || *known >= end.to_vec());
            }
            97 => db.flush().unwrap(),
            98 => db.compact_range(&key[..]..).unwrap(),
            _ => assert_eq!(
                db.get(&key).unwrap().as_deref(),
                map.get(&key).map(Vec::as_slice)
            ),
        }
        if step % 100 == 99 {
            let found: BTreeMap<_, _> = db
                .iter()
                .map(|entry| {
                    entry
                        .map(|(key, value)| (key.to_vec(), value.to_vec()))
                        .unwrap()
                })
                .collect();
            assert!(found == map, "after {step} steps");
        }
    }
}

fn closing(engine: &Engine) {
    let db = engine.db.clone();
    let keyspace = db.keyspace("k").unwrap();
    let mut cursor = db.cursor();
    let snapshot = db.snapshot();
    db.close().unwrap();
    db.close().unwrap();
    assert_eq!(db.get("k").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(
        keyspace.put("k", "v").unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(snapshot.get("k").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(
        cursor.seek_to_first().unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(db.begin().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(db.keyspace_names().unwrap_err().kind(), ErrorKind::Closed);
}

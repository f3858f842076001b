//! Times to live: to the last millisecond, on every way to look for a key, over clocks that turn back, and
//! the removal of what has expired.

use super::{Engine, SECOND, keys, settle};
use esker::{Db, RuntimeOptions};
use std::time::Duration;

/// A key lives to the last millisecond of its time and is gone from then on, by whichever way it is
/// looked for, in snapshots and transactions that began before.
pub(crate) fn expiry_on_every_read_path(engine: &Engine) {
    let (db, clock) = (&engine.db, &engine.clock);
    for round in 0..3 {
        db.clear().unwrap();
        db.put("a", "stays").unwrap();
        db.put_with_ttl("b", "goes", 10 * SECOND).unwrap();
        db.put("c", "stays").unwrap();
        settle(db, round);
        let snapshot = db.snapshot();
        let mut tx = db.begin().unwrap();
        tx.put_with_ttl("own", "goes", 10 * SECOND).unwrap();
        let mut cursor = db.cursor();
        cursor.seek_to_first().unwrap();
        clock.advance(10 * SECOND - Duration::from_millis(1));
        assert_eq!(db.ttl("b").unwrap(), Some(Duration::from_millis(1)));
        assert_eq!((db.count().unwrap(), snapshot.count().unwrap()), (3, 3));
        assert!(db.get("b").unwrap().is_some() && tx.get("own").unwrap().is_some());
        clock.advance(Duration::from_millis(1));
        assert!(db.get("b").unwrap().is_none());
        assert!(!db.contains_key("b").unwrap());
        assert_eq!(db.ttl("b").unwrap(), None);
        assert!(db.multi_get(["b"]).unwrap()[0].is_none());
        assert_eq!(keys(db), [b"a", b"c"]);
        assert_eq!(db.iter().rev().count(), 2);
        assert_eq!(db.prefix("b").count(), 0);
        assert_eq!(db.range("b".."c").rev().count(), 0);
        assert!(snapshot.get("b").unwrap().is_none());
        assert_eq!(
            (snapshot.count().unwrap(), snapshot.iter().rev().count()),
            (2, 2)
        );
        assert!(tx.get("b").unwrap().is_none() && tx.get("own").unwrap().is_none());
        assert_eq!(tx.iter().count(), 2);
        tx.rollback().unwrap();
        cursor.next().unwrap();
        assert_eq!(cursor.key(), b"c");
        cursor.prev().unwrap();
        assert_eq!(cursor.key(), b"a");
        cursor.seek("b").unwrap();
        assert_eq!(cursor.key(), b"c");
        cursor.seek_for_prev("b").unwrap();
        assert_eq!(cursor.key(), b"a");
        assert!(!db.set_ttl("b", SECOND).unwrap() && !db.persist("b").unwrap());
    }
}

pub(crate) fn extreme_times_to_live(engine: &Engine) {
    let (db, clock) = (&engine.db, &engine.clock);
    db.put_with_ttl("zero", "v", Duration::ZERO).unwrap();
    assert!(db.get("zero").unwrap().is_none(), "no time to live at all");
    db.put_with_ttl("tiny", "v", Duration::from_nanos(1))
        .unwrap();
    assert!(db.get("tiny").unwrap().is_some(), "rounded up");
    db.put_with_ttl("huge", "v", Duration::MAX).unwrap();
    db.put_with_ttl("large", "v", Duration::from_millis(u64::MAX))
        .unwrap();
    clock.advance(1_000_000_000 * SECOND);
    for round in 0..3 {
        settle(db, round);
        assert_eq!(keys(db), [&b"huge"[..], b"large"]);
        assert!(db.ttl("huge").unwrap() > Some(1_000_000_000 * SECOND));
    }
    assert!(db.persist("huge").unwrap());
    assert_eq!(db.ttl("huge").unwrap(), None);
}

pub(crate) fn a_clock_that_is_turned_back(engine: &Engine) {
    let (db, clock) = (&engine.db, &engine.clock);
    db.put_with_ttl("k", "v", 10 * SECOND).unwrap();
    db.put_with_ttl("longer", "v", 20 * SECOND).unwrap();
    clock.advance(10 * SECOND);
    assert!(db.get("k").unwrap().is_none());
    clock.set_wall_millis(0);
    assert!(
        db.get("k").unwrap().is_none(),
        "what has expired stays expired"
    );
    assert_eq!(keys(db), [b"longer"]);
    clock.advance(9 * SECOND);
    assert_eq!(db.ttl("longer").unwrap(), Some(SECOND), "and time goes on");
    clock.advance(SECOND);
    assert!(db.is_empty_now());
}

trait IsEmptyNow {
    fn is_empty_now(&self) -> bool;
}

impl IsEmptyNow for Db {
    fn is_empty_now(&self) -> bool {
        self.iter().next().is_none()
    }
}

pub(crate) fn cleaning_up(engine: &Engine) {
    let (db, clock) = (&engine.db, &engine.clock);
    let interval = RuntimeOptions::new().ttl_cleanup_interval(30 * SECOND);
    db.set_options(&interval).unwrap();
    for i in 0..500u32 {
        db.put_with_ttl(i.to_be_bytes(), [1; 50], 10 * SECOND)
            .unwrap();
        db.put((1000 + i).to_be_bytes(), [1; 50]).unwrap();
    }
    assert_eq!(db.cleanup_expired().unwrap(), 0);
    clock.advance(10 * SECOND);
    assert_eq!(db.cleanup_expired().unwrap(), 500);
    assert_eq!(db.cleanup_expired().unwrap(), 0);
    assert_eq!(db.stats().expired_removed(), 500);
    // In the background the same happens when the clock says so.
    for i in 0..300u32 {
        db.put_with_ttl(i.to_be_bytes(), [1; 50], SECOND).unwrap();
    }
    clock.advance(SECOND);
    db.wait_for_background_work().unwrap();
    assert_eq!(db.stats().expired_removed(), 500, "not before its time");
    clock.advance(30 * SECOND);
    db.wait_for_background_work().unwrap();
    assert_eq!(db.cleanup_expired().unwrap(), 0, "nothing is left to do");
    // A key that is written again is not removed.
    db.put_with_ttl("again", "v", SECOND).unwrap();
    clock.advance(2 * SECOND);
    db.put("again", "v").unwrap();
    clock.advance(60 * SECOND);
    db.wait_for_background_work().unwrap();
    assert!(db.get("again").unwrap().is_some());
    assert_eq!(db.count().unwrap(), 501);
    // Without an interval nothing happens by itself.
    db.set_options(&RuntimeOptions::new().ttl_cleanup_interval(None))
        .unwrap();
    db.put_with_ttl("left", "v", SECOND).unwrap();
    clock.advance(1000 * SECOND);
    db.wait_for_background_work().unwrap();
    assert_eq!(db.cleanup_expired().unwrap(), 1);
}

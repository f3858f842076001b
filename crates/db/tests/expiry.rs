//! Times to live after the write: changed, removed, cleaned up, with others writing meanwhile.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{Db, ManualClock, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn open(clock: &Arc<ManualClock>) -> Db {
    let clock = Arc::clone(clock);
    // None in the background: moving the clock would begin one, which counts what it removes elsewhere.
    let options = Options::new().clock(clock).ttl_cleanup_interval(None);
    let options = options.write_buffer_bytes(16 << 10);
    options.open_in_memory().unwrap()
}

#[test]
fn cleaning_up_counts_each_expired_key_once_wherever_it_lies() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let db = open(&clock);
    let other = db.keyspace("other").unwrap();
    let second = Duration::from_secs(1);
    for i in 0..1000u32 {
        db.put_with_ttl(i.to_be_bytes(), "brief", second).unwrap();
    }
    db.flush().unwrap();
    // Some have older versions, some newer ones that stay, some are gone already.
    for i in 0..100u32 {
        db.put_with_ttl(i.to_be_bytes(), "brief again", second)
            .unwrap();
    }
    for i in 100..150u32 {
        db.put(i.to_be_bytes(), "for good").unwrap();
    }
    for i in 150..200u32 {
        db.put_with_ttl(i.to_be_bytes(), "longer", 100 * second)
            .unwrap();
    }
    db.delete_range(200u32.to_be_bytes()..250u32.to_be_bytes())
        .unwrap();
    other.put_with_ttl("k", "v", second).unwrap();
    assert_eq!(db.cleanup_expired().unwrap(), 0);
    clock.advance(2 * second);
    assert_eq!(db.cleanup_expired().unwrap(), 1000 - 150 + 1);
    assert_eq!(db.cleanup_expired().unwrap(), 0);
    assert_eq!(db.count().unwrap(), 100);
    clock.advance(200 * second);
    assert_eq!((*db).cleanup_expired().unwrap(), 50);
    assert_eq!(db.count().unwrap(), 50);
}

#[test]
fn a_time_to_live_is_changed_only_where_there_is_a_value() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let db = open(&clock);
    let minute = Duration::from_secs(60);
    assert!(!db.set_ttl("k", minute).unwrap());
    assert!(!db.persist("k").unwrap());
    db.put("k", "v").unwrap();
    assert!(!db.persist("k").unwrap(), "it had no expiry");
    assert!(db.set_ttl("k", minute).unwrap());
    assert_eq!(db.ttl("k").unwrap(), Some(minute));
    clock.advance(minute / 2);
    assert!(db.set_ttl("k", minute).unwrap());
    clock.advance(minute / 2);
    assert!(db.persist("k").unwrap());
    clock.advance(10 * minute);
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    assert!(db.set_ttl("k", minute).unwrap());
    clock.advance(minute);
    assert!(!db.set_ttl("k", minute).unwrap(), "it has expired");
    assert!(!db.persist("k").unwrap());
}

#[test]
fn what_is_written_meanwhile_is_never_removed() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let db = open(&clock);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                db.cleanup_expired().unwrap();
            }
        });
        for round in 0..2000u32 {
            let key = (round % 16).to_be_bytes();
            db.put_with_ttl(key, "brief", Duration::from_millis(1))
                .unwrap();
            clock.advance(Duration::from_millis(5));
            db.put(key, round.to_string()).unwrap();
            let found = db.get(key).unwrap();
            assert_eq!(found.as_deref(), Some(round.to_string().as_bytes()));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(db.count().unwrap(), 16);
}

/// A clock that was turned back while the database was closed does not bring back what somebody may
/// have seen expire.
#[test]
fn what_has_expired_stays_expired_in_the_next_life() {
    let fs = Arc::new(MemFileSystem::new());
    let open_at = |millis: u64| {
        let fs: Arc<dyn FileSystem> = fs.clone();
        let clock = Arc::new(ManualClock::at_millis(millis));
        let options = Options::new().file_system(fs).clock(clock.clone());
        (options.open("/db").unwrap(), clock)
    };
    let second = Duration::from_secs(1);
    let (db, clock) = open_at(1_000_000);
    db.put_with_ttl("in a table", "v", 10 * second).unwrap();
    db.put_with_ttl("longer", "v", 100 * second).unwrap();
    db.flush().unwrap();
    db.put_with_ttl("in the log", "v", 10 * second).unwrap();
    clock.advance(10 * second);
    assert!(db.get("in a table").unwrap().is_none() && db.get("in the log").unwrap().is_none());
    db.close().unwrap();
    // Each life sees a little more time, however early its clock says that it is.
    let mut left = 90 * second;
    for millis in [500_000, 1, 700_000] {
        let (db, clock) = open_at(millis);
        assert!(db.get("in a table").unwrap().is_none() && db.get("in the log").unwrap().is_none());
        assert_eq!(db.ttl("longer").unwrap(), Some(left), "at {millis}");
        clock.advance(20 * second);
        left -= 20 * second;
        // Nothing is written here; a key that is seen to expire is enough to be remembered.
        db.put_with_ttl("brief", "v", second).unwrap();
        db.flush().unwrap();
        clock.advance(5 * second);
        left -= 5 * second;
        assert!(db.get("brief").unwrap().is_none());
        db.close().unwrap();
    }
    let (db, clock) = open_at(3);
    assert_eq!(db.count().unwrap(), 1);
    clock.advance(left);
    assert_eq!(db.count().unwrap(), 0);
}

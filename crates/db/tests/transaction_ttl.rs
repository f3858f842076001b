//! Times to live in transactions: of its own writes and of what it found, given, taken away, rolled back
//! to a savepoint, and against others who write the same key.

use esker::{Db, ErrorKind, Isolation, KeyspaceOptions, ManualClock, Options, TransactionOptions};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn open() -> (Arc<ManualClock>, Db) {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = Options::new()
        .clock(clock.clone())
        .ttl_cleanup_interval(None);
    (clock, options.open_in_memory().unwrap())
}

#[test]
fn it_sees_and_changes_what_it_found_and_what_it_wrote() {
    let (clock, db) = open();
    let other = db.keyspace("other").unwrap();
    db.put_with_ttl("found", "1", 10 * SECOND).unwrap();
    let mut tx = db.begin().unwrap();
    assert_eq!(tx.ttl("found").unwrap(), Some(10 * SECOND));
    assert!(tx.set_ttl("found", HOUR).unwrap());
    assert_eq!(tx.ttl("found").unwrap(), Some(HOUR));
    assert_eq!(
        db.ttl("found").unwrap(),
        Some(10 * SECOND),
        "nobody else sees it"
    );
    tx.put_with_ttl_in(&other, "own", "2", SECOND).unwrap();
    assert_eq!(tx.ttl_in(&other, "own").unwrap(), Some(SECOND));
    assert!(tx.persist_in(&other, "own").unwrap());
    assert!(
        !tx.persist_in(&other, "own").unwrap(),
        "it has none any more"
    );
    assert_eq!(tx.ttl_in(&other, "own").unwrap(), None);
    assert!(!tx.set_ttl("nothing", SECOND).unwrap());
    assert!(!tx.persist("nothing").unwrap());
    tx.put_with_ttl("brief", "3", SECOND).unwrap();
    clock.advance(SECOND);
    // Its own write has expired by now.
    assert_eq!(tx.get("brief").unwrap(), None);
    assert_eq!(tx.ttl("brief").unwrap(), None);
    assert!(!tx.set_ttl("brief", HOUR).unwrap());
    assert_eq!(tx.iter().count(), 1);
    tx.delete("found").unwrap();
    assert!(!tx.set_ttl("found", HOUR).unwrap());
    tx.commit().unwrap();
    assert_eq!(db.count().unwrap(), 0);
    assert_eq!(other.ttl("own").unwrap(), None);
    assert_eq!(other.get("own").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn the_default_of_a_keyspace_is_what_it_will_be_unless_it_is_taken_away() {
    let (clock, db) = open();
    let sessions = db.keyspace("sessions").unwrap();
    sessions
        .set_options(&KeyspaceOptions::new().default_ttl(HOUR))
        .unwrap();
    let mut tx = db.begin().unwrap();
    tx.put_in(&sessions, "a", "1").unwrap();
    tx.put_in(&sessions, "b", "1").unwrap();
    tx.put("plain", "1").unwrap();
    assert_eq!(tx.ttl("plain").unwrap(), None);
    assert_eq!(tx.ttl_in(&sessions, "a").unwrap(), Some(HOUR));
    assert!(tx.persist_in(&sessions, "a").unwrap());
    assert_eq!(tx.ttl_in(&sessions, "a").unwrap(), None);
    let before = tx.savepoint();
    assert!(tx.persist_in(&sessions, "b").unwrap());
    tx.rollback_to(before).unwrap();
    assert_eq!(tx.ttl_in(&sessions, "b").unwrap(), Some(HOUR));
    // The place of what was rolled back belongs to another put now.
    tx.put_in(&sessions, "c", "1").unwrap();
    assert_eq!(tx.ttl_in(&sessions, "c").unwrap(), Some(HOUR));
    clock.advance(SECOND);
    tx.commit().unwrap();
    assert_eq!(sessions.ttl("a").unwrap(), None);
    assert_eq!(sessions.ttl("b").unwrap(), Some(HOUR), "from the commit on");
    assert_eq!(sessions.ttl("c").unwrap(), Some(HOUR));
    assert_eq!(db.ttl("plain").unwrap(), None);
    clock.advance(HOUR);
    assert_eq!(sessions.count().unwrap(), 1);
}

/// Giving a key a time to live writes the value that was read: whoever wrote another meanwhile wins.
#[test]
fn it_overwrites_nobody_under_any_isolation() {
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        for is_pessimistic in [false, true] {
            let (_clock, db) = open();
            db.put_with_ttl("k", "old", HOUR).unwrap();
            let mut options = TransactionOptions::new().isolation(isolation);
            if is_pessimistic {
                options = options.pessimistic();
            }
            type Change = fn(&mut esker::Transaction) -> esker::Result<bool>;
            let changes: [Change; 2] = [|tx| tx.set_ttl("k", SECOND), |tx| tx.persist("k")];
            for change in changes {
                let mut tx = db.begin_with(&options).unwrap();
                assert!(change(&mut tx).unwrap());
                db.put_with_ttl("k", "new", 2 * HOUR).unwrap();
                let error = tx.commit().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"new"[..]));
                assert_eq!(db.ttl("k").unwrap(), Some(2 * HOUR));
            }
        }
    }
}

/// The clock of a transaction, of a snapshot and of what iterates over them is everybody's: what expires is
/// gone at its instant, for every way of reading, and that is no conflict.
#[test]
fn a_value_expires_within_a_transaction_at_its_instant_for_every_way_of_reading() {
    let (clock, db) = open();
    for key in ["a", "b", "c"] {
        db.put_with_ttl(key, "v", 10 * SECOND).unwrap();
    }
    db.put("stays", "v").unwrap();
    let snapshot = db.snapshot();
    let mut tx = db.begin().unwrap();
    clock.advance(10 * SECOND - Duration::from_millis(1));
    assert!(tx.get("a").unwrap().is_some());
    assert_eq!(tx.ttl("a").unwrap(), Some(Duration::from_millis(1)));
    let mut under_way = tx.iter();
    assert_eq!(&under_way.next().unwrap().unwrap().0[..], b"a");
    let mut cursor = tx.cursor();
    cursor.seek_to_first().unwrap();
    let held = snapshot.iter();
    clock.advance(Duration::from_millis(1));
    assert!(cursor.next().is_ok() && cursor.key() == b"stays");
    let left: Vec<Vec<u8>> = under_way.map(|entry| entry.unwrap().0.to_vec()).collect();
    assert_eq!(left, [b"stays"]);
    assert_eq!(held.count(), 1);
    assert_eq!(tx.get("a").unwrap(), None);
    assert_eq!(tx.ttl("a").unwrap(), None);
    assert_eq!(tx.get_for_update("b").unwrap(), None);
    assert_eq!(
        tx.multi_get(["a", "c", "stays"])
            .unwrap()
            .iter()
            .flatten()
            .count(),
        1
    );
    assert!(!tx.set_ttl("c", HOUR).unwrap());
    assert_eq!(snapshot.get("a").unwrap(), None);
    tx.put("last", "v").unwrap();
    tx.commit().unwrap();
    assert_eq!(db.count().unwrap(), 2);
    // A clean-up writes: who has read what it removes tries again.
    let mut tx = db.begin().unwrap();
    assert_eq!(tx.get("a").unwrap(), None);
    assert_eq!(db.cleanup_expired().unwrap(), 3);
    tx.put("last", "w").unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
}

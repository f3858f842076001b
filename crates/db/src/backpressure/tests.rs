//! Writers are held to the pace of flushes, and no others.

use crate::{Keyspace, ManualClock, Options};
use esker_base::clock::Clock;
use esker_compaction::ManualExecutor;
use esker_vfs::MemFileSystem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The story: the pace of a keyspace was forgotten with each write to another one, so that writers of two in turn
/// never waited, and stopped for a whole flush instead.
#[test]
fn writers_keep_the_pace_of_flushes_whatever_else_is_written() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = Options::new()
        .clock(clock.clone())
        .write_buffer_bytes(1 << 20);
    // Nothing is flushed while nobody waits for it.
    let db = options
        .executor(Arc::new(ManualExecutor::new(0)))
        .open_in_memory()
        .unwrap();
    let (short, other) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    let engine = db.engine();
    engine
        .background
        .flush_bytes_per_second
        .store(1_000_000, Ordering::Relaxed);
    let put = |keyspace: &Keyspace, number: u32| {
        keyspace.put(number.to_be_bytes(), [7; 1000]).unwrap();
    };
    let mut number = 0;
    let most = engine.settings.max_sealed_memtables();
    while short.state().load().sealed.len() < most {
        assert_eq!(clock.monotonic_micros(), 0, "there was room");
        put(&short, number);
        number += 1;
    }
    let began = clock.monotonic_micros();
    for _ in 0..200 {
        put(&short, number);
        put(&other, number);
        number += 1;
    }
    let waited = clock.monotonic_micros() - began;
    assert!(
        (190_000..260_000).contains(&waited),
        "{waited} microseconds"
    );
    // Those of the other keyspace alone wait for nothing.
    let began = clock.monotonic_micros();
    (0..200).for_each(|number| put(&other, number));
    assert_eq!(clock.monotonic_micros(), began);
    db.close().unwrap();
}

/// A database whose clock stands and whose jobs run while somebody waits for them, and a writer of 1,000 bytes.
fn open(clock: &Arc<ManualClock>, fs: Arc<dyn esker_vfs::FileSystem>) -> crate::Db {
    let options = Options::new()
        .clock(clock.clone())
        .file_system(fs)
        .max_sealed_memtables(1)
        .write_buffer_bytes(1 << 20);
    options
        .executor(Arc::new(ManualExecutor::new(0)))
        .open("/db")
        .unwrap()
}

/// Microseconds that a write takes.
fn put(db: &crate::Db, clock: &ManualClock, number: u32) -> u64 {
    let began = clock.monotonic_micros();
    db.put(number.to_be_bytes(), [7; 1000]).unwrap();
    clock.monotonic_micros() - began
}

/// The story: behind a slow flush the memtable that had been waited for was paid for again, at that flush's pace: a
/// writer beside readers stopped for 100 ms, and then for 200 ms more.
#[test]
fn what_a_memtable_was_waited_for_is_not_paid_for_at_the_next_ones_pace() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let db = open(&clock, Arc::new(MemFileSystem::new()));
    let engine = db.engine();
    let rate = &engine.background.flush_bytes_per_second;
    let state = db.state();
    let most = engine.settings.max_sealed_memtables();
    rate.store(u64::MAX, Ordering::Relaxed);
    let mut number = 0;
    let is_to_be_sealed = || {
        let view = state.load();
        view.sealed.len() >= most && view.active.memtable.bytes() >= 1 << 20
    };
    while !is_to_be_sealed() {
        assert_eq!(put(&db, &clock, number), 0);
        number += 1;
    }
    rate.store(1_000_000, Ordering::Relaxed);
    assert!(put(&db, &clock, number) < 10_000);
    assert!(!is_to_be_sealed(), "it was sealed");
    db.close().unwrap();
}

#[test]
fn writers_wait_while_readers_do_and_for_fewer_runs() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let db = open(&clock, Arc::new(MemFileSystem::new()));
    let engine = db.engine();
    let waits = &engine.reader_waits;
    let now = || clock.monotonic_micros();
    clock.advance(std::time::Duration::from_secs(1));
    waits.note(5_000_000, now());
    let pauses = [0, 1, 2, 3, 4, 5].map(|number| put(&db, &clock, number));
    assert_eq!(
        pauses,
        [2_000, 0, 0, 0, 0, 0],
        "no more than half of the time"
    );
    clock.advance(std::time::Duration::from_millis(2));
    let pauses = [0, 1, 2].map(|number| put(&db, &clock, number));
    assert_eq!(pauses, [2_000, 0, 0]);

    // Runs that nobody merges yet.
    let mut number = 0;
    while db
        .state()
        .load()
        .version
        .levels
        .first()
        .map_or(0, |level| level.runs.len())
        < 4
    {
        let began = now();
        put(&db, &clock, number);
        number += 1;
        assert!(number < 100_000, "no runs come together");
        if began == now() && number.is_multiple_of(100) {
            db.engine().schedule_flush();
            engine.executor.assist();
        }
    }
    clock.advance(std::time::Duration::from_secs(1));
    let waited = |readers_wait: bool, number: &mut u32| {
        let began = now();
        for _ in 0..300 {
            if readers_wait {
                waits.note(1, now());
            }
            put(&db, &clock, *number);
            *number += 1;
        }
        now() - began
    };
    assert_eq!(waited(false, &mut number), 0);
    let slowed = waited(true, &mut number);
    // 300 KB at five times the slow rate.
    assert!((2_000..6_000).contains(&slowed), "{slowed} microseconds");
    db.close().unwrap();
}

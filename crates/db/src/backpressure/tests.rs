//! Writers are held to the pace of flushes, and no others.

use crate::{Keyspace, ManualClock, Options};
use esker_base::clock::Clock;
use esker_compaction::ManualExecutor;
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

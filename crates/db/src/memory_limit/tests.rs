//! A put at the limit waits for nothing that may be waiting for it.

use crate::Options;
use esker_compaction::Lane;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The only thread for merges has a job that waits for the writer, as a clean-up of expired keys does,
/// and a merge is planned behind it. The writer came to the limit, waited for the merge to let go of its
/// tables, with the writer lock held, and nobody went on.
#[test]
fn a_writer_at_the_limit_carries_out_merges_that_wait_for_a_thread() {
    let db = Options::new()
        .memory_limit_bytes(8 << 20)
        .write_buffer_bytes(256 << 10)
        .background_threads(1)
        .open_in_memory()
        .unwrap();
    let (written, is_written) = mpsc::channel::<()>();
    let waits_for_the_writer = move || is_written.recv().unwrap_or(());
    let executor = &db.engine().executor;
    executor.spawn(Lane::Compaction, Box::new(waits_for_the_writer));
    let (finished, is_finished) = mpsc::channel();
    thread::spawn(move || {
        let write = |i: u32| db.put((i % 1000).to_be_bytes(), [i as u8; 1000]);
        let result = (0..20_000).try_for_each(write);
        drop(written);
        let _ = finished.send(result.and_then(|()| db.count()));
    });
    // Far longer than it can take.
    let counted = is_finished.recv_timeout(Duration::from_secs(120));
    let counted = counted.expect("the writer waits for itself").unwrap();
    assert_eq!(counted, 1000);
}

/// Chunks that were made ahead counted as memory that is taken: up to 2 MiB less than the limit could be written.
#[test]
fn nothing_is_made_ahead_where_memory_has_a_limit() {
    let db = Options::new()
        .memory_limit_bytes(64 << 20)
        .write_buffer_bytes(16 << 20)
        .open_in_memory()
        .unwrap();
    for key in 0..8_000_u32 {
        db.put(key.to_be_bytes(), [7; 1000]).unwrap();
    }
    db.engine().executor.join();
    assert!(db.engine().arenas.lent_bytes() > 8 << 20);
    assert_eq!(db.engine().arenas.held_bytes(), 0);
}

//! A dropped memtable returns every byte it took, although crossbeam-skiplist leaks nodes that are
//! replaced or removed: ours never are. A test binary of its own, because it counts the
//! allocations of the whole process.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use esker_base::iterator::InternalIterator;
use esker_base::{Trailer, ValueKind};
use esker_memtable::{Memtable, MemtableKind};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

struct Counting;

static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: forwards to the system allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Fills a memtable with many versions of few keys and walks through it while it grows.
fn exercise(kind: MemtableKind, rounds: u64) {
    let memtable = Arc::new(Memtable::new(kind));
    let mut sequence = 0;
    for _ in 0..rounds {
        for number in 0..100 {
            sequence += 1;
            let key = format!("key {number:04}");
            memtable.insert(
                key.as_bytes(),
                Trailer::new(sequence, ValueKind::Value),
                &[1; 50],
            );
        }
        let mut iter = memtable.iter();
        iter.seek(b"key 0050", Trailer::seek(sequence)).unwrap();
        while iter.valid() {
            iter.next().unwrap();
        }
        iter.seek_for_prev(b"key 0050", Trailer::seek(sequence))
            .unwrap();
        while iter.valid() {
            iter.prev().unwrap();
        }
        assert!(memtable.get(b"key 0099", sequence).is_some());
        memtable.add_range_tombstone(b"key 0001", b"key 0002", sequence);
    }
}

#[test]
fn a_dropped_memtable_leaves_nothing_behind() {
    let rounds = if cfg!(miri) { 2 } else { 60 };
    for kind in [MemtableKind::SkipList, MemtableKind::BTree] {
        // The first run makes whatever threads and epochs keep for good. Epoch-based reclamation
        // runs late: let the garbage of a run go before counting.
        let settled = || {
            for _ in 0..1000 {
                crossbeam_epoch::pin().flush();
            }
            LIVE_BYTES.load(Ordering::Relaxed)
        };
        exercise(kind, rounds);
        let before = settled();
        for _ in 0..3 {
            exercise(kind, rounds);
        }
        let after = settled();
        assert!(
            after - before <= 0,
            "{kind:?} left {} bytes",
            after - before
        );
    }
}

//! Readers beside a writer: whoever knows a sequence number sees everything up to it, in order and
//! whole, whatever is inserted meanwhile.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use esker_base::iterator::InternalIterator;
use esker_base::{SequenceNumber, Trailer, ValueKind};
use esker_memtable::{Memtable, MemtableKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const INSERTS: u64 = if cfg!(miri) { 40 } else { 60_000 };
const READERS: u64 = if cfg!(miri) { 2 } else { 3 };

/// In which order keys are written, and how much they share.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    Ascending,
    Descending,
    Scattered,
    /// Scattered keys that share up to eighty bytes.
    Long,
    /// Many versions of a hundred keys.
    Versions,
}

const PATTERNS: [Pattern; 5] = [
    Pattern::Ascending,
    Pattern::Descending,
    Pattern::Scattered,
    Pattern::Long,
    Pattern::Versions,
];

/// The key of the write with this sequence number.
fn key(pattern: Pattern, sequence: SequenceNumber) -> Vec<u8> {
    let scattered = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match pattern {
        Pattern::Ascending => format!("{sequence:016}"),
        Pattern::Descending => format!("{:016}", INSERTS - sequence),
        Pattern::Scattered => format!("{:016}", scattered >> 16),
        Pattern::Long => {
            let shared =
                ["", "https://", "a directory of a rather long name"][sequence as usize % 3];
            format!(
                "{}{shared}{shared}{scattered:x}",
                "/".repeat((scattered >> 60) as usize)
            )
        }
        Pattern::Versions => format!("key {:04}", scattered >> 40 & 63),
    }
    .into_bytes()
}

fn value(sequence: SequenceNumber) -> Vec<u8> {
    sequence.to_le_bytes().repeat((sequence % 5) as usize)
}

fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Everything that was ordered before `visible` is there exactly once, in order.
fn check_scan(memtable: &Arc<Memtable>, visible: SequenceNumber, forwards: bool) {
    let mut iter = memtable.iter();
    let mut seen = 0;
    let mut last: Option<(Vec<u8>, Trailer)> = None;
    if forwards {
        iter.seek_to_first().unwrap()
    } else {
        iter.seek_to_last().unwrap()
    }
    while iter.valid() {
        let at = (iter.user_key().to_vec(), iter.trailer());
        if let Some(last) = last.replace(at.clone()) {
            assert!(
                if forwards { last < at } else { last > at },
                "{last:?} {at:?}"
            );
        }
        assert_eq!(iter.value(), value(at.1.sequence()));
        seen += u64::from(at.1.sequence() <= visible);
        if forwards {
            iter.next().unwrap()
        } else {
            iter.prev().unwrap()
        }
    }
    assert_eq!(seen, visible);
}

/// A write that was ordered before `visible` is found, or a newer one of its key.
fn check_get(memtable: &Memtable, pattern: Pattern, sequence: u64, visible: SequenceNumber) {
    let key = key(pattern, sequence);
    let (trailer, found) = memtable.get(&key, visible).unwrap();
    assert!((sequence..=visible).contains(&trailer.sequence()));
    assert_eq!(found, value(trailer.sequence()));
}

/// From a key that is there, a few steps one way and back lead to it again.
fn check_walk(memtable: &Arc<Memtable>, pattern: Pattern, sequence: u64, random: u64) {
    let (key, trailer) = (
        key(pattern, sequence),
        Trailer::new(sequence, ValueKind::Value),
    );
    let mut iter = memtable.iter();
    if random & 1 == 0 {
        iter.seek(&key, trailer).unwrap();
    } else {
        iter.seek_for_prev(&key, trailer).unwrap();
    }
    assert_eq!((iter.user_key(), iter.trailer()), (key.as_slice(), trailer));
    let forwards = random & 2 == 0;
    let steps = random >> 2 & 127;
    for _ in 0..steps {
        if forwards {
            iter.next().unwrap();
        } else {
            iter.prev().unwrap();
        }
        if !iter.valid() {
            return;
        }
    }
    // Newer records may have come between: the way back may be longer, but it passes the start.
    while iter.valid() {
        if (iter.user_key(), iter.trailer()) == (key.as_slice(), trailer) {
            return;
        }
        if forwards {
            iter.prev().unwrap()
        } else {
            iter.next().unwrap()
        }
    }
    panic!("lost {key:?} {trailer:?}");
}

fn read(memtable: &Arc<Memtable>, pattern: Pattern, published: &AtomicU64, seed: u64) {
    let mut random = seed;
    loop {
        let visible = published.load(Ordering::Acquire);
        if visible == 0 {
            thread::yield_now();
            continue;
        }
        for _ in 0..if cfg!(miri) { 2 } else { 200 } {
            check_get(
                memtable,
                pattern,
                1 + next_random(&mut random) % visible,
                visible,
            );
            let sequence = 1 + next_random(&mut random) % visible;
            check_walk(memtable, pattern, sequence, next_random(&mut random));
        }
        check_scan(memtable, visible, next_random(&mut random) & 1 == 0);
        if visible == INSERTS {
            return;
        }
    }
}

fn one_writer_many_readers(kind: MemtableKind) {
    for pattern in PATTERNS {
        let memtable = Arc::new(Memtable::new(kind));
        let published = AtomicU64::new(0);
        thread::scope(|scope| {
            for seed in 1..=READERS {
                let (memtable, published) = (&memtable, &published);
                scope.spawn(move || read(memtable, pattern, published, seed));
            }
            for sequence in 1..=INSERTS {
                let trailer = Trailer::new(sequence, ValueKind::Value);
                memtable.insert(&key(pattern, sequence), trailer, &value(sequence));
                published.store(sequence, Ordering::Release);
            }
        });
        assert_eq!(memtable.entries(), INSERTS);
    }
}

fn many_writers_at_once_lose_nothing(kind: MemtableKind) {
    const WRITERS: u64 = 3;
    for pattern in PATTERNS {
        let memtable = Arc::new(Memtable::new(kind));
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let memtable = &memtable;
                scope.spawn(move || {
                    for sequence in (1..=INSERTS).filter(|it| it % WRITERS == writer) {
                        let trailer = Trailer::new(sequence, ValueKind::Value);
                        memtable.insert(&key(pattern, sequence), trailer, &value(sequence));
                    }
                });
            }
        });
        check_scan(&memtable, INSERTS, true);
        check_scan(&memtable, INSERTS, false);
        let sequences = (memtable.smallest_sequence(), memtable.largest_sequence());
        assert_eq!(
            (memtable.entries(), sequences),
            (INSERTS, (Some(1), Some(INSERTS)))
        );
    }
}

// For each kind in a module of its own: Miri checks the B+tree with all it has, but crossbeam's list
// and epochs only without the aliasing rules, which they break.
mod skip_list {
    use super::*;

    #[test]
    fn one_writer_many_readers() {
        super::one_writer_many_readers(MemtableKind::SkipList);
    }

    #[test]
    fn many_writers_at_once_lose_nothing() {
        super::many_writers_at_once_lose_nothing(MemtableKind::SkipList);
    }
}

mod b_tree {
    use super::*;

    #[test]
    fn one_writer_many_readers() {
        super::one_writer_many_readers(MemtableKind::BTree);
    }

    #[test]
    fn many_writers_at_once_lose_nothing() {
        super::many_writers_at_once_lose_nothing(MemtableKind::BTree);
    }
}

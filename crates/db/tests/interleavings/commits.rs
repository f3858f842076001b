//! The commit pipeline: the queue, the hand-over of the writer lock, and what is published.

use crate::explore;
use crate::interleaved::AtomicU64;
use crate::visible::Visible;
use crate::writer_line::{Waiter, WriterLine};
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use std::sync::Arc;

const WRITERS: u64 = 3;

/// A database of nothing but its order: which writer's record has which sequence.
struct Database {
    /// Around the sequence of the next write; bodies are the writer's name and its sequence.
    line: WriterLine<u64, (u64, u64)>,
    visible: Visible,
    memtable: Vec<AtomicU64>,
}

impl Database {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            line: WriterLine::new(1),
            visible: Visible::new(0),
            memtable: (0..=WRITERS).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// As `Engine::commit`: leads where the lock is free and nobody waits, and queues otherwise.
    fn commit(&self, name: u64) -> u64 {
        if let Some(mut next) = self.line.try_lock()
            && self.line.waiting_count() == 0
        {
            let sequence = self.insert(*next, name);
            self.visible.publish(sequence);
            *next += 1;
            return sequence;
        }
        let waiter = self.line.wait((name, 0), |next| {
            let group = self.line.take(|waiting| waiting.len());
            self.lead(next, &group);
        });
        let (_, sequence) = *waiter.body.lock();
        sequence
    }

    fn lead(&self, next: &mut u64, group: &[Arc<Waiter<(u64, u64)>>]) {
        for waiter in group {
            let mut body = waiter.body.lock();
            body.1 = self.insert(*next, body.0);
            *next += 1;
        }
        if !group.is_empty() {
            self.visible.publish(*next - 1);
        }
        group.iter().for_each(|waiter| waiter.finish());
    }

    fn insert(&self, sequence: u64, name: u64) -> u64 {
        self.memtable[sequence as usize].store(name, Relaxed);
        sequence
    }

    fn record(&self, sequence: u64) -> u64 {
        self.memtable[sequence as usize].load(Relaxed)
    }
}

#[test]
fn whoever_sees_a_sequence_finds_everything_up_to_it() {
    explore(3, || {
        let db = Database::new();
        let writer = {
            let db = Arc::clone(&db);
            thread::spawn(move || {
                db.commit(1);
                db.commit(2);
            })
        };
        let visible = db.visible.get();
        for sequence in 1..=visible {
            assert_eq!(
                db.record(sequence),
                sequence,
                "sequence {sequence} of {visible}"
            );
        }
        writer.join().unwrap();
    });
}

#[test]
fn every_writer_is_finished_with_a_place_of_its_own() {
    explore(2, || {
        let db = Database::new();
        let commit = |name| {
            let db = Arc::clone(&db);
            move || {
                let sequence = db.commit(name);
                assert!(
                    db.visible.get() >= sequence,
                    "acknowledged before it is seen"
                );
                assert_eq!(db.record(sequence), name);
            }
        };
        let writers = [thread::spawn(commit(1)), thread::spawn(commit(2))];
        commit(3)();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        assert_eq!(db.visible.get(), WRITERS);
        let mut names: Vec<_> = (1..=WRITERS).map(|sequence| db.record(sequence)).collect();
        names.sort_unstable();
        assert_eq!(names, [1, 2, 3]);
    });
}

/// A flush takes the lock and commits nothing: it must wake whoever queued meanwhile.
#[test]
fn nobody_sleeps_on_behind_a_lock_that_was_given_up() {
    explore(3, || {
        let db = Database::new();
        let flush = {
            let db = Arc::clone(&db);
            thread::spawn(move || drop(db.line.lock()))
        };
        assert_eq!(db.commit(1), 1);
        flush.join().unwrap();
    });
}

//! Every interleaving of a reader with a writer that changes the node it looks at.

use super::{Lookup, SLOTS, Slots};
use crate::arena::{Arena, RecordRef};
use crate::atomics::WRITER;
use crate::probe::Probe;
use esker_base::{Trailer, ValueKind};
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A node over an arena, which the model does not watch: what readers see of it they reach through
/// the node.
struct Node {
    slots: Slots,
    arena: Arena,
}

impl Node {
    fn with(keys: &[&str]) -> Arc<Self> {
        let node = Self {
            slots: Slots::new(),
            arena: Arena::new(4096, None),
        };
        keys.iter().for_each(|key| node.insert(key));
        Arc::new(node)
    }

    fn insert(&self, key: &str) {
        let trailer = Trailer::new(7, ValueKind::Value);
        let probe = Probe::new(key.as_bytes(), trailer);
        let record = self.arena.store(key.as_bytes(), trailer, b"");
        let position = self.slots.position(&probe, self.slots.count());
        // SAFETY: the arena is dropped together with the slots.
        unsafe { self.slots.insert(position, record, &probe, || ()) };
    }

    /// The key of the record that a search for `key` is sent to.
    fn find(&self, key: &str) -> Option<&str> {
        let probe = Probe::new(key.as_bytes(), Trailer::seek(9));
        match self.slots.read(|| self.slots.find(&probe)) {
            Lookup::Candidate(record) => Some(self.key(record)),
            Lookup::Absent | Lookup::Beyond => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        let records = self.slots.read(|| {
            (0..self.slots.count())
                .map(|index| self.slots.filled_ref(index))
                .collect::<Vec<_>>()
        });
        records.into_iter().map(|record| self.key(record)).collect()
    }

    fn key(&self, record: RecordRef) -> &str {
        // SAFETY: the record was stored in `self.arena`.
        std::str::from_utf8(unsafe { record.view() }.key).unwrap()
    }
}

/// Runs `write` beside `read` in every order that matters.
fn explore(keys: &'static [&str], write: fn(&Node), read: fn(&Node)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&orders);
    model.check(move || {
        counted.fetch_add(1, Relaxed);
        let node = Node::with(keys);
        let writer = {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                WRITER.with(|writer| writer.set(true));
                write(&node);
            })
        };
        read(&node);
        writer.join().unwrap();
    });
    assert!(orders.load(Relaxed) > 10, "loom saw nothing to reorder");
}

#[test]
fn an_insert_before_them_hides_no_record() {
    explore(
        &["b", "c"],
        |node| node.insert("a"),
        |node| {
            assert_eq!(node.find("b"), Some("b"));
            assert_eq!(node.find("c"), Some("c"));
            assert_eq!(node.find("bb"), None);
        },
    );
}

#[test]
fn an_append_hides_no_record_and_answers_no_other_question() {
    explore(
        &["b"],
        |node| node.insert("c"),
        |node| {
            assert_eq!(node.find("b"), Some("b"));
            assert_eq!(node.find("d"), None);
        },
    );
}

#[test]
fn a_copy_is_a_state_between_two_inserts() {
    explore(
        &["b"],
        |node| node.insert("a"),
        |node| {
            assert!([&["b"][..], &["a", "b"]].contains(&node.keys().as_slice()));
        },
    );
}

#[test]
fn a_truncated_node_that_grows_again_shows_no_mixture() {
    explore(
        &["a", "c"],
        |node| {
            node.slots.change(|| node.slots.truncate(1));
            node.insert("b");
        },
        |node| {
            assert!([Some("c"), None].contains(&node.find("c")));
            assert!([Some("b"), None].contains(&node.find("b")));
        },
    );
}

#[test]
fn keys_that_share_less_than_before_stay_found() {
    explore(
        &["prefix a", "prefix b"],
        |node| node.insert("pre"),
        |node| {
            assert_eq!(node.find("prefix b"), Some("prefix b"));
        },
    );
    const { assert!(SLOTS >= 3) };
}

impl Node {
    fn insert_at(&self, key: &str, sequence: u64) {
        let trailer = Trailer::new(sequence, ValueKind::Value);
        let probe = Probe::new(key.as_bytes(), trailer);
        let record = self.arena.store(key.as_bytes(), trailer, b"");
        let position = self.slots.position(&probe, self.slots.count());
        // SAFETY: the arena is dropped together with the slots.
        unsafe { self.slots.insert(position, record, &probe, || ()) };
    }

    /// Whether the bits of older versions are those of the keys that are there, as a reader of a batch sees both.
    fn check_older(&self) {
        let (records, older) = self.slots.read(|| {
            let count = self.slots.count();
            let records: Vec<_> = (0..count).filter_map(|i| self.slots.record(i)).collect();
            (records, self.slots.older())
        });
        let keys: Vec<_> = records.into_iter().map(|record| self.key(record)).collect();
        for i in 1..keys.len() {
            assert_eq!(
                older >> i & 1 == 1,
                keys[i] == keys[i - 1],
                "{keys:?} {older:b}"
            );
        }
    }
}

#[test]
fn bits_of_an_append() {
    explore(
        &["b"],
        |node| {
            node.insert_at("b", 3);
            node.insert_at("b", 2);
        },
        Node::check_older,
    );
}

#[test]
fn bits_of_an_append_of_another_key() {
    explore(
        &["b"],
        |node| {
            node.insert_at("c", 3);
            node.insert_at("c", 2);
        },
        Node::check_older,
    );
}

#[test]
fn bits_of_an_insert_between() {
    explore(
        &["b", "c"],
        |node| {
            node.insert_at("b", 9);
            node.insert_at("b", 3);
        },
        Node::check_older,
    );
}

#[test]
fn bits_of_a_truncated_node() {
    explore(
        &["a", "a", "a"],
        |node| {
            node.slots.change(|| node.slots.truncate(1));
            node.insert_at("b", 9);
            node.insert_at("b", 8);
        },
        Node::check_older,
    );
}

#[test]
fn bits_when_the_prefix_shrinks() {
    explore(
        &["prefix a", "prefix a"],
        |node| {
            node.insert_at("pre", 5);
            node.insert_at("pre", 4);
        },
        Node::check_older,
    );
}

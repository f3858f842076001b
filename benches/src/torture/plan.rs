//! What the writers of a torture write: a function of seed, thread and number.
//!
//! Invariant: each thread writes keys of its own, every batch to two keyspaces alike, so that a torn
//! batch shows as a difference between them.

use esker::vfs::Random;
use esker::{Db, Options, WriteBatch};
use std::collections::BTreeMap;
use std::path::Path;

/// Writers of a child.
pub(crate) const THREADS: usize = 3;
/// The keyspace that holds the same as the default one.
pub(crate) const MIRROR: &str = "mirror";
/// Different keys of a thread.
const KEYS: u64 = 400;

/// Opens the database of a torture, with limits so small that a second of writing flushes and merges.
pub(crate) fn open(directory: &Path) -> esker::Result<Db> {
    Options::new()
        .write_buffer_bytes(128 << 10)
        .target_file_bytes(128 << 10)
        .level0_runs(2)
        .size_ratio(4)
        .wal_segment_bytes(64 << 10)
        .wal_size_limit_bytes(512 << 10)
        .manifest_bytes(16 << 10)
        .cache_bytes(1 << 20)
        .open(directory)
}

/// How the keys of a thread begin.
pub(crate) fn thread_prefix(thread: usize) -> Vec<u8> {
    format!("thread {thread}/").into_bytes()
}

fn key(thread: usize, number: u64) -> Vec<u8> {
    let mut key = thread_prefix(thread);
    key.extend_from_slice(format!("{number:05}").as_bytes());
    key
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// One write: a batch, and whether it is to be on stable storage before it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    changes: Vec<Change>,
    pub(crate) is_sync: bool,
}

impl Write {
    /// The write of this number, from 0 on.
    pub(crate) fn of(seed: u64, thread: usize, number: u64) -> Self {
        let mut random = Random::of_part(seed ^ ((thread as u64 + 1) << 56), number);
        let mut changes = vec![Change::Put(
            key(thread, KEYS),
            // Every state is unlike every other: a counter.
            number.to_be_bytes().to_vec(),
        )];
        for _ in 0..random.below(6) {
            let at = random.below(KEYS);
            changes.push(match random.below(12) {
                0 => {
                    let end = (at + 1 + random.below(20)).min(KEYS);
                    Change::DeleteRange(key(thread, at), key(thread, end))
                }
                1 | 2 => Change::Delete(key(thread, at)),
                _ => {
                    let mut value = number.to_be_bytes().to_vec();
                    value.resize(8 + random.index(200), b'v');
                    Change::Put(key(thread, at), value)
                }
            });
        }
        Self {
            changes,
            is_sync: random.chance(40),
        }
    }

    /// The same changes of both keyspaces.
    pub(crate) fn batch(&self, db: &Db, mirror: &esker::Keyspace) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for keyspace in [&**db, mirror] {
            for change in &self.changes {
                match change {
                    Change::Put(key, value) => batch.put_in(keyspace, key, value),
                    Change::Delete(key) => batch.delete_in(keyspace, key),
                    Change::DeleteRange(start, end) => {
                        batch.delete_range_in(keyspace, &start[..]..&end[..]);
                    }
                }
            }
        }
        batch
    }
}

/// What the keys of a thread hold after so many writes.
#[derive(Debug)]
pub(crate) struct Model {
    seed: u64,
    thread: usize,
    writes: u64,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    pub(crate) fn new(seed: u64, thread: usize) -> Self {
        Self {
            seed,
            thread,
            writes: 0,
            state: BTreeMap::new(),
        }
    }

    pub(crate) fn thread(&self) -> usize {
        self.thread
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    pub(crate) fn state(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.state
    }

    /// Applies writes until there have been `writes`.
    pub(crate) fn advance_to(&mut self, writes: u64) {
        for number in self.writes..writes {
            for change in Write::of(self.seed, self.thread, number).changes {
                match change {
                    Change::Put(key, value) => _ = self.state.insert(key, value),
                    Change::Delete(key) => _ = self.state.remove(&key),
                    Change::DeleteRange(start, end) => {
                        self.state.retain(|key, _| *key < start || *key >= end);
                    }
                }
            }
        }
        self.writes = self.writes.max(writes);
    }
}

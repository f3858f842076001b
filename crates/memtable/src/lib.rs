//! The sorted buffer of recent writes: what a write lands in once it is logged, and what a flush
//! turns into a table.
//!
//! Invariant: records are only ever added. A reader that holds a memtable sees, without a lock, at
//! least every record that was inserted before it learnt the sequence number it reads at (I5, I8).
//! The crate knows no log, no files and no versions: the database decides when a memtable is full.
//!
//! One interface, [`Memtable`], has two inhabitants: a single-writer B+tree with lock-free readers
//! and a concurrent skip list. Both pass the same tests.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod arena;
mod atomics;
mod b_tree;
mod entry_iter;
mod memtable;
mod probe;
mod range_tombstones;
mod skip_list;

pub use arena::ArenaPool;
pub use memtable::{Memtable, MemtableIter, MemtableKind};

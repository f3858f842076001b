//! The atomics of the B+tree's nodes: the standard ones, or loom's, which try every interleaving.
//!
//! Callers: `b_tree::slots`. The model check runs with
//! `RUSTFLAGS="--cfg loom" cargo test -p esker-memtable --lib --release loom`.

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence},
    thread::yield_now,
};
#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence},
    thread::yield_now,
};

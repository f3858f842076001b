//! The atomics, locks and threads of the engine's small protocols: the real ones here, and those of a model
//! checker where `tests/interleavings` compiles the same protocols.
//!
//! Invariant: `writer_line`, `visible`, `replaceable` and `table_references` take whatever orders their
//! threads from here alone, so that the checker sees every place at which another thread may come between.

pub(crate) use arc_swap::ArcSwap;
pub(crate) use esker_base::sync::{Mutex, MutexGuard, park};
pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Arc, Weak};
pub(crate) use std::thread::{Thread, current as this_thread};

/// What [`ArcSwap::load`] lends.
pub(crate) type Loaded<T> = arc_swap::Guard<Arc<T>>;

/// How often a queued thread looks before it parks: about two microseconds.
pub(crate) const SPINS: usize = 60;

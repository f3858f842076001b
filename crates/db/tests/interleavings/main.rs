//! Every order in which the threads of the engine's small protocols can meet, by loom: the very files of the
//! engine, compiled over loom's atomics, locks and threads.
//!
//! A model runs its closure once for each order of its threads, and each value that the memory model lets
//! a load see. Nothing sleeps: a thread that waits for ever is found as such and fails the test.
#![allow(clippy::unwrap_used, dead_code)]

mod interleaved;
#[path = "../../src/replaceable.rs"]
mod replaceable;
#[path = "../../src/table_references.rs"]
mod table_references;
#[path = "../../src/untold_removals.rs"]
mod untold_removals;
#[path = "../../src/visible.rs"]
mod visible;
#[path = "../../src/writer_line.rs"]
mod writer_line;

mod commits;
mod tables;
mod views;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `model` in every order of its threads in which at most `preemptions` of them are interrupted.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("orders tried: {orders}");
    assert!(orders > 1, "loom saw nothing to reorder");
}

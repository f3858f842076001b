//! db_bench: see the library `esker_benches`, which does everything.
#![forbid(unsafe_code)]

use esker_benches::cli::{Entry, main as run};
use esker_benches::engine::btree::BTreeEngine;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(&[Entry::of::<BTreeEngine>("btreemap")])
}

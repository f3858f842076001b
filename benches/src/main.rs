//! db_bench: see the library `esker_benches`, which does everything.
#![forbid(unsafe_code)]

use esker_benches::cli::{Entry, main as run};
use esker_benches::engine::btree::BTreeEngine;
use esker_benches::engine::esker::EskerEngine;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(&[
        Entry::of::<EskerEngine<false>>("esker"),
        Entry::of::<EskerEngine<true>>("esker-memory"),
        Entry::of::<BTreeEngine>("btreemap"),
    ])
}

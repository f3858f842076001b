//! db_bench over esker and its peers, by the same workloads and the same checks.
//!
//! Invariant: a peer is called as its own documentation recommends for the settings asked for; what
//! was set is stated in its facts. All have the same allocator, the system's unless the feature `mimalloc` is on
//! (C and C++ have the system's then as well). A package of its own, so that a build of esker needs no C++.

#[cfg(feature = "fjall")]
mod fjall_engine;
#[cfg(feature = "lmdb")]
mod lmdb_engine;
#[cfg(feature = "redb")]
mod redb_engine;
#[cfg(feature = "rocksdb")]
mod rocksdb_engine;

use esker_benches::cli::{Entry, main as run};
use esker_benches::engine::esker::EskerEngine;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(&[
        Entry::of::<EskerEngine<false>>("esker"),
        #[cfg(feature = "rocksdb")]
        Entry::of::<rocksdb_engine::RocksDbEngine>("rocksdb"),
        #[cfg(feature = "fjall")]
        Entry::of::<fjall_engine::FjallEngine>("fjall"),
        #[cfg(feature = "redb")]
        Entry::of::<redb_engine::RedbEngine>("redb"),
        #[cfg(feature = "lmdb")]
        Entry::of::<lmdb_engine::LmdbEngine>("lmdb"),
    ])
}

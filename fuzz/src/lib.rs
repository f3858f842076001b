//! What each fuzz target does with its bytes: a decoder of hostile input (I10) or the engine as a
//! whole, and what must hold whatever the input is. The targets in `fuzz_targets/` hand libFuzzer's
//! bytes to these functions; `tests/corpus.rs` hands them the corpus.
//!
//! Invariant: what a run answers depends on its bytes alone; it fails by panicking, and takes time
//! and memory in proportion to the bytes.
#![forbid(unsafe_code)]

mod backup_metadata;
mod operations;
mod range_tombstones;
mod table;
mod table_parts;
mod tuple;
mod value_pointer;
mod version_edit;
mod wal_reader;
mod write_batch;

pub use backup_metadata::backup_metadata;
pub use operations::operations;
pub use range_tombstones::range_tombstones;
pub use table::table;
pub use table_parts::{block, filter, footer, index, properties};
pub use tuple::tuple;
pub use value_pointer::value_pointer;
pub use version_edit::{manifest_recovery, version_edit};
pub use wal_reader::wal_reader;
pub use write_batch::write_batch;

/// A target: its name, which is also the folder of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("backup_metadata", backup_metadata),
    ("block", block),
    ("filter", filter),
    ("footer", footer),
    ("index", index),
    ("manifest_recovery", manifest_recovery),
    ("operations", operations),
    ("properties", properties),
    ("range_tombstones", range_tombstones),
    ("table", table),
    ("tuple", tuple),
    ("value_pointer", value_pointer),
    ("version_edit", version_edit),
    ("wal_reader", wal_reader),
    ("write_batch", write_batch),
];

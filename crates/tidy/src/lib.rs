//! The repository checks itself: the rules of the house that a compiler cannot hold, as pure
//! functions over the text of its files.
//!
//! Invariant: imports nothing of the workspace, so that it builds and judges when the rest does
//! not. Every rule has a table of cases that it must catch and cases that it must let pass. The
//! test `tests/repository.rs` applies them all to the repository itself.
#![forbid(unsafe_code)]

pub mod repository;
pub mod rules;
pub mod rust_source;
pub mod violation;

pub use repository::{Repository, TextFile};
pub use rust_source::RustSource;
pub use violation::Violation;

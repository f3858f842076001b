//! What two or more crates of esker share: names, orders, encodings and the one error type.
//!
//! Invariant: no I/O, no policy, and no threads but the one for timers that belongs to the real clock.
//! Everything above imports this crate; it imports nothing of the workspace.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod clock;
pub mod coding;
pub mod error;
pub mod filename;
pub mod internal_key;
pub mod iterator;
pub mod key_bounds;
pub mod limits;
pub mod merge_operator;
pub mod merging_iterator;
pub mod operand_chain;
pub mod own_lines;
pub mod range_tombstone;
pub mod sync;
pub mod table_meta;
pub mod value_pointer;
pub mod write_batch;

pub use error::{Error, ErrorKind, Result};
pub use internal_key::{SequenceNumber, Trailer, ValueKind};

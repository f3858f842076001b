//! The exit codes of db_bench, by name.
//!
//! Invariant: zero means that everything ran and every answer was right.

/// Everything ran, and every answer was right.
pub const SUCCESS: u8 = 0;
/// The engine or the system failed.
pub const FAILED: u8 = 1;
/// The arguments cannot be.
pub const USAGE: u8 = 2;
/// An answer of the engine was wrong.
pub const CHECK_FAILED: u8 = 3;
/// The user ended it.
pub const INTERRUPTED: u8 = 130;

//! esker-wal.
#![forbid(unsafe_code)]

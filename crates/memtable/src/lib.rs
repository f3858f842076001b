//! esker-memtable.
#![forbid(unsafe_code)]

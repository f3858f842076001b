//! esker-sstable.
#![forbid(unsafe_code)]

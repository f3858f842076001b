//! esker-compaction.
#![forbid(unsafe_code)]

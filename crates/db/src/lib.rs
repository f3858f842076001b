//! esker: an embedded, ordered, persistent key-value store.
#![forbid(unsafe_code)]

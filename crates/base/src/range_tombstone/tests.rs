//! Fragments against a naive list of tombstones.

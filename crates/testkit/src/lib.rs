//! esker-testkit.
#![forbid(unsafe_code)]

//! esker-manifest.
#![forbid(unsafe_code)]

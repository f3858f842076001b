//! Picks against hand-made versions.

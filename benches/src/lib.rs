//! db_bench as a library: workloads, checks and reports over any engine.
//!
//! Invariant: the workloads know engines by the [`engine::Engine`] trait alone, and check every
//! answer; a wrong one makes the run fail. The binary `db_bench` measures esker; the one in
//! `benches/peers` measures other stores by the same code.
//!
//! Where to look: the command line in [`args`], verbs in [`verb`], [`step`] and [`workload`], threads in
//! [`phase`], the order of a run in [`session`], results in [`report`], comparisons in [`compare`],
//! what a whole one consists of in [`suite`].
#![forbid(unsafe_code)]

pub mod args;
pub mod checks;
pub mod cli;
pub mod compare;
pub mod directory;
pub mod distribution;
pub mod engine;
pub mod exit;
pub mod expectations;
pub mod interrupt;
pub mod keys;
pub mod latency;
pub mod phase;
pub mod plot;
mod progress;
pub mod random;
pub mod report;
pub mod resources;
pub mod session;
pub mod step;
pub mod suite;
pub mod table;
mod torture;
pub mod values;
pub mod verb;
pub mod workload;

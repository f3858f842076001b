//! The whole engine in a box: clients, background jobs, disk, faults, power losses and time, all
//! decided by one number.
//!
//! A run opens a database with options from its seed on a simulated disk. Several clients write, read,
//! scan, take snapshots, run transactions, flush, compact, back up, drop and clear beside each other
//! and beside the engine's own flushes and compactions. Every thread can be interrupted at every file
//! operation, lock, look at the clock and step of a commit; who goes on is drawn from the seed. In
//! some lives the disk fails for a while. Then the machine loses its power at a moment that the seed
//! names, the database is opened again, judged against what each client knows, and lives on.
//!
//! Invariant: the same seed is the same run, to the last file operation ([`Report::digest`]).
//! This is the one part of the kit that knows esker; it comes with the feature `simulate`.

mod accounts;
mod client;
mod failure;
mod feed;
mod judge;
mod life;
mod scheduler;
mod surroundings;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use scheduler::{Scheduler, message};

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which run it was.
    pub seed: u64,
    /// Of everything that happened, in its order: equal for equal runs.
    pub digest: u64,
    /// Changes of the disk.
    pub operations: u64,
    /// How often another thread went on.
    pub switches: u64,
    /// Crashes and power losses that were put into the run, each followed by an open and a judgement.
    pub crashes: u64,
    /// Operations that were made to fail.
    pub faults: u64,
    /// Backups and moments between them that were restored and judged.
    pub restores: u64,
    /// How often what the feed of changes told was compared with what was there.
    pub followed: u64,
    /// Every operation and step, one a line; empty unless it was asked for.
    pub trace: Vec<String>,
    /// What went wrong, if anything did.
    pub violation: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} operations, {} changes of threads, {} crashes, {} faults, {} restores, {} feeds, digest {:016x}",
            self.seed,
            self.operations,
            self.switches,
            self.crashes,
            self.faults,
            self.restores,
            self.followed,
            self.digest
        )
    }
}

/// Runs the simulation of `seed`; `traced` keeps a line for everything that happens.
///
/// ```
/// use esker_testkit::simulation::simulate;
///
/// let report = simulate(7, false);
/// assert_eq!(report.violation, None);
/// assert_eq!(report.digest, simulate(7, false).digest);
/// ```
#[must_use]
pub fn simulate(seed: u64, traced: bool) -> Report {
    let mut tally = life::Tally::default();
    let (result, record) = Scheduler::run(seed, traced, |scheduler| {
        let run = catch_unwind(AssertUnwindSafe(|| life::run(seed, scheduler, &mut tally)));
        let result = match run {
            Ok(result) => result.map_err(|failure| failure.to_string()),
            Err(panic) => Err(format!("a panic: {}", message(panic.as_ref()))),
        };
        // What made others give up is what counts.
        scheduler.failure().map_or(result, Err)
    });
    Report {
        seed,
        digest: record.digest,
        operations: tally.operations,
        switches: record.switches,
        crashes: tally.crashes,
        faults: tally.faults,
        restores: tally.restores,
        followed: tally.followed,
        trace: record.trace,
        violation: result.err(),
    }
}

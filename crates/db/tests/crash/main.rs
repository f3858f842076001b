//! Crashes and faults at every operation of generated workloads, against an oracle.
//!
//! `cargo test --release -p esker --test crash -- --nocapture` tries more than a hundred thousand
//! points; a debug build tries a share of them. A failing case prints its seed and is shortened:
//! `ESKER_SEED=<seed>` runs it alone, `ESKER_SEEDS=<count>` as many seeds as one likes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backups;
mod deed;
mod faults;
mod session;
mod sweep;
mod transactions;
mod watchdog;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deed::{Deed, deeds};
use esker_testkit::{minimize, seed::seeds};
use sweep::{Case, Effort};

/// How long a failing case may be shortened.
const SHORTENING: Duration = Duration::from_secs(60);

/// Runs `sweep` for each seed, on as many threads as there are processors, and says how many points
/// were tried. The first failure is shortened and ends the test.
fn run_all(
    name: &str,
    count: u64,
    length: usize,
    sweep: impl Fn(u64, &[Deed]) -> Result<u64, Case> + Sync,
) {
    let seeds = seeds(count);
    let (next, points) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    match sweep(seed, &deeds(seed, length)) {
                        Ok(tried) => _ = points.fetch_add(tried, Ordering::Relaxed),
                        Err(case) => _ = failed.lock().unwrap().get_or_insert((seed, case)),
                    }
                }
                watchdog::done();
            });
        }
    });
    println!("{name}: points tried: {}", points.into_inner());
    if let Some((seed, case)) = failed.into_inner().unwrap() {
        report(name, seed, length, case, &sweep);
    }
}

/// Shortens a failing workload and panics with what is left.
fn report(
    name: &str,
    seed: u64,
    length: usize,
    case: Case,
    sweep: &(impl Fn(u64, &[Deed]) -> Result<u64, Case> + Sync),
) -> ! {
    eprintln!("{name} failed at {}: {}", case.place, case.what);
    eprintln!("again: ESKER_SEED={seed} cargo test -p esker --test crash {name}; shortening ...");
    let deadline = Instant::now() + SHORTENING;
    let mut last = case;
    let short = minimize(&deeds(seed, length), |deeds| {
        if Instant::now() > deadline {
            return false;
        }
        match sweep(seed, deeds) {
            Ok(_) => false,
            Err(case) => {
                last = case;
                true
            }
        }
    });
    watchdog::done();
    let steps: Vec<_> = short.iter().map(|deed| format!("\n  {deed}")).collect();
    panic!("{}: {}{}", last.place, last.what, steps.concat());
}

/// Fewer seeds and points in a debug build, which `cargo test --workspace` is.
const THOROUGH: bool = !cfg!(debug_assertions);

#[test]
fn crashes_at_every_operation() {
    let effort = Effort {
        deeds: 60,
        stride: if THOROUGH { 1 } else { 7 },
        second_crashes: if THOROUGH { 2 } else { 1 },
    };
    let count = if THOROUGH { 16 } else { 4 };
    run_all(
        "crashes_at_every_operation",
        count,
        effort.deeds,
        |seed, deeds| sweep::sweep(seed, deeds, &effort),
    );
}

#[test]
fn faults_at_every_operation() {
    let (count, stride) = if THOROUGH { (12, 1) } else { (3, 9) };
    run_all("faults_at_every_operation", count, 40, |seed, deeds| {
        faults::sweep(seed, deeds, stride)
    });
}

#[test]
fn full_for_a_while() {
    let count = if THOROUGH { 20 } else { 3 };
    run_all("full_for_a_while", count, 60, faults::full_disk);
}

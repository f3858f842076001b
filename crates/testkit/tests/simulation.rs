//! The simulation of the whole engine: some hundreds of seeds in a debug build, thousands in a release
//! build, and the proof that a seed is a run.
#![cfg(feature = "simulate")]
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_testkit::seed::seeds;
use esker_testkit::simulation::{Report, simulate};

/// Runs `run` for each seed on as many threads as there are processors.
fn for_all(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> Report + Sync) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let reports = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let report = run(seed);
                    let failed = report.violation.is_some();
                    reports.lock().unwrap().push(report);
                    if failed {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    reports.into_inner().unwrap()
}

#[test]
fn many_seeds_keep_every_promise() {
    let count = if cfg!(debug_assertions) { 200 } else { 4000 };
    let reports = for_all(seeds(count), |seed| simulate(seed, false));
    for report in &reports {
        if let Some(violation) = &report.violation {
            let seed = report.seed;
            panic!(
                "seed {seed}: {violation}\nagain: \
                 cargo run --release -p esker-testkit --bin simulate -- --seed {seed}"
            );
        }
    }
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let (switches, crashes) = (sum(|it| it.switches), sum(|it| it.crashes));
    let followed = sum(|it| it.followed);
    println!(
        "seeds: {}, operations: {}, changes of threads: {switches}, crashes: {crashes}, faults: {}, \
         restores: {}, feeds compared: {followed}",
        reports.len(),
        sum(|it| it.operations),
        sum(|it| it.faults),
        sum(|it| it.restores)
    );
    // A simulation in which nothing happens would pass as well.
    assert!(
        switches > 50 * reports.len() as u64,
        "{switches} changes of threads"
    );
    assert!(crashes >= 2 * reports.len() as u64, "{crashes} crashes");
    let few = reports.len() as u64 / 4;
    assert!(followed >= few, "{followed} feeds were compared");
}

#[test]
fn a_seed_is_a_run() {
    let count = if cfg!(debug_assertions) { 20 } else { 200 };
    let seeds = 1_000_000..1_000_000 + count;
    let first = for_all(seeds.clone(), |seed| simulate(seed, true));
    for report in first {
        let again = simulate(report.seed, true);
        let differs = report
            .trace
            .iter()
            .zip(&again.trace)
            .position(|(one, other)| one != other);
        if let Some(place) = differs {
            panic!(
                "seed {}, line {place}: {:?}, then {:?}",
                report.seed, report.trace[place], again.trace[place]
            );
        }
        assert_eq!(report, again);
    }
}

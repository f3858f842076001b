//! `simulate`: runs the simulation of many seeds, or replays one with a trace of all that happens.
//!
//! Exit code 0 if every run was right, 1 if one was not (its seed and the command that replays it are
//! printed), 2 for arguments that make no sense.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use esker_testkit::simulation::{Report, simulate};
use indicatif::{ProgressBar, ProgressStyle};

/// Runs esker on a seeded scheduler, clock and disk, with faults and power losses, and checks
/// everything that its clients see.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Run this seed alone, and print every file operation and step of it.
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    seed: Option<u64>,
    /// Run every seed twice: the two must not differ in anything.
    #[arg(long)]
    twice: bool,
    /// Runs at once [default: one for each processor].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: Option<u64>,
    /// Print the summary as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What all runs together did.
#[derive(Debug, Default)]
struct Totals {
    seeds: AtomicU64,
    operations: AtomicU64,
    switches: AtomicU64,
    crashes: AtomicU64,
    faults: AtomicU64,
    restores: AtomicU64,
    followed: AtomicU64,
}

impl Totals {
    fn add(&self, report: &Report) {
        let counters = [
            (&self.seeds, 1),
            (&self.operations, report.operations),
            (&self.switches, report.switches),
            (&self.crashes, report.crashes),
            (&self.faults, report.faults),
            (&self.restores, report.restores),
            (&self.followed, report.followed),
        ];
        for (counter, value) in counters {
            counter.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn get(&self) -> [(&'static str, u64); 7] {
        [
            ("seeds", &self.seeds),
            ("operations", &self.operations),
            ("switches", &self.switches),
            ("crashes", &self.crashes),
            ("faults", &self.faults),
            ("restores", &self.restores),
            ("feeds compared", &self.followed),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

/// One run, or two that must be alike.
fn run(seed: u64, twice: bool) -> Report {
    let mut report = simulate(seed, false);
    if twice && report.violation.is_none() {
        let again = simulate(seed, false);
        if again != report {
            report.violation = Some(format!("a second run differs: {report}; {again}"));
        }
    }
    report
}

/// Runs the seeds on several threads; the first violation, if any, ends them all.
fn run_all(arguments: &Arguments, totals: &Totals, bar: &ProgressBar) -> Option<Report> {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let threads = arguments.threads.unwrap_or(processors);
    let next = AtomicU64::new(arguments.start);
    let end = arguments.start.saturating_add(arguments.seeds);
    let stopped = AtomicBool::new(false);
    let violation = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let report = run(seed, arguments.twice);
                    totals.add(&report);
                    bar.inc(1);
                    if report.violation.is_some()
                        && let Ok(mut violation) = violation.lock()
                    {
                        stopped.store(true, Ordering::Relaxed);
                        violation.get_or_insert(report);
                    }
                }
            });
        }
    });
    violation.into_inner().unwrap_or(None)
}

fn progress(arguments: &Arguments) -> ProgressBar {
    if arguments.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(arguments.seeds);
    let template = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Everything that happens in one run, and how it ends.
fn replay(seed: u64, out: &mut impl Write) -> std::io::Result<Report> {
    let report = simulate(seed, true);
    for line in &report.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{report}")?;
    Ok(report)
}

fn summarize(arguments: &Arguments, totals: &Totals, took: Duration, found: Option<&Report>) {
    let totals = totals.get();
    if arguments.json {
        let mut summary = serde_json::Map::new();
        for (name, value) in totals {
            summary.insert(name.into(), value.into());
        }
        summary.insert("seconds".into(), took.as_secs_f64().into());
        let violation = found
            .map(|report| serde_json::json!({ "seed": report.seed, "what": report.violation }));
        summary.insert("violation".into(), violation.into());
        println!("{}", serde_json::Value::from(summary));
        return;
    }
    let counts: Vec<_> = totals
        .iter()
        .map(|(name, value)| format!("{value} {name}"))
        .collect();
    println!("{} in {:.1} s", counts.join(", "), took.as_secs_f64());
    match found {
        None => println!("no violation"),
        Some(report) => {
            let what = report.violation.as_deref().unwrap_or_default();
            println!("VIOLATION at seed {}: {what}", report.seed);
            println!("again, with a trace: {}", command(report.seed));
        }
    }
}

fn command(seed: u64) -> String {
    format!("cargo run --release -p esker-testkit --bin simulate -- --seed {seed}")
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic within a run is a result of the run; it is told once, at the end.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = arguments.seed {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        // Whoever reads no further, as `head` does, has seen what they wanted.
        let Ok(report) = replay(seed, &mut out) else {
            return ExitCode::SUCCESS;
        };
        let _ = out.flush();
        if let Some(violation) = report.violation {
            eprintln!("VIOLATION at seed {seed}: {violation}");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    let (totals, bar, started) = (Totals::default(), progress(&arguments), Instant::now());
    let found = run_all(&arguments, &totals, &bar);
    bar.finish_and_clear();
    summarize(&arguments, &totals, started.elapsed(), found.as_ref());
    match found {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    }
}

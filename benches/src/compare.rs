//! Compares engines: each in a process of its own, in interleaved rounds, by medians.
//!
//! Invariant: every engine runs the same verbs with the same flags; rounds are interleaved (A B C,
//! B C A, ...), so that a machine that slows down for a while slows all. What a row says of an
//! engine is the median over the rounds.

use crate::args::Args;
use crate::cli::{Refusal, print, to_json};
use crate::exit::{FAILED, SUCCESS};
use crate::plot;
use crate::report::{PhaseReport, RunReport, SCHEMA_VERSION, SettingsReport};
use crate::resources::Machine;
use crate::table::number;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::process::{Command, Stdio};

/// The result of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// The version of the document.
    pub schema_version: u32,
    /// Rounds per engine.
    pub rounds: usize,
    /// Where it ran.
    pub machine: Machine,
    /// What was asked of every engine.
    pub settings: SettingsReport,
    /// What each engine says about its setup, in the order of the columns.
    pub engines: Vec<EngineColumn>,
    /// One row per verb.
    pub rows: Vec<Row>,
    /// Runs that failed, in words.
    pub failures: Vec<String>,
}

/// One engine of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineColumn {
    /// Its name.
    pub name: String,
    /// Its setup: (name, value).
    pub facts: Vec<(String, String)>,
}

/// One verb over all engines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The verb; with `.writer` for the thread beside its readers.
    pub name: String,
    /// The first engine's operations a second over the best other's.
    pub first_over_best_other: Option<f64>,
    /// What each engine did, in the order of the columns; null where it failed.
    pub results: Vec<Option<Medians>>,
}

/// The medians of one engine over the rounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Medians {
    /// Operations a second.
    pub operations_per_second: f64,
    /// The same in every round.
    pub rounds_operations_per_second: Vec<f64>,
    /// Median latency.
    pub p50_micros: Option<f64>,
    /// 99th percentile.
    pub p99_micros: Option<f64>,
    /// 99.9th percentile.
    pub p999_micros: Option<f64>,
    /// Longest stall.
    pub max_micros: Option<f64>,
    /// Bytes that the process caused to be written to the device per user byte written.
    pub process_write_amplification: Option<f64>,
    /// Bytes on disk per live user byte.
    pub space_amplification: Option<f64>,
    /// CPU seconds for a million operations.
    pub cpu_seconds_per_million_operations: Option<f64>,
    /// Peak memory of the process, bytes.
    pub peak_memory_bytes: Option<f64>,
}

/// Runs the comparison that `args` asks for and returns the exit code.
pub(crate) fn run(args: &Args) -> Result<u8, Refusal> {
    let mut runs: BTreeMap<usize, Vec<RunReport>> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut code = SUCCESS;
    for round in 0..args.rounds {
        for position in 0..args.engines.len() {
            let engine = (round + position) % args.engines.len();
            let name = &args.engines[engine];
            eprintln!("round {} of {}: {name}", round + 1, args.rounds);
            match run_alone(name) {
                Ok(report) => runs.entry(engine).or_default().push(report),
                Err((failed, message)) => {
                    eprintln!("db_bench: {name}: {message}");
                    failures.push(format!("round {}, {name}: {message}", round + 1));
                    code = code.max(failed);
                }
            }
        }
    }
    let comparison = assemble(args, &runs, failures).ok_or((FAILED, "every run failed".into()))?;
    print(&if args.json {
        to_json(&comparison)?
    } else {
        table(&comparison)
    });
    if let Some(path) = &args.plot {
        plot::comparison(&comparison, path)
            .map_err(|error| (FAILED, format!("cannot draw {}: {error}", path.display())))?;
    }
    Ok(code)
}

/// Runs one engine in a process of its own and reads its report.
fn run_alone(engine: &str) -> Result<RunReport, Refusal> {
    let failed = |what: &str, error: &dyn std::fmt::Display| (FAILED, format!("{what}: {error}"));
    let program = std::env::current_exe().map_err(|error| failed("cannot find itself", &error))?;
    let output = Command::new(program)
        .args(arguments_for(engine, std::env::args_os().skip(1)))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed("cannot start", &error))?;
    let parsed: Result<RunReport, _> = serde_json::from_slice(&output.stdout);
    match (output.status.code(), parsed) {
        (Some(0), Ok(report)) => Ok(report),
        (Some(0), Err(error)) => Err(failed("unreadable report", &error)),
        (code, report) => {
            let code = code
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(FAILED);
            let reason = report.ok().and_then(|report| {
                let wrong = report
                    .phases
                    .into_iter()
                    .flat_map(|phase| phase.checks.first_failures);
                report.error.or_else(|| wrong.into_iter().next())
            });
            Err((
                code,
                reason.unwrap_or_else(|| format!("ended with {}", output.status)),
            ))
        }
    }
}

/// The arguments of a comparison, turned into those of one engine's run.
fn arguments_for(engine: &str, arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let name = text.split('=').next().unwrap_or_default();
        match name {
            "--json" => {}
            "--engines" | "--rounds" | "--plot" => {
                if !text.contains('=') {
                    arguments.next();
                }
            }
            _ => kept.push(argument),
        }
    }
    kept.extend(["--engine", engine, "--json"].map(OsString::from));
    kept
}

/// Puts the runs side by side; `None` where there is none.
fn assemble(
    args: &Args,
    runs: &BTreeMap<usize, Vec<RunReport>>,
    failures: Vec<String>,
) -> Option<Comparison> {
    let any = runs.values().flatten().next()?;
    let engines = args
        .engines
        .iter()
        .enumerate()
        .map(|(engine, name)| EngineColumn {
            name: name.clone(),
            facts: runs
                .get(&engine)
                .and_then(|runs| runs.first())
                .map(|run| run.engine_facts.clone())
                .unwrap_or_default(),
        });
    let mut rows = Vec::new();
    for (at, phase) in any.phases.iter().enumerate() {
        let results = |beside: bool| -> Vec<Option<Medians>> {
            (0..args.engines.len())
                .map(|engine| medians(runs.get(&engine)?, at, beside))
                .collect()
        };
        rows.push(row(phase.name.clone(), results(false)));
        if let Some(beside) = &phase.beside {
            rows.push(row(
                format!("{}.{}", phase.name, beside.name),
                results(true),
            ));
        }
    }
    Some(Comparison {
        schema_version: SCHEMA_VERSION,
        rounds: args.rounds,
        machine: any.machine.clone(),
        settings: any.settings.clone(),
        engines: engines.collect(),
        rows,
        failures,
    })
}

fn row(name: String, results: Vec<Option<Medians>>) -> Row {
    let rate = |result: &Option<Medians>| result.as_ref().map(|r| r.operations_per_second);
    let best_other = results.iter().skip(1).filter_map(rate).fold(0.0, f64::max);
    let first = results.first().and_then(rate);
    let first_over_best_other = first
        .filter(|_| best_other > 0.0)
        .map(|rate| rate / best_other);
    Row {
        name,
        first_over_best_other,
        results,
    }
}

fn medians(runs: &[RunReport], at: usize, beside: bool) -> Option<Medians> {
    let phases: Vec<&PhaseReport> = runs.iter().filter_map(|run| run.phases.get(at)).collect();
    let of = |pick: &dyn Fn(&PhaseReport) -> Option<f64>| {
        median(phases.iter().filter_map(|phase| pick(phase)).collect())
    };
    let latency = |pick: fn(&crate::latency::LatencyReport) -> f64| {
        of(&|phase| match beside {
            true => phase.beside.as_ref()?.latency.as_ref().map(pick),
            false => phase.latency.as_ref().map(pick),
        })
    };
    let rate = |phase: &PhaseReport| match beside {
        true => phase
            .beside
            .as_ref()
            .map(|beside| beside.operations_per_second),
        false => Some(phase.operations_per_second),
    };
    Some(Medians {
        operations_per_second: of(&rate)?,
        rounds_operations_per_second: phases.iter().filter_map(|phase| rate(phase)).collect(),
        p50_micros: latency(|latency| latency.p50_micros),
        p99_micros: latency(|latency| latency.p99_micros),
        p999_micros: latency(|latency| latency.p999_micros),
        max_micros: latency(|latency| latency.max_micros),
        process_write_amplification: of(&|phase| {
            let user = phase.user_bytes_written;
            (user > 0).then_some(phase.process_bytes_written? as f64 / user as f64)
        }),
        space_amplification: of(&|phase| phase.space_amplification),
        cpu_seconds_per_million_operations: of(&|phase| {
            Some(phase.cpu_seconds_per_million_operations)
        }),
        peak_memory_bytes: of(&|phase| phase.peak_memory_bytes.map(|bytes| bytes as f64)),
    })
}

/// The middle value; the mean of the two middle ones of an even number.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(match values.len() % 2 {
        0 => (upper + values[middle - 1]) / 2.0,
        _ => upper,
    })
}

/// The comparison for people: throughput with ratios, then tails, space and resources.
fn table(comparison: &Comparison) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    for engine in &comparison.engines {
        let facts: Vec<String> = engine
            .facts
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let _ = writeln!(text, "{}: {}", engine.name, facts.join(", "));
    }
    let first = comparison.engines.first().map_or("", |engine| &engine.name);
    let ratio = format!("{first} / best other");
    section(
        &mut text,
        comparison,
        "operations per second",
        Some(&ratio),
        |medians| number(Some(medians.operations_per_second), 0),
    );
    section(
        &mut text,
        comparison,
        "p99.9, microseconds",
        None,
        |medians| number(medians.p999_micros, 1),
    );
    section(
        &mut text,
        comparison,
        "longest stall, milliseconds",
        None,
        |medians| number(medians.max_micros.map(|micros| micros / 1000.0), 2),
    );
    section(
        &mut text,
        comparison,
        "device bytes per user byte written",
        None,
        |medians| number(medians.process_write_amplification, 2),
    );
    section(
        &mut text,
        comparison,
        "disk bytes per live user byte",
        None,
        |medians| number(medians.space_amplification, 2),
    );
    section(
        &mut text,
        comparison,
        "CPU seconds per million operations",
        None,
        |medians| number(medians.cpu_seconds_per_million_operations, 2),
    );
    section(&mut text, comparison, "peak memory, MiB", None, |medians| {
        number(medians.peak_memory_bytes.map(|bytes| bytes / 1048576.0), 0)
    });
    for failure in &comparison.failures {
        let _ = writeln!(text, "FAILED {failure}");
    }
    let _ = write!(
        text,
        "\nMedians of {} interleaved rounds, each engine in a process of its own.",
        comparison.rounds
    );
    text
}

fn section(
    text: &mut String,
    comparison: &Comparison,
    title: &str,
    ratio: Option<&str>,
    show: impl Fn(&Medians) -> String,
) {
    let _ = write!(text, "\n{title:35}");
    for engine in &comparison.engines {
        let _ = write!(text, " {:>14}", engine.name);
    }
    let _ = writeln!(text, "  {}", ratio.unwrap_or_default());
    for row in &comparison.rows {
        let shown: Vec<String> = row
            .results
            .iter()
            .map(|result| result.as_ref().map_or_else(|| "-".to_owned(), &show))
            .collect();
        if shown.iter().all(|cell| cell == "-") {
            continue;
        }
        let _ = write!(text, "{:35}", row.name);
        for cell in &shown {
            let _ = write!(text, " {cell:>14}");
        }
        if ratio.is_some() {
            let _ = write!(text, "  {}", number(row.first_over_best_other, 2));
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_the_flags_of_the_comparison_but_for_its_own() {
        let given = "--num 5 --engines a,b --json --rounds=2 --plot x.svg --seed=3 --rounds 4";
        let arguments = given.split(' ').map(OsString::from);
        let expected = "--num 5 --seed=3 --engine b --json";
        let expected: Vec<OsString> = expected.split(' ').map(OsString::from).collect();
        assert_eq!(arguments_for("b", arguments), expected);
    }

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_ratio_is_to_the_best_other_engine() {
        let result = |rate| {
            Some(Medians {
                operations_per_second: rate,
                ..Medians::default()
            })
        };
        let ratio = |results| row("x".into(), results).first_over_best_other;
        assert_eq!(
            ratio(vec![result(6.0), result(2.0), result(3.0)]),
            Some(2.0)
        );
        assert_eq!(ratio(vec![result(6.0), None]), None);
        assert_eq!(ratio(vec![None, result(1.0)]), None);
    }
}

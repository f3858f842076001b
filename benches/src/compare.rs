//! Compares engines: each in a process of its own, in interleaved rounds, by medians.
//!
//! Invariant: every engine runs the same verbs with the same flags; rounds are interleaved (A B C,
//! B C A, ...), so that a machine that slows down for a while slows all. What is compared is in
//! `medians`, how it is shown in `show`, and what a whole comparison consists of in
//! [`suite`](crate::suite).

mod kept;
mod medians;
mod show;

pub use medians::{Comparison, EngineColumn, Medians, Row};

use crate::args::Args;
use crate::cli::{Refusal, print, to_json};
use crate::exit::{FAILED, INTERRUPTED, SUCCESS};
use crate::plot;
use crate::report::RunReport;
use crate::suite::{PIECES, Piece};
use kept::Results;
use medians::Runs;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What `--benchmarks` says, as a piece.
const GIVEN: Piece = Piece {
    name: "",
    title: "",
    flags: "",
    without: &[],
    most_rounds: usize::MAX,
};

/// One run of one engine.
struct Turn<'a> {
    piece: &'static Piece,
    engine: usize,
    name: &'a str,
    round: usize,
}

/// Runs the comparison that `args` asks for and returns the exit code.
pub(crate) fn run(args: &Args) -> Result<u8, Refusal> {
    let pieces = pieces(args);
    let results = Results::new(args.results.as_deref())?;
    let (started, limit) = (Instant::now(), args.stop_after.map(Duration::from_secs_f64));
    let mut runs = Runs::default();
    let mut failures = Vec::new();
    let (mut code, mut left) = (SUCCESS, 0);
    for turn in turns(args, &pieces) {
        let flags = arguments_for(turn.piece, turn.name, std::env::args_os().skip(1));
        let made = match results.read(&turn, &flags)? {
            Some(report) => Ok(report),
            None if limit.is_some_and(|limit| started.elapsed() >= limit) => {
                left += 1;
                continue;
            }
            None => make(args, &turn, &flags, &results),
        };
        match made {
            Ok(report) => runs.add(turn.piece, turn.engine, report),
            Err((failed, message)) => {
                eprintln!("db_bench: {}: {message}", turn.name);
                failures.push(format!("{} {}: {message}", turn.piece.name, turn.name));
                code = code.max(failed);
            }
        }
    }
    if left > 0 {
        eprintln!("{left} runs are left: the same command goes on with them");
        return Ok(INTERRUPTED);
    }
    failures.dedup();
    let comparison =
        medians::assemble(args, &runs, failures).ok_or((FAILED, "every run failed".into()))?;
    print(&if args.json {
        to_json(&comparison)?
    } else {
        show::text(&comparison)
    });
    let drawn = |path: &Path, drawn: Result<(), Box<dyn std::error::Error>>| {
        drawn.map_err(|error| (FAILED, format!("cannot draw {}: {error}", path.display())))
    };
    if let Some(path) = &args.plot {
        drawn(path, plot::comparison(&comparison, path))?;
    }
    if let Some(directory) = &args.results {
        results.write("comparison.json", &to_json(&comparison)?)?;
        results.write("tables.md", &show::markdown(&comparison))?;
        let path = directory.join("throughput.svg");
        drawn(&path, plot::comparison(&comparison, &path))?;
        let path = directory.join("tails.svg");
        drawn(&path, plot::tails(&comparison, &path))?;
        let path = directory.join("seconds.svg");
        drawn(&path, plot::seconds(&comparison, &path))?;
    }
    Ok(code)
}

fn pieces(args: &Args) -> Vec<&'static Piece> {
    if !args.benchmarks.is_empty() {
        vec![&GIVEN]
    } else if args.pieces.is_empty() {
        PIECES.iter().collect()
    } else {
        args.pieces.clone()
    }
}

/// All runs in their order: a piece's rounds before the next piece, each round beginning with another
/// engine.
fn turns<'a>(args: &'a Args, pieces: &[&'static Piece]) -> Vec<Turn<'a>> {
    let count = args.engines.len();
    let mut turns = Vec::new();
    for &piece in pieces {
        for round in 0..args.rounds.min(piece.most_rounds) {
            let engines = (0..count).map(|position| (round + position) % count);
            let turn = |engine: usize| Turn {
                piece,
                engine,
                name: &args.engines[engine],
                round,
            };
            turns.extend(
                engines
                    .map(turn)
                    .filter(|turn| !piece.without.contains(&turn.name)),
            );
        }
    }
    turns
}

/// Makes a run and keeps it.
fn make(
    args: &Args,
    turn: &Turn<'_>,
    flags: &[OsString],
    results: &Results,
) -> Result<RunReport, Refusal> {
    let rounds = args.rounds.min(turn.piece.most_rounds);
    let piece = turn.piece.name;
    eprintln!(
        "{piece} round {} of {rounds}: {}",
        turn.round + 1,
        turn.name
    );
    let report = run_alone(flags)?;
    results.keep(turn, flags, &report)?;
    Ok(report)
}

/// Runs one engine in a process of its own and reads its report.
fn run_alone(flags: &[OsString]) -> Result<RunReport, Refusal> {
    let failed = |what: &str, error: &dyn std::fmt::Display| (FAILED, format!("{what}: {error}"));
    let program = std::env::current_exe().map_err(|error| failed("cannot find itself", &error))?;
    let output = Command::new(program)
        .args(flags)
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

/// The arguments of a comparison, turned into those of one engine's run: a piece's come first, so that
/// the user's win.
fn arguments_for(
    piece: &Piece,
    engine: &str,
    arguments: impl Iterator<Item = OsString>,
) -> Vec<OsString> {
    let mut kept: Vec<OsString> = piece.flags.split_whitespace().map(OsString::from).collect();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let name = text.split('=').next().unwrap_or_default();
        match name {
            "--json" => {}
            "--engines" | "--rounds" | "--plot" | "--pieces" | "--results" | "--stop_after" => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_child_gets_the_flags_of_the_comparison_but_for_its_own() {
        let given = "--num 5 --engines a,b --json --rounds=2 --plot x.svg --seed=3 --rounds 4 \
                     --results here --pieces=x";
        let arguments = given.split_whitespace().map(OsString::from);
        let expected = "--num 5 --seed=3 --engine b --json";
        let expected: Vec<OsString> = expected.split(' ').map(OsString::from).collect();
        assert_eq!(arguments_for(&GIVEN, "b", arguments), expected);
    }

    #[test]
    fn every_round_begins_with_another_engine() {
        let words = "db_bench --engines a,b,lmdb --rounds 2 --pieces reads,sustained";
        let args = Args::parse_from(words.split(' '));
        let turns = turns(&args, &pieces(&args));
        let order: Vec<String> = turns
            .iter()
            .map(|turn| format!("{}{}{}", turn.piece.name, turn.round, turn.name))
            .collect();
        assert_eq!(
            order,
            [
                "reads0a",
                "reads0b",
                "reads0lmdb",
                "reads1b",
                "reads1lmdb",
                "reads1a",
                "sustained0a",
                "sustained0b"
            ]
        );
    }
}

//! What the binaries do: arguments in, an engine of a registry measured, tables or JSON out.
//!
//! Invariant: results go to the standard output, everything else to the error stream; the exit
//! code is one of [`exit`](crate::exit).

use crate::args::{Args, Config};
use crate::compare;
use crate::directory::Place;
use crate::engine::Engine;
use crate::exit::{CHECK_FAILED, FAILED, INTERRUPTED, SUCCESS, USAGE};
use crate::interrupt;
use crate::plot;
use crate::report::RunReport;
use crate::session::{self, Surroundings};
use crate::table;
use crate::torture;
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// An engine that a binary can measure.
#[derive(Clone, Copy)]
pub struct Entry {
    name: &'static str,
    run: fn(&Config, Surroundings<'_>) -> RunReport,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

impl Entry {
    /// `E`, by the name that `--engine` gives it.
    #[must_use]
    pub fn of<E: Engine>(name: &'static str) -> Self {
        Self {
            name,
            run: session::run::<E>,
        }
    }
}

/// Runs db_bench over the engines of `registry`.
#[must_use]
pub fn main(registry: &[Entry]) -> ExitCode {
    // clap ends the process with code 2 on arguments that it does not understand.
    let args = Args::parse();
    ExitCode::from(run(&args, registry).unwrap_or_else(|(code, message)| {
        eprintln!("db_bench: {message}");
        code
    }))
}

/// An exit code and the sentence that explains it.
pub(crate) type Refusal = (u8, String);

fn run(args: &Args, registry: &[Entry]) -> Result<u8, Refusal> {
    if let Some(begin) = &args.torture_child {
        return torture::child::run(args, begin);
    }
    if args.torture {
        return torture::run(args);
    }
    let config = Config::from_args(args).map_err(|message| (USAGE, message))?;
    let named = match args.engines.is_empty() {
        true => std::slice::from_ref(&args.engine),
        false => &args.engines,
    };
    for name in named {
        find(registry, name)?;
    }
    if args.engines.is_empty() {
        measure(args, &config, find(registry, &args.engine)?)
    } else {
        compare::run(args)
    }
}

fn find<'r>(registry: &'r [Entry], name: &str) -> Result<&'r Entry, Refusal> {
    registry
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| {
            let known: Vec<&str> = registry.iter().map(|entry| entry.name).collect();
            let known = known.join(", ");
            let hint = "other engines are measured by the db_bench of benches/peers";
            (
                USAGE,
                format!("there is no engine {name:?} here, only {known}; {hint}"),
            )
        })
}

fn measure(args: &Args, config: &Config, entry: &Entry) -> Result<u8, Refusal> {
    let failed = |what: &str, error: std::io::Error| (FAILED, format!("cannot {what}: {error}"));
    let place = Place::new(config.directory.as_deref())
        .map_err(|error| failed("create the directory of the database", error))?;
    let interrupted = interrupt::watch(place.temporary_path())
        .map_err(|error| failed("watch for Ctrl-C", error))?;
    let quiet = args.json;
    let report = (entry.run)(
        config,
        Surroundings {
            engine: entry.name,
            place: &place,
            interrupted,
            on_start: &mut |report| {
                if !quiet {
                    print(&table::start(report, &place));
                }
            },
            on_phase: &mut |phase| {
                if !quiet {
                    print(&table::phase(phase));
                }
            },
        },
    );
    drop(place);
    if args.json {
        print(&to_json(&report)?);
    } else {
        print(&table::end(&report));
    }
    if let Some(path) = &args.plot {
        plot::run(&report, path)
            .map_err(|error| (FAILED, format!("cannot draw {}: {error}", path.display())))?;
    }
    if let Some(error) = &report.error {
        eprintln!("db_bench: {error}");
    }
    Ok(exit_code(&report))
}

/// The exit code that a report deserves.
#[must_use]
pub fn exit_code(report: &RunReport) -> u8 {
    if report.check_failures > 0 {
        CHECK_FAILED
    } else if report.error.is_some() {
        FAILED
    } else if report.interrupted {
        INTERRUPTED
    } else {
        SUCCESS
    }
}

/// Writes `text` and a line break. A reader that has gone away is no reason to fail.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

pub(crate) fn to_json(report: &impl serde::Serialize) -> Result<String, Refusal> {
    serde_json::to_string_pretty(report)
        .map_err(|error| (FAILED, format!("cannot write the report: {error}")))
}

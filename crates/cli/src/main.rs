//! `esker`, the command line of the database of the same name.
//!
//! Owns the way from the arguments to one verb and from its outcome to an exit code. Uses nothing
//! of the engine but the public API of the library.
#![forbid(unsafe_code)]

mod args;
mod dump;
mod export;
mod failure;
mod formats;
mod import;
mod keys;
mod open;
mod points;
mod progress;
mod scan;
mod streams;
mod upkeep;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Verb};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: &Arguments) -> failure::Result<()> {
    let db = arguments.db.as_deref();
    let directory = || open::directory(db);
    match &arguments.verb {
        Verb::Get(verb) => points::get(directory()?, verb),
        Verb::Put(verb) => points::put(directory()?, verb),
        Verb::Delete(verb) => points::delete(directory()?, verb),
        Verb::Scan(verb) => scan::scan(directory()?, verb),
        Verb::Count => scan::count(directory()?),
        Verb::Import(verb) => import::run(directory()?, verb),
        Verb::Export(verb) => export::run(directory()?, verb),
        Verb::Stats(verb) => upkeep::stats(directory()?, verb),
        Verb::Verify => upkeep::verify(directory()?),
        Verb::Compact => upkeep::compact(directory()?),
        Verb::DumpWal(verb) => dump::run(db, verb, esker::inspect::dump_wal),
        Verb::DumpTable(verb) => dump::run(db, verb, esker::inspect::dump_table),
        Verb::DumpManifest(verb) => dump::run(db, verb, esker::inspect::dump_manifest),
    }
}

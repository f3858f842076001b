//! `esker`, the command line of the database of the same name.
//!
//! Owns the way from the arguments to one verb or to the shell, and from its outcome to an exit code.
//! Uses nothing of the engine but the public API of the library.
#![forbid(unsafe_code)]

mod args;
mod confirm;
mod display;
mod dump;
mod duration;
mod export;
mod failure;
mod formats;
mod import;
mod interrupt;
mod key_range;
mod keys;
mod open;
mod progress;
mod reply;
mod session;
mod shell;
mod streams;
mod verb_arguments;
mod verbs;
mod words;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::Arguments;
use confirm::Terminal;
use failure::{Failure, Result};
use reply::{Reply, Style};
use session::{Pending, Session};
use verbs::{Needs, Verb};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    if let Verb::Shell(verb) = &arguments.verb {
        return ExitCode::from(shell::run(&arguments, verb));
    }
    let style = Style {
        json: arguments.common.json,
        terminal: io::stdout().is_terminal(),
        session: false,
    };
    let Err(failure) = single(&arguments, style) else {
        return ExitCode::SUCCESS;
    };
    failure.report(style, None);
    ExitCode::from(failure.exit_code())
}

/// Says why a command line means nothing, or the help that it asks for; to programs as any failure.
fn not_understood(error: &clap::Error) -> ExitCode {
    let words = std::env::args_os().take_while(|word| word != "--");
    if !words.into_iter().any(|word| word == "--json") {
        error.exit()
    }
    let style = Style {
        json: true,
        ..Style::default()
    };
    let told = match help_for_programs() {
        Some((what, text)) => Reply::default().field(what, text).print(style),
        None => Err(Failure::Usage(shell::sentence(error))),
    };
    let Err(failure) = told else {
        return ExitCode::SUCCESS;
    };
    failure.report(style, None);
    ExitCode::from(failure.exit_code())
}

/// The help, or the version, that the command line asks for beside `--json`, which the verb `help` does not
/// know.
fn help_for_programs() -> Option<(&'static str, String)> {
    let words = std::env::args_os().filter(|word| word != "--json");
    let error = Arguments::try_parse_from(words).err()?;
    let what = match error.kind() {
        ErrorKind::DisplayHelp => "help",
        ErrorKind::DisplayVersion => "version",
        _ => return None,
    };
    Some((what, error.render().to_string()))
}

/// Runs one command in a session of its own.
fn single(arguments: &Arguments, style: Style) -> Result<()> {
    let needs = arguments.verb.needs();
    if needs == Needs::Session {
        let sentence = "this verb is for a session of several commands: start one with esker shell";
        return Err(Failure::Usage(sentence.into()));
    }
    if needs == Needs::Nothing {
        arguments.places.refuse_without("this verb opens none")?;
    }
    let directory = arguments.db.clone();
    let mut session = Session {
        pending: match arguments.memory {
            true => Some(Pending::Memory),
            false => directory.map(|directory| Pending::Directory {
                directory,
                needs,
                places: arguments.places.clone(),
            }),
        },
        style,
        ..Session::default()
    };
    let ran = session.run(&arguments.common, &arguments.verb, &mut Terminal);
    // The first failure is the one to tell.
    let ended = session.end();
    ran.and(ended)
}

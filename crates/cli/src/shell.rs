//! The shell: commands from a terminal or a pipe, one a line, in one session.
//!
//! Invariant: a line is cut into words by `words`, understood by the same description as the command
//! line, and run by the session; nothing is parsed anywhere else. A script ends at its first line
//! that failed, unless it is to keep going, and its exit code is the largest of its lines. An answer
//! of no (a key that is missing) fails a line without ending the script.

mod completion;
mod editor;
mod help;
mod history;

use std::ffi::OsString;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::{Arguments, Line};
use crate::confirm::{Ask, Nobody};
use crate::failure::{Failure, Result};
use crate::reply::Style;
use crate::session::{Pending, Session};
use crate::verb_arguments::Shell;
use crate::verbs::{Needs, Verb};
use crate::words;

pub(crate) use help::sentence;

/// The longest line, bytes: the largest value in escapes, and a key.
const MAX_LINE_BYTES: u64 = 5 << 30;

/// What a line asks for.
enum Command {
    /// Nothing: it is empty, or a remark.
    Nothing,
    /// A text that was asked for: help.
    Text(String),
    Verb(Box<Line>),
}

/// What came of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Exit,
}

/// Runs the shell until its input ends, and gives its exit code.
pub(crate) fn run(arguments: &Arguments, verb: &Shell) -> u8 {
    let is_interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let style = Style {
        json: arguments.common.json,
        terminal: io::stdout().is_terminal(),
        session: true,
    };
    let mut session = Session {
        style,
        yes: arguments.common.yes,
        ..Session::default()
    };
    let ran = start(&mut session, arguments, verb).and_then(|()| {
        if is_interactive {
            editor::converse(&mut session, !verb.no_history)
        } else {
            Ok(read_script(&mut session, verb.keep_going))
        }
    });
    let ended = session.end();
    let code = match &ran {
        Ok(code) => *code,
        Err(failure) => {
            failure.report(style, None);
            failure.exit_code()
        }
    };
    if let Err(failure) = ended {
        failure.report(style, None);
        return code.max(failure.exit_code());
    }
    code
}

/// Connects what the command line names.
fn start(session: &mut Session, arguments: &Arguments, verb: &Shell) -> Result<()> {
    let needs = if verb.read_only {
        Needs::ToRead
    } else {
        Needs::ToCreate
    };
    // Not clap's to say: within the shell the same verb has no --db to be in conflict with.
    if verb.directory.is_some() && (arguments.db.is_some() || arguments.memory) {
        let sentence = "name one database: DIR, --db or --memory";
        return Err(Failure::Usage(sentence.into()));
    }
    let directory = arguments.db.as_ref().or(verb.directory.as_ref());
    session.pending = match (directory, arguments.memory) {
        (_, true) => Some(Pending::Memory),
        (Some(directory), _) => Some(Pending::Directory {
            directory: PathBuf::from(directory),
            needs,
            places: arguments.places.clone(),
        }),
        (None, false) => {
            let sentence = "name it with --db, or name them after connect DIR in the shell";
            arguments.places.refuse_without(sentence)?;
            None
        }
    };
    if session.pending.is_some() {
        session.connected()?;
    }
    if let (Some(connection), Some(name)) = (&mut session.connection, &arguments.common.keyspace) {
        connection.keyspace.clone_from(name);
    }
    Ok(())
}

/// Runs the lines of standard input.
fn read_script(session: &mut Session, keep_going: bool) -> u8 {
    let mut code = 0;
    let mut input = io::stdin().lock();
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        session.answering = session.style;
        let read = io::Read::take(&mut input, MAX_LINE_BYTES).read_until(b'\n', &mut bytes);
        let ran = match read {
            Ok(0) => break,
            Ok(_) => match std::str::from_utf8(&bytes) {
                Ok(line) => run_line(session, line, &mut Nobody),
                Err(_) => Err(Failure::Usage(
                    "the line is not UTF-8; write such bytes as \\xHH".into(),
                )),
            },
            Err(error) => {
                let sentence = format!("could not read standard input: {error}");
                Failure::Engine(sentence).report(session.style, Some(number));
                return code.max(3);
            }
        };
        match ran {
            Ok(Next::GoOn) => {}
            Ok(Next::Exit) => break,
            // Nobody reads any more: there is nothing left to do.
            Err(Failure::ReaderGone) => break,
            Err(failure) => {
                failure.report(session.answering, Some(number));
                code = code.max(failure.exit_code());
                if !keep_going && !failure.is_answer() {
                    break;
                }
            }
        }
    }
    code
}

/// Runs one line.
fn run_line(session: &mut Session, line: &str, ask: &mut dyn Ask) -> Result<Next> {
    session.answering = Style {
        json: session.style.json || asks_for_json(line),
        ..session.style
    };
    match understand(line)? {
        Command::Nothing => Ok(Next::GoOn),
        Command::Text(text) => {
            crate::reply::Reply::text(text.clone())
                .field("help", text)
                .print(session.answering)?;
            Ok(Next::GoOn)
        }
        Command::Verb(line) => {
            session.run(&line.common, &line.verb, ask)?;
            Ok(match line.verb {
                Verb::Exit => Next::Exit,
                _ => Next::GoOn,
            })
        }
    }
}

/// Whether the line wants its answer for programs: also one that cannot be understood.
fn asks_for_json(line: &str) -> bool {
    let words = words::split(line).unwrap_or_default();
    let mut options = words.iter().take_while(|word| *word != b"--");
    options.any(|word| word == b"--json")
}

/// What `line` asks for, or why it cannot be understood.
fn understand(line: &str) -> Result<Command> {
    let mut words = words::split(line).map_err(|problem| Failure::Usage(problem.to_string()))?;
    if matches!(words.first(), Some(word) if word == b"help" || word == b"?") {
        // An option of every verb, though help is none; whoever prints has seen it.
        words.retain(|word| word != b"--json");
    }
    match words.as_slice() {
        [] => return Ok(Command::Nothing),
        [word] if word == b"help" || word == b"?" => return Ok(Command::Text(help::overview())),
        _ => {}
    }
    let words = words.into_iter().map(as_argument);
    let words = words.collect::<Result<Vec<OsString>>>()?;
    match Line::try_parse_from(words) {
        Ok(line) => Ok(Command::Verb(Box::new(line))),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            Ok(Command::Text(error.render().to_string()))
        }
        Err(error) => Err(Failure::Usage(help::sentence(&error))),
    }
}

/// A word as clap takes it: any bytes.
#[cfg(unix)]
fn as_argument(word: Vec<u8>) -> Result<OsString> {
    use std::os::unix::ffi::OsStringExt as _;
    Ok(OsString::from_vec(word))
}

/// A word as clap takes it.
#[cfg(not(unix))]
fn as_argument(word: Vec<u8>) -> Result<OsString> {
    String::from_utf8(word).map(OsString::from).map_err(|_| {
        Failure::Usage("bytes that are not UTF-8 are written in digits here: see --hex".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        match understand(line) {
            Err(failure) => failure.sentence().unwrap(),
            Ok(_) => panic!("{line} was understood"),
        }
    }

    #[test]
    fn lines_are_understood() {
        assert!(matches!(
            understand("  # remark").unwrap(),
            Command::Nothing
        ));
        assert!(
            matches!(understand("help").unwrap(), Command::Text(text) if text.contains("set-ttl"))
        );
        assert!(
            matches!(understand("help set").unwrap(), Command::Text(text) if text.contains("<KEY>"))
        );
        let Command::Verb(line) = understand(r#"set "a b" \xff --json"#).unwrap() else {
            panic!("it is a verb");
        };
        assert!(line.common.json);
        let Verb::Set(put) = line.verb else {
            panic!("it is set");
        };
        assert_eq!(put.key.key, "a b");
        assert_eq!(put.value.unwrap().as_encoded_bytes(), b"\xff");
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line_with_the_way_to_do_it_right() {
        let cases: [(&str, &[&str]); 6] = [
            ("sett a 1", &["sett", "'set'"]),
            ("set a", &["<VALUE>", "usage: "]),
            ("get a b", &["'b'", "usage: "]),
            ("keys --limit x", &["--limit", "x"]),
            ("get --frob", &["--frob", "usage: "]),
            ("get 'a", &["has no end"]),
        ];
        for (line, parts) in cases {
            let said = said(line);
            assert!(!said.contains('\n'), "{said}");
            for part in parts {
                assert!(said.contains(part), "{line}: {part:?} is not in {said:?}");
            }
        }
    }
}

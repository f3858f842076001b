//! Why a verb did not succeed, and the exit code that says so to a script.
//!
//! Invariant: every failure leaves through here as one line on standard error and one of the codes
//! that `--help` documents. A reader that has gone away (`esker export - | head`) is no failure.

use std::error::Error as _;
use std::io;
use std::path::Path;

use esker::ErrorKind;
use serde_json::{Value, json};

use crate::reply::{Reply, Style};

/// Printed below `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the answer is no: the key is missing, the database is not well, a line or record is refused,
       a transaction conflicts
  2    the command line is wrong, or names a key that no database can hold
  3    the database or a file could not be opened, read or written
  4    something would have been destroyed, and nobody confirmed it: --yes does
  130  interrupted
A script that the shell takes from a pipe ends with the largest code of its lines.";

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked about is not there: an answer rather than an error.
    Missing(String),
    /// The verb ran, and its answer is no.
    Refused(String),
    /// What was asked for can not be asked for.
    Usage(String),
    /// The engine or a file failed.
    Engine(String),
    /// The engine found that stored bytes are not what was written.
    Damage(String),
    /// It would have destroyed something, and nobody said yes.
    Unconfirmed(String),
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// Whoever read the output has had enough of it.
    ReaderGone,
    /// A check found something: what it found, and the sentence that says so.
    Found(Box<Reply>, String),
    /// One that the command's own `--json` object has told already.
    Told(Box<Failure>),
}

/// The result of everything in the command line.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failed operation on a file that is not the database's: `action` completes "could not ...".
    pub(crate) fn file(action: &str, path: &Path, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Engine(format!("could not {action} {}: {error}", path.display()))
    }

    /// A database that could not be opened, even if the directory is what is wrong with it: 2 is
    /// left to command lines that no directory could mend.
    pub(crate) fn opening(error: esker::Error) -> Self {
        match Self::from(error) {
            Self::Usage(message) | Self::Refused(message) => Self::Engine(message),
            other => other,
        }
    }

    /// The exit code that documents it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Missing(_) | Self::Refused(_) | Self::Found(..) => 1,
            Self::Usage(_) => 2,
            Self::Engine(_) | Self::Damage(_) => 3,
            Self::Unconfirmed(_) => 4,
            Self::Interrupted => 130,
            Self::Told(failure) => failure.exit_code(),
        }
    }

    /// Whether a script may go on after it: what is missing is an answer.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Missing(_))
    }

    /// Whether programs have been told of it.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self, Self::Told(_) | Self::ReaderGone)
    }

    /// The sentence, on one line; none where there is nobody to tell.
    pub(crate) fn sentence(&self) -> Option<String> {
        let message = match self {
            Self::Missing(message)
            | Self::Refused(message)
            | Self::Usage(message)
            | Self::Engine(message)
            | Self::Damage(message)
            | Self::Found(_, message)
            | Self::Unconfirmed(message) => message,
            Self::Interrupted => "interrupted",
            Self::ReaderGone => return None,
            Self::Told(failure) => return failure.sentence(),
        };
        Some(message.replace(['\n', '\r'], " "))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Refused(_) | Self::Found(..) => "refused",
            Self::Usage(_) => "usage",
            Self::Engine(_) => "engine",
            Self::Damage(_) => "damage",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::Interrupted => "interrupted",
            Self::ReaderGone => "reader-gone",
            Self::Told(failure) => failure.name(),
        }
    }

    /// The `"error"` of a `--json` object.
    pub(crate) fn as_json(&self) -> Value {
        json!({
            "kind": self.name(),
            "message": self.sentence().unwrap_or_default(),
            "exit_code": self.exit_code(),
        })
    }

    /// Tells people on standard error, and programs on standard output. `line` is the one of a
    /// script that failed.
    pub(crate) fn report(&self, style: Style, line: Option<usize>) {
        if let Self::Found(reply, _) = self
            && !style.json
        {
            // If the reader has gone, there is nobody to be told of it.
            let _ = reply.print(style);
        }
        if style.json && !self.is_told() {
            let mut error = self.as_json();
            if let Some(line) = line {
                error["line"] = line.into();
            }
            let reply = match self {
                Self::Found(reply, _) => (**reply).clone(),
                _ => Reply::default(),
            };
            let _ = reply.field("error", error).print_as(false, style);
        }
        let Some(sentence) = self.sentence() else {
            return;
        };
        match line {
            Some(line) => eprintln!("esker: line {line}: {sentence}"),
            None => eprintln!("esker: {sentence}"),
        }
    }
}

impl From<esker::Error> for Failure {
    fn from(error: esker::Error) -> Self {
        let source = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>());
        if source.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe) {
            return Self::ReaderGone;
        }
        let sentence = match error.kind() {
            // These sentences say themselves how to do it right.
            ErrorKind::InvalidArgument
            | ErrorKind::Unsupported
            | ErrorKind::NotFound
            | ErrorKind::UniqueViolation
            | ErrorKind::NotReady
            | ErrorKind::Conflict => error.to_string(),
            _ => format!("{error}; {}", error.advice()),
        };
        match error.kind() {
            ErrorKind::InvalidArgument | ErrorKind::Unsupported => Self::Usage(sentence),
            ErrorKind::NotFound
            | ErrorKind::UniqueViolation
            | ErrorKind::NotReady
            | ErrorKind::Gap
            | ErrorKind::Lagged
            | ErrorKind::Conflict
            | ErrorKind::Deadlock => Self::Refused(sentence),
            ErrorKind::Corruption => Self::Damage(sentence),
            ErrorKind::Cancelled => Self::Interrupted,
            _ => Self::Engine(sentence),
        }
    }
}

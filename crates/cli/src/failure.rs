//! Why a verb did not succeed, and the exit code that says so to a script.
//!
//! Invariant: every failure leaves through here as one line on standard error and one of the codes
//! that `--help` documents. A reader that has gone away (`esker export - | head`) is no failure.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use esker::ErrorKind;

/// Printed below `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: the key is missing, the database is not well, a line or record is refused
  2  the command line is wrong, or names a key that no database can hold
  3  the database or a file could not be opened, read or written";

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The verb ran, and its answer is no.
    Refused(String),
    /// What was asked for can not be asked for.
    Usage(String),
    /// The engine or a file failed.
    Engine(String),
    /// The engine found that stored bytes are not what was written.
    Damage(String),
    /// Whoever read the output has had enough of it.
    ReaderGone,
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
            Self::Usage(message) => Self::Engine(message),
            other => other,
        }
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (message, code) = match self {
            Self::Refused(message) => (message, 1),
            Self::Usage(message) => (message, 2),
            Self::Engine(message) | Self::Damage(message) => (message, 3),
            Self::ReaderGone => return ExitCode::SUCCESS,
        };
        eprintln!("esker: {}", message.replace(['\n', '\r'], " "));
        ExitCode::from(code)
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
        match error.kind() {
            ErrorKind::InvalidArgument => Self::Usage(error.to_string()),
            ErrorKind::Corruption => Self::Damage(error.to_string()),
            _ => Self::Engine(error.to_string()),
        }
    }
}

//! The one error type of esker: a kind that says what to do, a sentence, the place, and the source.
//!
//! Invariant: whatever fails inside the engine reaches the caller as this type, and damage always
//! names the file (and the offset where there is one). Every crate of the workspace uses it.

use crate::key_bounds::KeyBounds;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of every fallible call of esker.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the terms of what a caller can do about it: each kind says what.
///
/// ```
/// use esker_base::{Error, ErrorKind};
///
/// fn is_worth_another_try(error: &Error) -> bool {
///     matches!(error.kind(), ErrorKind::Conflict | ErrorKind::TimedOut)
/// }
/// assert!(!is_worth_another_try(&Error::invalid_argument("no such option")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The argument breaks a stated bound; nothing was changed. Mend the call: the same one will
    /// always fail.
    InvalidArgument,
    /// A thing that was asked for by name (a database, a backup, a keyspace) does not exist. List
    /// what there is, or create it.
    NotFound,
    /// Stored bytes are not what was written, or are missing. What is not damaged stays readable:
    /// validate to learn how much it is, and restore from a backup; writing on does not make it
    /// worse.
    Corruption,
    /// The file system refused an operation; the source says why. Nothing acknowledged is lost. Mend
    /// the cause (permissions, a device that failed); then try again, or reopen if writes have
    /// stopped.
    Io,
    /// The device or quota is full. Free space and go on: the engine resumes by itself, in the open
    /// handle.
    NoSpace,
    /// Another handle or process has the directory open. Use that one, or close it first.
    Locked,
    /// The database was closed. Open it anew; no handle of its earlier life works again.
    Closed,
    /// The database was opened for reading only. Open it with
    /// `Options::open` to change it.
    ReadOnly,
    /// This engine, configuration or version cannot do that; nothing was changed. Use one that can,
    /// as the sentence says.
    Unsupported,
    /// A transaction lost against another and has changed nothing. Begin it again from its first
    /// read, or let `Db::transact` do so.
    Conflict,
    /// Transactions would have waited for each other's locks without end, and this one was chosen to
    /// give way. Roll it back and begin it again, or let `Db::transact_with` do so.
    Deadlock,
    /// A unique index holds the key already, for another record; nothing was changed. Choose another
    /// key, or change the record that has it first.
    UniqueViolation,
    /// A secondary index is still being built. Wait for it (`Db::build_indexes`), or ask without it.
    NotReady,
    /// A wait took longer than it was allowed to; nothing was changed. Try again later, or allow
    /// more.
    TimedOut,
    /// The operation was cancelled by its caller; nothing was changed.
    Cancelled,
    /// A limit that the options set (memory, for instance) is reached. Delete something, or raise
    /// the limit.
    LimitExceeded,
    /// A part of the history of writes is in no log that is left, or never was in one: the sentence
    /// names the sequence numbers. Restore to a point before it, or from a backup that was made after
    /// it; begin a feed of changes anew behind it.
    Gap,
    /// A change cursor has kept more of the log than it may: changes that it has not acknowledged are gone,
    /// and the sentence names them. Bring what follows it up to date from a snapshot, acknowledge what the
    /// snapshot shows, and go on; raise `change_retention_bytes` where it should be able to wait longer.
    Lagged,
    /// An earlier background failure, which is the source, has stopped writes until it is cured;
    /// reads go on. Mend its cause: the engine then resumes by itself, or at the next open.
    Background,
}

impl ErrorKind {
    /// What can be done about an error of this kind: a sentence without its full stop.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::InvalidArgument => "give an argument within the bounds that the sentence names",
            Self::NotFound => "look at what there is by that name, or create it",
            Self::Corruption => {
                "validate the database to learn what else is damaged, and restore \
                from a backup; what is not damaged can still be read"
            }
            Self::Io => {
                "mend what the system says is wrong, then try again; nothing acknowledged \
                is lost"
            }
            Self::NoSpace => "free space on the device; the database then goes on by itself",
            Self::Locked => "close the handle or end the process that has it open",
            Self::Closed => "open the database anew",
            Self::ReadOnly => "open the database for writing to change it",
            Self::Unsupported => "use an engine, an option or a version that can do it",
            Self::Conflict => "begin the transaction again",
            Self::Deadlock => "roll the transaction back and begin it again",
            Self::UniqueViolation => "choose another key, or change the record that has this one",
            Self::NotReady => "wait until the index is built, or ask without it",
            Self::TimedOut => "try again later, or allow more time",
            Self::Cancelled => "start it again when it is wanted",
            Self::LimitExceeded => "delete something, or raise the limit in the options",
            Self::Gap => "choose a point before the missing writes, or a backup from after them",
            Self::Lagged => {
                "read everything anew from a snapshot, acknowledge its sequence number, and go on; raise \
                change_retention_bytes if it should be able to wait longer"
            }
            Self::Background => {
                "mend the cause; writes then resume by themselves, or at the next \
                open"
            }
        }
    }
}

/// An error of esker. Cheap to move (one pointer) and to clone.
#[derive(Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    file: Option<PathBuf>,
    offset: Option<u64>,
    keys: Option<KeyBounds>,
    source: Option<Arc<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Error {
    /// An error of `kind` whose sentence is `message`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let inner = Inner {
            kind,
            message: message.into(),
            file: None,
            offset: None,
            keys: None,
            source: None,
        };
        Self {
            inner: Box::new(inner),
        }
    }

    /// Damage: stored bytes that are not what was written.
    #[must_use]
    pub fn corruption(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    /// An argument outside its stated bounds.
    #[must_use]
    pub fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// A failed file-system call: `action` completes the sentence "could not ...".
    #[must_use]
    pub fn io(action: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("could not {action}"))
            .with_file(path)
            .with_source(source)
    }

    /// Names the file concerned, unless a deeper layer named one already.
    #[must_use]
    pub fn with_file(mut self, file: &Path) -> Self {
        self.inner.file.get_or_insert_with(|| file.to_path_buf());
        self
    }

    /// Names the byte offset concerned, unless a deeper layer named one already.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.inner.offset.get_or_insert(offset);
        self
    }

    /// Names the keys concerned, unless a deeper layer named some already.
    #[must_use]
    pub fn with_keys(mut self, keys: &KeyBounds) -> Self {
        self.inner.keys.get_or_insert_with(|| keys.clone());
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.inner.source = Some(Arc::new(source));
        self
    }

    /// What went wrong, for a program.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The sentence without its place and cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The file concerned, if any.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.inner.file.as_deref()
    }

    /// The byte offset in [`Error::file`], if known.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.inner.offset
    }

    /// The keys that may be concerned, as far as that is known: the smallest, and the largest (empty:
    /// no upper bound). A damaged table, for instance, names the keys that it covers.
    #[must_use]
    pub fn keys(&self) -> Option<(&[u8], &[u8])> {
        let keys = self.inner.keys.as_ref()?;
        Some((&keys.smallest, &keys.largest))
    }

    /// What can be done about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.inner.kind.advice()
    }
}

/// A key as a sentence shows it: the beginning of it, printable.
fn shown(key: &[u8]) -> String {
    const SHOWN_BYTES: usize = 32;
    let (part, dots) = match key.get(..SHOWN_BYTES) {
        Some(part) if part.len() < key.len() => (part, "..."),
        _ => (key, ""),
    };
    format!("\"{}{dots}\"", part.escape_ascii())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        match (&self.inner.file, self.inner.offset) {
            (Some(file), Some(offset)) => write!(f, " ({} at byte {offset})", file.display())?,
            (Some(file), None) => write!(f, " ({})", file.display())?,
            (None, Some(offset)) => write!(f, " (at byte {offset})")?,
            (None, None) => {}
        }
        if let Some((smallest, largest)) = self.keys() {
            match largest {
                [] => write!(f, ", keys from {} on", shown(smallest))?,
                _ => write!(f, ", keys {} to {}", shown(smallest), shown(largest))?,
            }
        }
        if let Some(source) = &self.inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests;

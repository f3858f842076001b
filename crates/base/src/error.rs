//! The one error type of esker: a kind that says what to do, a sentence, the place, and the source.
//!
//! Invariant: whatever fails inside the engine reaches the caller as this type, and damage always
//! names the file (and the offset where there is one). Every crate of the workspace uses it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of every fallible call of esker.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the terms of what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The argument breaks a stated bound; nothing was changed. Mend the call.
    InvalidArgument,
    /// A thing that was asked for by name (a database, a backup, a keyspace) does not exist.
    NotFound,
    /// Stored bytes are not what was written. Validate, restore or repair.
    Corruption,
    /// The file system refused an operation. See the source.
    Io,
    /// The device or quota is full. Free space; the engine resumes by itself.
    NoSpace,
    /// Another handle or process has the directory open.
    Locked,
    /// The database was closed.
    Closed,
    /// The database was opened for reading only.
    ReadOnly,
    /// This engine or configuration cannot do that.
    Unsupported,
    /// A transaction lost against another; retry it from its start.
    Conflict,
    /// A wait took longer than it was allowed to.
    TimedOut,
    /// The operation was cancelled by its caller.
    Cancelled,
    /// A limit that the options set (memory, for instance) is reached.
    LimitExceeded,
    /// An earlier background failure has stopped writes until it is cured.
    Background,
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
mod tests {
    use super::*;

    #[test]
    fn display_is_a_sentence_with_its_place() {
        let error = Error::corruption("block checksum mismatch")
            .with_file(Path::new("000007.sst"))
            .with_offset(4096)
            .with_file(Path::new("outer"));
        assert_eq!(
            error.to_string(),
            "block checksum mismatch (000007.sst at byte 4096)"
        );
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }

    #[test]
    fn a_full_device_is_its_own_kind() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(
            Error::io("append", Path::new("x"), source).kind(),
            ErrorKind::NoSpace
        );
    }
}

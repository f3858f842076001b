//! Validation: reads everything that the manifest names and compares it with what it says.
//!
//! Invariant: changes nothing, holds nobody up, and finds every byte that is not what was written:
//! the manifest and `CURRENT`, every block and file checksum of every table, key order, filters
//! against keys, index agreement, counts, key and sequence ranges against the manifest, the
//! disjointness of runs (I7), the records of the log, of its archive and of what is kept of it for
//! change cursors, the files of backups and recovery points by presence and length, and strays. What
//! the database itself does without is no worse than a warning; what the file system does not read now says
//! nothing of the bytes, and is told apart. The parts: `tables`, `values`, `log`, `archive`, `files`, and
//! `index::check`.

mod archive;
mod files;
mod log;
mod tables;
mod values;

use crate::db::Db;
use crate::engine::Mode;
use crate::index;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How bad an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Harmless to the data that is there: a file that nothing names, a moment between backups that
    /// cannot be restored, or something that could not be read now.
    Note,
    /// Something beside the database is damaged or missing: a backup, a recovery point, the archive of the
    /// log, or what is kept of the log for change cursors. The database itself has all its data; what may
    /// not be there is a way back, or a part of the feed of changes.
    Warning,
    /// Data of the database is damaged or missing.
    Damage,
}

/// Something that validation found.
#[derive(Clone, Debug)]
pub struct Issue {
    severity: Severity,
    file: Option<PathBuf>,
    offset: Option<u64>,
    keys: Option<(Vec<u8>, Vec<u8>)>,
    message: String,
    advice: &'static str,
}

impl Issue {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The file it is in.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The byte offset in the file, where there is one.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// The keys that may be concerned, where that is known: the smallest, and the largest (empty: no
    /// upper bound).
    #[must_use]
    pub fn keys(&self) -> Option<(&[u8], &[u8])> {
        let (smallest, largest) = self.keys.as_ref()?;
        Some((smallest, largest))
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What can be done about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.advice
    }

    /// A disagreement of an index with its records.
    pub(crate) fn of_index(message: String) -> Self {
        Self {
            severity: Severity::Damage,
            file: None,
            offset: None,
            keys: None,
            message,
            advice: "build the index anew: Keyspace::rebuild_index",
        }
    }

    /// Damage to a table, or to what is like one.
    pub(crate) fn damage(error: &Error) -> Self {
        let advice = "restore the file from a backup, or the database from its last good one; what \
            other files hold can still be read";
        Self::with_advice(error, advice)
    }

    /// Damage, with advice of its own.
    fn with_advice(error: &Error, advice: &'static str) -> Self {
        let keys = error.keys();
        let message = match std::error::Error::source(error) {
            Some(source) => format!("{}: {source}", error.message()),
            None => error.message().to_string(),
        };
        Self {
            severity: Severity::Damage,
            file: error.file().map(PathBuf::from),
            offset: error.offset(),
            keys: keys.map(|(smallest, largest)| (smallest.to_vec(), largest.to_vec())),
            message,
            advice,
        }
    }

    /// Damage to what the database itself does without.
    fn warning(error: &Error, advice: &'static str) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::with_advice(error, advice)
        }
    }

    /// Something that the file system did not read.
    fn unread(error: &Error) -> Self {
        let advice =
            "validate again when the device can be read: nothing is known of what is in there";
        let mut issue = Self::with_advice(error, advice);
        issue.severity = Severity::Note;
        issue.message = format!("not read: {}", issue.message);
        issue
    }

    /// Something harmless about a file.
    fn note(file: PathBuf, message: &str, advice: &'static str) -> Self {
        Self {
            severity: Severity::Note,
            file: Some(file),
            offset: None,
            keys: None,
            message: message.to_string(),
            advice,
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Error::new(ErrorKind::Corruption, self.message.clone());
        let place = match &self.file {
            Some(file) => place.with_file(file),
            None => place,
        };
        let place = match self.offset {
            Some(offset) => place.with_offset(offset),
            None => place,
        };
        let place = match &self.keys {
            Some((smallest, largest)) => {
                let bounds = KeyBounds::inclusive(smallest.as_slice(), largest.as_slice());
                place.with_keys(&bounds)
            }
            None => place,
        };
        write!(f, "{:?}: {place}; {}", self.severity, self.advice)
    }
}

/// What a validation found: [`Db::validate`](crate::Db::validate).
#[derive(Clone, Debug, Default)]
pub struct ValidationReport {
    pub(crate) issues: Vec<Issue>,
    pub(crate) tables: u64,
    pub(crate) bytes: u64,
}

impl ValidationReport {
    /// Whether no data of the database is damaged or missing. What is beside it (backups, recovery points,
    /// archived log) may be all the same, which is a [`Severity::Warning`]: see [`ValidationReport::worst`].
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.issues
            .iter()
            .all(|issue| issue.severity < Severity::Damage)
    }

    /// The worst of what was found; `None` where nothing was.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// assert_eq!(db.validate()?.worst(), None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.issues.iter().map(Issue::severity).max()
    }

    /// Everything found, worst first.
    #[must_use]
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// Tables that were read.
    #[must_use]
    pub fn tables(&self) -> u64 {
        self.tables
    }

    /// Bytes of tables, of the log and of its archive that were read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How far a validation is; returning `false` from the callback cancels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationProgress {
    /// Bytes read so far.
    pub done_bytes: u64,
    /// Bytes that will have been read.
    pub total_bytes: u64,
}

/// What the parts share.
pub(crate) struct Shared<'a> {
    progress: &'a (dyn Fn(ValidationProgress) -> bool + Sync),
    issues: Mutex<Vec<Issue>>,
    /// What the file system refused.
    refusals: Mutex<Vec<Error>>,
    done_bytes: AtomicU64,
    total_bytes: u64,
    cancelled: AtomicBool,
}

impl Shared<'_> {
    pub(crate) fn found(&self, issue: Issue) {
        self.issues.lock().push(issue);
    }

    /// Something could not be checked: damage, unless the file system refused.
    pub(crate) fn failed(&self, error: Error, to_issue: impl FnOnce(&Error) -> Issue) {
        if is_refusal(&error) {
            self.refusals.lock().push(error);
        } else {
            self.found(to_issue(&error));
        }
    }

    /// What there is to say in the end: an error where nothing is damaged as far as could be read, and
    /// not all could be.
    fn into_issues(self) -> Result<Vec<Issue>> {
        let mut issues = self.issues.into_inner();
        let refusals = self.refusals.into_inner();
        let is_damaged = issues.iter().any(|it| it.severity > Severity::Note);
        match refusals.first() {
            Some(first) if !is_damaged => return Err(first.clone()),
            _ => issues.extend(refusals.iter().map(Issue::unread)),
        }
        issues.sort_by_key(|issue| std::cmp::Reverse(issue.severity));
        Ok(issues)
    }

    /// Tells that `bytes` more were read. Whether to go on.
    fn advance(&self, bytes: u64) -> bool {
        let done_bytes = self.done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let goes_on = (self.progress)(ValidationProgress {
            done_bytes,
            // Logs grow while they are read.
            total_bytes: self.total_bytes.max(done_bytes),
        });
        if !goes_on {
            self.cancelled.store(true, Ordering::Relaxed);
        }
        goes_on && !self.is_cancelled()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Whether the file system refused, which says nothing of the bytes. A file that is not there is another
/// matter.
pub(crate) fn is_refusal(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    let is_missing = source.is_some_and(|source| source.kind() == io::ErrorKind::NotFound);
    matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace) && !is_missing
}

pub(crate) fn validate(
    db: &Db,
    progress: &(dyn Fn(ValidationProgress) -> bool + Sync),
) -> Result<ValidationReport> {
    let engine = db.engine();
    engine.check_open()?;
    // Super-versions keep the files of the tables that are read here.
    let views: Vec<_> = engine
        .all_keyspaces()
        .iter()
        .map(|state| state.load_full())
        .collect();
    // Every write that a table of these may hold is visible by now, but for a bulk load's.
    let visible = engine.visible_sequence();
    let tables: Vec<Arc<TableMeta>> = views
        .iter()
        .flat_map(|view| view.version.tables().map(|(_, _, meta)| Arc::clone(meta)))
        .collect();
    let table_bytes: u64 = tables.iter().map(|meta| meta.file_bytes).sum();
    let shared = Shared {
        progress,
        issues: Mutex::default(),
        refusals: Mutex::default(),
        done_bytes: AtomicU64::new(0),
        total_bytes: table_bytes
            + engine.segments.bytes()
            + engine.archived_bytes().unwrap_or_default(),
        cancelled: AtomicBool::new(false),
    };
    for view in &views {
        if let Err(error) = view.version.check_invariants() {
            shared.failed(error, |error| Issue::with_advice(error, MANIFEST_ADVICE));
        }
    }
    tables::verify(engine, &tables, visible, &shared);
    views.iter().for_each(|view| values::verify(view, &shared));
    if engine.mode != Mode::Memory {
        log::verify(engine, &shared);
        archive::verify(engine, &shared);
        files::verify_manifest(engine, &shared);
        files::verify_backups(engine, &shared);
        files::find_strays(engine, &shared);
    }
    if shared.is_cancelled() {
        let sentence = "the validation was cancelled";
        return Err(Error::new(ErrorKind::Cancelled, sentence));
    }
    index::check::check(db, &shared);
    let bytes = shared.done_bytes.load(Ordering::Relaxed);
    Ok(ValidationReport {
        issues: shared.into_issues()?,
        tables: tables.len() as u64,
        bytes,
    })
}

/// For damage to what names everything else.
const MANIFEST_ADVICE: &str = "make a checkpoint or a backup while the database is open, for the \
    next open will fail, and go on from there; or restore the last good backup";

#[cfg(test)]
mod tests;

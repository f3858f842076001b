//! Validation: reads everything that the manifest names and compares it with what it says.
//!
//! Invariant: changes nothing, and finds every byte that is not what was written: every block and
//! file checksum, key order, filters against keys, index agreement, counts and ranges against the
//! manifest, the disjointness of runs (I7), missing files and strays.

use crate::engine::{Engine, Mode};
use esker_base::filename::{FileKind, table_path, wal_path};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result};
use esker_wal::{SegmentEnd, SegmentReader};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How bad an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Harmless: a file that nothing names.
    Note,
    /// Data is damaged or missing.
    Damage,
}

/// Something that validation found.
#[derive(Clone, Debug)]
pub struct Issue {
    severity: Severity,
    file: Option<PathBuf>,
    offset: Option<u64>,
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
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }

    /// The byte offset in the file, where there is one.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.offset
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

    pub(crate) fn damage(error: &Error) -> Self {
        Self {
            severity: Severity::Damage,
            file: error.file().map(PathBuf::from),
            offset: error.offset(),
            message: error.message().to_string(),
            advice: "restore the file from a backup, or the database from its last good one",
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.severity, self.message)?;
        if let Some(file) = &self.file {
            write!(f, " ({}", file.display())?;
            if let Some(offset) = self.offset {
                write!(f, " at byte {offset}")?;
            }
            f.write_str(")")?;
        }
        write!(f, "; {}", self.advice)
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
    /// Whether no data is damaged or missing.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.issues
            .iter()
            .all(|issue| issue.severity < Severity::Damage)
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

    /// Bytes that were read.
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

/// What the parallel parts share.
struct Shared<'a> {
    progress: &'a (dyn Fn(ValidationProgress) -> bool + Sync),
    issues: Mutex<Vec<Issue>>,
    done_bytes: AtomicU64,
    total_bytes: u64,
    cancelled: AtomicBool,
}

pub(crate) fn validate(
    engine: &Arc<Engine>,
    progress: &(dyn Fn(ValidationProgress) -> bool + Sync),
) -> Result<ValidationReport> {
    engine.check_open()?;
    // Super-versions keep the files of the tables that are read here.
    let views: Vec<_> = engine
        .all_keyspaces()
        .iter()
        .map(|state| state.load_full())
        .collect();
    let tables: Vec<Arc<TableMeta>> = views
        .iter()
        .flat_map(|view| view.version.tables().map(|(_, _, meta)| Arc::clone(meta)))
        .collect();
    let shared = Shared {
        progress,
        issues: Mutex::default(),
        done_bytes: AtomicU64::new(0),
        total_bytes: tables.iter().map(|meta| meta.file_bytes).sum(),
        cancelled: AtomicBool::new(false),
    };
    for view in &views {
        if let Err(error) = view.version.check_invariants() {
            shared.issues.lock().push(Issue::damage(&error));
        }
    }
    verify_tables(engine, &tables, &shared);
    if shared.cancelled.load(Ordering::Relaxed) {
        return Err(Error::new(
            ErrorKind::Cancelled,
            "the validation was cancelled",
        ));
    }
    if engine.mode != Mode::Memory {
        verify_log(engine, &shared);
        find_strays(engine, &shared);
    }
    let mut issues = shared.issues.into_inner();
    issues.sort_by_key(|issue| std::cmp::Reverse(issue.severity));
    let bytes = shared.done_bytes.into_inner();
    Ok(ValidationReport {
        issues,
        tables: tables.len() as u64,
        bytes,
    })
}

/// Reads the tables, one thread a processor at most as many as there are tables.
fn verify_tables(engine: &Engine, tables: &[Arc<TableMeta>], shared: &Shared<'_>) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(tables.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !shared.cancelled.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(meta) = tables.get(index) else { break };
                    verify_table(engine, meta, shared);
                }
            });
        }
    });
}

fn verify_table(engine: &Engine, meta: &Arc<TableMeta>, shared: &Shared<'_>) {
    let live = engine.tables.get(meta);
    let verified = live.handle.table().and_then(|table| {
        table.verify_against(meta, &mut |bytes| {
            let done_bytes = shared.done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let total_bytes = shared.total_bytes;
            let goes_on = (shared.progress)(ValidationProgress {
                done_bytes,
                total_bytes,
            });
            if !goes_on {
                shared.cancelled.store(true, Ordering::Relaxed);
            }
            goes_on && !shared.cancelled.load(Ordering::Relaxed)
        })
    });
    if let Err(error) = verified
        && error.kind() != ErrorKind::Cancelled
    {
        let error = error.with_file(&table_path(&engine.directory, meta.number));
        shared.issues.lock().push(Issue::damage(&error));
    }
}

/// Reads the complete segments of the log. The one that takes records is left out: its end moves.
fn verify_log(engine: &Engine, shared: &Shared<'_>) {
    let current = engine.segments.current();
    for &number in &engine.versions.state().segments {
        if Some(number) == current {
            continue;
        }
        let path = wal_path(&engine.directory, number);
        let read = SegmentReader::open(&*engine.fs, &path, number).and_then(|mut reader| {
            while reader.next()?.is_some() {}
            match reader.outcome() {
                Some(SegmentEnd::Damaged { offset, reason, .. }) => {
                    Err(Error::corruption(reason.clone())
                        .with_file(&path)
                        .with_offset(*offset))
                }
                _ => Ok(()),
            }
        });
        let gone = || !engine.versions.state().segments.contains(&number);
        if let Err(error) = read
            && !gone()
        {
            shared.issues.lock().push(Issue::damage(&error));
        }
    }
}

/// Files that look like ours and that nothing names. Files of jobs that run now have numbers beyond
/// the manifest's counter at the time of their edit, so only smaller ones are told.
fn find_strays(engine: &Engine, shared: &Shared<'_>) {
    let Ok(entries) = engine.fs.read_dir(&engine.directory) else {
        return;
    };
    let state = engine.versions.state();
    let live: HashSet<_> = engine.versions.live_files();
    for entry in entries {
        let stray = match FileKind::parse(&entry.name) {
            Some(FileKind::Temporary) => true,
            Some(FileKind::Table(number)) if number < state.next_file_number => {
                !live.contains(&number) && !engine.tables.is_read(number)
            }
            _ => false,
        };
        if stray && engine.background.is_idle() {
            shared.issues.lock().push(Issue {
                severity: Severity::Note,
                file: Some(engine.directory.join(&entry.name)),
                offset: None,
                message: "nothing names this file".to_string(),
                advice: "the next open removes it",
            });
        }
    }
}

//! What a job is given to work with: files, tables, time, threads, numbers and a way to stop it.
//!
//! Invariant (I12): a job touches the world through its context only. Plain data, made by db once
//! and cloned into every job.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use esker_base::clock::Clock;
use esker_base::filename::{FileNumber, table_path, temporary_path};
use esker_base::{Error, ErrorKind, Result};
use esker_sstable::{Origin, TableCache, TableOptions};
use esker_vfs::fs::FileSystem;

use crate::executor::Executor;

/// What a job is given to work with.
#[derive(Clone)]
pub struct JobContext {
    /// Where the tables are.
    pub fs: Arc<dyn FileSystem>,
    /// The directory of the tables.
    pub directory: PathBuf,
    /// Opens inputs, and outputs to check them.
    pub tables: Arc<TableCache>,
    /// Stamps new tables.
    pub clock: Arc<dyn Clock>,
    /// Runs the parts of a compaction.
    pub executor: Arc<dyn Executor>,
    /// The next file number; never the same twice.
    pub new_file_number: Arc<dyn Fn() -> FileNumber + Send + Sync>,
    /// Once it is true, jobs end with an error soon.
    pub cancelled: Arc<AtomicBool>,
    /// While it is true, somebody waits for what is flushed or is about to, and flushes keep their processor.
    pub urgent: Arc<AtomicBool>,
    /// How tables of a level are written: upper levels may get more filter bits (Monkey, SIGMOD
    /// 2017), the last one more compression.
    pub table_options: Arc<dyn Fn(usize) -> TableOptions + Send + Sync>,
    /// The size at which a merge begins a new table, bytes.
    pub target_file_bytes: u64,
    /// Parts that one compaction is cut into at most.
    pub max_subcompactions: usize,
    /// What the tables say of where they come from; their place among those of the same job is
    /// filled in.
    pub origin: Option<Arc<Origin>>,
    /// Values of so many bytes or more go into tables of values; `None`: none does.
    pub value_threshold_bytes: Option<usize>,
    /// Values that are still needed leave a value table of which a larger share is garbage.
    pub value_garbage_ratio: f64,
    /// Counts bytes of finished tables, while the job goes on.
    pub written_bytes: Arc<AtomicU64>,
    /// Whether the caller syncs the directory before it names the tables: once for several jobs.
    pub caller_syncs_directory: bool,
}

impl std::fmt::Debug for JobContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobContext")
            .field("directory", &self.directory)
            .field("target_file_bytes", &self.target_file_bytes)
            .field("max_subcompactions", &self.max_subcompactions)
            .finish_non_exhaustive()
    }
}

impl JobContext {
    /// Whether the job may go on.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled).
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
        }
        Ok(())
    }

    /// Gives a finished table, whose contents are durable, the name of a table. What has such a name is whole
    /// whenever the power goes: without a manifest a table that was never finished could not be told from one
    /// that is damaged, which hides what is older. The name is durable once the directory is synced.
    ///
    /// # Errors
    /// I/O.
    pub fn give_name(&self, number: FileNumber) -> Result<()> {
        let path = temporary_path(&self.directory, number);
        let named = self.fs.rename(&path, &table_path(&self.directory, number));
        named.map_err(|error| Error::io("name a table", &path, error))
    }
}

/// The files that a job has made. They are removed when this is dropped, unless the job has ended
/// well: whatever goes wrong, and however, no output outlives it.
#[derive(Debug)]
pub(crate) struct CreatedFiles {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    numbers: parking_lot::Mutex<Vec<FileNumber>>,
}

impl CreatedFiles {
    pub(crate) fn new(context: &JobContext) -> Self {
        Self {
            fs: Arc::clone(&context.fs),
            directory: context.directory.clone(),
            numbers: parking_lot::Mutex::default(),
        }
    }

    /// Notes a file before it is made.
    pub(crate) fn note(&self, number: FileNumber) {
        self.numbers.lock().push(number);
    }

    /// The files stay.
    pub(crate) fn keep(&self) {
        self.numbers.lock().clear();
    }
}

impl Drop for CreatedFiles {
    fn drop(&mut self) {
        for number in self.numbers.get_mut().drain(..) {
            let directory = &self.directory;
            for path in [
                temporary_path(directory, number),
                table_path(directory, number),
            ] {
                // It may never have come into being. What cannot be removed is a stray that the next
                // open removes.
                if let Err(error) = self.fs.remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(%error, path = %path.display(), "could not remove an output");
                }
            }
        }
    }
}

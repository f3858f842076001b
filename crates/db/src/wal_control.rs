//! The write-ahead log as users see and control it.
//!
//! Invariant: none of these loses a write; [`Wal::clear`] first makes everything durable in tables.

use crate::archive_check;
use crate::archived_segment::{self, ArchivedSegment};
use crate::engine::Engine;
use esker_base::Result;
use std::sync::Arc;

/// The write-ahead log of a database: [`Db::wal`](crate::Db::wal).
#[derive(Debug)]
pub struct Wal<'a> {
    engine: &'a Arc<Engine>,
}

impl<'a> Wal<'a> {
    pub(crate) fn new(engine: &'a Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Whether there is one: an in-memory or read-only database has none.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.engine.logs_writes()
    }

    /// Bytes of the records in all segments that are still needed.
    ///
    /// # Errors
    /// `Unsupported` in memory; `Closed`; likewise for all below.
    pub fn size_bytes(&self) -> Result<u64> {
        self.engine.check_on_disk("write-ahead log")?;
        Ok(self.engine.segments.bytes())
    }

    /// Whether segments that are not needed any more are archived:
    /// [`Options::wal_archive`](crate::Options::wal_archive).
    #[must_use]
    pub fn is_archived(&self) -> bool {
        self.engine.archive.is_wanted()
    }

    /// The segments in the archive, oldest first, whether or not the log is archived now. Read-only
    /// databases list them too.
    ///
    /// # Errors
    /// `Io` where the directory cannot be listed; `Closed`.
    pub fn archived(&self) -> Result<Vec<ArchivedSegment>> {
        self.engine.check_open()?;
        archived_segment::list(&*self.engine.fs, &self.engine.archive.directory)
    }

    /// Reads a segment of the archive from end to end and compares it with its checksums and its name.
    ///
    /// # Errors
    /// `Corruption` with the place of what is wrong; `Io` where it cannot be read.
    pub fn verify_archived(&self, segment: &ArchivedSegment) -> Result<()> {
        self.engine.check_open()?;
        let mut chain = archive_check::Chain::default();
        archive_check::read(&*self.engine.fs, segment, &mut chain, &mut |_| true)
    }

    /// The size at which memtables are flushed for the log's sake, bytes.
    #[must_use]
    pub fn size_limit_bytes(&self) -> u64 {
        self.engine.settings.wal_size_limit_bytes()
    }

    /// Goes on in a new segment.
    ///
    /// # Errors
    /// `Unsupported` in memory; `Io` and `NoSpace` from the file system.
    pub fn rotate(&self) -> Result<()> {
        self.engine.check_on_disk("write-ahead log")?;
        let mut writer = self.engine.commit_queue.lock();
        self.engine.ready_log(&mut writer)?;
        let sequence = writer.next_sequence;
        writer.log.roll(self.engine, sequence, 0, false)
    }

    /// Brings everything logged so far to stable storage: `Buffered` writes then survive the power.
    ///
    /// # Errors
    /// As [`Wal::rotate`].
    pub fn sync(&self) -> Result<()> {
        self.engine.check_on_disk("write-ahead log")?;
        let mut writer = self.engine.commit_queue.lock();
        self.engine.ready_log(&mut writer)?;
        writer.log.sync(self.engine)
    }

    /// Flushes all memtables, so that every write is durable in a table, and empties the log.
    ///
    /// # Errors
    /// As [`Wal::rotate`], and whatever keeps a flush from succeeding: the log is kept then.
    pub fn clear(&self) -> Result<()> {
        self.engine.check_on_disk("write-ahead log")?;
        let mut writer = self.engine.commit_queue.lock();
        self.engine.flush_and_cure(&mut writer)?;
        let forgotten = self.engine.forget_log(&mut writer.log);
        if let Err(error) = &forgotten {
            // Whether the manifest still names the log is unknown: nothing may be written to it.
            self.engine.health.latch_log_failure(error);
        }
        forgotten
    }
}

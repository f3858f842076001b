//! Space that is kept back for a full disk, so that deletes go on there and can free some.
//!
//! Two files that hold nothing are kept allocated. One becomes a log segment for deletes alone, once
//! no ordinary one can be made. The other is given back to the file system when a flush or compaction
//! finds the disk full, so that tombstones can reach their table and garbage can be compacted away.
//!
//! Invariants: neither is ever named by the manifest under its own name, so that what a crash leaves
//! of them are strays; the segment made of one becomes ready as any other does (I1). While a part is
//! missing, no segment is made for other writes than deletes before it has been set aside again, none ahead, and
//! none for deletes but of the reserve while that is there: what deletes free is not lost to them at once, nor what was
//! given back to flushes. A reserve that never could be made holds nobody up.

use crate::engine::Engine;
use crate::next_segment::segment_options;
use esker_base::filename::{FileNumber, temporary_path, wal_path};
use esker_base::sync::Mutex;
use esker_base::{Error, ErrorKind, Result};
use esker_compaction::Lane;
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of each of the two files: a quarter of a segment, within these bounds. A delete of a short
/// key takes some sixty bytes of log.
const LEAST_BYTES: u64 = 1 << 20;
const MOST_BYTES: u64 = 4 << 20;

/// What is kept back.
#[derive(Debug, Default)]
pub(crate) struct SpaceReserve {
    files: Mutex<Files>,
    /// Whether a part was used and has not been replaced.
    is_short: AtomicBool,
    /// Whether it was set aside, or a job is to do that.
    is_asked_for: AtomicBool,
}

#[derive(Debug, Default)]
struct Files {
    /// Becomes a log segment.
    log: Option<FileNumber>,
    /// Is given back.
    ballast: Option<FileNumber>,
}

impl SpaceReserve {
    /// Whether a part was used and has not been replaced: the disk is, or was lately, full.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Acquire)
    }

    /// Whether nobody has set it aside yet.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.is_asked_for.load(Ordering::Acquire)
    }
}

impl Engine {
    fn reserve_bytes(&self) -> u64 {
        (self.settings.wal_segment_bytes() / 4).clamp(LEAST_BYTES, MOST_BYTES)
    }

    /// Sets the reserve aside, in the background.
    #[cold]
    pub(crate) fn stock_reserve(self: &Arc<Self>) {
        if !self.background.begin_log_job() {
            return;
        }
        self.reserve.is_asked_for.store(true, Ordering::Release);
        let engine = Arc::clone(self);
        let job = move || {
            if !engine.is_closed()
                && let Err(error) = engine.restock()
            {
                // Asked for again with the next segment.
                engine.reserve.is_asked_for.store(false, Ordering::Release);
                tracing::warn!(%error, "could not set space aside for deletes on a full disk");
            }
            engine.background.end_log_job();
        };
        self.executor.spawn(Lane::Log, Box::new(job));
    }

    /// Called before a log segment is made for `bytes`. Sees to it that what was used of the reserve is there again,
    /// before anything but deletes takes space. And fails where deletes have a part of it to themselves: what was
    /// given back is for flushes and merges, and a segment that took it would have them wait for ever.
    ///
    /// # Errors
    /// `NoSpace`. Whatever else stands in the way does not hold writes up.
    pub(crate) fn spare_reserve(&self, bytes: u64, only_deletes: bool) -> Result<()> {
        if !self.reserve.is_short() {
            return Ok(());
        }
        if !only_deletes {
            return match self.restock() {
                Err(error) if error.kind() == ErrorKind::NoSpace => Err(error),
                _ => Ok(()),
            };
        }
        // An archive takes space of its own for what a delete leaves, and that may be all there is.
        let is_archived = self.archive.is_on();
        if !is_archived && self.is_enough_for(bytes) && self.reserve.files.lock().log.is_some() {
            let sentence = "what was given back of the space that is kept is not for the log";
            return Err(Error::new(ErrorKind::NoSpace, sentence));
        }
        Ok(())
    }

    /// Whether a segment that is made of the reserve has room for `bytes`.
    fn is_enough_for(&self, bytes: u64) -> bool {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        SegmentOptions::segment_bytes_for(bytes) <= self.reserve_bytes()
    }

    /// Sets aside what is missing.
    fn restock(&self) -> Result<()> {
        let mut files = self.reserve.files.lock();
        let files = &mut *files;
        for part in [&mut files.log, &mut files.ballast] {
            if part.is_none() {
                *part = Some(self.set_aside()?);
            }
        }
        self.reserve.is_short.store(false, Ordering::Release);
        Ok(())
    }

    fn set_aside(&self) -> Result<FileNumber> {
        let number = self.versions.new_file_number();
        let path = temporary_path(&self.directory, number);
        let created = self.fs.create(&path);
        let allocated = created.and_then(|file| file.allocate(self.reserve_bytes()));
        if let Err(error) = allocated {
            let _ = self.fs.remove_file(&path);
            return Err(Error::io("set space aside", &path, error));
        }
        Ok(number)
    }

    /// A segment for deletes, made of the reserve: it takes no space that is not there.
    ///
    /// # Errors
    /// `NoSpace` where nothing is left or `bytes` are too many; whatever the file system says.
    pub(crate) fn prepare_reserved_segment(
        &self,
        header: SegmentHeader,
        bytes: u64,
    ) -> Result<SegmentWriter> {
        let segment_bytes = self.reserve_bytes();
        let kept = match self.is_enough_for(bytes) {
            true => self.reserve.files.lock().log.take(),
            false => None,
        };
        let Some(kept) = kept else {
            let sentence = "nothing is left of the space for deletes on a full disk";
            return Err(Error::new(ErrorKind::NoSpace, sentence));
        };
        self.reserve.is_short.store(true, Ordering::Release);
        tracing::warn!("the disk is full; deletes go on in space kept for them");
        let from = temporary_path(&self.directory, kept);
        let path = wal_path(&self.directory, header.number);
        let renamed = self.fs.rename(&from, &path).map_err(|error| {
            let _ = self.fs.remove_file(&from);
            Error::io("rename the space kept for deletes", &from, error)
        });
        let options = SegmentOptions {
            // The space is for records: what is synced is proven by a second sync, not by copies.
            copied_syncs: false,
            may_grow: false,
            ..segment_options(segment_bytes)
        };
        let begun =
            renamed.and_then(|()| SegmentWriter::recycle(&*self.fs, &path, header, options));
        self.publish_segment(header.number, begun)
    }

    /// Gives the file system back what is kept for other times: log files to be used again, tables
    /// that nobody reads, and that part of the reserve. Whether there was any, so that it is worth
    /// trying again.
    #[cold]
    pub(crate) fn give_space_back(&self) -> bool {
        let recycled = self.segments.drop_recyclable(self);
        // The space of a removed file is free once nobody has it open.
        self.segments.spent.close();
        self.remove_unneeded_files();
        let ballast = {
            let mut files = self.reserve.files.lock();
            // Before there is room that a log segment could take.
            if files.ballast.is_some() {
                self.reserve.is_short.store(true, Ordering::Release);
            }
            files.ballast.take()
        };
        if let Some(number) = ballast
            && let Err(error) = self
                .fs
                .remove_file(&temporary_path(&self.directory, number))
        {
            tracing::warn!(number, %error, "could not give space back");
        }
        recycled || ballast.is_some()
    }

    /// The files of the reserve.
    pub(crate) fn reserve_files(&self) -> Vec<PathBuf> {
        let files = self.reserve.files.lock();
        let numbers = files.log.iter().chain(&files.ballast);
        numbers
            .map(|&number| temporary_path(&self.directory, number))
            .collect()
    }

    /// Removes the files of the reserve: the database closes. One that stays is a stray, which the
    /// next open removes.
    pub(crate) fn drop_reserve(&self) {
        let files = std::mem::take(&mut *self.reserve.files.lock());
        for number in files.log.iter().chain(&files.ballast) {
            let _ = self
                .fs
                .remove_file(&temporary_path(&self.directory, *number));
        }
    }
}

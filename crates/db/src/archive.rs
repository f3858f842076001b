//! The archive of the log: copies of segments that the database itself needs no more, for restores to
//! a moment between backups and for feeds of changes.
//!
//! Invariants: a segment is in the archive, whole and on stable storage, before the manifest forgets
//! it, so that a crash loses no part of the history; an archived file is written once, under another
//! name, and never again, whatever becomes of the segment's own file (it may be recycled); writes that
//! failed are not in it. Files go from the oldest on, and no file that a cursor of the feed of changes
//! needs before the limit of those. What only cursors want is kept in a directory of its own, so that
//! nothing of the user's archive goes with them. What is missing is noticed by whoever reads
//! (`log_history`), from what the marks
//! in the log say. Layout and names: docs/format/archive.md.

use crate::archive_retention::Pins;
use crate::archived_segment::{ArchivedSegment, list};
use crate::db::Db;
use crate::engine::Engine;
use crate::log_mark::KeyspaceNote;
use crate::table_files::remove_if_there;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::sync::Mutex;
use esker_base::write_batch::BatchView;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_manifest::KeyspaceEdit;
use esker_wal::{RecordType, SegmentEnd, SegmentOptions, SegmentReader, SegmentWriter, SyncMode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The directory of the archive inside that of the database.
pub(crate) const DEFAULT_DIRECTORY: &str = "archive";
/// The directory for what only cursors want.
pub(crate) const FOLLOWED_DIRECTORY: &str = "changes";
/// Records are written together up to so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Where the log is archived, if it is.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Whether the user wants an archive.
    is_wanted: bool,
    /// Whether a cursor of the feed of changes wants the log to be kept.
    is_followed: AtomicBool,
    /// What a cursor that is being made will have acknowledged; `SequenceNumber::MAX` without one.
    pub(crate) making: AtomicU64,
    /// Of the user's archive.
    pub(crate) directory: PathBuf,
    /// Of what is kept for cursors where the user wants no archive.
    pub(crate) followed: PathBuf,
    /// Held while files come and go, and while they are read.
    pub(crate) lock: Mutex<()>,
    /// What changed of keyspaces and no mark says yet.
    changes: Mutex<Vec<KeyspaceNote>>,
    has_changes: AtomicBool,
}

impl Archive {
    pub(crate) fn new(database: &Path, wanted: Option<PathBuf>, is_wanted: bool) -> Self {
        Self {
            is_wanted,
            is_followed: AtomicBool::new(false),
            making: AtomicU64::new(SequenceNumber::MAX),
            directory: wanted.unwrap_or_else(|| database.join(DEFAULT_DIRECTORY)),
            followed: database.join(FOLLOWED_DIRECTORY),
            lock: Mutex::new(()),
            changes: Mutex::default(),
            has_changes: AtomicBool::new(false),
        }
    }

    /// Whether segments are archived and marks stand in the log, for whatever reason.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_wanted || self.is_followed.load(Ordering::Acquire)
    }

    /// Whether the user wants an archive.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether cursors want the log to be kept, from now on.
    pub(crate) fn set_followed(&self, is_followed: bool) {
        self.is_followed.store(is_followed, Ordering::Release);
    }

    /// A cursor is being made that will have acknowledged so much: what is behind it stays meanwhile.
    pub(crate) fn set_making(&self, acknowledged: Option<SequenceNumber>) {
        let acknowledged = acknowledged.unwrap_or(SequenceNumber::MAX);
        self.making.store(acknowledged, Ordering::Release);
    }

    /// Where segments go.
    fn place(&self) -> &Path {
        match self.is_wanted {
            true => &self.directory,
            false => &self.followed,
        }
    }

    /// A keyspace came, went or changed its options, durably: the next mark in the log says so.
    pub(crate) fn note_change(&self, change: KeyspaceEdit) {
        self.note(KeyspaceNote {
            edit: change,
            dropped: None,
        });
    }

    /// As [`Archive::note_change`], of a keyspace of this name that went.
    pub(crate) fn note_drop(&self, change: KeyspaceEdit, name: &str) {
        self.note(KeyspaceNote {
            edit: change,
            dropped: Some(name.to_string()),
        });
    }

    fn note(&self, note: KeyspaceNote) {
        if self.is_on() {
            let mut changes = self.changes.lock();
            changes.push(note);
            self.has_changes.store(true, Ordering::Release);
        }
    }

    #[inline]
    pub(crate) fn has_changes(&self) -> bool {
        self.has_changes.load(Ordering::Acquire)
    }

    pub(crate) fn take_changes(&self) -> Vec<KeyspaceNote> {
        let mut changes = self.changes.lock();
        self.has_changes.store(false, Ordering::Release);
        std::mem::take(&mut *changes)
    }
}

/// The number after the last record of a batch.
pub(crate) fn end_of(batch: &BatchView<'_>) -> SequenceNumber {
    batch.sequence() + u64::from(batch.count())
}

impl Engine {
    /// Copies segments that take no more records into the archive, durably, and lets go of what the
    /// limits of the archive do not keep. Does nothing where the log is not archived. Batches from
    /// `end` on never happened: they failed, and their numbers will be given to others. Nor did those that the last
    /// recovery has left out.
    ///
    /// # Errors
    /// Of the file system: the segments must stay in the log then.
    pub(crate) fn archive_segments(
        &self,
        numbers: &[FileNumber],
        end: SequenceNumber,
    ) -> Result<()> {
        if !self.archive.is_on() || numbers.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.archive.lock.lock();
        let known = self.prepare_archive()?;
        let mut outdated = Vec::new();
        for &number in numbers {
            let mut before = known.iter().filter(|segment| segment.number == number);
            let end = end.min(self.segments.void_from().in_segment(number));
            outdated.extend(self.archive_segment(number, end, before.next_back())?);
        }
        // Also where all were there: an attempt before may have come no further than their names.
        self.sync_archive_directory()?;
        for path in outdated {
            remove_if_there(&*self.fs, &path)?;
        }
        self.prune_archive()
    }

    fn sync_archive_directory(&self) -> Result<()> {
        let directory = self.archive.place();
        let synced = self.fs.sync_dir(directory);
        synced.map_err(|error| Error::io("sync the archive", directory, error))
    }

    /// Makes the directory, durably, and removes what was never finished in it.
    fn prepare_archive(&self) -> Result<Vec<ArchivedSegment>> {
        let directory = self.archive.place();
        let io = |error| Error::io("create the archive", directory, error);
        match self.fs.read_dir(directory) {
            Ok(_) => self
                .unfinished(directory)
                .iter()
                .try_for_each(|path| remove_if_there(&*self.fs, path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.fs.create_dir_all(directory).map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        }
        let known = list(&*self.fs, directory)?;
        if known.is_empty() {
            // Until the first file is there it is not known that the directory itself would stay.
            let above = directory.ancestors().skip(1).take(1);
            for parent in above {
                self.fs.sync_dir(parent).map_err(io)?;
            }
        }
        Ok(known)
    }

    /// Files of a directory of archived segments that were never finished. The caller holds the lock of
    /// the archive.
    fn unfinished(&self, directory: &Path) -> Vec<PathBuf> {
        let entries = self.fs.read_dir(directory).unwrap_or_default();
        let names = entries.into_iter().map(|entry| entry.name);
        let unfinished = names.filter(|name| name.ends_with(".tmp"));
        unfinished.map(|name| directory.join(name)).collect()
    }

    /// Files that were never finished, and those kept for cursors that none needs. The caller holds the
    /// lock of the archive.
    pub(crate) fn archive_strays(&self) -> Vec<PathBuf> {
        let mut strays = self.unfinished(&self.archive.directory);
        strays.append(&mut self.unfinished(&self.archive.followed));
        if let (Ok(all), Ok(followed)) = (
            self.archived_segments(),
            list(&*self.fs, &self.archive.followed),
        ) {
            let pins = Pins::of(self, &all);
            let unneeded = followed.iter().take_while(|segment| !pins.keep(segment));
            strays.extend(unneeded.map(|segment| segment.path.clone()));
        }
        strays
    }

    /// What a crash left of files that were kept for cursors: those that were never finished, and those
    /// that are not needed any more.
    ///
    /// # Errors
    /// Of the file system: they stay until the next open.
    pub(crate) fn tidy_followed(&self) -> Result<()> {
        let _one_at_a_time = self.archive.lock.lock();
        for path in self.unfinished(&self.archive.followed) {
            remove_if_there(&*self.fs, &path)?;
        }
        self.prune_archive()
    }

    /// What a crash left of archived segments that were never finished goes when the database is opened.
    /// What cannot be removed, or an archive on a disk that is not there, is for the next segment to find.
    pub(crate) fn remove_unfinished_segments(&self) {
        if !self.archive.is_wanted() {
            return;
        }
        let _one_at_a_time = self.archive.lock.lock();
        for path in self.unfinished(&self.archive.directory) {
            if let Err(error) = remove_if_there(&*self.fs, &path) {
                tracing::warn!(%error, "an unfinished archived segment stays");
            }
        }
    }

    /// Copies one segment, unless all of it is in the archive `before`: a crash after a copy may have
    /// been survived by more records than the copy holds. Returns the file that is outdated then. The
    /// caller syncs the directory.
    fn archive_segment(
        &self,
        number: FileNumber,
        end: SequenceNumber,
        before: Option<&ArchivedSegment>,
    ) -> Result<Option<PathBuf>> {
        let from = wal_path(&self.directory, number);
        let temporary = self.archive.place().join(format!("{number:06}.tmp"));
        let copied = self.copy_segment(number, end, &from, &temporary);
        let holds_more = |segment: &ArchivedSegment| {
            before.is_none_or(|before| before.last_sequence < segment.last_sequence)
        };
        let segment = match copied {
            Ok(Some(segment)) if holds_more(&segment) => segment,
            Ok(_) => return remove_if_there(&*self.fs, &temporary).map(|()| None),
            Err(error) => {
                let _ = self.fs.remove_file(&temporary);
                // Somebody else has let go of it meanwhile, who saw to it first. (The sweep of crashes
                // under a change cursor found it: an empty segment is in no archive, and was looked for.)
                if error.file() == Some(&from) && !self.segments.is_live(number) {
                    return Ok(None);
                }
                // What cannot be read any more would hold up the log, and with it all writes, for
                // ever. Whoever reads the archive is told what is missing.
                let is_lost = error.file() == Some(&from)
                    && (error.kind() == ErrorKind::Corruption || self.health.has_failed());
                if is_lost {
                    tracing::error!(number, %error, "a log segment cannot be archived");
                    return Ok(None);
                }
                return Err(error);
            }
        };
        let renamed = self.fs.rename(&temporary, &segment.path);
        renamed.map_err(|error| Error::io("name the archived segment", &segment.path, error))?;
        Ok(before.map(|before| before.path.clone()))
    }

    fn copy_segment(
        &self,
        number: FileNumber,
        end: SequenceNumber,
        from: &Path,
        to: &Path,
    ) -> Result<Option<ArchivedSegment>> {
        let mut reader = SegmentReader::open(&*self.fs, from, number)?;
        // Without a length given: it takes as little room as its records, and its end record tells
        // whether it is whole.
        let options = SegmentOptions::default();
        let mut writer = SegmentWriter::create(&*self.fs, to, *reader.header(), options)?;
        let mut piece = Piece::default();
        let (mut first, mut next) = (None, None);
        while let Some((kind, payload)) = reader.next_or_mark()? {
            if kind == RecordType::Mark {
                piece.write_to(&mut writer)?;
                let mark = crate::log_mark::Mark::decode(payload).map_err(|e| e.with_file(from))?;
                if mark.next > end {
                    break;
                }
                piece.mark = Some(payload.to_vec());
                first.get_or_insert(mark.next);
                next.get_or_insert(mark.next);
                continue;
            }
            let batch = BatchView::parse(payload).map_err(|error| error.with_file(from))?;
            if batch.sequence() >= end {
                break;
            }
            first.get_or_insert(batch.sequence());
            next = Some(end_of(&batch));
            piece.add(payload);
            if piece.bytes >= PIECE_BYTES {
                piece.write_to(&mut writer)?;
            }
        }
        piece.write_to(&mut writer)?;
        if let Some(SegmentEnd::Damaged { reason, .. }) = reader.outcome() {
            tracing::error!(number, reason, "the end of a log segment is not archived");
        }
        let (Some(first_sequence), Some(next)) = (first, next) else {
            return Ok(None);
        };
        writer.seal(0)?;
        writer.sync()?;
        let mut segment = ArchivedSegment {
            number,
            first_sequence,
            last_sequence: next.saturating_sub(1),
            archived_millis: self.clock().now_millis(),
            bytes: writer.bytes(),
            path: PathBuf::new(),
        };
        segment.path = self.archive.place().join(segment.name());
        Ok(Some(segment))
    }

    /// The files of the archive and those kept for cursors, oldest first.
    pub(crate) fn archived_segments(&self) -> Result<Vec<ArchivedSegment>> {
        let mut segments = list(&*self.fs, &self.archive.directory)?;
        segments.append(&mut list(&*self.fs, &self.archive.followed)?);
        segments.sort_by_key(|segment| (segment.number, segment.last_sequence));
        // Of one that was archived twice, around a crash, the later copy holds more or the same.
        segments.dedup_by(|later, earlier| {
            let is_same = later.number == earlier.number;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        Ok(segments)
    }

    /// Bytes in the archive.
    pub(crate) fn archived_bytes(&self) -> Result<u64> {
        let segments = self.archived_segments()?;
        Ok(segments.iter().map(ArchivedSegment::bytes).sum())
    }
}

/// Records on their way into the archive: a mark, and the batches behind it.
#[derive(Default)]
struct Piece {
    mark: Option<Vec<u8>>,
    payloads: Vec<Vec<u8>>,
    bytes: usize,
}

impl Piece {
    fn add(&mut self, payload: &[u8]) {
        self.bytes += payload.len();
        self.payloads.push(payload.to_vec());
    }

    fn write_to(&mut self, writer: &mut SegmentWriter) -> Result<()> {
        let payloads: Vec<&[u8]> = self.payloads.iter().map(Vec::as_slice).collect();
        match &self.mark {
            Some(mark) => writer.append_marked(mark, &payloads, SyncMode::Buffered)?,
            None if payloads.is_empty() => {}
            None => writer.append(&payloads, SyncMode::Buffered)?,
        }
        *self = Self::default();
        Ok(())
    }
}

impl Db {
    /// Brings everything that was written into the archive, by way of a flush.
    pub(crate) fn archive_everything(&self) -> Result<()> {
        let engine = self.engine();
        let mut writer = engine.commit_queue.lock();
        engine.flush_and_cure(&mut writer)?;
        let next = writer.next_sequence;
        writer.log.write_all_marks(engine, next)?;
        let forgotten = engine.forget_log(&mut writer.log);
        if let Err(error) = &forgotten {
            // Whether the manifest still names the log is unknown: nothing may be written to it.
            engine.health.latch_log_failure(error);
        }
        forgotten
    }
}

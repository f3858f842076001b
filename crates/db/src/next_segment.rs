//! Making log segments ready for records: by the write that needs one, or ahead of it in the
//! background, so that no write waits for the three syncs that a new segment takes.
//!
//! Invariants: a segment is ready once its header, its directory entry and the manifest edit that
//! names it are durable (I1), and is held from then on. At most one is made ahead. It is used only
//! while its number is above that of the current segment, since a log is read in the order of
//! numbers; otherwise it is let go, empty, and leaves the manifest with its neighbours. A file whose
//! making failed before any manifest may name it is removed again. Nobody waits for a job that has
//! not begun: where it comes too late, the write makes its segment itself.

use crate::engine::Engine;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::sync::{Condvar, Mutex};
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_compaction::Lane;
use esker_compaction::executor::guarded;
use esker_manifest::VersionEdit;
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter};
use std::sync::Arc;

/// Zeros that a synced append writes ahead into blocks that were never written.
const ZERO_AHEAD_BYTES: u64 = 256 << 10;
/// How many times its usual length a segment grows to while the next one is not ready.
const MOST_GROWN: u64 = 4;
/// Segments are whole pages.
const PAGE_BYTES: u64 = 4096;

/// The segment that is prepared ahead.
#[derive(Debug, Default)]
pub(crate) struct NextSegment {
    state: Mutex<Ahead>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Ahead {
    #[default]
    Nothing,
    /// A job is to begin, on behalf of this current segment.
    Requested(FileNumber),
    /// A job is at it.
    Running,
    Ready(Box<SegmentWriter>),
}

impl NextSegment {
    /// The segment made ahead, if it has room for `bytes` and comes after segment `previous`. Waits
    /// for a job that has begun.
    pub(crate) fn take(
        &self,
        engine: &Engine,
        previous: FileNumber,
        bytes: u64,
    ) -> Option<SegmentWriter> {
        let mut state = self.state.lock();
        while matches!(*state, Ahead::Running) {
            self.changed.wait(&mut state);
        }
        if !matches!(*state, Ahead::Ready(_)) {
            // A job that has not begun must not begin now: its segment would have a number below the
            // one that is made instead, and be held, empty, before all later ones. The log would end
            // there for a recovery (found by the simulation).
            *state = Ahead::Nothing;
            return None;
        }
        let Ahead::Ready(writer) = std::mem::take(&mut *state) else {
            return None;
        };
        if writer.number() > previous && writer.remaining_bytes() >= bytes {
            return Some(*writer);
        }
        engine.segments.let_go(writer.number());
        None
    }

    /// Whether a segment stands ready.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.state.lock(), Ahead::Ready(_))
    }

    /// Whether one stands ready that comes after segment `previous` and has room for `bytes`.
    pub(crate) fn is_ready_for(&self, previous: FileNumber, bytes: u64) -> bool {
        let state = self.state.lock();
        matches!(&*state, Ahead::Ready(writer)
            if writer.number() > previous && writer.remaining_bytes() >= bytes)
    }

    /// Lets go of the segment made ahead, if there is one: the database closes.
    pub(crate) fn discard(&self, engine: &Engine) {
        if let Ahead::Ready(writer) = std::mem::take(&mut *self.state.lock()) {
            engine.segments.let_go(writer.number());
        }
    }
}

impl Engine {
    /// Has the next segment prepared in the background, unless one is ready or asked for.
    #[cold]
    pub(crate) fn prepare_ahead(self: &Arc<Self>, next_sequence: SequenceNumber) {
        let Some(current) = self.segments.current() else {
            return;
        };
        {
            let mut state = self.next_segment.state.lock();
            if !matches!(*state, Ahead::Nothing) || !self.background.begin_log_job() {
                return;
            }
            *state = Ahead::Requested(current);
        }
        let engine = Arc::clone(self);
        let job = move || {
            engine.prepare_ahead_job(next_sequence);
            engine.background.end_log_job();
        };
        self.executor.spawn(Lane::Log, Box::new(job));
    }

    fn prepare_ahead_job(&self, next_sequence: SequenceNumber) {
        let mut state = self.next_segment.state.lock();
        let Ahead::Requested(current) = *state else {
            return;
        };
        // Too late: the next half-full segment asks again. And what was given back on a full disk is for flushes
        // and merges: one that is made ahead gives no room, and would have them wait for ever.
        let is_late = self.is_closed() || self.segments.current() != Some(current);
        if is_late || self.reserve.is_short() {
            *state = Ahead::Nothing;
            return;
        }
        *state = Ahead::Running;
        drop(state);
        let prepared = guarded(|| {
            let header = self.next_header(next_sequence, current);
            let used = self.segments.take_recyclable(true);
            self.prepare_segment(header, 0, used)
        });
        *self.next_segment.state.lock() = match prepared {
            Ok(writer) => Ahead::Ready(Box::new(writer)),
            Err(error) => {
                // The write that needs the segment tries again, and tells.
                tracing::warn!(%error, "could not prepare a log segment ahead");
                Ahead::Nothing
            }
        };
        self.next_segment.changed.notify_all();
    }

    /// Makes the current segment longer, so that a buffered write of `bytes` need not wait for the syncs that
    /// the next one still takes. Whether there is room now. Not where the log is archived: what is kept of it is
    /// counted in whole segments.
    #[cold]
    pub(crate) fn grow_segment(&self, current: &mut SegmentWriter, bytes: u64) -> bool {
        let usual = self.settings.wal_segment_bytes();
        let grown = current.segment_bytes().saturating_add(usual);
        let is_too_long = bytes > usual || grown > MOST_GROWN * usual;
        let is_archived = self.archive.is_on();
        if is_too_long || is_archived || self.next_segment.is_ready() || self.reserve.is_short() {
            return false;
        }
        match current.grow(grown) {
            Ok(()) => current.remaining_bytes() >= bytes,
            Err(error) => {
                // The next segment takes the write, or says that there is no room.
                tracing::debug!(%error, "a log segment could not grow");
                false
            }
        }
    }

    /// The header of a segment to be made: its number is above all others.
    pub(crate) fn next_header(
        &self,
        first_sequence: SequenceNumber,
        previous: FileNumber,
    ) -> SegmentHeader {
        SegmentHeader {
            number: self.versions.new_file_number(),
            first_sequence,
            previous,
        }
    }

    /// A segment of the usual size, or larger where `bytes` need it, that is ready for records and
    /// held. Takes over the file of segment `used`, which nobody writes to.
    pub(crate) fn prepare_segment(
        &self,
        header: SegmentHeader,
        bytes: u64,
        used: Option<FileNumber>,
    ) -> Result<SegmentWriter> {
        let needed =
            SegmentOptions::segment_bytes_for(usize::try_from(bytes).unwrap_or(usize::MAX));
        let usual = self.settings.wal_segment_bytes();
        let options = segment_options(usual.max(needed).next_multiple_of(PAGE_BYTES));
        let path = wal_path(&self.directory, header.number);
        let from = used.map(|number| wal_path(&self.directory, number));
        let begun = match &from {
            Some(from) => self.fs.rename(from, &path).map_err(|error| {
                let _ = self.fs.remove_file(from);
                Error::io("rename the log segment", from, error)
            }),
            None => Ok(()),
        };
        let begun = begun.and_then(|()| match used {
            Some(_) => SegmentWriter::recycle(&*self.fs, &path, header, options),
            None => SegmentWriter::create(&*self.fs, &path, header, options),
        });
        self.publish_segment(header.number, begun)
    }

    /// Makes a segment's name durable and has the manifest name it.
    pub(crate) fn publish_segment(
        &self,
        number: FileNumber,
        begun: Result<SegmentWriter>,
    ) -> Result<SegmentWriter> {
        let durable = begun.and_then(|writer| {
            let synced = self.fs.sync_dir(&self.directory);
            synced.map_err(|error| Error::io("sync the directory", &self.directory, error))?;
            Ok(writer)
        });
        let writer = match durable {
            Ok(writer) => writer,
            Err(error) => {
                // Nothing names it; on a full disk it would only take more of it.
                let _ = self.fs.remove_file(&wal_path(&self.directory, number));
                return Err(error);
            }
        };
        self.versions.note_time(self.clock.now_millis());
        let edit = VersionEdit {
            added_segments: vec![number],
            ..VersionEdit::default()
        };
        let logged = self.versions.log_and_apply(edit.clone());
        let is_full = |error: &Error| error.kind() == ErrorKind::NoSpace;
        let logged = match logged {
            // The manifest was full, and there was no room for the next one: there may be now. Where
            // the edit may be in the old one nevertheless, a new one takes over first.
            Err(error) if is_full(&error) && self.give_space_back() => {
                self.versions.log_and_apply(edit)
            }
            logged => logged,
        };
        if logged.is_err() {
            self.given_up.note_segment(number);
        }
        logged?;
        self.segments.hold(number);
        Ok(writer)
    }
}

/// How segments of this length are written.
pub(crate) fn segment_options(segment_bytes: u64) -> SegmentOptions {
    SegmentOptions {
        segment_bytes,
        mapped: true,
        zero_ahead_bytes: ZERO_AHEAD_BYTES,
        copied_syncs: true,
        may_grow: true,
    }
}

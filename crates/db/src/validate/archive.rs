//! The archive of the log, and what is kept of the log for change cursors: every file from end to end, and
//! how they follow each other.
//!
//! Invariants: nobody is held up, and a file that goes meanwhile, for a limit or because it was
//! acknowledged, is no finding. A damaged file is a warning: the database itself does without it. Writes
//! that are missing and of which no mark says why are a note, and only where somebody misses them: a restore
//! that no backup helps, or a cursor that has not acknowledged them.

use super::{Issue, Shared};
use crate::archive_check::{self, Chain, Hole};
use crate::archived_segment::{self, ArchivedSegment};
use crate::backup;
use crate::engine::Engine;
use crate::log_history;
use crate::log_mark::Reasons;
use esker_base::{Result, SequenceNumber};
use std::io;
use std::path::Path;

/// A directory of segments, and for whom it is.
struct Place<'a> {
    directory: &'a Path,
    advice: &'static str,
    hole_advice: &'static str,
    /// Whoever reads needs nothing up to here; `None` where everything may be needed.
    needed_after: fn(&Engine) -> Result<Option<SequenceNumber>>,
}

/// Reads every file of both.
pub(super) fn verify(engine: &Engine, shared: &Shared<'_>) {
    let restores = Place {
        directory: &engine.archive.directory,
        advice: "make a backup now, and remove this file: points behind a backup need nothing from before \
                 it; the database itself is not concerned",
        hole_advice: "make a backup: points behind it need nothing from before it",
        needed_after: newest_backup,
    };
    let cursors = Place {
        directory: &engine.archive.followed,
        advice: "readers of the feed of changes are told so when they come to it: read anew what they \
                 follow, and acknowledge what is behind it; the database itself is not concerned",
        hole_advice: "readers of the feed of changes are told of a gap when they come to it: read anew what \
                      they follow, and acknowledge what is behind it",
        needed_after: slowest_cursor,
    };
    for place in [restores, cursors] {
        verify_place(engine, &place, shared);
    }
}

fn verify_place(engine: &Engine, place: &Place<'_>, shared: &Shared<'_>) {
    let segments = match archived_segment::list(&*engine.fs, place.directory) {
        Ok(segments) => segments,
        Err(error) => return shared.failed(error, |error| Issue::warning(error, place.advice)),
    };
    let mut chain = Chain::default();
    for segment in &segments {
        if shared.is_cancelled() {
            return;
        }
        let mut advance = |bytes| shared.advance(bytes);
        let read = archive_check::read(&*engine.fs, segment, &mut chain, &mut advance);
        let is_gone = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        if engine.fs.metadata(segment.path()).is_err_and(is_gone) {
            // What was before it is gone, too.
            chain = Chain::default();
            continue;
        }
        if let Err(error) = read {
            shared.failed(error, |error| Issue::warning(error, place.advice));
            // What it holds is not known: the next one begins anew.
            chain.begin_anew();
        }
        let holes = std::mem::take(&mut chain.holes);
        note_holes(engine, place, segment, &holes, shared);
    }
}

fn note_holes(
    engine: &Engine,
    place: &Place<'_>,
    segment: &ArchivedSegment,
    holes: &[Hole],
    shared: &Shared<'_>,
) {
    if holes.is_empty() {
        return;
    }
    let needed_after = match (place.needed_after)(engine) {
        Ok(needed_after) => needed_after,
        Err(error) => return shared.failed(error, |error| Issue::warning(error, place.advice)),
    };
    for hole in holes
        .iter()
        .filter(|hole| needed_after.is_none_or(|after| after < hole.last))
    {
        let error = log_history::gap(hole.first, hole.last, Reasons::default());
        let path = segment.path().to_path_buf();
        let mut issue = Issue::note(path, error.message(), place.hole_advice);
        issue.offset = Some(hole.offset);
        shared.found(issue);
    }
}

/// The moment of the newest backup. Those that are damaged are found elsewhere, and make up for nothing.
fn newest_backup(engine: &Engine) -> Result<Option<SequenceNumber>> {
    let manifest = engine.versions.state();
    let infos = backup::infos(&*engine.fs, &engine.backups.directory, Some(&manifest))?;
    Ok(infos.iter().map(|info| info.sequence()).max())
}

/// What all cursors have acknowledged; without any nothing is needed.
fn slowest_cursor(engine: &Engine) -> Result<Option<SequenceNumber>> {
    let state = engine.versions.state();
    let slowest = state.change_cursors.values().copied().min();
    Ok(slowest.or(Some(SequenceNumber::MAX)))
}

//! The archive of the log: every file from end to end, and how they follow each other.
//!
//! Invariants: nobody is held up, and a file that goes meanwhile, for a limit, is no finding. A damaged
//! file is damage, though the database itself does without it; writes that are missing and of which no
//! mark says why are a note, and only where no backup makes up for them: a history may have holes.

use super::{Issue, Shared};
use crate::archive::{self, ArchivedSegment};
use crate::archive_check::{self, Chain, Hole};
use crate::backup;
use crate::engine::Engine;
use crate::log_history;
use crate::log_mark::Reasons;

const ADVICE: &str = "make a backup now, and remove this file: points behind a backup need nothing \
    from before it; the database itself is not concerned";
const HOLE_ADVICE: &str = "make a backup: points behind it need nothing from before it";

/// Reads every file of the archive.
pub(super) fn verify(engine: &Engine, shared: &Shared<'_>) {
    let segments = match archive::list(&*engine.fs, &engine.archive.directory) {
        Ok(segments) => segments,
        Err(error) => return shared.found(Issue::with_advice(&error, ADVICE)),
    };
    let mut chain = Chain::default();
    for segment in &segments {
        if shared.is_cancelled() {
            return;
        }
        let mut advance = |bytes| shared.advance(bytes);
        let read = archive_check::read(&*engine.fs, segment, &mut chain, &mut advance);
        if engine.fs.metadata(segment.path()).is_err() {
            // What was before it is gone, too.
            chain = Chain::default();
            continue;
        }
        if let Err(error) = read {
            shared.found(Issue::with_advice(&error, ADVICE));
            // What it holds is not known: the next one begins anew.
            chain.begin_anew();
        }
        note_holes(engine, segment, std::mem::take(&mut chain.holes), shared);
    }
}

fn note_holes(engine: &Engine, segment: &ArchivedSegment, holes: Vec<Hole>, shared: &Shared<'_>) {
    if holes.is_empty() {
        return;
    }
    let manifest = engine.versions.state();
    // Backups that cannot be read are found elsewhere, and make up for nothing.
    let backups = backup::infos(&*engine.fs, &engine.backups.directory, Some(&manifest));
    let newest = backups
        .unwrap_or_default()
        .iter()
        .map(|info| info.sequence())
        .max();
    for hole in holes
        .iter()
        .filter(|hole| newest.is_none_or(|newest| newest < hole.last))
    {
        let error = log_history::gap(hole.first, hole.last, Reasons::default());
        let mut issue = Issue::note(segment.path().to_path_buf(), error.message(), HOLE_ADVICE);
        issue.offset = Some(hole.offset);
        shared.found(issue);
    }
}

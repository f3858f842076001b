//! What a scan merges: an iterator for each memtable and each sorted run of a super-version.
//!
//! Invariant: sources come newest first; one that can hold nothing a reader asks for is left out.
//! Used by `cursor`, and by transactions and indexes that look for newer records.

use crate::super_version::SuperVersion;
use esker_base::iterator::{Direction, InternalIterator, RecordView, Step};
use esker_base::{Result, SequenceNumber, Trailer};
use esker_memtable::{Memtable, MemtableIter};
use esker_sstable::{FillCache, LevelIter};
use std::sync::Arc;

/// One source of records: dispatched without a virtual call.
// A merge holds a few, in one vector: a box for the larger would cost a jump on every step.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Source {
    Memtable(MemtableIter),
    Run(LevelIter),
}

macro_rules! dispatch {
    ($self:ident, $source:ident => $call:expr) => {
        match $self {
            Source::Memtable($source) => $call,
            Source::Run($source) => $call,
        }
    };
}

impl InternalIterator for Source {
    #[inline]
    fn valid(&self) -> bool {
        dispatch!(self, source => source.valid())
    }
    fn seek_to_first(&mut self) -> Result<()> {
        dispatch!(self, source => source.seek_to_first())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        dispatch!(self, source => source.seek_to_last())
    }
    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        dispatch!(self, source => source.seek(user_key, trailer))
    }
    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        dispatch!(self, source => source.seek_for_prev(user_key, trailer))
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        dispatch!(self, source => source.next())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        dispatch!(self, source => source.prev())
    }
    #[inline]
    fn user_key(&self) -> &[u8] {
        dispatch!(self, source => source.user_key())
    }
    #[inline]
    fn trailer(&self) -> Trailer {
        dispatch!(self, source => source.trailer())
    }
    #[inline]
    fn value(&self) -> &[u8] {
        dispatch!(self, source => source.value())
    }
    #[inline]
    fn record(&self) -> RecordView<'_> {
        dispatch!(self, source => source.record())
    }
    #[inline]
    fn neighbour_differs(&self, direction: Direction) -> bool {
        dispatch!(self, source => source.neighbour_differs(direction))
    }
    #[inline]
    fn step(&mut self, direction: Direction) -> Result<Step> {
        dispatch!(self, source => source.step(direction))
    }
    /// Says so only where a memtable was searched: a flush leaves the older records of its keys behind.
    fn pass_key(&mut self, user_key: &[u8]) -> Result<bool> {
        match self {
            Source::Memtable(memtable) => memtable.pass_key(user_key),
            Source::Run(run) => run.pass_key(user_key).map(|_| false),
        }
    }
    fn seek_all(sources: &mut [Self], user_key: &[u8], trailer: Trailer) -> Result<()> {
        match sources {
            [one] => one.seek(user_key, trailer),
            many => many
                .chunks_mut(SOUGHT_TOGETHER)
                .try_for_each(|some| seek_together(some, user_key, trailer)),
        }
    }
}

impl Source {
    /// Keeps what a later seek can use, and lets go of what counts against a bound on memory.
    pub(crate) fn rest(&mut self) {
        match self {
            Source::Memtable(_) => {}
            Source::Run(run) => run.rest(),
        }
    }
}

/// So many sources are sought together: a thread can hold about as many blocks as cheaply as one.
const SOUGHT_TOGETHER: usize = 8;

/// Seeks sources such that each step of all of them comes before the next: what a step asks memory for
/// arrives while the others are looked at.
fn seek_together(sources: &mut [Source], user_key: &[u8], trailer: Trailer) -> Result<()> {
    let mut begun = [const { None }; SOUGHT_TOGETHER];
    for (source, begun) in sources.iter_mut().zip(&mut begun) {
        match source {
            Source::Memtable(memtable) => memtable.foresee(user_key, trailer),
            Source::Run(run) => *begun = run.begin_seek(user_key, trailer)?,
        }
    }
    for (source, begun) in sources.iter_mut().zip(&mut begun) {
        if let (Source::Run(run), Some(seek)) = (source, begun) {
            run.take_block(seek);
        }
    }
    for source in sources.iter_mut() {
        if let Source::Memtable(memtable) = source {
            memtable.seek(user_key, trailer)?;
        }
    }
    for (source, begun) in sources.iter_mut().zip(&mut begun) {
        if let (Source::Run(run), Some(seek)) = (source, begun) {
            run.search_slots(seek, user_key);
        }
    }
    for (source, begun) in sources.iter_mut().zip(&begun) {
        if let Source::Run(run) = source {
            match begun {
                Some(seek) => run.finish_seek(seek, user_key, trailer)?,
                None => run.seek(user_key, trailer)?,
            }
        }
    }
    Ok(())
}

/// How many sources [`add_sources`] adds for sequence 0.
#[inline]
pub(crate) fn count_sources(view: &SuperVersion) -> usize {
    let memtables = view.memtables().filter(|memtable| memtable.has_points());
    memtables.count() + view.runs.len()
}

/// The sources of a super-version that may hold a point record of `sequence` or newer, newest first. For reads of the
/// engine's own: they are not refused, however much users' scans hold.
pub(crate) fn sources(view: &SuperVersion, sequence: SequenceNumber) -> Vec<Source> {
    let mut sources = Vec::new();
    add_sources(&mut sources, view, sequence, FillCache::Briefly);
    sources
}

/// Adds to `sources` what [`sources`] gives.
pub(crate) fn add_sources(
    sources: &mut Vec<Source>,
    view: &SuperVersion,
    sequence: SequenceNumber,
    fill: FillCache,
) {
    // How large it is changes with every insert: not looked at where all are wanted.
    let newer =
        |memtable: &&Arc<Memtable>| sequence == 0 || memtable.largest_sequence() >= Some(sequence);
    let memtables = view.memtables().filter(|memtable| memtable.has_points());
    let runs = view
        .runs
        .iter()
        .filter(|run| run.largest_sequence >= sequence);
    // Iterators are large: a vector that grew would copy them.
    sources.reserve_exact(1 + view.sealed.len() + view.runs.len());
    for memtable in memtables.filter(newer) {
        sources.push(Source::Memtable(memtable.iter()));
    }
    for run in runs {
        let tables = Arc::clone(&run.tables);
        sources.push(Source::Run(LevelIter::new(tables, fill)));
    }
}

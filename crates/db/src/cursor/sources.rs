//! What a scan merges: an iterator for each memtable and each sorted run of a super-version.
//!
//! Invariant: sources come newest first; one that can hold nothing a reader asks for is left out.
//! Used by `cursor`, and by transactions and indexes that look for newer records.

use crate::super_version::SuperVersion;
use esker_base::iterator::{Direction, InternalIterator, RecordView};
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
}

/// The sources of a super-version that may hold a point record of `sequence` or newer, newest first.
pub(crate) fn sources(view: &SuperVersion, sequence: SequenceNumber) -> Vec<Source> {
    let mut sources = Vec::new();
    add_sources(&mut sources, view, sequence);
    sources
}

/// Adds to `sources` what [`sources`] gives.
pub(crate) fn add_sources(
    sources: &mut Vec<Source>,
    view: &SuperVersion,
    sequence: SequenceNumber,
) {
    let newer = |memtable: &&Arc<Memtable>| memtable.largest_sequence() >= Some(sequence);
    let memtables = view.memtables().filter(|memtable| memtable.entries() > 0);
    let memtables = memtables.filter(newer);
    let runs = view
        .runs
        .iter()
        .filter(|run| run.largest_sequence >= sequence);
    // Iterators are large: a vector that grew would copy them.
    sources.reserve_exact(memtables.clone().count() + runs.clone().count());
    sources.extend(memtables.map(|memtable| Source::Memtable(memtable.iter())));
    sources.extend(
        runs.map(|run| Source::Run(LevelIter::new(Arc::clone(&run.tables), FillCache::Yes))),
    );
}

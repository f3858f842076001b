//! What a cursor looks at: a super-version, the sequence number to see it at, and the writes of a
//! transaction over it.
//!
//! Invariant: a view never changes; whoever holds it sees the same entries for as long. Cursors make
//! their merge from it, and ask it what a record means.

use super::covers::{Cover, Covers};
use super::sources::{Source, add_sources, count_sources};
use crate::keyspace::Keyspace;
use crate::read::{Visibility, judge};
use crate::scan_reads::ScanReads;
use crate::snapshot::Snapshot;
use crate::super_version::SuperVersion;
use crate::transaction::OVERLAY_BASE;
use esker_base::iterator::RecordView;
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::{Error, Result, SequenceNumber};
use esker_memtable::Memtable;
use esker_sstable::{FillCache, SkipBlocks};
use std::sync::Arc;

/// Whether there is a range tombstone in a super-version.
#[inline]
fn has_range_tombstones(view: &SuperVersion) -> bool {
    let mut memtables = view.memtables();
    let mut runs = view.runs.iter();
    memtables.any(|memtable| memtable.has_range_tombstones())
        || runs.any(|run| run.has_range_tombstones)
}

/// All range tombstones of a super-version.
#[cold]
fn all_range_tombstones(view: &SuperVersion) -> Result<FragmentedTombstones> {
    let mut lists = Vec::new();
    for memtable in view
        .memtables()
        .filter(|memtable| memtable.has_range_tombstones())
    {
        lists.push(memtable.range_tombstones());
    }
    for run in view.runs.iter().filter(|run| run.has_range_tombstones) {
        for handle in run
            .tables
            .iter()
            .filter(|handle| handle.meta().range_tombstones > 0)
        {
            lists.push(handle.table()?.range_tombstones().clone());
        }
    }
    Ok(FragmentedTombstones::merge(&lists))
}

/// The writes of a transaction, seen over its snapshot. Their sequence numbers lie above all others.
#[derive(Clone)]
pub(crate) struct Overlay {
    pub(crate) memtable: Arc<Memtable>,
    /// The last of them that is seen: a cursor does not see what was written after it was made.
    pub(crate) visible: SequenceNumber,
}

/// What a cursor or iterator looks at: a super-version and the sequence to see it at.
#[derive(Clone)]
pub(crate) struct View {
    /// `None` at rest.
    keyspace: Option<Keyspace>,
    super_version: Arc<SuperVersion>,
    pub(super) sequence: SequenceNumber,
    pub(super) overlay: Option<Overlay>,
    /// Where a transaction remembers what its cursors read.
    pub(super) reads: Option<ScanReads>,
    /// Keeps the snapshot listed while it is read.
    snapshot: Option<Snapshot>,
}

impl View {
    pub(crate) fn new(keyspace: &Keyspace, snapshot: Option<Snapshot>) -> Self {
        let at = snapshot.as_ref().map(Snapshot::sequence);
        let load = || keyspace.super_version(at);
        let (super_version, sequence) = match at {
            Some(sequence) => (load(), sequence),
            None => keyspace.engine().visible.after(load),
        };
        Self {
            keyspace: Some(keyspace.clone()),
            super_version,
            sequence,
            overlay: None,
            reads: None,
            snapshot,
        }
    }

    /// Gives back the keyspace, and keeps the super-version alone; `None`, and no change, where a transaction sees
    /// more than that.
    #[inline]
    pub(super) fn rest(&mut self) -> Option<Keyspace> {
        if self.overlay.is_some() || self.reads.is_some() {
            return None;
        }
        self.snapshot = None;
        self.keyspace.take()
    }

    /// From rest to what a reader sees that has found the super-version to be the state to read, before this call.
    #[inline]
    pub(super) fn wake(&mut self, keyspace: &Keyspace, snapshot: Option<Snapshot>) {
        let ((), visible) = keyspace.engine().visible.after(|| ());
        self.sequence = snapshot.as_ref().map_or(visible, Snapshot::sequence);
        self.keyspace = Some(keyspace.clone());
        self.snapshot = snapshot;
    }

    #[inline]
    pub(super) fn keyspace(&self) -> &Keyspace {
        match &self.keyspace {
            Some(keyspace) => keyspace,
            None => unreachable!("nothing is read at rest"),
        }
    }

    #[inline]
    pub(super) fn super_version(&self) -> &SuperVersion {
        &self.super_version
    }

    /// Whether `merge`, one of the super-version's sources, is of all that it has by now.
    #[inline]
    pub(super) fn is_merged_by(&self, merge: &MergingIterator<Source>) -> bool {
        merge.child_count() == count_sources(&self.super_version)
    }

    pub(crate) fn of_transaction(
        keyspace: &Keyspace,
        snapshot: Snapshot,
        overlay: Option<Overlay>,
        reads: Option<ScanReads>,
    ) -> Self {
        Self {
            overlay,
            reads,
            ..Self::new(keyspace, Some(snapshot))
        }
    }

    /// Fails where nothing can be read: the database is closed, or the snapshot is of another one.
    pub(super) fn check(&self) -> Result<()> {
        let engine = self.keyspace().engine();
        engine.check_open()?;
        match &self.snapshot {
            Some(snapshot) if !snapshot.is_of(engine) => {
                let sentence = "the keyspace is one of another database";
                Err(Error::invalid_argument(sentence))
            }
            _ => Ok(()),
        }
    }

    /// Counts a search for the end of a key that has many records in a memtable.
    #[cold]
    pub(super) fn note_search(&self) {
        // It may be the transaction's own, or one that was flushed since: a flush of what there is now would be
        // for nothing.
        let is_current = || {
            let now = self.keyspace().state().load();
            Arc::ptr_eq(&now.active, &self.super_version.active)
        };
        if self.overlay.is_none() && is_current() {
            self.keyspace().note_search();
        }
    }

    /// Whether a record of this sequence is to be seen.
    #[inline]
    pub(super) fn sees(&self, sequence: SequenceNumber) -> bool {
        sequence <= self.sequence || (sequence >= OVERLAY_BASE && self.overlay_sees(sequence))
    }

    #[cold]
    fn overlay_sees(&self, sequence: SequenceNumber) -> bool {
        self.overlay
            .as_ref()
            .is_some_and(|overlay| sequence <= overlay.visible)
    }

    /// What a visible record means, range tombstones and the time considered.
    #[inline]
    pub(super) fn judge(&self, covers: &mut Covers, record: &RecordView<'_>) -> Result<Visibility> {
        if covers.hide(self, record.user_key, record.trailer.sequence()) {
            return Ok(Visibility::Hidden);
        }
        judge(
            record.trailer,
            record.value,
            self.keyspace().engine().clock(),
        )
    }

    pub(super) fn merge(&self) -> MergingIterator<Source> {
        let mut sources = Vec::new();
        if let Some(overlay) = &self.overlay {
            sources.push(Source::Memtable(overlay.memtable.iter()));
        }
        add_sources(&mut sources, self.super_version(), 0, FillCache::Yes);
        // Below the oldest run nothing is hidden by what has expired.
        let runs = &self.super_version().runs;
        if runs
            .last()
            .is_some_and(|oldest| oldest.has_expiring_entries)
            && let Some(Source::Run(oldest)) = sources.pop_if(|last| matches!(last, Source::Run(_)))
        {
            let clock = Arc::clone(&self.keyspace().engine().clock);
            let oldest = oldest.skipping(SkipBlocks::Expired(clock));
            sources.push(Source::Run(oldest));
        }
        MergingIterator::new(sources)
    }

    /// The range tombstones of the super-version and those of the overlay, which are seen at sequence
    /// numbers of their own.
    #[inline]
    pub(super) fn covers(&self) -> Result<Covers> {
        if self.overlay.is_none() && !has_range_tombstones(self.super_version()) {
            return Ok(Covers::default());
        }
        self.some_covers()
    }

    #[cold]
    fn some_covers(&self) -> Result<Covers> {
        let overlay = self
            .overlay
            .as_ref()
            .map(|overlay| overlay.memtable.range_tombstones());
        Ok(Covers {
            base: Cover::new(all_range_tombstones(self.super_version())?),
            overlay: overlay.and_then(Cover::new),
        })
    }
}

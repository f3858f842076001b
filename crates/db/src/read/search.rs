//! A search for one key through the sources of a view.
//!
//! Invariant: whatever was found out ahead (verdicts of filters, steps of lookups) is a hint: a search
//! answers the same without it. Used by `read` alone.

use super::verdicts::{Verdict, Verdicts};
use crate::super_version::SuperVersion;
use esker_base::checksum::key_hash;
use esker_base::{Result, SequenceNumber};
use esker_sstable::{Lookup, Table};

/// What is known of the runs before they are searched.
pub(crate) trait KnownRuns {
    /// What is known of the run `index`, counted from the newest.
    fn on(&self, index: usize) -> Verdict<'_>;
}

/// Nothing.
impl KnownRuns for () {
    #[inline]
    fn on(&self, _index: usize) -> Verdict<'_> {
        Verdict::Unknown
    }
}

/// A search for a key in a view.
pub(crate) struct Search<'a, K> {
    pub(super) view: &'a SuperVersion,
    pub(super) key: &'a [u8],
    pub(super) visible: SequenceNumber,
    pub(super) hash: u64,
    pub(super) known: K,
}

impl<'a> Search<'a, ()> {
    /// Begins to load what says whether memtables have the key. Nothing is known of the runs yet: a key that
    /// memtables have needs none of them.
    #[inline]
    pub(crate) fn begin(view: &'a SuperVersion, key: &'a [u8], visible: SequenceNumber) -> Self {
        let hash = key_hash(key);
        for memtable in view.memtables() {
            memtable.prefetch_filter(hash);
        }
        Self {
            view,
            key,
            visible,
            hash,
            known: (),
        }
    }

    /// The same search, once the filters of the newest runs were asked together.
    #[inline]
    pub(super) fn ask_runs(&self) -> Search<'a, Verdicts> {
        Search {
            view: self.view,
            key: self.key,
            visible: self.visible,
            hash: self.hash,
            known: Verdicts::ask(self.view, self.key, self.hash),
        }
    }
}

impl<K> Search<'_, K> {
    /// The hash of the key.
    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

impl<K: KnownRuns> Search<'_, K> {
    /// Asks the tables that may hold the key, newest first, until one has a record; nothing where a
    /// range tombstone newer than the record hides it. `look` says the record's sequence number and
    /// what the caller makes of it; it is given the lookup if one was begun.
    #[inline]
    pub(super) fn tables<T>(
        &self,
        mut covering: SequenceNumber,
        mut look: impl FnMut(&Table, Option<&Lookup>) -> Result<Option<(SequenceNumber, T)>>,
    ) -> Result<Option<T>> {
        for (index, run) in self.view.runs.iter().enumerate() {
            if covering > run.largest_sequence {
                // A tombstone newer than everything below: what follows is older still.
                return Ok(None);
            }
            let opened;
            let (table, may_contain, begun) = match self.known.on(index) {
                Verdict::OutOfBounds => continue,
                Verdict::Table(table, may_contain, begun) => (table, may_contain, begun),
                Verdict::Unknown => {
                    let Some(handle) = run.find(self.key) else {
                        continue;
                    };
                    opened = handle.table()?;
                    (&*opened, opened.may_contain(self.hash), None)
                }
            };
            if run.has_range_tombstones {
                let tombstones = table.range_tombstones();
                let here = tombstones.covering_sequence(self.key, self.visible);
                covering = covering.max(here.unwrap_or(0));
            }
            if may_contain && let Some((sequence, found)) = look(table, begun)? {
                return Ok((sequence >= covering).then_some(found));
            }
        }
        Ok(None)
    }
}

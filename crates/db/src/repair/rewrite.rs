//! Tables of unknown order become one run, and with them what of the log lies below one of them.
//!
//! Which of two runs is newer cannot be told from their tables where both keys and sequence numbers
//! overlap; which of two records is, always can. So where tables overlap, all of their keyspace are
//! merged by internal key into one run of disjoint tables. A value that lost its sequence number to
//! retention has 0, and is older than every other record of its key: retention does that only where
//! nothing older is left.
//!
//! Invariant: a record that a lost table may have had a newer one for is not written: its key lies in
//! the bounds of that table and its sequence number below the table's largest. Neither is a merge operand
//! that lies on such a record, or on nothing where a lost table may have held what it lay on: alone it
//! would make a value that never was. Range tombstones all stay: they only hide. Inputs are not touched.

use super::Part;
use crate::keyspace_options::KeyspaceOptions;
use crate::keyspaces;
use crate::options::Options;
use crate::settings::{LiveSettings, Settings};
use esker_base::filename::FileNumber;
use esker_base::iterator::InternalIterator;
use esker_base::key_bounds::KeyBounds;
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Result, SequenceNumber, Trailer, ValueKind};
use esker_compaction::{JobContext, RayonExecutor, RetentionRules};
use esker_manifest::{AddedTable, RunPlacement};
use esker_sstable::{
    BlockCache, FillCache, LevelIter, Making, Origin, TableCache, TableHandle, ValueTables,
};
use esker_vfs::FileSystem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A table that is lost: what it may have held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(crate) number: FileNumber,
    bounds: KeyBounds,
    pub(crate) largest_sequence: SequenceNumber,
}

impl Doubt {
    pub(crate) fn of(meta: &TableMeta) -> Self {
        Self {
            number: meta.number,
            bounds: meta.bounds.clone(),
            largest_sequence: meta.largest_sequence.max(meta.ingested_sequence),
        }
    }

    fn covers(&self, key: &[u8], sequence: SequenceNumber) -> bool {
        sequence < self.largest_sequence && self.bounds.contains(key)
    }
}

/// The tables of a keyspace as they enter the new manifest.
pub(crate) struct Settled {
    pub(crate) added: Vec<AddedTable>,
    pub(crate) is_rewritten: bool,
    /// Records that were left out for doubt.
    pub(crate) left_out: u64,
}

/// Writes tables.
pub(crate) struct Rewriter {
    context: JobContext,
}

impl Rewriter {
    pub(crate) fn new(
        options: &Options,
        settings: &Settings,
        fs: &Arc<dyn FileSystem>,
        directory: &Path,
        largest_number: FileNumber,
    ) -> Self {
        let next = AtomicU64::new(largest_number + 1);
        let tables = TableCache::new(
            Arc::clone(fs),
            directory.to_path_buf(),
            BlockCache::new(0),
            settings.max_open_files(),
        );
        let context = JobContext {
            fs: Arc::clone(fs),
            directory: directory.to_path_buf(),
            tables,
            clock: Arc::clone(&options.clock),
            executor: Arc::new(RayonExecutor::new(1)),
            new_file_number: Arc::new(move || next.fetch_add(1, Ordering::Relaxed)),
            cancelled: Arc::new(AtomicBool::new(false)),
            urgent: Arc::new(AtomicBool::new(true)),
            table_options: {
                let settings = KeyspaceOptions::new().settled(&LiveSettings::new(settings.clone()));
                Arc::new(move |level| keyspaces::table_options(&settings, level))
            },
            target_file_bytes: settings.target_file_bytes(),
            max_subcompactions: 1,
            origin: None,
            value_threshold_bytes: None,
            value_garbage_ratio: settings.value_garbage_ratio(),
            written_bytes: Arc::default(),
            caller_syncs_directory: false,
        };
        Self { context }
    }

    pub(crate) fn new_number(&self) -> FileNumber {
        (self.context.new_file_number)()
    }

    /// Settles the tables of `part`: as they are where they are disjoint and nothing is in doubt.
    pub(crate) fn settle(&self, id: KeyspaceId, part: &Part) -> Result<Settled> {
        let runs = disjoint_runs(&part.tables);
        let is_doubtful =
            |meta: &Arc<TableMeta>| part.doubts.iter().any(|d| d.bounds.overlaps(&meta.bounds));
        let is_rewritten =
            runs.len() > 1 || part.below_loads.is_some() || part.tables.iter().any(is_doubtful);
        let (tables, left_out) = if is_rewritten {
            self.rewrite(id, part, &runs)?
        } else {
            (part.tables.clone(), 0)
        };
        let run = RunPlacement::Created(self.new_number());
        let (level, tables) = (0, tables.into_iter());
        let added = tables.map(|meta| AddedTable { level, run, meta }).collect();
        Ok(Settled {
            added,
            is_rewritten,
            left_out,
        })
    }

    fn rewrite(
        &self,
        id: KeyspaceId,
        part: &Part,
        runs: &[Vec<Arc<TableMeta>>],
    ) -> Result<(Vec<Arc<TableMeta>>, u64)> {
        let mut lists = Vec::new();
        for meta in part.tables.iter().filter(|meta| meta.range_tombstones > 0) {
            let handle = self.context.tables.handle(Arc::clone(meta));
            lists.push(handle.table()?.range_tombstones().clone());
        }
        let logged = part.below_loads.as_ref().map(|buffer| &buffer.memtable);
        lists.extend(logged.map(|memtable| memtable.range_tombstones()));
        let merged = || {
            let tables = runs.iter().map(|run| {
                let handles = run
                    .iter()
                    .map(|meta| self.context.tables.handle(Arc::clone(meta)));
                let handles: Vec<Arc<TableHandle>> = handles.collect();
                let tables = LevelIter::new(handles.into(), FillCache::No);
                Box::new(tables) as Box<dyn InternalIterator>
            });
            let logged = logged.map(|memtable| Box::new(memtable.iter()) as Box<_>);
            MergingIterator::new(logged.into_iter().chain(tables).collect())
        };
        let left_out = Arc::new(AtomicU64::new(0));
        let source = Trusted {
            inner: merged(),
            below: merged(),
            doubts: part.doubts.clone(),
            left_out: Arc::clone(&left_out),
        };
        let origin = Origin {
            keyspace: id,
            name: part.name.clone(),
            making: Making::Merge,
            flushed: part.flushed_sequence,
            replaces: part.tables.iter().map(|meta| meta.number).collect(),
            ..Origin::default()
        };
        let context = JobContext {
            origin: Some(Arc::new(origin)),
            ..self.context.clone()
        };
        let rules = RetentionRules {
            snapshots: Vec::new(),
            now_millis: self.context.clock.now_millis(),
            values: ValueTables::new(
                part.values
                    .iter()
                    .map(|meta| self.context.tables.handle(Arc::clone(meta))),
                part.lost_values.iter().copied().collect(),
            ),
            ..RetentionRules::default()
        };
        let tombstones = FragmentedTombstones::merge(&lists);
        let output = esker_compaction::flush(&context, source, tombstones, &rules)?;
        Ok((output.tables, left_out.load(Ordering::Relaxed)))
    }
}

/// As few runs of disjoint tables as hold them all, or nearly.
fn disjoint_runs(tables: &[Arc<TableMeta>]) -> Vec<Vec<Arc<TableMeta>>> {
    let mut sorted = tables.to_vec();
    sorted.sort_by(|a, b| a.bounds.smallest.cmp(&b.bounds.smallest));
    let mut runs: Vec<Vec<Arc<TableMeta>>> = Vec::new();
    for meta in sorted {
        let follows = |run: &&mut Vec<Arc<TableMeta>>| {
            run.last()
                .is_none_or(|last| last.bounds.ends_before(&meta.bounds.smallest))
        };
        match runs.iter_mut().find(follows) {
            Some(run) => run.push(meta),
            None => runs.push(vec![meta]),
        }
    }
    runs
}

/// The records of `inner` that no lost table may have had a newer one for.
struct Trusted<I> {
    inner: I,
    /// The same records, to look at what an operand lies on.
    below: I,
    doubts: Vec<Doubt>,
    left_out: Arc<AtomicU64>,
}

impl<I: InternalIterator> Trusted<I> {
    /// Whether the current record is one to keep.
    fn is_trusted(&mut self) -> Result<bool> {
        let (key, trailer) = (self.inner.user_key(), self.inner.trailer());
        let is_covered = |sequence| self.doubts.iter().any(|doubt| doubt.covers(key, sequence));
        if is_covered(trailer.sequence()) {
            return Ok(false);
        }
        let is_operand = |trailer: Trailer| trailer.kind() == Some(ValueKind::MergeOperand);
        if !is_operand(trailer) || !self.doubts.iter().any(|doubt| doubt.bounds.contains(key)) {
            return Ok(true);
        }
        self.below.seek(key, trailer)?;
        while self.below.valid() && self.below.user_key() == key {
            let trailer = self.below.trailer();
            if is_covered(trailer.sequence()) {
                return Ok(false);
            }
            if !is_operand(trailer) {
                return Ok(true);
            }
            self.below.next()?;
        }
        Ok(false)
    }

    fn skip(&mut self, forwards: bool) -> Result<()> {
        while self.inner.valid() {
            if self.is_trusted()? {
                break;
            }
            self.left_out.fetch_add(1, Ordering::Relaxed);
            if forwards {
                self.inner.next()?;
            } else {
                self.inner.prev()?;
            }
        }
        Ok(())
    }
}

impl<I: InternalIterator> InternalIterator for Trusted<I> {
    fn valid(&self) -> bool {
        self.inner.valid()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.inner.seek_to_first()?;
        self.skip(true)
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.inner.seek_to_last()?;
        self.skip(false)
    }
    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.inner.seek(user_key, trailer)?;
        self.skip(true)
    }
    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.inner.seek_for_prev(user_key, trailer)?;
        self.skip(false)
    }
    fn next(&mut self) -> Result<()> {
        self.inner.next()?;
        self.skip(true)
    }
    fn prev(&mut self) -> Result<()> {
        self.inner.prev()?;
        self.skip(false)
    }
    fn user_key(&self) -> &[u8] {
        self.inner.user_key()
    }
    fn trailer(&self) -> Trailer {
        self.inner.trailer()
    }
    fn value(&self) -> &[u8] {
        self.inner.value()
    }
}

#[cfg(test)]
mod tests;

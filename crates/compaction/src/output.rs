//! Writes the records of a merge into tables of one run, and decides where each table ends.
//!
//! A table ends where it has reached its target size; where going on would make it overlap too
//! many bytes of the level below, so that merging it down later would cost too much; and at the
//! file boundaries of the level below once it is worth a file, so that what is merged together
//! later starts and ends together (Spooky, PVLDB 2022).
//!
//! Invariant: tables are cut only between user keys, and each gets the range tombstones between
//! the cut before it and the cut after it. So tables are disjoint, and their tombstones together
//! are all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use esker_base::filename::{FileNumber, temporary_path};
use esker_base::iterator::RecordView;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::{Result, Trailer};
use esker_sstable::{NewBlocks, Origin, StoredRecord, TableOptions, TableWriter};

use crate::job_context::{CreatedFiles, JobContext};
use crate::value_output::ValueOutput;

/// Bytes of the level below that one table may overlap, in target sizes.
const MAX_OVERLAPPED_TARGETS: u64 = 10;

/// Where tables of an output may or must end.
#[derive(Clone, Debug, Default)]
pub(crate) struct CutRules {
    /// The tables of the run that the output will be merged into next, ascending.
    pub(crate) below: Arc<[Arc<TableMeta>]>,
    /// A table of this size ends at the next file boundary of the run below.
    pub(crate) align_bytes: u64,
}

/// Counts what the current table overlaps below, while keys ascend.
#[derive(Debug)]
struct Overlapped {
    rules: CutRules,
    next: usize,
    bytes: u64,
}

impl Overlapped {
    /// Moves on to `key`; whether tables below ended since the last call.
    fn advance(&mut self, key: &[u8]) -> bool {
        let before = self.next;
        while let Some(table) = self.rules.below.get(self.next)
            && table.bounds.ends_before(key)
        {
            self.bytes += table.file_bytes;
            self.next += 1;
        }
        self.next > before
    }
}

/// What was written: tables, and tables of the values that they point to.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) tables: Vec<Arc<TableMeta>>,
    /// What was kept of the blocks of each of `tables`.
    pub(crate) blocks: Vec<Option<NewBlocks>>,
    pub(crate) values: Vec<Arc<TableMeta>>,
}

/// Writes tables one after the other. Dropped before [`OutputWriter::finish`] it leaves an
/// unfinished file, which [`CreatedFiles`] removes.
pub(crate) struct OutputWriter<'a> {
    context: &'a JobContext,
    options: TableOptions,
    created: &'a CreatedFiles,
    tombstones: &'a FragmentedTombstones,
    overlapped: Overlapped,
    /// Where the current table's share of the tombstones begins.
    span_start: Vec<u8>,
    current: Option<TableWriter>,
    /// The number of the first table.
    first: Option<FileNumber>,
    finished: Vec<Arc<TableMeta>>,
    blocks: Vec<Option<NewBlocks>>,
    values: ValueOutput<'a>,
}

impl<'a> OutputWriter<'a> {
    /// Writes tables for `level`, the keys from `start` on (empty: from the beginning), with
    /// `tombstones` among them.
    pub(crate) fn new(
        context: &'a JobContext,
        level: usize,
        created: &'a CreatedFiles,
        tombstones: &'a FragmentedTombstones,
        rules: CutRules,
        start: &[u8],
    ) -> Self {
        Self {
            context,
            options: (context.table_options)(level),
            created,
            tombstones,
            overlapped: Overlapped {
                rules,
                next: 0,
                bytes: 0,
            },
            span_start: start.to_vec(),
            current: None,
            first: None,
            finished: Vec::new(),
            blocks: Vec::new(),
            values: ValueOutput::new(context, level, created),
        }
    }

    /// Adds a record; `starts_key` where it is the first of its user key.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        starts_key: bool,
    ) -> Result<()> {
        if starts_key {
            self.cut_before(key)?;
        }
        if self.values.takes(trailer, value) {
            let (trailer, pointer) = self.values.add(key, trailer, value)?;
            return self.add_to_table(key, trailer, &pointer);
        }
        self.add_to_table(key, trailer, value)
    }

    /// As [`OutputWriter::add`], for a record that its table stores in a block of its own.
    pub(crate) fn add_stored(&mut self, record: &StoredRecord<'_>, starts_key: bool) -> Result<()> {
        let RecordView {
            user_key,
            trailer,
            value,
        } = record.view;
        if self.values.takes(trailer, value) {
            return self.add(user_key, trailer, value, starts_key);
        }
        if starts_key {
            self.cut_before(user_key)?;
        }
        match &mut self.current {
            Some(writer) => writer.add_stored(record),
            None => self.begin()?.add_stored(record),
        }
    }

    fn add_to_table(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        match &mut self.current {
            Some(writer) => writer.add(key, trailer, value),
            None => self.begin()?.add(key, trailer, value),
        }
    }

    fn cut_before(&mut self, key: &[u8]) -> Result<()> {
        let crossed = self.overlapped.advance(key);
        let Some(writer) = &self.current else {
            return Ok(());
        };
        let bytes = writer.estimated_bytes();
        let target = self.context.target_file_bytes;
        let full = bytes >= target;
        let aligned = crossed && bytes >= self.overlapped.rules.align_bytes;
        let costly = self.overlapped.bytes >= target.saturating_mul(MAX_OVERLAPPED_TARGETS);
        if full || aligned || costly {
            self.end_table(key, false)?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<&mut TableWriter> {
        let number = (self.context.new_file_number)();
        let path = temporary_path(&self.context.directory, number);
        self.created.note(number);
        let mut writer = TableWriter::create(&*self.context.fs, &path, number, &self.options)?;
        writer.keep_blocks(self.context.tables.blocks());
        self.overlapped.bytes = 0;
        self.first.get_or_insert(number);
        Ok(self.current.insert(writer))
    }

    /// Ends the current table, the last one or not, before `end` (empty: no end).
    fn end_table(&mut self, end: &[u8], is_last: bool) -> Result<()> {
        let Some(mut writer) = self.current.take() else {
            return Ok(());
        };
        let tombstones = self.tombstones.clipped(&self.span_start, end);
        if !tombstones.is_empty() {
            writer.add_range_tombstones(&tombstones);
        }
        self.span_start.clear();
        self.span_start.extend_from_slice(end);
        if let Some(origin) = &self.context.origin {
            writer.set_origin(Origin {
                first: self.first.unwrap_or_default(),
                part: self.finished.len() as u64,
                is_last,
                ..origin.as_ref().clone()
            });
        }
        // Where there is no manifest a whole table must not point to what was never durable.
        self.values.settle()?;
        let (meta, blocks) = writer.finish_with_blocks(self.context.clock.now_millis())?;
        self.context.give_name(meta.number)?;
        let written = &self.context.written_bytes;
        written.fetch_add(meta.file_bytes, Ordering::Relaxed);
        self.finished.push(Arc::new(meta));
        self.blocks.push(blocks);
        Ok(())
    }

    /// Ends the last table before `end` (empty: no end) and returns all, ascending. Tombstones
    /// that no record was near get a table of their own.
    pub(crate) fn finish(mut self, end: &[u8]) -> Result<Written> {
        if self.current.is_none() && !self.tombstones.clipped(&self.span_start, end).is_empty() {
            self.begin()?;
        }
        self.end_table(end, true)?;
        Ok(Written {
            tables: self.finished,
            blocks: self.blocks,
            values: self.values.into_finished(),
        })
    }
}

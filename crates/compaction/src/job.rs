//! Runs a merge: level iterators over the inputs, merged, filtered, written.
//!
//! Invariants: the inputs are only read; when the job returns its output, every table is synced,
//! its directory entry is synced, and it has been opened again (I1: only the edit is left to do);
//! on an error, a panic or a cancellation no output file is left. Memory is inputs times a block
//! and read-ahead, whatever the tables hold. Called by db's background work.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use esker_base::filename::FileNumber;
use esker_base::iterator::InternalIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result};
use esker_manifest::Version;
use esker_sstable::{StoredRecord, TableHandle, ValueTables};

use crate::compaction_filter::Filters;
use crate::executor::guarded;
use crate::job_context::{CreatedFiles, JobContext};
use crate::older_tables::OlderTables;
use crate::output::{CutRules, OutputWriter, Written};
use crate::plan::{OutputRun, Plan, PlanKind, Reason};
use crate::retention::{JobTombstones, Retention, RetentionRules, RetentionStats};
use crate::subcompaction;

/// Records between two looks at the cancellation flag: about a block of small ones.
const RECORDS_PER_CHECK: u32 = 64;

/// The tables of a finished job. The versions that take them in are not its business.
#[derive(Debug, Default)]
pub struct JobOutput {
    /// The new tables, ascending and disjoint.
    pub tables: Vec<Arc<TableMeta>>,
    /// New tables of values that pointers in the tables point to; they enter a version together.
    pub values: Vec<Arc<TableMeta>>,
    /// The same, open: hold them until the version that lists them is in use.
    pub handles: Vec<Arc<TableHandle>>,
    /// What was done.
    pub stats: JobStats,
}

impl JobOutput {
    /// All new tables, those of values included.
    pub fn all(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.values.iter().chain(&self.tables)
    }
}

/// What a job did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct JobStats {
    /// Bytes of the tables read.
    pub bytes_read: u64,
    /// Bytes of the tables written.
    pub bytes_written: u64,
    /// Parts that the job was cut into.
    pub parts: usize,
    /// Records in, out and dropped.
    pub retention: RetentionStats,
}

/// A key range of a job.
pub(crate) struct Part<'a> {
    pub(crate) level: usize,
    pub(crate) start: &'a [u8],
    /// Exclusive; empty: no end.
    pub(crate) end: &'a [u8],
    pub(crate) rules: &'a RetentionRules,
    /// Clipped to the range.
    pub(crate) tombstones: &'a JobTombstones,
    pub(crate) older: OlderTables,
    pub(crate) cut: CutRules,
    /// Whether large values stay as they are stored, sequence number and all.
    pub(crate) keeps_large: bool,
    /// Whether other threads go first even where the context says that somebody waits.
    pub(crate) gives_way: bool,
}

/// The record that a source stands on as a table stores it, where that can be had.
pub(crate) type StoredRecordOf<I> = for<'a> fn(&'a mut I) -> Result<Option<StoredRecord<'a>>>;

/// Writes what retention leaves of `source`, which stands at the part's start.
pub(crate) fn write_part<I: InternalIterator>(
    context: &JobContext,
    created: &CreatedFiles,
    part: Part<'_>,
    source: I,
    stored_record: StoredRecordOf<I>,
) -> Result<(Written, RetentionStats)> {
    let Part {
        level,
        start,
        end,
        rules,
        tombstones,
        older,
        cut,
        keeps_large,
        gives_way,
    } = part;
    let mut output = OutputWriter::new(context, level, created, &tombstones.kept, cut, start);
    let filter = Filters::new(rules);
    // What fills a block alone has a block of its own.
    let large_bytes = (context.table_options)(level).block_bytes;
    let mut records = Retention::new(source, end, rules, tombstones, older, filter)
        .with_large_values(large_bytes, keeps_large);
    let (mut until_check, mut has_warned) = (0, false);
    while records.advance()? {
        if until_check == 0 {
            context.check_cancelled()?;
            until_check = RECORDS_PER_CHECK;
            if gives_way || !context.urgent.load(Ordering::Relaxed) {
                context.executor.give_way();
            }
        }
        until_check -= 1;
        let starts_key = records.starts_key();
        match records.unchanged_large().map(stored_record) {
            Some(Ok(Some(record))) => {
                output.add_stored(&record, starts_key)?;
                continue;
            }
            // It was cached before the file was damaged, or could not be read: what is written now mends that.
            Some(Err(error)) if !std::mem::replace(&mut has_warned, true) => {
                tracing::warn!(%error, "a merge writes what is in memory in place of blocks that it cannot read");
            }
            Some(Err(_) | Ok(None)) | None => {}
        }
        output.add(
            records.user_key(),
            records.trailer(),
            records.value(),
            starts_key,
        )?;
    }
    Ok((output.finish(end)?, *records.stats()))
}

/// Makes finished tables fit for an edit: directory synced, unless the caller does it, each opened again.
pub(crate) fn finish_tables(
    context: &JobContext,
    written: Written,
    mut stats: JobStats,
) -> Result<JobOutput> {
    let Written {
        tables,
        blocks,
        values,
    } = written;
    let made_some = !tables.is_empty() || !values.is_empty();
    if made_some && !context.caller_syncs_directory {
        let directory = &context.directory;
        let synced = context.fs.sync_dir(directory);
        synced.map_err(|error| Error::io("sync the directory", directory, error))?;
    }
    let mut handles = Vec::with_capacity(tables.len());
    let kept = values.iter().map(|_| None).chain(blocks);
    for (meta, kept) in values.iter().chain(&tables).zip(kept) {
        let handle = context.tables.handle(Arc::clone(meta));
        let table = handle.table()?;
        if let Some(blocks) = kept {
            table.adopt(blocks)?;
        }
        drop(table);
        handles.push(handle);
        stats.bytes_written += meta.file_bytes;
    }
    stats.parts = stats.parts.max(1);
    Ok(JobOutput {
        tables,
        values,
        handles,
        stats,
    })
}

/// Runs a merge plan made from `version` (or from an older one: what a plan holds stays in place
/// while it runs) and returns the tables that replace its inputs; [`Plan::edit`] makes the edit.
///
/// # Errors
/// I/O errors and damage of the inputs; [`Cancelled`](esker_base::ErrorKind::Cancelled); a panic
/// inside; [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) for a plan that is no merge
/// or would break the order of runs. Every file that was made is removed then.
pub fn run(
    context: &JobContext,
    plan: &Plan,
    version: &Version,
    rules: &RetentionRules,
) -> Result<JobOutput> {
    let _span = tracing::info_span!(
        "compaction",
        reason = ?plan.reason,
        output_level = plan.output_level,
        tables = plan.tables().count(),
        bytes = plan.input_bytes(),
    )
    .entered();
    if plan.kind != PlanKind::Merge {
        return Err(Error::invalid_argument("only a merge needs a job"));
    }
    plan.check_order(version)?;
    let created = Arc::new(CreatedFiles::new(context));
    let output = guarded(|| {
        let merge = Merge::prepare(context, plan, version, rules, &created)?;
        let (written, stats) = subcompaction::run(merge)?;
        finish_tables(context, written, stats)
    })?;
    created.keep();
    tracing::info!(
        tables = output.tables.len(),
        bytes_read = output.stats.bytes_read,
        bytes_written = output.stats.bytes_written,
        parts = output.stats.parts,
        retention = ?output.stats.retention,
        "compacted"
    );
    Ok(output)
}

/// What the parts of a merge share.
pub(crate) struct Merge {
    pub(crate) context: JobContext,
    /// The inputs' tables by run, newest run first.
    pub(crate) inputs: Vec<Arc<[Arc<TableHandle>]>>,
    pub(crate) input_bytes: u64,
    pub(crate) level: usize,
    pub(crate) rules: RetentionRules,
    pub(crate) tombstones: JobTombstones,
    pub(crate) older: OlderTables,
    pub(crate) cut: CutRules,
    pub(crate) keeps_large: bool,
    pub(crate) created: Arc<CreatedFiles>,
}

impl Merge {
    fn prepare(
        context: &JobContext,
        plan: &Plan,
        version: &Version,
        rules: &RetentionRules,
        created: &Arc<CreatedFiles>,
    ) -> Result<Self> {
        let open = |meta: &Arc<TableMeta>| context.tables.handle(Arc::clone(meta));
        let inputs: Vec<Arc<[Arc<TableHandle>]>> = plan
            .inputs
            .iter()
            .map(|run| run.tables.iter().map(open).collect())
            .collect();
        let mut lists = Vec::new();
        for handle in inputs.iter().flat_map(|run| run.iter()) {
            if handle.meta().range_tombstones > 0 {
                lists.push(handle.table()?.range_tombstones().clone());
            }
        }
        let all = FragmentedTombstones::merge(&lists);
        let older = OlderTables::below(plan, version);
        let mut rules = rules.clone();
        let values = version.values.tables.iter().map(open);
        rules.values = ValueTables::new(values, version.values.lost.clone());
        rules.emptied = emptied(context, version);
        let kept = rules.retain_tombstones(&all, &older);
        Ok(Self {
            context: context.clone(),
            inputs,
            input_bytes: plan.input_bytes(),
            level: plan.output_level,
            rules,
            tombstones: JobTombstones { all, kept },
            older,
            cut: cut_rules(plan, version, context.target_file_bytes),
            // Who asks for a compaction gets the final form, which has no sequence numbers.
            keeps_large: plan.reason != Reason::Requested,
            created: Arc::clone(created),
        })
    }
}

/// The value tables that are garbage to such a part that what is needed of them is to leave them.
fn emptied(context: &JobContext, version: &Version) -> Arc<HashSet<FileNumber>> {
    let uses = version.value_uses().into_iter();
    let worth = uses.filter(|one| one.garbage_share() > context.value_garbage_ratio);
    Arc::new(worth.map(|one| one.meta.number).collect())
}

/// The nearest single run below the output is what it will be merged into one day. A new run of a
/// tier right above it is aligned with it closely, so that it can later be merged piece by piece.
fn cut_rules(plan: &Plan, version: &Version, target_file_bytes: u64) -> CutRules {
    let levels = version
        .levels
        .iter()
        .enumerate()
        .skip(plan.output_level + 1);
    let mut single = levels.filter(|(_, level)| level.runs.len() == 1);
    let Some((level, below)) = single.next() else {
        return CutRules::default();
    };
    let next = level == plan.output_level + 1;
    let share = if plan.output_run == OutputRun::Newest && next {
        16
    } else {
        2
    };
    CutRules {
        below: below
            .runs
            .iter()
            .flat_map(|run| run.tables.iter().cloned())
            .collect(),
        align_bytes: target_file_bytes / share,
    }
}

#[cfg(test)]
mod tests;

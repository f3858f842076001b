//! What a query would read, judged by the indexes of the tables that it would read it from.
//!
//! Invariant: nothing is read but those indexes. Blocks are those of tables whose keys overlap what
//! is scanned; records in memory take none.

use crate::keyspace::KeyspaceState;
use crate::query::plan::Plan;
use crate::query::{MAX_SORTED_ROWS, Query};
use crate::range_spec::KeyRange;
use crate::super_version::SuperVersion;
use esker_base::Result;
use esker_base::key_bounds::end_is_above;
use esker_sstable::TableHandle;
use std::fmt;
use std::sync::Arc;

/// How a query will be run and about how much it will read: [`Query::plan`]. `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryPlan {
    index: Option<String>,
    is_sorted: bool,
    descending: bool,
    limit: Option<usize>,
    scanned_blocks: u64,
    scanned_entries: u64,
    looks_up_records: bool,
    runs_per_lookup: u64,
}

impl QueryPlan {
    pub(crate) fn of(query: &Query<'_>) -> Result<Self> {
        let plan = Plan::of(query)?;
        let records = query.keyspace.state();
        let scanned: &Arc<KeyspaceState> =
            plan.index.as_ref().map_or(records, |index| &index.entries);
        let estimate = Estimate::of(&scanned.load(), &plan.range)?;
        Ok(Self {
            index: query.index.as_ref().map(|condition| condition.name.clone()),
            is_sorted: plan.is_sorted,
            descending: query.descending,
            limit: query.limit,
            scanned_blocks: estimate.blocks,
            scanned_entries: estimate.entries,
            looks_up_records: plan.index.is_some() && (!query.keys_only || query.filter.is_some()),
            runs_per_lookup: records.load().runs.len() as u64,
        })
    }

    /// The index that is scanned; `None` where the records are.
    #[must_use]
    pub fn index(&self) -> Option<&str> {
        self.index.as_deref()
    }

    /// Whether rows are sorted in memory instead of coming in their order.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    /// Data blocks of tables that a scan of the whole range reads, by the tables' own indexes. A
    /// limit ends it sooner.
    #[must_use]
    pub fn scanned_blocks(&self) -> u64 {
        self.scanned_blocks
    }

    /// Entries that such a scan meets, about: those of tables in proportion to their blocks, and all
    /// those in memory.
    #[must_use]
    pub fn scanned_entries(&self) -> u64 {
        self.scanned_entries
    }

    /// Blocks that looking up the records of index entries reads at most, if every entry is
    /// followed: filters spare most of those that do not hold the record, the cache those read before.
    #[must_use]
    pub fn lookup_blocks_at_most(&self) -> u64 {
        if !self.looks_up_records {
            return 0;
        }
        let lookups = self.scanned_entries;
        let lookups = match self.limit {
            Some(limit) if !self.is_sorted => lookups.min(limit as u64),
            _ => lookups,
        };
        lookups.saturating_mul(self.runs_per_lookup)
    }
}

impl QueryPlan {
    /// What is scanned, and in which direction.
    pub(super) fn say_scan(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.index {
            Some(index) => write!(f, "scan index {index:?}")?,
            None => f.write_str("scan the records")?,
        }
        if self.descending && !self.is_sorted {
            f.write_str(" backwards")?;
        }
        Ok(())
    }

    /// What makes an order or an end of it.
    pub(super) fn say_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_sorted {
            let kept = self.limit.unwrap_or(MAX_SORTED_ROWS);
            write!(f, "; sort by key, keeping {kept} rows")
        } else if let Some(limit) = self.limit {
            write!(f, "; end after {limit} rows")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for QueryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.say_scan(f)?;
        let (blocks, entries) = (self.scanned_blocks, self.scanned_entries);
        write!(f, ": {blocks} blocks, about {entries} entries")?;
        if self.looks_up_records {
            write!(
                f,
                "; look up each record: {} blocks at most",
                self.lookup_blocks_at_most()
            )?;
        }
        self.say_end(f)
    }
}

#[derive(Debug, Default)]
struct Estimate {
    blocks: u64,
    entries: u64,
}

impl Estimate {
    fn of(view: &SuperVersion, range: &KeyRange) -> Result<Self> {
        let mut estimate = Self::default();
        if range.is_empty() {
            return Ok(estimate);
        }
        for handle in view.runs.iter().flat_map(|run| run.tables.iter()) {
            let bounds = &handle.meta().bounds;
            let starts_below_end = end_is_above(range.end(), &bounds.smallest);
            if starts_below_end && !bounds.ends_before(range.start()) {
                estimate.add(handle, range)?;
            }
        }
        let memtables = view.memtables().map(|memtable| memtable.entries());
        estimate.entries += memtables.sum::<u64>();
        Ok(estimate)
    }

    fn add(&mut self, handle: &TableHandle, range: &KeyRange) -> Result<()> {
        let table = handle.table()?;
        let properties = table.properties();
        let (all_bytes, all_blocks) = (properties.data_bytes.max(1), properties.data_blocks);
        let first = if range.start().is_empty() {
            0
        } else {
            table.approximate_offset(range.start())
        };
        let last = if range.end().is_empty() {
            all_bytes
        } else {
            table.approximate_offset(range.end())
        };
        // The block that the end lies in is read as well.
        let bytes = last.saturating_sub(first);
        let blocks = (bytes * all_blocks).div_ceil(all_bytes);
        let blocks = (blocks + u64::from(last < all_bytes)).min(all_blocks);
        self.blocks += blocks;
        self.entries += (handle.meta().entries * blocks).div_ceil(all_blocks.max(1));
        Ok(())
    }
}

//! What a query has really read: it is run to its end, and its reads are counted.
//!
//! Invariant: the counts are those of the query alone: blocks are counted on the thread that reads them,
//! around each read, and what the filter of the query reads by itself is left out. Rows are dropped as they
//! come, so that explaining takes no more memory than running. Called by [`Query::explain`].

use crate::query::forecast::QueryPlan;
use crate::query::{Filter, Query, Source};
use esker_base::Result;
use esker_sstable::BlockReads;
use std::fmt;

/// What the rows of a query have taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) blocks: BlockReads,
    pub(crate) entries: u64,
    pub(crate) lookups: u64,
    pub(crate) rows: u64,
}

/// How a query was run and what it read, counted: [`Query::explain`]. `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    plan: QueryPlan,
    taken: Taken,
}

impl Explanation {
    pub(crate) fn of(query: &mut Query<'_>) -> Result<Self> {
        let plan = query.plan()?;
        let mut rows = again(query).rows()?;
        for row in rows.by_ref() {
            row?;
        }
        let taken = rows.taken();
        Ok(Self { plan, taken })
    }

    /// What was expected before it was run.
    #[must_use]
    pub fn plan(&self) -> &QueryPlan {
        &self.plan
    }

    /// The index that was scanned; `None` where the records were.
    #[must_use]
    pub fn index(&self) -> Option<&str> {
        self.plan.index()
    }

    /// Whether rows were sorted in memory instead of coming in their order.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        self.plan.is_sorted()
    }

    /// Rows that it found.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.taken.rows
    }

    /// Entries of the index, or records, that were scanned for them.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.taken.entries
    }

    /// Index entries whose records were looked up.
    #[must_use]
    pub fn lookups(&self) -> u64 {
        self.taken.lookups
    }

    /// Data blocks of tables that were read, each time that one was: from the cache and from files.
    /// Records in memory take none. A block that a scan stays in counts once.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks_from_cache() + self.blocks_from_disk()
    }

    /// Data blocks that were in the block cache.
    #[must_use]
    pub fn blocks_from_cache(&self) -> u64 {
        self.taken.blocks.cached
    }

    /// Data blocks that had to be read from files, values that are kept apart included.
    #[must_use]
    pub fn blocks_from_disk(&self) -> u64 {
        self.taken.blocks.loaded
    }
}

/// The same query, for as long as `query` is lent.
fn again<'b>(query: &'b mut Query<'_>) -> Query<'b> {
    let source = match &mut query.source {
        Source::Snapshot(snapshot) => Source::Snapshot(snapshot.clone()),
        Source::Transaction(transaction) => Source::Transaction(transaction),
    };
    let filter = query.filter.as_ref();
    Query {
        keyspace: query.keyspace.clone(),
        source,
        keys: query.keys.clone(),
        index: query.index.clone(),
        filter: filter
            .map(|holds| Box::new(move |key: &[u8], value: &[u8]| holds(key, value)) as Filter<'b>),
        order: query.order,
        descending: query.descending,
        limit: query.limit,
        after: query.after.clone(),
        keys_only: query.keys_only,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.say_scan(f)?;
        write!(f, ": {} entries", self.taken.entries)?;
        if self.taken.lookups > 0 {
            write!(f, "; look up {} records", self.taken.lookups)?;
        }
        self.plan.say_end(f)?;
        let (cached, loaded) = (self.blocks_from_cache(), self.blocks_from_disk());
        let (blocks, rows) = (self.blocks(), self.taken.rows);
        write!(
            f,
            ": {rows} rows out of {blocks} blocks, {cached} cached and {loaded} read from disk"
        )
    }
}

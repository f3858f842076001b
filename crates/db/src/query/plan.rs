//! How a query is run: what is read, in which direction, and whether it must be sorted.
//!
//! Invariant: pure, but for the look at the index; the same query always gives the same plan, so that
//! a continuation of it can be told from one of another.

use crate::index::catalog::Index;
use crate::query::{MAX_SORTED_ROWS, Order, Query, Source, needs_limit};
use crate::range_spec::KeyRange;
use esker_base::Result;
use esker_base::checksum::checksum;
use esker_base::coding::put_bytes;
use std::sync::Arc;

/// How a query is run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The index that is read, if not the records themselves.
    pub(crate) index: Option<Arc<Index>>,
    /// What is read of it, or of the records.
    pub(crate) range: KeyRange,
    /// Whether rows are gathered and sorted by key, instead of coming in their order.
    pub(crate) is_sorted: bool,
    /// Tells this query from others.
    pub(crate) fingerprint: u64,
}

impl Plan {
    pub(crate) fn of(query: &Query<'_>) -> Result<Self> {
        let index = match &query.index {
            Some(condition) => {
                let index = query.keyspace.index(&condition.name)?;
                let sequence = match &query.source {
                    Source::Snapshot(snapshot) => snapshot.sequence(),
                    Source::Transaction(transaction) => transaction.sequence(),
                };
                index.check_ready(Some(sequence))?;
                Some(index)
            }
            None => None,
        };
        let by_one_key = query.index.as_ref().is_none_or(|c| c.equal.is_some());
        let is_sorted = query.order == Order::ByKey && !by_one_key;
        if is_sorted && query.limit.is_none_or(|limit| limit > MAX_SORTED_ROWS) {
            return Err(needs_limit());
        }
        let range = match &query.index {
            Some(condition) => condition.range.clone(),
            None => query.keys.clone(),
        };
        let fingerprint = fingerprint(query, index.as_deref(), &range, is_sorted);
        Ok(Self {
            index,
            range,
            is_sorted,
            fingerprint,
        })
    }
}

fn fingerprint(query: &Query<'_>, index: Option<&Index>, range: &KeyRange, is_sorted: bool) -> u64 {
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, query.keyspace.name().as_bytes());
    if let Some(index) = index {
        put_bytes(&mut bytes, index.definition.name().as_bytes());
        bytes.extend_from_slice(&index.definition.version().to_le_bytes());
    }
    let equal = query
        .index
        .as_ref()
        .and_then(|condition| condition.equal.as_deref());
    for part in [
        range.start(),
        range.end(),
        query.keys.start(),
        query.keys.end(),
    ] {
        put_bytes(&mut bytes, part);
    }
    put_bytes(&mut bytes, equal.unwrap_or_default());
    bytes.push(
        u8::from(equal.is_some()) << 2 | u8::from(is_sorted) << 1 | u8::from(query.descending),
    );
    checksum(&bytes, 0)
}

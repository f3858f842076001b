//! Every pointer to a value, followed.
//!
//! Invariant: what a table says of its pointers was counted before, and every byte of the value tables
//! checked; what is left is that each pointer leads to a value of its own key. Not asked where something
//! is damaged anyway, so that one damage is told once.

use super::{Issue, Shared};
use crate::super_version::SuperVersion;
use esker_base::Result;
use esker_base::iterator::InternalIterator;
use esker_sstable::{FillCache, TableHandle, TableIter};
use std::sync::Arc;

/// Follows the pointers of a keyspace.
pub(super) fn verify(view: &SuperVersion, shared: &Shared<'_>) {
    let is_well = || shared.issues.lock().is_empty() && shared.refusals.lock().is_empty();
    if view.version.values.tables.is_empty() || !is_well() {
        return;
    }
    let tables = view.runs.iter().flat_map(|run| run.tables.iter());
    for handle in tables.filter(|handle| !handle.meta().value_refs.is_empty()) {
        if let Err(error) = follow(view, handle, shared) {
            let error = error.with_keys(&handle.meta().bounds);
            shared.failed(error, Issue::damage);
        }
    }
}

fn follow(view: &SuperVersion, handle: &Arc<TableHandle>, shared: &Shared<'_>) -> Result<()> {
    let mut records = TableIter::new(handle, FillCache::No)?;
    records.seek_to_first()?;
    while records.valid() && !shared.is_cancelled() {
        let kind = records.trailer().kind();
        if let Some(kind) = kind.filter(|kind| kind.is_pointer()) {
            view.values
                .value(records.user_key(), kind, records.value())?;
        }
        records.next()?;
    }
    Ok(())
}

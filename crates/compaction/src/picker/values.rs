//! Which tables to rewrite so that the values they point to leave value tables full of garbage.
//!
//! Invariant: picking comes to an end. A table is rewritten in place, and none of its pointers leads
//! into such a value table afterwards: what they pointed to lies in a new one, all of which is needed.
//! How much of a value table is garbage only grows, so the job finds what the picker has found.

use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::table_meta::TableMeta;

use super::Picker;
use super::garbage::rewrite_for;
use crate::plan::{Plan, Reason};

/// Bytes of the values that the pointers of a table lead to.
pub(super) fn needed_bytes(table: &TableMeta) -> u64 {
    table.value_refs.iter().map(|one| one.bytes).sum()
}

/// A table that points into the value table with the most garbage of those that have too much; of such
/// tables the one that needs most of it.
pub(super) fn pick_emptied(picker: &Picker<'_>) -> Option<Plan> {
    let uses = picker.version.value_uses().into_iter();
    let ratio = picker.options.value_garbage_ratio;
    let mut worth: Vec<_> = uses
        .filter(|one| one.live_records > 0 && one.garbage_share() > ratio)
        .collect();
    worth.sort_by_key(|one| std::cmp::Reverse(one.garbage_bytes()));
    worth
        .iter()
        .find_map(|one| pick_of(picker, one.meta.number))
}

fn pick_of(picker: &Picker<'_>, number: FileNumber) -> Option<Plan> {
    let needs = |table: &Arc<TableMeta>| {
        let one = table.value_refs.iter().find(|one| one.number == number);
        one.map_or(0, |one| one.records)
    };
    let tables = picker
        .version
        .runs_newest_first()
        .flat_map(|(level, run)| run.tables.iter().map(move |table| (level, run, table)));
    let free = tables.filter(|(_, _, table)| needs(table) > 0 && !picker.is_busy(table));
    let (level, run, table) = free.max_by_key(|(_, _, table)| needs(table))?;
    Some(rewrite_for(picker, level, run, table, Reason::Values))
}

#[cfg(test)]
mod tests;

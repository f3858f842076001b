//! What is worth compacting for the sake of space, though no level is too large.
//!
//! Two kinds. Tables of which no record can ever be seen again are dropped unread. Tables whose
//! tombstones and expired records promise to free a good share of what a merge would read are
//! merged: downwards while something older overlaps them, in place once nothing does.
//!
//! Invariant: a merge for garbage ends it. In place, it is planned only when no snapshot can make
//! retention keep what was counted as garbage; downwards, the bytes move down.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use esker_base::SequenceNumber;
use esker_base::filename::FileNumber;
use esker_base::key_bounds::end_is_above;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_manifest::Run;

use super::{Picker, next_level};
use crate::overlap::Selection;
use crate::plan::{OutputRun, Plan, PlanKind, PlanRun, Reason};

/// Fragments of range tombstones that are walked to find out whether they cover a table.
const MAX_FRAGMENTS_WALKED: usize = 64;

/// The share of a table's records that are tombstones or, by a guess from the span of their
/// expiries, expired: 0 to 1.
pub(super) fn share(table: &TableMeta, now_millis: u64) -> f64 {
    let records = (table.entries + table.range_tombstones).max(1) as f64;
    let dead = (table.tombstones + table.range_tombstones) as f64 + expired(table, now_millis);
    (dead / records).min(1.0)
}

/// How many records have expired, if expiries are spread evenly from the first to the last.
fn expired(table: &TableMeta, now_millis: u64) -> f64 {
    if table.expiring_entries == 0 || now_millis < table.earliest_expiry_millis {
        return 0.0;
    }
    let span = table
        .latest_expiry_millis
        .saturating_sub(table.earliest_expiry_millis);
    let passed = now_millis - table.earliest_expiry_millis;
    let part = if passed >= span {
        1.0
    } else {
        passed as f64 / span as f64
    };
    // At least the record that expires first.
    (table.expiring_entries as f64 * part).max(1.0)
}

/// Tables that can be forgotten unread, all in one plan.
pub(super) fn pick_droppable(picker: &Picker<'_>) -> Option<Plan> {
    drop_all(picker, wholly_expired(picker), Reason::Expired)
        .or_else(|| drop_all(picker, wholly_covered(picker), Reason::Covered))
}

fn drop_all(picker: &Picker<'_>, numbers: HashSet<FileNumber>, reason: Reason) -> Option<Plan> {
    if numbers.is_empty() {
        return None;
    }
    let inputs = picker
        .version
        .runs_newest_first()
        .map(|(level, run)| PlanRun {
            level,
            run_id: run.id,
            tables: run
                .tables
                .iter()
                .filter(|t| numbers.contains(&t.number))
                .cloned()
                .collect(),
        })
        .filter(|run| !run.tables.is_empty())
        .collect();
    let kind = PlanKind::Drop;
    let output_run = OutputRun::Only;
    Some(Plan {
        reason,
        kind,
        inputs,
        output_level: 0,
        output_run,
        bottommost: true,
    })
}

/// Tables whose every record has expired and under which nothing is left that they must go on
/// hiding. What lies below and is dropped with them does not count.
fn wholly_expired(picker: &Picker<'_>) -> HashSet<FileNumber> {
    let mut droppable = HashSet::new();
    let runs: Vec<&Arc<Run>> = picker
        .version
        .runs_newest_first()
        .map(|(_, run)| run)
        .collect();
    for (position, run) in runs.iter().enumerate().rev() {
        for table in &run.tables {
            if picker.is_busy(table) || !table.is_wholly_expired(picker.input.now_millis) {
                continue;
            }
            let stays = |older: &&Arc<TableMeta>| !droppable.contains(&older.number);
            if !older_tables(&runs, position, table).any(|older| stays(&older)) {
                droppable.insert(table.number);
            }
        }
    }
    droppable
}

/// Tables that lie wholly under newer range tombstones which every reader sees. The tombstones
/// stay, so what is older still is hidden as well.
fn wholly_covered(picker: &Picker<'_>) -> HashSet<FileNumber> {
    let mut covered = HashSet::new();
    let Some(source) = picker.input.tombstones else {
        return covered;
    };
    let runs: Vec<&Arc<Run>> = picker
        .version
        .runs_newest_first()
        .map(|(_, run)| run)
        .collect();
    for (position, run) in runs.iter().enumerate() {
        for holder in run.tables.iter().filter(|table| table.range_tombstones > 0) {
            let Some(tombstones) = source(holder) else {
                continue;
            };
            for older in older_tables(&runs, position, holder) {
                let hidden = covers(&tombstones, older, picker.input.oldest_snapshot);
                if hidden && !picker.is_busy(older) {
                    covered.insert(older.number);
                }
            }
        }
    }
    covered
}

/// Whether `tombstones` that readers at `visible` see hide every record of `table`.
fn covers(tombstones: &FragmentedTombstones, table: &TableMeta, visible: SequenceNumber) -> bool {
    let mut at = table.bounds.smallest.as_slice();
    for _ in 0..MAX_FRAGMENTS_WALKED {
        let fragment = tombstones.fragment_at(at, visible);
        if fragment
            .sequence
            .is_none_or(|sequence| sequence <= table.largest_sequence)
        {
            return false;
        }
        if fragment.end.is_empty() || table.bounds.ends_before(fragment.end) {
            return true;
        }
        at = fragment.end;
    }
    false
}

/// The tables of the runs after `position` that overlap `table`.
fn older_tables<'r>(
    runs: &'r [&Arc<Run>],
    position: usize,
    table: &'r TableMeta,
) -> impl Iterator<Item = &'r Arc<TableMeta>> {
    runs[position + 1..]
        .iter()
        .flat_map(|run| &run.tables[run.overlapping(&table.bounds)])
}

/// The merge that frees most for what it reads, if that is worth it.
pub(super) fn pick_garbage(picker: &Picker<'_>) -> Option<Plan> {
    let freed = freed_by_table(picker);
    if freed.is_empty() {
        return None;
    }
    let worth = picker.options.garbage_ratio;
    let mut best: Option<(f64, Plan)> = None;
    let mut consider = |plan: Plan| {
        let bytes: f64 = plan.files().filter_map(|number| freed.get(&number)).sum();
        let gain = bytes / plan.input_bytes().max(1) as f64;
        if gain >= worth && best.as_ref().is_none_or(|(most, _)| gain > *most) {
            best = Some((gain, plan));
        }
    };
    let leveled: Vec<_> = picker.version.runs_newest_first().collect();
    let runs: Vec<&Arc<Run>> = leveled.iter().map(|(_, run)| *run).collect();
    let mut whole_levels = HashSet::new();
    for (position, (level, run)) in leveled.iter().enumerate() {
        for table in &run.tables {
            let Some(freed) = freed.get(&table.number) else {
                continue;
            };
            let alone = *freed >= worth * table.file_bytes as f64;
            if older_tables(&runs, position, table).next().is_none() {
                if alone {
                    consider(rewrite(picker, *level, run, table));
                }
            } else if goes_whole(picker, *level) {
                if whole_levels.insert(*level) {
                    picker
                        .push_level(*level, Reason::Garbage)
                        .into_iter()
                        .for_each(&mut consider);
                }
            } else if alone {
                push(picker, *level, table)
                    .into_iter()
                    .for_each(&mut consider);
            }
        }
    }
    best.map(|(_, plan)| plan)
}

/// About how many bytes go once each table with garbage is merged with what it hides. Tables that
/// are busy, and those that snapshots may keep as they are, are left out.
fn freed_by_table(picker: &Picker<'_>) -> HashMap<FileNumber, f64> {
    let runs: Vec<&Arc<Run>> = picker
        .version
        .runs_newest_first()
        .map(|(_, run)| run)
        .collect();
    let mut freed = HashMap::new();
    for (position, run) in runs.iter().enumerate() {
        for table in &run.tables {
            let own = share(table, picker.input.now_millis);
            let kept = table.largest_sequence > picker.input.oldest_snapshot;
            if own == 0.0 || kept || picker.is_busy(table) {
                continue;
            }
            let bytes = if older_tables(&runs, position, table).next().is_none() {
                own * table.file_bytes as f64
            } else {
                freed_below(picker, &runs, position, table)
            };
            freed.insert(table.number, bytes);
        }
    }
    freed
}

/// Whether a level can only be merged down as a whole.
fn goes_whole(picker: &Picker<'_>, level: usize) -> bool {
    let next = next_level(&picker.layout, level);
    level == next || !picker.layout.is_sorted(next)
}

/// About how many bytes go when `table` has met everything older that it hides.
fn freed_below(
    picker: &Picker<'_>,
    runs: &[&Arc<Run>],
    position: usize,
    table: &Arc<TableMeta>,
) -> f64 {
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    for older in older_tables(runs, position, table) {
        bytes += older.file_bytes;
        entries += older.entries;
    }
    let each = bytes as f64 / entries.max(1) as f64;
    let by_points = table.tombstones.min(entries) as f64 * each;
    let by_ranges = match picker.input.tombstones.and_then(|source| source(table)) {
        _ if table.range_tombstones == 0 => 0.0,
        Some(tombstones) => older_tables(runs, position, table)
            .map(|older| covered_share(&tombstones, older) * older.file_bytes as f64)
            .sum(),
        None => {
            let records = (table.entries + table.range_tombstones) as f64;
            bytes as f64 * table.range_tombstones as f64 / records
        }
    };
    let own = table.file_bytes as f64 / table.entries.max(1) as f64;
    let by_expiry = expired(table, picker.input.now_millis) * own;
    (by_points + by_ranges).min(bytes as f64) + by_expiry
}

/// The share of `table` that newer range tombstones hide, told by how many of its ends they cover.
fn covered_share(tombstones: &FragmentedTombstones, table: &TableMeta) -> f64 {
    let newer = |sequences: &[SequenceNumber]| {
        sequences
            .first()
            .is_some_and(|newest| *newest > table.largest_sequence)
    };
    let mut ends: f64 = 0.0;
    for (start, end, sequences) in tombstones.iter().filter(|(_, _, all)| newer(all)) {
        let covers_start =
            start <= table.bounds.smallest.as_slice() && end_is_above(end, &table.bounds.smallest);
        let covers_end = start <= table.bounds.largest.as_slice()
            && (end.is_empty() || table.bounds.ends_before(end));
        debug_assert!(!sequences.is_empty());
        ends += 0.5 * (f64::from(u8::from(covers_start)) + f64::from(u8::from(covers_end)));
    }
    ends.min(1.0)
}

/// Writes a table under which nothing lies anew, without its garbage.
fn rewrite(picker: &Picker<'_>, level: usize, run: &Run, table: &Arc<TableMeta>) -> Plan {
    rewrite_for(picker, level, run, table, Reason::Garbage)
}

/// Merges a table alone, in its place.
pub(super) fn rewrite_for(
    picker: &Picker<'_>,
    level: usize,
    run: &Run,
    table: &Arc<TableMeta>,
    reason: Reason,
) -> Plan {
    let inputs = vec![PlanRun {
        level,
        run_id: run.id,
        tables: vec![Arc::clone(table)],
    }];
    let within = OutputRun::Within(run.id);
    picker.plan(inputs, level, within, reason, false)
}

/// Merges a table, and what must go with it, into the sorted level below.
fn push(picker: &Picker<'_>, level: usize, table: &Arc<TableMeta>) -> Option<Plan> {
    let next = next_level(&picker.layout, level);
    let selection: Selection<'_> = if picker.layout.is_sorted(level) {
        picker.part_of_sorted(level, next, table)?
    } else {
        picker.part_of_tier(level, next, table)?
    };
    if selection.touches(picker.input.busy) {
        return None;
    }
    Some(picker.plan_part(selection, level, next, Reason::Garbage))
}

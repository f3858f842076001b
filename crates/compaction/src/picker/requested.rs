//! Compaction on request: brings every table of a range into its final form, one plan at a time.
//!
//! Final form: in the last level (in a tiered tree: in the oldest run), nothing older below, no
//! garbage, and no sequence numbers where no snapshot can tell.
//!
//! Invariant: a plan consumes at least one table that existed when the request began and makes
//! only newer ones, so a request ends however many writes go on beside it. Called by db's
//! `compact` and `compact_range`, and where a database in memory is full.

use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_manifest::Run;

use super::{PickInput, Picker};
use crate::overlap::{Selection, Stack};
use crate::plan::{OutputRun, Plan, PlanKind, Reason};
use crate::shape::CompactionShape;

/// The next step of a requested compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangePick {
    /// Every table of the range that existed when the request began is in its final form.
    Done,
    /// Running plans hold what is left: ask again when one of them has ended.
    Busy,
    /// Run this, then ask again. Several may run at the same time.
    Plan(Plan),
}

/// The next step towards having every key of `bounds` in its final form. `before` is the next file
/// number at the time the request began: tables from then on are none of its business. With
/// `even_final` every older table is written anew, for a filter that may have something to say of it.
#[must_use]
pub fn pick_range(
    input: &PickInput<'_>,
    bounds: &KeyBounds,
    before: FileNumber,
    even_final: bool,
) -> RangePick {
    let options = input.shape.sanitized();
    let picker = Picker::new(input, &options);
    let runs: Vec<(usize, &Arc<Run>)> = input.version.runs_newest_first().collect();
    let mut busy = false;
    for (position, (level, run)) in runs.iter().enumerate() {
        for table in &run.tables[run.overlapping(bounds)] {
            let stays = !even_final && is_final(&picker, &runs, position, *level, table);
            if table.number >= before || stays {
                continue;
            }
            match plan_for(&picker, &runs[position..], table) {
                Some(plan) => return RangePick::Plan(plan),
                None => busy = true,
            }
        }
    }
    if busy {
        RangePick::Busy
    } else {
        RangePick::Done
    }
}

fn is_final(
    picker: &Picker<'_>,
    runs: &Stack<'_>,
    position: usize,
    level: usize,
    table: &TableMeta,
) -> bool {
    let older = runs[position + 1..].iter();
    let alone = older
        .into_iter()
        .all(|(_, run)| run.overlapping(&table.bounds).is_empty());
    let placed =
        picker.options.shape == CompactionShape::Tiered || level == picker.layout.last_level;
    let expired =
        table.expiring_entries > 0 && table.earliest_expiry_millis <= picker.input.now_millis;
    let improvable = table.largest_sequence > 0 || expired;
    alone && placed && !(improvable && table.largest_sequence <= picker.input.oldest_snapshot)
}

/// `None` where a running plan is in the way.
fn plan_for<'a>(picker: &Picker<'a>, stack: &Stack<'a>, table: &TableMeta) -> Option<Plan> {
    let (level, run) = *stack.first()?;
    let (oldest_level, oldest) = *stack.last()?;
    let tiered = picker.options.shape == CompactionShape::Tiered;
    if tiered && stack.len() > 1 {
        let into = OutputRun::Within(oldest.id);
        let plan = picker.merge_whole(stack, oldest_level, into, Reason::Requested)?;
        return Some(Plan {
            kind: PlanKind::Merge,
            ..plan
        });
    }
    let mut selection = Selection::connected(stack, table);
    if selection.bytes() > picker.options.max_merge_bytes {
        selection = Selection::downward(stack, 0, table);
    }
    if selection.touches(picker.input.busy) {
        return None;
    }
    let inputs = selection.into_inputs();
    let (output_level, output_run) = if tiered {
        (level, OutputRun::Within(run.id))
    } else {
        (picker.layout.last_level, OutputRun::Only)
    };
    Some(picker.plan(inputs, output_level, output_run, Reason::Requested, false))
}

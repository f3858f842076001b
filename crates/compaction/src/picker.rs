//! What to compact next: a pure function from a version to a plan.
//!
//! In order: what can be forgotten without being read; levels by how far they are over what their
//! shape allows; data that hides too much older data; tables whose garbage is worth clearing. The
//! first that yields a plan over tables nobody else is busy with wins.
//!
//! Invariants: every plan keeps the order of runs ([`Plan::check_order`]) and takes no busy table.
//! Every plan moves bytes down, or lessens runs, or clears garbage in place, so that picking and
//! applying always comes to an end: a settled version yields `None`. Called by db's scheduler.

use std::collections::HashSet;
use std::sync::Arc;

use esker_base::SequenceNumber;
use esker_base::filename::FileNumber;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_manifest::{Run, Version};

use crate::overlap::Selection;
use crate::plan::{OutputRun, Plan, PlanKind, PlanRun, Reason};
use crate::shape::{CompactionShape, Layout, ShapeOptions};

mod for_reads;
mod garbage;
mod levels;
mod requested;
mod values;

pub use for_reads::{MemtableSize, Relief, pick_for_reads};
pub use requested::{RangePick, pick_range};

/// The range tombstones of a table, for a picker that wants to know what they cover; `None` where
/// they cannot be had.
pub type TombstoneSource<'a> = dyn Fn(&Arc<TableMeta>) -> Option<FragmentedTombstones> + 'a;

/// What the picker decides by.
#[derive(Clone, Copy)]
pub struct PickInput<'a> {
    /// The version to be compacted.
    pub version: &'a Version,
    /// The shape it is to have.
    pub shape: &'a ShapeOptions,
    /// Inputs of plans that are running.
    pub busy: &'a HashSet<FileNumber>,
    /// The time by which records expire, milliseconds since 1970.
    pub now_millis: u64,
    /// The oldest sequence number that a snapshot reads at; [`MAX_SEQUENCE`] without snapshots.
    ///
    /// [`MAX_SEQUENCE`]: esker_base::internal_key::MAX_SEQUENCE
    pub oldest_snapshot: SequenceNumber,
    /// Asked only for tables that have range tombstones. Without it their reach is guessed.
    pub tombstones: Option<&'a TombstoneSource<'a>>,
}

impl std::fmt::Debug for PickInput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PickInput")
            .field("shape", &self.shape)
            .field("tables", &self.version.table_count())
            .field("busy", &self.busy.len())
            .finish_non_exhaustive()
    }
}

/// What to do next with this version; `None` where nothing is due, or what is due is busy.
#[must_use]
pub fn pick(input: &PickInput<'_>) -> Option<Plan> {
    let options = input.shape.sanitized();
    let picker = Picker::new(input, &options);
    garbage::pick_droppable(&picker)
        .or_else(|| picker.pick_by_score())
        .or_else(|| picker.pick_overwritten())
        .or_else(|| garbage::pick_garbage(&picker))
        .or_else(|| values::pick_emptied(&picker))
}

/// About how many bytes compactions still have to write until the shape is kept: what is over in
/// each level, and what that drags along below.
#[must_use]
pub fn debt_bytes(version: &Version, shape: &ShapeOptions) -> u64 {
    let options = shape.sanitized();
    let level_bytes = level_bytes(version);
    let layout = options.layout(&level_bytes);
    let bytes = |level: usize| level_bytes.get(level).copied().unwrap_or(0);
    let mut debt = 0;
    let mut handed_down = 0;
    for (level, runs) in version.levels.iter().enumerate() {
        let full = !layout.is_sorted(level) && runs.runs.len() >= runs_allowed(&options, level);
        let held = bytes(level) + handed_down;
        let over = if full {
            held
        } else {
            held.saturating_sub(layout.target_bytes[level])
        };
        handed_down = 0;
        if over > 0 && level < layout.last_level {
            let next = next_level(&layout, level);
            let dragged = match bytes(next) {
                below if layout.is_sorted(next) && held > 0 => {
                    (u128::from(below) * u128::from(over) / u128::from(held)) as u64
                }
                _ => 0,
            };
            debt += over + dragged;
            if next == level + 1 {
                handed_down = over;
            }
        }
    }
    debt
}

fn level_bytes(version: &Version) -> Vec<u64> {
    version
        .levels
        .iter()
        .map(esker_manifest::Level::bytes)
        .collect()
}

fn runs_allowed(options: &ShapeOptions, level: usize) -> usize {
    if level == 0 {
        options.level0_runs
    } else {
        options.tier_runs
    }
}

fn next_level(layout: &Layout, level: usize) -> usize {
    if level == 0 {
        layout.base_level
    } else {
        (level + 1).min(layout.last_level)
    }
}

/// The input with what is derived from it.
struct Picker<'a> {
    input: &'a PickInput<'a>,
    version: &'a Version,
    options: &'a ShapeOptions,
    layout: Layout,
}

impl<'a> Picker<'a> {
    fn new(input: &'a PickInput<'a>, options: &'a ShapeOptions) -> Self {
        let version = input.version;
        let layout = options.layout(&level_bytes(version));
        Self {
            input,
            version,
            options,
            layout,
        }
    }

    fn is_busy(&self, table: &TableMeta) -> bool {
        self.input.busy.contains(&table.number)
    }

    fn runs(&self, level: usize) -> &'a [Arc<Run>] {
        self.version
            .levels
            .get(level)
            .map_or(&[], |level| &level.runs)
    }

    /// Runs of a level that no running plan will take away, and their free bytes.
    fn free(&self, level: usize) -> (usize, u64) {
        let (mut runs, mut bytes) = (0, 0);
        for run in self.runs(level) {
            let free = run.tables.iter().filter(|table| !self.is_busy(table));
            let run_bytes: u64 = free.map(|table| table.file_bytes.max(1)).sum();
            runs += usize::from(run_bytes > 0);
            bytes += run_bytes;
        }
        (runs, bytes)
    }

    /// Merges downwards while the tables that overlap something older outweigh those that do not:
    /// then most of what they overlap is presumably overwritten.
    fn pick_overwritten(&self) -> Option<Plan> {
        self.pick_heavy(&|table| table.file_bytes, self.options.space_amplification)
            .or_else(|| {
                // Merging pointers costs little, and frees what is large.
                let ratio = self.options.value_garbage_ratio;
                let has_values = !self.version.values.tables.is_empty();
                has_values.then(|| self.pick_heavy(&values::needed_bytes, ratio))?
            })
    }

    /// As [`Picker::pick_overwritten`], with tables as heavy as `weight` says and as much above as
    /// `amplification` allows.
    fn pick_heavy(&self, weight: &dyn Fn(&TableMeta) -> u64, amplification: f64) -> Option<Plan> {
        let weight_of = |run: &Run| -> u64 { run.tables.iter().map(|table| weight(table)).sum() };
        let runs: Vec<_> = self.version.runs_newest_first().collect();
        let (oldest_level, oldest) = *runs.last()?;
        let allowed = |ground: u64| ground as f64 * amplification;
        let all: u64 = runs.iter().map(|(_, run)| weight_of(run)).sum();
        let oldest_weight = weight_of(oldest);
        // The oldest run overlaps nothing older: mostly this settles it without looking further.
        if all - oldest_weight <= allowed(oldest_weight) as u64 {
            return None;
        }
        let mut above = vec![0_u64; self.version.levels.len()];
        for (position, (level, run)) in runs.iter().enumerate() {
            let older = &runs[position + 1..];
            for table in &run.tables {
                if older
                    .iter()
                    .any(|(_, run)| !run.overlapping(&table.bounds).is_empty())
                {
                    above[*level] += weight(table);
                }
            }
        }
        let total: u64 = above.iter().sum();
        if total as f64 <= allowed(all - total) {
            return None;
        }
        if self.options.shape == CompactionShape::Tiered {
            let into = OutputRun::Within(oldest.id);
            return self.merge_whole(&runs, oldest_level, into, Reason::Overwritten);
        }
        let mut levels: Vec<usize> = (0..above.len()).filter(|level| above[*level] > 0).collect();
        levels.sort_by_key(|level| std::cmp::Reverse(above[*level]));
        levels
            .into_iter()
            .find_map(|level| self.push_level(level, Reason::Overwritten))
    }

    /// Whether the selection can go down as it is.
    fn is_movable(&self, selection: &Selection<'a>, level: usize, next: usize) -> bool {
        selection.bytes_in(next) == 0
            && selection.is_disjoint()
            && self.keeps_compression(level, next)
    }

    /// Whether tables of one level may stand in the other without being rewritten.
    fn keeps_compression(&self, from: usize, to: usize) -> bool {
        let boundary = self.options.recompress_from_level;
        boundary == 0 || from == to || from >= boundary || to < boundary
    }

    fn plan(
        &self,
        inputs: Vec<PlanRun>,
        output_level: usize,
        output_run: OutputRun,
        reason: Reason,
        movable: bool,
    ) -> Plan {
        let kind = if movable {
            PlanKind::TrivialMove
        } else {
            PlanKind::Merge
        };
        let mut plan = Plan {
            reason,
            kind,
            inputs,
            output_level,
            output_run,
            bottommost: false,
        };
        plan.bottommost = self.nothing_below(&plan);
        debug_assert!(
            plan.check_order(self.version).is_ok(),
            "{:?}",
            plan.check_order(self.version)
        );
        plan
    }

    fn nothing_below(&self, plan: &Plan) -> bool {
        let inputs: HashSet<FileNumber> = plan.files().collect();
        let Some(hull) = plan.hull() else { return true };
        let others = |run: &Arc<Run>| {
            run.tables[run.overlapping(&hull)]
                .iter()
                .any(|table| !inputs.contains(&table.number))
        };
        !plan.runs_below(self.version).any(others)
    }
}

#[cfg(test)]
mod tests;

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

use crate::overlap::{Selection, Stack, disjoint};
use crate::plan::{OutputRun, Plan, PlanKind, PlanRun, Reason};
use crate::shape::{CompactionShape, Layout, ShapeOptions};

mod garbage;
mod requested;

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

    /// Levels that hold more than they should, the furthest over first.
    fn pick_by_score(&self) -> Option<Plan> {
        let mut scores: Vec<(f64, usize, Reason)> = (0..self.version.levels.len())
            .map(|level| {
                let (score, reason) = self.score(level);
                (score, level, reason)
            })
            .filter(|(score, ..)| *score >= 1.0)
            .collect();
        // Of equals the upper level first: readers ask it first.
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scores
            .into_iter()
            .find_map(|(_, level, reason)| match reason {
                Reason::Reshape => self.reshape(level),
                reason => self.push_level(level, reason),
            })
    }

    /// How full a level is: 1 and more is due.
    fn score(&self, level: usize) -> (f64, Reason) {
        if self.layout.is_sorted(level) && self.runs(level).len() > 1 {
            return (f64::INFINITY, Reason::Reshape);
        }
        let (runs, bytes) = self.free(level);
        let by_runs = if self.layout.is_sorted(level) {
            0.0
        } else {
            runs as f64 / runs_allowed(self.options, level) as f64
        };
        let target = self.layout.target_bytes[level];
        let by_bytes = match level {
            0 => 0.0,
            _ if level == self.layout.last_level || bytes <= target => 0.0,
            _ => bytes as f64 / target.max(1) as f64,
        };
        // The deepest tier has nowhere to go; merging a single run into itself gains nothing.
        if level == self.layout.last_level && runs < 2 {
            return (0.0, Reason::Runs);
        }
        if by_bytes > by_runs {
            (by_bytes, Reason::Size)
        } else {
            (by_runs, Reason::Runs)
        }
    }

    /// Makes one run of a sorted level that another shape has left several in.
    fn reshape(&self, level: usize) -> Option<Plan> {
        let runs: Vec<_> = self.runs(level).iter().map(|run| (level, run)).collect();
        self.merge_whole(
            &runs,
            level,
            OutputRun::Within(runs.first()?.1.id),
            Reason::Reshape,
        )
    }

    /// Moves a part of a level, or all of it, one level down.
    fn push_level(&self, level: usize, reason: Reason) -> Option<Plan> {
        let next = next_level(&self.layout, level);
        let runs: Vec<_> = self.runs(level).iter().map(|run| (level, run)).collect();
        if level == next {
            return self.merge_whole(&runs, level, OutputRun::Within(runs.first()?.1.id), reason);
        }
        if !self.layout.is_sorted(next) {
            return self.merge_whole(&runs, next, OutputRun::Newest, reason);
        }
        if self.layout.is_sorted(level) {
            self.push_table_of_sorted(level, next, reason)
        } else {
            self.push_part_of_tier(level, next, reason)
        }
    }

    /// Merges whole runs, which no running plan may touch: the output is one run.
    fn merge_whole(
        &self,
        runs: &Stack<'a>,
        output_level: usize,
        output_run: OutputRun,
        reason: Reason,
    ) -> Option<Plan> {
        let tables = || runs.iter().flat_map(|(_, run)| &run.tables);
        if runs.is_empty() || tables().any(|table| self.is_busy(table)) {
            return None;
        }
        let inputs = runs
            .iter()
            .map(|(level, run)| PlanRun {
                level: *level,
                run_id: run.id,
                tables: run.tables.clone(),
            })
            .collect();
        let source_level = runs.first()?.0;
        let movable = disjoint(tables()) && self.keeps_compression(source_level, output_level);
        Some(self.plan(inputs, output_level, output_run, reason, movable))
    }

    /// The best part of a tier to merge into the sorted level below: parts that overlap nothing
    /// there move as they are, otherwise the one that brings most bytes for what it rewrites.
    /// Every part holds a table of the tier's oldest run, so that runs do go away.
    fn push_part_of_tier(&self, level: usize, next: usize, reason: Reason) -> Option<Plan> {
        let is_free = |table: &&Arc<TableMeta>| !self.is_busy(table);
        let oldest = self
            .runs(level)
            .iter()
            .rev()
            .find(|run| run.tables.iter().any(|t| is_free(&t)))?;
        let mut movable: Vec<PlanRun> = Vec::new();
        let mut best: Option<(f64, Selection<'a>)> = None;
        let mut covered: Option<Selection<'a>> = None;
        for seed in oldest.tables.iter().filter(is_free) {
            let seen = |covered: &Selection<'a>| covered.bounds.overlaps(&seed.bounds);
            if covered.as_ref().is_some_and(seen) {
                continue;
            }
            let selection = self.part_of_tier(level, next, seed)?;
            covered = Some(selection.clone());
            if selection.touches(self.input.busy) {
                continue;
            }
            let source = selection.bytes_in(level);
            if self.is_movable(&selection, level, next) {
                merge_inputs(&mut movable, selection.into_inputs());
                continue;
            }
            let gain = source as f64 / selection.bytes().max(1) as f64;
            if best.as_ref().is_none_or(|(most, _)| gain > *most) {
                best = Some((gain, selection));
            }
        }
        if !movable.is_empty() {
            return Some(self.plan(movable, next, OutputRun::Only, reason, true));
        }
        let (_, selection) = best?;
        Some(self.plan(
            selection.into_inputs(),
            next,
            OutputRun::Only,
            reason,
            false,
        ))
    }

    /// What must go down with `seed`, a table of a tier, as much as one merge should take;
    /// `None` while the level below waits to be reshaped.
    fn part_of_tier(&self, level: usize, next: usize, seed: &TableMeta) -> Option<Selection<'a>> {
        if self.runs(next).len() > 1 {
            return None;
        }
        let upper = self.runs(level).iter().map(|run| (level, run));
        let stack: Vec<_> = upper
            .chain(self.runs(next).iter().map(|run| (next, run)))
            .collect();
        let position = stack.iter().position(|(_, run)| {
            run.find(&seed.bounds.smallest)
                .is_some_and(|at| run.tables[at].number == seed.number)
        })?;
        let limit = self.options.max_merge_bytes;
        let mut selection = Selection::connected(&stack, seed);
        if selection.bytes() > limit && !self.runs(next).is_empty() {
            selection = Selection::connected_above(&stack, seed);
        }
        if selection.bytes() > limit {
            selection = Selection::downward(&stack, position, seed);
        }
        Some(selection)
    }

    /// The table of a sorted level that costs least for what it brings, and what overlaps below.
    fn push_table_of_sorted(&self, level: usize, next: usize, reason: Reason) -> Option<Plan> {
        let run = self.runs(level).first()?;
        let mut best: Option<(f64, Selection<'a>)> = None;
        for seed in &run.tables {
            let Some(selection) = self.part_of_sorted(level, next, seed) else {
                continue;
            };
            let cost = selection.bytes_in(next) as f64
                / (seed.file_bytes as f64 * (1.0 + garbage::share(seed, self.input.now_millis)))
                    .max(1.0);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, selection));
            }
        }
        let (_, selection) = best?;
        Some(self.plan_part(selection, level, next, reason))
    }

    fn plan_part(
        &self,
        mut selection: Selection<'a>,
        level: usize,
        next: usize,
        reason: Reason,
    ) -> Plan {
        let movable = self.is_movable(&selection, level, next);
        if !movable && self.layout.is_sorted(level) {
            selection.fill_first_run(self.input.busy);
        }
        self.plan(
            selection.into_inputs(),
            next,
            OutputRun::Only,
            reason,
            movable,
        )
    }

    /// `seed`, a table of a sorted level, and what overlaps below; `None` where any of it is busy.
    fn part_of_sorted(&self, level: usize, next: usize, seed: &TableMeta) -> Option<Selection<'a>> {
        if self.runs(level).len() != 1 || self.runs(next).len() > 1 {
            return None;
        }
        let upper = self.runs(level).iter().map(|run| (level, run));
        let stack: Vec<_> = upper
            .chain(self.runs(next).iter().map(|run| (next, run)))
            .collect();
        let selection = Selection::downward(&stack, 0, seed);
        (!selection.touches(self.input.busy)).then_some(selection)
    }

    /// Merges downwards while the tables that overlap something older outweigh those that do not:
    /// then most of what they overlap is presumably overwritten.
    fn pick_overwritten(&self) -> Option<Plan> {
        let runs: Vec<_> = self.version.runs_newest_first().collect();
        let (oldest_level, oldest) = *runs.last()?;
        let allowed = |ground: u64| ground as f64 * self.options.space_amplification;
        // The oldest run overlaps nothing older: mostly this settles it without looking further.
        if self.version.total_bytes() - oldest.bytes() <= allowed(oldest.bytes()) as u64 {
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
                    above[*level] += table.file_bytes;
                }
            }
        }
        let total: u64 = above.iter().sum();
        if total as f64 <= allowed(self.version.total_bytes() - total) {
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

/// Adds the tables of `more` to those of the same runs in `inputs`.
fn merge_inputs(inputs: &mut Vec<PlanRun>, more: Vec<PlanRun>) {
    for part in more {
        match inputs.iter_mut().find(|run| run.run_id == part.run_id) {
            Some(run) => {
                run.tables.extend(part.tables);
                run.tables
                    .sort_by(|a, b| a.bounds.smallest.cmp(&b.bounds.smallest));
            }
            None => inputs.push(part),
        }
    }
}

#[cfg(test)]
mod tests;

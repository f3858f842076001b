//! Levels and tiers that hold more than their shape allows: which one first, and which part of it.
//!
//! Invariant: a tier whose next level is a tier goes down whole, so that its output is one run. What
//! goes into a sorted level goes in parts, each a [`Selection`] closed under overlap, so that the
//! space taken while it is merged is that of a part, and parts can be merged at the same time.

use std::sync::Arc;

use esker_base::table_meta::TableMeta;

use super::{Picker, garbage, next_level, runs_allowed};
use crate::overlap::{Selection, Stack, disjoint};
use crate::plan::{OutputRun, Plan, PlanRun, Reason};

impl<'a> Picker<'a> {
    /// Levels that hold more than they should, the furthest over first.
    pub(super) fn pick_by_score(&self) -> Option<Plan> {
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
    pub(super) fn score(&self, level: usize) -> (f64, Reason) {
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
    pub(super) fn reshape(&self, level: usize) -> Option<Plan> {
        let runs: Vec<_> = self.runs(level).iter().map(|run| (level, run)).collect();
        self.merge_whole(
            &runs,
            level,
            OutputRun::Within(runs.first()?.1.id),
            Reason::Reshape,
        )
    }

    /// Moves a part of a level, or all of it, one level down.
    pub(super) fn push_level(&self, level: usize, reason: Reason) -> Option<Plan> {
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
    pub(super) fn merge_whole(
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
    pub(super) fn push_part_of_tier(
        &self,
        level: usize,
        next: usize,
        reason: Reason,
    ) -> Option<Plan> {
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
            let age = |part: &PlanRun| {
                self.runs(level)
                    .iter()
                    .position(|run| run.id == part.run_id)
            };
            movable.sort_by_key(age);
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
    pub(super) fn part_of_tier(
        &self,
        level: usize,
        next: usize,
        seed: &TableMeta,
    ) -> Option<Selection<'a>> {
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
        let limit = self.merge_limit(level);
        let mut selection = Selection::connected(&stack, seed);
        if selection.bytes() > limit && !self.runs(next).is_empty() {
            selection = Selection::connected_above(&stack, seed);
        }
        if selection.bytes() > limit {
            selection = Selection::downward(&stack, position, seed);
        }
        Some(selection)
    }

    /// About how many bytes a merge out of `level` takes at most. Level 0 overlaps everything, and
    /// taking it piece by piece would rewrite what lies below as often: what it holds in the
    /// ordinary course of things, and what that meets in a last level without tiers, goes as one.
    fn merge_limit(&self, level: usize) -> u64 {
        let ordinary = self
            .options
            .base_bytes
            .saturating_mul(self.options.tier_runs as u64 + 2);
        let limit = self.options.max_merge_bytes;
        if level == 0 {
            limit.max(ordinary)
        } else {
            limit
        }
    }

    /// The table of a sorted level that costs least for what it brings, and what overlaps below.
    pub(super) fn push_table_of_sorted(
        &self,
        level: usize,
        next: usize,
        reason: Reason,
    ) -> Option<Plan> {
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

    pub(super) fn plan_part(
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
    pub(super) fn part_of_sorted(
        &self,
        level: usize,
        next: usize,
        seed: &TableMeta,
    ) -> Option<Selection<'a>> {
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

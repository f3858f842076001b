//! What to merge for the sake of reads alone: a pure function of the version and of what reads have lost.
//!
//! A reader asks every memtable and run that may hold its key. After a burst of writes some are left that no
//! rule of the tree's shape merges, and while nobody writes every read pays for them. Whoever reads counts
//! what it loses, in bytes that could have been merged in that time; as soon as a merge would cost less than
//! was lost, it is made. So reads lose at most about twice what somebody would who had known how many come
//! (the argument of renting skis).
//!
//! Invariants: a plan from here lessens the runs, so that asking again comes to an end; its oldest input is
//! at most `tier_runs` times as large as all newer ones together, so that however much is read, a byte is
//! written for reads about that many times at most before it lies below. Called by db's `read_toll`.

use super::{PickInput, Picker};
use crate::plan::{OutputRun, Plan, PlanKind, Reason};

/// The active memtable, as the decision sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemtableSize {
    /// What it takes, bytes.
    pub bytes: u64,
    /// The size at which it would be sealed anyhow, bytes.
    pub full_bytes: u64,
    /// What scans have lost to it beside that it is one more source: to keys with many records, of which a flush
    /// keeps one.
    pub searched_bytes: u64,
}

/// What is to be done for reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relief {
    /// Flush the active memtable.
    Flush,
    /// Carry this plan out.
    Merge(Plan),
    /// Nothing before reads have lost so many bytes.
    At(u64),
    /// Nothing while memtable and version are as they are.
    Nothing,
}

/// What reads that have lost `lost_bytes` since the version last changed have earned.
#[must_use]
pub fn pick_for_reads(input: &PickInput<'_>, memtable: MemtableSize, lost_bytes: u64) -> Relief {
    let options = input.shape.sanitized();
    let picker = Picker::new(input, &options);
    let flush_cost = picker.flush_for_reads(memtable, lost_bytes);
    if flush_cost.is_some_and(|cost| cost <= lost_bytes) {
        return Relief::Flush;
    }
    let mut least = flush_cost;
    for level in 0..input.version.levels.len() {
        let Some(plan) = picker.merge_for_reads(level) else {
            continue;
        };
        let cost = match plan.kind {
            PlanKind::Merge => plan.input_bytes(),
            PlanKind::TrivialMove | PlanKind::Drop => 0,
        };
        if cost <= lost_bytes {
            return Relief::Merge(plan);
        }
        least = Some(least.map_or(cost, |least| least.min(cost)));
    }
    least.map_or(Relief::Nothing, Relief::At)
}

impl Picker<'_> {
    /// At which loss the memtable is to be flushed, if at any: that of what a flush costs, where it is worth a
    /// run. Small ones are cheap to ask, and small runs would have level 0 merged before it holds much: they stay,
    /// and so does what would fill level 0 although it is less than a usual flush. But one that has many records of
    /// few keys is not cheap to ask, however small it is: scans of it pay for the least that is worth a run.
    fn flush_for_reads(&self, memtable: MemtableSize, lost_bytes: u64) -> Option<u64> {
        let fills_level0 = self.runs(0).len() + 1 >= self.options.level0_runs;
        let least = memtable.full_bytes / if fills_level0 { 4 } else { 16 };
        // Tables are about half as large: they are compressed, and their indexes are smaller.
        let cost = memtable.bytes / 2;
        if memtable.bytes == 0 {
            None
        } else if memtable.bytes >= least {
            Some(cost)
        } else if memtable.searched_bytes > 0 {
            let missing = cost.max(least).saturating_sub(memtable.searched_bytes);
            Some(lost_bytes + missing)
        } else {
            None
        }
    }

    /// What lessens the runs at and below `level`: the level with what it meets in the next one, or else
    /// its newest runs among themselves.
    fn merge_for_reads(&self, level: usize) -> Option<Plan> {
        let is_due = |plan: &Plan| self.lessens_runs(plan) && self.is_balanced(plan);
        if level < self.layout.last_level
            && let Some(plan) = self.push_level(level, Reason::Reads).filter(is_due)
        {
            return Some(plan);
        }
        if self.layout.is_sorted(level) {
            return None;
        }
        let runs: Vec<_> = self.runs(level).iter().map(|run| (level, run)).collect();
        (2..=runs.len()).rev().find_map(|count| {
            let newest = &runs[..count];
            let into = OutputRun::Within(newest[count - 1].1.id);
            let plan = self.merge_whole(newest, level, into, Reason::Reads);
            plan.filter(is_due)
        })
    }

    /// Whether fewer runs are left than there are.
    fn lessens_runs(&self, plan: &Plan) -> bool {
        let wholly = |level: usize, id: u64| {
            let mut parts = plan.inputs.iter().filter(|part| part.level == level);
            parts.any(|part| {
                let mut runs = self.runs(level).iter().filter(|run| run.id == part.run_id);
                part.run_id == id && runs.any(|run| run.tables.len() == part.tables.len())
            })
        };
        let gone = plan
            .inputs
            .iter()
            .filter(|part| wholly(part.level, part.run_id));
        let into = match plan.output_run {
            OutputRun::Newest => None,
            OutputRun::Within(id) => Some(id),
            OutputRun::Only => self.runs(plan.output_level).first().map(|run| run.id),
        };
        // The output is a run more, unless it goes into one of which something is left.
        let joins = into.is_some_and(|id| !wholly(plan.output_level, id));
        gone.count() > usize::from(!joins)
    }

    /// Whether what is rewritten is not much more than what that brings down.
    fn is_balanced(&self, plan: &Plan) -> bool {
        let oldest = plan.inputs.last().map_or(0, |part| {
            part.tables
                .iter()
                .map(|table| table.file_bytes)
                .sum::<u64>()
        });
        let newer = plan.input_bytes() - oldest;
        let most = newer.saturating_mul(self.options.tier_runs as u64);
        plan.kind != PlanKind::Merge || oldest <= most
    }
}

#[cfg(test)]
mod tests;

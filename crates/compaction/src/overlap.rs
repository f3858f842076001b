//! Which tables must travel together: closures of overlap over a stack of runs.
//!
//! Invariant: a [`Stack`]'s selection is closed downwards: with a table, it holds every table of a
//! lower run of the stack that overlaps the table. That is what keeps newer data above older
//! ([`Plan::check_order`](crate::plan::Plan::check_order)). A selection covers one interval of
//! keys without a gap, so that outputs never reach over somebody else's table. Pure; called by the
//! picker.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_manifest::Run;

use crate::plan::PlanRun;

/// Runs with their levels, newest first: the runs that a merge may take tables from.
pub(crate) type Stack<'v> = [(usize, &'v Arc<Run>)];

/// Tables of a stack of runs that must be merged together.
#[derive(Clone, Debug)]
pub(crate) struct Selection<'v> {
    pub(crate) bounds: KeyBounds,
    parts: Vec<(usize, &'v Arc<Run>, Range<usize>)>,
}

impl<'v> Selection<'v> {
    /// `seed`, a table of the stack's run `position`, and downwards what overlaps.
    pub(crate) fn downward(stack: &Stack<'v>, position: usize, seed: &TableMeta) -> Self {
        let mut bounds = seed.bounds.clone();
        let parts = stack[position..]
            .iter()
            .map(|(level, run)| {
                let range = run.overlapping(&bounds);
                widen(&mut bounds, run, &range);
                (*level, *run, range)
            })
            .collect();
        Self { bounds, parts }
    }

    /// All tables that overlap directly or by way of others, in any run of the stack.
    pub(crate) fn connected(stack: &Stack<'v>, seed: &TableMeta) -> Self {
        let mut bounds = seed.bounds.clone();
        let mut counted = 0;
        loop {
            let mut tables = 0;
            let mut parts = Vec::with_capacity(stack.len());
            for (level, run) in stack {
                let range = run.overlapping(&bounds);
                widen(&mut bounds, run, &range);
                tables += range.len();
                parts.push((*level, *run, range));
            }
            // A round that found no further table has seen the final bounds in every run.
            if tables == counted {
                return Self { bounds, parts };
            }
            counted = tables;
        }
    }

    /// As [`Selection::connected`] over the upper runs, and what overlaps that in the lowest.
    pub(crate) fn connected_above(stack: &Stack<'v>, seed: &TableMeta) -> Self {
        let Some(((level, lowest), upper)) = stack.split_last() else {
            return Self::connected(stack, seed);
        };
        let mut selection = Self::connected(upper, seed);
        let range = lowest.overlapping(&selection.bounds);
        widen(&mut selection.bounds, lowest, &range);
        selection.parts.push((*level, *lowest, range));
        selection
    }

    /// Adds the other tables of the first part's run that lie within the bounds: they overlap
    /// nothing below that is not selected already.
    pub(crate) fn fill_first_run(&mut self, busy: &HashSet<FileNumber>) {
        let Some((_, run, range)) = self.parts.first_mut() else {
            return;
        };
        let fits = |table: &TableMeta| {
            !busy.contains(&table.number)
                && table.bounds.smallest >= self.bounds.smallest
                && !self.bounds.end_is_less(&table.bounds)
        };
        while range.start > 0 && fits(&run.tables[range.start - 1]) {
            range.start -= 1;
        }
        while range.end < run.tables.len() && fits(&run.tables[range.end]) {
            range.end += 1;
        }
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &'v Arc<TableMeta>)> + '_ {
        self.parts.iter().flat_map(|(level, run, range)| {
            run.tables[range.clone()]
                .iter()
                .map(move |table| (*level, table))
        })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tables().map(|(_, table)| table.file_bytes).sum()
    }

    /// Bytes of the tables that lie in `level`.
    pub(crate) fn bytes_in(&self, level: usize) -> u64 {
        self.tables()
            .filter(|(at, _)| *at == level)
            .map(|(_, table)| table.file_bytes)
            .sum()
    }

    pub(crate) fn touches(&self, busy: &HashSet<FileNumber>) -> bool {
        self.tables().any(|(_, table)| busy.contains(&table.number))
    }

    /// Whether no two of the tables share a key.
    pub(crate) fn is_disjoint(&self) -> bool {
        disjoint(self.tables().map(|(_, table)| table))
    }

    pub(crate) fn into_inputs(self) -> Vec<PlanRun> {
        self.parts
            .into_iter()
            .filter(|(_, _, range)| !range.is_empty())
            .map(|(level, run, range)| PlanRun {
                level,
                run_id: run.id,
                tables: run.tables[range].to_vec(),
            })
            .collect()
    }
}

fn widen(bounds: &mut KeyBounds, run: &Run, range: &Range<usize>) {
    let tables = &run.tables[range.clone()];
    if let (Some(first), Some(last)) = (tables.first(), tables.last()) {
        bounds.extend(&first.bounds);
        bounds.extend(&last.bounds);
    }
}

/// Whether no two of `tables` share a key, so that they could stand in one run as they are.
pub(crate) fn disjoint<'t>(tables: impl Iterator<Item = &'t Arc<TableMeta>>) -> bool {
    let mut sorted: Vec<_> = tables.collect();
    sorted.sort_by(|a, b| a.bounds.smallest.cmp(&b.bounds.smallest));
    sorted
        .windows(2)
        .all(|pair| pair[0].bounds.ends_before(&pair[1].bounds.smallest))
}

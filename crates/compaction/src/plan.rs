//! A plan: which tables become which, decided before anything is read.
//!
//! Invariant (the order of runs): for every key, a run is newer than the runs after it. A plan
//! keeps that if each table which it leaves where it is, and which shares keys with an input, is
//! on the same side of the output as it is of that input: what is older than an input stays older
//! than the output, what is newer stays newer. [`Plan::check_order`] is that sentence as code. The
//! picker promises it for every plan, the job checks it again before it reads a byte.
//!
//! Plans that share no table may run at the same time: a plan holds everything below its inputs
//! that overlaps them down to its output, so no other plan can get in between.

use std::collections::HashSet;
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result};
use esker_manifest::{AddedTable, KeyspaceEdit, Run, RunPlacement, Version};

/// Why a plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Every record of the tables has expired.
    Expired,
    /// Range tombstones hide every record of the tables.
    Covered,
    /// A sorted level holds several runs, left there by another shape.
    Reshape,
    /// A tier holds as many runs as it may.
    Runs,
    /// A level holds more bytes than it should.
    Size,
    /// Too many bytes lie above those that they replace.
    Overwritten,
    /// Tombstones and expired records are worth clearing away.
    Garbage,
    /// What is still needed of a value table leaves it, so that it can go.
    Values,
    /// Somebody asked for the range to be compacted.
    Requested,
    /// Reads have lost more to its runs than it costs to merge them.
    Reads,
}

/// What is to be done with the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlanKind {
    /// Read, merge and write them.
    Merge,
    /// Give them another place; nothing is read.
    TrivialMove,
    /// Forget them; nothing is read.
    Drop,
}

/// Where in its level the output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputRun {
    /// Into the one run of a sorted level, or as that run where the level is empty.
    Only,
    /// As a run newer than all others of the level.
    Newest,
    /// Into the run of this id, some or all of whose tables are inputs.
    Within(u64),
}

/// Some tables of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRun {
    /// The run's level.
    pub level: usize,
    /// The run.
    pub run_id: u64,
    /// Ascending; never empty.
    pub tables: Vec<Arc<TableMeta>>,
}

/// Which tables become which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Why.
    pub reason: Reason,
    /// What is to be done.
    pub kind: PlanKind,
    /// The tables consumed, newest run first.
    pub inputs: Vec<PlanRun>,
    /// The level of the output. Meaningless for [`PlanKind::Drop`].
    pub output_level: usize,
    /// Its place there.
    pub output_run: OutputRun,
    /// Whether nothing older than the output overlaps the inputs, so that tombstones may vanish.
    pub bottommost: bool,
}

impl Plan {
    /// The input tables.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.inputs.iter().flat_map(|run| &run.tables)
    }

    /// The numbers of the input tables: what is busy while the plan runs.
    pub fn files(&self) -> impl Iterator<Item = FileNumber> + '_ {
        self.tables().map(|table| table.number)
    }

    /// Bytes of all inputs.
    #[must_use]
    pub fn input_bytes(&self) -> u64 {
        self.tables().map(|table| table.file_bytes).sum()
    }

    /// Where the output belongs in `current`, the version that the edit will be applied to. Ask
    /// while holding whatever keeps other edits of the keyspace away: plans that ran at the same
    /// time may have filled or emptied the output's level since this one was made.
    #[must_use]
    pub fn placement(&self, current: &Version) -> RunPlacement {
        match self.output_run {
            OutputRun::Newest => RunPlacement::New,
            OutputRun::Within(run_id) => RunPlacement::Existing(run_id),
            OutputRun::Only => current
                .levels
                .get(self.output_level)
                .and_then(|level| level.runs.first())
                .map_or(RunPlacement::New, |run| RunPlacement::Existing(run.id)),
        }
    }

    /// The edit that replaces the inputs by `outputs`. As [`Plan::placement`] for `current`.
    #[must_use]
    pub fn edit(&self, current: &Version, outputs: &[Arc<TableMeta>]) -> KeyspaceEdit {
        let run = self.placement(current);
        let add = |meta: &Arc<TableMeta>| AddedTable {
            level: self.output_level,
            run,
            meta: Arc::clone(meta),
        };
        KeyspaceEdit {
            removed: self.files().collect(),
            added: outputs.iter().map(add).collect(),
            ..KeyspaceEdit::default()
        }
    }

    /// The edit of a plan that needs no job ([`PlanKind::TrivialMove`], [`PlanKind::Drop`]); `None`
    /// for a merge. As [`Plan::placement`] for `current`.
    #[must_use]
    pub fn edit_without_job(&self, current: &Version) -> Option<KeyspaceEdit> {
        match self.kind {
            PlanKind::Merge => None,
            PlanKind::Drop => Some(self.edit(current, &[])),
            PlanKind::TrivialMove => {
                let tables: Vec<_> = self.tables().cloned().collect();
                Some(self.edit(current, &tables))
            }
        }
    }

    /// The runs of `version` that are older than the output. Inputs may be among their tables.
    pub fn runs_below<'v>(&self, version: &'v Version) -> impl Iterator<Item = &'v Arc<Run>> {
        let place = self.output_place(version);
        version
            .runs_newest_first()
            .enumerate()
            .filter(move |(position, _)| 2 * position + 1 > place)
            .map(|(_, (_, run))| run)
    }

    /// Where the output stands among the runs of `version`, newest first: run `n` stands at
    /// `2 n + 1`, a new run between its neighbours.
    fn output_place(&self, version: &Version) -> usize {
        let above: usize = version
            .levels
            .iter()
            .take(self.output_level)
            .map(|level| level.runs.len())
            .sum();
        let runs = version
            .levels
            .get(self.output_level)
            .map_or(&[][..], |level| &level.runs);
        match self.output_run {
            OutputRun::Only if !runs.is_empty() => 2 * above + 1,
            OutputRun::Newest | OutputRun::Only => 2 * above,
            OutputRun::Within(run_id) => {
                let position = runs.iter().position(|run| run.id == run_id).unwrap_or(0);
                2 * (above + position) + 1
            }
        }
    }

    /// Checks that the plan keeps the order of runs, and that its output fits between the tables
    /// of its run.
    ///
    /// # Errors
    /// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) that names two tables which
    /// would change places.
    pub fn check_order(&self, version: &Version) -> Result<()> {
        if self.kind == PlanKind::Drop {
            return Ok(());
        }
        let inputs: HashSet<FileNumber> = self.files().collect();
        let output = self.output_place(version);
        let hull = self.hull();
        for (position, (_, run)) in version.runs_newest_first().enumerate() {
            let place = 2 * position + 1;
            for input in &run.tables {
                if !inputs.contains(&input.number) {
                    let crowded = place == output
                        && self.kind == PlanKind::Merge
                        && hull
                            .as_ref()
                            .is_some_and(|hull| hull.overlaps(&input.bounds));
                    if crowded {
                        return Err(changed_places(self, input, input));
                    }
                    continue;
                }
                for (other_position, (_, other)) in version.runs_newest_first().enumerate() {
                    let other_place = 2 * other_position + 1;
                    let kept = (other_place > output && other_position > position)
                        || (other_place < output && other_position < position)
                        || other_position == position;
                    let stays = |table: &&Arc<TableMeta>| !inputs.contains(&table.number);
                    let overlapping = &other.tables[other.overlapping(&input.bounds)];
                    if let Some(table) = overlapping.iter().find(stays)
                        && !kept
                    {
                        return Err(changed_places(self, input, table));
                    }
                }
            }
        }
        Ok(())
    }

    /// From the smallest key of any input to the largest.
    #[must_use]
    pub fn hull(&self) -> Option<KeyBounds> {
        self.tables()
            .map(|table| table.bounds.clone())
            .reduce(|mut hull, bounds| {
                hull.extend(&bounds);
                hull
            })
    }
}

fn changed_places(plan: &Plan, input: &TableMeta, table: &TableMeta) -> Error {
    Error::invalid_argument(format!(
        "a plan for level {} would make tables {} and {} change places",
        plan.output_level, input.number, table.number
    ))
}

//! One keyspace's tables at one moment: levels of runs of tables.
//!
//! Invariants (I7, held by [`Version::check_invariants`]): the tables of a run are disjoint and
//! ascend; runs are never empty; a run is newer than the runs after it in its level, and than all
//! runs of deeper levels, for every key they share; no table and no run appears twice. A version
//! never changes once it is shared. Pure data: planners, readers and the manifest all use it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::key_bounds::KeyBounds;
use esker_base::limits::{MAX_KEY_BYTES, MAX_LEVELS, VALUE_LEVEL};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result, SequenceNumber};

use crate::values::Values;

/// The tables of one keyspace. There is always a level 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The newest level first; at most [`MAX_LEVELS`].
    pub levels: Vec<Level>,
    /// The tables of values that pointers in the tables of the levels point to.
    pub values: Values,
}

/// The runs of one level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The newest run first.
    pub runs: Vec<Arc<Run>>,
}

/// Tables with disjoint keys, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The run's number, drawn from the same counter as file numbers.
    pub id: u64,
    /// Ascending by smallest key, and disjoint.
    pub tables: Vec<Arc<TableMeta>>,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            levels: vec![Level::default()],
            values: Values::default(),
        }
    }
}

impl Version {
    /// All runs with their levels, so that for any key the newer records come first.
    pub fn runs_newest_first(&self) -> impl DoubleEndedIterator<Item = (usize, &Arc<Run>)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, runs)| runs.runs.iter().map(move |run| (level, run)))
    }

    /// All tables: level, run and table. Tables of values come last, with [`VALUE_LEVEL`] in place of a
    /// level and their number in place of a run.
    pub fn tables(&self) -> impl Iterator<Item = (usize, u64, &Arc<TableMeta>)> {
        let values = self.values.tables.iter();
        self.runs_newest_first()
            .flat_map(|(level, run)| run.tables.iter().map(move |table| (level, run.id, table)))
            .chain(values.map(|table| (VALUE_LEVEL, table.number, table)))
    }

    /// Bytes of all tables of a level; 0 for one that is not there.
    #[must_use]
    pub fn level_bytes(&self, level: usize) -> u64 {
        self.levels.get(level).map_or(0, Level::bytes)
    }

    /// Bytes of all tables but those of values.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.levels.iter().map(Level::bytes).sum()
    }

    /// Number of tables, without those of values.
    #[must_use]
    pub fn table_count(&self) -> usize {
        self.runs_newest_first()
            .map(|(_, run)| run.tables.len())
            .sum()
    }

    /// Whether there is no table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.runs.is_empty())
    }

    /// The level and position of a run.
    #[must_use]
    pub fn find_run(&self, run_id: u64) -> Option<(usize, usize)> {
        self.levels.iter().enumerate().find_map(|(level, runs)| {
            runs.runs
                .iter()
                .position(|run| run.id == run_id)
                .map(|position| (level, position))
        })
    }

    /// Whether a run older than run `run_id` of `level` has a table that overlaps `bounds`. A
    /// `run_id` that is not in the level counts as newer than all of the level's runs.
    #[must_use]
    pub fn older_overlaps(&self, level: usize, run_id: u64, bounds: &KeyBounds) -> bool {
        let same = self.levels.get(level).map_or(&[][..], |level| &level.runs);
        let first_older = same
            .iter()
            .position(|run| run.id == run_id)
            .map_or(0, |at| at + 1);
        let deeper = self
            .levels
            .iter()
            .skip(level + 1)
            .flat_map(|level| &level.runs);
        same.iter()
            .skip(first_older)
            .chain(deeper)
            .any(|run| !run.overlapping(bounds).is_empty())
    }

    /// Checks everything that this module promises of a version.
    ///
    /// # Errors
    /// [`Corruption`](esker_base::ErrorKind::Corruption) that says what is broken.
    pub fn check_invariants(&self) -> Result<()> {
        if self.levels.is_empty() || self.levels.len() > MAX_LEVELS {
            return Err(Error::corruption(format!(
                "a version of {} levels",
                self.levels.len()
            )));
        }
        let mut runs = HashSet::new();
        let mut tables = HashSet::new();
        for (level, run) in self.runs_newest_first() {
            if run.tables.is_empty() || !runs.insert(run.id) {
                let message = format!("run {} of level {level} is empty or repeated", run.id);
                return Err(Error::corruption(message));
            }
            for table in &run.tables {
                check_table(table)?;
                if !tables.insert(table.number) {
                    return Err(Error::corruption(format!("table {} twice", table.number)));
                }
            }
            for pair in run.tables.windows(2) {
                if let [left, right] = pair
                    && !left.bounds.ends_before(&right.bounds.smallest)
                {
                    return Err(overlap(run.id, left, right));
                }
            }
        }
        for table in &self.values.tables {
            check_table(table)?;
            if !tables.insert(table.number) {
                return Err(Error::corruption(format!("table {} twice", table.number)));
            }
        }
        self.values.check(self)
    }
}

/// That two tables of a run share keys or stand in the wrong order.
pub(crate) fn overlap(run_id: u64, left: &TableMeta, right: &TableMeta) -> Error {
    let message = format!(
        "tables {} and {} of run {run_id} overlap",
        left.number, right.number
    );
    Error::corruption(message)
}

/// What holds of every table's description.
pub(crate) fn check_table(table: &TableMeta) -> Result<()> {
    let bounds = &table.bounds;
    let keys_fit = bounds.smallest.len() <= MAX_KEY_BYTES && bounds.largest.len() <= MAX_KEY_BYTES;
    let sequences =
        table.smallest_sequence <= table.largest_sequence && table.largest_sequence <= MAX_SEQUENCE;
    let counts = table.tombstones <= table.entries && table.expiring_entries <= table.entries;
    if keys_fit && sequences && counts && bounds.contains(&bounds.smallest) && table.number != 0 {
        return Ok(());
    }
    Err(Error::corruption(format!(
        "the description of table {} makes no sense",
        table.number
    )))
}

impl Level {
    /// Bytes of all tables of the level.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes()).sum()
    }
}

impl Run {
    /// The table that covers `key`, if one does.
    #[must_use]
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let at = self
            .tables
            .partition_point(|table| table.bounds.ends_before(key));
        let table = self.tables.get(at)?;
        (table.bounds.smallest.as_slice() <= key).then_some(at)
    }

    /// The tables that share a key with `bounds`: neighbours, because the run is sorted.
    #[must_use]
    pub fn overlapping(&self, bounds: &KeyBounds) -> Range<usize> {
        let start = self
            .tables
            .partition_point(|table| table.bounds.ends_before(&bounds.smallest));
        let beyond = |table: &Arc<TableMeta>| bounds.ends_before(&table.bounds.smallest);
        let end = self.tables.partition_point(|table| !beyond(table));
        start..end.max(start)
    }

    /// Bytes of all tables.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.file_bytes).sum()
    }

    /// The keys from the first table's smallest to the last one's largest; empty for no table.
    #[must_use]
    pub fn bounds(&self) -> KeyBounds {
        let (Some(first), Some(last)) = (self.tables.first(), self.tables.last()) else {
            return KeyBounds::default();
        };
        KeyBounds {
            smallest: first.bounds.smallest.clone(),
            ..last.bounds.clone()
        }
    }

    /// The smallest sequence number of any table; 0 for no table.
    #[must_use]
    pub fn smallest_sequence(&self) -> SequenceNumber {
        self.tables
            .iter()
            .map(|table| table.smallest_sequence)
            .min()
            .unwrap_or(0)
    }

    /// The largest sequence number of any table; 0 for no table.
    #[must_use]
    pub fn largest_sequence(&self) -> SequenceNumber {
        self.tables
            .iter()
            .map(|table| table.largest_sequence)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;

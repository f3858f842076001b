//! An edit of one keyspace applied to its version.
//!
//! Invariant: the outcome keeps every invariant of a version, or it is an error: a removed table
//! must be there, an added one must not, and must be disjoint from its run (I7). Pure; costs
//! O(edit x log tables) and a copy of the pointers of each run that changes. The callers are the
//! manifest's state, for new edits and for recovery.

use std::collections::HashSet;
use std::sync::Arc;

use esker_base::limits::{MAX_LEVELS, VALUE_LEVEL};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result};

use crate::live_index::{LiveIndex, TableLocation};
use crate::version::{Level, Run, Version, check_table, overlap};
use crate::version_edit::{AddedTable, KeyspaceEdit, RunPlacement};

/// Applies `edit` to `version`, whose tables stand in `index`.
///
/// # Errors
/// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) that says why the edit cannot be
/// applied; `version` is then neither the old nor a new one and must be thrown away.
pub fn apply(version: &mut Version, edit: &KeyspaceEdit, index: &LiveIndex) -> Result<()> {
    let mut removed = HashSet::new();
    let mut drops_values = false;
    for &number in &edit.removed {
        let location = index
            .table(number)
            .filter(|location| location.keyspace == edit.id);
        let gone = location.is_some_and(|location| {
            if location.level == VALUE_LEVEL {
                drops_values = true;
                version.values.remove(number)
            } else {
                remove(version, location)
            }
        });
        if !gone || !removed.insert(number) {
            return Err(refused(format!("table {number} is removed, but not there")));
        }
    }
    let mut created = HashSet::new();
    let mut added = HashSet::new();
    for table in &edit.added {
        let number = table.meta.number;
        let is_live = index.table(number).is_some() && !removed.contains(&number);
        if is_live || !added.insert(number) {
            return Err(refused(format!(
                "table {number} is added, but was there already"
            )));
        }
        if table.level == VALUE_LEVEL {
            insert_values(version, &table.meta)?;
        } else {
            insert(version, table, &mut created)?;
        }
    }
    version.values.lost.extend(&edit.lost_values);
    for level in &mut version.levels {
        level.runs.retain(|run| !run.tables.is_empty());
    }
    while version.levels.len() > 1 && version.levels.last().is_some_and(|l| l.runs.is_empty()) {
        version.levels.pop();
    }
    // Every pointer must lead somewhere, or to what is known to be lost.
    if drops_values
        || edit
            .added
            .iter()
            .any(|added| !added.meta.value_refs.is_empty())
    {
        version.values.check_named(&version.values_needed())?;
    }
    Ok(())
}

fn insert_values(version: &mut Version, meta: &Arc<TableMeta>) -> Result<()> {
    check_table(meta).map_err(|error| refused(error.message().to_owned()))?;
    if version.values.insert(meta) {
        Ok(())
    } else {
        Err(refused(format!("table {} was there already", meta.number)))
    }
}

fn refused(message: String) -> Error {
    Error::invalid_argument(message)
}

/// Takes the table at `location` out of its run, which may become empty.
fn remove(version: &mut Version, location: &TableLocation) -> bool {
    let run = version
        .levels
        .get_mut(location.level)
        .and_then(|level| level.runs.iter_mut().find(|run| run.id == location.run_id));
    let Some(run) = run else { return false };
    let smallest = &location.meta.bounds.smallest;
    let Ok(at) = run
        .tables
        .binary_search_by(|table| table.bounds.smallest.cmp(smallest))
    else {
        return false;
    };
    if run.tables[at].number != location.meta.number {
        return false;
    }
    Arc::make_mut(run).tables.remove(at);
    true
}

/// Puts a table into its run.
fn insert(version: &mut Version, added: &AddedTable, created: &mut HashSet<u64>) -> Result<()> {
    let (level, meta) = (added.level, &added.meta);
    check_table(meta).map_err(|error| refused(error.message().to_owned()))?;
    if level >= MAX_LEVELS {
        return Err(refused(format!(
            "table {} is added to level {level}",
            meta.number
        )));
    }
    while version.levels.len() <= level {
        version.levels.push(Level::default());
    }
    let run_id = match added.run {
        RunPlacement::Existing(id) => id,
        RunPlacement::Created(id) => {
            if created.insert(id) {
                if version.find_run(id).is_some() {
                    return Err(refused(format!(
                        "run {id} is created, but was there already"
                    )));
                }
                let run = Arc::new(Run {
                    id,
                    tables: Vec::new(),
                });
                version.levels[level].runs.insert(0, run);
            }
            id
        }
        RunPlacement::New => return Err(refused("a new run has no number yet".to_owned())),
    };
    let run = version.levels[level]
        .runs
        .iter_mut()
        .find(|run| run.id == run_id);
    let Some(run) = run else {
        return Err(refused(format!("level {level} has no run {run_id}")));
    };
    let at = run
        .tables
        .partition_point(|table| table.bounds.smallest < meta.bounds.smallest);
    let left = at.checked_sub(1).and_then(|left| run.tables.get(left));
    let neighbours = [(left, Some(meta)), (Some(meta), run.tables.get(at))];
    for (left, right) in neighbours {
        if let (Some(left), Some(right)) = (left, right)
            && !left.bounds.ends_before(&right.bounds.smallest)
        {
            return Err(refused(overlap(run_id, left, right).message().to_owned()));
        }
    }
    Arc::make_mut(run).tables.insert(at, Arc::clone(meta));
    Ok(())
}

#[cfg(test)]
mod tests;

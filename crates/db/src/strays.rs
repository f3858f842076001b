//! Files that no durable manifest names: of flushes, merges and openings that a crash cut short, and those whose
//! removal it has undone. An open removes them last.
//!
//! A crash in the middle may leave any of those whose removal no sync of the directory has covered; and if the
//! manifest is lost as well, repair takes what is left for the database unless something says otherwise. So tables go in
//! steps, with a sync between: those that a table names as gone before it, and what a table may hide before it.
//! Segments of the log go before all tables, which say what need not be read from them; tables of values
//! after all others.
//!
//! Invariant: the steps are a pure function of what the tables say of themselves, and none is begun before the one
//! before it is known to last. What cannot be removed, or whose step is not reached, stays for the next open.
//! Called by `open`.

use crate::checkpoint::{RESTORING, remove_directory};
use crate::engine::{Engine, Mode};
use crate::recovery_point;
use esker_base::SequenceNumber;
use esker_base::filename::{FileKind, FileNumber, table_path};
use esker_base::key_bounds::KeyBounds;
use esker_base::write_batch::KeyspaceId;
use esker_sstable::{Making, Table};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// A table that nothing names.
#[derive(Clone, Debug, PartialEq)]
struct StrayTable {
    number: FileNumber,
    /// `None` where nothing can be read of it: nor can repair.
    known: Option<Known>,
}

/// What a table says of itself.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    keyspace: KeyspaceId,
    bounds: KeyBounds,
    /// About when its last record was written.
    newest: SequenceNumber,
    has_values: bool,
    /// Tables that it says are gone.
    names: BTreeSet<FileNumber>,
}

impl StrayTable {
    fn names(&self, other: &Self) -> bool {
        let names = self.known.as_ref().map(|it| &it.names);
        names.is_some_and(|names| names.contains(&other.number))
    }

    /// Those of values are last: what points to them does not count without them. The others by age.
    fn rank(&self) -> (bool, SequenceNumber, FileNumber) {
        let (has_values, newest) = match &self.known {
            Some(known) => (known.has_values, known.newest),
            None => (false, 0),
        };
        (has_values, newest, self.number)
    }

    /// Whether this table, which comes behind `older` by rank, may hide or hold up what that one has.
    fn may_hide(&self, older: &Self) -> bool {
        match (&self.known, &older.known) {
            (Some(own), Some(of_older)) => {
                own.has_values
                    || (own.keyspace == of_older.keyspace && own.bounds.overlaps(&of_older.bounds))
            }
            _ => false,
        }
    }

    /// Whether `other`'s file must be gone for certain before this one's may go. One that names another was made when
    /// that had nothing to hide from it any more.
    fn waits_for(&self, other: &Self) -> bool {
        let comes_behind = self.rank() > other.rank();
        self.names(other) || (comes_behind && self.may_hide(other) && !other.names(self))
    }
}

/// The order in which `tables` go: each step when the one before it is gone for certain.
fn steps_of(mut tables: Vec<StrayTable>) -> Vec<Vec<FileNumber>> {
    tables.sort_by_key(StrayTable::rank);
    let mut steps = Vec::new();
    while let Some(first) = tables.first() {
        let is_next = |it: &&StrayTable| {
            let mut others = tables.iter().filter(|other| other.number != it.number);
            !others.any(|other| it.waits_for(other))
        };
        let mut step: Vec<_> = tables.iter().filter(is_next).map(|it| it.number).collect();
        if step.is_empty() {
            // They wait for each other, which nothing that was written does.
            step.push(first.number);
        }
        tables.retain(|it| !step.contains(&it.number));
        steps.push(step);
    }
    steps
}

/// Removes what no durable manifest names; how many files. No number that a file has is given out again: until
/// it is gone one number may stand for a stray table and for the manifest that this open began.
pub(crate) fn remove_strays(engine: &Engine) -> u64 {
    debug_assert_eq!(engine.mode, Mode::Disk);
    let Ok(entries) = engine.fs.read_dir(&engine.directory) else {
        return 0;
    };
    let state = engine.versions.state();
    let named = named_tables(engine);
    // A point that cannot be read may need any of them.
    let points_are_known = recovery_point::all_readable(&state);
    let segments: HashSet<_> = state.segments.iter().copied().collect();
    let (mut tables, mut others) = (Vec::new(), Vec::new());
    for entry in entries {
        let kind = FileKind::parse(&entry.name);
        if let Some(
            FileKind::Table(number)
            | FileKind::WalSegment(number)
            | FileKind::Manifest(number)
            | FileKind::Temporary(Some(number)),
        ) = kind
        {
            engine.versions.reserve_file_number(number);
        }
        if entry.is_dir && entry.name.starts_with(RESTORING) {
            let made = engine.directory.join(RESTORING);
            if let Err(error) = remove_directory(&*engine.fs, &made) {
                tracing::warn!(%error, "what a restore was made of stays");
            }
        }
        let is_stray = match kind {
            Some(FileKind::Table(number)) => {
                if points_are_known && !named.contains(&number) {
                    tables.push(number);
                }
                false
            }
            Some(FileKind::WalSegment(number)) => !segments.contains(&number),
            Some(FileKind::Manifest(number)) => number != engine.versions.manifest_number(),
            Some(FileKind::Temporary(_)) => true,
            _ => false,
        };
        if is_stray {
            others.push(entry.name);
        }
    }
    others.sort_unstable();
    let is_removed = |name: &String| remove(engine, &engine.directory.join(name));
    let others = others.iter().filter(|name| is_removed(name)).count();
    (others + remove_tables(engine, &tables, others > 0)) as u64
}

/// Those that a version or a recovery point names.
fn named_tables(engine: &Engine) -> HashSet<FileNumber> {
    let mut tables: HashSet<_> = engine.points.numbers().into_iter().collect();
    for keyspace in engine.versions.keyspaces() {
        let version = engine.versions.current(keyspace.id).unwrap_or_default();
        tables.extend(version.tables().map(|(_, _, meta)| meta.number));
    }
    tables
}

/// Removes tables in their steps; how many. `syncs_first`: what was removed before them is to be gone for certain.
fn remove_tables(engine: &Engine, numbers: &[FileNumber], syncs_first: bool) -> usize {
    let (mut syncs, mut removed) = (syncs_first, 0);
    let tables = numbers.iter().map(|&number| look_at(engine, number));
    for step in steps_of(tables.collect()) {
        if syncs && let Err(error) = engine.fs.sync_dir(&engine.directory) {
            tracing::warn!(%error, "stray tables stay: the directory could not be synced");
            break;
        }
        syncs = true;
        let of_step = step.len();
        let gone = step.into_iter().filter(|&number| {
            let is_gone = remove(engine, &table_path(&engine.directory, number));
            if is_gone {
                engine.tables.note_removed(number);
            }
            is_gone
        });
        let gone = gone.count();
        removed += gone;
        if gone < of_step {
            break;
        }
    }
    removed
}

fn look_at(engine: &Engine, number: FileNumber) -> StrayTable {
    let path = table_path(&engine.directory, number);
    let described = Table::describe(&*engine.fs, &path, number);
    let known = described.ok().map(|(meta, origin)| {
        let origin = origin.unwrap_or_default();
        let loaded_after = match origin.making {
            Making::Load { after } => after.saturating_add(1),
            _ => 0,
        };
        let newest = meta.largest_sequence.max(meta.ingested_sequence);
        Known {
            keyspace: origin.keyspace,
            bounds: meta.bounds,
            newest: newest.max(loaded_after),
            has_values: origin.making == Making::Values,
            names: origin.replaces.into_iter().chain(origin.gone).collect(),
        }
    });
    StrayTable { number, known }
}

fn remove(engine: &Engine, path: &Path) -> bool {
    let removed = engine.fs.remove_file(path);
    if let Err(error) = &removed {
        tracing::warn!(file = %path.display(), %error, "a stray stays");
    }
    removed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of keyspace 1.
    fn table(number: FileNumber, newest: u64, keys: [&str; 2], names: &[FileNumber]) -> StrayTable {
        let known = Known {
            keyspace: 1,
            bounds: KeyBounds::inclusive(keys[0], keys[1]),
            newest,
            has_values: false,
            names: names.iter().copied().collect(),
        };
        StrayTable {
            number,
            known: Some(known),
        }
    }

    fn change(mut table: StrayTable, change: impl FnOnce(&mut Known)) -> StrayTable {
        table.known.as_mut().map(change).unwrap();
        table
    }

    #[test]
    fn what_is_hidden_or_named_goes_first() {
        let all = ["a", "z"];
        // What the tables are; the steps.
        type Case = (Vec<StrayTable>, Vec<Vec<FileNumber>>);
        let cases: [Case; 9] = [
            (vec![], vec![]),
            (vec![table(9, 5, all, &[])], vec![vec![9]]),
            // A flush behind the merge of older data: its range delete may hide that.
            (
                vec![table(4, 150, all, &[]), table(5, 100, all, &[])],
                vec![vec![5], vec![4]],
            ),
            // They have no key in common, or are of two keyspaces.
            (
                vec![
                    table(4, 150, ["a", "c"], &[]),
                    table(5, 100, ["d", "f"], &[]),
                ],
                vec![vec![5, 4]],
            ),
            (
                vec![
                    table(4, 150, all, &[]),
                    change(table(5, 100, all, &[]), |it| it.keyspace = 2),
                ],
                vec![vec![5, 4]],
            ),
            // A merge, its inputs, and what hides it all.
            (
                vec![
                    table(7, 100, all, &[2, 3]),
                    table(2, 50, all, &[]),
                    table(3, 100, all, &[]),
                    table(6, 150, all, &[]),
                ],
                vec![vec![2], vec![3], vec![7], vec![6]],
            ),
            // Its newest record was dropped: it looks older than what it names, which a reader kept.
            (
                vec![table(8, 90, ["k", "k"], &[1]), table(1, 100, all, &[])],
                vec![vec![1], vec![8]],
            ),
            // Nothing can be read of 3; 5 are the values of 4.
            (
                vec![
                    change(table(5, 0, all, &[]), |it| it.has_values = true),
                    table(4, 150, all, &[]),
                    StrayTable {
                        number: 3,
                        known: None,
                    },
                ],
                vec![vec![3, 4], vec![5]],
            ),
            // Nothing was ever written like that.
            (
                vec![table(1, 1, all, &[2]), table(2, 2, all, &[1])],
                vec![vec![1], vec![2]],
            ),
        ];
        for (tables, expected) in cases {
            assert_eq!(steps_of(tables.clone()), expected, "{tables:?}");
            let reversed = tables.into_iter().rev().collect();
            assert_eq!(steps_of(reversed), expected);
        }
    }
}

//! Files that no durable manifest names: of flushes, merges and openings that a crash cut short, and those whose
//! removal it has undone. An open removes them last.
//!
//! A crash in the middle may leave any of those whose removal no sync of the directory has covered; and if the
//! manifest is lost as well, repair takes what is left for the database unless something says otherwise. So tables go in
//! the steps of `stray_order`, with a sync before each: also before the first, for the process may have ended in the middle
//! of an earlier removal. Those that have no order wait until a flush names them (`untold_removals`). Segments of
//! the log go before all tables, which say what need not be read from them.
//!
//! Invariant: no step is begun before all that was removed before it is known to last. What cannot be removed, or whose
//! step is not reached, stays for the next open. Called by `open`.

use crate::checkpoint::{RESTORING, remove_directory};
use crate::engine::{Engine, Mode};
use crate::recovery_point;
use crate::stray_order::{StrayTable, order_of};
use esker_base::filename::{FileKind, FileNumber, table_path};
use esker_base::{ErrorKind, Result};
use esker_sstable::Table;
use std::collections::HashSet;
use std::path::Path;

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
    (others + remove_tables(engine, &tables)) as u64
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

/// Removes tables in their steps; how many.
fn remove_tables(engine: &Engine, numbers: &[FileNumber]) -> usize {
    let tables = numbers.iter().map(|&number| look_at(engine, number));
    let tables = match tables.collect::<Result<Vec<_>>>() {
        Ok(tables) => tables,
        Err(error) => {
            tracing::warn!(%error, "stray tables stay: one cannot be read now");
            return 0;
        }
    };
    let order = order_of(&tables);
    engine.tables.retire_until_named(order.unordered);
    let mut removed = 0;
    for step in order.steps {
        if let Err(error) = engine.fs.sync_dir(&engine.directory) {
            tracing::warn!(%error, "stray tables stay: the directory could not be synced");
            break;
        }
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

fn look_at(engine: &Engine, number: FileNumber) -> Result<StrayTable> {
    let path = table_path(&engine.directory, number);
    match Table::describe(&*engine.fs, &path, number) {
        Ok((meta, origin)) => Ok((number, Some((meta, origin.unwrap_or_default())))),
        Err(error) if error.kind() == ErrorKind::Corruption => Ok((number, None)),
        // A later repair may be able to read it.
        Err(error) => Err(error),
    }
}

fn remove(engine: &Engine, path: &Path) -> bool {
    let removed = engine.fs.remove_file(path);
    if let Err(error) = &removed {
        tracing::warn!(file = %path.display(), %error, "a stray stays");
    }
    removed.is_ok()
}

//! Which of the tables that are left are the database, told without a manifest.
//!
//! Each table says which ones it was made to replace, and which the manifest had let go of before
//! while their files might still be there ([`Origin`]). Looked at from the newest to the oldest:
//!
//! - What a table that counts says is replaced or gone does not count. A table that does not count says
//!   nothing: a restore may have brought back what it had replaced.
//! - The output of a merge whose inputs are all there, and all count, does not: that merge may not have
//!   come to its end, and the inputs are the same data. Where one is not there or does not count, the
//!   manifest had let go of the inputs, so the merge was complete.
//! - The tables of a bulk load count if all of them are there, or if one that counts says that the
//!   manifest had named them: a load is visible as a whole or not at all.
//!
//! Invariant: a table that counts held current data when the database was last written, or data that
//! those that count hide or hold as well. Pure, but for reading what tables say of themselves.

use super::evidence::Partial;
use super::rewrite::Doubt;
use super::unnamed_loads::place_load;
use super::{Contents, Files, Part, RepairReport, loss_of};
use crate::salvage::Loss;
use crate::table_files;
use esker_base::filename::{FileNumber, table_path};
use esker_base::limits::VALUE_LEVEL;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;
use esker_base::{ErrorKind, Result, SequenceNumber};
use esker_sstable::{Making, Origin, Table};
use esker_vfs::FileSystem;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// A table that is there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) meta: TableMeta,
    pub(crate) origin: Origin,
    /// What is wrong with it, if its data cannot be used.
    pub(crate) damage: Option<Loss>,
    /// Whether every table of values is there, whole, that its pointers lead into.
    pub(crate) has_values: bool,
}

/// Those that count.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) numbers: BTreeSet<FileNumber>,
    /// Bulk-loaded tables that the manifest had named, and the sequence number of each.
    loads: HashMap<FileNumber, SequenceNumber>,
}

/// Finds those that count. `gone` are known not to.
pub(crate) fn that_count(
    found: &BTreeMap<FileNumber, Found>,
    gone: &HashSet<FileNumber>,
) -> Counting {
    let mut dead = gone.clone();
    let mut counting = Counting::default();
    for (&number, table) in found.iter().rev() {
        if dead.contains(&number) {
            continue;
        }
        let origin = &table.origin;
        let is_whole_table = |t: &Found| t.damage.is_none() && t.has_values;
        let is_usable =
            |n: &FileNumber| !dead.contains(n) && found.get(n).is_some_and(is_whole_table);
        let is_superfluous = match origin.making {
            Making::Merge => origin.replaces.iter().all(is_usable),
            Making::Load { .. } => {
                !counting.loads.contains_key(&number) && !is_whole(found, origin)
            }
            Making::Flush | Making::Values => false,
        };
        if is_superfluous {
            dead.insert(number);
            continue;
        }
        dead.extend(origin.replaces.iter().chain(&origin.gone));
        counting.loads.extend(origin.loads.iter().copied());
        counting.numbers.insert(number);
    }
    counting
}

/// Whether all tables of a flush or load are there.
pub(crate) fn is_whole(found: &BTreeMap<FileNumber, Found>, origin: &Origin) -> bool {
    let parts = found.values().map(|table| &table.origin);
    let parts = parts.filter(|part| part.first == origin.first && part.making == origin.making);
    let (mut seen, mut last) = (HashSet::new(), None);
    for part in parts {
        seen.insert(part.part);
        if part.is_last {
            last = Some(part.part);
        }
    }
    last.is_some_and(|last| seen.len() as u64 == last + 1)
}

/// What the new manifest is to say of tables.
pub(crate) fn contents(
    fs: &dyn FileSystem,
    directory: &Path,
    files: &Files,
    partial: &Partial,
    report: &mut RepairReport,
) -> Result<Contents> {
    let mut found = read_all(fs, directory, files, partial, report)?;
    let values = take_values(&mut found);
    let counting = that_count(&found, &partial.gone);
    let mut contents = Contents::default();
    contents.keyspaces.insert(0, default_part());
    if let Some(state) = &partial.state {
        contents.largest_number = state.next_file_number;
        contents.last_sequence = state.last_sequence;
        contents.latest_millis = state.latest_millis;
        contents.database_id = Some(state.database_id);
        contents.options = state.options.as_ref().clone();
        for keyspace in state.keyspaces.iter() {
            let part = contents.keyspaces.entry(keyspace.meta.id).or_default();
            part.name.clone_from(&keyspace.meta.name);
            part.options.clone_from(&keyspace.meta.options);
            part.flushed_sequence = keyspace.meta.flushed_sequence;
        }
    }
    let Counting { numbers, loads } = counting;
    let counting = numbers;
    let named = named_by(partial);
    let ids = keyspace_ids(&found, &counting, &contents);
    for number in &counting {
        let Some(table) = found.get(number) else {
            continue;
        };
        let id = ids.get(table.origin.name.as_str()).copied().unwrap_or(0);
        let part = contents.keyspaces.entry(id).or_default();
        part.name.clone_from(&table.origin.name);
        let mut meta = table.meta.clone();
        if let Some(sequence) = loads.get(number) {
            place_load(&mut meta, *sequence);
        } else if let Making::Load { after } = table.origin.making
            && !named.contains(number)
        {
            part.unnamed_loads.insert(*number, after);
        }
        let newest = meta.largest_sequence.max(meta.ingested_sequence);
        contents.last_sequence = contents.last_sequence.max(newest);
        match &table.damage {
            None => part.tables.push(Arc::new(meta)),
            Some(loss) => {
                part.doubts.push(Doubt::of(&meta));
                report.losses.push(loss.clone());
            }
        }
    }
    for part in contents.keyspaces.values_mut() {
        name_values(directory, files, part, &values, report);
    }
    raise_flushed(&found, &counting, &loads, &mut contents);
    note_unfinished(&found, &mut contents);
    Ok(contents)
}

/// Takes the tables of values out, and notes of the others whether theirs are there.
fn take_values(found: &mut BTreeMap<FileNumber, Found>) -> BTreeMap<FileNumber, Found> {
    let is_of_values = |table: &Found| table.origin.making == Making::Values;
    let all = std::mem::take(found).into_iter();
    let (values, others): (BTreeMap<_, _>, _) = all.partition(|(_, table)| is_of_values(table));
    *found = others;
    let is_there = |number: &FileNumber| values.get(number).is_some_and(|t| t.damage.is_none());
    for table in found.values_mut() {
        let mut refs = table.meta.value_refs.iter();
        table.has_values = refs.all(|one| is_there(&one.number));
    }
    values
}

/// Names the tables of values that the tables of a keyspace point to. What the others hold nobody
/// needs; those that should be there and are not take their values with them.
fn name_values(
    directory: &Path,
    files: &Files,
    part: &mut Part,
    values: &BTreeMap<FileNumber, Found>,
    report: &mut RepairReport,
) {
    let refs = part.tables.iter().flat_map(|meta| &meta.value_refs);
    let needed: BTreeSet<FileNumber> = refs.map(|one| one.number).collect();
    for number in needed {
        match values.get(&number) {
            Some(table) if table.damage.is_none() => {
                part.values.push(Arc::new(table.meta.clone()));
            }
            Some(table) => {
                part.lost_values.push(number);
                report.losses.extend(table.damage.clone());
            }
            None => {
                part.lost_values.push(number);
                if !files.tables.contains(&number) {
                    let path = table_path(directory, number);
                    let reason = "a table of values is missing";
                    report.losses.push(Loss::new(&path, reason));
                }
            }
        }
    }
}

/// What is in tables already must not be read from the log once more: a range delete would hide what
/// lost its sequence number, or came by a bulk load, since. Also tables that do not count say so, but for
/// those of a flush or a merge that may not have come to its end: what these hold, the log may hold alone.
///
/// No table is known to have seen an unnamed load, so all that tables are known to hold is older.
fn raise_flushed(
    found: &BTreeMap<FileNumber, Found>,
    counting: &BTreeSet<FileNumber>,
    loads: &HashMap<FileNumber, SequenceNumber>,
    contents: &mut Contents,
) {
    let floor = found.values().map(|table| table.origin.floor).max();
    for part in contents.keyspaces.values_mut() {
        for table in found.values().filter(|t| t.origin.name == part.name) {
            let origin = &table.origin;
            let is_complete = match origin.making {
                Making::Flush => is_whole(found, origin),
                Making::Merge => !origin.replaces.iter().all(|it| counting.contains(it)),
                Making::Load { .. } | Making::Values => true,
            };
            if is_complete {
                part.flushed_sequence = part.flushed_sequence.max(origin.flushed);
            }
            if let Some(sequence) = loads.get(&table.meta.number) {
                part.flushed_sequence = part.flushed_sequence.max(*sequence);
            }
        }
        for older in part.unnamed_loads.values_mut() {
            *older = part.flushed_sequence.max(*older);
        }
        // Of all keyspaces: it may have passed the number of an unnamed load.
        part.flushed_sequence = part.flushed_sequence.max(floor.unwrap_or(0));
        contents.last_sequence = contents.last_sequence.max(part.flushed_sequence);
    }
}

/// Notes the tables of flushes that may not have come to their end: no table is known to hold anything from their first
/// record on, so that all of it is read from the log.
fn note_unfinished(found: &BTreeMap<FileNumber, Found>, contents: &mut Contents) {
    for part in contents.keyspaces.values_mut() {
        let flushed = part.flushed_sequence;
        let is_unfinished = |meta: &&Arc<TableMeta>| {
            let origin = found.get(&meta.number).map(|table| &table.origin);
            origin.is_some_and(|it| it.making == Making::Flush && !is_whole(found, it))
                && meta.smallest_sequence > flushed
        };
        let unfinished = part.tables.iter().filter(is_unfinished);
        part.unfinished = unfinished.map(|meta| meta.number).collect();
    }
}

/// The tables that a damaged manifest named.
fn named_by(partial: &Partial) -> HashSet<FileNumber> {
    let keyspaces = partial
        .state
        .iter()
        .flat_map(|state| state.keyspaces.iter());
    let tables = keyspaces.flat_map(|keyspace| keyspace.version.tables());
    tables.map(|(_, _, meta)| meta.number).collect()
}

pub(crate) fn default_part() -> Part {
    Part {
        name: "default".to_owned(),
        ..Part::default()
    }
}

/// The number of each keyspace, by name: the one that its newest table has, unless a manifest says.
fn keyspace_ids<'a>(
    found: &'a BTreeMap<FileNumber, Found>,
    counting: &BTreeSet<FileNumber>,
    contents: &Contents,
) -> HashMap<&'a str, KeyspaceId> {
    let mut ids = HashMap::new();
    for table in found.values().filter(|t| counting.contains(&t.meta.number)) {
        let name = table.origin.name.as_str();
        let known = contents
            .keyspaces
            .iter()
            .find(|(_, part)| part.name == name);
        let id = known.map_or(table.origin.keyspace, |(id, _)| *id);
        ids.insert(name, id);
    }
    ids
}

fn read_all(
    fs: &dyn FileSystem,
    directory: &Path,
    files: &Files,
    partial: &Partial,
    report: &mut RepairReport,
) -> Result<BTreeMap<FileNumber, Found>> {
    let mut found = BTreeMap::new();
    for &number in &files.tables {
        match read(fs, directory, number, partial) {
            Ok(table) => _ = found.insert(number, table),
            Err(error)
                if partial.gone.contains(&number) && error.kind() == ErrorKind::Corruption => {}
            Err(error) => {
                let path = table_path(directory, number);
                let bytes = fs.metadata(&path).map_or(0, |entry| entry.bytes);
                let loss = loss_of(&path, error)?;
                report.losses.push(Loss { bytes, ..loss });
            }
        }
    }
    Ok(found)
}

fn read(
    fs: &dyn FileSystem,
    directory: &Path,
    number: FileNumber,
    partial: &Partial,
) -> Result<Found> {
    let path = table_path(directory, number);
    let known = partial
        .state
        .iter()
        .flat_map(|state| state.keyspaces.iter());
    let known = known.flat_map(|keyspace| {
        let metas = keyspace.version.tables();
        metas.map(move |(level, _, meta)| (level, keyspace, meta))
    });
    let known = known.into_iter().find(|(_, _, meta)| meta.number == number);
    let is_of_values = known.is_some_and(|(level, ..)| level == VALUE_LEVEL);
    let known = known.map(|(_, keyspace, meta)| (keyspace, meta));
    // Not opened: what a table held that cannot be must be known too, so that nothing older counts. Where it
    // cannot say so itself, a manifest may. (A table of values hides nothing: what points into it says what is
    // lost.)
    let (own, origin) = match (Table::describe(fs, &path, number), known) {
        (Ok(described), _) => described,
        (Err(error), Some((_, meta))) if error.kind() == ErrorKind::Corruption && !is_of_values => {
            (meta.as_ref().clone(), None)
        }
        (Err(error), _) => return Err(error),
    };
    let origin = match (origin, known) {
        (Some(origin), _) => origin,
        (None, Some((keyspace, _))) => Origin {
            keyspace: keyspace.meta.id,
            name: keyspace.meta.name.clone(),
            making: Making::Merge,
            replaces: vec![0],
            ..Origin::default()
        },
        (None, None) => {
            let sentence = "a table does not say what it replaced, and no manifest does";
            return Err(esker_base::Error::corruption(sentence).with_file(&path));
        }
    };
    let mut meta = own;
    if let Some((_, known)) = known {
        meta = known.as_ref().clone();
    } else if let Making::Load { after } = origin.making {
        // It got its sequence number when it was complete; all that is left is when it began.
        place_load(&mut meta, after + 1);
    }
    let damage = match table_files::verify(fs, &path, &meta) {
        Ok(()) => None,
        Err(error) => Some(Loss {
            bytes: meta.file_bytes,
            records: Some(meta.entries + meta.range_tombstones),
            ..loss_of(&path, error)?
        }),
    };
    Ok(Found {
        meta,
        origin,
        damage,
        has_values: true,
    })
}

#[cfg(test)]
mod tests;

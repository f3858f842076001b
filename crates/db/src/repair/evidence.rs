//! What the manifests that are left say.
//!
//! Invariant: a manifest is believed as a whole only if no other can have taken over from it. One that
//! is damaged is believed up to its damage, and only for what cannot have become untrue since: names,
//! numbers, and which tables it had let go of.

use super::{Contents, Files, Part, RepairReport, current_loss, loss_of};
use crate::repair::rewrite::Doubt;
use crate::salvage::Loss;
use crate::table_files;
use esker_base::filename::{FileNumber, manifest_path, table_path, wal_path};
use esker_base::limits::VALUE_LEVEL;
use esker_base::{ErrorKind, Result};
use esker_manifest::{ManifestState, VersionSet};
use esker_vfs::FileSystem;
use std::collections::HashSet;
use std::path::Path;

/// What is known without looking at tables.
pub(crate) enum Evidence {
    /// Everything.
    Whole(Box<ManifestState>),
    /// What a damaged manifest said, or nothing.
    Partial(Partial),
}

/// What a damaged manifest said.
#[derive(Default)]
pub(crate) struct Partial {
    pub(crate) state: Option<ManifestState>,
    /// Tables that it had let go of.
    pub(crate) gone: HashSet<FileNumber>,
}

pub(crate) fn find(
    fs: &dyn FileSystem,
    directory: &Path,
    files: &Files,
    report: &mut RepairReport,
) -> Result<Evidence> {
    let named = match VersionSet::current_manifest(fs, directory) {
        Ok(named) => named,
        Err(error) if error.kind() == ErrorKind::Corruption => None,
        Err(error) => return Err(error),
    };
    match named {
        None => report.losses.push(current_loss(
            directory,
            "it is missing or names no manifest",
        )),
        Some(number) if !files.manifests.contains(&number) => {
            let path = manifest_path(directory, number);
            report
                .losses
                .push(Loss::new(&path, "the manifest is missing"));
        }
        Some(_) => {}
    }
    // One that was lost may have taken over from all that are left.
    let is_lost = named.is_some_and(|number| files.manifests.last() < Some(&number));
    let mut partial = Partial::default();
    for &number in files.manifests.iter().rev() {
        let reading = VersionSet::read_manifest(fs, directory, number)?;
        let took_over = reading.is_published || named == Some(number);
        let Some(damage) = reading.damage else {
            // Begun and not finished: the one before it still counts.
            let is_latest = took_over || named.is_none();
            match reading.state {
                Some(state) if is_latest && !is_lost => {
                    return Ok(Evidence::Whole(Box::new(state)));
                }
                state => {
                    partial = Partial {
                        state,
                        gone: reading.gone,
                    }
                }
            }
            if took_over {
                break;
            }
            continue;
        };
        let path = manifest_path(directory, number);
        let loss = loss_of(&path, damage)?;
        // Where CURRENT names an older one and this does not say that it took over, it was begun only.
        if took_over || named.is_none() {
            report.losses.push(loss);
            partial = Partial {
                state: reading.state,
                gone: reading.gone,
            };
            break;
        }
    }
    Ok(Evidence::Partial(partial))
}

/// What a whole manifest says, less what is missing or damaged.
pub(crate) fn whole(
    fs: &dyn FileSystem,
    directory: &Path,
    state: &ManifestState,
    files: &Files,
    report: &mut RepairReport,
) -> Result<Contents> {
    let mut contents = Contents {
        largest_number: state.next_file_number,
        last_sequence: state.last_sequence,
        database_id: Some(state.database_id),
        ..Contents::default()
    };
    for keyspace in state.keyspaces.iter() {
        let mut part = Part {
            name: keyspace.meta.name.clone(),
            flushed_sequence: keyspace.meta.flushed_sequence,
            ..Part::default()
        };
        part.lost_values.extend(&keyspace.version.values.lost);
        for (level, _, meta) in keyspace.version.tables() {
            let path = table_path(directory, meta.number);
            match table_files::verify(fs, &path, meta) {
                Ok(()) if level == VALUE_LEVEL => part.values.push(meta.clone()),
                Ok(()) => part.tables.push(meta.clone()),
                Err(error) => {
                    report.losses.push(Loss {
                        bytes: meta.file_bytes,
                        records: Some(meta.entries + meta.range_tombstones),
                        ..loss_of(&path, error)?
                    });
                    if level == VALUE_LEVEL {
                        part.lost_values.push(meta.number);
                        part.damaged_values.push(meta.number);
                    } else {
                        part.doubts.push(Doubt::of(meta));
                    }
                }
            }
        }
        contents.keyspaces.insert(keyspace.meta.id, part);
    }
    let mut snapshot = state.snapshot();
    for edit in &mut snapshot {
        edit.completes_snapshot = false;
        for number in edit
            .added_segments
            .extract_if(.., |n| !files.segments.contains(n))
        {
            let path = wal_path(directory, number);
            report
                .losses
                .push(Loss::new(&path, "the log segment is missing"));
        }
    }
    contents.snapshot = Some(snapshot);
    Ok(contents)
}

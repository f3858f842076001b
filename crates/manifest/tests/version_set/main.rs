//! The version set through its public interface, over file systems in memory: against a naive model,
//! at every crash point, with every operation failing, and with damaged files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crashes;
mod creation;
mod damage;
mod faults;
mod golden;
mod model;
mod rules;
mod workload;

use std::path::Path;
use std::sync::Arc;

use esker_base::Result;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_manifest::{
    AddedTable, KeyspaceEdit, ManifestOptions, RunPlacement, VersionEdit, VersionSet,
};
use esker_vfs::{FileSystem, MemFileSystem};

/// So small that a MANIFEST holds its snapshot and a few edits.
const TINY: ManifestOptions = ManifestOptions { rotate_bytes: 4096 };

fn directory() -> &'static Path {
    Path::new("/db")
}

/// An empty directory, durable.
fn empty() -> MemFileSystem {
    let fs = MemFileSystem::new();
    fs.create_dir_all(directory()).unwrap();
    fs
}

fn shared(fs: &(impl FileSystem + Clone)) -> Arc<dyn FileSystem> {
    Arc::new(fs.clone())
}

fn create(fs: &(impl FileSystem + Clone)) -> Result<VersionSet> {
    VersionSet::create(shared(fs), directory(), TINY, VersionEdit::default())
}

fn recover(fs: &(impl FileSystem + Clone)) -> Result<VersionSet> {
    VersionSet::recover(shared(fs), directory(), TINY)
}

fn table(number: u64, smallest: &str, largest: &str) -> Arc<TableMeta> {
    Arc::new(TableMeta {
        number,
        file_bytes: 1000 + number,
        bounds: KeyBounds::inclusive(smallest, largest),
        smallest_sequence: number,
        largest_sequence: number + 3,
        entries: 3,
        checksum: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ..TableMeta::default()
    })
}

/// The edit that a flush of keyspace 0 makes.
fn flush(set: &VersionSet) -> VersionEdit {
    let meta = table(set.new_file_number(), "a", "z");
    let added = vec![AddedTable {
        level: 0,
        run: RunPlacement::New,
        meta,
    }];
    let keyspaces = vec![KeyspaceEdit {
        added,
        ..KeyspaceEdit::default()
    }];
    VersionEdit {
        keyspaces,
        ..VersionEdit::default()
    }
}

fn manifests(fs: &dyn FileSystem) -> Vec<String> {
    let entries = fs.read_dir(directory()).unwrap();
    let names = entries.into_iter().map(|entry| entry.name);
    let mut names: Vec<String> = names.filter(|name| name.starts_with("MANIFEST")).collect();
    names.sort();
    names
}

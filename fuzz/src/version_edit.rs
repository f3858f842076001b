//! Edits of the manifest: one by one, and as the records of a MANIFEST whose framing is intact.

use std::path::Path;
use std::sync::Arc;

use esker_base::checksum::checksum;
use esker_base::filename::{current_path, manifest_name, manifest_path};
use esker_manifest::{VersionEdit, VersionSet};
use esker_vfs::{FileSystem, MemFileSystem};
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};

const NUMBER: u64 = 1;

/// An edit that decodes means the same after it was encoded again.
pub fn version_edit(data: &[u8]) {
    let Ok(edit) = VersionEdit::decode(data) else {
        return;
    };
    let bytes = edit.encode().expect("no decoded run is without a number");
    assert_eq!(VersionEdit::decode(&bytes).expect("what was encoded"), edit);
}

/// Edits, each behind its length in two bytes, as a database's MANIFEST: it is refused, or every
/// version in it holds its invariants.
pub fn manifest_recovery(data: &[u8]) {
    let fs = MemFileSystem::new();
    let directory = Path::new("/db");
    write_manifest(&fs, directory, &edits(data));
    let Ok(set) = VersionSet::recover_read_only(Arc::new(fs), directory) else {
        return;
    };
    for keyspace in set.keyspaces() {
        let version = set.current(keyspace.id).expect("a keyspace that is listed");
        version
            .check_invariants()
            .expect("a version that was recovered");
    }
    let state = set.state();
    for snapshot in state.snapshot() {
        snapshot.encode().expect("a snapshot of a recovered state");
    }
}

fn edits(mut data: &[u8]) -> Vec<&[u8]> {
    let mut edits = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (edit, after) = rest.split_at(length);
        edits.push(edit);
        data = after;
    }
    edits
}

fn write_manifest(fs: &MemFileSystem, directory: &Path, edits: &[&[u8]]) {
    fs.create_dir_all(directory).expect("a directory in memory");
    let path = manifest_path(directory, NUMBER);
    let header = SegmentHeader {
        number: NUMBER,
        first_sequence: 0,
        previous: 0,
    };
    let options = SegmentOptions::default();
    let mut writer = SegmentWriter::create(fs, &path, header, options).expect("a file in memory");
    for edit in edits.iter().filter(|edit| !edit.is_empty()) {
        writer
            .append_one(edit, SyncMode::Sync)
            .expect("a file in memory");
    }
    writer.sync().expect("a file in memory");
    let name = manifest_name(NUMBER);
    let current = format!("{name} {:016x}\n", checksum(name.as_bytes(), 0));
    let file = fs
        .create(&current_path(directory))
        .expect("a file in memory");
    file.write_at(0, current.as_bytes())
        .expect("a file in memory");
}

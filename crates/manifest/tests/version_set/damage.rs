//! Damaged files: the right state, or an error that names the file. Never another state.

use esker_base::ErrorKind;
use esker_base::filename::{current_path, manifest_path};

use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};

use super::workload::Workload;
use super::*;

/// A database with a few edits in its MANIFEST, and the path of that.
fn database() -> (MemFileSystem, VersionSet, std::path::PathBuf) {
    let fs = empty();
    let set = create(&fs).unwrap();
    let mut workload = Workload::new(3, &set);
    for _ in 0..6 {
        set.log_and_apply(workload.draw(&set)).unwrap();
    }
    let path = manifest_path(directory(), set.manifest_number());
    (fs, set, path)
}

fn bytes_of(fs: &MemFileSystem, path: &Path) -> Vec<u8> {
    let file = fs.open_read(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Opens a copy in which the file at `path` holds `bytes`.
fn open_with(fs: &MemFileSystem, path: &Path, bytes: &[u8]) -> Result<VersionSet> {
    let copy = fs.fork();
    let file = copy.open_write(path).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, bytes).unwrap();
    recover(&copy)
}

#[test]
fn every_flipped_bit_of_a_manifest() {
    let (fs, set, path) = database();
    let bytes = bytes_of(&fs, &path);
    let end = set.manifest_bytes() as usize;
    let (mut right, mut refused) = (0, 0);
    for bit in (4000 * 8..(end + 64) * 8).chain(0..64 * 8) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match open_with(&fs, &path, &damaged) {
            Ok(found) => {
                assert_eq!(found.state().keyspaces, set.state().keyspaces, "bit {bit}");
                assert_eq!(found.state().segments, set.state().segments, "bit {bit}");
                right += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "bit {bit}");
                assert!(
                    error.file() == Some(&path) && error.offset().is_some(),
                    "bit {bit}"
                );
                refused += 1;
            }
        }
    }
    assert!(right > 64 * 8 && refused > 1000, "{right} {refused}");
}

#[test]
fn every_cut_of_a_manifest_is_refused() {
    let (fs, set, path) = database();
    let bytes = bytes_of(&fs, &path);
    let end = set.manifest_bytes() as usize;
    for length in (0..end + 16).chain([bytes.len() - 1]) {
        let error = open_with(&fs, &path, &bytes[..length]).unwrap_err();
        assert_eq!(
            (error.kind(), error.file()),
            (ErrorKind::Corruption, Some(path.as_path())),
            "{length}"
        );
    }
}

#[test]
fn a_current_that_is_damaged_or_names_what_is_not_there() {
    let (fs, _, path) = database();
    let current = current_path(directory());
    let bytes = bytes_of(&fs, &current);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = open_with(&fs, &current, &damaged).unwrap_err();
        assert_eq!(
            (error.kind(), error.file()),
            (ErrorKind::Corruption, Some(current.as_path()))
        );
    }
    for length in 0..bytes.len() {
        assert!(open_with(&fs, &current, &bytes[..length]).is_err());
    }
    assert!(open_with(&fs, &current, &[0; 1 << 20]).is_err());
    fs.remove_file(&path).unwrap();
    let error = recover(&fs).unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::Corruption, Some(path.as_path()))
    );
    assert!(VersionSet::exists(&fs, directory()).unwrap());
}

#[test]
fn a_manifest_under_another_name_is_refused() {
    let (fs, set, path) = database();
    let (older, bytes) = (set.manifest_number(), bytes_of(&fs, &path));
    while set.manifest_number() == older {
        set.log_and_apply(flush(&set)).unwrap();
    }
    let newer = manifest_path(directory(), set.manifest_number());
    let error = open_with(&fs, &newer, &bytes).unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::Corruption, Some(newer.as_path()))
    );
}

#[test]
fn a_current_that_was_turned_back_to_an_older_manifest_is_refused() {
    let (fs, set, path) = database();
    let current = current_path(directory());
    let (older, text) = (set.manifest_number(), bytes_of(&fs, &current));
    let bytes = bytes_of(&fs, &path);
    while set.manifest_number() == older {
        set.log_and_apply(flush(&set)).unwrap();
    }
    // The older file goes when another takes over; where that failed, it is there still, and whole.
    assert_eq!(manifests(&fs).len(), 1);
    fs.create(&path).unwrap().write_at(0, &bytes).unwrap();
    let error = open_with(&fs, &current, &text).unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::Corruption, Some(current.as_path()))
    );
    // A newer one that never took over is none: the machine stopped before CURRENT named it.
    let next = manifest_path(directory(), set.new_file_number());
    fs.create(&next).unwrap().write_at(0, b"begun").unwrap();
    assert_eq!(recover(&fs).unwrap().state(), set.state());
}

/// A MANIFEST is a log: the same hole that a zeroed last page made in the write-ahead log would have
/// rolled back a flush here, whose log segments are gone.
#[test]
fn zeros_from_anywhere_to_the_end_of_a_manifest_are_refused() {
    let (fs, set, path) = database();
    let bytes = bytes_of(&fs, &path);
    let end = set.manifest_bytes() as usize;
    let mut refused = 0;
    for at in (8192..end).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at..].fill(0);
        match open_with(&fs, &path, &damaged) {
            Ok(found) => {
                assert_eq!(found.state().keyspaces, set.state().keyspaces, "{at}");
                assert_eq!(found.state().segments, set.state().segments, "{at}");
            }
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.file()),
                    (ErrorKind::Corruption, Some(path.as_path()))
                );
                assert!(
                    error
                        .offset()
                        .is_some_and(|offset| offset <= at as u64 + 16)
                );
                refused += 1;
            }
        }
    }
    // All but the last watermark, which covers nothing that the note does not.
    assert!(refused > (end - 8192) / 3 - 16, "{refused}");
}

#[test]
fn no_edit_follows_a_torn_one_in_the_same_file() {
    let (fs, set, path) = database();
    let mut bytes = bytes_of(&fs, &path);
    let end = set.manifest_bytes() as usize;
    bytes[end + 40] = 1;
    let file = fs.open_write(&path).unwrap();
    file.write_at(0, &bytes).unwrap();
    let again = recover(&fs).unwrap();
    assert_eq!(
        again.manifest_number(),
        set.manifest_number(),
        "all of it was synced"
    );
    assert_eq!(again.state(), set.state());
    again.log_and_apply(flush(&again)).unwrap();
    assert_ne!(again.manifest_number(), set.manifest_number());
    assert_eq!(recover(&fs).unwrap().state(), again.state());
}

#[test]
fn a_snapshot_without_its_end_is_no_state() {
    let (fs, set, path) = database();
    let header = SegmentHeader {
        number: set.manifest_number(),
        ..SegmentHeader::default()
    };
    let whole = set.state().snapshot();
    let part = VersionEdit {
        completes_snapshot: false,
        ..whole[0].clone()
    };
    for (edit, is_refused) in [(None, true), (Some(&part), true), (Some(&whole[0]), false)] {
        fs.remove_file(&path).unwrap();
        let options = SegmentOptions {
            segment_bytes: 1 << 14,
            ..SegmentOptions::default()
        };
        let mut writer = SegmentWriter::create(&fs, &path, header, options).unwrap();
        if let Some(edit) = edit {
            writer
                .append_one(&edit.encode().unwrap(), SyncMode::Sync)
                .unwrap();
            writer.sync().unwrap();
        }
        let found = VersionSet::recover_read_only(shared(&fs), directory());
        let refused = found.err().map(|error| error.kind());
        assert_eq!(refused, is_refused.then_some(ErrorKind::Corruption));
    }
}

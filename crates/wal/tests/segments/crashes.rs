//! Power loss at every operation: what was synced is there, what is there was appended, and a crash
//! alone is never taken for damage.

use esker_vfs::{CrashFileSystem, ImagePolicy, UnsyncedData, UnsyncedNames};

use super::*;

/// Records with a length and contents of their own.
fn payload(index: usize) -> Vec<u8> {
    vec![index as u8 | 1; index * 37 % 300]
}

/// Appends and syncs; returns how many records were synced after how many operations.
pub(crate) fn write(
    disk: &CrashFileSystem,
    writer: &mut SegmentWriter,
    count: usize,
) -> Vec<(usize, usize)> {
    let mut synced = vec![(disk.operations(), 0)];
    for index in 0..count {
        if writer.remaining_bytes() < 400 {
            writer.grow(writer.segment_bytes() + 1600).unwrap();
        }
        let mode = if index % 3 == 0 {
            SyncMode::Sync
        } else {
            SyncMode::Buffered
        };
        writer.append_one(&payload(index), mode).unwrap();
        if index % 5 == 4 {
            writer.sync().unwrap();
            synced.push((disk.operations(), index + 1));
        }
    }
    synced
}

fn policies(seed: u64) -> impl Iterator<Item = ImagePolicy> {
    use UnsyncedData::{Garbage, Kept, Lost, RandomSectors, TornTail};
    let names = UnsyncedNames::Kept;
    let all = [Lost, Kept, RandomSectors, TornTail, Garbage];
    all.into_iter()
        .map(move |data| ImagePolicy { data, names, seed })
}

/// Crashes at every operation from the first that `synced` names on.
pub(crate) fn sweep(disk: &CrashFileSystem, synced: &[(usize, usize)], context: &str) {
    let mut replay = disk.replay();
    for operations in synced[0].0..=disk.operations() {
        let sure = synced
            .iter()
            .rev()
            .find(|(at, _)| *at <= operations)
            .map_or(0, |(_, n)| *n);
        for policy in policies(operations as u64) {
            let context = format!("{context}: {operations} operations, {policy:?}");
            let image = replay.image(operations, &policy);
            let read = read(&image).unwrap_or_else(|error| panic!("{error} {context}"));
            assert!(
                read.payloads.len() >= sure,
                "{} of {sure}: {context}",
                read.payloads.len()
            );
            let appended = (0..).map(payload);
            assert!(
                appended.zip(&read.payloads).all(|(a, b)| a == *b),
                "{context}"
            );
            assert!(
                matches!(read.end, SegmentEnd::Clean | SegmentEnd::Torn),
                "{:?} {context}",
                read.end
            );
            if read.end == SegmentEnd::Clean {
                let mut writer =
                    SegmentWriter::reopen(&image, path(), HEADER, read.end_offset, SMALL).unwrap();
                if writer.remaining_bytes() < 100 {
                    writer.grow(writer.segment_bytes() + 1600).unwrap();
                }
                writer.append_one(b"after", SyncMode::Buffered).unwrap();
                let again = super::read(&image).unwrap();
                assert_eq!(
                    (again.payloads.len(), again.end),
                    (read.payloads.len() + 1, SegmentEnd::Clean)
                );
            }
        }
    }
}

#[test]
fn a_crash_at_any_moment_leaves_a_prefix_with_all_that_was_synced() {
    for mapped in [false, true] {
        for (zero_ahead_bytes, copied_syncs) in [(0, false), (2000, false), (0, true), (2000, true)]
        {
            let options = SegmentOptions {
                segment_bytes: if copied_syncs { 64 << 10 } else { 20 << 10 },
                mapped,
                zero_ahead_bytes,
                copied_syncs,
                may_grow: false,
            };
            let disk = CrashFileSystem::new(MemFileSystem::new());
            let mut writer = SegmentWriter::create(&disk, path(), HEADER, options).unwrap();
            let synced = write(&disk, &mut writer, 40);
            sweep(&disk, &synced, &format!("{options:?}"));
        }
    }
}

#[test]
fn the_first_life_of_a_recycled_segment_stays_buried() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let options = SegmentOptions {
        segment_bytes: 20 << 10,
        mapped: true,
        ..SMALL
    };
    let first = SegmentHeader {
        number: 3,
        ..HEADER
    };
    let mut writer = SegmentWriter::create(&disk, path(), first, options).unwrap();
    write(&disk, &mut writer, 60);
    writer.sync().unwrap();
    let mut writer = SegmentWriter::recycle(&disk, path(), HEADER, options).unwrap();
    let synced = write(&disk, &mut writer, 40);
    sweep(&disk, &synced, "recycled");
}

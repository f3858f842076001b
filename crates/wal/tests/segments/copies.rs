//! Groups that are synced together with a copy of them (I4): after a power loss that takes the note, and
//! with one damage besides, nothing that was synced is missing without a word.

use esker_base::Result;
use esker_vfs::{CrashFileSystem, ImagePolicy, UnsyncedData, UnsyncedNames};

use super::*;

const COPIED: SegmentOptions = SegmentOptions {
    segment_bytes: 256 << 10,
    mapped: true,
    zero_ahead_bytes: 8 << 10,
    copied_syncs: true,
    may_grow: false,
};
const PAGE: usize = 4096;

/// Lengths that fill pages, cross them, take several, and are too long for a copy.
const LENGTHS: [usize; 12] = [0, 90, 1500, 30, 3900, 4060, 60, 9000, 200, 33_000, 5, 700];

fn payload(index: usize) -> Vec<u8> {
    vec![index as u8 | 1; LENGTHS[index * 5 % LENGTHS.len()] + index % 3]
}

/// Appends records and syncs them as `pattern` says: `s` one that is stored, `b` one that is not, `y` a
/// sync of what there is. Returns how many records were synced after how many operations.
fn write(disk: &CrashFileSystem, writer: &mut SegmentWriter, pattern: &str) -> Vec<(usize, usize)> {
    let mut synced = vec![(disk.operations(), 0)];
    let mut count = 0;
    for step in pattern.bytes() {
        let mode = if step == b's' {
            SyncMode::Sync
        } else {
            SyncMode::Buffered
        };
        if step != b'y' {
            writer.append_one(&payload(count), mode).unwrap();
            count += 1;
        }
        if step != b'b' {
            writer.sync().unwrap();
            synced.push((disk.operations(), count));
        }
    }
    synced
}

fn read_with(fs: &dyn FileSystem) -> Result<(Read, SegmentReader)> {
    let mut reader = SegmentReader::open(fs, path(), NUMBER)?;
    while reader.next()?.is_some() {}
    Ok((read(fs)?, reader))
}

/// One damage: a flipped bit, or this many zeros.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize),
    Zeros(usize, usize),
}

/// One in `share` of the damages to what stands in the note's page and behind it.
fn damages(end: usize, every: usize, share: usize) -> impl Iterator<Item = Damage> {
    let flips = (PAGE..end).step_by(every).map(Damage::Flip);
    let zeros = [512, PAGE].into_iter().flat_map(move |unit| {
        let places = (PAGE..end).step_by(unit);
        places.map(move |at| Damage::Zeros(at, unit))
    });
    flips.chain(zeros).step_by(share)
}

/// The damaged segment, unless nothing stood there.
fn damaged(bytes: &[u8], damage: Damage) -> Option<Vec<u8>> {
    let mut changed = bytes.to_vec();
    match damage {
        Damage::Flip(at) => changed[at] ^= 16,
        Damage::Zeros(at, unit) => changed[at..at + unit].fill(0),
    }
    Some(changed).filter(|changed| changed != bytes)
}

/// All that was synced is read, or that something is missing is said.
fn check(damaged: &[u8], sure: usize, context: &str) -> bool {
    let fs = with_bytes(damaged);
    let read = read(&fs).unwrap_or_else(|error| panic!("{error} {context}"));
    let appended = (0..).map(payload);
    assert!(
        appended.zip(&read.payloads).all(|(a, b)| a == *b),
        "{context}"
    );
    if matches!(read.end, SegmentEnd::Damaged { .. }) {
        return false;
    }
    assert!(
        read.payloads.len() >= sure,
        "{} of {sure}, {:?}: {context}",
        read.payloads.len(),
        read.end
    );
    true
}

/// At every moment, under every policy of what the device then holds.
fn sweep(pattern: &str, every: usize) -> (usize, usize) {
    use UnsyncedData::{Garbage, Kept, Lost, RandomSectors, TornTail};
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let mut writer = SegmentWriter::create(&disk, path(), HEADER, COPIED).unwrap();
    let synced = write(&disk, &mut writer, pattern);
    let end = (writer.bytes() as usize + 10 * PAGE).min(COPIED.segment_bytes as usize);
    let mut replay = disk.replay();
    // A debug build tries a share of it.
    let share = if cfg!(debug_assertions) { 29 } else { 1 };
    let mut counts = (0, 0);
    for operations in synced[0].0..=disk.operations() {
        let sure = synced.iter().rev().find(|(at, _)| *at <= operations);
        let sure = sure.map_or(0, |(_, count)| *count);
        for data in [Lost, Kept, RandomSectors, TornTail, Garbage] {
            let (names, seed) = (UnsyncedNames::Kept, operations as u64);
            let policy = ImagePolicy { data, names, seed };
            let image = file_bytes(&replay.image(operations, &policy));
            let context = format!("{pattern}: {operations} operations, {policy:?}");
            // A crash alone is never taken for damage.
            assert!(check(&image, sure, &context), "{context}");
            for damage in damages(end, every, share).skip(operations % 3) {
                let Some(damaged) = damaged(&image, damage) else {
                    continue;
                };
                let context = format!("{context}, {damage:?}");
                counts.0 += 1;
                counts.1 += usize::from(check(&damaged, sure, &context));
            }
        }
    }
    counts
}

#[test]
fn damage_to_the_very_last_sync_is_noticed_though_the_power_took_its_note() {
    let (mut all, mut whole) = (0, 0);
    for (pattern, every) in [
        ("ssssssssssssss", 311),
        ("ssbysbbssbsysss", 311),
        ("bbysssb", 97),
        ("sbs", 13),
    ] {
        let (points, kept) = sweep(pattern, every);
        (all, whole) = (all + points, whole + kept);
    }
    println!("damage after a power loss: points tried: {all}, of which nothing was lost: {whole}");
    assert!(whole > all / 2, "{whole} of {all}");
}

/// A writer that stored small groups, and what the device holds where the power takes the note.
fn without_its_note(count: usize, length: usize) -> (Vec<u8>, SegmentWriter) {
    let fs = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, COPIED).unwrap();
    for index in 0..count {
        writer
            .append_one(&vec![index as u8; length], SyncMode::Sync)
            .unwrap();
        writer.sync().unwrap();
    }
    let mut bytes = file_bytes(&fs);
    bytes[PAGE..2 * PAGE].fill(0);
    (bytes, writer)
}

#[test]
fn a_copy_stands_in_for_records_that_are_damaged_until_they_are_put_back() {
    for count in 1..60 {
        let (bytes, writer) = without_its_note(count, 100);
        let end = writer.bytes() as usize;
        let mut damaged = bytes.clone();
        damaged[end - 50] ^= 1;
        let fs = with_bytes(&damaged);
        let (read, reader) = read_with(&fs).unwrap();
        assert_eq!((read.payloads.len(), read.end_offset), (count, end as u64));
        assert!(reader.has_restored());
        assert_eq!(read.end, SegmentEnd::Clean, "{count}");
        // Reading alone changes nothing.
        assert_eq!(file_bytes(&fs), damaged);
        reader.put_back(&fs).unwrap();
        assert_eq!(file_bytes(&fs), bytes);
        let (read, reader) = read_with(&fs).unwrap();
        assert!(!reader.has_restored() && read.payloads.len() == count);
        // A writer may close it there: the end record leaves the copies whole.
        let header = HEADER;
        let mut writer =
            SegmentWriter::reopen(&fs, path(), header, read.end_offset, COPIED).unwrap();
        writer.seal(8).unwrap();
        let mut bytes = file_bytes(&fs);
        bytes[end - 50] ^= 1;
        let (read, _) = read_with(&with_bytes(&bytes)).unwrap();
        assert_eq!(
            (read.payloads.len(), read.end),
            (count, SegmentEnd::Sealed { next: 8 })
        );
    }
}

#[test]
fn copies_of_one_segment_say_nothing_in_another_or_elsewhere() {
    let (bytes, writer) = without_its_note(3, 100);
    let end = writer.bytes() as usize;
    let mut damaged = bytes.clone();
    damaged[end - 50] ^= 1;
    let copies = 3 * PAGE..4 * PAGE;
    let mut moved = damaged.clone();
    moved.copy_within(copies.clone(), 4 * PAGE);
    moved[copies.clone()].fill(0);
    let mut flipped = damaged;
    let newest = copies.clone().find(|&at| bytes[at] != 0).unwrap();
    flipped[newest + 60] ^= 1;
    // Two places are damaged here: what is left is the proof that the older copies hold.
    for bytes in [moved, flipped] {
        let read = read(&with_bytes(&bytes)).unwrap();
        assert_eq!((read.payloads.len(), read.end), (2, SegmentEnd::Torn));
    }
}

#[test]
fn a_group_and_its_copy_are_one_write_that_leaves_the_copy_before_it_alone() {
    let trace = esker_vfs::TraceFileSystem::new(std::sync::Arc::new(MemFileSystem::new()));
    let options = SegmentOptions {
        segment_bytes: 1 << 20,
        ..COPIED
    };
    let mut writer = SegmentWriter::create(&trace, path(), HEADER, options).unwrap();
    let mut before = 0..0;
    for index in 0..90usize {
        trace.clear();
        let length = LENGTHS[index % 7];
        writer.append_one(&vec![7; length], SyncMode::Sync).unwrap();
        let written = super::round_trips::written(&trace);
        let [(from, bytes)] = written[..] else {
            panic!("{written:?}")
        };
        // No page holds both, and what was copied before is not written again.
        assert!((from + bytes - 1) / 4096 > (writer.bytes() - 1) / 4096);
        let end = from + bytes;
        assert!(
            end <= before.start || from >= before.end,
            "{written:?} {before:?}"
        );
        before = end - (length as u64)..end;
        trace.clear();
        writer.sync().unwrap();
        let noted = trace.entries();
        assert_eq!(
            (noted.len(), noted[0].operation.offset),
            (1, [4096, 6144][index % 2]),
            "{noted:?}"
        );
    }
}

#[test]
fn a_sync_without_a_copy_has_a_durable_note() {
    for (options, length) in [
        (COPIED, 40_000),
        (SMALL, 10),
        (
            SegmentOptions {
                copied_syncs: true,
                ..SMALL
            },
            10,
        ),
    ] {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let mut writer = SegmentWriter::create(&disk, path(), HEADER, options).unwrap();
        writer.append_one(&vec![1; length], SyncMode::Sync).unwrap();
        writer.sync().unwrap();
        let policy = ImagePolicy {
            data: UnsyncedData::Lost,
            names: UnsyncedNames::Kept,
            seed: 1,
        };
        let image = disk.replay().image(disk.operations(), &policy);
        let mut bytes = file_bytes(&image);
        assert_eq!(read(&image).unwrap().payloads.len(), 1);
        bytes[FIRST as usize + 3] ^= 1;
        let read = read(&with_bytes(&bytes)).unwrap();
        assert!(
            matches!(read.end, SegmentEnd::Damaged { .. }),
            "{:?}",
            read.end
        );
    }
}

#[test]
fn a_reader_of_a_segment_in_use_follows_it_over_the_copies() {
    let fs = MemFileSystem::new();
    let options = SegmentOptions {
        segment_bytes: 1 << 20,
        ..COPIED
    };
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
    let mut reader = SegmentReader::open(&fs, path(), NUMBER).unwrap();
    for index in 0..200usize {
        let mode = if index % 7 == 3 {
            SyncMode::Buffered
        } else {
            SyncMode::Sync
        };
        assert!(reader.next_written().unwrap().is_none());
        writer
            .append_one(&vec![index as u8; index * 3], mode)
            .unwrap();
        if mode == SyncMode::Sync {
            writer.sync().unwrap();
        }
        let (kind, payload) = reader.next_written().unwrap().unwrap();
        assert_eq!((kind, payload.len()), (RecordType::Data, index * 3));
    }
    assert_eq!(read(&fs).unwrap().payloads.len(), 200);
}

/// Found by reading: notes of syncs that left copies were written in turns to both places, and so over the
/// stored note of an earlier sync. Where the power garbled that one in flight, and the page was damaged in
/// which a long record ended and everything behind it stood, the copies lay too far behind the beginning
/// of that record to be looked at, and all of it was a torn tail.
#[test]
fn the_stored_note_of_a_sync_is_not_overwritten_by_notes_that_are_not_stored() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let options = SegmentOptions {
        segment_bytes: 1 << 20,
        ..COPIED
    };
    let mut writer = SegmentWriter::create(&disk, path(), HEADER, options).unwrap();
    let long = 300_000 / PAGE * PAGE;
    writer
        .append_one(&vec![1; long], SyncMode::Buffered)
        .unwrap();
    writer.sync().unwrap();
    for _ in 0..5 {
        writer.append_one(b"small", SyncMode::Sync).unwrap();
        writer.sync().unwrap();
        let policy = ImagePolicy {
            names: UnsyncedNames::Kept,
            ..ImagePolicy::ONLY_SYNCED
        };
        let image = disk.image(disk.operations(), &policy);
        let (stored, written) = (file_bytes(&image), file_bytes(&disk));
        let in_flight = [PAGE, PAGE + PAGE / 2].map(|at| {
            let sector = at..at + 512;
            (sector.clone(), stored[sector.clone()] != written[sector])
        });
        for fates in 0..4 {
            let mut bytes = stored.clone();
            for (place, (sector, is_in_flight)) in in_flight.iter().enumerate() {
                if *is_in_flight && fates & (1 << place) != 0 {
                    bytes[sector.clone()].fill(0xa5);
                }
            }
            assert_eq!(read(&with_bytes(&bytes)).unwrap().end, SegmentEnd::Clean);
            let page = writer.bytes() as usize / PAGE * PAGE;
            assert!(page < FIRST as usize + 20 + long);
            bytes[page..page + PAGE].fill(0);
            let read = read(&with_bytes(&bytes)).unwrap();
            assert!(
                matches!(read.end, SegmentEnd::Damaged { .. }),
                "{fates}: {:?}",
                read.end
            );
        }
    }
}

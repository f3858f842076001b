//! Torn or lost (I4): every cut and every flipped bit of a small segment. Records below the
//! watermark are never silently given up; above it, a prefix comes back.

use esker_base::ErrorKind;

use super::*;

/// The segment of [`three_synced_and_two_not`], whole.
fn whole(options: SegmentOptions) -> (Vec<u8>, Read, u64) {
    let fs = MemFileSystem::new();
    let synced_bytes = three_synced_and_two_not(&fs, options);
    let whole = read(&fs).unwrap();
    assert_eq!((whole.payloads.len(), &whole.end), (5, &SegmentEnd::Clean));
    (file_bytes(&fs), whole, synced_bytes)
}

/// Checks what is read from a damaged copy: a prefix; and where it lacks a synced record, that this
/// is said. Returns whether it was.
fn check(bytes: &[u8], whole: &Read, context: &str) -> Option<SegmentEnd> {
    match read(&with_bytes(bytes)) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{context}");
            assert!(
                error.file().is_some() && error.offset().is_some(),
                "{context}"
            );
            None
        }
        Ok(read) => {
            let is_prefix = whole.payloads.starts_with(&read.payloads);
            assert!(is_prefix, "{context}");
            if let SegmentEnd::Damaged { offset, .. } = &read.end {
                assert_eq!(*offset, read.end_offset, "{context}");
            } else {
                assert!(
                    read.payloads.len() >= 3,
                    "{context}: lost silently: {:?}",
                    read.end
                );
            }
            Some(read.end)
        }
    }
}

#[test]
fn every_flipped_bit_of_a_preallocated_segment() {
    let (bytes, whole, synced_bytes) = whole(SMALL);
    let end = whole.end_offset as usize;
    // All of the records, and enough of what is around them.
    for bit in 4000 * 8..(end + 100) * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let at = bit / 8;
        let verdict = check(&damaged, &whole, &format!("bit {bit}"));
        match verdict {
            None => assert!(at < 4096),
            Some(SegmentEnd::Damaged {
                synced_bytes: said, ..
            }) => {
                assert!((at as u64) < synced_bytes, "byte {at}");
                // The note says all of it, also where the last watermark was hit.
                assert_eq!(said, synced_bytes, "byte {at}");
            }
            Some(SegmentEnd::Torn) => assert!(at as u64 >= synced_bytes, "byte {at}"),
            // Padding is not looked at: the records are what they were.
            Some(SegmentEnd::Clean) => assert!(at < end, "byte {at}"),
            Some(SegmentEnd::Sealed { .. }) => panic!("byte {at}"),
        }
    }
}

#[test]
fn every_cut_of_a_preallocated_segment_is_damage() {
    let (bytes, whole, _) = whole(SMALL);
    for length in 0..bytes.len() {
        match check(&bytes[..length], &whole, &format!("cut to {length}")) {
            None => assert!(length < 4096),
            Some(SegmentEnd::Damaged { reason, .. }) => assert!(
                reason.contains("cut from 12288") || reason.contains("had been synced"),
                "{reason}"
            ),
            other => panic!("cut to {length}: {other:?}"),
        }
    }
}

#[test]
fn a_cut_of_a_growing_segment_leaves_a_prefix_and_takes_nothing_synced_silently() {
    let (bytes, whole, synced_bytes) = whole(SegmentOptions::default());
    assert!(bytes.len() as u64 >= whole.end_offset);
    let mut counts = Vec::new();
    for length in 0..bytes.len() {
        match read(&with_bytes(&bytes[..length])) {
            Err(error) => assert!(length < 4096 && error.kind() == ErrorKind::Corruption),
            Ok(read) => {
                assert!(whole.payloads.starts_with(&read.payloads));
                let noted = length >= 4096 + 16;
                let is_damaged = matches!(read.end, SegmentEnd::Damaged { .. });
                assert_eq!(
                    is_damaged,
                    noted && (length as u64) < synced_bytes,
                    "{length}"
                );
                counts.push(read.payloads.len());
            }
        }
    }
    assert!(counts.is_sorted() && counts.first() == Some(&0) && counts.last() >= Some(&4));
}

#[test]
fn every_zeroed_sector_is_noticed() {
    let fs = MemFileSystem::new();
    let options = SegmentOptions {
        segment_bytes: 1 << 20,
        ..SMALL
    };
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
    for number in 0..200u32 {
        writer
            .append_one(&number.to_le_bytes().repeat(50), SyncMode::Sync)
            .unwrap();
        if number % 10 == 9 {
            writer.sync().unwrap();
        }
    }
    let (bytes, whole) = (file_bytes(&fs), read(&fs).unwrap());
    assert_eq!(
        (whole.payloads.len(), whole.synced_bytes),
        (200, writer.synced_bytes())
    );
    for sector in FIRST as usize / 512..whole.end_offset as usize / 512 {
        let mut damaged = bytes.clone();
        damaged[sector * 512..][..512].fill(0);
        let read = read(&with_bytes(&damaged)).unwrap();
        assert!(whole.payloads.starts_with(&read.payloads));
        let SegmentEnd::Damaged {
            offset,
            synced_bytes,
            ..
        } = read.end
        else {
            panic!("sector {sector}: {:?}", read.end)
        };
        assert!(offset <= sector as u64 * 512 + 511 && synced_bytes == whole.synced_bytes);
    }
}

/// Once a log whose last page was zeroed looked like one that had never been written further, and its
/// synced records went without a word.
#[test]
fn zeros_from_anywhere_to_the_end_take_nothing_synced_silently() {
    for mapped in [false, true] {
        let options = SegmentOptions { mapped, ..SMALL };
        let (bytes, whole, synced_bytes) = whole(options);
        for at in FIRST as usize..whole.end_offset as usize + 8 {
            let mut damaged = bytes.clone();
            damaged[at..].fill(0);
            let lost = bytes[at..synced_bytes.max(at as u64) as usize].iter();
            let is_loss = lost.clone().any(|byte| *byte != 0);
            let end = check(&damaged, &whole, &format!("zeros from {at}"));
            match end {
                Some(SegmentEnd::Damaged {
                    synced_bytes: said, ..
                }) => assert_eq!((said, is_loss), (synced_bytes, true), "{at}"),
                // A padding byte was a zero before.
                end => assert!(!is_loss, "{at}: {end:?}"),
            }
        }
    }
}

/// Everything that verifies, with damage passed over.
fn salvage(mut reader: SegmentReader) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    loop {
        while let Some(payload) = reader.next().unwrap() {
            payloads.push(payload.to_vec());
        }
        if reader.skip_damage().unwrap().is_none() {
            return payloads;
        }
    }
}

#[test]
fn all_records_but_the_damaged_one_are_salvaged() {
    let (bytes, whole, synced_bytes) = whole(SMALL);
    let mut passed_over = 0;
    for at in FIRST as usize..synced_bytes as usize {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let fs = with_bytes(&damaged);
        let found = salvage(SegmentReader::open(&fs, path(), NUMBER).unwrap());
        let mut left = whole.payloads.iter();
        assert!(
            found.iter().all(|payload| left.any(|p| p == payload)),
            "byte {at}"
        );
        assert!(found.len() >= whole.payloads.len() - 1, "byte {at}");
        passed_over += usize::from(found.len() < whole.payloads.len());
    }
    assert!(passed_over > 60, "{passed_over}");
    for header in [0, 30, 4090] {
        let mut damaged = bytes.clone();
        damaged[header] ^= 1;
        let fs = with_bytes(&damaged);
        assert!(SegmentReader::open(&fs, path(), NUMBER).is_err());
        let reader = SegmentReader::open_without_header(&fs, path(), NUMBER).unwrap();
        assert_eq!(salvage(reader), whole.payloads);
        // Under another name none of them is one.
        let reader = SegmentReader::open_without_header(&fs, path(), 8).unwrap();
        assert!(salvage(reader).is_empty());
    }
}

/// A read behind the end is an error even of no bytes: salvage of an emptied segment failed there once.
#[test]
fn what_is_left_of_a_cut_segment_is_salvaged_without_reading_behind_its_end() {
    let (bytes, ..) = whole(SMALL);
    for length in [0, 1, 4095, 4096, 4097, 6150, 8192, 8200] {
        let fs = std::sync::Arc::new(with_bytes(&bytes[..length]));
        let trace = esker_vfs::TraceFileSystem::new(fs);
        let reader = SegmentReader::open_without_header(&trace, path(), NUMBER).unwrap();
        assert!(salvage(reader).is_empty(), "{length}");
        let reads = trace.entries().into_iter().map(|entry| entry.operation);
        let mut reads = reads.filter(|read| read.kind == esker_vfs::OperationKind::Read);
        assert!(
            reads.all(|read| read.offset + read.bytes <= length as u64),
            "{length}"
        );
    }
}

#[test]
fn a_note_that_is_lost_or_of_another_segment_says_nothing() {
    let (bytes, whole, _) = whole(SMALL);
    let mut other = bytes.clone();
    other[4096..4112].copy_from_slice(&esker_wal::format::encode_note(8, 4096, 9000));
    let mut zeroed = bytes.clone();
    zeroed[4096..8192].fill(0);
    let mut garbage = bytes;
    garbage[4096..8192].fill(0xa5);
    for bytes in [other, zeroed, garbage] {
        assert_eq!(read(&with_bytes(&bytes)).unwrap(), whole);
    }
}

#[test]
fn no_note_is_ahead_of_its_sync() {
    let fs = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, SMALL).unwrap();
    let noted = || {
        let bytes = file_bytes(&fs);
        let said =
            [4096, 6144].map(|at| esker_wal::format::decode_note(&bytes[at..], NUMBER, at as u64));
        said.into_iter().flatten().max()
    };
    assert_eq!(noted(), None);
    writer.append_one(b"x", SyncMode::Sync).unwrap();
    assert_eq!(noted(), None);
    writer.sync().unwrap();
    assert_eq!(noted(), Some(FIRST + 24));
    writer.append_one(b"y", SyncMode::Buffered).unwrap();
    writer.seal(8).unwrap();
    assert_eq!(noted(), Some(FIRST + 24));
    writer.sync().unwrap();
    assert_eq!(noted(), Some(writer.synced_bytes()));
}

#[test]
fn a_sector_that_never_arrived_in_the_unsynced_part_is_torn_and_not_clean() {
    let fs = MemFileSystem::new();
    let options = SegmentOptions {
        segment_bytes: 1 << 16,
        ..SMALL
    };
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
    writer.append_one(b"synced", SyncMode::Sync).unwrap();
    writer.sync().unwrap();
    for _ in 0..50 {
        writer.append_one(&[9; 100], SyncMode::Buffered).unwrap();
    }
    let mut bytes = file_bytes(&fs);
    bytes[FIRST as usize + 512..][..512].fill(0);
    let read = read(&with_bytes(&bytes)).unwrap();
    // Later records are intact: a writer that went on before them would call them back to life.
    assert_eq!(read.end, SegmentEnd::Torn);
    assert!(read.payloads.len() > 1 && read.payloads.len() < 10);
}

#[test]
fn a_record_of_another_place_or_segment_is_none() {
    let (mut bytes, whole, _) = whole(SMALL);
    let (start, end) = (FIRST as usize, whole.end_offset as usize);
    let displaced = bytes[start..end].to_vec();
    bytes[end..end + displaced.len()].copy_from_slice(&displaced);
    let read = read(&with_bytes(&bytes)).unwrap();
    assert_eq!(
        (read.payloads, read.end),
        (whole.payloads, SegmentEnd::Torn)
    );
}

#[test]
fn a_header_of_another_segment_or_none_at_all_names_the_file() {
    let fs = MemFileSystem::new();
    three_synced_and_two_not(&fs, SMALL);
    let error = SegmentReader::open(&fs, path(), 8).unwrap_err();
    assert_eq!(
        (error.kind(), error.file(), error.offset()),
        (ErrorKind::Corruption, Some(path()), Some(32))
    );
    let error = SegmentReader::open(&fs, Path::new("none.wal"), 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let error = SegmentWriter::reopen(&fs, path(), HEADER, 4097, SMALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// What the note and the watermark are for, and where their power ends. A sync leaves nothing else behind: a
/// device that has lost both with the power holds, byte for byte, what a sync that never returned would have
/// left, and a damaged record is told from one that did not arrive by either of them alone.
#[test]
fn either_the_note_or_the_watermark_tells_damage_from_a_sync_that_never_returned() {
    let fs = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, SMALL).unwrap();
    writer.append_one(b"first", SyncMode::Sync).unwrap();
    writer.sync().unwrap();
    let damaged_at = writer.bytes() as usize + 24;
    writer.append_one(&[1; 600], SyncMode::Buffered).unwrap();
    writer.append_one(b"last", SyncMode::Buffered).unwrap();
    let on_its_way = file_bytes(&fs);
    let watermark = writer.bytes() as usize..writer.bytes() as usize + 32;
    let note = 6144..6160;
    writer.sync().unwrap();
    let returned = file_bytes(&fs);

    for (has_note, has_watermark) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut left = returned.clone();
        for (range, is_left) in [(&note, has_note), (&watermark, has_watermark)] {
            if !is_left {
                left[range.clone()].copy_from_slice(&on_its_way[range.clone()]);
            }
        }
        let is_proven = has_note || has_watermark;
        assert_eq!(left == on_its_way, !is_proven);
        assert_eq!(read(&with_bytes(&left)).unwrap().payloads.len(), 3);
        left[damaged_at] ^= 1;
        let read = read(&with_bytes(&left)).unwrap();
        assert_eq!(read.payloads, [b"first"]);
        match read.end {
            SegmentEnd::Damaged { offset, .. } => {
                assert!(is_proven);
                assert_eq!(offset, damaged_at as u64 - 24);
            }
            end => assert!(!is_proven && end == SegmentEnd::Torn, "{end:?}"),
        }
    }
}

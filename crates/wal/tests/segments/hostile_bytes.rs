//! Bytes are hostile (I10): a reader ends on any file, and what it returns was appended.

use esker_wal::format::{HeaderPage, RecordType, encode_record_header};
use proptest::prelude::*;

use super::*;

/// A valid header page of the time before there were notes, then `records`.
fn segment(segment_bytes: u64, records: &[u8]) -> Vec<u8> {
    let page = HeaderPage {
        number: NUMBER,
        segment_bytes,
        ..HeaderPage::default()
    };
    let mut bytes = page.encode();
    bytes.extend_from_slice(records);
    bytes
}

#[test]
fn a_length_beyond_the_file_is_not_believed() {
    // A header that verifies and claims two gigabytes, in a file of a few bytes.
    let claimed = vec![0; 1 << 20];
    let mut header = encode_record_header(NUMBER, 4096, RecordType::Data, &claimed).to_vec();
    header.extend_from_slice(&[1; 100]);
    for segment_bytes in [0, 4096 + 120, 1 << 40] {
        let read = read(&with_bytes(&segment(segment_bytes, &header))).unwrap();
        assert_eq!(read.payloads.len(), 0);
        assert_ne!(read.end, SegmentEnd::Clean);
    }
}

#[test]
fn a_watermark_that_lies_below_is_no_damage_and_one_above_is() {
    for (synced_bytes, is_damaged) in [(0u64, false), (4096, false), (4097, true), (u64::MAX, true)]
    {
        let payload = synced_bytes.to_le_bytes();
        let mut records = vec![0xaa; 64];
        records.extend(encode_record_header(
            NUMBER,
            4160,
            RecordType::Watermark,
            &payload,
        ));
        records.extend(payload);
        let read = read(&with_bytes(&segment(0, &records))).unwrap();
        assert_eq!(
            matches!(read.end, SegmentEnd::Damaged { .. }),
            is_damaged,
            "{synced_bytes}"
        );
    }
}

#[test]
fn a_type_of_a_later_version_is_skipped_or_refused_as_its_number_says() {
    use esker_base::checksum::checksum;
    for (record_type, skipped) in [(4u8, false), (127, false), (128, true), (255, true)] {
        let mut first =
            encode_record_header(NUMBER, 4096, RecordType::Data, b"123456789abc").to_vec();
        first[8] = record_type;
        let check = checksum(&first[4..20], NUMBER ^ 4096u64.rotate_left(32)) as u32;
        first[..4].copy_from_slice(&check.to_le_bytes());
        first.extend_from_slice(b"123456789abc");
        first.extend(encode_record_header(
            NUMBER,
            4128,
            RecordType::Data,
            b"123456789abc",
        ));
        first.extend_from_slice(b"123456789abc");
        match read(&with_bytes(&segment(0, &first))) {
            Ok(read) => assert!(skipped && read.payloads == [b"123456789abc"]),
            Err(error) => {
                assert!(!skipped && error.kind() == esker_base::ErrorKind::Unsupported);
                assert_eq!(error.offset(), Some(4096));
            }
        }
    }
}

proptest! {
    #[test]
    fn any_file_ends(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        prop_assert!(read(&with_bytes(&bytes)).is_err());
    }

    #[test]
    fn any_records_end(
        records in proptest::collection::vec(any::<u8>(), 0..3000),
        segment_bytes in prop_oneof![Just(0u64), Just(8192), any::<u64>()],
    ) {
        let read = read(&with_bytes(&segment(segment_bytes, &records))).unwrap();
        prop_assert!(read.payloads.is_empty());
        prop_assert_eq!(read.end_offset, 4096);
    }

    #[test]
    fn any_mutation_leaves_a_prefix(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..12),
        synced in any::<u16>(),
        mutations in proptest::collection::vec((4096usize..12288, any::<u8>()), 1..6),
    ) {
        let fs = MemFileSystem::new();
        let mut writer = SegmentWriter::create(&fs, path(), HEADER, SMALL).unwrap();
        for (at, payload) in payloads.iter().enumerate() {
            writer.append_one(payload, SyncMode::Buffered).unwrap();
            if synced >> at & 1 == 1 {
                writer.sync().unwrap();
            }
        }
        let mut bytes = file_bytes(&fs);
        for (at, byte) in mutations {
            bytes[at] = byte;
        }
        let read = read(&with_bytes(&bytes)).unwrap();
        prop_assert!(payloads.starts_with(&read.payloads));
        if !matches!(read.end, SegmentEnd::Damaged { .. }) {
            // Watermarks that are left vouch for everything below them.
            prop_assert!(read.synced_bytes <= read.end_offset);
        }
    }
}

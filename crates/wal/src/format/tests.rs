//! The bytes of a segment, at their edges.

use super::*;

fn page() -> HeaderPage {
    HeaderPage {
        number: 7,
        previous: 6,
        first_sequence: 1000,
        segment_bytes: 1 << 20,
        flags: FLAG_RECYCLED,
        ..HeaderPage::default()
    }
}

#[test]
fn a_header_page_round_trips_and_no_flipped_bit_passes() {
    let bytes = page().encode();
    assert_eq!(bytes.len(), HEADER_PAGE_BYTES);
    assert_eq!(HeaderPage::decode(&bytes).unwrap(), page());
    for bit in 0..HEADER_PAGE_BYTES * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = HeaderPage::decode(&damaged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "bit {bit}");
    }
    assert!(HeaderPage::decode(&bytes[..HEADER_PAGE_BYTES - 1]).is_err());
}

#[test]
fn what_a_later_version_must_not_have_read_is_unsupported() {
    for (at, kind) in [
        (8, Some(ErrorKind::Unsupported)),
        (16, None),
        (20, None),
        (24, Some(ErrorKind::Unsupported)),
    ] {
        let mut bytes = page().encode();
        bytes[at] ^= 0x40;
        let check = checksum(&bytes[..CHECKSUM_AT], 0);
        bytes[CHECKSUM_AT..].copy_from_slice(&check.to_le_bytes());
        assert_eq!(
            HeaderPage::decode(&bytes).err().map(|error| error.kind()),
            kind,
            "byte {at}"
        );
    }
}

#[test]
fn a_record_verifies_only_where_it_was_written() {
    let header = encode_record_header(7, 4096, RecordType::Data, b"payload");
    let decoded = RecordHeader::decode(&header, 7, 4096).unwrap();
    assert!(decoded.verifies(b"payload") && !decoded.verifies(b"payloae"));
    assert!(!decoded.verifies(b"payloa") && !decoded.verifies(b"payload\0"));
    assert_eq!((decoded.record_type, decoded.record_bytes()), (1, 32));
    for (number, offset) in [(8, 4096), (7, 4104), (7, 0), (4096, 7), (0, 0)] {
        assert_eq!(RecordHeader::decode(&header, number, offset), None);
    }
    for bit in 0..RECORD_HEADER_BYTES * 8 {
        let mut damaged = header;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(RecordHeader::decode(&damaged, 7, 4096), None, "bit {bit}");
    }
}

#[test]
fn records_are_padded_to_their_alignment() {
    for (payload, record) in [
        (0, 24),
        (4, 24),
        (5, 32),
        (12, 32),
        (13, 40),
        (MAX_PAYLOAD_BYTES, (1 << 31) + 24),
    ] {
        assert_eq!(record_bytes(payload), record);
    }
    assert_eq!(
        record_bytes(encode_watermark(0).len()),
        WATERMARK_RECORD_BYTES
    );
    assert_eq!(record_bytes(encode_end(0, 0).len()), END_RECORD_BYTES);
}

#[test]
fn zeros_and_the_engines_own_payloads() {
    assert_eq!(
        RecordHeader::decode(&[0; RECORD_HEADER_BYTES], 7, 4096),
        None
    );
    let watermark = SyncedRecord::decode(2, &encode_watermark(9));
    assert_eq!(
        watermark,
        Some(SyncedRecord {
            synced_bytes: 9,
            end: None
        })
    );
    let end = SyncedRecord::decode(3, &encode_end(8, 9));
    assert_eq!(
        end,
        Some(SyncedRecord {
            synced_bytes: 9,
            end: Some(8)
        })
    );
    for (record_type, length) in [(1, 8), (2, 16), (2, 0), (3, 8), (4, 8), (200, 8)] {
        assert_eq!(SyncedRecord::decode(record_type, &vec![0; length]), None);
    }
}

//! Log segments: arbitrary files, and files that a writer wrote and something damaged.

use std::path::Path;

use esker_vfs::{FileSystem, MemFileSystem};
use esker_wal::{
    SegmentEnd, SegmentHeader, SegmentOptions, SegmentReader, SegmentWriter, SyncMode,
};

const NUMBER: u64 = 7;

/// Bytes that begin with an even one are a segment as they stand; with an odd one, instructions for
/// a segment and its damage.
pub fn wal_reader(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    let fs = MemFileSystem::new();
    let path = Path::new("/000007.log");
    if kind % 2 == 0 {
        let file = fs.create(path).expect("a file in memory");
        file.write_at(0, data).expect("a file in memory");
        read(&fs, path);
        salvage(&fs, path);
    } else {
        damaged(&fs, path, data);
    }
}

/// Reads to the end. Every record takes bytes of the file, so that there is an end.
fn read(fs: &MemFileSystem, path: &Path) -> Option<(Vec<Vec<u8>>, SegmentEnd)> {
    let mut reader = SegmentReader::open(fs, path, NUMBER).ok()?;
    let file_bytes = fs.metadata(path).expect("it was opened").bytes;
    let mut records = Vec::new();
    let mut payload_bytes = 0;
    while let Some(payload) = reader.next().ok()? {
        payload_bytes += payload.len() as u64;
        records.push(payload.to_vec());
        assert!(payload_bytes <= file_bytes && reader.end_offset() <= file_bytes);
    }
    let end = reader.outcome().expect("an end has an outcome").clone();
    assert!(reader.next().ok()?.is_none(), "an end stays the end");
    Some((records, end))
}

/// What salvage finds: records that lie in the file one behind the other.
fn salvage(fs: &MemFileSystem, path: &Path) -> Option<Vec<Vec<u8>>> {
    let mut reader = SegmentReader::open_without_header(fs, path, NUMBER).ok()?;
    let file_bytes = fs.metadata(path).expect("it was opened").bytes;
    let mut records = Vec::new();
    let mut end_offset = reader.end_offset();
    while reader.skip_damage().ok()?.is_some() {
        while let Some(payload) = reader.next().ok()? {
            records.push(payload.to_vec());
        }
        assert!(reader.end_offset() > end_offset && reader.end_offset() <= file_bytes);
        end_offset = reader.end_offset();
    }
    Some(records)
}

/// Instructions, three bytes each: append a record of n bytes, sync, or seal; after them, pairs of
/// place and byte to overwrite. Whatever was overwritten, what is read back is a prefix of what was
/// appended.
fn damaged(fs: &MemFileSystem, path: &Path, data: &[u8]) {
    let header = SegmentHeader {
        number: NUMBER,
        first_sequence: 1,
        previous: 0,
    };
    let options = SegmentOptions::default();
    let mut writer = SegmentWriter::create(fs, path, header, options).expect("a file in memory");
    let mut appended: Vec<Vec<u8>> = Vec::new();
    let mut changes = Vec::new();
    for (index, instruction) in data.chunks_exact(3).take(64).enumerate() {
        let [what, high, low] = [instruction[0], instruction[1], instruction[2]];
        let amount = u64::from(high) << 8 | u64::from(low);
        match what % 8 {
            0..=3 => {
                let payload = vec![index as u8; amount as usize];
                writer
                    .append_one(&payload, SyncMode::Buffered)
                    .expect("a file in memory");
                appended.push(payload);
            }
            4 => writer.sync().expect("a file in memory"),
            _ => changes.push((amount, what)),
        }
    }
    let written = writer.bytes();
    drop(writer);
    let file = fs.open_write(path).expect("it was written");
    for (place, byte) in &changes {
        file.write_at(place % written, &[*byte])
            .expect("a file in memory");
    }
    let mut left = appended.iter();
    for record in salvage(fs, path).unwrap_or_default() {
        assert!(
            left.any(|appended| *appended == record),
            "salvaged out of nothing"
        );
    }
    if let Some((records, end)) = read(fs, path) {
        assert!(records.len() <= appended.len());
        assert_eq!(records, appended[..records.len()]);
        let lost = records.len() < appended.len();
        assert!(
            !lost || end != SegmentEnd::Clean,
            "lost records look like a clean end"
        );
    } else {
        assert!(!changes.is_empty(), "an undamaged segment is refused");
    }
}

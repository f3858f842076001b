//! Segments written and read back through the public interface, over a file system in memory: what
//! comes back after clean ends, torn ends, damage, recycling and failures.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod copies;
mod crashes;
mod damage;
mod failures;
mod golden;
mod growing;
mod hostile_bytes;
mod recycling;
mod round_trips;
mod whole_pages;

use std::path::Path;

use esker_base::Result;
use esker_vfs::{FileSystem, MemFileSystem};
use esker_wal::{
    RecordType, SegmentEnd, SegmentHeader, SegmentOptions, SegmentReader, SegmentWriter, SyncMode,
};

const NUMBER: u64 = 7;
const HEADER: SegmentHeader = SegmentHeader {
    number: NUMBER,
    first_sequence: 1000,
    previous: 6,
};
/// Where the first record stands, behind the header page and the note's.
const FIRST: u64 = 8192;
const SMALL: SegmentOptions = SegmentOptions {
    segment_bytes: 12288,
    mapped: false,
    zero_ahead_bytes: 0,
    copied_syncs: false,
    may_grow: false,
};

fn path() -> &'static Path {
    Path::new("000007.wal")
}

/// What a reader says of a segment.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    payloads: Vec<Vec<u8>>,
    end: SegmentEnd,
    end_offset: u64,
    synced_bytes: u64,
}

fn read(fs: &dyn FileSystem) -> Result<Read> {
    let mut reader = SegmentReader::open(fs, path(), NUMBER)?;
    let mut payloads = Vec::new();
    while let Some(payload) = reader.next()? {
        payloads.push(payload.to_vec());
    }
    assert_eq!(reader.next()?, None, "the end stays the end");
    let end = reader.outcome().cloned().unwrap();
    let (end_offset, synced_bytes) = (reader.end_offset(), reader.synced_bytes());
    Ok(Read {
        payloads,
        end,
        end_offset,
        synced_bytes,
    })
}

fn file_bytes(fs: &dyn FileSystem) -> Vec<u8> {
    let file = fs.open_read(path()).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A file system with nothing but these bytes as the segment.
fn with_bytes(bytes: &[u8]) -> MemFileSystem {
    let fs = MemFileSystem::new();
    fs.create(path()).unwrap().write_at(0, bytes).unwrap();
    fs
}

/// Three synced records, then two that were not; the offset below which all was synced.
fn three_synced_and_two_not(fs: &dyn FileSystem, options: SegmentOptions) -> u64 {
    let mut writer = SegmentWriter::create(fs, path(), HEADER, options).unwrap();
    writer
        .append(&[b"first", b"the second"], SyncMode::Sync)
        .unwrap();
    writer.sync().unwrap();
    writer
        .append_one(b"third, of more than one word", SyncMode::Sync)
        .unwrap();
    writer.sync().unwrap();
    writer.append_one(b"fourth", SyncMode::Buffered).unwrap();
    writer.append_one(b"fifth", SyncMode::Buffered).unwrap();
    writer.synced_bytes()
}

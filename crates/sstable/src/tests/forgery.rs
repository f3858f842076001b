//! Tables whose checksums all match and whose contents are wrong all the same, as a bug in a writer
//! or memory that flips a bit before the checksum would make them: verification finds each.

use esker_base::checksum::StreamingChecksum;

use super::*;
use crate::block::FLAG_UNIFORM_TRAILER;
use crate::block_io::{self, TRAILER_BYTES};
use crate::format::{BlockHandle, FOOTER_BYTES, Footer};

const NUMBER: u64 = 3;

/// A table of uncompressed slot blocks.
fn sample(filter: FilterKind) -> (Shelf, TableMeta) {
    let shelf = Shelf::new(1 << 20);
    let options = TableOptions {
        block_bytes: 256,
        compression: Compression::None,
        filter,
        ..TableOptions::default()
    };
    let meta = shelf.write(NUMBER, &options, &numbered(40, 20));
    (shelf, meta)
}

/// Changes the payload of the block at `handle`, keeps its length, and makes all checksums match.
fn forge(shelf: &Shelf, handle: BlockHandle, change: impl FnOnce(&mut [u8])) {
    let mut contents = shelf.contents(NUMBER);
    let start = handle.offset as usize;
    let end = start + handle.bytes as usize;
    let mut payload = contents[start..end - TRAILER_BYTES].to_vec();
    change(&mut payload);
    let mut sealed = Vec::new();
    block_io::seal(
        &payload,
        Compression::None,
        NUMBER,
        handle.offset,
        &mut sealed,
    );
    contents[start..end].copy_from_slice(&sealed);
    let footer_at = contents.len() - FOOTER_BYTES;
    let mut footer = Footer::decode(&contents[footer_at..], contents.len() as u64).unwrap();
    let mut sum = StreamingChecksum::new(0);
    sum.update(&contents[..footer_at]);
    footer.file_checksum = sum.value();
    contents[footer_at..].copy_from_slice(&footer.encode());
    shelf.replace(NUMBER, &contents);
}

fn data_block(shelf: &Shelf, meta: &TableMeta, place: usize) -> BlockHandle {
    let blocks = shelf.open(meta).unwrap().block_summaries().unwrap();
    BlockHandle {
        offset: blocks[place].offset,
        bytes: blocks[place].stored_bytes,
    }
}

fn verify(shelf: &Shelf) -> Result<()> {
    // Opened without what the manifest knows: its checksum would tell at once.
    let blocks = Arc::clone(&shelf.blocks);
    let opened = Table::open(&shelf.fs, &shelf.path(NUMBER), NUMBER, blocks);
    opened.and_then(|table| table.verify(&mut |_| true))
}

#[track_caller]
fn refused(shelf: &Shelf, words: &str) {
    let said = verify(shelf).unwrap_err().to_string();
    assert!(said.contains(words), "{words:?} is not in {said:?}");
}

/// Where the prefix of entry `place` stands in a slot block: docs/format/block.md.
fn prefix_at(payload: &[u8], place: usize) -> std::ops::Range<usize> {
    let common = u32::from_le_bytes(payload[8..12].try_into().unwrap()) as usize;
    let is_uniform = payload[1] & FLAG_UNIFORM_TRAILER != 0;
    let slots_at = 12 + if is_uniform { 8 } else { 0 } + common;
    let at = slots_at + place * 10;
    at..at + 8
}

#[test]
fn forging_without_a_change_is_no_damage() {
    let (shelf, meta) = sample(FilterKind::Blocked);
    let before = shelf.contents(NUMBER);
    forge(&shelf, data_block(&shelf, &meta, 1), |_| {});
    assert_eq!(shelf.contents(NUMBER), before);
    verify(&shelf).unwrap();
}

#[test]
fn a_filter_that_misses_a_key_is_found() {
    let (shelf, meta) = sample(FilterKind::Blocked);
    let filter = shelf.open(&meta).unwrap().footer.filter;
    // The first line of bits; what kind of filter it is stands at its end.
    forge(&shelf, filter, |payload| payload[..32].fill(0));
    refused(&shelf, "does not pass its filter");
}

#[test]
fn keys_out_of_order_are_found() {
    let (shelf, meta) = sample(FilterKind::Blocked);
    forge(&shelf, data_block(&shelf, &meta, 0), |payload| {
        // Two records of one key, the older one first.
        let later = payload[prefix_at(payload, 2)].to_vec();
        let at = prefix_at(payload, 1);
        payload[at].copy_from_slice(&later);
    });
    refused(&shelf, "do not ascend");
}

#[test]
fn a_key_that_lies_beyond_its_block_is_found() {
    // Without a filter, which would not know the key.
    let (shelf, meta) = sample(FilterKind::None);
    let last = shelf.open(&meta).unwrap().block_summaries().unwrap()[0].entries - 1;
    forge(&shelf, data_block(&shelf, &meta, 0), |payload| {
        let at = prefix_at(payload, last as usize);
        // The first of the suffix's bytes: the number is stored the other way round.
        payload[at.end - 1] = b'~';
    });
    refused(&shelf, "beyond the separator");
}

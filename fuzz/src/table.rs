//! Tables whose checksums are right, whatever they hold: the bytes are taken for a table file and
//! every checksum in it is made to match, so that the fuzzer gets behind them. The layout is that of
//! `docs/format/table.md`.

use std::path::Path;
use std::sync::Arc;

use esker_base::checksum::{checksum, key_hash};
use esker_base::coding::{Decoder, u64_at};
use esker_base::internal_key::compare;
use esker_base::iterator::InternalIterator;
use esker_base::{Result, Trailer};
use esker_sstable::{BlockCache, FillCache, Table, TableIter};
use esker_vfs::{FileSystem, MemFileSystem};

const NUMBER: u64 = 7;
pub(crate) const FOOTER_BYTES: usize = 120;
/// Compression and checksum behind the payload of a block.
pub(crate) const TRAILER_BYTES: usize = 9;

/// A table opens or is refused; what opened can be searched, walked, summarised and verified; and
/// one that passes verification answers consistently.
pub fn table(data: &[u8]) {
    examine(data.to_vec());
}

/// What [`table`] does, once every checksum was made right.
pub(crate) fn examine(mut bytes: Vec<u8>) {
    mend(&mut bytes);
    let fs = MemFileSystem::new();
    let path = Path::new("/000007.sst");
    let file = fs.create(path).expect("a file in memory");
    file.write_at(0, &bytes).expect("a file in memory");
    let Ok(table) = Table::open(&fs, path, NUMBER, BlockCache::new(1 << 20)) else {
        return;
    };
    let table = Arc::new(table);
    let _ = table.origin();
    let is_intact = table.verify(&mut |_| true).is_ok();
    let summaries = table.block_summaries();
    assert!(summaries.is_ok() || !is_intact, "{summaries:?}");
    for key in table.block_boundaries(8) {
        assert!(table.approximate_offset(&key) <= bytes.len() as u64 || !is_intact);
        let found = table.get(&key, key_hash(&key), u64::MAX >> 8);
        assert!(found.is_ok() || !is_intact);
        let _ = table.range_tombstones().covering_sequence(&key, u64::MAX);
    }
    let forwards = walk(&table, bytes.len(), true);
    let backwards = walk(&table, bytes.len(), false);
    if is_intact {
        let forwards = forwards.expect("a verified table");
        let mut backwards = backwards.expect("a verified table");
        backwards.reverse();
        assert_eq!(forwards, backwards);
        check_records(&table, &forwards);
    }
}

type Record = (Vec<u8>, Trailer);

/// Every record. An entry takes a byte of its block at least, and a compressed byte stands for at
/// most 256, so that there is an end.
fn walk(table: &Arc<Table>, file_bytes: usize, forwards: bool) -> Result<Vec<Record>> {
    let mut iterator = TableIter::over(Arc::clone(table), FillCache::Yes);
    let mut records = Vec::new();
    if forwards {
        iterator.seek_to_first()?
    } else {
        iterator.seek_to_last()?
    }
    while iterator.valid() {
        let _ = (iterator.value().first(), iterator.value().last());
        records.push((iterator.user_key().to_vec(), iterator.trailer()));
        assert!(
            records.len() <= 256 * file_bytes,
            "more records than there is room for"
        );
        if forwards {
            iterator.next()?
        } else {
            iterator.prev()?
        }
    }
    Ok(records)
}

fn check_records(table: &Arc<Table>, records: &[Record]) {
    assert_eq!(records.len() as u64, table.properties().meta.entries);
    assert!(records.is_sorted_by(|a, b| compare(&a.0, a.1, &b.0, b.1).is_lt()));
    let mut iterator = TableIter::over(Arc::clone(table), FillCache::No);
    for (key, trailer) in records {
        let found = table.get(key, key_hash(key), trailer.sequence());
        let found = found
            .expect("a verified table")
            .expect("a key that is there");
        assert_eq!(found.trailer.sequence(), trailer.sequence());
        iterator.seek(key, *trailer).expect("a verified table");
        assert_eq!(
            (iterator.user_key(), iterator.trailer()),
            (&key[..], *trailer)
        );
    }
}

/// Makes the number, the version, the magic and every checksum right.
fn mend(bytes: &mut [u8]) {
    let Some(footer_at) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return;
    };
    let footer = bytes[footer_at..].to_vec();
    let handle = |at| {
        (
            u64_at(&footer, at).unwrap_or(0),
            u64_at(&footer, at + 8).unwrap_or(0),
        )
    };
    for at in [0, 16, 32, 48] {
        mend_block(&mut bytes[..footer_at], handle(at));
    }
    let is_partitioned = footer[88] == 2;
    let top = blocks_of_index(&bytes[..footer_at], handle(0));
    for block in top {
        mend_block(&mut bytes[..footer_at], block);
        if is_partitioned {
            for block in blocks_of_index(&bytes[..footer_at], block) {
                mend_block(&mut bytes[..footer_at], block);
            }
        }
    }
    let (blocks, footer) = bytes.split_at_mut(footer_at);
    footer[64..72].copy_from_slice(&NUMBER.to_le_bytes());
    footer[72..76].copy_from_slice(&1u32.to_le_bytes());
    footer[76..88].fill(0);
    footer[92..100].copy_from_slice(&checksum(blocks, 0).to_le_bytes());
    let sum = checksum(&footer[..104], NUMBER);
    footer[104..112].copy_from_slice(&sum.to_le_bytes());
    footer[112..].copy_from_slice(b"eskerTBL");
}

fn stored(bytes: &[u8], (offset, length): (u64, u64)) -> Option<std::ops::Range<usize>> {
    let end = offset.checked_add(length)?;
    let is_inside = end <= bytes.len() as u64 && length >= TRAILER_BYTES as u64;
    is_inside.then(|| offset as usize..end as usize)
}

fn mend_block(bytes: &mut [u8], handle: (u64, u64)) {
    let Some(range) = stored(bytes, handle) else {
        return;
    };
    let (checked, sum) = bytes[range]
        .split_last_chunk_mut::<8>()
        .expect("it has a trailer");
    *sum = checksum(checked, NUMBER.rotate_left(32) ^ handle.0).to_le_bytes();
}

/// Where the blocks lie that an index leads to, as far as it can be read. A compressed index leads
/// to none.
fn blocks_of_index(bytes: &[u8], handle: (u64, u64)) -> Vec<(u64, u64)> {
    let mut blocks = Vec::new();
    if let Some(range) = stored(bytes, handle) {
        let payload = &bytes[range.start..range.end - TRAILER_BYTES];
        let _ = read_index(payload, &mut blocks);
    }
    blocks
}

fn read_index(payload: &[u8], blocks: &mut Vec<(u64, u64)>) -> Result<()> {
    let mut decoder = Decoder::new(payload);
    let entries = decoder.u32()?;
    let common_bytes = decoder.u32()?;
    let mut offset = decoder.u64()?;
    decoder.take(common_bytes as usize)?;
    for _ in 0..entries {
        let head = decoder.varint()?;
        decoder.take((head >> 1) as usize)?;
        if head & 1 == 1 {
            decoder.u64()?;
        }
        let block_bytes = decoder.varint()?;
        blocks.push((offset, block_bytes));
        offset = offset.saturating_add(block_bytes);
    }
    Ok(())
}

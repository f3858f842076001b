//! Fixed workloads over the hot parts, one a run, for `compare_instructions`.
//!
//! Invariant: what [`measured_part`] does is the same on every machine and in every run, so that the
//! instructions under it can be counted and compared; setup is outside of it. Without arguments it
//! lists the workloads. Only what the crates below `db` offer to it is used, and little of that, so
//! that older revisions can be measured with it as well.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)] // What fails here fails the measurement.

use esker_base::checksum::key_hash;
use esker_base::iterator::InternalIterator;
use esker_base::merging_iterator::MergingIterator;
use esker_base::write_batch::BatchEncoder;
use esker_base::{Trailer, ValueKind};
use esker_memtable::{Memtable, MemtableIter, MemtableKind};
use esker_sstable::{
    BlockCache, BlockLayoutChoice, FillCache, FilterKind, Table, TableIter, TableOptions,
    TableWriter,
};
use esker_vfs::MemFileSystem;
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

const ENTRIES: u64 = 20_000;
const VALUE: [u8; 100] = [7; 100];

/// A workload: does its setup and gives its part that counts to [`measured_part`].
type Workload = fn();

const WORKLOADS: &[(&str, Workload)] = &[
    ("record_encode", record_encode),
    ("memtable_insert", memtable_insert),
    ("memtable_get", memtable_get),
    ("memtable_iterate", memtable_iterate),
    ("merge_of_8", merge),
    ("table_build", table_build),
    ("block_search_slot", block_search_slot),
    ("block_search_restart", block_search_restart),
    ("search_urls", search_urls),
    ("search_long_keys", search_long_keys),
    ("table_iterate", table_iterate),
    ("filter_miss", filter_miss),
    ("cache_load_and_evict", cache_load_and_evict),
    ("wal_append", wal_append),
];

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        WORKLOADS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    match WORKLOADS.iter().find(|(known, _)| *known == name) {
        Some((_, workload)) => {
            workload();
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("there is no workload {name:?}");
            ExitCode::from(2)
        }
    }
}

/// The part whose instructions count: callgrind knows it by this name.
#[inline(never)]
fn measured_part(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

/// A 16-byte key that looks random.
fn key(entry: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let mixed = entry.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ entry << 7;
    key[..8].copy_from_slice(&mixed.to_be_bytes());
    key[8..].copy_from_slice(&entry.to_be_bytes());
    key
}

/// A 16-byte key whose order is that of its number.
fn ordered_key(entry: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    key[8..].copy_from_slice(&entry.to_be_bytes());
    key
}

fn record_encode() {
    let mut batch = BatchEncoder::new();
    measured_part(&mut || {
        for entry in 0..ENTRIES {
            batch.clear();
            batch.push(
                0,
                ValueKind::Value,
                black_box(&key(entry)),
                black_box(&VALUE),
            );
            black_box(batch.seal(entry + 1).len());
        }
    });
}

fn insert(memtable: &Memtable, entries: impl Iterator<Item = u64>) {
    for entry in entries {
        memtable.insert(
            &key(entry),
            Trailer::new(entry + 1, ValueKind::Value),
            &VALUE,
        );
    }
}

fn filled(entries: impl Iterator<Item = u64>) -> Arc<Memtable> {
    let memtable = Memtable::new(MemtableKind::default());
    insert(&memtable, entries);
    Arc::new(memtable)
}

fn memtable_insert() {
    let memtable = Memtable::new(MemtableKind::default());
    measured_part(&mut || insert(&memtable, 0..ENTRIES));
}

fn memtable_get() {
    let memtable = filled(0..ENTRIES);
    measured_part(&mut || {
        for entry in 0..ENTRIES {
            let key = key(entry * 7919 % ENTRIES);
            black_box(memtable.get(&key, ENTRIES + 1));
        }
    });
}

fn walk(iterator: &mut dyn InternalIterator) {
    iterator.seek_to_first().expect("sound");
    while iterator.valid() {
        black_box(iterator.value().len());
        iterator.next().expect("sound");
    }
}

fn memtable_iterate() {
    let memtable = filled(0..ENTRIES);
    measured_part(&mut || walk(&mut memtable.iter()));
}

fn merge() {
    let runs: Vec<Arc<Memtable>> = (0..8)
        .map(|run| filled((0..ENTRIES).filter(move |entry| entry % 8 == run)))
        .collect();
    let children: Vec<MemtableIter> = runs.iter().map(Memtable::iter).collect();
    let mut merging = MergingIterator::new(children);
    measured_part(&mut || walk(&mut merging));
}

/// The address of a web page on one of 50 hosts, in ascending order.
fn url(entry: u64) -> Vec<u8> {
    let (host, page) = (entry / (ENTRIES / 50), entry % (ENTRIES / 50));
    format!("https://www.host{host:02}.example.com/articles/2026/{page:08}").into_bytes()
}

/// A key of 1 KiB that only its last bytes tell from the others.
fn long_key(entry: u64) -> Vec<u8> {
    let mut key = vec![b'k'; 1016];
    key.extend_from_slice(&entry.to_be_bytes());
    key
}

fn even_key(entry: u64) -> Vec<u8> {
    ordered_key(2 * entry).to_vec()
}

fn build(fs: &MemFileSystem, options: &TableOptions, keys: &[Vec<u8>]) {
    let mut writer = TableWriter::create(fs, Path::new("t"), 1, options).expect("memory has room");
    for (key, sequence) in keys.iter().zip(1..) {
        let trailer = Trailer::new(sequence, ValueKind::Value);
        writer.add(key, trailer, &VALUE).expect("in order");
    }
    writer.finish(0).expect("memory has room");
}

fn keys_of(shape: fn(u64) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..ENTRIES).map(shape).collect()
}

fn table(options: &TableOptions, cache_bytes: usize, keys: &[Vec<u8>]) -> Arc<Table> {
    let fs = MemFileSystem::new();
    build(&fs, options, keys);
    let table = Table::open(&fs, Path::new("t"), 1, BlockCache::new(cache_bytes));
    Arc::new(table.expect("built above"))
}

fn table_build() {
    let fs = MemFileSystem::new();
    let keys = keys_of(even_key);
    measured_part(&mut || build(&fs, &TableOptions::default(), &keys));
}

fn search(table: &Arc<Table>, keys: &[Vec<u8>]) {
    for entry in 0..ENTRIES {
        let key = &keys[(entry * 7919 % ENTRIES) as usize];
        let hit = table.get(key, key_hash(key), ENTRIES + 1).expect("sound");
        black_box(hit.is_some());
    }
}

fn block_search(layout: BlockLayoutChoice, shape: fn(u64) -> Vec<u8>) {
    let options = TableOptions {
        layout,
        ..TableOptions::default()
    };
    let keys = keys_of(shape);
    let table = table(&options, 64 << 20, &keys);
    // Every block is in the cache before what counts begins.
    search(&table, &keys);
    measured_part(&mut || search(&table, &keys));
}

fn block_search_slot() {
    block_search(BlockLayoutChoice::Slot, even_key);
}

fn block_search_restart() {
    block_search(BlockLayoutChoice::Restart, even_key);
}

fn search_urls() {
    block_search(BlockLayoutChoice::Slot, url);
}

fn search_long_keys() {
    block_search(BlockLayoutChoice::Slot, long_key);
}

fn table_iterate() {
    let table = table(&TableOptions::default(), 64 << 20, &keys_of(even_key));
    let mut iterator = TableIter::over(Arc::clone(&table), FillCache::Yes);
    walk(&mut iterator);
    measured_part(&mut || walk(&mut iterator));
}

fn filter_miss() {
    let options = TableOptions {
        filter: FilterKind::Blocked,
        ..TableOptions::default()
    };
    let table = table(&options, 64 << 20, &keys_of(even_key));
    measured_part(&mut || {
        for entry in 0..ENTRIES {
            black_box(table.may_contain(key_hash(&ordered_key(2 * entry + 1))));
        }
    });
}

/// A cache of a tenth of the table: most reads load a block and drop another.
fn cache_load_and_evict() {
    let keys = keys_of(even_key);
    let table = table(&TableOptions::default(), 256 << 10, &keys);
    search(&table, &keys);
    measured_part(&mut || search(&table, &keys));
}

fn wal_append() {
    let fs = MemFileSystem::new();
    let header = SegmentHeader {
        number: 1,
        first_sequence: 1,
        previous: 0,
    };
    let options = SegmentOptions {
        segment_bytes: 16 << 20,
        ..SegmentOptions::default()
    };
    let mut writer =
        SegmentWriter::create(&fs, Path::new("log"), header, options).expect("memory has room");
    measured_part(&mut || {
        for _ in 0..ENTRIES {
            let appended = writer.append_one(black_box(&[7; 130]), SyncMode::Buffered);
            appended.expect("memory has room");
        }
    });
}

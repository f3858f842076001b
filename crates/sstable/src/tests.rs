//! Whole tables against a sorted list: written, opened, searched, walked, verified, damaged.

mod damage;
mod expired_blocks;
mod forgery;
mod golden;
mod kept_blocks;
mod levels;
mod lookups;
mod model;
mod stored_records;
mod warming;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_base::checksum::key_hash;
use esker_base::filename::table_path;
use esker_base::iterator::InternalIterator;
use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
use esker_base::table_meta::TableMeta;
use esker_base::{Result, Trailer, ValueKind};
use esker_vfs::{FileSystem, MemFileSystem};

use crate::lookup::FoundRecord;
use crate::*;

/// A point record.
type Record = (Vec<u8>, Trailer, Vec<u8>);

/// A file system in memory with one directory for tables.
struct Shelf {
    fs: MemFileSystem,
    directory: PathBuf,
    blocks: Arc<BlockCache>,
}

impl Shelf {
    fn new(cache_bytes: usize) -> Self {
        let fs = MemFileSystem::new();
        let directory = PathBuf::from("/tables");
        fs.create_dir_all(&directory).unwrap();
        Self {
            fs,
            directory,
            blocks: BlockCache::new(cache_bytes),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        table_path(&self.directory, number)
    }

    fn write(&self, number: u64, options: &TableOptions, records: &[Record]) -> TableMeta {
        self.write_with(number, options, records, &FragmentedTombstones::default())
    }

    fn write_with(
        &self,
        number: u64,
        options: &TableOptions,
        records: &[Record],
        tombstones: &FragmentedTombstones,
    ) -> TableMeta {
        let mut writer =
            TableWriter::create(&self.fs, &self.path(number), number, options).unwrap();
        for (key, trailer, value) in records {
            writer.add(key, *trailer, value).unwrap();
        }
        writer.add_range_tombstones(tombstones);
        writer.finish(1_700_000_000_000).unwrap()
    }

    fn open(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        let path = self.path(meta.number);
        Table::open_checked(&self.fs, &path, meta, Arc::clone(&self.blocks)).map(Arc::new)
    }

    fn tables(&self, open_files_limit: usize) -> Arc<TableCache> {
        let fs = Arc::new(self.fs.clone());
        let blocks = Arc::clone(&self.blocks);
        TableCache::new(fs, self.directory.clone(), blocks, open_files_limit)
    }

    fn contents(&self, number: u64) -> Vec<u8> {
        let file = self.fs.open_read(&self.path(number)).unwrap();
        let mut contents = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut contents, 0).unwrap();
        contents
    }

    fn replace(&self, number: u64, contents: &[u8]) {
        replace_file(&self.fs, &self.path(number), contents);
    }
}

fn replace_file(fs: &dyn FileSystem, path: &Path, contents: &[u8]) {
    if fs.metadata(path).is_ok() {
        fs.remove_file(path).unwrap();
    }
    fs.create(path).unwrap().write_at(0, contents).unwrap();
}

fn value(sequence: u64) -> Trailer {
    Trailer::new(sequence, ValueKind::Value)
}

fn deletion(start: &str, end: &str, sequence: u64) -> RangeTombstone {
    RangeTombstone {
        start: start.into(),
        end: end.into(),
        sequence,
    }
}

/// `count` records with numbered keys and values of about `value_bytes` bytes.
fn numbered(count: u64, value_bytes: usize) -> Vec<Record> {
    (0..count)
        .map(|i| {
            let key = format!("key{i:08}").into_bytes();
            let mut stored = format!("value of {i} ")
                .into_bytes()
                .repeat(1 + value_bytes / 16);
            stored.truncate(value_bytes);
            (key, value(i + 1), stored)
        })
        .collect()
}

fn current(iter: &impl InternalIterator) -> Option<Record> {
    iter.valid().then(|| {
        (
            iter.user_key().to_vec(),
            iter.trailer(),
            iter.value().to_vec(),
        )
    })
}

fn get(table: &Table, key: &[u8], visible: u64) -> Option<(Trailer, Vec<u8>)> {
    let hash = key_hash(key);
    let copied = table.may_contain(hash).then(|| {
        let read = |record: FoundRecord<'_>| (record.trailer(), record.stored().to_vec());
        table.find_with(key, visible, read).unwrap()
    });
    let copied = copied.flatten();
    let pinned = table.get(key, hash, visible).unwrap();
    assert_eq!(copied, pinned.map(|hit| (hit.trailer, hit.value.to_vec())));
    table.prefetch_filter(hash);
    for steps in (0..3).filter(|_| table.may_contain(hash)) {
        assert_eq!(copied, in_steps(table, key, visible, steps));
    }
    copied
}

/// As `find_with`, with so many steps between the first and the last.
fn in_steps(table: &Table, key: &[u8], visible: u64, steps: usize) -> Option<(Trailer, Vec<u8>)> {
    let mut lookup = table.begin(key, visible).unwrap()?;
    if steps > 0 {
        table.take_block(&mut lookup);
    }
    if steps > 1 {
        table.find_record(&mut lookup, key);
    }
    let read = |record: FoundRecord<'_>| (record.trailer(), record.stored().to_vec());
    table.finish(&lookup, key, visible, read).unwrap()
}

fn collect(iter: &mut impl InternalIterator) -> Vec<Record> {
    let mut records = Vec::new();
    iter.seek_to_first().unwrap();
    while let Some(record) = current(iter) {
        records.push(record);
        iter.next().unwrap();
    }
    records
}

fn collect_backwards(iter: &mut impl InternalIterator) -> Vec<Record> {
    let mut records = Vec::new();
    iter.seek_to_last().unwrap();
    while let Some(record) = current(iter) {
        records.push(record);
        iter.prev().unwrap();
    }
    records.reverse();
    records
}

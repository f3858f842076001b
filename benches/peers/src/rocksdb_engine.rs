//! RocksDB behind the seam.
//!
//! Reads are pinned slices, batches of keys go through its batched multi_get, scans through a raw
//! iterator with a fresh view.

use esker_benches::engine::{
    CompactionShape, Compression, Direction, Durability, Engine, EngineResult, EngineSettings,
    EngineStats, Scanner,
};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, DBRawIterator, Options,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};
use std::path::Path;

/// A RocksDB database.
pub struct RocksDbEngine {
    db: DB,
    options: Options,
    facts: Vec<(String, String)>,
    sync: WriteOptions,
    buffered: WriteOptions,
    volatile: WriteOptions,
}

const COLUMN_FAMILY: &str = "default";

fn options(settings: &EngineSettings) -> Options {
    let mut tables = BlockBasedOptions::default();
    let cache = usize::try_from(settings.cache_bytes).unwrap_or(usize::MAX);
    tables.set_block_cache(&Cache::new_lru_cache(cache));
    if settings.filter_bits_per_key > 0.0 {
        tables.set_bloom_filter(settings.filter_bits_per_key, false);
    }
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&tables);
    options.set_compression_type(match settings.compression {
        Compression::None => DBCompressionType::None,
        Compression::Lz4 => DBCompressionType::Lz4,
    });
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    options.increase_parallelism(i32::try_from(processors.max(2)).unwrap_or(2));
    if let Some(bytes) = settings.write_buffer_bytes {
        options.set_write_buffer_size(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    match settings.compaction_shape {
        None | Some(CompactionShape::Leveled) => {}
        Some(CompactionShape::Tiered | CompactionShape::LazyLeveled) => {
            options.set_compaction_style(DBCompactionStyle::Universal);
        }
    }
    options
}

fn facts(settings: &EngineSettings) -> Vec<(String, String)> {
    let write_buffer = settings.write_buffer_bytes.unwrap_or(64 << 20);
    let compaction = match settings.compaction_shape {
        None | Some(CompactionShape::Leveled) => "leveled",
        Some(_) => "universal",
    };
    vec![
        (
            "version".into(),
            "RocksDB 11.8.1 by the crate rocksdb 0.25".into(),
        ),
        (
            "block cache".into(),
            format!("{} MiB", settings.cache_bytes >> 20),
        ),
        ("write buffer".into(), format!("{} MiB", write_buffer >> 20)),
        ("compression".into(), format!("{:?}", settings.compression)),
        (
            "filters".into(),
            format!("Bloom, {} bits per key", settings.filter_bits_per_key),
        ),
        (
            "compaction".into(),
            format!("{compaction}, a thread per processor"),
        ),
        ("allocator".into(), "the system's, for its C++ part".into()),
    ]
}

impl RocksDbEngine {
    fn write_options(&self, durability: Durability) -> &WriteOptions {
        match durability {
            Durability::Sync => &self.sync,
            Durability::Buffered => &self.buffered,
            Durability::Volatile => &self.volatile,
        }
    }

    fn wait(&self, flush: bool) -> EngineResult<()> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(flush);
        Ok(self.db.wait_for_compact(&options)?)
    }
}

impl Engine for RocksDbEngine {
    type Batch = WriteBatch;
    type Scanner<'a> = RocksDbScanner<'a>;

    fn open(directory: &Path, settings: &EngineSettings) -> EngineResult<Self> {
        let options = options(settings);
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        let mut volatile = WriteOptions::default();
        volatile.disable_wal(true);
        Ok(Self {
            // By its name, so that the batched multi_get, which asks for a column family, has one.
            db: DB::open_cf_with_opts(&options, directory, [(COLUMN_FAMILY, options.clone())])?,
            options,
            facts: facts(settings),
            sync,
            buffered: WriteOptions::default(),
            volatile,
        })
    }

    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }

    fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> EngineResult<()> {
        Ok(self
            .db
            .put_opt(key, value, self.write_options(durability))?)
    }

    fn delete(&self, key: &[u8], durability: Durability) -> EngineResult<()> {
        Ok(self.db.delete_opt(key, self.write_options(durability))?)
    }

    fn batch(&self) -> WriteBatch {
        WriteBatch::default()
    }

    fn batch_put(batch: &mut WriteBatch, key: &[u8], value: &[u8]) {
        batch.put(key, value);
    }

    fn batch_delete(batch: &mut WriteBatch, key: &[u8]) {
        batch.delete(key);
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> EngineResult<()> {
        Ok(self.db.write_opt(batch, self.write_options(durability))?)
    }

    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> EngineResult<R> {
        Ok(read(self.db.get_pinned(key)?.as_deref()))
    }

    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()> {
        let family = self
            .db
            .cf_handle(COLUMN_FAMILY)
            .ok_or("no default column family")?;
        let answers = self.db.batched_multi_get_cf(family, keys, false);
        for (at, answer) in answers.into_iter().enumerate() {
            each(at, answer?.as_deref());
        }
        Ok(())
    }

    fn scanner(&self) -> EngineResult<RocksDbScanner<'_>> {
        Ok(RocksDbScanner {
            iterator: self.db.raw_iterator(),
        })
    }

    fn flush(&self) -> EngineResult<()> {
        Ok(self.db.flush()?)
    }

    fn settle(&self) -> EngineResult<()> {
        self.wait(false)
    }

    fn compact(&self) -> EngineResult<()> {
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        self.wait(false)
    }

    fn stats(&self) -> EngineStats {
        let text = self
            .db
            .property_value("rocksdb.stats")
            .ok()
            .flatten()
            .unwrap_or_default();
        EngineStats {
            text,
            ..EngineStats::default()
        }
    }

    fn close(self) -> EngineResult<()> {
        self.db.cancel_all_background_work(true);
        drop(self.db);
        drop(self.options);
        Ok(())
    }
}

/// A raw iterator.
pub struct RocksDbScanner<'a> {
    iterator: DBRawIterator<'a>,
}

impl Scanner for RocksDbScanner<'_> {
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64> {
        let iterator = &mut self.iterator;
        match (from, direction) {
            (Some(key), Direction::Forward) => iterator.seek(key),
            (Some(key), Direction::Backward) => iterator.seek_for_prev(key),
            (None, Direction::Forward) => iterator.seek_to_first(),
            (None, Direction::Backward) => iterator.seek_to_last(),
        }
        let mut lent = 0;
        while lent < limit {
            let Some((key, value)) = iterator.item() else {
                break;
            };
            lent += 1;
            if !each(key, value) || lent == limit {
                break;
            }
            match direction {
                Direction::Forward => iterator.next(),
                Direction::Backward => iterator.prev(),
            }
        }
        iterator.status()?;
        Ok(lent)
    }
}

//! esker behind the seam: on disk, and in memory.
//!
//! Invariant: only esker's public API, as a user would call it; reads lend what the engine lends.

use super::{
    CompactionShape, Compression, Direction, Durability, Engine, EngineResult, EngineSettings,
    EngineStats, Scanner,
};
use esker::{Cursor, Db, Options, Stats, WriteBatch, WriteOptions};
use std::path::Path;

/// An esker database in a directory, or in memory: the same engine without a disk.
#[derive(Debug)]
pub struct EskerEngine<const IN_MEMORY: bool> {
    db: Db,
}

fn options(settings: &EngineSettings) -> Options {
    let mut options = Options::new()
        .cache_bytes(usize::try_from(settings.cache_bytes).unwrap_or(usize::MAX))
        .compression(match settings.compression {
            Compression::None => esker::Compression::None,
            Compression::Lz4 => esker::Compression::Lz4,
        })
        .default_durability(durability(settings.durability));
    options = match settings.filter_bits_per_key {
        0.0 => options.filter(esker::FilterKind::None),
        bits => options.filter_bits_per_key(bits),
    };
    if let Some(bytes) = settings.write_buffer_bytes {
        options = options.write_buffer_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    if let Some(bytes) = settings.value_separation_bytes {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        options = options.value_separation_threshold_bytes(bytes);
    }
    if let Some(shape) = settings.compaction_shape {
        options = options.compaction_shape(match shape {
            CompactionShape::Leveled => esker::CompactionShape::Leveled,
            CompactionShape::Tiered => esker::CompactionShape::Tiered,
            CompactionShape::LazyLeveled => esker::CompactionShape::LazyLeveled,
        });
    }
    options
}

fn durability(durability: Durability) -> esker::Durability {
    match durability {
        Durability::Sync => esker::Durability::Sync,
        Durability::Buffered => esker::Durability::Buffered,
        Durability::Volatile => esker::Durability::Volatile,
    }
}

#[inline]
fn write_options(wanted: Durability) -> WriteOptions {
    WriteOptions::new().durability(durability(wanted))
}

impl<const IN_MEMORY: bool> Engine for EskerEngine<IN_MEMORY> {
    type Batch = WriteBatch;
    type Scanner<'a> = EskerScanner;
    const KEEPS_DATA: bool = !IN_MEMORY;

    fn open(directory: &Path, settings: &EngineSettings) -> EngineResult<Self> {
        let options = options(settings);
        Ok(Self {
            db: match IN_MEMORY {
                true => options.open_in_memory()?,
                false => options.open(directory)?,
            },
        })
    }

    fn facts(&self) -> Vec<(String, String)> {
        let options = self.db.options();
        let mebibytes = |bytes: usize| format!("{} MiB", bytes >> 20);
        vec![
            (
                "storage".into(),
                if IN_MEMORY { "memory" } else { "files" }.into(),
            ),
            (
                "version".into(),
                format!("esker {}", env!("CARGO_PKG_VERSION")),
            ),
            ("block cache".into(), mebibytes(options.cache_bytes())),
            (
                "write buffer".into(),
                mebibytes(options.write_buffer_bytes()),
            ),
            (
                "compression".into(),
                format!(
                    "{:?} on the last level, {:?} above",
                    options.compression(),
                    options.upper_compression()
                ),
            ),
            (
                "filters".into(),
                format!(
                    "{:?}, {} bits per key",
                    options.filter(),
                    options.filter_bits_per_key()
                ),
            ),
            (
                "compaction".into(),
                format!(
                    "{:?}, {} threads",
                    options.compaction_shape(),
                    options.background_threads()
                ),
            ),
        ]
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> EngineResult<()> {
        Ok(self.db.put_opt(key, value, &write_options(durability))?)
    }

    #[inline]
    fn delete(&self, key: &[u8], durability: Durability) -> EngineResult<()> {
        Ok(self.db.delete_opt(key, &write_options(durability))?)
    }

    fn batch(&self) -> WriteBatch {
        WriteBatch::new()
    }

    #[inline]
    fn batch_put(batch: &mut WriteBatch, key: &[u8], value: &[u8]) {
        batch.put(key, value);
    }

    #[inline]
    fn batch_delete(batch: &mut WriteBatch, key: &[u8]) {
        batch.delete(key);
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> EngineResult<()> {
        Ok(self.db.write_opt(batch, &write_options(durability))?)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> EngineResult<R> {
        let value = self.db.get(key)?;
        Ok(read(value.as_deref()))
    }

    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()> {
        let values = self.db.multi_get(keys)?;
        for (at, value) in values.iter().enumerate() {
            each(at, value.as_deref());
        }
        Ok(())
    }

    #[inline]
    fn scanner(&self) -> EngineResult<EskerScanner> {
        Ok(EskerScanner {
            cursor: self.db.cursor(),
        })
    }

    fn flush(&self) -> EngineResult<()> {
        Ok(self.db.flush()?)
    }

    fn settle(&self) -> EngineResult<()> {
        Ok(self.db.wait_for_background_work()?)
    }

    fn compact(&self) -> EngineResult<()> {
        Ok(self.db.compact()?)
    }

    fn stats(&self) -> EngineStats {
        let stats = self.db.stats();
        EngineStats {
            device_bytes_written: Some(stats.device_bytes_written()),
            device_bytes_read: None,
            text: describe(&stats),
        }
    }

    fn close(self) -> EngineResult<()> {
        Ok(self.db.close()?)
    }
}

/// The counters, one a line, and the levels that hold something.
fn describe(stats: &Stats) -> String {
    let mut lines = vec![
        format!("user bytes written: {}", stats.user_bytes_written()),
        format!(
            "log bytes written: {} ({} syncs)",
            stats.log_bytes_written(),
            stats.log_syncs()
        ),
        format!(
            "flush bytes written: {} ({} flushes)",
            stats.flush_bytes_written(),
            stats.flushes()
        ),
        format!(
            "compaction bytes read and written: {} and {} ({} compactions)",
            stats.compaction_bytes_read(),
            stats.compaction_bytes_written(),
            stats.compactions()
        ),
        format!("write amplification: {:.2}", stats.write_amplification()),
        format!("writers held back for: {} us", stats.stall_micros()),
        format!("memtable bytes: {}", stats.memtable_bytes()),
        format!("block cache bytes: {}", stats.block_cache_bytes()),
    ];
    for (number, level) in stats.levels().iter().enumerate() {
        if level.tables > 0 {
            lines.push(format!(
                "level {number}: {} runs, {} tables, {} bytes, {} entries",
                level.runs, level.tables, level.bytes, level.entries
            ));
        }
    }
    lines.join("\n")
}

/// A cursor.
#[derive(Debug)]
pub struct EskerScanner {
    cursor: Cursor,
}

impl Scanner for EskerScanner {
    #[inline]
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64> {
        let cursor = &mut self.cursor;
        match (from, direction) {
            (Some(key), Direction::Forward) => cursor.seek(key)?,
            (Some(key), Direction::Backward) => cursor.seek_for_prev(key)?,
            (None, Direction::Forward) => cursor.seek_to_first()?,
            (None, Direction::Backward) => cursor.seek_to_last()?,
        }
        let mut lent = 0;
        while lent < limit && cursor.valid() {
            lent += 1;
            if !each(cursor.key(), cursor.value()) || lent == limit {
                break;
            }
            match direction {
                Direction::Forward => cursor.next()?,
                Direction::Backward => cursor.prev()?,
            }
        }
        Ok(lent)
    }
}

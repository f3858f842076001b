//! fjall behind the seam.
//!
//! Its writes go to the operating system by default; a synced one is followed by `persist`.

use esker_benches::engine::{
    Compression, Direction, Durability, Engine, EngineResult, EngineSettings, EngineStats, Scanner,
};
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch,
    PersistMode, Readable, Snapshot,
};
use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

/// A fjall database with one keyspace.
pub struct FjallEngine {
    db: Database,
    keyspace: Keyspace,
    facts: Vec<(String, String)>,
}

fn keyspace_options(settings: &EngineSettings) -> KeyspaceCreateOptions {
    let compression = match settings.compression {
        Compression::None => CompressionType::None,
        Compression::Lz4 => CompressionType::Lz4,
    };
    let filter = match settings.filter_bits_per_key {
        0.0 => FilterPolicyEntry::None,
        bits => FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(bits as f32)),
    };
    let options = KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::all(compression))
        .filter_policy(FilterPolicy::all(filter));
    match settings.write_buffer_bytes {
        Some(bytes) => options.max_memtable_size(bytes),
        None => options,
    }
}

impl FjallEngine {
    fn persist(&self, durability: Durability) -> EngineResult<()> {
        if durability == Durability::Sync {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for FjallEngine {
    type Batch = Vec<(Box<[u8]>, Option<Box<[u8]>>)>;
    type Scanner<'a> = FjallScanner<'a>;

    fn open(directory: &Path, settings: &EngineSettings) -> EngineResult<Self> {
        let db = Database::builder(directory)
            .cache_size(settings.cache_bytes)
            .open()?;
        let keyspace = db.keyspace("default", || keyspace_options(settings))?;
        let buffer = settings.write_buffer_bytes.map_or_else(
            || "its default".to_owned(),
            |bytes| format!("{} MiB", bytes >> 20),
        );
        let facts = vec![
            ("version".into(), "fjall 3.1".into()),
            (
                "block cache".into(),
                format!("{} MiB", settings.cache_bytes >> 20),
            ),
            ("write buffer".into(), buffer),
            ("compression".into(), format!("{:?}", settings.compression)),
            (
                "filters".into(),
                format!("Bloom, {} bits per key", settings.filter_bits_per_key),
            ),
            ("compaction".into(), "leveled, its default workers".into()),
        ];
        Ok(Self {
            db,
            keyspace,
            facts,
        })
    }

    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }

    fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> EngineResult<()> {
        self.keyspace.insert(key, value)?;
        self.persist(durability)
    }

    fn delete(&self, key: &[u8], durability: Durability) -> EngineResult<()> {
        self.keyspace.remove(key)?;
        self.persist(durability)
    }

    fn batch(&self) -> Self::Batch {
        Vec::new()
    }

    fn batch_put(batch: &mut Self::Batch, key: &[u8], value: &[u8]) {
        batch.push((key.into(), Some(value.into())));
    }

    fn batch_delete(batch: &mut Self::Batch, key: &[u8]) {
        batch.push((key.into(), None));
    }

    fn write(&self, batch: Self::Batch, durability: Durability) -> EngineResult<()> {
        let mode = (durability == Durability::Sync).then_some(PersistMode::SyncData);
        let mut writes: OwnedWriteBatch = self.db.batch().durability(mode);
        for (key, value) in batch {
            match value {
                Some(value) => writes.insert(&self.keyspace, &*key, &*value),
                None => writes.remove(&self.keyspace, &*key),
            }
        }
        Ok(writes.commit()?)
    }

    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> EngineResult<R> {
        Ok(read(self.keyspace.get(key)?.as_deref()))
    }

    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()> {
        let snapshot = self.db.snapshot();
        for (at, key) in keys.enumerate() {
            each(at, snapshot.get(&self.keyspace, key)?.as_deref());
        }
        Ok(())
    }

    fn scanner(&self) -> EngineResult<FjallScanner<'_>> {
        Ok(FjallScanner {
            snapshot: self.db.snapshot(),
            keyspace: &self.keyspace,
        })
    }

    fn flush(&self) -> EngineResult<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn settle(&self) -> EngineResult<()> {
        // It has no call that waits: quiet for a while is settled.
        let mut quiet = 0;
        while quiet < 5 {
            let busy = self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0;
            quiet = if busy { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn compact(&self) -> EngineResult<()> {
        self.flush()?;
        Ok(self.keyspace.major_compact()?)
    }

    fn stats(&self) -> EngineStats {
        let text = format!(
            "tables: {}\nbytes of tables: {}\ncompactions: {}\ntime compacting: {:?}",
            self.keyspace.table_count(),
            self.keyspace.disk_space(),
            self.db.compactions_completed(),
            self.db.time_compacting()
        );
        EngineStats {
            text,
            ..EngineStats::default()
        }
    }

    fn close(self) -> EngineResult<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}

/// A snapshot.
pub struct FjallScanner<'a> {
    snapshot: Snapshot,
    keyspace: &'a Keyspace,
}

impl Scanner for FjallScanner<'_> {
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        match direction {
            Direction::Forward => {
                let range: (Bound<&[u8]>, Bound<&[u8]>) = (from, Bound::Unbounded);
                lend(
                    self.snapshot.range::<&[u8], _>(self.keyspace, range),
                    limit,
                    each,
                )
            }
            Direction::Backward => {
                let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, from);
                lend(
                    self.snapshot.range::<&[u8], _>(self.keyspace, range).rev(),
                    limit,
                    each,
                )
            }
        }
    }
}

fn lend(
    entries: impl Iterator<Item = Guard>,
    limit: u64,
    mut each: impl FnMut(&[u8], &[u8]) -> bool,
) -> EngineResult<u64> {
    let mut lent = 0;
    if limit == 0 {
        return Ok(0);
    }
    for entry in entries {
        let (key, value) = entry.into_inner()?;
        lent += 1;
        if !each(&key, &value) || lent == limit {
            break;
        }
    }
    Ok(lent)
}

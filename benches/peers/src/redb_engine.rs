//! redb behind the seam.
//!
//! A write is a transaction, a read takes a read transaction of its own, so that it sees what was
//! acknowledged before it. redb keeps no log: a write that is not synced is in memory until the next
//! synced commit, which is the closest that it has to `buffered`.

use esker_benches::engine::{
    Direction, Durability, Engine, EngineResult, EngineSettings, EngineStats, Scanner,
};
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use std::ops::Bound;
use std::path::Path;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("default");
const FILE: &str = "data.redb";

/// A redb database with one table.
pub struct RedbEngine {
    db: Database,
    facts: Vec<(String, String)>,
}

/// Puts and deletions (`None`).
type Writes = Vec<(Box<[u8]>, Option<Box<[u8]>>)>;

impl RedbEngine {
    fn table(&self) -> EngineResult<ReadOnlyTable<&'static [u8], &'static [u8]>> {
        Ok(self.db.begin_read()?.open_table(TABLE)?)
    }

    fn commit<'w>(
        &self,
        writes: impl Iterator<Item = (&'w [u8], Option<&'w [u8]>)>,
        durability: Durability,
    ) -> EngineResult<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(match durability {
            Durability::Sync => redb::Durability::Immediate,
            Durability::Buffered | Durability::Volatile => redb::Durability::None,
        })?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in writes {
                match value {
                    Some(value) => drop(table.insert(key, value)?),
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for RedbEngine {
    type Batch = Writes;
    type Scanner<'a> = RedbScanner;
    const BUFFERED_SURVIVES_KILL: bool = false;

    fn open(directory: &Path, settings: &EngineSettings) -> EngineResult<Self> {
        let cache = usize::try_from(settings.cache_bytes).unwrap_or(usize::MAX);
        let db = Builder::new()
            .set_cache_size(cache)
            .create(directory.join(FILE))?;
        let facts = vec![
            ("version".into(), "redb 4.6".into()),
            (
                "page cache".into(),
                format!("{} MiB", settings.cache_bytes >> 20),
            ),
            (
                "buffered".into(),
                "Durability::None: in memory until a synced commit".into(),
            ),
            (
                "compression, filters, write buffer, compaction".into(),
                "it has none".into(),
            ),
        ];
        let engine = Self { db, facts };
        engine.commit(std::iter::empty(), Durability::Sync)?;
        Ok(engine)
    }

    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }

    fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> EngineResult<()> {
        self.commit(std::iter::once((key, Some(value))), durability)
    }

    fn delete(&self, key: &[u8], durability: Durability) -> EngineResult<()> {
        self.commit(std::iter::once((key, None)), durability)
    }

    fn batch(&self) -> Writes {
        Vec::new()
    }

    fn batch_put(batch: &mut Writes, key: &[u8], value: &[u8]) {
        batch.push((key.into(), Some(value.into())));
    }

    fn batch_delete(batch: &mut Writes, key: &[u8]) {
        batch.push((key.into(), None));
    }

    fn write(&self, batch: Writes, durability: Durability) -> EngineResult<()> {
        self.commit(
            batch.iter().map(|(key, value)| (&**key, value.as_deref())),
            durability,
        )
    }

    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> EngineResult<R> {
        let table = self.table()?;
        let value = table.get(key)?;
        Ok(read(value.as_ref().map(|value| value.value())))
    }

    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()> {
        let table = self.table()?;
        for (at, key) in keys.enumerate() {
            let value = table.get(key)?;
            each(at, value.as_ref().map(|value| value.value()));
        }
        Ok(())
    }

    fn scanner(&self) -> EngineResult<RedbScanner> {
        Ok(RedbScanner {
            table: self.table()?,
        })
    }

    fn flush(&self) -> EngineResult<()> {
        self.commit(std::iter::empty(), Durability::Sync)
    }

    fn settle(&self) -> EngineResult<()> {
        Ok(())
    }

    fn compact(&self) -> EngineResult<()> {
        // Its compaction wants the database for itself, which the seam does not give.
        self.flush()
    }

    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }

    fn close(self) -> EngineResult<()> {
        self.flush()
    }
}

/// A table as of its read transaction.
pub struct RedbScanner {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Scanner for RedbScanner {
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let mut range = match direction {
            Direction::Forward => {
                ReadableTable::range::<&[u8]>(&self.table, (from, Bound::Unbounded))?
            }
            Direction::Backward => {
                ReadableTable::range::<&[u8]>(&self.table, (Bound::Unbounded, from))?
            }
        };
        let mut lent = 0;
        while lent < limit {
            let entry = match direction {
                Direction::Forward => range.next(),
                Direction::Backward => range.next_back(),
            };
            let Some(entry) = entry else { break };
            let (key, value) = entry?;
            lent += 1;
            if !each(key.value(), value.value()) {
                break;
            }
        }
        Ok(lent)
    }
}

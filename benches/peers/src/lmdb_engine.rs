//! LMDB (by heed) behind the seam.
//!
//! A write is a transaction, a read takes a read transaction of its own; values are lent from the
//! map without a copy. Without syncs (`buffered`) its pages are written to the operating system at
//! each commit, which survives the process.

use esker_benches::engine::{
    Direction, Durability, Engine, EngineResult, EngineSettings, EngineStats, Scanner,
};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use std::ops::Bound;
use std::path::Path;

/// Address space for the map; the file grows as far as it is used.
const MAP_BYTES: usize = 64 << 30;

/// An LMDB environment with one database.
pub struct LmdbEngine {
    env: Env,
    database: Database<'static, Bytes, Bytes>,
}

/// Puts and deletions (`None`).
type Writes = Vec<(Box<[u8]>, Option<Box<[u8]>>)>;

impl LmdbEngine {
    fn commit<'w>(
        &self,
        writes: impl Iterator<Item = (&'w [u8], Option<&'w [u8]>)>,
        durability: Durability,
    ) -> EngineResult<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in writes {
            match value {
                Some(value) => self.database.put(&mut transaction, key, value)?,
                None => drop(self.database.delete(&mut transaction, key)?),
            }
        }
        transaction.commit()?;
        if durability == Durability::Sync {
            self.env.force_sync()?;
        }
        Ok(())
    }
}

impl Engine for LmdbEngine {
    type Batch = Writes;
    type Scanner<'a> = LmdbScanner<'a>;

    fn open(directory: &Path, _settings: &EngineSettings) -> EngineResult<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(1024);
        // SAFETY: the environment is opened once in this process, by this engine, in a directory
        // that nobody else uses. Without syncs a loss of power may damage the file: a benchmark's.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_READ_AHEAD);
            options.open(directory)?
        };
        let database = env
            .create_databases_and_commit(env.write_txn()?, |opener, transaction| {
                let database = opener.create_database(transaction, None);
                database.map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Self { env, database })
    }

    fn facts(&self) -> Vec<(String, String)> {
        vec![
            ("version".into(), "LMDB by heed 0.23".into()),
            ("cache".into(), "the operating system's, of any size".into()),
            (
                "durability".into(),
                "NO_SYNC; a synced write is followed by a sync".into(),
            ),
            (
                "compression, filters, write buffer, compaction".into(),
                "it has none".into(),
            ),
        ]
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
        let transaction = self.env.read_txn()?;
        Ok(read(self.database.get(&transaction, key)?))
    }

    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()> {
        let transaction = self.env.read_txn()?;
        for (at, key) in keys.enumerate() {
            each(at, self.database.get(&transaction, key)?);
        }
        Ok(())
    }

    fn scanner(&self) -> EngineResult<LmdbScanner<'_>> {
        Ok(LmdbScanner {
            transaction: self.env.read_txn()?,
            database: self.database,
        })
    }

    fn flush(&self) -> EngineResult<()> {
        Ok(self.env.force_sync()?)
    }

    fn settle(&self) -> EngineResult<()> {
        Ok(())
    }

    fn compact(&self) -> EngineResult<()> {
        // It compacts only into a copy.
        self.flush()
    }

    fn stats(&self) -> EngineStats {
        let text = format!("{:?}", self.env.info());
        EngineStats {
            text,
            ..EngineStats::default()
        }
    }

    fn close(self) -> EngineResult<()> {
        self.env.force_sync()?;
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

/// A read transaction.
pub struct LmdbScanner<'a> {
    transaction: RoTxn<'a, WithTls>,
    database: Database<'static, Bytes, Bytes>,
}

impl Scanner for LmdbScanner<'_> {
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let transaction = &self.transaction;
        match direction {
            Direction::Forward => {
                let range: (Bound<&[u8]>, Bound<&[u8]>) = (from, Bound::Unbounded);
                lend(self.database.range(transaction, &range)?, limit, each)
            }
            Direction::Backward => {
                let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, from);
                lend(self.database.rev_range(transaction, &range)?, limit, each)
            }
        }
    }
}

fn lend<'t>(
    entries: impl Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>>,
    limit: u64,
    mut each: impl FnMut(&[u8], &[u8]) -> bool,
) -> EngineResult<u64> {
    let mut lent = 0;
    if limit == 0 {
        return Ok(0);
    }
    for entry in entries {
        let (key, value) = entry?;
        lent += 1;
        if !each(key, value) || lent == limit {
            break;
        }
    }
    Ok(lent)
}

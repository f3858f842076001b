//! A `BTreeMap` behind a lock: the reference that every verb is tested on, and a ceiling for what
//! a store in memory without any durability does.
//!
//! Invariant: it is right by being simple. Nothing survives the process.

use super::{Direction, Durability, Engine, EngineResult, EngineSettings, EngineStats, Scanner};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

type Map = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// A sorted map in memory.
#[derive(Debug, Default)]
pub struct BTreeEngine {
    map: RwLock<Map>,
}

/// Puts and deletions (`None`) in their order.
pub type BTreeBatch = Vec<(Box<[u8]>, Option<Box<[u8]>>)>;

impl Engine for BTreeEngine {
    type Batch = BTreeBatch;
    type Scanner<'a> = BTreeScanner<'a>;
    const KEEPS_DATA: bool = false;

    fn open(_directory: &Path, _settings: &EngineSettings) -> EngineResult<Self> {
        Ok(Self::default())
    }

    fn facts(&self) -> Vec<(String, String)> {
        vec![(
            "storage".into(),
            "a BTreeMap behind a lock, nothing on disk".into(),
        )]
    }

    fn put(&self, key: &[u8], value: &[u8], _durability: Durability) -> EngineResult<()> {
        self.map.write().insert(key.into(), value.into());
        Ok(())
    }

    fn delete(&self, key: &[u8], _durability: Durability) -> EngineResult<()> {
        self.map.write().remove(key);
        Ok(())
    }

    fn batch(&self) -> BTreeBatch {
        Vec::new()
    }

    fn batch_put(batch: &mut BTreeBatch, key: &[u8], value: &[u8]) {
        batch.push((key.into(), Some(value.into())));
    }

    fn batch_delete(batch: &mut BTreeBatch, key: &[u8]) {
        batch.push((key.into(), None));
    }

    fn write(&self, batch: BTreeBatch, _durability: Durability) -> EngineResult<()> {
        let mut map = self.map.write();
        for (key, value) in batch {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> EngineResult<R> {
        Ok(read(self.map.read().get(key).map(|value| &**value)))
    }

    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()> {
        let map = self.map.read();
        keys.enumerate()
            .for_each(|(at, key)| each(at, map.get(key).map(|value| &**value)));
        Ok(())
    }

    fn scanner(&self) -> EngineResult<BTreeScanner<'_>> {
        Ok(BTreeScanner { map: &self.map })
    }

    fn flush(&self) -> EngineResult<()> {
        Ok(())
    }

    fn settle(&self) -> EngineResult<()> {
        Ok(())
    }

    fn compact(&self) -> EngineResult<()> {
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let text = format!("{} entries", self.map.read().len());
        EngineStats {
            text,
            ..EngineStats::default()
        }
    }

    fn close(self) -> EngineResult<()> {
        Ok(())
    }
}

/// Holds the lock for the length of a scan.
#[derive(Debug)]
pub struct BTreeScanner<'a> {
    map: &'a RwLock<Map>,
}

impl Scanner for BTreeScanner<'_> {
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64> {
        let map = self.map.read();
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        Ok(match direction {
            Direction::Forward => lend(map.range::<[u8], _>((from, Bound::Unbounded)), limit, each),
            Direction::Backward => lend(
                map.range::<[u8], _>((Bound::Unbounded, from)).rev(),
                limit,
                each,
            ),
        })
    }
}

fn lend<'m>(
    entries: impl Iterator<Item = (&'m Box<[u8]>, &'m Box<[u8]>)>,
    limit: u64,
    mut each: impl FnMut(&[u8], &[u8]) -> bool,
) -> u64 {
    let mut lent = 0;
    if limit == 0 {
        return 0;
    }
    for (key, value) in entries {
        lent += 1;
        if !each(key, value) || lent == limit {
            break;
        }
    }
    lent
}

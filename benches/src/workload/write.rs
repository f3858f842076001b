//! Fills, overwrites and deletions, one by one or in batches.
//!
//! Invariant: a verb that loads keys in an order writes each exactly once, over all threads.

use super::{Job, durability_of};
use crate::distribution::{KeyChooser, Permutation};
use crate::engine::{Durability, Engine, EngineResult};
use crate::expectations::ABSENT;
use crate::keys::KeyBuffer;
use crate::phase::Worker;
use crate::verb::Verb;

/// In which order keys are written.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// 0, 1, 2 and so on; from the beginning again where the time is longer than the keys.
    Ascending,
    /// As drawn, with repetitions.
    Random(KeyChooser),
    /// Each once, shuffled.
    Permuted(Permutation),
}

/// The keys that one worker writes.
struct Source {
    order: Order,
    next: u64,
    end: u64,
    keys: u64,
}

impl Source {
    fn new<E: Engine>(worker: &Worker<'_, E>, job: &Job<'_>, order: Order) -> Self {
        let config = worker.shared.config;
        let batch = config.batch_of(job.verb);
        let operations = worker.part_of(config.operations_of(job.verb));
        let entries = match job.verb {
            Verb::FillSync => config.operations_of(job.verb) * batch,
            _ => config.num,
        };
        let timed = worker.quota == u64::MAX;
        let end = if timed {
            u64::MAX
        } else {
            (operations.end * batch).min(entries)
        };
        Self {
            order,
            next: operations.start * batch,
            end,
            keys: config.num,
        }
    }

    #[inline]
    fn next(&mut self, rng: &mut crate::random::Rng) -> Option<u64> {
        if self.next == self.end {
            return None;
        }
        let position = self.next;
        self.next += 1;
        Some(match &self.order {
            Order::Ascending => position % self.keys,
            Order::Random(chooser) => chooser.index(rng, self.keys),
            Order::Permuted(permutation) => permutation.at(position),
        })
    }
}

/// Writes single entries, its buffers reused.
#[derive(Debug)]
pub(super) struct Writer {
    key: KeyBuffer,
    value: Vec<u8>,
    generation: u8,
    durability: Durability,
}

impl Writer {
    pub(super) fn new<E: Engine>(worker: &Worker<'_, E>, job: &Job<'_>) -> Self {
        let config = worker.shared.config;
        Self {
            key: KeyBuffer::new(config.keys),
            value: Vec::with_capacity(config.value_bytes),
            generation: job.generation,
            durability: durability_of(config, job.verb),
        }
    }

    /// Writes key `index`.
    #[inline]
    pub(super) fn put<E: Engine>(
        &mut self,
        worker: &mut Worker<'_, E>,
        index: u64,
    ) -> EngineResult<()> {
        let key = self.key.set(index);
        worker
            .shared
            .values
            .write(index, self.generation, &mut self.value);
        worker
            .shared
            .engine
            .put(key, &self.value, self.durability)?;
        worker.shared.expectations.set(index, self.generation);
        worker.tally.wrote(key.len() + self.value.len());
        Ok(())
    }

    #[inline]
    fn delete<E: Engine>(&mut self, worker: &mut Worker<'_, E>, index: u64) -> EngineResult<()> {
        let key = self.key.set(index);
        worker.shared.engine.delete(key, self.durability)?;
        worker.shared.expectations.set(index, ABSENT);
        worker.tally.wrote(key.len());
        Ok(())
    }

    /// Writes or deletes a batch of `indexes` at once.
    fn batch<E: Engine>(
        &mut self,
        worker: &mut Worker<'_, E>,
        indexes: &[u64],
        delete: bool,
    ) -> EngineResult<()> {
        let mut batch = worker.shared.engine.batch();
        for &index in indexes {
            let key = self.key.set(index);
            if delete {
                E::batch_delete(&mut batch, key);
                worker.tally.wrote(key.len());
            } else {
                worker
                    .shared
                    .values
                    .write(index, self.generation, &mut self.value);
                E::batch_put(&mut batch, key, &self.value);
                worker.tally.wrote(key.len() + self.value.len());
            }
        }
        worker.shared.engine.write(batch, self.durability)?;
        let state = if delete { ABSENT } else { self.generation };
        for &index in indexes {
            worker.shared.expectations.set(index, state);
        }
        Ok(())
    }
}

/// Writes (or deletes) this worker's part of the keys.
pub(super) fn entries<E: Engine>(
    worker: &mut Worker<'_, E>,
    job: &Job<'_>,
    order: Order,
) -> EngineResult<()> {
    let mut source = Source::new(worker, job, order);
    let mut writer = Writer::new(worker, job);
    let batch = worker.shared.config.batch_of(job.verb);
    let delete = matches!(job.verb, Verb::DeleteSeq | Verb::DeleteRandom);
    let many = batch > 1 || matches!(job.verb, Verb::FillBatch | Verb::FillRandBatch);
    if many {
        let mut indexes = Vec::with_capacity(batch as usize);
        return worker.repeat(|worker, _| {
            indexes.clear();
            while (indexes.len() as u64) < batch {
                let Some(index) = source.next(&mut worker.rng) else {
                    break;
                };
                indexes.push(index);
            }
            writer.batch(worker, &indexes, delete)
        });
    }
    worker.repeat(|worker, _| match source.next(&mut worker.rng) {
        Some(index) if delete => writer.delete(worker, index),
        Some(index) => writer.put(worker, index),
        None => Ok(()),
    })
}

/// Overwrites keys until the measured workers have ended.
pub(super) fn overwrite_freely<E: Engine>(
    worker: &mut Worker<'_, E>,
    job: &Job<'_>,
    chooser: &KeyChooser,
) -> EngineResult<()> {
    let mut writer = Writer::new(worker, job);
    let keys = worker.shared.config.num;
    worker.repeat(|worker, _| {
        let index = chooser.index(&mut worker.rng, keys);
        writer.put(worker, index)
    })
}

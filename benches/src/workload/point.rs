//! Point reads: there, not there, and many at once.
//!
//! Invariant: the expected state of a key is loaded before the engine is asked.

use crate::distribution::KeyChooser;
use crate::engine::{Engine, EngineResult};
use crate::keys::KeyBuffer;
use crate::phase::Worker;

/// Reads single keys, its buffer reused.
#[derive(Debug)]
pub(super) struct Reader {
    key: KeyBuffer,
}

impl Reader {
    pub(super) fn new<E: Engine>(worker: &Worker<'_, E>) -> Self {
        Self {
            key: KeyBuffer::new(worker.shared.config.keys),
        }
    }

    /// Reads and checks key `index`.
    #[inline]
    pub(super) fn get<E: Engine>(
        &mut self,
        worker: &mut Worker<'_, E>,
        index: u64,
    ) -> EngineResult<()> {
        let key = self.key.set(index);
        let before = worker.checks.before(index);
        let checks = &mut worker.checks;
        let (found, bytes) = worker.shared.engine.get(key, |answer| {
            (
                checks.answer(index, before, answer),
                answer.map_or(0, <[u8]>::len),
            )
        })?;
        worker.tally.read(found, key.len() + bytes);
        Ok(())
    }
}

/// Reads keys as `chooser` draws them among the first `keys`.
pub(super) fn random<E: Engine>(
    worker: &mut Worker<'_, E>,
    chooser: &KeyChooser,
    keys: u64,
) -> EngineResult<()> {
    let mut reader = Reader::new(worker);
    worker.repeat(|worker, _| {
        let index = chooser.index(&mut worker.rng, keys);
        reader.get(worker, index)
    })
}

/// Reads keys that lie between those that are written: a key and a dot, as in LevelDB.
pub(super) fn missing<E: Engine>(worker: &mut Worker<'_, E>) -> EngineResult<()> {
    let config = worker.shared.config;
    let key_bytes = config.keys.bytes();
    let mut key = vec![b'.'; key_bytes + 1];
    worker.repeat(|worker, _| {
        let index = worker.rng.below(config.num);
        config.keys.write(index, &mut key[..key_bytes]);
        let checks = &mut worker.checks;
        let found = worker.shared.engine.get(&key, |answer| {
            checks.missing(&key, answer);
            answer.is_some()
        })?;
        worker.tally.read(found, key.len());
        Ok(())
    })
}

/// Reads `batch` keys in one call.
pub(super) fn many<E: Engine>(
    worker: &mut Worker<'_, E>,
    chooser: &KeyChooser,
    batch: u64,
) -> EngineResult<()> {
    let config = worker.shared.config;
    let key_bytes = config.keys.bytes();
    let mut keys = vec![0u8; batch as usize * key_bytes];
    let mut asked: Vec<(u64, u8)> = Vec::with_capacity(batch as usize);
    worker.repeat(|worker, _| {
        asked.clear();
        for key in keys.chunks_exact_mut(key_bytes) {
            let index = chooser.index(&mut worker.rng, config.num);
            config.keys.write(index, key);
            asked.push((index, worker.checks.before(index)));
        }
        let (checks, tally) = (&mut worker.checks, &mut worker.tally);
        let mut answered = 0;
        worker
            .shared
            .engine
            .multi_get(keys.chunks_exact(key_bytes), |at, answer| {
                answered += 1;
                let Some(&(index, before)) = asked.get(at) else {
                    return checks.fail(|| format!("an answer for key {at} of {batch}"));
                };
                let found = checks.answer(index, before, answer);
                tally.read(found, key_bytes + answer.map_or(0, <[u8]>::len));
            })?;
        if answered != batch {
            checks.fail(|| format!("{answered} answers for {batch} keys"));
        }
        Ok(())
    })
}

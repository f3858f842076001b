//! What each verb does, over any engine.
//!
//! Invariant: every answer of the engine goes through [`Checks`](crate::checks::Checks), and a
//! state is expected only after the engine acknowledged the write that made it. Called by
//! `session`, once per verb.

mod mix;
mod point;
mod scan;
mod write;

use crate::args::Config;
use crate::distribution::{Distribution, KeyChooser, Permutation};
use crate::engine::{Durability, Engine, EngineResult};
use crate::expectations::MAX_KEYS;
use crate::phase::{self, Outcome, Plan, Shared, Worker};
use crate::verb::Verb;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// One verb that is to be run now.
#[derive(Debug)]
pub struct Job<'a> {
    /// What to do.
    pub verb: Verb,
    /// The name it is reported by.
    pub name: &'a str,
    /// The number of the phase in its run.
    pub number: u64,
    /// The generation that it writes.
    pub generation: u8,
    /// One above the largest index that may have been written; inserts move it.
    pub key_bound: &'a AtomicU64,
}

/// Runs one verb.
pub fn run<E: Engine>(
    shared: Shared<'_, E>,
    job: &Job<'_>,
    interrupted: &Arc<AtomicBool>,
) -> Outcome {
    let work = |worker: &mut Worker<'_, E>| perform(worker, job);
    let beside = |worker: &mut Worker<'_, E>| {
        let chooser = chooser(shared.config, Distribution::Uniform);
        write::overwrite_freely(worker, job, &chooser)
    };
    let alone = matches!(
        job.verb,
        Verb::Flush | Verb::WaitForCompaction | Verb::Compact | Verb::Stats
    );
    let plan = Plan {
        name: job.name,
        operations: shared.config.operations_of(job.verb),
        timed: !has_natural_end(job.verb),
        threads: if alone { 1 } else { shared.config.threads },
        writing: job.verb.writes().then_some(job.generation),
        number: job.number,
        work: &work,
        beside: match job.verb {
            Verb::ReadWhileWriting => Some(&beside),
            _ => None,
        },
    };
    phase::run(shared, &plan, interrupted)
}

/// Whether a verb ends by itself, so that `--duration` does not apply.
#[must_use]
pub fn has_natural_end(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::FillUniqueRandom
            | Verb::DeleteSeq
            | Verb::ReadSeq
            | Verb::ReadReverse
            | Verb::Flush
            | Verb::WaitForCompaction
            | Verb::Compact
            | Verb::Stats
            | Verb::Verify
            | Verb::Open
            | Verb::OpenAfterKill
    )
}

fn perform<E: Engine>(worker: &mut Worker<'_, E>, job: &Job<'_>) -> EngineResult<()> {
    let config = worker.shared.config;
    let random = || write::Order::Random(chooser(config, Distribution::Uniform));
    match job.verb {
        Verb::FillSeq | Verb::FillBatch => write::entries(worker, job, write::Order::Ascending),
        Verb::FillRandom | Verb::FillRandBatch | Verb::FillSync => {
            let order = write::Order::Random(KeyChooser::Uniform);
            write::entries(worker, job, order)
        }
        Verb::FillUniqueRandom => {
            let order = Permutation::new(config.num, config.seed);
            write::entries(worker, job, write::Order::Permuted(order))
        }
        Verb::Overwrite | Verb::DeleteRandom => write::entries(worker, job, random()),
        Verb::DeleteSeq => write::entries(worker, job, write::Order::Ascending),
        Verb::ReadRandom | Verb::ReadCold | Verb::ReadWhileWriting => {
            point::random(worker, &chooser(config, Distribution::Uniform), config.num)
        }
        Verb::ReadHot => {
            let hot = config.num.div_ceil(100);
            let distribution = config.distribution.unwrap_or(Distribution::Uniform);
            point::random(worker, &KeyChooser::new(distribution, hot), hot)
        }
        Verb::ReadMissing => point::missing(worker),
        Verb::MultiReadRandom => {
            let batch = config.batch_of(job.verb);
            point::many(worker, &chooser(config, Distribution::Uniform), batch)
        }
        Verb::ReadSeq => scan::forward(worker, job),
        Verb::ReadReverse => scan::backward(worker, job),
        Verb::SeekRandom => scan::seek_random(worker, job, &chooser(config, Distribution::Uniform)),
        Verb::Verify => scan::verify(worker, job),
        Verb::Flush => once(worker, Engine::flush),
        Verb::WaitForCompaction => once(worker, Engine::settle),
        Verb::Compact => once(worker, Engine::compact),
        // The session opens by itself.
        Verb::Stats | Verb::Open | Verb::OpenAfterKill => once(worker, |_| Ok(())),
        Verb::YcsbA | Verb::YcsbB | Verb::YcsbC | Verb::YcsbD | Verb::YcsbE | Verb::YcsbF => {
            mix::run(worker, job)
        }
    }
}

fn once<E: Engine>(
    worker: &mut Worker<'_, E>,
    act: impl Fn(&E) -> EngineResult<()>,
) -> EngineResult<()> {
    worker.repeat(|worker, _| act(worker.shared.engine))
}

/// The distribution that was asked for, else `usual`, over all keys.
fn chooser(config: &Config, usual: Distribution) -> KeyChooser {
    KeyChooser::new(config.distribution.unwrap_or(usual), config.num)
}

/// What the writes of a verb survive.
fn durability_of(config: &Config, verb: Verb) -> Durability {
    match verb {
        Verb::FillSync => Durability::Sync,
        _ => config.engine.durability,
    }
}

/// The first index that no key can have.
fn index_limit(config: &Config) -> u64 {
    MAX_KEYS.min(config.keys.limit())
}

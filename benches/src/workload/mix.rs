//! The YCSB core workloads.
//!
//! Invariant: the mix, the request distribution and the scan lengths are those of the workload's
//! definition (see [`Mix`](crate::verb::Mix)); keys are inserted in ascending order.

use super::point::Reader;
use super::write::Writer;
use super::{Job, chooser, index_limit, scan};
use crate::distribution::Distribution;
use crate::engine::{Engine, EngineResult};
use crate::keys::KeyBuffer;
use crate::phase::Worker;
use crate::verb::{Other, Verb};
use std::sync::atomic::Ordering;

/// Scans of workload E read one entry up to this many, uniformly.
const LONGEST_SCAN: u64 = 100;

/// Runs the worker's share of a YCSB workload.
pub(super) fn run<E: Engine>(worker: &mut Worker<'_, E>, job: &Job<'_>) -> EngineResult<()> {
    let Some(mix) = job.verb.mix() else {
        return Ok(());
    };
    let config = worker.shared.config;
    let usual = match job.verb {
        Verb::YcsbD => Distribution::Latest,
        _ => Distribution::Zipfian,
    };
    let latest = config.distribution.unwrap_or(usual) == Distribution::Latest;
    let chooser = chooser(config, usual);
    let limit = index_limit(config);
    let mut reader = Reader::new(worker);
    let mut writer = Writer::new(worker, job);
    let mut key = KeyBuffer::new(config.keys);
    worker.repeat(|worker, _| {
        let bound = job.key_bound.load(Ordering::Relaxed);
        let keys = if latest { bound } else { config.num };
        let index = chooser.index(&mut worker.rng, keys);
        if worker.rng.below(100) < mix.reads {
            return match mix.other {
                Other::InsertBesideScans => {
                    let entries = 1 + worker.rng.below(LONGEST_SCAN);
                    scan::short(worker, &mut key, index, entries, bound)
                }
                _ => reader.get(worker, index),
            };
        }
        match mix.other {
            Other::Update => writer.put(worker, index),
            Other::ReadModifyWrite => {
                reader.get(worker, index)?;
                writer.put(worker, index)
            }
            Other::Insert | Other::InsertBesideScans => {
                let new = job.key_bound.fetch_add(1, Ordering::Relaxed);
                // Keys have a last number; a run that long goes on with updates.
                writer.put(worker, if new < limit { new } else { index })
            }
        }
    })
}

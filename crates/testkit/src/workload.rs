//! Steps for a database to do, drawn from a seed.
//!
//! Invariant: the same options give the same steps, always. Keys come from a small universe, so that
//! they are overwritten, deleted and revived again and again; no two values of a workload are equal
//! (but for empty ones), so that a stale one is told from a fresh one.

use esker_base::write_batch::KeyspaceId;

use crate::seed::Random;
use crate::step::{Action, Durability, Step};

/// How often each kind of step comes, relative to the others; 0 for never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Single puts.
    pub put: u32,
    /// Single puts that expire.
    pub put_with_ttl: u32,
    /// Single deletions.
    pub delete: u32,
    /// Deletions of a range.
    pub delete_range: u32,
    /// Batches of all of the above.
    pub batch: u32,
    /// Snapshots taken, and given back.
    pub snapshot: u32,
    /// Flushes.
    pub flush: u32,
    /// Compactions of everything.
    pub compact: u32,
    /// Compactions of a range.
    pub compact_range: u32,
    /// Passing of time.
    pub pass_time: u32,
    /// Comparisons of everything.
    pub check: u32,
    /// Closing and opening again.
    pub reopen: u32,
}

impl Default for Mix {
    /// Everything occurs; writes most.
    fn default() -> Self {
        Self {
            put: 40,
            put_with_ttl: 5,
            delete: 12,
            delete_range: 5,
            batch: 14,
            snapshot: 6,
            flush: 4,
            compact: 1,
            compact_range: 2,
            pass_time: 4,
            check: 3,
            reopen: 2,
        }
    }
}

impl Mix {
    /// Writes alone.
    #[must_use]
    pub fn writes() -> Self {
        let none = Self {
            snapshot: 0,
            flush: 0,
            compact: 0,
            compact_range: 0,
            pass_time: 0,
            check: 0,
            reopen: 0,
            ..Self::default()
        };
        Self {
            put_with_ttl: 0,
            ..none
        }
    }

    fn kinds(&self) -> [(u32, Kind); 12] {
        [
            (self.put, Kind::Put),
            (self.put_with_ttl, Kind::PutWithTtl),
            (self.delete, Kind::Delete),
            (self.delete_range, Kind::DeleteRange),
            (self.batch, Kind::Batch),
            (self.snapshot, Kind::Snapshot),
            (self.flush, Kind::Flush),
            (self.compact, Kind::Compact),
            (self.compact_range, Kind::CompactRange),
            (self.pass_time, Kind::PassTime),
            (self.check, Kind::Check),
            (self.reopen, Kind::Reopen),
        ]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    PutWithTtl,
    Delete,
    DeleteRange,
    Batch,
    Snapshot,
    Flush,
    Compact,
    CompactRange,
    PassTime,
    Check,
    Reopen,
}

/// What a workload is drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadOptions {
    /// Decides every choice.
    pub seed: u64,
    /// How many steps.
    pub steps: usize,
    /// How many different keys there are in each keyspace; at least 1.
    pub keys: usize,
    /// How many keyspaces, numbered from 0; at least 1.
    pub keyspaces: KeyspaceId,
    /// The longest value, bytes; 8 at least, for their numbers. Most are much shorter.
    pub value_bytes: usize,
    /// The most actions of a batch; at least 1.
    pub batch_actions: usize,
    /// The most snapshots held at once.
    pub snapshots: usize,
    /// Which durabilities writes ask for, each as often as the others; at least one.
    pub durabilities: Vec<Durability>,
    /// How often each kind of step comes.
    pub mix: Mix,
}

impl WorkloadOptions {
    /// A small workload of every kind of step.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: 200,
            keys: 40,
            keyspaces: 1,
            value_bytes: 2000,
            batch_actions: 8,
            snapshots: 3,
            durabilities: vec![Durability::Sync, Durability::Buffered],
            mix: Mix::default(),
        }
    }
}

/// The steps, one after the other.
///
/// ```
/// use esker_testkit::{Workload, WorkloadOptions};
///
/// let steps: Vec<_> = Workload::new(WorkloadOptions::new(7)).collect();
/// assert_eq!(steps.len(), 200);
/// assert!(steps.iter().eq(&Workload::new(WorkloadOptions::new(7)).collect::<Vec<_>>()));
/// ```
#[derive(Clone, Debug)]
pub struct Workload {
    options: WorkloadOptions,
    random: Random,
    left: usize,
    values: u64,
    snapshots: Vec<bool>,
}

impl Workload {
    /// The workload of these options.
    ///
    /// # Panics
    /// Where an option is below its stated bound, or the mix is empty.
    #[must_use]
    pub fn new(options: WorkloadOptions) -> Self {
        assert!(options.keys > 0 && options.keyspaces > 0 && options.batch_actions > 0);
        assert!(!options.durabilities.is_empty());
        assert!(
            options.mix.kinds().iter().any(|(weight, _)| *weight > 0),
            "an empty mix"
        );
        Self {
            random: Random::new(options.seed),
            left: options.steps,
            values: 0,
            snapshots: vec![false; options.snapshots],
            options,
        }
    }

    fn kind(&mut self) -> Kind {
        let kinds = self.options.mix.kinds();
        let sum = kinds.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut draw = self.random.below(sum);
        for (weight, kind) in kinds {
            match draw.checked_sub(u64::from(weight)) {
                Some(rest) => draw = rest,
                None => return kind,
            }
        }
        Kind::Check
    }

    fn keyspace(&mut self) -> KeyspaceId {
        self.random.below(u64::from(self.options.keyspaces)) as KeyspaceId
    }

    fn key(&mut self) -> Vec<u8> {
        key(self.random.index(self.options.keys))
    }

    /// Two keys in order, the second one above the first.
    fn range(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (a, b) = (self.key(), self.key());
        let (start, mut end) = if a < b { (a, b) } else { (b, a) };
        if start == end {
            // The shortest range there is: this key alone.
            end.push(0);
        }
        (start, end)
    }

    /// Mostly short, sometimes empty, sometimes as long as allowed; begins with its own number.
    fn value(&mut self) -> Vec<u8> {
        let longest = self.options.value_bytes;
        let bytes = match self.random.below(20) {
            0 => 0,
            1 => self.random.index(longest + 1),
            _ => self.random.index(longest.min(100) + 1),
        };
        if bytes == 0 {
            return Vec::new();
        }
        self.values += 1;
        let mut value = self.values.to_be_bytes().to_vec();
        let tail = bytes.saturating_sub(value.len());
        value.resize(value.len() + tail, 0);
        // The rest is zeros, so that there is something to compress.
        let random_end = value.len() - tail / 2;
        self.random.fill(&mut value[8..random_end]);
        value
    }

    fn action(&mut self, kind: Kind) -> Action {
        let keyspace = self.keyspace();
        match kind {
            Kind::Delete => Action::Delete {
                keyspace,
                key: self.key(),
            },
            Kind::DeleteRange => {
                let (start, end) = self.range();
                Action::DeleteRange {
                    keyspace,
                    start,
                    end,
                }
            }
            kind => {
                let ttl_millis = (kind == Kind::PutWithTtl).then(|| 1 + self.random.below(5000));
                Action::Put {
                    keyspace,
                    key: self.key(),
                    value: self.value(),
                    ttl_millis,
                }
            }
        }
    }

    fn batch(&mut self) -> Vec<Action> {
        let mix = &self.options.mix;
        let weights = [mix.put, mix.put_with_ttl, mix.delete, mix.delete_range].map(u64::from);
        let kinds = [Kind::Put, Kind::PutWithTtl, Kind::Delete, Kind::DeleteRange];
        let count = 1 + self.random.index(self.options.batch_actions);
        let draw = |random: &mut Random| {
            let mut draw = random.below(weights.iter().sum());
            let position = weights.iter().position(|weight| {
                let here = draw < *weight;
                draw = draw.saturating_sub(*weight);
                here
            });
            kinds[position.unwrap_or(0)]
        };
        (0..count)
            .map(|_| {
                let kind = draw(&mut self.random);
                self.action(kind)
            })
            .collect()
    }

    fn snapshot(&mut self) -> Step {
        if self.snapshots.is_empty() {
            return Step::Check;
        }
        let number = self.random.index(self.snapshots.len());
        let held = self.snapshots[number];
        self.snapshots[number] = !held;
        if held {
            Step::ReleaseSnapshot(number)
        } else {
            Step::TakeSnapshot(number)
        }
    }

    fn step(&mut self) -> Step {
        let kind = self.kind();
        let actions = match kind {
            Kind::Snapshot => return self.snapshot(),
            Kind::Flush => return Step::Flush,
            Kind::Compact => return Step::Compact,
            Kind::CompactRange => {
                let keyspace = self.keyspace();
                let (start, end) = self.range();
                return Step::CompactRange {
                    keyspace,
                    start,
                    end,
                };
            }
            Kind::PassTime => return Step::PassTime(self.random.below(3000)),
            Kind::Check => return Step::Check,
            Kind::Reopen => {
                self.snapshots.fill(false);
                return Step::Reopen;
            }
            Kind::Batch => self.batch(),
            Kind::Put | Kind::PutWithTtl | Kind::Delete | Kind::DeleteRange => {
                vec![self.action(kind)]
            }
        };
        let durability = self.random.index(self.options.durabilities.len());
        Step::Write {
            actions,
            durability: self.options.durabilities[durability],
        }
    }
}

impl Iterator for Workload {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.left = self.left.checked_sub(1)?;
        Some(self.step())
    }
}

/// The key of this number. Among them are keys that begin others, that differ late, that have bytes 0
/// and 255, and that are long; no key is empty.
#[must_use]
pub fn key(number: usize) -> Vec<u8> {
    let tail = number / 5;
    match number % 5 {
        0 => format!("key{tail:06}").into_bytes(),
        1 => format!("key{:06}/field/{tail}", tail / 4).into_bytes(),
        2 => vec![b'z'; tail + 1],
        3 => [&[0xff, 0, 0xff][..], &(tail as u32).to_be_bytes()].concat(),
        _ => [&[b'p'; 200][..], &(tail as u32).to_be_bytes()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    fn steps(options: WorkloadOptions) -> Vec<Step> {
        Workload::new(options).collect()
    }

    fn actions(steps: &[Step]) -> impl Iterator<Item = &Action> {
        steps.iter().flat_map(|step| match step {
            Step::Write { actions, .. } => &actions[..],
            _ => &[],
        })
    }

    #[test]
    fn keys_are_different_and_some_begin_others() {
        let keys: BTreeSet<_> = (0..200).map(key).collect();
        assert_eq!(keys.len(), 200);
        assert!(keys.iter().all(|key| !key.is_empty()));
        let keys: Vec<_> = keys.into_iter().collect();
        assert!(
            keys.windows(2)
                .filter(|pair| pair[1].starts_with(&pair[0]))
                .count()
                > 20
        );
    }

    #[test]
    fn every_kind_of_step_occurs_and_is_well_formed() {
        let options = WorkloadOptions {
            steps: 3000,
            keyspaces: 3,
            ..WorkloadOptions::new(1)
        };
        let steps = steps(options);
        let kinds: HashSet<_> = steps.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 9);
        let mut values = HashSet::new();
        let mut keyspaces = HashSet::new();
        for action in actions(&steps) {
            match action {
                Action::Put {
                    keyspace, value, ..
                } => {
                    keyspaces.insert(*keyspace);
                    assert!(
                        value.is_empty() || values.insert(value.clone()),
                        "twice: {value:?}"
                    );
                }
                Action::DeleteRange { start, end, .. } => assert!(start < end),
                Action::Delete { .. } => {}
            }
        }
        assert_eq!(keyspaces, HashSet::from([0, 1, 2]));
    }

    #[test]
    fn snapshots_are_taken_and_released_in_turn() {
        let mut held = HashSet::new();
        for step in steps(WorkloadOptions {
            steps: 2000,
            ..WorkloadOptions::new(5)
        }) {
            match step {
                Step::TakeSnapshot(number) => assert!(number < 3 && held.insert(number)),
                Step::ReleaseSnapshot(number) => assert!(held.remove(&number)),
                Step::Reopen => held.clear(),
                _ => {}
            }
        }
    }

    #[test]
    fn the_mix_decides_and_seeds_differ() {
        let options = |seed| WorkloadOptions {
            mix: Mix::writes(),
            ..WorkloadOptions::new(seed)
        };
        let written = steps(options(1));
        assert!(
            written
                .iter()
                .all(|step| matches!(step, Step::Write { .. }))
        );
        let expires = |action: &Action| {
            matches!(
                action,
                Action::Put {
                    ttl_millis: Some(_),
                    ..
                }
            )
        };
        assert!(!actions(&written).any(expires));
        assert_ne!(written, steps(options(2)));
        assert_eq!(written, steps(options(1)));
    }
}

//! What a workload does to a database: the steps of the kit, and what only this engine has. Drawn
//! from a seed, as plain data, so that a failing list of them can be shortened.

use std::fmt;

use esker_testkit::workload::key;
use esker_testkit::{Action, Durability, Mix, Random, Step, Workload, WorkloadOptions};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Step(Step),
    /// Load these sorted entries into a keyspace.
    Ingest(u32, Vec<(Vec<u8>, Vec<u8>)>),
    /// Drop a keyspace other than the default one, if it is there.
    DropKeyspace(u32),
    /// Delete everything in a keyspace.
    Clear(u32),
    RotateLog,
    SyncLog,
    ClearLog,
    /// Back everything up under this number: as a backup, the later ones incremental, or as a recovery
    /// point.
    BackUp {
        number: u64,
        is_point: bool,
    },
    /// Restore the backup or point that stands here in the list, counted around, if there is any.
    Restore(usize),
    /// Delete it.
    DeleteBackup(usize),
    /// Restore the end of the log, where that is archived: nothing changes.
    RestoreLatest,
    /// Restore the moment of an earlier write, counted around, where the log is archived.
    RestoreMoment(usize),
    /// Remove what has expired.
    CleanUp,
    /// Read a key and commit these actions in a transaction; with a write to that key by another in
    /// between, which it must lose against, if so.
    Transaction {
        actions: Vec<Action>,
        disturbed: bool,
    },
    /// Let so many jobs of the background run.
    Work(usize),
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(f),
            Self::Ingest(keyspace, entries) => {
                write!(f, "ingest {} keys into {keyspace}", entries.len())
            }
            Self::DropKeyspace(keyspace) => write!(f, "drop keyspace {keyspace}"),
            Self::Clear(keyspace) => write!(f, "clear keyspace {keyspace}"),
            Self::RotateLog => f.write_str("rotate the log"),
            Self::SyncLog => f.write_str("sync the log"),
            Self::ClearLog => f.write_str("clear the log"),
            Self::BackUp { number, is_point } => {
                let what = if *is_point {
                    "recovery point"
                } else {
                    "backup"
                };
                write!(f, "make {what} {number}")
            }
            Self::Restore(index) => write!(f, "restore backup at {index}"),
            Self::DeleteBackup(index) => write!(f, "delete backup at {index}"),
            Self::RestoreLatest => f.write_str("restore the end of the log"),
            Self::RestoreMoment(index) => write!(f, "restore moment at {index}"),
            Self::CleanUp => f.write_str("clean up what has expired"),
            Self::Transaction { actions, disturbed } => {
                let actions: Vec<_> = actions.iter().map(ToString::to_string).collect();
                let how = if *disturbed { "disturbed " } else { "" };
                write!(f, "{how}transaction: {}", actions.join(", "))
            }
            Self::Work(jobs) => write!(f, "run {jobs} jobs"),
        }
    }
}

/// The keyspaces of a workload, the default one included.
pub(crate) const KEYSPACES: u32 = 2;
/// Different keys in each of them.
pub(crate) const KEYS: usize = 30;

/// `count` deeds that `seed` decides. The seed decides the temper as well: how much is synced, how
/// long values are, how often the database is reopened.
pub(crate) fn deeds(seed: u64, count: usize) -> Vec<Deed> {
    let mut random = Random::of_part(seed, 77);
    let durabilities = match random.below(4) {
        0 => vec![Durability::Buffered],
        1 => vec![Durability::Sync],
        _ => vec![Durability::Sync, Durability::Buffered, Durability::Buffered],
    };
    let options = WorkloadOptions {
        seed,
        steps: count,
        keys: KEYS,
        keyspaces: KEYSPACES,
        value_bytes: [100, 1500, 4000][random.index(3)],
        batch_actions: 6,
        snapshots: 2,
        durabilities,
        mix: Mix {
            compact: 1,
            check: 0,
            reopen: random.below(4) as u32,
            ..Mix::default()
        },
    };
    let mut number = 0;
    let step = |step| match (random.below(14), step) {
        (0 | 1, Step::Write { actions, .. }) if random.below(3) == 0 => {
            transaction(&mut random, actions)
        }
        (0 | 1, _) => special(&mut random, &mut number),
        (2, _) => Deed::Work(1 + random.index(3)),
        (_, step) => Deed::Step(step),
    };
    Workload::new(options).map(step).collect()
}

/// The actions that transactions have calls for.
fn transaction(random: &mut Random, actions: Vec<Action>) -> Deed {
    let possible = |action: Action| match action {
        Action::Put {
            keyspace,
            key,
            value,
            ..
        } => Some(Action::Put {
            keyspace,
            key,
            value,
            ttl_millis: None,
        }),
        Action::DeleteRange { keyspace, .. } if keyspace != 0 => None,
        other => Some(other),
    };
    let disturbed = random.below(4) == 0;
    Deed::Transaction {
        actions: actions.into_iter().filter_map(possible).collect(),
        disturbed,
    }
}

fn special(random: &mut Random, number: &mut u64) -> Deed {
    let keyspace = random.below(u64::from(KEYSPACES)) as u32;
    match random.below(20) {
        0 | 1 => {
            let mut entries: Vec<_> = (0..1 + random.index(8))
                .map(|_| {
                    *number += 1;
                    let mut value = format!("ingested {number} ").into_bytes();
                    value.resize(value.len() + random.index(600), b'i');
                    (key(random.index(KEYS)), value)
                })
                .collect();
            entries.sort();
            entries.dedup_by(|a, b| a.0 == b.0);
            Deed::Ingest(keyspace, entries)
        }
        2 => Deed::DropKeyspace(1),
        3 => Deed::Clear(keyspace),
        4 | 5 => Deed::RotateLog,
        6 => Deed::SyncLog,
        7 | 8 => Deed::ClearLog,
        9..=12 => {
            *number += 1;
            Deed::BackUp {
                number: *number,
                is_point: random.below(3) == 0,
            }
        }
        13 | 14 => Deed::Restore(random.index(4)),
        15 | 16 => Deed::DeleteBackup(random.index(4)),
        17 => Deed::RestoreLatest,
        18 => Deed::RestoreMoment(random.index(12)),
        _ => Deed::CleanUp,
    }
}

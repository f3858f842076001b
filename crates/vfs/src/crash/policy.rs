//! What a power loss leaves of that which was written but not synced.
//!
//! Invariant: whatever was synced is in every image; the policy decides about the rest, and its seed
//! decides every choice in it, so that policy and operation number together name one image.

use std::fmt;

use crate::random::Random;

/// What becomes of bytes, lengths and allocations that no sync has made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnsyncedData {
    /// All of it is gone.
    Lost,
    /// All of it is there, as after the end of the process alone; the pages that a failed sync
    /// took for clean too.
    Kept,
    /// Each 512-byte sector is as some one of the unsynced writes to it left it, or as it was
    /// before them all; the length likewise is one that the file had.
    RandomSectors,
    /// The disk wrote in order: all writes up to a point are there, the last of them torn at any
    /// byte.
    TornTail,
    /// The lengths are there, and each sector of an unsynced write holds what it should, what it
    /// did before, or garbage.
    Garbage,
}

/// What becomes of names (creations, renames, links, removals) in directories that no sync has made
/// durable. A rename happens or does not: its new name never stands for nothing in between. Between
/// two directories it may leave both names, never neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnsyncedNames {
    /// All changes are gone: a synced file whose directory was not synced is lost.
    Lost,
    /// All changes are there.
    Kept,
    /// The changes up to a point are there, over all directories, as a journal has it.
    Prefix,
    /// Each change is there or not, whatever became of those before it: as strict as POSIX allows.
    RandomSubset,
}

/// What a crash leaves. See [`CrashFileSystem::image`](crate::CrashFileSystem::image).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImagePolicy {
    /// What becomes of data.
    pub data: UnsyncedData,
    /// What becomes of names.
    pub names: UnsyncedNames,
    /// What decides the choices of both.
    pub seed: u64,
}

impl ImagePolicy {
    /// Power is lost, and nothing is there but what was synced.
    pub const ONLY_SYNCED: Self = Self {
        data: UnsyncedData::Lost,
        names: UnsyncedNames::Lost,
        seed: 0,
    };

    /// The process ends, the machine does not: everything is there.
    pub const PROCESS_END: Self = Self {
        data: UnsyncedData::Kept,
        names: UnsyncedNames::Kept,
        seed: 0,
    };

    /// A random subset of unsynced sectors, with names by the seed.
    #[must_use]
    pub fn random_subset(seed: u64) -> Self {
        Self {
            data: UnsyncedData::RandomSectors,
            names: names_of(seed),
            seed,
        }
    }

    /// A prefix of the unsynced writes, the last one torn, with names by the seed.
    #[must_use]
    pub fn torn_tail(seed: u64) -> Self {
        Self {
            data: UnsyncedData::TornTail,
            names: names_of(seed),
            seed,
        }
    }

    /// Garbage where unsynced writes went, with names by the seed.
    #[must_use]
    pub fn garbage_tail(seed: u64) -> Self {
        Self {
            data: UnsyncedData::Garbage,
            names: names_of(seed),
            seed,
        }
    }

    /// The policy that a seed stands for: every combination of the others occurs.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let data = match Random::of_part(seed, 1).below(5) {
            0 => UnsyncedData::Lost,
            1 => UnsyncedData::Kept,
            2 => UnsyncedData::RandomSectors,
            3 => UnsyncedData::TornTail,
            _ => UnsyncedData::Garbage,
        };
        Self {
            data,
            names: names_of(seed),
            seed,
        }
    }

    /// The same policy with another rule for names.
    #[must_use]
    pub fn with_names(self, names: UnsyncedNames) -> Self {
        Self { names, ..self }
    }
}

fn names_of(seed: u64) -> UnsyncedNames {
    match Random::of_part(seed, 0).below(4) {
        0 => UnsyncedNames::Lost,
        1 => UnsyncedNames::Kept,
        2 => UnsyncedNames::Prefix,
        _ => UnsyncedNames::RandomSubset,
    }
}

/// One line that says all that is needed to make the same image again.
impl fmt::Display for ImagePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "data {:?}, names {:?}, seed {}",
            self.data, self.names, self.seed
        )
    }
}

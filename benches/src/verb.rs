//! The verbs: what `--benchmarks` names, after LevelDB's and RocksDB's db_bench and YCSB.
//!
//! Invariant: a verb's name is stable, for programs that read the JSON.

use clap::ValueEnum;

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Verb {
    /// Load all keys in ascending order into a fresh database
    FillSeq,
    /// Write random keys (some of them twice) into a fresh database
    FillRandom,
    /// Load all keys in random order, each once, into a fresh database
    FillUniqueRandom,
    /// As fillseq, in batches of --batch_size (100) entries; an operation is a batch
    FillBatch,
    /// As fillrandom, in batches of --batch_size (100) entries; an operation is a batch
    FillRandBatch,
    /// As fillrandom, each write on stable storage before the next; num/1000 of them
    FillSync,
    /// Overwrite random keys
    Overwrite,
    /// Read random keys
    ReadRandom,
    /// Read keys that are not there, between those that are
    ReadMissing,
    /// Read random keys of the first hundredth
    ReadHot,
    /// As readrandom, after closing the database, dropping its files from the system's cache, and
    /// opening it again
    ReadCold,
    /// Close the database and open it again, --reads (20) times; the opening alone is timed, and the
    /// first one, which may find work that the last phase left, not at all
    Open,
    /// Open a database whose writer was killed with num/5 writes behind it, --reads (3) times
    OpenAfterKill,
    /// Scan everything in ascending order; an operation is an entry
    ReadSeq,
    /// Scan everything in descending order; an operation is an entry
    ReadReverse,
    /// Seek to a random key with a fresh cursor and read --seek_nexts entries behind it
    SeekRandom,
    /// Read --batch_size (100) random keys in one call; an operation is a call
    MultiReadRandom,
    /// Read random keys while one more thread overwrites random keys
    ReadWhileWriting,
    /// Delete all keys in ascending order
    DeleteSeq,
    /// Delete random keys
    DeleteRandom,
    /// Move what is buffered in memory into files
    Flush,
    /// Wait until no background work is due
    WaitForCompaction,
    /// Bring the database into its most compact form
    Compact,
    /// Print what the engine counted
    Stats,
    /// Walk everything forwards and backwards and compare every byte
    Verify,
    /// YCSB A: 50 % reads, 50 % updates, zipfian
    YcsbA,
    /// YCSB B: 95 % reads, 5 % updates, zipfian
    YcsbB,
    /// YCSB C: reads, zipfian
    YcsbC,
    /// YCSB D: 95 % reads of the latest, 5 % inserts
    YcsbD,
    /// YCSB E: 95 % scans of up to 100 entries, 5 % inserts, zipfian
    YcsbE,
    /// YCSB F: 50 % reads, 50 % read-modify-writes, zipfian
    YcsbF,
}

/// What a run does when it is not told: loads, overwrites, every kind of read, the mixes, and the
/// upkeep, in about a minute.
pub const TOUR: &[Verb] = &[
    Verb::FillSeq,
    Verb::FillBatch,
    Verb::FillSync,
    Verb::FillRandom,
    Verb::Overwrite,
    Verb::DeleteRandom,
    Verb::FillUniqueRandom,
    Verb::ReadRandom,
    Verb::ReadMissing,
    Verb::ReadHot,
    Verb::ReadSeq,
    Verb::ReadReverse,
    Verb::SeekRandom,
    Verb::MultiReadRandom,
    Verb::ReadWhileWriting,
    Verb::YcsbA,
    Verb::YcsbB,
    Verb::YcsbC,
    Verb::YcsbD,
    Verb::YcsbE,
    Verb::YcsbF,
    Verb::Compact,
    Verb::Verify,
    Verb::DeleteSeq,
    Verb::Stats,
];

impl Verb {
    /// Its name on the command line and in the JSON.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it begins with an empty database (unless an existing one is used).
    #[must_use]
    pub fn starts_fresh(self) -> bool {
        matches!(
            self,
            Self::FillSeq
                | Self::FillRandom
                | Self::FillUniqueRandom
                | Self::FillBatch
                | Self::FillRandBatch
                | Self::FillSync
        )
    }

    /// Whether it closes and opens the database itself, instead of working on an open one.
    #[must_use]
    pub fn opens(self) -> bool {
        matches!(self, Self::Open | Self::OpenAfterKill)
    }

    /// Whether it makes sense only on a database that holds something.
    #[must_use]
    pub fn needs_data(self) -> bool {
        !self.starts_fresh()
            && !matches!(
                self,
                Self::Flush | Self::WaitForCompaction | Self::Stats | Self::OpenAfterKill
            )
    }

    /// Whether it needs every one of the `num` keys.
    #[must_use]
    pub fn needs_all_keys(self) -> bool {
        self.mix().is_some()
    }

    /// The mix of a YCSB workload.
    #[must_use]
    pub fn mix(self) -> Option<Mix> {
        Some(match self {
            Self::YcsbA => Mix {
                reads: 50,
                other: Other::Update,
            },
            Self::YcsbB => Mix {
                reads: 95,
                other: Other::Update,
            },
            Self::YcsbC => Mix {
                reads: 100,
                other: Other::Update,
            },
            Self::YcsbD => Mix {
                reads: 95,
                other: Other::Insert,
            },
            Self::YcsbE => Mix {
                reads: 95,
                other: Other::InsertBesideScans,
            },
            Self::YcsbF => Mix {
                reads: 50,
                other: Other::ReadModifyWrite,
            },
            _ => return None,
        })
    }

    /// Whether the phase writes.
    #[must_use]
    pub fn writes(self) -> bool {
        self.starts_fresh()
            || matches!(
                self,
                Self::Overwrite | Self::DeleteSeq | Self::DeleteRandom | Self::ReadWhileWriting
            )
            || self.mix().is_some_and(|mix| mix.reads < 100)
    }
}

/// Source: Cooper, Silberstein, Tam, Ramakrishnan, Sears: Benchmarking Cloud Serving Systems with
/// YCSB (SoCC 2010), the core workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Reads (or scans), per cent.
    pub reads: u64,
    /// What the rest of the operations do.
    pub other: Other,
}

/// The other half of a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Writes an existing key again.
    Update,
    /// Writes a new key.
    Insert,
    /// Writes a new key; and the reads are scans.
    InsertBesideScans,
    /// Reads a key and writes it again.
    ReadModifyWrite,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_known_ones() {
        let names: Vec<String> = Verb::value_variants()
            .iter()
            .map(|verb| verb.name())
            .collect();
        for name in [
            "fillseq",
            "fillrandom",
            "fillbatch",
            "fillsync",
            "overwrite",
            "readrandom",
            "readmissing",
            "readhot",
            "readcold",
            "open",
            "openafterkill",
            "readseq",
            "readreverse",
            "seekrandom",
            "deleteseq",
            "deleterandom",
            "readwhilewriting",
            "multireadrandom",
            "compact",
            "stats",
            "verify",
            "ycsba",
            "ycsbb",
            "ycsbc",
            "ycsbd",
            "ycsbe",
            "ycsbf",
        ] {
            assert!(
                names.iter().any(|known| known == name),
                "{name} is missing of {names:?}"
            );
        }
    }

    #[test]
    fn the_tour_begins_with_a_load_and_ends_in_checks() {
        assert!(TOUR[0].starts_fresh() && !TOUR[0].needs_data());
        assert!(TOUR.contains(&Verb::Verify));
    }
}

//! Settling: every option within its bounds, none against another, and what depends on something else
//! worked out.
//!
//! Invariants: what is refused is refused with the name of the option, its value and the bound or the
//! option that it offends; an option that nobody asked for gives way instead. Called by the builder, and
//! for every change at run time. `docs/guide/options.md` lists the bounds, and a test compares.

use super::{Settings, budget};
use crate::option_word::Word;
use esker_base::{Error, Result, limits};
use esker_sstable::Compression;
use std::collections::BTreeSet;
use std::time::Duration;

/// Where the files of a database are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Disk,
    Memory,
}

/// The least and the most of the options that are plain numbers.
fn bounded(s: &Settings) -> [(&'static str, u64, u64, u64); 18] {
    [
        (
            "write_buffer_bytes",
            s.write_buffer_bytes as u64,
            4 << 10,
            (4 << 30) - (64 << 20),
        ),
        ("max_sealed_memtables", s.max_sealed_memtables as u64, 1, 64),
        ("background_threads", s.background_threads as u64, 1, 64),
        ("max_subcompactions", s.max_subcompactions as u64, 1, 64),
        (
            "wal_size_limit_bytes",
            s.wal_size_limit_bytes,
            64 << 10,
            1 << 50,
        ),
        ("wal_segment_bytes", s.wal_segment_bytes, 16 << 10, 1 << 30),
        (
            "change_retention_bytes",
            s.change_retention_bytes,
            0,
            1 << 60,
        ),
        ("manifest_bytes", s.manifest_bytes, 4 << 10, 1 << 30),
        ("block_bytes", s.block_bytes as u64, 256, 1 << 20),
        ("target_file_bytes", s.target_file_bytes, 4 << 10, 1 << 40),
        ("level0_runs", s.level0_runs as u64, 1, 64),
        ("size_ratio", s.size_ratio as u64, 2, 64),
        ("tier_runs", s.tier_runs as u64, 2, 64),
        ("max_open_files", s.max_open_files as u64, 4, 1 << 20),
        (
            "max_key_bytes",
            s.max_key_bytes as u64,
            1,
            limits::MAX_KEY_BYTES as u64,
        ),
        (
            "max_value_bytes",
            s.max_value_bytes as u64,
            0,
            limits::MAX_VALUE_BYTES as u64,
        ),
        ("cache_bytes", s.cache_bytes as u64, 0, 1 << 50),
        (
            "value_separation_threshold_bytes",
            s.value_separation_threshold_bytes as u64,
            0,
            1 << 30,
        ),
    ]
}

impl Settings {
    /// Checks every bound, refuses contradictions, and settles what depends on something else.
    /// `given` names the options that somebody asked for; the others give way.
    pub(crate) fn settle(mut self, given: &BTreeSet<&'static str>) -> Result<Self> {
        for (name, value, least, most) in bounded(&self) {
            if value < least || value > most {
                let sentence = format!("option {name} is {value}; it must be {least} to {most}");
                return Err(Error::invalid_argument(sentence));
            }
        }
        let shares = [
            ("filter_bits_per_key", self.filter_bits_per_key, 0.0, 64.0),
            ("value_garbage_ratio", self.value_garbage_ratio, 0.05, 0.95),
        ];
        for (name, value, least, most) in shares {
            if !(least..=most).contains(&value) {
                let sentence = format!("option {name} is {value}; it must be {least} to {most}");
                return Err(Error::invalid_argument(sentence));
            }
        }
        // As it will be found again: in whole milliseconds.
        self.default_ttl = Word::from_word(self.default_ttl.to_word());
        self.ttl_cleanup_interval = Word::from_word(self.ttl_cleanup_interval.to_word());
        if self.ttl_cleanup_interval == Some(Duration::ZERO) {
            let sentence =
                "option ttl_cleanup_interval is 0; it must be 1 millisecond or more, or none";
            return Err(Error::invalid_argument(sentence));
        }
        self.refuse_contradictions(given)?;
        self.keep_within_budget();
        self.wal_segment_bytes = self
            .wal_segment_bytes
            .min((self.wal_size_limit_bytes / 8).max(16 << 10));
        if !given.contains("target_file_bytes") {
            self.target_file_bytes = self.target_file_bytes.max(self.block_bytes as u64);
        }
        Ok(self)
    }

    /// As [`Settings::settle`], for a database in memory: what only a disk needs is left out where it
    /// was not asked for.
    pub(crate) fn settle_in_memory(mut self, given: &BTreeSet<&'static str>) -> Result<Self> {
        self.refuse_misplaced(Place::Memory)?;
        let free = |name: &str| !given.contains(name);
        // A table is in memory already: reading it would only unpack it into more of that.
        if free("compression") {
            self.compression = Compression::None;
        }
        if free("upper_compression") {
            self.upper_compression = Compression::None;
        }
        if free("manifest_bytes") {
            self.manifest_bytes = 64 << 10;
        }
        if let Some(limit) = self.memory_limit_bytes {
            let part = |of: u64| (limit / of).max(4 << 10);
            let part_bytes = |of: u64| usize::try_from(part(of)).unwrap_or(usize::MAX);
            if free("cache_bytes") {
                self.cache_bytes = self.cache_bytes.min(part_bytes(16));
            }
            if free("write_buffer_bytes") {
                self.write_buffer_bytes = self.write_buffer_bytes.min(part_bytes(8));
            }
            if free("target_file_bytes") {
                self.target_file_bytes = self.target_file_bytes.min(part(16));
            }
        }
        self.settle(given)
    }

    /// As [`Settings::settle`], for a database on disk.
    pub(crate) fn settle_on_disk(mut self, given: &BTreeSet<&'static str>) -> Result<Self> {
        self.refuse_misplaced(Place::Disk)?;
        self.use_budget(given);
        self.settle(given)
    }

    /// Refuses what a database in this `place` has no use for.
    pub(crate) fn refuse_misplaced(&self, place: Place) -> Result<()> {
        let in_memory = place == Place::Memory;
        let misplaced = [
            (
                in_memory && self.wal_archive,
                "option wal_archive is true, and only a database on disk has a log: leave it out in memory",
            ),
            (
                in_memory && self.memory_budget_bytes != 0,
                "option memory_budget_bytes is for databases on disk; what one in memory takes is bounded \
                 by memory_limit_bytes",
            ),
            (
                !in_memory && self.memory_limit_bytes.is_some(),
                "option memory_limit_bytes is for databases in memory; what one on disk takes is bounded \
                 by memory_budget_bytes",
            ),
        ];
        match misplaced.iter().find(|(is_so, _)| *is_so) {
            Some((_, sentence)) => Err(Error::invalid_argument(*sentence)),
            None => Ok(()),
        }
    }

    fn refuse_contradictions(&self, given: &BTreeSet<&'static str>) -> Result<()> {
        let refuse = |sentence: String| Err(Error::invalid_argument(sentence));
        if self.error_if_exists && !self.create_if_missing {
            return refuse(
                "options error_if_exists and create_if_missing(false) contradict each other: \
                 no directory could be opened"
                    .into(),
            );
        }
        if given.contains("wal_segment_bytes") && self.wal_segment_bytes > self.wal_size_limit_bytes
        {
            return refuse(format!(
                "option wal_segment_bytes is {}, more than the whole log may hold \
                 (wal_size_limit_bytes is {})",
                self.wal_segment_bytes, self.wal_size_limit_bytes
            ));
        }
        let budget = self.memory_budget_bytes;
        if budget != 0 && !(budget::MIN_BUDGET_BYTES..=1 << 50).contains(&budget) {
            let least = budget::MIN_BUDGET_BYTES;
            return refuse(format!(
                "option memory_budget_bytes is {budget}; it must be 0, for none, or {least} to {}",
                1_u64 << 50
            ));
        }
        if let Some(limit) = self.memory_limit_bytes {
            if limit < 1 << 20 {
                return refuse(format!(
                    "option memory_limit_bytes is {limit}; it must be 1 MiB or more"
                ));
            }
            let taken = (self.cache_bytes + self.write_buffer_bytes) as u64;
            if taken >= limit {
                return refuse(format!(
                    "option memory_limit_bytes is {limit}, which leaves nothing beside the cache and one \
                     memtable (cache_bytes is {}, write_buffer_bytes {})",
                    self.cache_bytes, self.write_buffer_bytes
                ));
            }
        }
        if given.contains("target_file_bytes") && self.target_file_bytes < self.block_bytes as u64 {
            return refuse(format!(
                "option target_file_bytes is {}, less than one block (block_bytes is {})",
                self.target_file_bytes, self.block_bytes
            ));
        }
        Ok(())
    }
}

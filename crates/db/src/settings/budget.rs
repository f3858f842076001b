//! What a memory budget means for the other options: a pure function of both.
//!
//! Invariant: what memtables, cache, open tables, jobs and single writes may take adds up to the budget
//! at most. An option that asks for less stays as it was asked for; one that asks for more gives way.
//! Called when settings are settled, and by whoever keeps a share.

use super::Settings;
use std::collections::BTreeSet;

/// The smallest budget: what two jobs read and write through, and a memtable beside them.
pub(crate) const MIN_BUDGET_BYTES: u64 = 32 << 20;
/// Below this there is one job at a time.
const ONE_JOB_BYTES: u64 = 128 << 20;

/// The parts of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// All memtables, sealed ones and chunks that are kept for further ones included.
    pub(crate) memtables: usize,
    /// Blocks in the cache, the indexes and filters of open tables, and what scans hold.
    pub(crate) blocks_and_tables: usize,
    /// Of these, the indexes and filters.
    pub(crate) tables: usize,
    /// What scans may hold of these before they stop reading ahead. A block of each sorted run they must hold.
    pub(crate) scans: usize,
    /// The largest batch.
    pub(crate) batch: usize,
}

impl Shares {
    /// Three eighths each for memtables and for what is read; the rest is for jobs, which hold the
    /// piece of a file that they read and the block and filter that they make, for reads in flight, and
    /// for batches on their way.
    pub(crate) fn of(budget_bytes: u64) -> Self {
        let part = |of: u64| usize::try_from(budget_bytes / of).unwrap_or(usize::MAX);
        Self {
            memtables: 3 * part(8),
            blocks_and_tables: 3 * part(8),
            tables: 3 * part(16),
            scans: part(8),
            batch: part(16),
        }
    }
}

impl Settings {
    /// The parts of the budget, where there is one.
    #[inline]
    pub(crate) fn shares(&self) -> Option<Shares> {
        (self.memory_budget_bytes > 0).then(|| Shares::of(self.memory_budget_bytes))
    }

    /// Gives a cache that nobody has asked for all of its share.
    pub(super) fn use_budget(&mut self, given: &BTreeSet<&'static str>) {
        if let Some(shares) = self.shares()
            && !given.contains("cache_bytes")
        {
            self.cache_bytes = shares.blocks_and_tables;
        }
    }

    /// Lowers what asks for more than the budget has.
    pub(super) fn keep_within_budget(&mut self) {
        let Some(shares) = self.shares() else { return };
        // The active memtable, the sealed ones, and one that is being replaced.
        let buffers = self.max_sealed_memtables + 2;
        self.write_buffer_bytes = self.write_buffer_bytes.min(shares.memtables / buffers);
        // An open reads the log into memtables.
        let log = shares.memtables as u64 / 2;
        self.wal_size_limit_bytes = self.wal_size_limit_bytes.min(log);
        self.wal_segment_bytes = self.wal_segment_bytes.min(log / 8);
        self.cache_bytes = self.cache_bytes.min(shares.blocks_and_tables);
        let batch = shares.batch as u64;
        self.target_file_bytes = self.target_file_bytes.min(batch / 2);
        // A scan holds a block of each sorted run, and a block the largest value.
        self.max_value_bytes = self.max_value_bytes.min(shares.batch / 8);
        self.max_key_bytes = self.max_key_bytes.min(shares.batch / 32);
        if self.memory_budget_bytes < ONE_JOB_BYTES {
            self.background_threads = 1;
            self.max_subcompactions = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_what_jobs_hold_fit_into_the_budget() {
        for budget in [32 << 20, 33_000_001, 1 << 30, 1 << 40] {
            let shares = Shares::of(budget);
            let kept = (shares.memtables + shares.blocks_and_tables + shares.batch) as u64;
            assert!(kept <= budget - budget / 8, "{budget}");
            assert!(shares.tables + shares.scans < shares.blocks_and_tables);
        }
    }

    #[test]
    fn what_asks_for_less_stays_and_what_asks_for_more_gives_way() {
        let settled = |settings: Settings, given: &[&'static str]| {
            let given = given.iter().copied().collect();
            settings.settle_on_disk(&given).unwrap()
        };
        let mut asked = Settings::defaults();
        asked.memory_budget_bytes = 64 << 20;
        let lowered = settled(asked.clone(), &[]);
        assert!(lowered.write_buffer_bytes * 4 <= 24 << 20);
        assert_eq!(lowered.cache_bytes, 24 << 20);
        assert_eq!(lowered.background_threads, 1);
        asked.write_buffer_bytes = 1 << 20;
        asked.cache_bytes = 0;
        let asked = settled(asked, &["write_buffer_bytes", "cache_bytes"]);
        assert_eq!((asked.write_buffer_bytes, asked.cache_bytes), (1 << 20, 0));
        let mut little = Settings::defaults();
        little.memory_budget_bytes = MIN_BUDGET_BYTES - 1;
        assert!(little.settle(&BTreeSet::new()).is_err());
        let none = settled(Settings::defaults(), &[]);
        assert_eq!(none.shares(), None);
    }
}

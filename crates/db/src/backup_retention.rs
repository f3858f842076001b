//! Which backups go and which stay: a pure decision by their number and their days.
//!
//! Invariant: what either rule keeps stays. Carried out by `backup`.

use crate::backup_metadata::BackupInfo;
use std::collections::BTreeSet;

/// Which backups to keep: [`Db::prune_backups`](crate::Db::prune_backups). What either rule keeps stays.
///
/// ```
/// let retention = esker::Retention { keep_last: 3, keep_daily: 7 };
/// assert_eq!(retention, esker::Retention { keep_daily: 7, ..esker::Retention::last(3) });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many.
    pub keep_last: usize,
    /// The newest of each of the last so many days (UTC) that have any.
    pub keep_daily: usize,
}

impl Retention {
    /// The newest `count`.
    #[must_use]
    pub fn last(count: usize) -> Self {
        Self {
            keep_last: count,
            keep_daily: 0,
        }
    }

    /// Which of `backups`, oldest first, go.
    pub(crate) fn doomed<'a>(&self, backups: &'a [BackupInfo]) -> Vec<&'a BackupInfo> {
        let mut days = BTreeSet::new();
        let mut doomed = Vec::new();
        for (age, backup) in backups.iter().rev().enumerate() {
            let day = &backup.name()[..8];
            let newest_of_day = !days.contains(day) && days.len() < self.keep_daily;
            if newest_of_day {
                days.insert(day);
            }
            if age >= self.keep_last && !newest_of_day {
                doomed.push(backup);
            }
        }
        doomed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_name::utc_name;

    fn backup(millis: u64) -> BackupInfo {
        BackupInfo {
            name: utc_name(millis),
            description: String::new(),
            is_recovery_point: false,
            created_millis: millis,
            sequence: millis,
            esker_version: String::new(),
            new_bytes: 0,
            restored: None,
            contents: esker_manifest::VersionEdit::default(),
        }
    }

    #[test]
    fn retention_keeps_the_last_ones_and_the_newest_of_each_day() {
        const HOUR: u64 = 3_600_000;
        let backups: Vec<_> = [1, 2, 25, 30, 50, 51, 100]
            .iter()
            .map(|hour| backup(hour * HOUR))
            .collect();
        let kept = |keep_last, keep_daily| -> Vec<u64> {
            let retention = Retention {
                keep_last,
                keep_daily,
            };
            let doomed = retention.doomed(&backups);
            backups
                .iter()
                .filter(|backup| !doomed.contains(backup))
                .map(|backup| backup.created_millis / HOUR)
                .collect()
        };
        assert_eq!(kept(2, 0), [51, 100]);
        assert_eq!(kept(0, 3), [30, 51, 100]);
        assert_eq!(kept(3, 2), [50, 51, 100]);
        assert_eq!(kept(1, 99), [2, 30, 51, 100]);
        assert_eq!(kept(99, 0).len(), 7);
    }
}

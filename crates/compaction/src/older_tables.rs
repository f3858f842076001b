//! What lies below the output of a merge: whether a key or a range could still have older records.
//!
//! Invariant: the answer errs on the safe side. "Nothing older" is certain; "something older" may
//! only mean that a table's range happens to span the key. Pure; retention asks it for every record
//! that could vanish, in ascending key order, so that an answer costs a comparison per run.

use std::collections::HashSet;
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_manifest::Version;

use crate::plan::Plan;

/// The tables below an output, by run. A clone starts from the smallest key again.
#[derive(Debug, Default)]
pub struct OlderTables {
    everywhere: bool,
    runs: Vec<OlderRun>,
}

#[derive(Debug)]
struct OlderRun {
    tables: Arc<[Arc<TableMeta>]>,
    /// Tables before this one end before every key asked for so far.
    next: usize,
}

impl OlderTables {
    /// Nothing lies below.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Any key may have older records: what a flush must assume.
    #[must_use]
    pub fn everywhere() -> Self {
        Self {
            everywhere: true,
            runs: Vec::new(),
        }
    }

    /// The tables of each run, which must ascend and be disjoint.
    #[must_use]
    pub fn new(runs: impl IntoIterator<Item = Vec<Arc<TableMeta>>>) -> Self {
        let run = |tables: Vec<_>| OlderRun {
            tables: tables.into(),
            next: 0,
        };
        let runs = runs
            .into_iter()
            .filter(|tables| !tables.is_empty())
            .map(run)
            .collect();
        Self {
            everywhere: false,
            runs,
        }
    }

    /// What lies below the output of `plan` in `version` and is no input of it.
    #[must_use]
    pub fn below(plan: &Plan, version: &Version) -> Self {
        let inputs: HashSet<FileNumber> = plan.files().collect();
        let Some(hull) = plan.hull() else {
            return Self::none();
        };
        Self::new(plan.runs_below(version).map(|run| {
            let overlapping = run.tables[run.overlapping(&hull)].iter();
            overlapping
                .filter(|table| !inputs.contains(&table.number))
                .cloned()
                .collect()
        }))
    }

    /// Whether `key` may have older records. Keys must not descend from call to call.
    #[must_use]
    #[inline]
    pub fn overlap_key(&mut self, key: &[u8]) -> bool {
        if self.everywhere {
            return true;
        }
        let mut overlap = false;
        for run in &mut self.runs {
            while let Some(table) = run.tables.get(run.next)
                && table.bounds.ends_before(key)
            {
                run.next += 1;
            }
            overlap |= run
                .tables
                .get(run.next)
                .is_some_and(|t| t.bounds.smallest.as_slice() <= key);
        }
        overlap
    }

    /// Whether a key in `bounds` may have older records.
    #[must_use]
    pub fn overlap_range(&self, bounds: &KeyBounds) -> bool {
        let overlaps = |run: &OlderRun| {
            let first = run
                .tables
                .partition_point(|t| t.bounds.ends_before(&bounds.smallest));
            run.tables
                .get(first)
                .is_some_and(|table| table.bounds.overlaps(bounds))
        };
        self.everywhere || self.runs.iter().any(overlaps)
    }
}

impl Clone for OlderTables {
    fn clone(&self) -> Self {
        let rewound = |run: &OlderRun| OlderRun {
            tables: Arc::clone(&run.tables),
            next: 0,
        };
        Self {
            everywhere: self.everywhere,
            runs: self.runs.iter().map(rewound).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(smallest: &str, largest: &str) -> Arc<TableMeta> {
        let bounds = KeyBounds::inclusive(smallest, largest);
        Arc::new(TableMeta {
            bounds,
            ..TableMeta::default()
        })
    }

    #[test]
    fn ascending_keys_meet_every_table_of_every_run() {
        let runs = [
            vec![table("b", "d"), table("h", "j")],
            vec![],
            vec![table("i", "m")],
        ];
        let mut older = OlderTables::new(runs);
        let answers: String = ('a'..='o')
            .map(|key| {
                if older.overlap_key(key.to_string().as_bytes()) {
                    '+'
                } else {
                    '-'
                }
            })
            .collect();
        assert_eq!(answers, "-+++---++++++--");
        assert!(older.clone().overlap_key(b"b"), "a clone starts anew");
        assert!(older.overlap_range(&KeyBounds::half_open("e", "i")));
        assert!(!older.overlap_range(&KeyBounds::half_open("e", "h")));
        assert!(older.overlap_range(&KeyBounds::half_open("", "")));
        assert!(
            OlderTables::everywhere().overlap_key(b"x") && !OlderTables::none().overlap_key(b"x")
        );
    }
}

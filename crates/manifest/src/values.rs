//! The tables of values of one keyspace, and how much of each is still needed.
//!
//! Invariants: every pointer of a table points into a value table that is named here, or into one that
//! a salvage gave up; how much of a value table is needed is the sum of what the tables of the levels
//! say of it, so that no counter can be wrong. Pure data, as all of a version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result};

use crate::version::Version;
use crate::version_edit::KeyspaceEdit;

/// Tables of values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Ascending by number.
    pub tables: Vec<Arc<TableMeta>>,
    /// Those that a salvage gave up while pointers to them were left: what they held is gone.
    pub lost: BTreeSet<FileNumber>,
}

/// A table of values and what of it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueUse {
    /// The table.
    pub meta: Arc<TableMeta>,
    /// Records that a pointer points to.
    pub live_records: u64,
    /// Bytes of their values, as users see them.
    pub live_bytes: u64,
}

impl ValueUse {
    /// The share of the table's bytes that no pointer points to: 0 to 1.
    #[must_use]
    pub fn garbage_share(&self) -> f64 {
        let all = self.meta.raw_value_bytes;
        if self.live_records == 0 || all == 0 {
            return if self.live_records == 0 { 1.0 } else { 0.0 };
        }
        all.saturating_sub(self.live_bytes) as f64 / all as f64
    }

    /// About how many bytes of the file are garbage.
    #[must_use]
    pub fn garbage_bytes(&self) -> u64 {
        (self.meta.file_bytes as f64 * self.garbage_share()) as u64
    }
}

impl Values {
    /// Adds a table; `false` where there is one of its number.
    pub(crate) fn insert(&mut self, meta: &Arc<TableMeta>) -> bool {
        let place = self
            .tables
            .binary_search_by_key(&meta.number, |table| table.number);
        match place {
            Ok(_) => false,
            Err(at) => {
                self.tables.insert(at, Arc::clone(meta));
                true
            }
        }
    }

    /// Removes a table; `false` where there is none of this number.
    pub(crate) fn remove(&mut self, number: FileNumber) -> bool {
        let place = self
            .tables
            .binary_search_by_key(&number, |table| table.number);
        place.map(|at| self.tables.remove(at)).is_ok()
    }

    fn has(&self, number: FileNumber) -> bool {
        self.tables
            .binary_search_by_key(&number, |table| table.number)
            .is_ok()
    }

    /// Checks what this module promises.
    pub(crate) fn check(&self, version: &Version) -> Result<()> {
        let needed = version.values_needed();
        for (&number, &(records, bytes)) in &needed {
            let table = self.tables.iter().find(|table| table.number == number);
            let fits = match table {
                Some(table) => records <= table.entries && bytes <= table.raw_value_bytes,
                None => self.lost.contains(&number),
            };
            if !fits {
                return Err(Error::corruption(format!(
                    "pointers need {records} values of {bytes} bytes in table {number}, which does not \
                     hold so many"
                )));
            }
        }
        Ok(())
    }

    /// As [`Values::check`], of what an edit may break.
    pub(crate) fn check_named(&self, needed: &BTreeMap<FileNumber, (u64, u64)>) -> Result<()> {
        let unnamed = needed
            .keys()
            .find(|number| !self.has(**number) && !self.lost.contains(number));
        match unnamed {
            None => Ok(()),
            Some(number) => Err(Error::invalid_argument(format!(
                "pointers are left to table {number}, which is not there"
            ))),
        }
    }
}

impl Version {
    /// What pointers need of each value table: records and bytes.
    #[must_use]
    pub fn values_needed(&self) -> BTreeMap<FileNumber, (u64, u64)> {
        let mut needed: BTreeMap<FileNumber, (u64, u64)> = BTreeMap::new();
        let tables = self.runs_newest_first().flat_map(|(_, run)| &run.tables);
        for one in tables.flat_map(|table| &table.value_refs) {
            let (records, bytes) = needed.entry(one.number).or_default();
            *records = records.saturating_add(one.records);
            *bytes = bytes.saturating_add(one.bytes);
        }
        needed
    }

    /// Every value table with what is needed of it, ascending by number.
    #[must_use]
    pub fn value_uses(&self) -> Vec<ValueUse> {
        if self.values.tables.is_empty() {
            return Vec::new();
        }
        let needed = self.values_needed();
        let tables = self.values.tables.iter();
        tables
            .map(|meta| {
                let (live_records, live_bytes) =
                    needed.get(&meta.number).copied().unwrap_or_default();
                ValueUse {
                    meta: Arc::clone(meta),
                    live_records,
                    live_bytes,
                }
            })
            .collect()
    }

    /// Bytes of the files of all value tables.
    #[must_use]
    pub fn value_bytes(&self) -> u64 {
        let tables = self.values.tables.iter();
        tables.map(|table| table.file_bytes).sum()
    }

    /// The value tables that nothing points to once `edit` has been applied: the edit should remove
    /// them.
    #[must_use]
    pub fn values_unneeded_after(&self, edit: &KeyspaceEdit) -> Vec<FileNumber> {
        if self.values.tables.is_empty() {
            return Vec::new();
        }
        let stays = |table: &&Arc<TableMeta>| !edit.removed.contains(&table.number);
        let kept = self.runs_newest_first().flat_map(|(_, run)| &run.tables);
        let added = edit.added.iter().map(|added| &added.meta);
        let refs = kept.filter(stays).chain(added).flat_map(|t| &t.value_refs);
        let needed: BTreeSet<FileNumber> = refs.map(|one| one.number).collect();
        let numbers = self.values.tables.iter().map(|table| table.number);
        let gone = |number: &FileNumber| edit.removed.contains(number);
        numbers
            .filter(|number| !needed.contains(number) && !gone(number))
            .collect()
    }
}

#[cfg(test)]
mod tests;

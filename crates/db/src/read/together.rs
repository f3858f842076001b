//! The lookups of a `multi_get`, several at a time: each step is taken for all keys of a group before the
//! next, so that they wait for memory together and not one after the other.
//!
//! Invariant: all that is done ahead is a hint (`search`). What an answer is made of, errors included, is
//! found in the order of the keys, as by a `get` of each at the same moment. Called by `keyspace`.

use super::search::{KnownRuns, Search};
use super::verdicts::{ASKED_RUNS, Verdict};
use super::{InMemtables, find_in_memtables, get_from_memtables, get_from_tables};
use crate::merged::Operator;
use crate::super_version::SuperVersion;
use crate::value::Value;
use esker_base::checksum::key_hash;
use esker_base::clock::Clock;
use esker_base::{Result, SequenceNumber};
use esker_sstable::{Lookup, Table, TableHandle, TableRef};
use std::sync::Arc;

/// Keys that are looked up together: of 4 to 16, the number that measured best. (A thread can hold fewer
/// blocks at once as cheaply as one; that the others cost more weighs less.)
const GROUP_KEYS: usize = 16;

/// So many tables stay taken from one group to the next.
const KEPT_TABLES: usize = 2;

/// What is known of a run, for one key.
#[derive(Clone, Copy)]
enum Known {
    Unknown,
    OutOfBounds,
    /// The table with this number among those that are taken, and what its filter says.
    Table(usize, bool),
}

/// How far a key has come.
struct Asked<'a> {
    key: &'a [u8],
    hash: u64,
    runs: [Known; ASKED_RUNS],
    in_memtables: InMemtables<'a>,
    begun: Option<Begun>,
}

/// A lookup in the first table that may have the key.
struct Begun {
    /// The run, counted from the newest.
    run: usize,
    /// The number of the table among those that are taken.
    table: usize,
    lookup: Lookup,
}

/// What the lookups of one `multi_get` share.
pub(crate) struct Together<'a> {
    view: &'a SuperVersion,
    visible: SequenceNumber,
    tables: Vec<(&'a Arc<TableHandle>, TableRef)>,
    group: Vec<Asked<'a>>,
}

impl<'a> Together<'a> {
    /// Lookups in `view` of what is visible at `visible`.
    pub(crate) fn new(view: &'a SuperVersion, visible: SequenceNumber) -> Self {
        Self {
            view,
            visible,
            tables: Vec::new(),
            group: Vec::with_capacity(GROUP_KEYS),
        }
    }

    /// The values of `keys`, in their order; `note` is told of each key and its hash.
    pub(crate) fn get<K: AsRef<[u8]>>(
        &mut self,
        keys: &'a [K],
        clock: &dyn Clock,
        operator: Operator<'_>,
        note: impl Fn(&[u8], u64),
    ) -> Result<Vec<Option<Value>>> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(GROUP_KEYS) {
            self.look_ahead(keys);
            for asked in self.group.drain(..) {
                note(asked.key, asked.hash);
                let search = Search {
                    view: self.view,
                    key: asked.key,
                    visible: self.visible,
                    hash: asked.hash,
                    known: Ahead {
                        tables: &self.tables,
                        runs: asked.runs,
                        begun: asked.begun,
                    },
                };
                let mut value = None;
                let in_memtables = asked.in_memtables;
                let absent =
                    get_from_memtables(&search, in_memtables, clock, operator, &mut value)?;
                if let Some(covering) = absent {
                    get_from_tables(&search, covering, clock, operator, &mut value)?;
                }
                values.push(value);
            }
        }
        Ok(values)
    }

    /// All steps but the last.
    fn look_ahead<K: AsRef<[u8]>>(&mut self, keys: &'a [K]) {
        if self.tables.len() > KEPT_TABLES {
            self.tables.clear();
        }
        for key in keys {
            self.begin(key.as_ref());
        }
        for asked in &mut self.group {
            for memtable in self.view.memtables() {
                if memtable.may_contain(asked.hash) {
                    memtable.prefetch(asked.key);
                }
            }
        }
        for asked in &mut self.group {
            let (key, hash) = (asked.key, asked.hash);
            asked.in_memtables = find_in_memtables(self.view, key, hash, self.visible);
        }
        for asked in &mut self.group {
            asked.ask_filters(&self.tables, self.visible);
        }
        for begun in self
            .group
            .iter_mut()
            .filter_map(|asked| asked.begun.as_mut())
        {
            self.tables[begun.table].1.take_block(&mut begun.lookup);
        }
        for asked in &mut self.group {
            if let Some(begun) = &mut asked.begun {
                let table = &self.tables[begun.table].1;
                table.find_record(&mut begun.lookup, asked.key);
            }
        }
    }

    /// Takes the tables that may have `key`, and begins to load their filters and those of the memtables.
    fn begin(&mut self, key: &'a [u8]) {
        let hash = key_hash(key);
        let view = self.view;
        let mut runs = [Known::Unknown; ASKED_RUNS];
        for (known, run) in runs.iter_mut().zip(view.runs.iter()) {
            *known = match run.find(key) {
                None => Known::OutOfBounds,
                Some(handle) => match self.take(handle) {
                    Some(table) => {
                        self.tables[table].1.prefetch_filter(hash);
                        Known::Table(table, true)
                    }
                    None => Known::Unknown,
                },
            };
        }
        for memtable in view.memtables() {
            memtable.prefetch_filter(hash);
        }
        self.group.push(Asked {
            key,
            hash,
            runs,
            in_memtables: InMemtables::Absent { covering: 0 },
            begun: None,
        });
    }

    /// The number of the table of `handle` among those that are taken, if it is open.
    fn take(&mut self, handle: &'a Arc<TableHandle>) -> Option<usize> {
        let mut taken = self.tables.iter();
        if let Some(table) = taken.position(|(other, _)| Arc::ptr_eq(other, handle)) {
            return Some(table);
        }
        self.tables.push((handle, handle.open_table()?));
        Some(self.tables.len() - 1)
    }
}

impl Asked<'_> {
    /// Asks the filters for a key that no memtable has, and begins its lookup in the first table that may have
    /// it.
    fn ask_filters(&mut self, tables: &[(&Arc<TableHandle>, TableRef)], visible: SequenceNumber) {
        if !matches!(self.in_memtables, InMemtables::Absent { .. }) {
            return;
        }
        for (run, known) in self.runs.iter_mut().enumerate() {
            let Known::Table(table, may_contain) = known else {
                continue;
            };
            let table_ref = &tables[*table].1;
            *may_contain = table_ref.may_contain(self.hash);
            if *may_contain && self.begun.is_none() {
                // Where this fails, the search fails too, if it comes to this table.
                let lookup = table_ref.begin(self.key, visible).ok().flatten();
                self.begun = lookup.map(|lookup| Begun {
                    run,
                    table: *table,
                    lookup,
                });
            }
        }
    }
}

/// What was found out ahead of the search for one key.
struct Ahead<'t, 'a> {
    tables: &'t [(&'a Arc<TableHandle>, TableRef)],
    runs: [Known; ASKED_RUNS],
    begun: Option<Begun>,
}

impl KnownRuns for Ahead<'_, '_> {
    #[inline]
    fn on(&self, index: usize) -> Verdict<'_> {
        match self.runs.get(index) {
            None | Some(Known::Unknown) => Verdict::Unknown,
            Some(Known::OutOfBounds) => Verdict::OutOfBounds,
            Some(&Known::Table(table, may_contain)) => {
                let table: &Table = &self.tables[table].1;
                let begun = self.begun.as_ref().filter(|begun| begun.run == index);
                Verdict::Table(table, may_contain, begun.map(|begun| &begun.lookup))
            }
        }
    }
}

//! Running a query: rows one after the other, or the first of an order that nothing gives.
//!
//! Invariant: streamed rows keep one row in memory, sorted ones as many as the limit. An index entry
//! whose record is gone (it has expired since) is no row.

use crate::index::definition::split_entry;
use crate::keyspace::Keyspace;
use crate::query::continuation::Continuation;
use crate::query::explain::Taken;
use crate::query::plan::Plan;
use crate::query::{Query, Source};
use crate::range_spec::KeyRange;
use crate::scan::Entries;
use crate::value::Value;
use esker_base::Result;
use esker_base::key_bounds::end_is_above;
use esker_sstable::BlockReads;
use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::fmt;
use std::sync::Arc;

/// One record that a query found.
#[derive(Clone, Debug)]
pub struct Row {
    key: Value,
    value: Value,
    index_key: Option<Vec<u8>>,
}

impl Row {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The record's value; empty where the query asked for keys only.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The encoded key under which the index has it; [`tuple::decode`](crate::tuple::decode) reads it.
    #[must_use]
    pub fn index_key(&self) -> Option<&[u8]> {
        self.index_key.as_deref()
    }
}

/// The rows of a query. After an error it ends.
pub struct Rows<'a> {
    query: Query<'a>,
    plan: Plan,
    entries: Entries,
    /// Rows that are sorted already, by key.
    sorted: Option<IntoIter<Vec<u8>, Row>>,
    left: usize,
    /// The place of the last row.
    position: Vec<u8>,
    done: bool,
    taken: Taken,
}

impl<'a> Rows<'a> {
    pub(crate) fn run(mut query: Query<'a>) -> Result<Self> {
        let plan = Plan::of(&query)?;
        let mut range = plan.range.clone();
        if let Some(after) = &query.after {
            let position = after.position(plan.fingerprint)?;
            if plan.is_sorted {
                query.keys = beyond(&query.keys, position, query.descending);
            } else {
                range = beyond(&range, position, query.descending);
            }
        }
        let scanned = match &plan.index {
            Some(index) => Keyspace::new(
                Arc::clone(query.keyspace.handle()),
                Arc::clone(&index.entries),
            ),
            None => query.keyspace.clone(),
        };
        let entries = match &mut query.source {
            Source::Snapshot(snapshot) => {
                Entries::new(&scanned, range, Some(snapshot.of(&scanned)))
            }
            Source::Transaction(transaction) => transaction.entries(&scanned, range),
        };
        let left = query.limit.unwrap_or(usize::MAX);
        let mut rows = Self {
            query,
            plan,
            entries,
            sorted: None,
            left,
            position: Vec::new(),
            done: false,
            taken: Taken::default(),
        };
        if rows.plan.is_sorted {
            rows.sort()?;
        }
        Ok(rows)
    }

    /// Where to go on, if the limit ended the rows before they were all read: nothing before that,
    /// and nothing once the last row was handed out.
    #[must_use]
    pub fn continuation(&self) -> Option<Continuation> {
        let ended_by_limit = self.left == 0 && !self.position.is_empty();
        ended_by_limit.then(|| Continuation::new(self.plan.fingerprint, &self.position))
    }

    /// What was read so far.
    pub(crate) fn taken(&self) -> Taken {
        self.taken
    }

    /// Reads everything and keeps the first rows by key.
    fn sort(&mut self) -> Result<()> {
        let mut first = BTreeMap::new();
        while let Some((_, row)) = self.read()? {
            first.entry(row.key.to_vec()).or_insert(row);
            if first.len() > self.left {
                if self.query.descending {
                    first.pop_first();
                } else {
                    first.pop_last();
                }
            }
        }
        self.sorted = Some(first.into_iter());
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Row>> {
        let next = match &mut self.sorted {
            Some(sorted) if self.query.descending => sorted.next_back(),
            Some(sorted) => sorted.next(),
            None => self.read()?,
        };
        let Some((position, row)) = next else {
            return Ok(None);
        };
        self.position = position;
        self.left -= 1;
        self.taken.rows += 1;
        Ok(Some(row))
    }

    /// The next row of what is scanned, with its place there.
    fn read(&mut self) -> Result<Option<(Vec<u8>, Row)>> {
        loop {
            let before = BlockReads::of_this_thread();
            let read = self.read_entry();
            self.taken.blocks += BlockReads::of_this_thread() - before;
            let Some((position, row)) = read? else {
                return Ok(None);
            };
            let filter = self.query.filter.as_ref();
            let row = row.filter(|row| filter.is_none_or(|holds| holds(&row.key, &row.value)));
            if let Some(mut row) = row {
                if self.query.keys_only {
                    row.value = Value::copy_of(&[]);
                }
                return Ok(Some((position.to_vec(), row)));
            }
        }
    }

    /// The next entry of what is scanned, and the record that it stands for, if it is asked for.
    fn read_entry(&mut self) -> Result<Option<(Value, Option<Row>)>> {
        let descends = self.query.descending && !self.plan.is_sorted;
        let entry = if descends {
            self.entries.next_back()
        } else {
            self.entries.next()
        };
        let Some(entry) = entry else { return Ok(None) };
        self.taken.entries += 1;
        let (position, stored) = entry?;
        let row = if self.plan.index.is_some() {
            self.follow(&position, &stored)?
        } else {
            Some(Row {
                key: position.clone(),
                value: stored,
                index_key: None,
            })
        };
        Ok(Some((position, row)))
    }

    /// The record that an index entry stands for.
    fn follow(&mut self, entry: &[u8], stored: &[u8]) -> Result<Option<Row>> {
        let (index_key, key) = split_entry(entry, stored)?;
        let condition = self.query.index.as_ref();
        let equal = condition.and_then(|condition| condition.equal.as_deref());
        let keys = &self.query.keys;
        let is_asked_for = equal.is_none_or(|equal| equal == index_key)
            && !keys.is_empty()
            && keys.start() <= key.as_slice()
            && end_is_above(keys.end(), &key);
        if !is_asked_for {
            return Ok(None);
        }
        let value = if self.query.keys_only && self.query.filter.is_none() {
            Some(Value::copy_of(&[]))
        } else {
            self.taken.lookups += 1;
            match &mut self.query.source {
                Source::Snapshot(snapshot) => snapshot.get(&key)?,
                Source::Transaction(transaction) => {
                    transaction.get_in(&self.query.keyspace, &key)?
                }
            }
        };
        Ok(value.map(|value| Row {
            key: Value::copy_of(&key),
            value,
            index_key: Some(index_key.to_vec()),
        }))
    }
}

/// What of `range` comes behind `position`.
fn beyond(range: &KeyRange, position: &[u8], descending: bool) -> KeyRange {
    let (mut start, mut end) = (range.start().to_vec(), range.end().to_vec());
    if descending {
        if end_is_above(&end, position) {
            end = position.to_vec();
        }
    } else if start.as_slice() <= position {
        start = [position, &[0]].concat();
    }
    let nothing = range.is_empty() || !end_is_above(&end, &start);
    if nothing {
        return KeyRange::new(&(..""));
    }
    KeyRange::half_open(&start, &end)
}

impl Iterator for Rows<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done || self.left == 0 {
            return None;
        }
        let row = self.step().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}

impl std::iter::FusedIterator for Rows<'_> {}

impl fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("plan", &self.plan)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

//! Sorted records in memory as an internal iterator, for tests of what merges them.

use esker_base::internal_key::{self, Trailer};
use esker_base::iterator::InternalIterator;
use esker_base::{Result, ValueKind};

/// User key, trailer, value.
pub(crate) type Record = (Vec<u8>, Trailer, Vec<u8>);

/// A record whose value names its key and sequence number.
pub(crate) fn record(key: &[u8], sequence: u64, kind: ValueKind) -> Record {
    (
        key.to_vec(),
        Trailer::new(sequence, kind),
        format!("{key:?}@{sequence}").into_bytes(),
    )
}

pub(crate) fn sort(records: &mut [Record]) {
    records.sort_by(|a, b| internal_key::compare(&a.0, a.1, &b.0, b.1));
}

/// Forward only: merges for compaction never turn around.
#[derive(Debug)]
pub(crate) struct VecIter {
    records: Vec<Record>,
    at: usize,
}

impl VecIter {
    pub(crate) fn new(mut records: Vec<Record>) -> Self {
        sort(&mut records);
        Self { records, at: 0 }
    }
}

impl InternalIterator for VecIter {
    fn valid(&self) -> bool {
        self.at < self.records.len()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.at = self.records.len().wrapping_sub(1);
        Ok(())
    }
    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.at = self.records.partition_point(|(key, other, _)| {
            internal_key::compare(key, *other, user_key, trailer).is_lt()
        });
        Ok(())
    }
    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        let beyond = self.records.partition_point(|(key, other, _)| {
            internal_key::compare(key, *other, user_key, trailer).is_le()
        });
        self.at = beyond.wrapping_sub(1);
        Ok(())
    }
    fn next(&mut self) -> Result<()> {
        self.at += 1;
        Ok(())
    }
    fn prev(&mut self) -> Result<()> {
        self.at = self.at.wrapping_sub(1);
        Ok(())
    }
    fn user_key(&self) -> &[u8] {
        &self.records[self.at].0
    }
    fn trailer(&self) -> Trailer {
        self.records[self.at].1
    }
    fn value(&self) -> &[u8] {
        &self.records[self.at].2
    }
}

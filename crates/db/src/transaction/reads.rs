//! What a transaction reads: its own writes over its snapshot, remembered for the commit.
//!
//! Invariant: under `Serializable` isolation nothing of the snapshot reaches the caller that is not in
//! the read set by then: keys with or without a value, and of ranges the part that an iterator or
//! cursor has moved over. What the transaction's own writes answer is no read.

use super::Transaction;
use crate::cursor::{Cursor, Overlay, View};
use crate::engine::Engine;
use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::read::{self, Found, Search};
use crate::scan::Entries;
use crate::scan_reads::ScanReads;
use crate::value::Value;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, Result, Trailer, ValueKind};
use std::ops::RangeBounds;
use std::sync::Arc;

/// What a transaction's own writes say of a key.
pub(super) enum OwnWrite<'a> {
    Found(Trailer, &'a [u8]),
    /// Removed by a range delete.
    Hidden,
    /// Nothing.
    Absent,
}

impl Transaction {
    /// The value of `key` in the default keyspace, as this transaction sees it.
    ///
    /// # Errors
    /// As [`Keyspace::get`]; likewise for all reads below.
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.has_free_reads |= !self.is_serializable();
        self.value(&self.db, key)
    }

    /// As [`Transaction::get`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Keyspace::get`]; `InvalidArgument` for a keyspace of another database.
    pub fn get_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.check_keyspace(keyspace)?;
        self.has_free_reads |= !self.is_serializable();
        self.value(keyspace, key.as_ref())
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn contains_key(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// As [`Transaction::contains_key`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::get_in`].
    pub fn contains_key_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_in(keyspace, key)?.is_some())
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// As [`Transaction::multi_get`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::get_in`].
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        let keys = keys.into_iter();
        keys.map(|key| self.get_in(keyspace, key)).collect()
    }

    /// All entries of the default keyspace. What the iterator has passed is protected, from either
    /// end, and nothing beyond; likewise for the ranges, prefixes and cursors below.
    pub fn iter(&mut self) -> Entries {
        self.entries(&(*self.db).clone(), KeyRange::all())
    }

    /// As [`Transaction::iter`], of `keyspace`.
    pub fn iter_in(&mut self, keyspace: &Keyspace) -> Entries {
        self.entries(keyspace, KeyRange::all())
    }

    /// The entries of a range of keys.
    pub fn range<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>) -> Entries {
        self.entries(&(*self.db).clone(), KeyRange::new(&range))
    }

    /// As [`Transaction::range`], in `keyspace`.
    pub fn range_in<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> Entries {
        self.entries(keyspace, KeyRange::new(&range))
    }

    /// The entries whose keys begin with `prefix`.
    pub fn prefix(&mut self, prefix: impl AsRef<[u8]>) -> Entries {
        self.entries(&(*self.db).clone(), KeyRange::prefix(prefix.as_ref()))
    }

    /// As [`Transaction::prefix`], in `keyspace`.
    pub fn prefix_in(&mut self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Entries {
        self.entries(keyspace, KeyRange::prefix(prefix.as_ref()))
    }

    /// A cursor over the default keyspace; it does not see writes made after it.
    pub fn cursor(&mut self) -> Cursor {
        self.cursor_in(&(*self.db).clone())
    }

    /// As [`Transaction::cursor`], over `keyspace`.
    pub fn cursor_in(&mut self, keyspace: &Keyspace) -> Cursor {
        Cursor::over(self.view(keyspace), KeyRange::all())
    }

    pub(crate) fn entries(&mut self, keyspace: &Keyspace, range: KeyRange) -> Entries {
        Entries::over(self.view(keyspace), range)
    }

    fn view(&mut self, keyspace: &Keyspace) -> View {
        self.has_free_reads |= !self.is_serializable();
        self.view_noted(keyspace)
    }

    /// As [`Transaction::view`], for a read that has been noted where that has to be.
    fn view_noted(&self, keyspace: &Keyspace) -> View {
        let overlay = self.overlays.get(&keyspace.id()).map(|memtable| Overlay {
            memtable: Arc::clone(memtable),
            visible: self.next_sequence() - 1,
        });
        let reads = self.reads.last().filter(|_| self.is_serializable());
        let reads = reads.map(|reads| ScanReads::new(reads, keyspace));
        View::of_transaction(keyspace, self.snapshot.clone(), overlay, reads)
    }

    /// The value of `key`, noted as read where the snapshot says it.
    pub(super) fn value(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Value>> {
        let engine = self.readable()?;
        match self.own_write(keyspace.id(), key) {
            OwnWrite::Found(trailer, _) if trailer.kind() == Some(ValueKind::MergeOperand) => {
                return self.merged_value(keyspace, key);
            }
            OwnWrite::Found(trailer, stored) => {
                return Found::InMemtable(trailer, stored).value(engine.clock());
            }
            OwnWrite::Hidden => return Ok(None),
            OwnWrite::Absent => self.note_key(keyspace, key),
        }
        let sequence = self.snapshot.sequence();
        let view = keyspace.state().load_at(Some(sequence));
        let search = Search::begin(&view, key, sequence);
        keyspace.note_get(&view, key, search.hash());
        let mut found = read::get(&search, engine.clock(), keyspace.state().operator());
        if let Ok(Some(value)) = &mut found {
            value.hand_out(&engine.blocks);
        }
        found
    }

    /// The value of `key`, whose newest record is an operand of this transaction's own.
    fn merged_value(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Value>> {
        let range = KeyRange::half_open(key, &[key, &[0]].concat());
        let mut cursor = Cursor::over(self.view_noted(keyspace), range);
        cursor.seek_to_first()?;
        Ok(cursor.valid().then(|| Value::copy_of(cursor.value())))
    }

    pub(super) fn readable(&self) -> Result<&Engine> {
        let engine = self.db.engine();
        engine.check_open()?;
        Ok(engine)
    }

    pub(super) fn own_write(&self, keyspace: KeyspaceId, key: &[u8]) -> OwnWrite<'_> {
        self.own_write_at(keyspace, key, MAX_SEQUENCE)
    }

    /// What the operands of this transaction lie on, where the newest of its writes to `key` is one.
    pub(super) fn below_operands(&self, keyspace: KeyspaceId, key: &[u8]) -> OwnWrite<'_> {
        let mut at = MAX_SEQUENCE;
        loop {
            match self.own_write_at(keyspace, key, at) {
                OwnWrite::Found(trailer, _) if trailer.kind() == Some(ValueKind::MergeOperand) => {
                    at = trailer.sequence() - 1;
                }
                found => return found,
            }
        }
    }

    fn own_write_at(&self, keyspace: KeyspaceId, key: &[u8], at: u64) -> OwnWrite<'_> {
        let Some(overlay) = self.overlays.get(&keyspace) else {
            return OwnWrite::Absent;
        };
        let covering = overlay.covering_sequence(key, MAX_SEQUENCE).unwrap_or(0);
        match overlay.get(key, at) {
            Some((trailer, stored)) if trailer.sequence() > covering => {
                OwnWrite::Found(trailer, stored)
            }
            _ if covering > 0 => OwnWrite::Hidden,
            _ => OwnWrite::Absent,
        }
    }

    pub(super) fn note_key(&self, keyspace: &Keyspace, key: &[u8]) {
        if self.is_serializable() {
            self.protect_key(keyspace, key);
        }
    }

    /// Whatever the isolation, commits only if `key` has not changed.
    pub(super) fn protect_key(&self, keyspace: &Keyspace, key: &[u8]) {
        if let Some(reads) = self.reads.last() {
            reads.lock().add_key(keyspace, key);
        }
    }

    /// As [`Transaction::protect_key`], for every key of a range.
    pub(super) fn protect_range(&self, keyspace: &Keyspace, range: &KeyRange) {
        if let Some(reads) = self.reads.last() {
            reads.lock().add_range(keyspace, range);
        }
    }

    /// Refuses a keyspace of another database.
    pub(super) fn check_keyspace(&self, keyspace: &Keyspace) -> Result<()> {
        if Arc::ptr_eq(keyspace.engine(), self.db.engine()) {
            return Ok(());
        }
        let sentence = "the keyspace is one of another database";
        Err(Error::invalid_argument(sentence))
    }
}

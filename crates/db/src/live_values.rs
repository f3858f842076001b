//! The value tables of one super-version, and records whose values lie in them.
//!
//! Invariants: a value table's file stays as long as a super-version names it, as that of any other
//! table does; nothing of a value is read before somebody wants it, so that what has expired, what is
//! hidden and what only a key is wanted of cost no read. Called by point reads, cursors and merges of
//! operands.

use crate::obsolete_files::{LiveTable, LiveTables};
use crate::value::Value;
use esker_base::value_pointer::ValuePointer;
use esker_base::{Result, Trailer, ValueKind};
use esker_manifest::Version;
use esker_sstable::ValueTables;
use std::sync::Arc;

/// Value tables that a super-version names.
#[derive(Debug, Default)]
pub(crate) struct LiveValues {
    tables: ValueTables,
    /// Keeps the files.
    _live: Vec<Arc<LiveTable>>,
}

impl LiveValues {
    pub(crate) fn of(version: &Version, tables: &LiveTables) -> Arc<Self> {
        let metas = version.values.tables.iter();
        let live: Vec<_> = metas.map(|meta| tables.get(meta)).collect();
        let handles = live.iter().map(|table| Arc::clone(&table.handle));
        Arc::new(Self {
            tables: ValueTables::new(handles, version.values.lost.clone()),
            _live: live,
        })
    }

    /// The value of `key` that a stored pointer of this kind leads to; `None` where it was given up by
    /// a salvage.
    pub(crate) fn value(
        &self,
        key: &[u8],
        kind: ValueKind,
        stored: &[u8],
    ) -> Result<Option<Value>> {
        let (_, pointer) = ValuePointer::of_stored(kind, stored)?;
        let value = self.tables.read(key, &pointer)?;
        Ok(value.map(|value| Value::from_block(&value, 0)))
    }

    /// The record that a stored pointer stands for: its trailer and bytes. A value that was given up
    /// reads as deleted.
    pub(crate) fn record(
        &self,
        key: &[u8],
        trailer: Trailer,
        stored: &[u8],
    ) -> Result<(Trailer, Vec<u8>)> {
        let kind = trailer.kind().unwrap_or(ValueKind::ValuePointer);
        let found = self.tables.restored(key, kind, stored)?;
        let (kind, bytes) = found.unwrap_or((ValueKind::Tombstone, Vec::new()));
        Ok((trailer.with_kind(kind), bytes))
    }

    /// Whether the value that a stored pointer leads to was given up.
    pub(crate) fn is_lost(&self, kind: ValueKind, stored: &[u8]) -> Result<bool> {
        let (_, pointer) = ValuePointer::of_stored(kind, stored)?;
        Ok(self.tables.is_lost(pointer.number))
    }
}

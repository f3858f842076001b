//! Tables of values: what pointers in other tables point to, and how it is read.
//!
//! A value table is a table like any other in which every record has a block of its own, so that a
//! pointer names a block and the value is one read. It is no source of records: one that no pointer
//! points to does not exist for readers.
//!
//! Invariant: a value that is handed out lies in a block whose checksum held and whose one record has
//! the key that was asked for. Blocks of values do not enter the block cache. Values whose table a
//! salvage gave up are gone like deleted ones; a table that is missing otherwise is damage, and named.
//! Used by readers, by merges and by verification.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use esker_base::filename::{FileNumber, table_path};
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::value_pointer::ValuePointer;
use esker_base::{Error, Result, Trailer, ValueKind};

use crate::block::{BlockParts, PinnedValue};
use crate::block_reads;
use crate::format::BlockHandle;
use crate::table::Table;
use crate::table_cache::TableHandle;

/// The value tables of one version of a keyspace.
#[derive(Clone, Debug, Default)]
pub struct ValueTables {
    /// Ascending by number.
    tables: Arc<[Arc<TableHandle>]>,
    /// Given up by a salvage.
    lost: Arc<BTreeSet<FileNumber>>,
}

impl ValueTables {
    /// These tables, and the numbers of those that were given up.
    #[must_use]
    pub fn new(
        tables: impl IntoIterator<Item = Arc<TableHandle>>,
        lost: BTreeSet<FileNumber>,
    ) -> Self {
        let mut tables: Vec<_> = tables.into_iter().collect();
        tables.sort_by_key(|table| table.meta().number);
        Self {
            tables: tables.into(),
            lost: Arc::new(lost),
        }
    }

    /// Whether the table of this number was given up.
    #[must_use]
    pub fn is_lost(&self, number: FileNumber) -> bool {
        self.lost.contains(&number)
    }

    /// The value of `key` that `pointer` points to; `None` where its table was given up.
    ///
    /// # Errors
    /// [`Corruption`](esker_base::ErrorKind::Corruption) that names table and offset where nothing of
    /// that kind is there; I/O errors.
    pub fn read(&self, key: &[u8], pointer: &ValuePointer) -> Result<Option<PinnedValue>> {
        let found = self
            .tables
            .binary_search_by_key(&pointer.number, |table| table.meta().number);
        match found {
            Ok(at) => self.tables[at].table()?.value_at(key, pointer).map(Some),
            Err(_) if self.is_lost(pointer.number) => Ok(None),
            Err(_) => {
                let sentence = "a value pointer names a table that the manifest does not";
                let path = table_path(Path::new(""), pointer.number);
                Err(Error::corruption(sentence)
                    .with_file(&path)
                    .with_offset(pointer.offset))
            }
        }
    }

    /// What the record that a stored pointer stands for would be: its kind and its bytes, an expiry
    /// in front. `None` where its table was given up.
    ///
    /// # Errors
    /// As [`ValueTables::read`].
    pub fn restored(
        &self,
        key: &[u8],
        kind: ValueKind,
        stored: &[u8],
    ) -> Result<Option<(ValueKind, Vec<u8>)>> {
        let (expiry, pointer) = ValuePointer::of_stored(kind, stored)?;
        let Some(value) = self.read(key, &pointer)? else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(8 + value.len());
        if let Some(expiry) = expiry {
            bytes.extend_from_slice(&expiry.to_le_bytes());
        }
        bytes.extend_from_slice(&value);
        Ok(Some((kind.across_pointer(), bytes)))
    }
}

impl Table {
    /// The value of `key` in the block that `pointer` names: one read, past the block cache.
    ///
    /// # Errors
    /// I/O errors; damage, and a block that does not hold what the pointer says.
    pub fn value_at(&self, key: &[u8], pointer: &ValuePointer) -> Result<PinnedValue> {
        let handle = BlockHandle {
            offset: pointer.offset,
            bytes: pointer.stored_bytes,
        };
        let damaged = |message| self.block_file().damaged(message, pointer.offset);
        let data_bytes = self.properties().data_bytes;
        if handle.end().is_none_or(|end| end > data_bytes) {
            return Err(damaged(
                "a value pointer points outside of the data of its table",
            ));
        }
        block_reads::note_loaded();
        let contents = self.block_file().read_block(handle)?;
        let block = self.parse_block(&contents, handle)?;
        let newest = Trailer::seek(MAX_SEQUENCE);
        match block.find(key, newest) {
            Some((_, range)) if range.len() as u64 == pointer.value_bytes => {
                Ok(PinnedValue::new(block, range))
            }
            _ => Err(damaged(
                "a value pointer points to another value than it says",
            )),
        }
    }
}

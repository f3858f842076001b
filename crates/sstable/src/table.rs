//! An open table. Skeleton.

use std::path::Path;
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::{Result, SequenceNumber, Trailer};
use esker_vfs::fs::FileSystem;

use crate::block::PinnedValue;
use crate::block_cache::BlockCache;
use crate::properties::Properties;

/// A record that a lookup found.
#[derive(Clone, Debug)]
pub struct TableHit {
    /// Sequence number and kind.
    pub trailer: Trailer,
    /// The value as stored (a value with expiry begins with its expiry).
    pub value: PinnedValue,
}

/// An open table.
#[derive(Debug)]
pub struct Table {
    _private: (),
}

impl Table {
    /// Opens a table.
    ///
    /// # Errors
    /// Corruption, I/O.
    pub fn open(
        _fs: &dyn FileSystem,
        _path: &Path,
        _number: FileNumber,
        _blocks: Arc<BlockCache>,
    ) -> Result<Self> {
        todo!()
    }
    /// The newest point record of `key` with a sequence of at most `visible`; `hash` is
    /// [`key_hash`](esker_base::checksum::key_hash) of the key.
    ///
    /// # Errors
    /// Corruption, I/O.
    pub fn get(
        &self,
        _key: &[u8],
        _hash: u64,
        _visible: SequenceNumber,
    ) -> Result<Option<TableHit>> {
        todo!()
    }
    /// As [`Table::get`], but hands the record to `read` where it lies, which saves the reference
    /// count of a [`PinnedValue`].
    ///
    /// # Errors
    /// Corruption, I/O.
    pub fn get_with<R>(
        &self,
        _key: &[u8],
        _hash: u64,
        _visible: SequenceNumber,
        _read: impl FnOnce(Trailer, &[u8]) -> R,
    ) -> Result<Option<R>> {
        todo!()
    }
    /// Whether the filter lets a key of this hash through.
    #[must_use]
    pub fn may_contain(&self, _hash: u64) -> bool {
        todo!()
    }
    /// The range tombstones.
    #[must_use]
    pub fn range_tombstones(&self) -> &FragmentedTombstones {
        todo!()
    }
    /// What the table says of itself.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        todo!()
    }
    /// Checks every byte; `progress` is told the bytes done and answers whether to go on.
    ///
    /// # Errors
    /// Corruption; Cancelled.
    pub fn verify(&self, _progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        todo!()
    }
    /// As [`Table::verify`], and that the table is what `meta` says.
    ///
    /// # Errors
    /// As [`Table::verify`].
    pub fn verify_against(
        &self,
        _meta: &TableMeta,
        _progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        todo!()
    }
    /// About how many bytes of the file come before `key`.
    #[must_use]
    pub fn approximate_offset(&self, _key: &[u8]) -> u64 {
        todo!()
    }
    /// At most `at_most` keys, ascending, that cut the table into parts of about equal size.
    #[must_use]
    pub fn block_boundaries(&self, _at_most: usize) -> Vec<Vec<u8>> {
        todo!()
    }
}

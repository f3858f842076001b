//! Writes a table. Skeleton.

use std::path::Path;

use esker_base::filename::FileNumber;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::{Result, Trailer};
use esker_vfs::fs::FileSystem;

use crate::options::TableOptions;

/// Writes a table.
#[derive(Debug)]
pub struct TableWriter {
    _private: (),
}

impl TableWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// I/O; InvalidArgument for options out of bounds.
    pub fn create(
        _fs: &dyn FileSystem,
        _path: &Path,
        _number: FileNumber,
        _options: &TableOptions,
    ) -> Result<Self> {
        todo!()
    }
    /// Adds a point record; internal keys ascend strictly.
    ///
    /// # Errors
    /// InvalidArgument, I/O.
    pub fn add(&mut self, _key: &[u8], _trailer: Trailer, _value: &[u8]) -> Result<()> {
        todo!()
    }
    /// Adds range tombstones, already clipped to what this table may cover.
    pub fn add_range_tombstones(&mut self, _tombstones: &FragmentedTombstones) {
        todo!()
    }
    /// About how large the file would be if it were finished now.
    #[must_use]
    pub fn estimated_bytes(&self) -> u64 {
        todo!()
    }
    /// Point records added.
    #[must_use]
    pub fn entries(&self) -> u64 {
        todo!()
    }
    /// Whether neither points nor range tombstones were added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Writes the rest and syncs the file; the caller syncs the directory.
    ///
    /// # Errors
    /// I/O; InvalidArgument for an empty table.
    pub fn finish(self, _created_millis: u64) -> Result<TableMeta> {
        todo!()
    }
    /// Closes the file unfinished; the caller removes it.
    pub fn abandon(self) {}
}

//! Open tables. Skeleton.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_base::Result;
use esker_base::table_meta::TableMeta;
use esker_vfs::fs::FileSystem;

use crate::block_cache::BlockCache;
use crate::table::Table;

/// Opens tables lazily and bounds how many are open.
#[derive(Debug)]
pub struct TableCache {
    _private: (),
}

impl TableCache {
    /// A cache for the tables in `directory`, of which at most about `open_files_limit` are open.
    #[must_use]
    pub fn new(
        _fs: Arc<dyn FileSystem>,
        _directory: PathBuf,
        _blocks: Arc<BlockCache>,
        _open_files_limit: usize,
    ) -> Arc<Self> {
        todo!()
    }
    /// The handle of a table: one per file number while it is alive. Opens nothing.
    #[must_use]
    pub fn handle(self: &Arc<Self>, _meta: Arc<TableMeta>) -> Arc<TableHandle> {
        todo!()
    }
    /// The block cache.
    #[must_use]
    pub fn blocks(&self) -> &Arc<BlockCache> {
        todo!()
    }
    /// The directory of the tables.
    #[must_use]
    pub fn directory(&self) -> &Path {
        todo!()
    }
    /// How many tables are open.
    #[must_use]
    pub fn open_tables(&self) -> usize {
        todo!()
    }
}

/// A table of a version, open or not.
#[derive(Debug)]
pub struct TableHandle {
    _private: (),
}

impl TableHandle {
    /// What the manifest says of the table.
    #[must_use]
    pub fn meta(&self) -> &Arc<TableMeta> {
        todo!()
    }
    /// The open table; opens it if it is not.
    ///
    /// # Errors
    /// Corruption, I/O.
    pub fn table(&self) -> Result<TableRef> {
        todo!()
    }
    /// Closes the table; it is opened again when it is next asked for.
    pub fn evict(&self) {
        todo!()
    }
}

/// An open table, pinned.
#[derive(Debug)]
pub struct TableRef {
    table: Arc<Table>,
}

impl Deref for TableRef {
    type Target = Table;
    fn deref(&self) -> &Table {
        &self.table
    }
}

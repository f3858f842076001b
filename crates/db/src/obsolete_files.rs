//! Tables that no version names any more, and the moment their files may go.
//!
//! Invariant (I1): a file is removed only after the edit that dropped it is durable and the last
//! reader that could open it is gone. A [`LiveTable`] is held by every super-version that names the
//! table; `table_references` has the rules of who may remove what, and this file removes it.

use crate::table_references::{Held, TableReferences};
use esker_base::filename::{FileNumber, table_path};
use esker_base::table_meta::TableMeta;
use esker_sstable::{TableCache, TableHandle};
use esker_vfs::FileSystem;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

/// A table that a current or still-read version names.
pub(crate) type LiveTable = Held<Arc<TableHandle>>;

/// All live tables of a database, by number.
#[derive(Debug)]
pub(crate) struct LiveTables {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    cache: Arc<TableCache>,
    references: TableReferences<Arc<TableHandle>>,
}

impl Deref for LiveTables {
    type Target = TableReferences<Arc<TableHandle>>;

    fn deref(&self) -> &Self::Target {
        &self.references
    }
}

impl LiveTables {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, directory: PathBuf, cache: Arc<TableCache>) -> Self {
        Self {
            fs,
            directory,
            cache,
            references: TableReferences::new(),
        }
    }

    /// The table of `meta`, shared by everybody who names it.
    pub(crate) fn get(&self, meta: &Arc<TableMeta>) -> Arc<LiveTable> {
        let handle = || self.cache.handle(Arc::clone(meta));
        self.references.get(meta.number, handle)
    }

    /// As [`LiveTables::get`], for a table that may be retired: its file, if it is still there, is
    /// not removed before the reference that is returned is dropped.
    pub(crate) fn hold(&self, meta: &Arc<TableMeta>) -> Arc<LiveTable> {
        let handle = || self.cache.handle(Arc::clone(meta));
        self.references.hold(meta.number, handle)
    }

    /// Removes the files whose last reader is gone. A file that cannot be removed now is tried again
    /// at the next call; after a crash the next open finds it as a stray.
    pub(crate) fn remove_unread(&self) {
        self.references
            .remove_unread(|number| self.remove(number), || self.sync());
    }

    /// Whether the removals so far outlast a crash.
    fn sync(&self) -> bool {
        let synced = self.fs.sync_dir(&self.directory);
        if let Err(error) = &synced {
            tracing::warn!(%error, "tables that nothing names stay: the directory could not be synced");
        }
        synced.is_ok()
    }

    /// Whether the file is gone.
    fn remove(&self, number: FileNumber) -> bool {
        match self.fs.remove_file(&table_path(&self.directory, number)) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(number, %error, "could not remove an obsolete table");
                false
            }
        }
    }
}

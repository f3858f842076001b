//! Which tables are open. Handles stand for tables in versions; a table is opened when its handle
//! is first asked for it, and closed when too many are open.
//!
//! Invariants: at most about the limit of tables is open at once, and their indexes and filters take at
//! most about what is allowed (one that a reader holds stays open until it lets go); a table is opened by one thread at a time; there is one handle for each
//! file number while anybody holds it. Which table is closed is decided by second chance, as in the
//! block cache. Asking an open table costs one pointer load and no lock. Called by db and
//! compaction.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwapOption, Guard};
use esker_base::Result;
use esker_base::filename::{FileNumber, table_path};
use esker_base::sync::Mutex;
use esker_base::table_meta::TableMeta;
use esker_vfs::fs::FileSystem;

use crate::block_cache::BlockCache;
use crate::table::Table;

/// Opens the tables of one directory and bounds how many are open.
#[derive(Debug)]
pub struct TableCache {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    blocks: Arc<BlockCache>,
    open_files_limit: AtomicUsize,
    table_bytes_limit: AtomicUsize,
    open: AtomicUsize,
    handles: Mutex<HashMap<FileNumber, Weak<TableHandle>>>,
    /// Handles of open tables, in the order in which they are looked at for closing.
    queue: Mutex<VecDeque<Weak<TableHandle>>>,
}

impl TableCache {
    /// A cache for the tables in `directory`, of which at most about `open_files_limit` (at least
    /// one) are open at once.
    #[must_use]
    pub fn new(
        fs: Arc<dyn FileSystem>,
        directory: PathBuf,
        blocks: Arc<BlockCache>,
        open_files_limit: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            fs,
            directory,
            blocks,
            open_files_limit: AtomicUsize::new(open_files_limit.max(1)),
            table_bytes_limit: AtomicUsize::new(usize::MAX),
            open: AtomicUsize::new(0),
            handles: Mutex::new(HashMap::new()),
            queue: Mutex::new(VecDeque::new()),
        })
    }

    /// The handle of the table that the manifest describes as `meta`. Opens nothing.
    #[must_use]
    pub fn handle(self: &Arc<Self>, meta: Arc<TableMeta>) -> Arc<TableHandle> {
        let mut handles = self.handles.lock();
        if let Some(handle) = handles.get(&meta.number).and_then(Weak::upgrade) {
            return handle;
        }
        let number = meta.number;
        let handle = Arc::new_cyclic(|this| TableHandle {
            meta,
            table: ArcSwapOption::empty(),
            referenced: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            opening: Mutex::new(()),
            cache: Arc::clone(self),
            this: this.clone(),
        });
        handles.insert(number, Arc::downgrade(&handle));
        handle
    }

    /// The block cache that the tables share.
    #[must_use]
    pub fn blocks(&self) -> &Arc<BlockCache> {
        &self.blocks
    }

    /// The directory of the tables.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Changes how many tables are open at once, at least one. Those that are too many are closed as
    /// others are opened.
    pub fn set_open_files_limit(&self, open_files_limit: usize) {
        self.open_files_limit
            .store(open_files_limit.max(1), Ordering::Relaxed);
    }

    /// Changes what the indexes and filters of open tables may take, bytes; no bound before. Tables that
    /// take too much are closed as others are opened; the one that was opened last stays.
    pub fn set_table_bytes_limit(&self, table_bytes_limit: usize) {
        self.table_bytes_limit
            .store(table_bytes_limit, Ordering::Relaxed);
    }

    /// Whether tables have to be closed, where `closing_bytes` are about to be given back.
    fn holds_too_much(&self, closing_bytes: usize) -> bool {
        let table_bytes = self.blocks.table_bytes().saturating_sub(closing_bytes);
        self.open_tables() > self.open_files_limit.load(Ordering::Relaxed)
            || table_bytes > self.table_bytes_limit.load(Ordering::Relaxed)
    }

    /// How many tables are open through handles.
    #[must_use]
    pub fn open_tables(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes one table that is open, whether it was used lately or not, as soon as nobody reads it;
    /// `false` where none is. For when the process may open no more files.
    pub fn close_one(&self) -> bool {
        loop {
            let Some(first) = self.queue.lock().pop_front() else {
                return false;
            };
            if let Some(handle) = first.upgrade() {
                handle.queued.store(false, Ordering::Relaxed);
                if handle.take_table().is_some() {
                    return true;
                }
            }
        }
    }

    /// Enters a table that was just opened, and closes others that are too many.
    fn admit(&self, handle: &TableHandle) {
        // What is let go of is dropped after the lock: a handle takes other locks when it goes.
        let (mut closed, mut looked_at) = (Vec::new(), Vec::new());
        let mut queue = self.queue.lock();
        if !handle.queued.swap(true, Ordering::Relaxed) {
            queue.push_back(handle.this.clone());
        }
        // Handles that vanished leave entries behind; they are removed in bulk, now and then.
        if queue.len() > 64 + 2 * self.open_tables() {
            queue.retain(|entry| entry.strong_count() > 0);
        }
        let mut closing_bytes = 0;
        for _ in 0..2 * queue.len() {
            if !self.holds_too_much(closing_bytes) {
                break;
            }
            let Some(candidate) = queue.pop_front().and_then(|entry| entry.upgrade()) else {
                continue;
            };
            let is_new = std::ptr::eq(&*candidate, handle);
            if is_new || candidate.referenced.swap(false, Ordering::Relaxed) {
                queue.push_back(candidate.this.clone());
            } else {
                candidate.queued.store(false, Ordering::Relaxed);
                let table = candidate.take_table();
                closing_bytes += table.as_ref().map_or(0, |table| table.memory_bytes());
                closed.push(table);
            }
            looked_at.push(candidate);
        }
        drop(queue);
    }
}

/// A table of a version, open or not.
#[derive(Debug)]
pub struct TableHandle {
    meta: Arc<TableMeta>,
    table: ArcSwapOption<Table>,
    /// Whether it was used since the cache last looked.
    referenced: AtomicBool,
    /// Whether it stands in the queue of the cache.
    queued: AtomicBool,
    opening: Mutex<()>,
    cache: Arc<TableCache>,
    this: Weak<TableHandle>,
}

impl TableHandle {
    /// What the manifest says of the table.
    #[must_use]
    #[inline]
    pub fn meta(&self) -> &Arc<TableMeta> {
        &self.meta
    }

    /// The open table; opens it if it is not. For the length of a lookup: to keep a table, use
    /// [`TableHandle::table_arc`].
    ///
    /// # Errors
    /// Those of [`Table::open_checked`].
    #[inline]
    pub fn table(&self) -> Result<TableRef> {
        match self.open_table() {
            Some(table) => Ok(table),
            None => Ok(TableRef(Pin::Owned(self.open()?))),
        }
    }

    /// The table if it is open. For the length of a lookup, as [`TableHandle::table`].
    #[must_use]
    #[inline]
    pub fn open_table(&self) -> Option<TableRef> {
        let guard = self.table.load();
        if guard.is_none() {
            return None;
        }
        self.mark_referenced();
        Some(TableRef(Pin::Guard(guard)))
    }

    /// Written only where it changes, so that readers share the line.
    #[inline]
    pub(crate) fn mark_referenced(&self) {
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
    }

    /// As [`TableHandle::table`], to be kept.
    ///
    /// # Errors
    /// As [`TableHandle::table`].
    pub fn table_arc(&self) -> Result<Arc<Table>> {
        match self.table.load_full() {
            Some(table) => {
                self.mark_referenced();
                Ok(table)
            }
            None => self.open(),
        }
    }

    /// Closes the table as soon as nobody uses it, and forgets its cached blocks: for a table whose
    /// file is deleted. Asked again, the handle would open it again.
    pub fn evict(&self) {
        drop(self.take_table());
    }

    #[cold]
    fn open(&self) -> Result<Arc<Table>> {
        let opening = self.opening.lock();
        if let Some(table) = self.table.load_full() {
            return Ok(table);
        }
        let path = table_path(&self.cache.directory, self.meta.number);
        let blocks = Arc::clone(&self.cache.blocks);
        let table = Table::open_checked(&*self.cache.fs, &path, &self.meta, blocks);
        let table = table.map_err(|error| error.with_keys(&self.meta.bounds))?;
        let table = Arc::new(table);
        // Counted before others can see it, and so before others can close it.
        self.cache.open.fetch_add(1, Ordering::Relaxed);
        self.table.store(Some(Arc::clone(&table)));
        drop(opening);
        self.cache.admit(self);
        Ok(table)
    }

    fn take_table(&self) -> Option<Arc<Table>> {
        let table = self.table.swap(None);
        if table.is_some() {
            self.cache.open.fetch_sub(1, Ordering::Relaxed);
        }
        table
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        self.evict();
        let mut handles = self.cache.handles.lock();
        // Somebody may have asked for a new handle of this number already.
        if handles
            .get(&self.meta.number)
            .is_some_and(|entry| entry.strong_count() == 0)
        {
            handles.remove(&self.meta.number);
        }
    }
}

/// An open table for the length of a lookup. Keep it on the stack: a thread has room for a few of
/// them before they become slower.
#[derive(Debug)]
pub struct TableRef(Pin);

#[derive(Debug)]
enum Pin {
    Guard(Guard<Option<Arc<Table>>>),
    Owned(Arc<Table>),
}

impl Deref for TableRef {
    type Target = Table;

    #[inline]
    fn deref(&self) -> &Table {
        match &self.0 {
            Pin::Owned(table) => table,
            Pin::Guard(guard) => match &**guard {
                Some(table) => table,
                None => unreachable!("a TableRef is made only of a guard that holds a table"),
            },
        }
    }
}

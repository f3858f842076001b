//! A file in memory: its bytes, charged to the space of its file system.
//!
//! Invariant: a file system's used bytes are the sum of the lengths of its files that still have a
//! name or a handle; growth beyond the capacity is refused before anything changes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::pages::Pages;

/// A file: its bytes, whatever its names are.
#[derive(Debug)]
pub(crate) struct Inode {
    pages: RwLock<Pages>,
    space: Arc<Space>,
}

/// The capacity of the file system and how much of it is in use. A file is charged its length.
#[derive(Debug)]
pub(crate) struct Space {
    capacity_bytes: AtomicU64,
    used_bytes: AtomicU64,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            capacity_bytes: AtomicU64::new(u64::MAX),
            used_bytes: AtomicU64::new(0),
        }
    }
}

impl Space {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let capacity = self.capacity_bytes();
        let taken = self
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|used| *used <= capacity || bytes == 0)
            });
        taken
            .map(drop)
            .map_err(|_| io::ErrorKind::StorageFull.into())
    }

    /// A file with these contents, which may lie beyond the capacity: they are there already.
    pub(crate) fn inode(self: &Arc<Self>, pages: Pages) -> Arc<Inode> {
        self.used_bytes.fetch_add(pages.len(), Ordering::Relaxed);
        Arc::new(Inode {
            pages: RwLock::new(pages),
            space: Arc::clone(self),
        })
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.capacity_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn free_bytes(&self) -> u64 {
        self.capacity_bytes().saturating_sub(self.used_bytes())
    }

    fn give_back(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Inode {
    /// The bytes as they are now.
    pub(crate) fn contents(&self) -> Pages {
        self.pages.read().clone()
    }

    pub(super) fn len(&self) -> u64 {
        self.pages.read().len()
    }

    /// Writes `data`; where the space ends before it, the part that fits, as a disk does.
    pub(super) fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut pages = self.pages.write();
        let end = Pages::checked_end(offset, data.len() as u64)?;
        let before = pages.len();
        let growth = if data.is_empty() {
            0
        } else {
            end.saturating_sub(before)
        };
        if self.space.take(growth).is_ok() {
            return pages.write_at(offset, data);
        }
        // A writer that lost the race for the last bytes writes less than would have fitted.
        let free = self.space.free_bytes().min(growth);
        let fits = usize::try_from((before + free).saturating_sub(offset)).unwrap_or(usize::MAX);
        let part = &data[..fits.min(data.len())];
        if self.space.take(free).is_ok() {
            pages.write_at(offset, part)?;
            // What the part did not reach of the space goes back.
            self.space.give_back(before + free - pages.len());
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.pages.read().read_exact_at(buffer, offset)
    }

    /// Cuts the file or extends it with zeros.
    pub(super) fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut pages = self.pages.write();
        let before = pages.len();
        Pages::checked_end(0, bytes)?;
        self.space.take(bytes.saturating_sub(before))?;
        pages.set_len(bytes)?;
        self.space.give_back(before.saturating_sub(bytes));
        Ok(())
    }

    /// Makes the file at least so long.
    pub(super) fn extend_to(&self, bytes: u64) -> io::Result<()> {
        let mut pages = self.pages.write();
        let before = pages.len();
        if bytes <= before {
            return Ok(());
        }
        Pages::checked_end(0, bytes)?;
        self.space.take(bytes - before)?;
        pages.set_len(bytes)
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.space.give_back(self.pages.get_mut().len());
    }
}

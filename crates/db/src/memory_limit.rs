//! The limit of a database in memory: what it takes, and what happens when that is too much.
//!
//! Invariants: what is taken is counted where it is allocated (chunks of memtables, whoever holds them;
//! bytes of files; blocks in the cache), not estimated. A put that does not fit is refused before it
//! is ordered; a delete never is. Before a put is refused, everything that was deleted or overwritten
//! since the last attempt has been reclaimed, unless attempts have shown to free nothing: then only
//! after twice as many operations each time, so that a full database does not merge all day. Called by
//! the commit leader with the writer lock held, and by bulk loads.

use crate::commit::{Member, Writer};
use crate::engine::Engine;
use esker_base::key_bounds::KeyBounds;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_vfs::MemFileSystem;
use parking_lot::Mutex;
use std::sync::Arc;

/// The part of the limit that is kept for merges, which hold what they read until it is replaced.
const RESERVE: u64 = 8;
/// An attempt that frees less than this part of the limit has freed nothing.
const LEAST_FREED: u64 = 64;
/// Operations after which reclaiming is tried again at the latest.
const MAX_PATIENCE: u64 = 1 << 12;

/// What the memory of an engine is made of.
#[derive(Debug)]
pub(crate) struct MemoryUse {
    /// The files of a database in memory.
    files: Option<MemFileSystem>,
    attempts: Mutex<Attempts>,
}

/// When memory was last reclaimed, and after how many operations, refused ones included, it is worth
/// another try.
#[derive(Debug)]
struct Attempts {
    at: SequenceNumber,
    refused: u64,
    patience: u64,
}

impl MemoryUse {
    pub(crate) fn new(files: Option<MemFileSystem>) -> Self {
        let attempts = Attempts {
            at: 0,
            refused: 0,
            patience: 1,
        };
        Self {
            files,
            attempts: Mutex::new(attempts),
        }
    }
}

impl Engine {
    /// Bytes of memtables, with what is kept for further ones, of files in memory, of the cache, and of the
    /// indexes and filters of open tables.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let memtables = self.arenas.lent_bytes() + self.arenas.held_bytes();
        let files = self
            .memory
            .files
            .as_ref()
            .map_or(0, MemFileSystem::used_bytes);
        let blocks = self.blocks.used_bytes() + self.blocks.table_bytes();
        (memtables + blocks) as u64 + files
    }

    /// Refuses the members that put something for which there is no memory.
    #[inline]
    pub(crate) fn enforce_memory_limit(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &mut [Member<'_>],
    ) -> Result<()> {
        match self.settings.memory_limit_bytes() {
            None => Ok(()),
            Some(limit) => self.enforce(limit, writer, members),
        }
    }

    fn enforce(
        self: &Arc<Self>,
        limit: u64,
        writer: &mut Writer,
        members: &mut [Member<'_>],
    ) -> Result<()> {
        let wanted: usize = members.iter().map(Member::encoded_bytes).sum();
        let has_room = || self.memory_bytes() + wanted as u64 <= limit - limit / RESERVE;
        if has_room() {
            return Ok(());
        }
        self.reclaim(limit, writer)?;
        if has_room() {
            return Ok(());
        }
        for member in members.iter_mut().filter(|m| !m.has_only_deletes()) {
            member.refuse(&self.memory_is_full(limit));
        }
        Ok(())
    }

    /// Fails where nothing more may be loaded.
    pub(crate) fn check_memory(&self) -> Result<()> {
        match self.settings.memory_limit_bytes() {
            Some(limit) if self.memory_bytes() > limit - limit / RESERVE => {
                Err(self.memory_is_full(limit))
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn memory_is_full(&self, limit: u64) -> Error {
        let sentence = format!(
            "the database takes {} of the {limit} bytes of memory that it may: delete something, or raise \
             memory_limit_bytes",
            self.memory_bytes()
        );
        Error::new(ErrorKind::LimitExceeded, sentence)
    }

    /// Whether a range was deleted since memtables were last flushed: that may be everything.
    fn holds_range_deletes(&self) -> bool {
        let keyspaces = self.all_keyspaces();
        keyspaces.iter().any(|state| {
            let view = state.load();
            let mut memtables = view.memtables();
            memtables.any(|memtable| memtable.has_range_tombstones())
        })
    }

    /// Merges away what was deleted and overwritten.
    #[cold]
    fn reclaim(self: &Arc<Self>, limit: u64, writer: &mut Writer) -> Result<()> {
        let now = writer.next_sequence;
        {
            let mut attempts = self.memory.attempts.lock();
            attempts.refused += 1;
            let operations = now - attempts.at + attempts.refused - 1;
            if operations < attempts.patience && !self.holds_range_deletes() {
                return Ok(());
            }
        }
        let before = self.memory_bytes();
        self.seal_all(writer);
        self.wait_for_flush(|| self.next_to_flush().is_none())?;
        let everything = KeyBounds::half_open("", "");
        for state in self.all_keyspaces() {
            self.compact_keyspace(&state, &everything)?;
        }
        let freed = before.saturating_sub(self.memory_bytes());
        let mut attempts = self.memory.attempts.lock();
        (attempts.at, attempts.refused) = (now, 0);
        attempts.patience = if freed >= limit / LEAST_FREED {
            1
        } else {
            (attempts.patience * 2).min(MAX_PATIENCE)
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;

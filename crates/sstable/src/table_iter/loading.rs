//! How an iterator reads a block that is not cached.
//!
//! Invariant: what a scan holds beside its block counts, and is no more than a piece that was read ahead; a merge keeps
//! its buffers. Made by `table_iter` for the first such block, and gone when it stands nowhere.

use std::sync::Arc;

use esker_base::Result;

use super::FillCache;
use crate::block::Block;
use crate::held_memory::HeldMemory;
use crate::index::Leaf;
use crate::load_buffers;
use crate::read_ahead::ReadAhead;
use crate::table::Table;

/// What it takes to read blocks that are not cached.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) read_ahead: ReadAhead,
    who: Loader,
}

/// Who reads blocks, and what that means for memory.
#[derive(Debug)]
enum Loader {
    /// Merges have a share of a memory budget to themselves, and a buffer in which blocks are decompressed.
    Merge { scratch: Vec<u8> },
    /// Of scans there may be many at once: each counts what it reads ahead, and has no more than that. Those of
    /// users may be refused.
    Scan {
        held: HeldMemory,
        may_be_refused: bool,
    },
}

impl Loading {
    pub(super) fn new(fill: FillCache, table: &Table) -> Box<Self> {
        let who = match fill {
            FillCache::Yes | FillCache::Briefly => Loader::Scan {
                held: HeldMemory::new(Arc::clone(table.cache())),
                may_be_refused: fill == FillCache::Yes,
            },
            FillCache::No => Loader::Merge {
                scratch: Vec::new(),
            },
        };
        Box::new(Self {
            read_ahead: ReadAhead::new(fill == FillCache::No),
            who,
        })
    }

    /// Reads and checks block `index` of `leaf`.
    ///
    /// # Errors
    /// I/O and damage; [`LimitExceeded`](esker_base::ErrorKind::LimitExceeded) for a scan that may have no more memory.
    #[cold]
    pub(super) fn read(&mut self, table: &Table, leaf: &Leaf, index: usize) -> Result<Block> {
        let handle = leaf.index.handle(index);
        let (file, limit) = (table.block_file(), leaf.index.end_offset());
        let ahead = &mut self.read_ahead;
        let block = match &mut self.who {
            Loader::Merge { scratch } => ahead
                .stored(file, handle, limit)
                .and_then(|stored| file.unpack(stored, handle.offset, scratch))
                .and_then(|contents| table.parse_block(contents, handle)),
            Loader::Scan {
                held,
                may_be_refused,
            } => {
                if *may_be_refused {
                    table.cache().admit_block()?;
                }
                let has_room = table.cache().has_room_ahead();
                let block = load_buffers::with(|stored, scratch| {
                    let stored = match has_room {
                        true => ahead.stored(file, handle, limit)?,
                        false => file.read_stored(handle, stored)?,
                    };
                    let contents = file.unpack(stored, handle.offset, scratch)?;
                    table.parse_block(contents, handle)
                });
                if !has_room {
                    ahead.let_go();
                }
                ahead.let_go_of_large();
                held.set(size_of::<Self>() + ahead.memory_bytes());
                block
            }
        };
        block.map_err(|error| table.with_keys(error))
    }
}

//! What blocks a table consists of, for people who look into one (`esker dump-table`).
//!
//! Invariant: reads like verification does, block by block and checked, and keeps one line for
//! each.

use esker_base::Result;

use crate::block::{BlockParts, Shape};
use crate::block_io::Verified;
use crate::format::BlockHandle;
use crate::index::TableIndex;
use crate::options::Compression;
use crate::read_ahead::ReadAhead;
use crate::table::Table;

/// What a block of a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// Records in the slot layout.
    SlotData,
    /// Records in the restart layout.
    RestartData,
    /// A partition of the index.
    IndexPartition,
    /// The index, or the top of a partitioned one.
    Index,
    /// The filter.
    Filter,
    /// The range tombstones.
    RangeTombstones,
    /// The properties.
    Properties,
}

/// One block of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// What it is for.
    pub kind: BlockKind,
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes in the file, its trailer included.
    pub stored_bytes: u64,
    /// Bytes of its contents before compression.
    pub contents_bytes: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Records of a data block, separators of an index, fragments of range tombstones; 0 for the
    /// others.
    pub entries: u64,
}

impl Table {
    /// All blocks, in the order in which they lie in the file.
    ///
    /// # Errors
    /// I/O errors and damage of what is read.
    pub fn block_summaries(&self) -> Result<Vec<BlockSummary>> {
        let mut summaries = Vec::new();
        let mut read_ahead = ReadAhead::new(true);
        let mut scratch = Vec::new();
        let mut describe = |kind, handle: BlockHandle, entries: Option<u64>| -> Result<()> {
            let file = self.block_file();
            let stored = read_ahead.stored(file, handle, handle.offset + handle.bytes)?;
            let verified = Verified::check(stored, file.number, handle.offset)
                .map_err(|error| error.with_file(self.path()))?;
            let contents = file.unpack(stored, handle.offset, &mut scratch)?;
            let mut summary = BlockSummary {
                kind,
                offset: handle.offset,
                stored_bytes: handle.bytes,
                contents_bytes: contents.len() as u64,
                compression: verified.compression(),
                entries: entries.unwrap_or_default(),
            };
            if entries.is_none() {
                let block = self.parse_block(contents, handle)?;
                summary.entries = block.entries() as u64;
                if matches!(block.shape(), Shape::Restart(_)) {
                    summary.kind = BlockKind::RestartData;
                }
            }
            summaries.push(summary);
            Ok(())
        };
        for position in 0..self.leaves() {
            let index = &self.leaf(position)?.index;
            for place in 0..index.len() {
                describe(BlockKind::SlotData, index.handle(place), None)?;
            }
        }
        let index_entries = match &self.index {
            TableIndex::Flat(leaf) => leaf.index.len(),
            TableIndex::Partitioned { top, .. } => {
                for position in 0..top.len() {
                    let entries = self.leaf(position)?.index.len() as u64;
                    describe(
                        BlockKind::IndexPartition,
                        top.handle(position),
                        Some(entries),
                    )?;
                }
                top.len()
            }
        };
        describe(
            BlockKind::Index,
            self.footer.index,
            Some(index_entries as u64),
        )?;
        let fragments = self.range_tombstones().len() as u64;
        for (kind, handle, entries) in [
            (BlockKind::Filter, self.footer.filter, 0),
            (
                BlockKind::RangeTombstones,
                self.footer.range_tombstones,
                fragments,
            ),
            (BlockKind::Properties, self.footer.properties, 0),
        ] {
            if handle.bytes > 0 {
                describe(kind, handle, Some(entries))?;
            }
        }
        Ok(summaries)
    }
}

//! What is read when a table is opened: footer, properties, index, filter and range tombstones.
//!
//! Invariant: every size is checked against the length of the file before anything is allocated,
//! every block against its checksum, and the parts against each other as far as that can be told
//! without reading data blocks. Called by `table`.

use std::path::Path;

use esker_base::filename::FileNumber;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::{Error, Result};
use esker_vfs::fs::RandomAccessFile;

use crate::block_io::BlockFile;
use crate::filter::Filter;
use crate::format::{BlockHandle, FOOTER_BYTES, Footer};
use crate::index::IndexBlock;
use crate::properties::Properties;

/// Read at once when a table is opened: of a small table everything but the data.
const TAIL_BYTES: u64 = 16 << 10;

/// Damage inside a block whose checksum matched: the inner offset counts from its contents.
pub(crate) fn block_damage(what: &str, source: Error, handle: BlockHandle, path: &Path) -> Error {
    Error::new(source.kind(), format!("{what} cannot be read"))
        .with_file(path)
        .with_offset(handle.offset)
        .with_source(source)
}

/// What is read when a table is opened.
pub(crate) struct Parts {
    pub(crate) footer: Footer,
    pub(crate) index: IndexBlock,
    pub(crate) filter: Filter,
    pub(crate) tombstones: FragmentedTombstones,
    pub(crate) properties: Properties,
}

impl Parts {
    /// Reads and checks the parts of the file.
    ///
    /// # Errors
    /// I/O; Corruption; Unsupported for a later format.
    pub(crate) fn read(
        file: &dyn RandomAccessFile,
        path: &Path,
        number: FileNumber,
        file_bytes: u64,
    ) -> Result<Self> {
        let file = BlockFile { file, path, number };
        let tail_bytes = file_bytes.min(TAIL_BYTES);
        let tail_start = file_bytes - tail_bytes;
        let mut tail = vec![0; tail_bytes as usize];
        file.read_exact(&mut tail, tail_start)?;
        let footer_at = tail.len().saturating_sub(FOOTER_BYTES);
        let footer = Footer::decode(&tail[footer_at..], file_bytes)
            .map_err(|error| error.with_file(path))?;
        if footer.number != number {
            let message = format!("table {} stands where table {number} should", footer.number);
            return Err(Error::corruption(message).with_file(path));
        }
        let read = |handle: BlockHandle| match handle.offset.checked_sub(tail_start) {
            Some(at) => {
                let stored = &tail[at as usize..at as usize + handle.bytes as usize];
                file.unpack(stored, handle.offset, &mut Vec::new())
                    .map(<[u8]>::to_vec)
            }
            None => file.read_block(handle),
        };
        let inside = |what, handle| move |source| block_damage(what, source, handle, path);

        let handle = footer.properties;
        let mut properties = Properties::decode(&read(handle)?)
            .map_err(inside("the properties of a table", handle))?;
        properties.meta.file_bytes = file_bytes;
        properties.meta.checksum = footer.file_checksum;

        let handle = footer.index;
        let index = IndexBlock::decode(&read(handle)?, handle.offset)
            .map_err(inside("the index of a table", handle))?;

        let handle = footer.filter;
        let filter = match handle.bytes {
            0 => Filter::None,
            _ => Filter::decode(read(handle)?).map_err(inside("the filter of a table", handle))?,
        };

        let handle = footer.range_tombstones;
        let tombstones = match handle.bytes {
            0 => FragmentedTombstones::default(),
            _ => FragmentedTombstones::decode(&read(handle)?)
                .map_err(inside("the range tombstones of a table", handle))?,
        };
        let parts = Self {
            footer,
            index,
            filter,
            tombstones,
            properties,
        };
        parts
            .check()
            .map_err(|message| file.damaged(message, parts.footer.index.offset))?;
        Ok(parts)
    }

    /// Whether the parts agree as far as that can be told without reading blocks.
    fn check(&self) -> Result<(), &'static str> {
        let meta = &self.properties.meta;
        let is_flat = self.footer.index_levels == 1;
        if meta.number != self.footer.number {
            return Err("a table's properties and footer differ in its number");
        }
        if is_flat && self.index.end_offset() != self.properties.data_bytes {
            return Err("a table's index and properties differ in the end of its data");
        }
        if is_flat && self.index.len() as u64 != self.properties.data_blocks {
            return Err("a table's index and properties differ in the number of its blocks");
        }
        if !is_flat
            && (self.index.len() == 0 || self.index.handle(0).offset != self.properties.data_bytes)
        {
            return Err("a table's index partitions do not follow its data");
        }
        let expiries = self.properties.block_expiries;
        if expiries.bytes > 0
            && (expiries.offset < self.properties.data_bytes
                || expiries
                    .end()
                    .is_none_or(|end| end > self.footer.properties.offset))
        {
            return Err(
                "a table's expiries of blocks lie elsewhere than between data and properties",
            );
        }
        if meta.range_tombstones != self.tombstones.tombstone_count() {
            return Err("a table's properties miscount its range tombstones");
        }
        Ok(())
    }
}

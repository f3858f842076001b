//! Writes a table from sorted records, front to back.
//!
//! Invariant: the file is complete only when [`TableWriter::finish`] has returned `Ok`: it is
//! synced then, and its [`TableMeta`] says what it holds. Memory is the current block, a bounded
//! buffer, the index so far and eight bytes for each key (for the filter), not the table; blocks are kept
//! only where that is asked for and out of what the block cache has free. Called by
//! flush, compaction and bulk load; the caller syncs the directory afterwards (I1).

use std::path::Path;
use std::sync::Arc;

use esker_base::checksum::key_hash;
use esker_base::coding::{put_bytes, put_varint};
use esker_base::filename::FileNumber;
use esker_base::internal_key::compare;
use esker_base::iterator::RecordView;
use esker_base::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::table_meta::TableMeta;
use esker_base::value_pointer::ValuePointer;
use esker_base::{Error, Result, SequenceNumber, Trailer, ValueKind};
use esker_vfs::fs::FileSystem;

use crate::block::BlockParts;
use crate::block_builder::BlockBuilder;
use crate::block_cache::BlockCache;
use crate::block_expiries::BlockExpiriesBuilder;
use crate::block_io;
use crate::file_sink::FileSink;
use crate::filter::FilterBuilder;
use crate::format::{BlockHandle, Footer};
use crate::index_builder::{IndexBuilder, shortest_separator};
use crate::new_blocks::NewBlocks;
use crate::options::{Compression, TableOptions};
use crate::origin::{Origin, TAG_ORIGIN};
use crate::properties::Properties;
use crate::stored_record::StoredRecord;
use crate::tally::Tally;

/// Data blocks are at least this large, so that no option makes an index larger than its data.
const MIN_BLOCK_BYTES: usize = 64;
/// Larger blocks only make lookups slower.
const MAX_TARGET_BLOCK_BYTES: usize = 16 << 20;

/// An index counts its bytes in 32 bits.
const MAX_INDEX_PARTITION_BYTES: usize = 256 << 20;

/// A data block that is written and waits for the key after it, which its separator depends on.
#[derive(Clone, Copy, Debug)]
struct WaitingBlock {
    last_trailer: Trailer,
    stored_bytes: u64,
}

/// Writes one table.
#[derive(Debug)]
pub struct TableWriter {
    sink: FileSink,
    number: FileNumber,
    options: TableOptions,
    block: BlockBuilder,
    /// The encoded block before compression; kept for its memory.
    payload: Vec<u8>,
    waiting: Option<WaitingBlock>,
    index: IndexBuilder,
    filter: FilterBuilder,
    expiries: BlockExpiriesBuilder,
    tombstones: FragmentedTombstones,
    tally: Tally,
    origin: Option<Origin>,
    /// The last record's user key and trailer.
    last_key: Vec<u8>,
    last_trailer: Trailer,
    uncompressed_data_bytes: u64,
    kept: Option<NewBlocks>,
}

impl TableWriter {
    /// Creates the file at `path`, which must not exist; `number` is what its name says and seeds
    /// its checksums.
    ///
    /// # Errors
    /// I/O; [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) for options out of bounds.
    pub fn create(
        fs: &dyn FileSystem,
        path: &Path,
        number: FileNumber,
        options: &TableOptions,
    ) -> Result<Self> {
        if !(MIN_BLOCK_BYTES..=MAX_TARGET_BLOCK_BYTES).contains(&options.block_bytes) {
            return Err(Error::invalid_argument(
                "block_bytes must lie between 64 and 16 MiB",
            ));
        }
        if !(1.0..=64.0).contains(&options.filter_bits_per_key) {
            return Err(Error::invalid_argument(
                "filter_bits_per_key must lie between 1 and 64",
            ));
        }
        if !(1..=MAX_INDEX_PARTITION_BYTES).contains(&options.index_partition_bytes) {
            return Err(Error::invalid_argument(
                "index_partition_bytes must lie between 1 and 256 MiB",
            ));
        }
        Ok(Self {
            sink: FileSink::create(fs, path)?,
            number,
            options: options.clone(),
            block: BlockBuilder::new(options.layout),
            payload: Vec::new(),
            waiting: None,
            index: IndexBuilder::default(),
            filter: FilterBuilder::new(options.filter, options.filter_bits_per_key),
            expiries: BlockExpiriesBuilder::default(),
            tombstones: FragmentedTombstones::default(),
            tally: Tally::default(),
            origin: None,
            last_key: Vec::new(),
            last_trailer: Trailer::OLDEST,
            uncompressed_data_bytes: 0,
            kept: None,
        })
    }

    /// Keeps the data blocks, as far as `cache` has free room, for the table to begin with. Called before
    /// the first record.
    pub fn keep_blocks(&mut self, cache: &Arc<BlockCache>) {
        self.kept = Some(NewBlocks::new(cache));
    }

    /// Adds a point record. Internal keys ascend strictly: user keys ascending, and the versions
    /// of one key newest first.
    ///
    /// # Errors
    /// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) for a record out of order or
    /// out of bounds, which is not added; I/O errors, after which only
    /// [`TableWriter::abandon`] makes sense.
    pub fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        let is_new_key = self.check_next(key, trailer, value)?;
        if !self.block.is_empty() && self.block.bytes_with(key, value) > self.options.block_bytes {
            self.finish_block()?;
        }
        self.count(key, trailer, value, is_new_key);
        self.block.add(key, trailer, value);
        Ok(())
    }

    /// As [`TableWriter::add`], for a record that fills a block of its own in another table: where this one
    /// would store the same, that block is taken over as it is stored.
    ///
    /// # Errors
    /// As [`TableWriter::add`].
    pub fn add_stored(&mut self, record: &StoredRecord<'_>) -> Result<()> {
        let RecordView {
            user_key,
            trailer,
            value,
        } = record.view;
        let is_alone = BlockBuilder::bytes_alone(user_key, value) > self.options.block_bytes;
        if !is_alone || record.compression != self.options.compression {
            return self.add(user_key, trailer, value);
        }
        let is_new_key = self.check_next(user_key, trailer, value)?;
        if !self.block.is_empty() {
            self.finish_block()?;
        }
        self.count(user_key, trailer, value, is_new_key);
        let (number, offset) = (self.number, self.sink.offset());
        self.sink
            .append(|out| block_io::reseal(record.checked, number, offset, out))?;
        self.uncompressed_data_bytes += record.block.bytes().len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.push_block(record.block, record.at);
        }
        self.end_block(self.sink.offset() - offset);
        Ok(())
    }

    /// Checks that a record may come next; whether its key is a new one.
    #[inline]
    fn check_next(&self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<bool> {
        let is_first = self.tally.entries() == 0;
        check_record(key, trailer, value)?;
        if !is_first && compare(&self.last_key, self.last_trailer, key, trailer).is_ge() {
            return Err(Error::invalid_argument("a record is out of order"));
        }
        Ok(is_first || key != self.last_key)
    }

    /// Notes a record that goes into the current block, which may be a new one, everywhere but there.
    #[inline]
    fn count(&mut self, key: &[u8], trailer: Trailer, value: &[u8], is_new_key: bool) {
        if let Some(waiting) = self.waiting.take() {
            self.index_block(waiting, key, is_new_key);
        }
        if is_new_key {
            self.filter.add(key_hash(key));
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_trailer = trailer;
        self.expiries.record(trailer, value);
        self.tally.record(key, trailer, value, is_new_key);
    }

    /// As [`TableWriter::add`], for a value that gets a block of its own; says where that lies.
    ///
    /// # Errors
    /// As [`TableWriter::add`].
    pub fn add_value(
        &mut self,
        key: &[u8],
        sequence: SequenceNumber,
        value: &[u8],
    ) -> Result<ValuePointer> {
        if !self.block.is_empty() {
            self.finish_block()?;
        }
        self.add(key, Trailer::new(sequence, ValueKind::Value), value)?;
        let block = self.finish_block()?;
        Ok(ValuePointer {
            number: self.number,
            offset: block.offset,
            stored_bytes: block.bytes,
            value_bytes: value.len() as u64,
        })
    }

    /// Adds range tombstones. They are already clipped to what this table may cover.
    pub fn add_range_tombstones(&mut self, tombstones: &FragmentedTombstones) {
        self.tombstones = FragmentedTombstones::merge([&self.tombstones, tombstones]);
    }

    /// Says where the table comes from, for the case that the manifest is lost.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// About how large the file would be if it were finished now, bytes.
    #[must_use]
    pub fn estimated_bytes(&self) -> u64 {
        let block = if self.block.is_empty() {
            0
        } else {
            self.block.bytes_with(&[], &[])
        };
        self.sink.offset()
            + block as u64
            + self.index.estimated_bytes() as u64
            + self.filter.estimated_bytes()
            + self.tombstones.memory_bytes() as u64
            + 512
    }

    /// Point records added so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.tally.entries()
    }

    /// Whether neither point records nor range tombstones were added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tally.entries() == 0 && self.tombstones.is_empty()
    }

    /// Writes the rest and makes the file durable; the caller syncs the directory.
    ///
    /// # Errors
    /// I/O; [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) for a table without
    /// records and range tombstones.
    pub fn finish(self, created_millis: u64) -> Result<TableMeta> {
        self.finish_with_blocks(created_millis)
            .map(|(meta, _)| meta)
    }

    /// As [`TableWriter::finish`], with the blocks that were kept, for [`Table::adopt`](crate::Table::adopt).
    ///
    /// # Errors
    /// As [`TableWriter::finish`].
    pub fn finish_with_blocks(
        mut self,
        created_millis: u64,
    ) -> Result<(TableMeta, Option<NewBlocks>)> {
        if self.is_empty() {
            return Err(
                Error::invalid_argument("a table holds something").with_file(self.sink.path())
            );
        }
        if !self.block.is_empty() {
            self.finish_block()?;
        }
        if let Some(waiting) = self.waiting.take() {
            // Nothing follows: the last key itself bounds the last block, so that a lookup beyond
            // it reads no block.
            let last_key = std::mem::take(&mut self.last_key);
            self.index.add(&last_key, None, waiting.stored_bytes);
            self.expiries.add(waiting.stored_bytes, true);
            self.last_key = last_key;
        }
        let data_bytes = self.sink.offset();
        let (number, sink) = (self.number, &mut self.sink);
        let (index, index_levels) = self
            .index
            .write(self.options.index_partition_bytes, |block| {
                write_block(sink, block, Compression::None, number)
            })?;
        let filter = match self.filter.finish() {
            Some(filter) => write_block(sink, &filter, Compression::None, number)?,
            None => BlockHandle::default(),
        };
        let range_tombstones = if self.tombstones.is_empty() {
            BlockHandle::default()
        } else {
            self.payload.clear();
            self.tombstones.encode(&mut self.payload);
            write_block(sink, &self.payload, self.options.compression, number)?
        };
        let block_expiries = match self.expiries.encode() {
            Some(expiries) if self.options.block_expiries => {
                write_block(sink, &expiries, Compression::None, number)?
            }
            _ => BlockHandle::default(),
        };
        let distinct_keys = self.tally.distinct_keys;
        let mut meta = self.tally.finish(&self.last_key, &self.tombstones);
        meta.number = number;
        meta.created_millis = created_millis;
        let properties = Properties {
            meta,
            distinct_keys,
            data_blocks: self.index.len() as u64,
            data_bytes,
            uncompressed_data_bytes: self.uncompressed_data_bytes,
            compression: self.options.compression,
            filter: self.options.filter,
            block_bytes: self.options.block_bytes as u64,
            block_expiries,
        };
        let mut fields = properties.encode();
        if let Some(origin) = &self.origin {
            put_varint(&mut fields, TAG_ORIGIN);
            put_bytes(&mut fields, &origin.encode());
        }
        let properties_handle = write_block(sink, &fields, Compression::None, number)?;
        let file_checksum = sink.checksum();
        let footer = Footer {
            index,
            filter,
            range_tombstones,
            properties: properties_handle,
            number,
            index_levels,
            file_checksum,
        };
        sink.append(|out| out.extend_from_slice(&footer.encode()))?;
        let file_bytes = sink.offset();
        self.sink.finish()?;
        let meta = TableMeta {
            file_bytes,
            checksum: file_checksum,
            ..properties.meta
        };
        Ok((meta, self.kept))
    }

    /// The number of the table.
    #[must_use]
    pub fn number(&self) -> FileNumber {
        self.number
    }

    /// Closes the file unfinished; the caller removes it.
    pub fn abandon(self) {}

    /// Encodes and writes the current block.
    fn finish_block(&mut self) -> Result<BlockHandle> {
        self.payload.clear();
        self.block.finish(&mut self.payload);
        self.uncompressed_data_bytes += self.payload.len() as u64;
        let compression = self.options.compression;
        let handle = write_block(&mut self.sink, &self.payload, compression, self.number)?;
        if let Some(kept) = &mut self.kept {
            kept.push(&self.payload);
        }
        self.end_block(handle.bytes);
        Ok(handle)
    }

    /// The block of the last record has been written, and waits for the next key.
    fn end_block(&mut self, stored_bytes: u64) {
        self.expiries.end_block();
        self.waiting = Some(WaitingBlock {
            last_trailer: self.last_trailer,
            stored_bytes,
        });
    }

    /// Gives the block before `next_key` its separator.
    fn index_block(&mut self, waiting: WaitingBlock, next_key: &[u8], is_new_key: bool) {
        self.expiries.add(waiting.stored_bytes, is_new_key);
        if is_new_key {
            let separator = shortest_separator(&self.last_key, next_key);
            self.index.add(&separator, None, waiting.stored_bytes);
        } else {
            self.index.add(
                &self.last_key,
                Some(waiting.last_trailer),
                waiting.stored_bytes,
            );
        }
    }
}

fn check_record(key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(Error::invalid_argument(
            "a key has between one byte and 1 MiB",
        ));
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(Error::invalid_argument("a value has at most 1 GiB"));
    }
    match trailer.kind() {
        None | Some(ValueKind::RangeDelete) => Err(Error::invalid_argument(
            "a record is of a kind that is no point record",
        )),
        Some(kind) if kind.expires() && value.len() < 8 => Err(Error::invalid_argument(
            "a value with expiry is shorter than its expiry",
        )),
        Some(kind) if kind.is_pointer() => ValuePointer::of_stored(kind, value).map(drop),
        Some(_) => Ok(()),
    }
}

/// Writes a block at the end of the file and tells where it is.
fn write_block(
    sink: &mut FileSink,
    payload: &[u8],
    compression: Compression,
    number: FileNumber,
) -> Result<BlockHandle> {
    let offset = sink.offset();
    sink.append(|out| block_io::seal(payload, compression, number, offset, out))?;
    Ok(BlockHandle {
        offset,
        bytes: sink.offset() - offset,
    })
}

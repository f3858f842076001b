//! Checks a table from its first byte to its last.
//!
//! Invariant: a table that passes is what its writer wrote: every byte is under the checksum of the
//! file, every block under its own, records ascend strictly and lie where the index says, every key
//! passes the filter, and what the properties count is what is there. Memory is one piece of
//! read-ahead and one block. Called by `db`'s validation and by the `esker verify` command.

use esker_base::checksum::{StreamingChecksum, key_hash};
use esker_base::internal_key::compare;
use esker_base::table_meta::TableMeta;
use esker_base::value_pointer::ValuePointer;
use esker_base::{Error, ErrorKind, Result, Trailer, ValueKind};

use crate::block::Block;
use crate::block_expiries::BlockExpiriesBuilder;
use crate::block_iter::BlockIter;
use crate::format::{FOOTER_BYTES, Footer};
use crate::index::TableIndex;
use crate::options::FilterKind;
use crate::read_ahead::ReadAhead;
use crate::table::Table;
use crate::tally::Tally;

/// What lies behind the blocks is read in pieces of this size.
const PIECE_BYTES: u64 = 256 << 10;

impl Table {
    /// Checks every byte of the table. `progress` is told how many bytes were checked so far (in
    /// the end the length of the file) and answers whether to go on.
    ///
    /// # Errors
    /// [`Corruption`](ErrorKind::Corruption) naming the first damage found,
    /// [`Cancelled`](ErrorKind::Cancelled) where `progress` said so, and I/O errors.
    pub fn verify(&self, progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        Verification::new(self, progress).run()
    }

    /// As [`Table::verify`], and that the table is the one that the manifest describes as `meta`.
    ///
    /// # Errors
    /// As [`Table::verify`].
    pub fn verify_against(
        &self,
        meta: &TableMeta,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        let mut expected = meta.clone();
        let own = &self.properties().meta;
        if meta.ingested_sequence != 0 {
            // The manifest knows the sequence of a bulk-loaded table, its file does not.
            expected.ingested_sequence = 0;
            expected.smallest_sequence = own.smallest_sequence;
            expected.largest_sequence = own.largest_sequence;
        }
        if expected != *own {
            let message = format!("the manifest describes {expected:?}, the table says {own:?}");
            return Err(Error::corruption(message).with_file(self.path()));
        }
        self.verify(progress)
    }
}

/// The state of one pass over a table.
struct Verification<'a> {
    table: &'a Table,
    progress: &'a mut dyn FnMut(u64) -> bool,
    checksum: StreamingChecksum,
    checked_bytes: u64,
    tally: Tally,
    uncompressed_bytes: u64,
    blocks: u64,
    last_key: Vec<u8>,
    last_trailer: Trailer,
    /// The separator of the block before: every record of this block is beyond it.
    separator: Option<(Vec<u8>, Trailer)>,
    expiries: BlockExpiriesBuilder,
}

impl<'a> Verification<'a> {
    fn new(table: &'a Table, progress: &'a mut dyn FnMut(u64) -> bool) -> Self {
        Self {
            table,
            progress,
            checksum: StreamingChecksum::new(0),
            checked_bytes: 0,
            tally: Tally::default(),
            uncompressed_bytes: 0,
            blocks: 0,
            last_key: Vec::new(),
            last_trailer: Trailer::OLDEST,
            separator: None,
            expiries: BlockExpiriesBuilder::default(),
        }
    }

    fn damaged(&self, message: &'static str, offset: u64) -> Error {
        self.table.block_file().damaged(message, offset)
    }

    fn run(mut self) -> Result<()> {
        self.data_blocks()?;
        self.rest_of_file()?;
        self.block_expiries_agree()?;
        self.counts()
    }

    /// Tells how far it is.
    fn advance(&mut self, bytes: u64) -> Result<()> {
        self.checked_bytes += bytes;
        if (self.progress)(self.checked_bytes) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Cancelled,
            "the verification of a table was cancelled",
        )
        .with_file(self.table.path()))
    }

    fn data_blocks(&mut self) -> Result<()> {
        let mut read_ahead = ReadAhead::new(true);
        let mut entries = BlockIter::new();
        let mut scratch = Vec::new();
        for position in 0..self.table.leaves() {
            let leaf = self.table.leaf(position)?;
            let limit = leaf.index.end_offset();
            for place in 0..leaf.index.len() {
                let handle = leaf.index.handle(place);
                if handle.offset != self.checked_bytes {
                    return Err(self.damaged(
                        "a data block does not follow the one before it",
                        handle.offset,
                    ));
                }
                let file = self.table.block_file();
                let stored = read_ahead.stored(file, handle, limit)?;
                self.checksum.update(stored);
                let contents = file.unpack(stored, handle.offset, &mut scratch)?;
                self.uncompressed_bytes += contents.len() as u64;
                self.blocks += 1;
                let block = self.table.parse_block(contents, handle)?;
                let separator = leaf.index.separator(place);
                self.block(block, &mut entries, &separator, handle.offset)?;
                self.expiries.end_block();
                // A separator has a trailer of its own where the next block goes on with its key.
                let next_is_another_key = separator.1 == Trailer::OLDEST;
                self.expiries.add(handle.bytes, next_is_another_key);
                self.separator = Some(separator);
                self.advance(handle.bytes)?;
            }
            self.partition_agrees(position)?;
        }
        Ok(())
    }

    /// The last separator of a partition is what the top of the index says it is.
    fn partition_agrees(&self, position: usize) -> Result<()> {
        if let TableIndex::Partitioned { top, .. } = &self.table.index
            && Some(top.separator(position)) != self.separator
        {
            let offset = top.handle(position).offset;
            return Err(self.damaged(
                "a partition of an index ends elsewhere than its top says",
                offset,
            ));
        }
        Ok(())
    }

    fn block(
        &mut self,
        block: Block,
        entries: &mut BlockIter,
        separator: &(Vec<u8>, Trailer),
        offset: u64,
    ) -> Result<()> {
        entries.enter(block);
        entries.seek_to_first();
        if let Some((key, trailer)) = &self.separator
            && !entries.compare(key, *trailer).is_gt()
        {
            return Err(self.damaged(
                "a record lies before the separator of the block before it",
                offset,
            ));
        }
        while entries.valid() {
            self.record(entries, offset)?;
            entries.next();
        }
        if compare(&self.last_key, self.last_trailer, &separator.0, separator.1).is_gt() {
            return Err(self.damaged("a record lies beyond the separator of its block", offset));
        }
        Ok(())
    }

    fn record(&mut self, entries: &BlockIter, offset: u64) -> Result<()> {
        let (key, trailer, value) = (entries.user_key(), entries.trailer(), entries.value());
        let is_first = self.tally.entries() == 0;
        let is_new_key = is_first || self.last_key != key;
        if !is_first && compare(&self.last_key, self.last_trailer, key, trailer).is_ge() {
            return Err(self.damaged("the records of a table do not ascend", offset));
        }
        match trailer.kind() {
            None | Some(ValueKind::RangeDelete) => {
                return Err(self.damaged("a record is of a kind that is no point record", offset));
            }
            Some(kind) if kind.expires() && value.len() < 8 => {
                return Err(self.damaged("a value with expiry is shorter than its expiry", offset));
            }
            Some(kind) if kind.is_pointer() && ValuePointer::of_stored(kind, value).is_err() => {
                return Err(self.damaged("a value pointer is malformed", offset));
            }
            Some(_) => {}
        }
        if is_new_key {
            if !self.table.may_contain(key_hash(key)) {
                return Err(self.damaged("a key of a table does not pass its filter", offset));
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_trailer = trailer;
        self.expiries.record(trailer, value);
        self.tally.record(key, trailer, value, is_new_key);
        Ok(())
    }

    /// What the table says of its blocks' expiries, if it does, is what its blocks say.
    fn block_expiries_agree(&self) -> Result<()> {
        let handle = self.table.properties().block_expiries;
        if handle.bytes == 0 {
            return Ok(());
        }
        let stored = self.table.block_file().read_block(handle)?;
        if self.expiries.encode() == Some(stored) {
            return Ok(());
        }
        let message = "a table's blocks expire at other times than it says";
        Err(self.damaged(message, handle.offset))
    }

    /// Everything behind the data blocks.
    fn rest_of_file(&mut self) -> Result<()> {
        let table = self.table;
        let file = table.block_file();
        let file_bytes = table.properties().meta.file_bytes;
        let footer_at = file_bytes - FOOTER_BYTES as u64;
        let mut piece = Vec::new();
        while self.checked_bytes < footer_at {
            let bytes = PIECE_BYTES.min(footer_at - self.checked_bytes);
            piece.resize(bytes as usize, 0);
            file.read_exact(&mut piece, self.checked_bytes)?;
            self.checksum.update(&piece);
            self.advance(bytes)?;
        }
        piece.resize(FOOTER_BYTES, 0);
        file.read_exact(&mut piece, footer_at)?;
        let footer =
            Footer::decode(&piece, file_bytes).map_err(|error| error.with_file(table.path()))?;
        if footer != table.footer || self.checksum.value() != footer.file_checksum {
            return Err(self.damaged("a table does not match the checksum of its file", footer_at));
        }
        self.advance(FOOTER_BYTES as u64)
    }

    /// What was counted is what the properties say.
    fn counts(self) -> Result<()> {
        let properties = self.table.properties();
        let distinct_keys = self.tally.distinct_keys;
        let entries = self.tally.entries();
        let stored_tombstones = self.table.stored_range_tombstones();
        let counted = TableMeta {
            number: properties.meta.number,
            file_bytes: properties.meta.file_bytes,
            created_millis: properties.meta.created_millis,
            checksum: properties.meta.checksum,
            ..self.tally.finish(&self.last_key, &stored_tombstones)
        };
        let filter = if entries == 0 {
            FilterKind::None
        } else {
            properties.filter
        };
        let agrees = counted == properties.meta
            && distinct_keys == properties.distinct_keys
            && self.blocks == properties.data_blocks
            && self.uncompressed_bytes == properties.uncompressed_data_bytes
            && self.table.filter.kind() == filter;
        if agrees {
            return Ok(());
        }
        let message = format!("a table holds {counted:?}, its properties say {properties:?}");
        Err(Error::corruption(message)
            .with_file(self.table.path())
            .with_offset(self.table.footer.properties.offset))
    }
}

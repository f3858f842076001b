//! Immutable sorted tables: how they are written, opened, searched, iterated, cached and verified.
//!
//! Invariant: a table never changes once it is finished; every byte of it that is read has been
//! checked against its checksum before anything interprets it. The formats are specified in
//! `docs/format/table.md`. Flush and compaction write tables with [`TableWriter`]; the engine reads
//! them through [`TableCache`], [`TableHandle`], [`TableIter`] and [`LevelIter`].
#![forbid(unsafe_code)]

mod block;
mod block_builder;
mod block_cache;
mod block_expiries;
mod block_io;
mod block_iter;
mod block_memory;
mod block_reads;
mod compression;
mod description;
mod file_sink;
mod filter;
mod format;
mod held_memory;
mod index;
mod index_builder;
mod level_iter;
mod load_buffers;
mod lookup;
mod new_blocks;
mod options;
mod origin;
mod properties;
mod read_ahead;
mod restart_block;
mod run_seek;
mod slot_block;
mod stored_record;
mod summary;
mod table;
mod table_cache;
mod table_iter;
mod table_parts;
mod table_writer;
mod tally;
mod value_tables;
mod verify;
mod warm_up;

pub use block::{BLOCK_OVERHEAD_BYTES, PinnedValue};
pub use block_cache::BlockCache;
pub use block_expiries::SkipBlocks;
pub use block_reads::BlockReads;
pub use held_memory::HeldMemory;
pub use level_iter::LevelIter;
pub use lookup::{FoundRecord, Lookup};
pub use new_blocks::NewBlocks;
pub use options::{BlockLayoutChoice, Compression, FilterKind, TableOptions};
pub use origin::{Making, Origin};
pub use properties::Properties;
pub use run_seek::RunSeek;
pub use stored_record::StoredRecord;
pub use summary::{BlockKind, BlockSummary};
pub use table::{Table, TableHit};
pub use table_cache::{TableCache, TableHandle, TableRef};
pub use table_iter::{FillCache, TableIter};
pub use table_writer::TableWriter;
pub use value_tables::ValueTables;

#[cfg(test)]
mod tests;

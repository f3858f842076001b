//! What a table says of itself. Skeleton.

use esker_base::table_meta::TableMeta;

use crate::options::{Compression, FilterKind};

/// What a table says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// What the manifest remembers, as far as it is known before the file is complete:
    /// `file_bytes` and `checksum` are filled in from the file by [`Table::open`](crate::Table::open).
    pub meta: TableMeta,
    /// Distinct user keys.
    pub distinct_keys: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// Bytes of all data blocks as stored.
    pub data_bytes: u64,
    /// Bytes of all data blocks before compression.
    pub uncompressed_data_bytes: u64,
    /// How data blocks were to be compressed.
    pub compression: Compression,
    /// The filter.
    pub filter: FilterKind,
}

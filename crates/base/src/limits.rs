//! The limits of esker, in one file (I9). Options may lower what is here, never raise it.

/// The longest user key that can be stored, bytes.
pub const MAX_KEY_BYTES: usize = 1 << 20;
/// The longest value that can be stored, bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 30;
/// The largest write batch, bytes of its encoding: what one log record can hold.
pub const MAX_BATCH_BYTES: usize = (1 << 31) - (1 << 20);
/// Locks that all pessimistic transactions of a database may hold together.
pub const MAX_TRANSACTION_LOCKS: usize = 1 << 20;
/// What one batch may change in secondary indexes, bytes of its encoding.
pub const MAX_INDEX_CHANGES_BYTES: usize = 64 << 20;
/// Levels of a keyspace.
pub const MAX_LEVELS: usize = 8;
/// The longest keyspace name, bytes.
pub const MAX_KEYSPACE_NAME_BYTES: usize = 255;
/// The largest block of a table before compression, bytes (a single larger entry makes its own).
pub const MAX_BLOCK_BYTES: usize = MAX_KEY_BYTES + MAX_VALUE_BYTES + (1 << 16);
/// Stands in the place of a level where a table is one of values: no level has this number.
pub const VALUE_LEVEL: usize = 255;

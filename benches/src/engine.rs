//! The seam between workloads and key-value stores.
//!
//! Invariant: a workload knows an engine by this trait alone, so that every engine is measured by
//! the same code; calls are generic, not virtual, so that the seam costs nothing. Engines here:
//! esker on disk and in memory ([`esker`]), and a sorted map in memory ([`btree`]) as the
//! reference. Others implement [`Engine`] in packages of their own (`benches/peers`).

pub mod btree;
pub mod esker;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::path::Path;

/// What an engine answers: its own errors, boxed.
pub type EngineResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a write has survived when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on stable storage.
    Sync,
    /// The operating system has it: it survives the process, not the power.
    Buffered,
    /// It is in the memory of the process.
    Volatile,
}

/// How tables are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompactionShape {
    /// One sorted run per level: least space and fastest scans.
    Leveled,
    /// Several runs per level: least writing.
    Tiered,
    /// Several runs per level but one on the last.
    LazyLeveled,
}

/// Block compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As it stands.
    None,
    /// LZ4.
    Lz4,
}

/// How an engine is to be set up. `None` leaves the engine its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// The cache of blocks or pages, bytes.
    pub cache_bytes: u64,
    /// Bytes of recent writes that are collected in memory.
    pub write_buffer_bytes: Option<u64>,
    /// Block compression.
    pub compression: Compression,
    /// Filter bits per key; 0 for none.
    pub filter_bits_per_key: f64,
    /// The shape of the tree.
    pub compaction_shape: Option<CompactionShape>,
    /// Values of so many bytes or more are kept apart from their keys; 0: none.
    #[serde(default)]
    pub value_separation_bytes: Option<u64>,
    /// What writes survive unless a verb says otherwise.
    pub durability: Durability,
}

/// What an engine knows about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EngineStats {
    /// Bytes written to files since it was opened.
    pub device_bytes_written: Option<u64>,
    /// Bytes read from files since it was opened.
    pub device_bytes_read: Option<u64>,
    /// Whatever it tells people.
    pub text: String,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// A consistent view that is scanned.
pub trait Scanner {
    /// Goes through at most `limit` entries, lending each to `each` without copying it where the
    /// engine can, until that returns false. Begins at the first key at or after `from` (forwards)
    /// or the last key at or before it (backwards), or at the end where it is `None`. Returns how
    /// many entries it lent.
    ///
    /// # Errors
    /// The engine's own.
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64>;
}

/// A key-value store that can be measured. All of its methods are called from several threads.
///
/// # Errors
/// Every method that can fail fails with the engine's own errors; a run ends at the first.
pub trait Engine: Send + Sync + Sized + 'static {
    /// Writes that are applied together.
    type Batch;
    /// A view for scans.
    type Scanner<'a>: Scanner
    where
        Self: 'a;

    /// Whether an open after a close finds what was written.
    const KEEPS_DATA: bool = true;
    /// Whether a `buffered` write survives the kill of its process.
    const BUFFERED_SURVIVES_KILL: bool = true;

    /// Opens or creates the database in `directory`, which exists.
    ///
    /// # Errors
    /// See the trait.
    fn open(directory: &Path, settings: &EngineSettings) -> EngineResult<Self>;

    /// What of its setup a reader of the figures should know: (name, value) pairs.
    fn facts(&self) -> Vec<(String, String)>;

    /// Writes one entry.
    ///
    /// # Errors
    /// See the trait.
    fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> EngineResult<()>;

    /// Deletes one key, there or not.
    ///
    /// # Errors
    /// See the trait.
    fn delete(&self, key: &[u8], durability: Durability) -> EngineResult<()>;

    /// An empty batch.
    fn batch(&self) -> Self::Batch;

    /// Adds an entry to a batch.
    fn batch_put(batch: &mut Self::Batch, key: &[u8], value: &[u8]);

    /// Adds a deletion to a batch.
    fn batch_delete(batch: &mut Self::Batch, key: &[u8]);

    /// Applies a batch, all of it or nothing.
    ///
    /// # Errors
    /// See the trait.
    fn write(&self, batch: Self::Batch, durability: Durability) -> EngineResult<()>;

    /// Reads the newest value of `key` and lends it to `read`, without copying it where the engine
    /// can. Sees every write that was acknowledged before the call.
    ///
    /// # Errors
    /// See the trait.
    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> EngineResult<R>;

    /// Reads many keys of one view; lends (position, value) to `each`, in any order.
    ///
    /// # Errors
    /// See the trait.
    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()>;

    /// A view of everything acknowledged before the call.
    ///
    /// # Errors
    /// See the trait.
    fn scanner(&self) -> EngineResult<Self::Scanner<'_>>;

    /// Moves what is buffered in memory into files.
    ///
    /// # Errors
    /// See the trait.
    fn flush(&self) -> EngineResult<()>;

    /// Waits until no background work is due or running.
    ///
    /// # Errors
    /// See the trait.
    fn settle(&self) -> EngineResult<()>;

    /// Brings everything into its most compact form.
    ///
    /// # Errors
    /// See the trait.
    fn compact(&self) -> EngineResult<()>;

    /// What the engine counted.
    fn stats(&self) -> EngineStats;

    /// Closes it; what was acknowledged is found again by `open` (where there are files).
    ///
    /// # Errors
    /// See the trait.
    fn close(self) -> EngineResult<()>;
}

//! What a database can be told: the builder, its defaults, units and bounds, and the settled result.
//!
//! Invariant: an open database has options that are within their bounds and do not contradict each
//! other; everything else is refused at open, with the reason, before a byte is written.

use crate::Db;
use crate::open;
use esker_base::clock::{Clock, SystemClock};
use esker_base::limits;
use esker_base::{Error, Result};
use esker_compaction::{CompactionShape, Executor};
use esker_memtable::MemtableKind;
use esker_sstable::{Compression, FilterKind};
use esker_vfs::FileSystem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// When a write is safe. See the table in the README.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Not logged: lost with the process, unless a flush came first.
    Volatile,
    /// In the operating system when the call returns: survives the process, not the power.
    Buffered,
    /// On stable storage when the call returns. The default.
    #[default]
    Sync,
}

/// What an open does about damage it finds in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecoveryPolicy {
    /// Refuse to open when anything that was synced is damaged or missing. The default.
    #[default]
    Strict,
    /// Keep everything before the first damage and give up the rest of the log.
    DiscardAfterDamage,
}

/// Options of one write.
///
/// ```
/// use esker::{Durability, WriteOptions};
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// db.put_opt("k", "v", &WriteOptions::new().durability(Durability::Buffered))?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub(crate) durability: Option<Durability>,
}

impl WriteOptions {
    /// The database's default durability.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// When the write is safe.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)*) => {
        /// How an open database is set up: every option, settled. See [`Options`] for their meaning.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($name: $type,)*
        }

        impl Settings {
            fn defaults() -> Self {
                Self { $($name: $default,)* }
            }

            $($(#[$doc])* #[must_use] #[inline] pub fn $name(&self) -> $type { self.$name })*
        }

        impl Options {
            $($(#[$doc])* #[must_use] pub fn $name(mut self, $name: $type) -> Self {
                self.settings.$name = $name;
                self
            })*
        }
    };
}

settings! {
    /// Whether to create the database where there is none. Default: yes.
    create_if_missing: bool = true;
    /// Whether to refuse a directory that already holds a database. Default: no.
    error_if_exists: bool = false;
    /// Memory for blocks of tables, bytes. Default 64 MiB; 0 turns the cache off.
    cache_bytes: usize = 64 << 20;
    /// Size at which a memtable is sealed and flushed, bytes. Default 64 MiB; 64 KiB to 4 GiB - 64 MiB
    /// (4 KiB and up for tests).
    write_buffer_bytes: usize = 64 << 20;
    /// Sealed memtables that may wait for their flush before writers wait too. Default 2; at least 1.
    max_sealed_memtables: usize = 2;
    /// How the blocks of the last level are compressed. Default LZ4.
    compression: Compression = Compression::Lz4;
    /// How the blocks of the levels above the last are compressed. Default LZ4 as well: it costs less
    /// than writing and reading the bytes that it saves.
    upper_compression: Compression = Compression::Lz4;
    /// The kind of filter of a table. Default: a blocked Bloom filter.
    filter: FilterKind = FilterKind::Blocked;
    /// Filter memory per key, bits. Default 10; 0 turns filters off; at most 64.
    filter_bits_per_key: f64 = 10.0;
    /// The shape that compaction keeps. Default: lazy-leveled.
    compaction_shape: CompactionShape = CompactionShape::LazyLeveled;
    /// Threads for compactions; one more flushes. Default 2; 1 to 64.
    background_threads: usize = 2;
    /// Parts that one compaction may be split into. Default 2; 1 to 64.
    max_subcompactions: usize = 2;
    /// The durability of writes that name none. Default [`Durability::Sync`].
    default_durability: Durability = Durability::Sync;
    /// What the log may hold before memtables are flushed for its sake, bytes. Default 512 MiB; at
    /// least 64 KiB.
    wal_size_limit_bytes: u64 = 512 << 20;
    /// The size of one log segment, bytes. Default 16 MiB (an eighth of a smaller log limit); 16 KiB to
    /// 1 GiB.
    wal_segment_bytes: u64 = 16 << 20;
    /// The size of a data block before compression, bytes. Default 4096; 256 to 1 MiB.
    block_bytes: usize = 4096;
    /// The size at which compaction begins a new table, bytes. Default 64 MiB; at least 4 KiB.
    target_file_bytes: u64 = 64 << 20;
    /// Flush runs that gather before they are merged. Default 4; 1 to 64.
    level0_runs: usize = 4;
    /// How many times larger each level is than the one above (leveled). Default 10; 2 to 64.
    size_ratio: usize = 10;
    /// Runs that gather in a tier before they are merged (tiered, lazy-leveled). Default 4; 2 to 64.
    tier_runs: usize = 4;
    /// Tables kept open at once. Default 512; at least 4.
    max_open_files: usize = 512;
    /// The longest key, bytes. Default and upper bound 1 MiB.
    max_key_bytes: usize = limits::MAX_KEY_BYTES;
    /// The longest value, bytes. Default and upper bound 1 GiB.
    max_value_bytes: usize = limits::MAX_VALUE_BYTES;
    /// The size of a manifest, bytes: it is replaced by a snapshot of what it says when it is full.
    /// Default 4 MiB; at least 4 KiB.
    manifest_bytes: u64 = 4 << 20;
    /// The structure of memtables.
    memtable: MemtableKind = MemtableKind::default();
    /// What to do about a damaged log. Default: refuse.
    recovery: RecoveryPolicy = RecoveryPolicy::Strict;
}

/// How to open a database: a builder with a documented default for everything.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let dir = tempfile::tempdir().unwrap();
/// let db = esker::Options::new()
///     .cache_bytes(256 << 20)
///     .default_durability(esker::Durability::Buffered)
///     .open(dir.path())?;
/// db.put("key", "value")?;
/// db.close()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) settings: Settings,
    pub(crate) file_system: Option<Arc<dyn FileSystem>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Option<Arc<dyn Executor>>,
    pub(crate) backup_directory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// All defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            settings: Settings::defaults(),
            file_system: None,
            clock: Arc::new(SystemClock::new()),
            executor: None,
            backup_directory: None,
        }
    }

    /// Runs on another file system than the operating system's: a simulated disk, for instance.
    #[must_use]
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = Some(file_system);
        self
    }

    /// Keeps backups in this directory, on another disk for instance, as synced copies. Default: in the
    /// directory `backups` of the database, as hard links. A directory is for one database.
    #[must_use]
    pub fn backup_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.backup_directory = Some(directory.into());
        self
    }

    /// Takes the time from another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Runs background jobs elsewhere than on threads of the database's own: one at a time in an
    /// order that a seed decides, for instance, so that a simulation can be run again. An executor
    /// serves one open database.
    #[doc(hidden)]
    #[must_use]
    pub fn executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.executor = Some(executor);
        self
    }

    /// Opens the database in `directory`, creating it if that is allowed and needed.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of their bounds, `NotFound` and `Locked` as the names say,
    /// `Corruption` where what is there is damaged, `Io` and `NoSpace` from the file system.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Db> {
        open::on_disk(self, directory.as_ref())
    }

    /// Opens a database that lives in memory and goes with its last handle.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of their bounds.
    pub fn open_in_memory(self) -> Result<Db> {
        open::in_memory(self)
    }

    /// Opens the database in `directory` without writing a byte; all writes answer `ReadOnly`.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_read_only(self, directory: impl AsRef<Path>) -> Result<Db> {
        open::read_only(self, directory.as_ref())
    }

    /// Checks every bound and settles what depends on something else.
    pub(crate) fn settle(&self) -> Result<Settings> {
        let mut settings = self.settings.clone();
        let s = &mut settings;
        let bounded = [
            (
                "write_buffer_bytes",
                s.write_buffer_bytes as u64,
                4 << 10,
                (4 << 30) - (64 << 20),
            ),
            ("max_sealed_memtables", s.max_sealed_memtables as u64, 1, 64),
            ("background_threads", s.background_threads as u64, 1, 64),
            ("max_subcompactions", s.max_subcompactions as u64, 1, 64),
            (
                "wal_size_limit_bytes",
                s.wal_size_limit_bytes,
                64 << 10,
                1 << 50,
            ),
            ("wal_segment_bytes", s.wal_segment_bytes, 16 << 10, 1 << 30),
            ("manifest_bytes", s.manifest_bytes, 4 << 10, 1 << 30),
            ("block_bytes", s.block_bytes as u64, 256, 1 << 20),
            ("target_file_bytes", s.target_file_bytes, 4 << 10, 1 << 40),
            ("level0_runs", s.level0_runs as u64, 1, 64),
            ("size_ratio", s.size_ratio as u64, 2, 64),
            ("tier_runs", s.tier_runs as u64, 2, 64),
            ("max_open_files", s.max_open_files as u64, 4, 1 << 20),
            (
                "max_key_bytes",
                s.max_key_bytes as u64,
                1,
                limits::MAX_KEY_BYTES as u64,
            ),
            (
                "max_value_bytes",
                s.max_value_bytes as u64,
                0,
                limits::MAX_VALUE_BYTES as u64,
            ),
        ];
        for (name, value, least, most) in bounded {
            if value < least || value > most {
                let sentence = format!("option {name} is {value}; it must be {least} to {most}");
                return Err(Error::invalid_argument(sentence));
            }
        }
        if !(0.0..=64.0).contains(&s.filter_bits_per_key) {
            return Err(Error::invalid_argument(
                "option filter_bits_per_key must be 0 to 64",
            ));
        }
        s.wal_segment_bytes = s
            .wal_segment_bytes
            .min((s.wal_size_limit_bytes / 8).max(16 << 10));
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::ErrorKind;

    #[test]
    fn out_of_bounds_is_refused_with_the_name_of_the_option() {
        let cases = [
            (Options::new().write_buffer_bytes(1), "write_buffer_bytes"),
            (Options::new().background_threads(0), "background_threads"),
            (
                Options::new().filter_bits_per_key(f64::NAN),
                "filter_bits_per_key",
            ),
            (Options::new().max_key_bytes(usize::MAX), "max_key_bytes"),
            (Options::new().block_bytes(3), "block_bytes"),
        ];
        for (options, name) in cases {
            let error = options.open_in_memory().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn segments_are_small_enough_for_the_limit_to_mean_something() {
        let settings = Options::new()
            .wal_size_limit_bytes(10 << 20)
            .settle()
            .unwrap();
        assert!(settings.wal_segment_bytes() * 8 <= 10 << 20);
    }
}

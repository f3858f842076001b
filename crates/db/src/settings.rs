//! Every option of a database in one table: its type, default, unit and bounds, and whether it may
//! change while the database is open.
//!
//! Invariants: what is in force is within its bounds and free of contradictions; it is settled before
//! a byte is written, and a change is settled as a whole before any part of it counts. An option that
//! may not change has no setter in [`RuntimeOptions`], so that the compiler refuses the attempt.
//! Hot paths read single options without a lock; [`Settings`] is a consistent copy of them all.
//! Called by `options` (the builder), by `open`, and by whoever acts on an option.

use crate::keyspace_options::KeyspaceOptions;
use crate::option_text::{Text, parsed};
use crate::option_word::Word;
use crate::options::{Durability, Options, RecoveryPolicy};
use arc_swap::ArcSwap;
use esker_base::limits;
use esker_base::sync::Mutex;
use esker_base::{Error, ErrorKind, Result};
use esker_compaction::CompactionShape;
use esker_memtable::MemtableKind;
use esker_sstable::{Compression, FilterKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) mod budget;

macro_rules! settings {
    (
        fixed { $($(#[$fixed_doc:meta])* $fixed:ident: $fixed_type:ty = $fixed_default:expr;)* }
        changeable { $($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)* }
        optional { $($(#[$some_doc:meta])* $some:ident: $some_type:ty = $some_default:expr;)* }
    ) => {
        /// How an open database is set up: every option, settled, at one moment. See [`Options`] for
        /// their meaning.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($fixed: $fixed_type,)*
            $($name: $type,)*
            $($some: Option<$some_type>,)*
        }

        impl Settings {
            pub(crate) fn defaults() -> Self {
                Self {
                    $($fixed: $fixed_default,)*
                    $($name: $default,)*
                    $($some: $some_default,)*
                }
            }

            $($(#[$fixed_doc])* #[must_use] #[inline]
            pub fn $fixed(&self) -> $fixed_type { self.$fixed })*
            $($(#[$doc])* #[must_use] #[inline]
            pub fn $name(&self) -> $type { self.$name })*
            $($(#[$some_doc])* #[must_use] #[inline]
            pub fn $some(&self) -> Option<$some_type> { self.$some })*
        }

        impl Options {
            $($(#[$fixed_doc])* #[must_use]
            pub fn $fixed(mut self, $fixed: $fixed_type) -> Self {
                self.given.insert(stringify!($fixed));
                self.settings.$fixed = $fixed;
                self
            })*
            $($(#[$doc])* #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.given.insert(stringify!($name));
                self.settings.$name = $name;
                self
            })*
            $($(#[$some_doc])* #[must_use]
            pub fn $some(mut self, $some: impl Into<Option<$some_type>>) -> Self {
                self.given.insert(stringify!($some));
                self.settings.$some = $some.into();
                self
            })*
        }

        /// Options that may change while a database is open: what is named here changes, the rest
        /// stays. An option that is not here is settled at open for good.
        ///
        /// ```
        /// use esker::{Options, RuntimeOptions};
        /// # fn main() -> esker::Result<()> {
        /// let db = Options::new().open_in_memory()?;
        /// db.set_options(&RuntimeOptions::new().cache_bytes(1 << 20))?;
        /// assert_eq!(db.options().cache_bytes(), 1 << 20);
        /// # Ok(()) }
        /// ```
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct RuntimeOptions {
            $($name: Option<$type>,)*
            $($some: Option<Option<$some_type>>,)*
        }

        impl RuntimeOptions {
            /// Changes nothing yet.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])* #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = Some($name);
                self
            })*
            $($(#[$some_doc])* #[must_use]
            pub fn $some(mut self, $some: impl Into<Option<$some_type>>) -> Self {
                self.$some = Some($some.into());
                self
            })*

            fn apply(&self, settings: &mut Settings) {
                $(if let Some(value) = self.$name { settings.$name = value; })*
                $(if let Some(value) = self.$some { settings.$some = value; })*
            }

            fn names(&self) -> BTreeSet<&'static str> {
                let mut names = BTreeSet::new();
                $(if self.$name.is_some() { names.insert(stringify!($name)); })*
                $(if self.$some.is_some() { names.insert(stringify!($some)); })*
                names
            }

            /// Names an option by its name in [`Options`] and its value as text: what a shell or a
            /// configuration file has. Sizes are plain numbers of bytes, times are numbers of
            /// milliseconds, and `none` stands for what is not set.
            ///
            /// # Errors
            /// `Unsupported` for an option that cannot change while the database is open,
            /// `InvalidArgument` for a name that is no option's and for a text that is no value of it.
            pub fn set_by_name(&mut self, name: &str, text: &str) -> Result<()> {
                match name {
                    $(stringify!($name) => self.$name = Some(parsed::<$type>(name, text)?),)*
                    $(stringify!($some) => {
                        self.$some = Some(parsed::<Option<$some_type>>(name, text)?);
                    })*
                    $(stringify!($fixed) => return Err(cannot_change(name)),)*
                    _ => return Err(Error::invalid_argument(format!("no option is called {name:?}"))),
                }
                Ok(())
            }
        }

        impl Settings {
            /// Every option with its value as text, in the order of their names: those that
            /// [`RuntimeOptions::set_by_name`] takes, and those that are settled for good.
            #[must_use]
            pub fn to_text(&self) -> Vec<(&'static str, String)> {
                let mut all = vec![
                    $((stringify!($fixed), format!("{:?}", self.$fixed).to_lowercase()),)*
                    $((stringify!($name), <$type as Text>::print(&self.$name)),)*
                    $((stringify!($some), <Option<$some_type> as Text>::print(&self.$some)),)*
                ];
                all.sort_unstable();
                all
            }
        }

        #[derive(Debug)]
        struct Words {
            $($name: AtomicU64,)*
            $($some: AtomicU64,)*
        }

        /// The settings in force: single options for the hot paths, and a copy of all.
        #[derive(Debug)]
        pub(crate) struct LiveSettings {
            fixed: Settings,
            words: Words,
            current: ArcSwap<Settings>,
            /// Held while they change.
            changing: Mutex<()>,
        }

        impl LiveSettings {
            pub(crate) fn new(settings: Settings) -> Self {
                Self {
                    words: Words {
                        $($name: AtomicU64::new(settings.$name.to_word()),)*
                        $($some: AtomicU64::new(settings.$some.to_word()),)*
                    },
                    current: ArcSwap::from_pointee(settings.clone()),
                    changing: Mutex::new(()),
                    fixed: settings,
                }
            }

            fn store(&self, settings: Settings) {
                $(self.words.$name.store(settings.$name.to_word(), Ordering::Relaxed);)*
                $(self.words.$some.store(settings.$some.to_word(), Ordering::Relaxed);)*
                self.current.store(Arc::new(settings));
            }

            $(#[allow(dead_code)] #[inline]
            pub(crate) fn $fixed(&self) -> $fixed_type { self.fixed.$fixed })*
            $(#[allow(dead_code)] #[inline]
            pub(crate) fn $name(&self) -> $type {
                <$type as Word>::from_word(self.words.$name.load(Ordering::Relaxed))
            })*
            $(#[allow(dead_code)] #[inline]
            pub(crate) fn $some(&self) -> Option<$some_type> {
                Word::from_word(self.words.$some.load(Ordering::Relaxed))
            })*
        }
    };
}

settings! {
    fixed {
        /// Whether to create the database where there is none. Default: yes.
        create_if_missing: bool = true;
        /// Whether to refuse a directory that already holds a database. Default: no.
        error_if_exists: bool = false;
        /// Whether log segments that are not needed any more are copied into an archive before they go,
        /// for restores to any moment ([`Db::restore_to_point`](crate::Db::restore_to_point)). Writes then
        /// carry their time into the log, every 100 ms at most. Where the archive cannot be written, the
        /// log is kept, and grows. Default: no. Refused in memory.
        wal_archive: bool = false;
        /// Threads for compactions; one more flushes. Default 2; 1 to 64.
        background_threads: usize = 2;
        /// The size of a manifest, bytes: it is replaced by a snapshot of what it says when it is full.
        /// Default 4 MiB; 4 KiB to 1 GiB.
        manifest_bytes: u64 = 4 << 20;
        /// What the engine may take of memory, bytes: memtables, cached blocks, indexes and filters of open
        /// tables, and what merges, reads and batches hold meanwhile. Default 0: no budget, and each is
        /// bounded by its own option; otherwise 32 MiB to 1 PiB. Options that ask for more than their
        /// share give way: three eighths are for memtables of all keyspaces (a log of half that, since an
        /// open reads it into them), as much for blocks and open tables; no batch is larger than a
        /// sixteenth, no value than a hundred and twenty-eighth, and no key than a quarter of that. What a
        /// snapshot or an iterator keeps of memtables that have been flushed counts as memtables until it
        /// is dropped, and each scan under way holds a block of each sorted run beside that. For databases on disk; one in memory has [`Options::memory_limit_bytes`].
        memory_budget_bytes: u64 = 0;
        /// The structure of memtables.
        memtable: MemtableKind = MemtableKind::default();
        /// What to do about a damaged log. Default: refuse.
        recovery: RecoveryPolicy = RecoveryPolicy::Strict;
    }
    changeable {
        /// Memory for blocks of tables, bytes. Default 64 MiB; 0 turns the cache off.
        cache_bytes: usize = 64 << 20;
        /// Size at which a memtable is sealed and flushed, bytes. Default 64 MiB; 64 KiB to 4 GiB - 64 MiB
        /// (4 KiB and up for tests). A keyspace may have its own.
        write_buffer_bytes: usize = 64 << 20;
        /// Sealed memtables that may wait for their flush before writers wait too. Default 2; 1 to 64.
        max_sealed_memtables: usize = 2;
        /// How the blocks of the last level are compressed. Default LZ4. For tables to be written; a
        /// keyspace may have its own.
        compression: Compression = Compression::Lz4;
        /// How the blocks of the levels above the last are compressed. Default LZ4 as well: it costs less
        /// than writing and reading the bytes that it saves. For tables to be written; a keyspace may
        /// have its own.
        upper_compression: Compression = Compression::Lz4;
        /// The kind of filter of a table. Default: a blocked Bloom filter. For tables to be written; a
        /// keyspace may have its own.
        filter: FilterKind = FilterKind::Blocked;
        /// Filter memory per key, bits. Default 10; 0 turns filters off; at most 64. For tables to be
        /// written; a keyspace may have its own.
        filter_bits_per_key: f64 = 10.0;
        /// The shape that compaction keeps. Default: lazy-leveled. A keyspace may have its own.
        compaction_shape: CompactionShape = CompactionShape::LazyLeveled;
        /// Parts that one compaction may be split into. Default 2; 1 to 64.
        max_subcompactions: usize = 2;
        /// The durability of writes that name none. Default [`Durability::Sync`].
        default_durability: Durability = Durability::Sync;
        /// What the log may hold before memtables are flushed for its sake, bytes. Default 512 MiB; 64 KiB
        /// to 1 PiB.
        wal_size_limit_bytes: u64 = 512 << 20;
        /// What is kept of the log for change cursors ([`Db::create_change_cursor`](crate::Db::create_change_cursor))
        /// that have not acknowledged it, bytes, beside the log that the database needs itself. Default
        /// 1 GiB; at most 1 EiB, and 0 keeps nothing. Beyond it the oldest segments go, and cursors that
        /// needed them say `Lagged`. Looked at when segments are archived.
        change_retention_bytes: u64 = 1 << 30;
        /// The size of one log segment, bytes. Default 16 MiB (an eighth of a smaller log limit); 16 KiB to
        /// 1 GiB, and not more than the log limit. For segments to be begun.
        wal_segment_bytes: u64 = 16 << 20;
        /// The size of a data block before compression, bytes. Default 4096; 256 to 1 MiB. For tables to
        /// be written; a keyspace may have its own.
        block_bytes: usize = 4096;
        /// The size at which compaction begins a new table, bytes. Default 64 MiB; 4 KiB to 1 TiB, and not
        /// less than a block. A keyspace may have its own.
        target_file_bytes: u64 = 64 << 20;
        /// Flush runs that gather before they are merged. Default 4; 1 to 64. A keyspace may have its own.
        level0_runs: usize = 4;
        /// How many times larger each level is than the one above (leveled). Default 10; 2 to 64. A
        /// keyspace may have its own.
        size_ratio: usize = 10;
        /// Runs that gather in a tier before they are merged (tiered, lazy-leveled). Default 4; 2 to 64. A
        /// keyspace may have its own.
        tier_runs: usize = 4;
        /// Tables kept open at once, never more than half of the files that the process may have open.
        /// Default 512; 4 to 1,048,576.
        max_open_files: usize = 512;
        /// Values of so many bytes or more are kept apart from their keys, in tables of values, so that
        /// compactions need not write them again and again. Default 0: none is; else 1 to 1 GiB. For
        /// tables to be written: what is there stays readable either way. A keyspace may have its own.
        value_separation_threshold_bytes: usize = 0;
        /// The share of a table of values that may be garbage before what is still needed of it is
        /// written elsewhere and it goes; as much may lie above older values that it replaces. Default
        /// 0.5; 0.05 to 0.95. Smaller ones take less space and write more. A keyspace may have its own.
        value_garbage_ratio: f64 = 0.5;
        /// The longest key that may be written, bytes. Default and upper bound 1 MiB. Longer ones that are
        /// there stay readable.
        max_key_bytes: usize = limits::MAX_KEY_BYTES;
        /// The longest value that may be written, bytes. Default and upper bound 1 GiB. Longer ones that
        /// are there stay readable.
        max_value_bytes: usize = limits::MAX_VALUE_BYTES;
    }
    optional {
        /// The time to live of writes that name none, in keyspaces that have no default of their own; whole
        /// milliseconds, rounded up. Default: none, they do not expire. It decides what the data mean, so
        /// that it is **persisted**: an open that leaves it out finds it again, and one that asks for
        /// another is refused. [`Db::set_options`](crate::Db::set_options) changes it.
        default_ttl: Duration = None;
        /// What an in-memory database may take, bytes: memtables, tables and cache together. Default: no
        /// limit; at least 1 MiB. Writes that would go beyond seven eighths of it, after everything that
        /// can be reclaimed was, answer `LimitExceeded`; deletes always work, and free memory. The last
        /// eighth is for merges. Where they are not asked for, the cache takes a sixteenth of it,
        /// a memtable an eighth and a table a sixteenth at most. Refused for a database on disk.
        memory_limit_bytes: u64 = None;
        /// What the archive of the log may hold, bytes: the oldest segments go first. Default: no limit.
        /// Looked at when segments are archived.
        wal_archive_limit_bytes: u64 = None;
        /// How long the archive of the log keeps a segment. Default: for ever. Looked at when segments are
        /// archived.
        wal_archive_max_age: Duration = None;
        /// How often expired keys are removed in the background; whole milliseconds, rounded up, at least
        /// one. Default a minute; `None`: only [`Db::cleanup_expired`](crate::Db::cleanup_expired) and
        /// compactions remove them. They are invisible from the instant they expire, in any case.
        ttl_cleanup_interval: Duration = Some(Duration::from_secs(60));
    }
}

#[cold]
fn cannot_change(name: &str) -> Error {
    let sentence = format!(
        "the option {name} cannot change while the database is open; reopen it with another value"
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

/// The least and the most of the options that are plain numbers.
fn bounded(s: &Settings) -> [(&'static str, u64, u64, u64); 18] {
    [
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
        (
            "change_retention_bytes",
            s.change_retention_bytes,
            0,
            1 << 60,
        ),
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
        ("cache_bytes", s.cache_bytes as u64, 0, 1 << 50),
        (
            "value_separation_threshold_bytes",
            s.value_separation_threshold_bytes as u64,
            0,
            1 << 30,
        ),
    ]
}

impl Settings {
    /// Checks every bound, refuses contradictions, and settles what depends on something else.
    /// `given` names the options that somebody asked for; the others give way.
    pub(crate) fn settle(mut self, given: &BTreeSet<&'static str>) -> Result<Self> {
        for (name, value, least, most) in bounded(&self) {
            if value < least || value > most {
                let sentence = format!("option {name} is {value}; it must be {least} to {most}");
                return Err(Error::invalid_argument(sentence));
            }
        }
        if !(0.0..=64.0).contains(&self.filter_bits_per_key) {
            let sentence = "option filter_bits_per_key must be 0 to 64";
            return Err(Error::invalid_argument(sentence));
        }
        if !(0.05..=0.95).contains(&self.value_garbage_ratio) {
            let sentence = "option value_garbage_ratio must be 0.05 to 0.95";
            return Err(Error::invalid_argument(sentence));
        }
        // As it will be found again: in whole milliseconds.
        self.default_ttl = Word::from_word(self.default_ttl.to_word());
        self.ttl_cleanup_interval = Word::from_word(self.ttl_cleanup_interval.to_word());
        if self.ttl_cleanup_interval == Some(Duration::ZERO) {
            let sentence =
                "option ttl_cleanup_interval is 0; it must be a millisecond or more, or none";
            return Err(Error::invalid_argument(sentence));
        }
        self.refuse_contradictions(given)?;
        self.keep_within_budget();
        self.wal_segment_bytes = self
            .wal_segment_bytes
            .min((self.wal_size_limit_bytes / 8).max(16 << 10));
        if !given.contains("target_file_bytes") {
            self.target_file_bytes = self.target_file_bytes.max(self.block_bytes as u64);
        }
        Ok(self)
    }

    /// As [`Settings::settle`], for a database in memory: what only a disk needs is left out where it
    /// was not asked for.
    pub(crate) fn settle_in_memory(mut self, given: &BTreeSet<&'static str>) -> Result<Self> {
        if self.wal_archive {
            let sentence = "option wal_archive is for databases on disk: one in memory has no log";
            return Err(Error::invalid_argument(sentence));
        }
        if self.memory_budget_bytes != 0 {
            let sentence = "option memory_budget_bytes is for databases on disk; what one in memory takes \
                            is bounded by memory_limit_bytes";
            return Err(Error::invalid_argument(sentence));
        }
        let free = |name: &str| !given.contains(name);
        // A table is in memory already: reading it would only unpack it into more of that.
        if free("compression") {
            self.compression = Compression::None;
        }
        if free("upper_compression") {
            self.upper_compression = Compression::None;
        }
        if free("manifest_bytes") {
            self.manifest_bytes = 64 << 10;
        }
        if let Some(limit) = self.memory_limit_bytes {
            let part = |of: u64| (limit / of).max(4 << 10);
            let part_bytes = |of: u64| usize::try_from(part(of)).unwrap_or(usize::MAX);
            if free("cache_bytes") {
                self.cache_bytes = self.cache_bytes.min(part_bytes(16));
            }
            if free("write_buffer_bytes") {
                self.write_buffer_bytes = self.write_buffer_bytes.min(part_bytes(8));
            }
            if free("target_file_bytes") {
                self.target_file_bytes = self.target_file_bytes.min(part(16));
            }
        }
        self.settle(given)
    }

    /// As [`Settings::settle`], for a database on disk.
    pub(crate) fn settle_on_disk(mut self, given: &BTreeSet<&'static str>) -> Result<Self> {
        if self.memory_limit_bytes.is_some() {
            let sentence = "option memory_limit_bytes is for databases in memory; what one on disk takes \
                            is bounded by memory_budget_bytes";
            return Err(Error::invalid_argument(sentence));
        }
        self.use_budget(given);
        self.settle(given)
    }

    fn refuse_contradictions(&self, given: &BTreeSet<&'static str>) -> Result<()> {
        let refuse = |sentence: String| Err(Error::invalid_argument(sentence));
        if self.error_if_exists && !self.create_if_missing {
            return refuse(
                "options error_if_exists and create_if_missing(false) contradict each other: \
                 no directory could be opened"
                    .into(),
            );
        }
        if given.contains("wal_segment_bytes") && self.wal_segment_bytes > self.wal_size_limit_bytes
        {
            return refuse(format!(
                "option wal_segment_bytes is {}, more than the whole log may hold \
                 (wal_size_limit_bytes is {})",
                self.wal_segment_bytes, self.wal_size_limit_bytes
            ));
        }
        let budget = self.memory_budget_bytes;
        if budget != 0 && !(budget::MIN_BUDGET_BYTES..=1 << 50).contains(&budget) {
            let least = budget::MIN_BUDGET_BYTES;
            return refuse(format!(
                "option memory_budget_bytes is {budget}; it must be 0, for none, or {least} to {}",
                1_u64 << 50
            ));
        }
        if let Some(limit) = self.memory_limit_bytes {
            if limit < 1 << 20 {
                return refuse(format!(
                    "option memory_limit_bytes is {limit}; it must be 1 MiB or more"
                ));
            }
            let taken = (self.cache_bytes + self.write_buffer_bytes) as u64;
            if taken >= limit {
                return refuse(format!(
                    "option memory_limit_bytes is {limit}, which leaves nothing beside the cache and one \
                     memtable (cache_bytes is {}, write_buffer_bytes {})",
                    self.cache_bytes, self.write_buffer_bytes
                ));
            }
        }
        if given.contains("target_file_bytes") && self.target_file_bytes < self.block_bytes as u64 {
            return refuse(format!(
                "option target_file_bytes is {}, less than one block (block_bytes is {})",
                self.target_file_bytes, self.block_bytes
            ));
        }
        Ok(())
    }

    /// Takes over what the database persists. `given` names what this open asks for.
    pub(crate) fn adopt(
        mut self,
        persisted: &PersistedSettings,
        given: &BTreeSet<&'static str>,
    ) -> Result<Self> {
        if given.contains("default_ttl") && self.default_ttl != persisted.default_ttl {
            let show = |ttl: Option<Duration>| ttl.map_or("none".into(), |ttl| format!("{ttl:?}"));
            let sentence = format!(
                "option default_ttl is {}, but the database was made with {}: leave it out, or change \
                 it with Db::set_options",
                show(self.default_ttl),
                show(persisted.default_ttl)
            );
            return Err(Error::invalid_argument(sentence));
        }
        self.default_ttl = persisted.default_ttl;
        Ok(self)
    }

    /// What of it the manifest remembers.
    pub(crate) fn persisted(&self) -> PersistedSettings {
        PersistedSettings {
            default_ttl: self.default_ttl,
        }
    }
}

/// Options of the database that every open must agree on: they stand in the manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PersistedSettings {
    pub(crate) default_ttl: Option<Duration>,
}

impl PersistedSettings {
    /// The same fields as those of a keyspace ([`KeyspaceOptions::encode`]). Nothing for all defaults,
    /// so that a database that uses none of them opens in older versions.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self.default_ttl {
            Some(ttl) => KeyspaceOptions::new().default_ttl(ttl).encode(),
            None => Vec::new(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let options = KeyspaceOptions::decode(bytes)?;
        Ok(Self {
            default_ttl: options.own_default_ttl().flatten(),
        })
    }
}

impl LiveSettings {
    /// All settings as they are now.
    pub(crate) fn current(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// Makes a change count, after `persist` has made it durable where it must be.
    pub(crate) fn change(
        &self,
        options: &RuntimeOptions,
        persist: impl FnOnce(&Settings, &Settings) -> Result<()>,
    ) -> Result<Arc<Settings>> {
        let _one_at_a_time = self.changing.lock();
        let before = self.current();
        let mut after = Settings::clone(&before);
        options.apply(&mut after);
        let after = after.settle(&options.names())?;
        persist(&before, &after)?;
        self.store(after);
        Ok(self.current())
    }
}

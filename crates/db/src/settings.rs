//! Every option of a database in one table: its type, default, unit and bounds, and whether it may
//! change while the database is open.
//!
//! Invariants: what is in force is within its bounds and free of contradictions; it is settled before
//! a byte is written, and a change is settled as a whole before any part of it counts. An option that
//! may not change has no setter in [`RuntimeOptions`], so that the compiler refuses the attempt.
//! Hot paths read single options without a lock; [`Settings`] is a consistent copy of them all.
//! Called by `options` (the builder), by `open`, and by whoever acts on an option.

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

pub(crate) use settle::Place;

pub(crate) mod budget;
pub(crate) mod persisted;
mod settle;

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

            /// Sets the option of this name to the value that `text` stands for: what a configuration
            /// file has. Names and texts are those of [`Settings::to_text`]: sizes are plain numbers of
            /// bytes, times are numbers of milliseconds, and `none` stands for what is not set.
            ///
            /// # Errors
            /// `InvalidArgument` for a name that is no option's and for a text that is no value of it.
            /// Bounds are looked at when the database is opened.
            ///
            /// ```
            /// # fn main() -> esker::Result<()> {
            /// let mut options = esker::Options::new();
            /// for line in ["cache_bytes = 1048576", "compaction_shape = leveled"] {
            ///     let (name, text) = line.split_once(" = ").unwrap();
            ///     options = options.set_by_name(name, text)?;
            /// }
            /// let db = options.open_in_memory()?;
            /// assert_eq!(db.options().cache_bytes(), 1 << 20);
            /// # Ok(()) }
            /// ```
            pub fn set_by_name(self, name: &str, text: &str) -> Result<Self> {
                match name {
                    $(stringify!($fixed) => Ok(self.$fixed(parsed(name, text)?)),)*
                    $(stringify!($name) => Ok(self.$name(parsed(name, text)?)),)*
                    $(stringify!($some) => {
                        Ok(self.$some(parsed::<Option<$some_type>>(name, text)?))
                    })*
                    _ => Err(unknown(name)),
                }
            }
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
                    _ => return Err(unknown(name)),
                }
                Ok(())
            }
        }

        impl Settings {
            /// Every option with its value as text, in the order of their names:
            /// [`Options::set_by_name`] takes them all, [`RuntimeOptions::set_by_name`] those that are not
            /// settled for good.
            #[must_use]
            pub fn to_text(&self) -> Vec<(&'static str, String)> {
                let mut all = vec![
                    $((stringify!($fixed), <$fixed_type as Text>::print(&self.$fixed)),)*
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
        /// log is kept, and grows. Default: no. Refused in memory. Not persisted: every open says anew
        /// whether it archives, and what is written by one that does not is a hole in the archive, which
        /// [`Db::validate`](crate::Db::validate) notes and restores across it name (`Gap`).
        wal_archive: bool = false;
        /// Threads for compactions; one more flushes. Default 2; 1 to 64.
        background_threads: usize = 2;
        /// The size of a manifest, bytes: it is replaced by a snapshot of what it says when it is full.
        /// Default 4 MiB; 4 KiB to 1 GiB.
        manifest_bytes: u64 = 4 << 20;
        /// What the engine may take of memory, bytes: memtables, cached blocks, indexes and filters of open
        /// tables, and what merges, reads and batches hold meanwhile. Default 0; 32 MiB to 1 PiB, or 0: no budget, and
        /// each is bounded by its own option. Options that ask for more than their
        /// share give way: three eighths are for memtables of all keyspaces (a log of half that, since an
        /// open reads it into them), as much for blocks and open tables; no batch is larger than a
        /// sixteenth, no value than a hundred and twenty-eighth, and no key than a quarter of that. What a
        /// snapshot or an iterator keeps of memtables that have been flushed counts as memtables until it
        /// is dropped. A scan holds a block of each sorted run: what is placed when blocks that are held and open
        /// tables have all of their share fails with [`LimitExceeded`](crate::ErrorKind::LimitExceeded), and values
        /// that are read come as copies before that. Refused in
        /// memory, where [`Options::memory_limit_bytes`] is the bound.
        memory_budget_bytes: u64 = 0;
        /// The structure of memtables. Default: a B+tree.
        memtable: MemtableKind = MemtableKind::default();
        /// What to do about a damaged log. Default: [`RecoveryPolicy::Strict`], to refuse.
        recovery: RecoveryPolicy = RecoveryPolicy::Strict;
    }
    changeable {
        /// Memory for blocks of tables, bytes. Default 64 MiB; 0 to 1 PiB. 0 turns the cache
        /// off.
        cache_bytes: usize = 64 << 20;
        /// Size at which a memtable is sealed and flushed, bytes. Default 64 MiB; 4 KiB to 4 GiB - 64 MiB.
        /// Under 64 KiB is for tests. A keyspace may have its own.
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
        /// The kind of filter of a table. Default: blocked, a Bloom filter. For tables to be written; a
        /// keyspace may have its own.
        filter: FilterKind = FilterKind::Blocked;
        /// Filter memory per key, bits. Default 10; 0 to 64. 0 turns filters off. For tables to be
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
        /// 1 GiB; 0 to 1 EiB. 0 keeps nothing. Beyond it the oldest segments go, and cursors that
        /// needed them say `Lagged`. Looked at when segments are archived.
        change_retention_bytes: u64 = 1 << 30;
        /// The size of one log segment, bytes. Default 16 MiB; 16 KiB to 1 GiB. It gives way to an
        /// eighth of the log limit, though never below 16 KiB; one above the whole limit is refused. For
        /// segments to be begun.
        wal_segment_bytes: u64 = 16 << 20;
        /// What a data block takes in memory, not compressed, bytes. Default 4 KiB; 256 to 1 MiB. For tables to
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
        /// compactions need not write them again and again. Default 0; 0 to 1 GiB. 0: none is. For
        /// tables to be written: what is there stays readable either way. A keyspace may have its own.
        value_separation_threshold_bytes: usize = 0;
        /// The share of a table of values that may be garbage before what is still needed of it is
        /// written elsewhere and it goes; as much may lie above older values that it replaces. Default
        /// 0.5; 0.05 to 0.95. Smaller ones take less space and write more. A keyspace may have its own.
        value_garbage_ratio: f64 = 0.5;
        /// The longest key that may be written, bytes. Default 1 MiB; 1 to 1 MiB. Longer ones that are
        /// there stay readable.
        max_key_bytes: usize = limits::MAX_KEY_BYTES;
        /// The longest value that may be written, bytes. Default 1 GiB; 0 to 1 GiB. Longer ones that
        /// are there stay readable.
        max_value_bytes: usize = limits::MAX_VALUE_BYTES;
    }
    optional {
        /// The time to live of writes that name none, in keyspaces that have no default of their own; whole
        /// milliseconds, rounded up. Default: none, they do not expire; 0 and up. It decides what the data mean, so
        /// that it is **persisted**: an open that leaves it out finds it again, and one that asks for
        /// another is refused. [`Db::set_options`](crate::Db::set_options) changes it.
        default_ttl: Duration = None;
        /// What an in-memory database may take, bytes: memtables, tables and cache together. Default: none;
        /// 1 MiB and up. Writes that would go beyond seven eighths of it, after everything that
        /// can be reclaimed was, answer `LimitExceeded`; deletes always work, and free memory. The last
        /// eighth is for merges. Where they are not asked for, the cache takes a sixteenth of it,
        /// a memtable an eighth and a table a sixteenth at most. Refused for a database on disk.
        memory_limit_bytes: u64 = None;
        /// What the archive of the log may hold, bytes: the oldest segments go first. Default: none, no
        /// limit; 0 and up. Looked at when segments are archived; counts with [`Options::wal_archive`].
        wal_archive_limit_bytes: u64 = None;
        /// How long the archive of the log keeps a segment; whole milliseconds, rounded up. Default: none,
        /// for ever; 0 and up. Looked at when segments are archived; counts with [`Options::wal_archive`].
        wal_archive_max_age: Duration = None;
        /// How often expired keys are removed in the background; whole milliseconds, rounded up.
        /// Default 60000, a minute; 1 and up. `None`: only [`Db::cleanup_expired`](crate::Db::cleanup_expired) and
        /// compactions remove them. They are invisible from the instant they expire, in any case.
        ttl_cleanup_interval: Duration = Some(Duration::from_secs(60));
    }
}

#[cold]
fn unknown(name: &str) -> Error {
    Error::invalid_argument(format!("no option is called {name:?}"))
}

#[cold]
fn cannot_change(name: &str) -> Error {
    let sentence = format!(
        "the option {name} cannot change while the database is open; reopen it with another value"
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

impl LiveSettings {
    /// All settings as they are now.
    pub(crate) fn current(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// Makes a change of a database in this `place` count, after `persist` has made it durable where it
    /// must be.
    pub(crate) fn change(
        &self,
        place: Place,
        options: &RuntimeOptions,
        persist: impl FnOnce(&Settings, &Settings) -> Result<()>,
    ) -> Result<Arc<Settings>> {
        let _one_at_a_time = self.changing.lock();
        let before = self.current();
        let mut after = Settings::clone(&before);
        options.apply(&mut after);
        after.refuse_misplaced(place)?;
        let after = after.settle(&options.names())?;
        persist(&before, &after)?;
        self.store(after);
        Ok(self.current())
    }
}

//! The value of an option as one word: so that it can be read and changed without a lock, and stored.
//!
//! Invariant: a word made of a value gives the value again. The words of enumerations are on disk, in
//! persisted options of keyspaces: they only grow. Called by `settings` and `keyspace_options`.

use crate::options::Durability;
use esker_compaction::CompactionShape;
use esker_sstable::{Compression, FilterKind};
use std::time::Duration;

/// A value of an option, as one word: so that it can be read and changed without a lock.
pub(crate) trait Word: Copy + PartialEq {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

macro_rules! plain_words {
    ($($type:ty)*) => {
        $(impl Word for $type {
            fn to_word(self) -> u64 { self as u64 }
            fn from_word(word: u64) -> Self { word as $type }
        })*
    };
}

plain_words! { u64 usize }

macro_rules! enum_words {
    ($($type:ident { $($variant:ident = $word:literal)* })*) => {
        $(impl Word for $type {
            fn to_word(self) -> u64 {
                match self { $($type::$variant => $word,)* }
            }
            /// Words come from `to_word`, or were checked by `word_is_known`.
            fn from_word(word: u64) -> Self {
                match word { $($word => $type::$variant,)* _ => $type::default() }
            }
        })*
    };
}

// The numbers of the first three are on disk, in persisted options of keyspaces: they only grow.
enum_words! {
    CompactionShape { Leveled = 0 Tiered = 1 LazyLeveled = 2 }
    Compression { None = 0 Lz4 = 1 }
    FilterKind { None = 0 Blocked = 1 Standard = 2 }
    Durability { Volatile = 0 Buffered = 1 Sync = 2 }
}

impl Word for f64 {
    fn to_word(self) -> u64 {
        self.to_bits()
    }
    fn from_word(word: u64) -> Self {
        Self::from_bits(word)
    }
}

/// What stands for an option that is not set.
const NOTHING: u64 = u64::MAX;

impl Word for Option<u64> {
    fn to_word(self) -> u64 {
        self.unwrap_or(NOTHING)
    }
    fn from_word(word: u64) -> Self {
        Some(word).filter(|&word| word != NOTHING)
    }
}

/// Whole milliseconds, rounded up: what lives for a time lives that long at least.
impl Word for Option<Duration> {
    fn to_word(self) -> u64 {
        self.map_or(NOTHING, |time| millis_of(time).min(NOTHING - 1))
    }
    fn from_word(word: u64) -> Self {
        (word != NOTHING).then(|| Duration::from_millis(word))
    }
}

/// Milliseconds of a time to live, rounded up.
pub(crate) fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

//! The value of an option as text: what a shell or a configuration file has.
//!
//! Invariant: what is printed is parsed again to the same value. Called by `settings`.

use crate::option_word::millis_of;
use crate::options::{Durability, RecoveryPolicy};
use esker_base::{Error, Result};
use esker_compaction::CompactionShape;
use esker_memtable::MemtableKind;
use esker_sstable::{Compression, FilterKind};
use std::time::Duration;

/// A value of an option as text.
pub(crate) trait Text: Sized {
    fn parse(text: &str) -> Option<Self>;
    fn print(&self) -> String;
}

macro_rules! number_texts {
    ($($type:ty)*) => {
        $(impl Text for $type {
            fn parse(text: &str) -> Option<Self> { text.parse().ok() }
            fn print(&self) -> String { self.to_string() }
        })*
    };
}

number_texts! { u64 usize f64 bool }

macro_rules! name_texts {
    ($($type:ident { $($variant:ident = $text:literal)* })*) => {
        $(impl Text for $type {
            fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($type::$variant),)* _ => None }
            }
            fn print(&self) -> String {
                match self { $($type::$variant => $text,)* }.to_string()
            }
        })*
    };
}

name_texts! {
    CompactionShape { Leveled = "leveled" Tiered = "tiered" LazyLeveled = "lazy-leveled" }
    Compression { None = "none" Lz4 = "lz4" }
    FilterKind { None = "none" Blocked = "blocked" Standard = "standard" }
    MemtableKind { SkipList = "skip-list" BTree = "b-tree" }
    RecoveryPolicy {
        Strict = "strict" DiscardAfterDamage = "discard-after-damage" Salvage = "salvage"
    }
    Durability { Volatile = "volatile" Buffered = "buffered" Sync = "sync" }
}

impl Text for Option<u64> {
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(None);
        }
        text.parse().ok().map(Some)
    }
    fn print(&self) -> String {
        self.map_or("none".to_string(), |number| number.to_string())
    }
}

impl Text for Option<Duration> {
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(None);
        }
        text.parse()
            .ok()
            .map(|millis| Some(Duration::from_millis(millis)))
    }
    fn print(&self) -> String {
        self.map_or("none".to_string(), |time| millis_of(time).to_string())
    }
}

/// The value of the option `name` that `text` stands for.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn parsed<T: Text>(name: &str, text: &str) -> Result<T> {
    T::parse(text).ok_or_else(|| {
        Error::invalid_argument(format!("{text:?} is no value of the option {name}"))
    })
}

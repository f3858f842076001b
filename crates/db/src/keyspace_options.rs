//! Options of one keyspace: what it was given, what is in force, and the bytes that the manifest
//! keeps of it.
//!
//! Invariants: an option that a keyspace was given is persisted and counts until it is changed; one
//! that it was not given follows the database's options, also when those change. The encoding only
//! grows (I11): numbers are never used twice, and a field that an older version may ignore says so.

use crate::option_word::{Word, millis_of};
use crate::settings::LiveSettings;
use esker_base::coding::{Decoder, put_bytes, put_varint, varint_bytes};
use esker_base::{Error, ErrorKind, Result};
use esker_compaction::CompactionShape;
use esker_sstable::{Compression, FilterKind};
use std::time::Duration;

/// The key of the default time to live: a reader that does not know it must not write here.
const DEFAULT_TTL: u64 = 1;
/// The key of the merge operator's name: who does not know it could fold operands with another one.
const MERGE_OPERATOR: u64 = 13;

macro_rules! keyspace_options {
    ($($(#[$doc:meta])* $number:literal $name:ident: $type:ty;)*) => {
        /// Options of a keyspace: for [`Db::keyspace_with`](crate::Db::keyspace_with), which creates one
        /// with them, and for [`Keyspace::set_options`](crate::Keyspace::set_options). They are
        /// persisted; what is not given follows the database's [`Options`](crate::Options), whose
        /// bounds hold here too.
        ///
        /// ```
        /// use esker::{Compression, KeyspaceOptions, Options};
        /// use std::time::Duration;
        /// # fn main() -> esker::Result<()> {
        /// let db = Options::new().open_in_memory()?;
        /// let options = KeyspaceOptions::new()
        ///     .compression(Compression::None)
        ///     .default_ttl(Duration::from_secs(3600));
        /// let sessions = db.keyspace_with("sessions", &options)?;
        /// sessions.put("s1", "Ada")?;
        /// assert!(sessions.ttl("s1")?.is_some());
        /// assert_eq!(sessions.options().compression(), Compression::None);
        /// # Ok(()) }
        /// ```
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct KeyspaceOptions {
            $($name: Option<$type>,)*
            default_ttl: Option<Option<Duration>>,
            /// The name of the operator that operands were written with. The engine's to set.
            merge_operator: Option<String>,
        }

        impl KeyspaceOptions {
            /// Follows the database in everything.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])* #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = Some($name);
                self
            })*

            /// The time to live of writes that name none; `None`: they do not expire, whatever the
            /// database's default is. Whole milliseconds, rounded up. It begins when the write is
            /// committed (a bulk load's: when it begins), and applies to every put of the keyspace, in
            /// batches, transactions and bulk loads too.
            #[must_use]
            pub fn default_ttl(mut self, default_ttl: impl Into<Option<Duration>>) -> Self {
                let ttl: Option<Duration> = default_ttl.into();
                self.default_ttl = Some(Word::from_word(ttl.to_word()));
                self
            }

            /// These options, and those of `other` where these say nothing.
            #[must_use]
            pub(crate) fn over(&self, other: &Self) -> Self {
                Self {
                    $($name: self.$name.or(other.$name),)*
                    default_ttl: self.default_ttl.or(other.default_ttl),
                    merge_operator: self.merge_operator.clone().or_else(|| other.merge_operator.clone()),
                }
            }

            /// The options in force beside the database's.
            pub(crate) fn settled(&self, database: &LiveSettings) -> KeyspaceSettings {
                KeyspaceSettings {
                    $($name: self.$name.unwrap_or_else(|| database.$name()),)*
                    default_ttl: self.default_ttl.unwrap_or_else(|| database.default_ttl()),
                    merge_operator: self.merge_operator.clone(),
                }
            }

            /// Whether everything that is given here is in force.
            ///
            /// # Errors
            /// `InvalidArgument` that names the first difference.
            pub(crate) fn check_agrees(&self, name: &str, settings: &KeyspaceSettings) -> Result<()> {
                $(if self.$name.is_some_and(|asked| asked != settings.$name) {
                    let (asked, known) = (&self.$name, &settings.$name);
                    return Err(disagrees(name, stringify!($name), asked, &Some(known)));
                })*
                if self.default_ttl.is_some_and(|asked| asked != settings.default_ttl) {
                    let (asked, known) = (&self.default_ttl, &Some(settings.default_ttl));
                    return Err(disagrees(name, "default_ttl", asked, known));
                }
                Ok(())
            }

            /// The bytes that the manifest keeps: `docs/format/manifest.md`.
            pub(crate) fn encode(&self) -> Vec<u8> {
                let mut out = Vec::new();
                if let Some(ttl) = self.default_ttl {
                    put_varint(&mut out, DEFAULT_TTL << 1);
                    match ttl {
                        Some(ttl) => put_number(&mut out, millis_of(ttl)),
                        None => put_bytes(&mut out, &[]),
                    }
                }
                let mut numbers = Vec::new();
                $(if let Some(value) = self.$name {
                    numbers.push(($number, value.to_word()));
                })*
                // Fields ascend by number: those of numbers stand on both sides of the name.
                let (before, after): (Vec<_>, Vec<_>) =
                    numbers.into_iter().partition(|(number, _)| *number < MERGE_OPERATOR);
                let put = |out: &mut Vec<u8>, fields: Vec<(u64, u64)>| {
                    for (number, word) in fields {
                        put_varint(out, number << 1 | 1);
                        put_number(out, word);
                    }
                };
                put(&mut out, before);
                if let Some(name) = &self.merge_operator {
                    put_varint(&mut out, MERGE_OPERATOR << 1);
                    put_bytes(&mut out, name.as_bytes());
                }
                put(&mut out, after);
                out
            }

            /// Reads what [`KeyspaceOptions::encode`] wrote.
            ///
            /// # Errors
            /// `Corruption` for bytes that are no options, `Unsupported` for options that need a
            /// later version.
            pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
                let mut options = Self::default();
                let mut decoder = Decoder::new(bytes);
                let mut previous = None;
                while !decoder.is_empty() {
                    let key = decoder.varint()?;
                    let field = decoder.bytes()?;
                    let (number, skippable) = (key >> 1, key & 1 == 1);
                    if previous.is_some_and(|previous| number <= previous) {
                        return Err(Error::corruption("the options of a keyspace do not ascend"));
                    }
                    previous = Some(number);
                    match number {
                        DEFAULT_TTL if field.is_empty() => options.default_ttl = Some(None),
                        DEFAULT_TTL => {
                            let millis = number_of(field)?;
                            options.default_ttl = Some(Some(Duration::from_millis(millis)));
                        }
                        $($number => {
                            let word = number_of(field)?;
                            let value = <$type as Word>::from_word(word);
                            // A value of a later version: the database's own default takes its place.
                            let known = value.to_word() == word;
                            options.$name = known.then_some(value);
                        })*
                        MERGE_OPERATOR => options.merge_operator = Some(name_of(field)?),
                        _ if skippable => {}
                        _ => {
                            let sentence = format!(
                                "a keyspace has the option {number}, which this version must know"
                            );
                            return Err(Error::new(ErrorKind::Unsupported, sentence));
                        }
                    }
                }
                options.check().map_err(|error| Error::corruption(error.to_string()))?;
                Ok(options)
            }
        }

        /// The options that are in force in a keyspace: its own, and the database's where it has none.
        #[derive(Clone, Debug, PartialEq)]
        pub struct KeyspaceSettings {
            $($name: $type,)*
            default_ttl: Option<Duration>,
            merge_operator: Option<String>,
        }

        impl KeyspaceSettings {
            $($(#[$doc])* #[must_use]
            pub fn $name(&self) -> $type { self.$name })*

            /// The time to live of writes that name none.
            #[must_use]
            pub fn default_ttl(&self) -> Option<Duration> { self.default_ttl }

            /// The name of the merge operator that the keyspace's operands were written with; `None`
            /// before the first of them. Every open must give it this one.
            #[must_use]
            pub fn merge_operator(&self) -> Option<&str> { self.merge_operator.as_deref() }
        }
    };
}

keyspace_options! {
    /// The shape that compaction keeps.
    2 compaction_shape: CompactionShape;
    /// How the blocks of the last level are compressed, from the next table on.
    3 compression: Compression;
    /// How the blocks of the levels above the last are compressed, from the next table on.
    4 upper_compression: Compression;
    /// The kind of filter, from the next table on.
    5 filter: FilterKind;
    /// Filter memory per key, bits, from the next table on; 0 to 64.
    6 filter_bits_per_key: f64;
    /// What a data block takes in memory, not compressed, bytes, from the next table on; 256 to 1 MiB.
    7 block_bytes: usize;
    /// The size at which compaction begins a new table, bytes; 4 KiB to 1 TiB.
    8 target_file_bytes: u64;
    /// The size at which a memtable is sealed and flushed, bytes; 4 KiB to 4 GiB - 64 MiB.
    9 write_buffer_bytes: usize;
    /// Flush runs that gather before they are merged; 1 to 64.
    10 level0_runs: usize;
    /// How many times larger each level is than the one above (leveled); 2 to 64.
    11 size_ratio: usize;
    /// Runs that gather in a tier before they are merged (tiered, lazy-leveled); 2 to 64.
    12 tier_runs: usize;
    /// Values of so many bytes or more are kept apart from their keys, from the next table on; 0 to 1 GiB.
    /// 0: none.
    14 value_separation_threshold_bytes: usize;
    /// The share of a table of values that may be garbage before it is emptied; 0.05 to 0.95.
    15 value_garbage_ratio: f64;
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    put_varint(out, varint_bytes(number) as u64);
    put_varint(out, number);
}

fn number_of(field: &[u8]) -> Result<u64> {
    let mut decoder = Decoder::new(field);
    let number = decoder.varint()?;
    if decoder.is_empty() {
        Ok(number)
    } else {
        Err(Error::corruption(
            "a number among a keyspace's options has bytes after it",
        ))
    }
}

fn name_of(field: &[u8]) -> Result<String> {
    let name = std::str::from_utf8(field)
        .ok()
        .filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::corruption("a merge operator's name is no text"))?;
    Ok(name.to_string())
}

fn disagrees(
    keyspace: &str,
    option: &str,
    asked: &dyn std::fmt::Debug,
    known: &dyn std::fmt::Debug,
) -> Error {
    Error::invalid_argument(format!(
        "the keyspace {keyspace:?} exists with another {option}: {known:?}, where {asked:?} was asked \
         for; leave the option out, or change it with Keyspace::set_options"
    ))
}

impl KeyspaceOptions {
    pub(crate) fn own_default_ttl(&self) -> Option<Option<Duration>> {
        self.default_ttl
    }

    pub(crate) fn own_merge_operator(&self) -> Option<&str> {
        self.merge_operator.as_deref()
    }

    pub(crate) fn with_merge_operator(mut self, name: &str) -> Self {
        self.merge_operator = Some(name.to_string());
        self
    }

    pub(crate) fn own_write_buffer_bytes(&self) -> Option<usize> {
        self.write_buffer_bytes
    }

    /// Whether every bound of an option of the database holds.
    ///
    /// # Errors
    /// `InvalidArgument` that names the option and its bounds.
    pub(crate) fn check(&self) -> Result<()> {
        let bounded = [
            (
                "block_bytes",
                self.block_bytes.map(|n| n as u64),
                256,
                1 << 20,
            ),
            (
                "target_file_bytes",
                self.target_file_bytes,
                4 << 10,
                1 << 40,
            ),
            (
                "write_buffer_bytes",
                self.write_buffer_bytes.map(|n| n as u64),
                4 << 10,
                (4 << 30) - (64 << 20),
            ),
            ("level0_runs", self.level0_runs.map(|n| n as u64), 1, 64),
            ("size_ratio", self.size_ratio.map(|n| n as u64), 2, 64),
            ("tier_runs", self.tier_runs.map(|n| n as u64), 2, 64),
            (
                "value_separation_threshold_bytes",
                self.value_separation_threshold_bytes.map(|n| n as u64),
                0,
                1 << 30,
            ),
        ];
        for (name, value, least, most) in bounded {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                let sentence =
                    format!("keyspace option {name} is {value}; it must be {least} to {most}");
                return Err(Error::invalid_argument(sentence));
            }
        }
        let shares = [
            ("filter_bits_per_key", self.filter_bits_per_key, 0.0, 64.0),
            ("value_garbage_ratio", self.value_garbage_ratio, 0.05, 0.95),
        ];
        for (name, value, least, most) in shares {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                let sentence =
                    format!("keyspace option {name} is {value}; it must be {least} to {most}");
                return Err(Error::invalid_argument(sentence));
            }
        }
        if let (Some(block), Some(file)) = (self.block_bytes, self.target_file_bytes)
            && file < block as u64
        {
            return Err(Error::invalid_argument(format!(
                "keyspace option target_file_bytes is {file}, less than one block (block_bytes is {block})"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> KeyspaceOptions {
        KeyspaceOptions::new()
            .compaction_shape(CompactionShape::Tiered)
            .compression(Compression::None)
            .upper_compression(Compression::Lz4)
            .filter(FilterKind::Standard)
            .filter_bits_per_key(7.5)
            .block_bytes(1 << 14)
            .target_file_bytes(1 << 22)
            .write_buffer_bytes(1 << 21)
            .level0_runs(3)
            .size_ratio(8)
            .tier_runs(6)
            .value_separation_threshold_bytes(4096)
            .value_garbage_ratio(0.25)
            .default_ttl(Duration::from_millis(1500))
            .with_merge_operator("esker.counter")
    }

    #[test]
    fn options_round_trip_and_nothing_is_no_bytes() {
        for options in [
            full(),
            KeyspaceOptions::new(),
            KeyspaceOptions::new().default_ttl(None),
        ] {
            assert_eq!(KeyspaceOptions::decode(&options.encode()).unwrap(), options);
        }
        assert!(KeyspaceOptions::new().encode().is_empty());
    }

    #[test]
    fn the_bytes_are_those_of_the_format_page() {
        let options = KeyspaceOptions::new()
            .compaction_shape(CompactionShape::Tiered)
            .block_bytes(8192)
            .default_ttl(Duration::from_secs(60));
        assert_eq!(
            options.encode(),
            [
                0x02, 0x03, 0xe0, 0xd4, 0x03, 0x05, 0x01, 0x01, 0x0f, 0x02, 0x80, 0x40
            ]
        );
    }

    #[test]
    fn unknown_fields_are_skipped_or_refused_as_they_say() {
        let mut bytes = full().encode();
        put_varint(&mut bytes, 900 << 1 | 1);
        put_bytes(&mut bytes, b"later");
        assert_eq!(KeyspaceOptions::decode(&bytes).unwrap(), full());
        put_varint(&mut bytes, 901 << 1);
        put_bytes(&mut bytes, b"needed");
        let error = KeyspaceOptions::decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_value_of_a_later_version_follows_the_database() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, 3 << 1 | 1);
        put_number(&mut bytes, 77);
        assert_eq!(
            KeyspaceOptions::decode(&bytes).unwrap(),
            KeyspaceOptions::new()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_options_or_an_error(bytes: Vec<u8>) {
            let _ = KeyspaceOptions::decode(&bytes);
        }

        #[test]
        fn mutated_options_give_options_or_an_error(at: prop::sample::Index, value: u8) {
            let mut bytes = full().encode();
            let index = at.index(bytes.len());
            bytes[index] = value;
            let _ = KeyspaceOptions::decode(&bytes);
        }
    }
}

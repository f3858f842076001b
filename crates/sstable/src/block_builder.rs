//! Collects the entries of one data block and encodes them in the layout that suits them.
//!
//! Invariant: entries are added in strictly ascending internal-key order (`table_writer` sees to
//! that), so that the first and the last key bound the common prefix of all. Memory is kept from
//! block to block.

use esker_base::Trailer;
use esker_base::internal_key::{TRAILER_BYTES, key_prefix};

use crate::options::BlockLayoutChoice;
use crate::{restart_block, slot_block};

/// Bytes that `a` and `b` have in common at their front.
#[inline]
pub(crate) fn shared_prefix_bytes(a: &[u8], b: &[u8]) -> usize {
    let limit = a.len().min(b.len());
    let mut at = 0;
    while let (Some(x), Some(y)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let difference = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if difference != 0 {
            return at + difference.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < limit && a[at] == b[at] {
        at += 1;
    }
    at
}

/// One record, where the builder keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// The user key.
    pub(crate) key: &'a [u8],
    /// Sequence number and kind.
    pub(crate) trailer: Trailer,
    /// The stored value.
    pub(crate) value: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key_end: usize,
    value_end: usize,
    trailer: Trailer,
}

/// The records of a block that is being built, in order.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    keys: Vec<u8>,
    values: Vec<u8>,
    places: Vec<Place>,
    trailers_differ: bool,
}

impl Entries {
    /// Adds a record.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) {
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        self.trailers_differ |= self
            .places
            .last()
            .is_some_and(|last| last.trailer != trailer);
        self.places.push(Place {
            key_end: self.keys.len(),
            value_end: self.values.len(),
            trailer,
        });
    }

    /// Forgets every record and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.places.clear();
        self.trailers_differ = false;
    }

    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The records in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let (mut key_start, mut value_start) = (0, 0);
        self.places.iter().map(move |place| {
            let key = &self.keys[key_start..place.key_end];
            let value = &self.values[value_start..place.value_end];
            (key_start, value_start) = (place.key_end, place.value_end);
            Entry {
                key,
                trailer: place.trailer,
                value,
            }
        })
    }

    fn first_key(&self) -> &[u8] {
        self.places
            .first()
            .map_or(&[], |first| &self.keys[..first.key_end])
    }

    /// The key of the last record.
    pub(crate) fn last_key(&self) -> &[u8] {
        let start = match self.places.len() {
            0 => return &[],
            1 => 0,
            count => self.places[count - 2].key_end,
        };
        &self.keys[start..]
    }

    /// The trailer of the last record.
    pub(crate) fn last_trailer(&self) -> Option<Trailer> {
        self.places.last().map(|place| place.trailer)
    }

    /// Bytes that all keys have in common at their front.
    pub(crate) fn common_bytes(&self) -> usize {
        shared_prefix_bytes(self.first_key(), self.last_key())
    }

    /// The trailer of all records, if they share one.
    pub(crate) fn uniform_trailer(&self) -> Option<Trailer> {
        if self.trailers_differ {
            None
        } else {
            self.last_trailer()
        }
    }

    /// Whether 8-byte prefixes after the common bytes tell most of the keys apart.
    fn prefixes_discriminate(&self) -> bool {
        let common_bytes = self.common_bytes();
        let (mut keys, mut prefixes) = (0usize, 0usize);
        let mut previous: Option<&[u8]> = None;
        for entry in self.iter() {
            if previous == Some(entry.key) {
                continue;
            }
            let prefix = key_prefix(&entry.key[common_bytes..]);
            keys += 1;
            prefixes += usize::from(
                previous.is_none_or(|previous| key_prefix(&previous[common_bytes..]) != prefix),
            );
            previous = Some(entry.key);
        }
        prefixes * 2 > keys
    }
}

/// Builds data blocks, one after the other.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    entries: Entries,
    layout: BlockLayoutChoice,
}

impl BlockBuilder {
    /// A builder of blocks of this layout.
    pub(crate) fn new(layout: BlockLayoutChoice) -> Self {
        Self {
            entries: Entries::default(),
            layout,
        }
    }

    /// Adds a record.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) {
        self.entries.push(key, trailer, value);
    }

    /// Whether there is no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// About how large the block is once a record of this key and value was added, bytes before
    /// compression.
    #[inline]
    pub(crate) fn bytes_with(&self, key: &[u8], value: &[u8]) -> usize {
        let count = self.entries.len() + 1;
        let common = shared_prefix_bytes(self.entries.first_key(), key);
        // A slot takes 8 bytes of prefix, 2 of offset and 1 of length; the prefix is not repeated.
        let suffixes = (self.entries.keys.len() + key.len()).saturating_sub((common + 8) * count);
        let trailers = if self.entries.trailers_differ {
            TRAILER_BYTES * count
        } else {
            8
        };
        12 + common + 11 * count + suffixes + trailers + self.entries.values.len() + value.len()
    }

    /// The same for a block of this record alone: no block of several of which it is one is smaller.
    pub(crate) fn bytes_alone(key: &[u8], value: &[u8]) -> usize {
        12 + 11 + key.len().saturating_sub(8) + 8 + value.len()
    }

    /// Appends the block to `out` and begins the next one. Call only if not empty.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let slot = match self.layout {
            BlockLayoutChoice::Slot => true,
            BlockLayoutChoice::Restart => false,
            BlockLayoutChoice::Auto => self.entries.prefixes_discriminate(),
        };
        if slot {
            slot_block::encode(&self.entries, out);
        } else {
            restart_block::encode(&self.entries, out);
        }
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_prefixes_at_every_length() {
        for length in 0..40 {
            let mut a = vec![b'a'; length];
            a.push(b'x');
            let mut b = a.clone();
            assert_eq!(shared_prefix_bytes(&a, &b), length + 1);
            b[length] = b'y';
            assert_eq!(shared_prefix_bytes(&a, &b), length);
            assert_eq!(shared_prefix_bytes(&a, &a[..length]), length);
        }
    }

    #[test]
    fn a_record_alone_is_what_the_first_is_said_to_take_and_more_than_that_with_others() {
        let value = [7; 100];
        for key in [
            &b"k"[..],
            b"eight by",
            b"a key of some length",
            b"a key of ",
        ] {
            let alone = BlockBuilder::bytes_alone(key, &value);
            let mut builder = BlockBuilder::new(BlockLayoutChoice::Auto);
            assert_eq!(builder.bytes_with(key, &value), alone);
            builder.add(key, Trailer::from_raw(9), &value);
            assert!(builder.bytes_with(b"l", b"") > alone);
            let mut behind = BlockBuilder::new(BlockLayoutChoice::Auto);
            behind.add(b"a", Trailer::from_raw(9), b"");
            assert!(behind.bytes_with(key, &value) > alone);
        }
    }

    #[test]
    fn the_layout_follows_how_well_prefixes_tell_keys_apart() {
        let cases: [(&str, Vec<String>, u8); 4] = [
            ("numbers", (0..50).map(|i| format!("{i:016}")).collect(), 1),
            ("one key", vec!["same".into(); 50], 1),
            (
                "two hosts",
                (0..50)
                    .map(|i| format!("http://{}example.com/{i:03}", i / 25))
                    .collect(),
                2,
            ),
            ("single", vec!["k".into()], 1),
        ];
        for (name, keys, layout) in cases {
            let mut builder = BlockBuilder::new(BlockLayoutChoice::Auto);
            for (index, key) in keys.iter().enumerate() {
                builder.add(key.as_bytes(), Trailer::from_raw(1000 - index as u64), b"");
            }
            let mut out = Vec::new();
            builder.finish(&mut out);
            assert_eq!(out[0], layout, "{name}");
        }
    }
}

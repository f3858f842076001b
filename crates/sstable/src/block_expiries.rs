//! When the records of each data block expire, in a block of its own beside the index: so that a walk
//! need not read a block in which nothing is of interest to it.
//!
//! ```text
//! earliest expiry of the table varint | entries, one for each data block in order
//! entry: stored bytes of the block << 2 | state varint
//!      | [earliest of the block - earliest of the table varint | latest - earliest varint, unless state is 0]
//! state: 0 nothing in it expires; 1 something does; 2 everything does, and the next block begins
//!        with another key
//! ```
//!
//! Invariant: entries cover the data blocks exactly, one after the other from the start of the file;
//! decoding refuses anything else. A table without an expiring record has none of this. Written by
//! `table_writer`, asked by `table_iter`, read when it is first asked.

use std::sync::Arc;

use esker_base::clock::Clock;
use esker_base::coding::{Decoder, put_varint};
use esker_base::write_batch::split_expiry;
use esker_base::{Error, Result, Trailer, ValueKind};

/// Which blocks a walk need not read. It may meet records of them all the same.
#[derive(Clone, Debug, Default)]
pub enum SkipBlocks {
    /// None.
    #[default]
    None,
    /// Those in which everything has expired by this clock, and tables likewise. For the oldest run
    /// alone: what has expired may hide older records.
    Expired(Arc<dyn Clock>),
    /// Those in which nothing expires at this time, milliseconds since 1970, or before.
    NothingExpired {
        /// The time.
        until: u64,
    },
}

/// What is known of a block in which something expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockExpiry {
    earliest: u64,
    latest: u64,
    /// Everything expires, and the next block begins with another key: its first record is no older
    /// version of this block's last key.
    is_whole: bool,
}

/// Collects what is known of the blocks of a table that is being written.
#[derive(Debug, Default)]
pub(crate) struct BlockExpiriesBuilder {
    blocks: Vec<(u64, Option<BlockExpiry>)>,
    /// The block being filled: its records, and how many of them expire between when and when.
    records: u64,
    expiring: u64,
    earliest: u64,
    latest: u64,
    /// The block that waits for the key after it.
    waiting: Option<BlockExpiry>,
}

impl BlockExpiriesBuilder {
    /// Notes a record of the current block.
    #[inline]
    pub(crate) fn record(&mut self, trailer: Trailer, value: &[u8]) {
        self.records += 1;
        if trailer.kind().is_some_and(ValueKind::expires)
            && let Some((expiry, _)) = split_expiry(value)
        {
            let is_first = self.expiring == 0;
            self.earliest = if is_first {
                expiry
            } else {
                self.earliest.min(expiry)
            };
            self.latest = if is_first {
                expiry
            } else {
                self.latest.max(expiry)
            };
            self.expiring += 1;
        }
    }

    /// The current block is complete.
    pub(crate) fn end_block(&mut self) {
        self.waiting = (self.expiring > 0).then_some(BlockExpiry {
            earliest: self.earliest,
            latest: self.latest,
            is_whole: self.expiring == self.records,
        });
        (self.records, self.expiring) = (0, 0);
    }

    /// The complete block takes `stored_bytes`, and what follows it does or does not begin another key.
    pub(crate) fn add(&mut self, stored_bytes: u64, next_is_another_key: bool) {
        let expiry = self.waiting.take().map(|expiry| BlockExpiry {
            is_whole: expiry.is_whole && next_is_another_key,
            ..expiry
        });
        self.blocks.push((stored_bytes, expiry));
    }

    /// The contents of the block, if anything expires.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let expiries = self.blocks.iter().filter_map(|(_, expiry)| *expiry);
        let base = expiries.map(|expiry| expiry.earliest).min()?;
        let mut out = Vec::new();
        put_varint(&mut out, base);
        for (stored_bytes, expiry) in &self.blocks {
            let state = expiry.map_or(0, |expiry| 1 + u64::from(expiry.is_whole));
            put_varint(&mut out, stored_bytes << 2 | state);
            if let Some(expiry) = expiry {
                put_varint(&mut out, expiry.earliest - base);
                put_varint(&mut out, expiry.latest - expiry.earliest);
            }
        }
        Some(out)
    }
}

/// What is known of the blocks of a table.
#[derive(Debug, Default)]
pub(crate) struct BlockExpiries {
    /// Where each block begins, ascending.
    offsets: Vec<u64>,
    blocks: Vec<Option<BlockExpiry>>,
}

impl BlockExpiries {
    /// Reads the contents of the block; the data blocks end at `data_bytes`.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn decode(bytes: &[u8], data_bytes: u64) -> Result<Self> {
        let damaged =
            || Error::corruption("the expiries of a table's blocks contradict themselves");
        let mut decoder = Decoder::new(bytes);
        let base = decoder.varint()?;
        let mut expiries = Self::default();
        let mut offset = 0u64;
        while !decoder.is_empty() {
            let entry = decoder.varint()?;
            let (stored_bytes, state) = (entry >> 2, entry & 3);
            let expiry = match state {
                0 => None,
                1 | 2 => {
                    let earliest = base.checked_add(decoder.varint()?).ok_or_else(damaged)?;
                    let latest = earliest
                        .checked_add(decoder.varint()?)
                        .ok_or_else(damaged)?;
                    Some(BlockExpiry {
                        earliest,
                        latest,
                        is_whole: state == 2,
                    })
                }
                _ => return Err(damaged()),
            };
            expiries.offsets.push(offset);
            expiries.blocks.push(expiry);
            offset = offset.checked_add(stored_bytes).ok_or_else(damaged)?;
            if stored_bytes == 0 || offset > data_bytes {
                return Err(damaged());
            }
        }
        if offset == data_bytes {
            Ok(expiries)
        } else {
            Err(damaged())
        }
    }

    /// Whether a walk need not read the data block at `offset`.
    pub(crate) fn skips(&self, offset: u64, skip: &SkipBlocks) -> bool {
        let Ok(index) = self.offsets.binary_search(&offset) else {
            return false;
        };
        let expiry = self.blocks[index];
        match skip {
            SkipBlocks::None => false,
            SkipBlocks::Expired(clock) => {
                expiry.is_some_and(|expiry| expiry.is_whole && expiry.latest <= clock.now_millis())
            }
            SkipBlocks::NothingExpired { until } => {
                expiry.is_none_or(|expiry| expiry.earliest > *until)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::clock::ManualClock;
    use proptest::prelude::*;

    fn expiring(at: u64) -> (Trailer, Vec<u8>) {
        (
            Trailer::new(1, ValueKind::ValueWithExpiry),
            at.to_le_bytes().to_vec(),
        )
    }

    /// Blocks of 100, 200 and 300 bytes: everything expires, something does, nothing does.
    fn sample() -> Vec<u8> {
        let mut builder = BlockExpiriesBuilder::default();
        for (bytes, expiries, lasting) in
            [(100, vec![50, 60], 0), (200, vec![40], 1), (300, vec![], 2)]
        {
            for (trailer, value) in expiries.into_iter().map(expiring) {
                builder.record(trailer, &value);
            }
            for _ in 0..lasting {
                builder.record(Trailer::new(1, ValueKind::Value), b"v");
            }
            builder.end_block();
            builder.add(bytes, true);
        }
        builder.encode().unwrap()
    }

    #[test]
    fn blocks_are_skipped_where_nothing_in_them_is_wanted() {
        let expiries = BlockExpiries::decode(&sample(), 600).unwrap();
        let clock = Arc::new(ManualClock::at_millis(59));
        let expired = SkipBlocks::Expired(clock.clone());
        let skipped = |skip: &SkipBlocks| [0, 100, 300].map(|offset| expiries.skips(offset, skip));
        assert_eq!(skipped(&expired), [false, false, false]);
        clock.set_wall_millis(60);
        assert_eq!(skipped(&expired), [true, false, false]);
        let until = |until| SkipBlocks::NothingExpired { until };
        assert_eq!(skipped(&until(39)), [true, true, true]);
        assert_eq!(skipped(&until(40)), [true, false, true]);
        assert_eq!(skipped(&until(50)), [false, false, true]);
        assert_eq!(skipped(&SkipBlocks::None), [false, false, false]);
        assert!(!expiries.skips(50, &expired), "no block begins there");
    }

    #[test]
    fn a_block_whose_last_key_goes_on_is_never_skipped() {
        let mut builder = BlockExpiriesBuilder::default();
        let (trailer, value) = expiring(5);
        builder.record(trailer, &value);
        builder.end_block();
        builder.add(10, false);
        let expiries = BlockExpiries::decode(&builder.encode().unwrap(), 10).unwrap();
        let clock = Arc::new(ManualClock::at_millis(1000));
        assert!(!expiries.skips(0, &SkipBlocks::Expired(clock)));
    }

    #[test]
    fn a_table_in_which_nothing_expires_has_none() {
        let mut builder = BlockExpiriesBuilder::default();
        builder.record(Trailer::new(1, ValueKind::Value), b"v");
        builder.end_block();
        builder.add(10, true);
        assert_eq!(builder.encode(), None);
    }

    #[test]
    fn what_does_not_cover_the_data_is_damage() {
        assert!(BlockExpiries::decode(&sample(), 599).is_err());
        assert!(BlockExpiries::decode(&sample(), 601).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_expiries_or_an_error(bytes: Vec<u8>, data_bytes: u64) {
            let _ = BlockExpiries::decode(&bytes, data_bytes);
        }
    }
}

//! Where a table comes from: what a lost manifest would have known of it beside its description.
//!
//! Invariant: a table says which tables it was made to replace, and which others the manifest had
//! already let go of while their files might still be there. So whoever has nothing but tables can
//! tell those that are the database from those that were, and never brings back what a merge had
//! deleted. Written by `TableWriter`, read by repair alone; a table without it is as good as any
//! while there is a manifest. Specified in `docs/format/table.md`.

use esker_base::coding::{Decoder, put_bytes, put_varint};
use esker_base::filename::FileNumber;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, Result, SequenceNumber};

use crate::table::Table;

/// The tag among the properties: odd, so that a reader who does not know it skips it.
pub(crate) const TAG_ORIGIN: u64 = 207;

/// How a table came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Making {
    /// From memtables, or from a bulk load: all records up to some sequence number.
    #[default]
    Flush,
    /// From the tables that it replaces.
    Merge,
    /// By a bulk load: its records are newer than every write that was visible when it began.
    Load {
        /// The last visible sequence number when the load began.
        after: SequenceNumber,
    },
    /// Beside tables of any making: it holds values that their pointers point to, and nothing counts
    /// of it that none of them points to.
    Values,
}

/// Where a table comes from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// Its name.
    pub name: String,
    /// How the table came to be.
    pub making: Making,
    /// The number of the first table that was written by the same flush or load.
    pub first: FileNumber,
    /// How many were written before this one.
    pub part: u64,
    /// Whether it is the last of them.
    pub is_last: bool,
    /// All writes of the keyspace up to this sequence number are in tables, those that were written
    /// together with this one included.
    pub flushed: SequenceNumber,
    /// All writes of every keyspace up to this one were in tables before.
    pub floor: SequenceNumber,
    /// The tables that the manifest lets go of in favour of those that were written together.
    pub replaces: Vec<FileNumber>,
    /// Tables that it had let go of before and whose files may be there still.
    pub gone: Vec<FileNumber>,
    /// Bulk-loaded tables that the manifest named, with the sequence number that it gave each.
    pub loads: Vec<(FileNumber, SequenceNumber)>,
}

impl Origin {
    /// The field's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, u64::from(self.keyspace));
        put_bytes(&mut out, self.name.as_bytes());
        let (making, after) = match self.making {
            Making::Flush => (0, 0),
            Making::Merge => (1, 0),
            Making::Load { after } => (2, after),
            Making::Values => (3, 0),
        };
        let numbers = [
            making,
            after,
            self.first,
            self.part,
            u64::from(self.is_last),
            self.flushed,
            self.floor,
        ];
        for number in numbers {
            put_varint(&mut out, number);
        }
        for list in [&self.replaces, &self.gone] {
            put_varint(&mut out, list.len() as u64);
            for number in list {
                put_varint(&mut out, *number);
            }
        }
        put_varint(&mut out, self.loads.len() as u64);
        for (number, sequence) in &self.loads {
            put_varint(&mut out, *number);
            put_varint(&mut out, *sequence);
        }
        out
    }

    /// Reads the field. Bytes of a later version may follow.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let keyspace = decoder.varint_u32()?;
        let name = std::str::from_utf8(decoder.bytes()?)
            .map_err(|_| Error::corruption("the name of a table's keyspace is no text"))?
            .to_owned();
        let (making, after) = (decoder.varint()?, decoder.varint()?);
        let making = match making {
            0 => Making::Flush,
            1 => Making::Merge,
            2 => Making::Load { after },
            3 => Making::Values,
            _ => return Err(Error::corruption("a table was made in an unknown way")),
        };
        let (first, part) = (decoder.varint()?, decoder.varint()?);
        let is_last = decoder.varint()? != 0;
        let (flushed, floor) = (decoder.varint()?, decoder.varint()?);
        let (replaces, gone) = (numbers(&mut decoder)?, numbers(&mut decoder)?);
        let loads = (0..count(&mut decoder)?)
            .map(|_| Ok((decoder.varint()?, decoder.varint()?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            keyspace,
            name,
            making,
            first,
            part,
            is_last,
            flushed,
            floor,
            replaces,
            gone,
            loads,
        })
    }
}

fn numbers(decoder: &mut Decoder<'_>) -> Result<Vec<FileNumber>> {
    (0..count(decoder)?).map(|_| decoder.varint()).collect()
}

/// The length of a list that follows.
fn count(decoder: &mut Decoder<'_>) -> Result<u64> {
    let count = decoder.varint()?;
    // Each takes a byte at least, so that no more is set aside than the input justifies (I10).
    if count > decoder.rest().len() as u64 {
        return Err(Error::corruption(
            "a list of tables is longer than its field",
        ));
    }
    Ok(count)
}

impl Table {
    /// Where the table comes from; `None` where it does not say.
    ///
    /// # Errors
    /// I/O errors and damage of the properties.
    pub fn origin(&self) -> Result<Option<Origin>> {
        let handle = self.footer.properties;
        let contents = self.block_file().read_block(handle)?;
        let placed = |error: Error| error.with_file(self.path()).with_offset(handle.offset);
        among(&contents).map_err(placed)
    }
}

/// The origin among a table's properties, as they are stored.
pub(crate) fn among(properties: &[u8]) -> Result<Option<Origin>> {
    let mut decoder = Decoder::new(properties);
    while !decoder.is_empty() {
        let tag = decoder.varint()?;
        let field = decoder.bytes()?;
        if tag == TAG_ORIGIN {
            return Origin::decode(field).map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Origin {
        Origin {
            keyspace: 300,
            name: "users".to_owned(),
            making: Making::Load { after: 1 << 40 },
            first: 7,
            part: 2,
            is_last: true,
            flushed: 70,
            floor: 60,
            replaces: vec![1, 2, 300],
            gone: vec![9],
            loads: vec![(5, 1 << 41)],
        }
    }

    #[test]
    fn an_origin_round_trips_and_is_followed_by_what_is_added_later() {
        for making in [
            Making::Flush,
            Making::Merge,
            Making::Values,
            sample().making,
        ] {
            let origin = Origin { making, ..sample() };
            let mut bytes = origin.encode();
            assert_eq!(Origin::decode(&bytes).unwrap(), origin);
            bytes.extend(b"later");
            assert_eq!(Origin::decode(&bytes).unwrap(), origin);
        }
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(Origin::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_origin_or_an_error(bytes: Vec<u8>) {
            let _ = Origin::decode(&bytes);
        }
    }
}

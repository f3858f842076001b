//! What is stored of an index: a record of the catalog keyspace (`docs/format/index.md`).
//!
//! Invariant: the record is written in the same batch as what it says becomes true with. Decoding
//! accepts any bytes (I10); what it does not know is damage, not a guess.

use esker_base::coding::{Decoder, put_bytes, put_varint};
use esker_base::{Error, Result};

const FORMAT: u8 = 1;
const BUILDING: u8 = 1;
const READY: u8 = 2;
const STALE: u8 = 3;

/// Whether an index can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexState {
    /// It holds what was written since it was begun, and the records with keys up to this one.
    Building { done_to: Vec<u8> },
    /// It agrees with the records.
    Ready,
    /// Records were written without it.
    Stale,
}

/// What the catalog says of one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexRecord {
    pub(crate) version: u64,
    pub(crate) is_unique: bool,
    /// The name of the keyspace that holds its entries.
    pub(crate) entries: String,
    pub(crate) state: IndexState,
}

impl IndexRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        put_varint(&mut bytes, self.version);
        bytes.push(u8::from(self.is_unique));
        put_bytes(&mut bytes, self.entries.as_bytes());
        match &self.state {
            IndexState::Building { done_to } => {
                bytes.push(BUILDING);
                put_bytes(&mut bytes, done_to);
            }
            IndexState::Ready => bytes.push(READY),
            IndexState::Stale => bytes.push(STALE),
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        if decoder.u8()? != FORMAT {
            return Err(Error::corruption(
                "the record of an index is of a later format",
            ));
        }
        let version = decoder.varint()?;
        let is_unique = match decoder.u8()? {
            0 => false,
            1 => true,
            _ => return Err(damaged()),
        };
        let entries = std::str::from_utf8(decoder.bytes()?).map_err(|_| damaged())?;
        let entries = entries.to_string();
        let state = match decoder.u8()? {
            BUILDING => IndexState::Building {
                done_to: decoder.bytes()?.to_vec(),
            },
            READY => IndexState::Ready,
            STALE => IndexState::Stale,
            _ => return Err(damaged()),
        };
        if !decoder.is_empty() {
            return Err(damaged());
        }
        Ok(Self {
            version,
            is_unique,
            entries,
            state,
        })
    }
}

#[cold]
fn damaged() -> Error {
    Error::corruption("the record of an index is not what was written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(state: IndexState) -> IndexRecord {
        IndexRecord {
            version: 300,
            is_unique: true,
            entries: "\0esker.index.7".into(),
            state,
        }
    }

    /// The worked example of docs/format/index.md, byte by byte.
    #[test]
    fn the_bytes_are_the_format() {
        let head = b"\x01\xac\x02\x01\x0e\0esker.index.7";
        let building = IndexState::Building {
            done_to: b"k".to_vec(),
        };
        let cases: [(IndexState, &[u8]); 3] = [
            (building, b"\x01\x01k"),
            (IndexState::Ready, b"\x02"),
            (IndexState::Stale, b"\x03"),
        ];
        for (state, tail) in cases {
            let (record, bytes) = (record(state), [head, tail].concat());
            assert_eq!(record.encode(), bytes);
            assert_eq!(IndexRecord::decode(&bytes).unwrap(), record);
            assert!(IndexRecord::decode(&[&bytes[..], b"x"].concat()).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
            if let Ok(record) = IndexRecord::decode(&bytes) {
                prop_assert_eq!(IndexRecord::decode(&record.encode()).unwrap(), record);
            }
        }
    }
}

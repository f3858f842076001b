//! Tagged, length-prefixed fields: the grammar of everything in a MANIFEST record.
//!
//! Layout: `key varint | length varint | payload`, where the key is `number << 1 | skippable`.
//! Invariant: the fields of a message may stand in any order; a reader that does not know a number
//! skips the field if it is skippable and refuses the whole message otherwise (I11).

use esker_base::coding::{Decoder, put_bytes, put_varint};
use esker_base::{Error, ErrorKind, Result};

/// Set in a key: a reader that does not know the number may go on without it.
const SKIPPABLE: u64 = 1;

/// Appends a field that every reader must understand.
pub(crate) fn put_field(out: &mut Vec<u8>, number: u64, payload: &[u8]) {
    put_varint(out, number << 1);
    put_bytes(out, payload);
}

/// Appends a field that older readers may skip.
pub(crate) fn put_skippable_field(out: &mut Vec<u8>, number: u64, payload: &[u8]) {
    put_varint(out, number << 1 | SKIPPABLE);
    put_bytes(out, payload);
}

/// Appends a field whose payload is one varint.
pub(crate) fn put_varint_field(out: &mut Vec<u8>, number: u64, value: u64) {
    let mut payload = Vec::with_capacity(10);
    put_varint(&mut payload, value);
    put_field(out, number, &payload);
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    pub(crate) payload: &'a [u8],
    skippable: bool,
}

impl<'a> Field<'a> {
    /// Reads the next field of a message.
    pub(crate) fn read(decoder: &mut Decoder<'a>) -> Result<Self> {
        let key = decoder.varint()?;
        let payload = decoder.bytes()?;
        Ok(Self {
            number: key >> 1,
            payload,
            skippable: key & SKIPPABLE != 0,
        })
    }

    /// The payload as one varint.
    pub(crate) fn varint(&self) -> Result<u64> {
        let mut decoder = Decoder::new(self.payload);
        let value = decoder.varint()?;
        if !decoder.is_empty() {
            return Err(self.malformed());
        }
        Ok(value)
    }

    /// The payload as nothing.
    pub(crate) fn flag(&self) -> Result<bool> {
        if self.payload.is_empty() {
            Ok(true)
        } else {
            Err(self.malformed())
        }
    }

    /// What a reader does that does not know the number.
    pub(crate) fn skip_or_refuse(&self, message: &str) -> Result<()> {
        if self.skippable {
            return Ok(());
        }
        let sentence = format!(
            "field {} of a manifest's {message} needs a later version of esker",
            self.number
        );
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    /// That the payload is not what the number stands for.
    pub(crate) fn malformed(&self) -> Error {
        Error::corruption(format!(
            "field {} of a manifest record is malformed",
            self.number
        ))
    }

    /// Stores the value of a field that may stand in a message once.
    pub(crate) fn set<T>(&self, slot: &mut Option<T>, value: T) -> Result<()> {
        if slot.replace(value).is_some() {
            let message = format!(
                "field {} of a manifest record stands there twice",
                self.number
            );
            return Err(Error::corruption(message));
        }
        Ok(())
    }
}

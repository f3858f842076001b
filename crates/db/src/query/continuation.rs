//! Where a page of rows ended: opaque bytes that a program may keep or give away.
//!
//! Invariant (I10): whatever bytes come back, they continue the query that they are of, or are
//! refused. They hold the last row's place (a key, or an index key with a key) and nothing else.

use esker_base::checksum::checksum;
use esker_base::coding::u64_at;
use esker_base::{Error, Result};

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 17;

/// A place to go on from: [`Rows::continuation`](crate::Rows::continuation),
/// [`Query::after`](crate::Query::after). It stays good while records come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    fingerprint: u64,
    position: Vec<u8>,
}

impl Continuation {
    pub(crate) fn new(fingerprint: u64, position: &[u8]) -> Self {
        Self {
            fingerprint,
            position: position.to_vec(),
        }
    }

    /// The bytes to keep.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&checksum(&self.position, self.fingerprint).to_le_bytes());
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&self.position);
        bytes
    }

    /// What [`Continuation::to_bytes`] gave.
    ///
    /// # Errors
    /// `InvalidArgument` for any other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refused = || Error::invalid_argument("these bytes are no continuation of a query");
        let (Some(&FORMAT), Some(sum), Some(fingerprint)) =
            (bytes.first(), u64_at(bytes, 1), u64_at(bytes, 9))
        else {
            return Err(refused());
        };
        let position = bytes.get(HEAD_BYTES..).unwrap_or_default();
        if position.is_empty() || checksum(position, fingerprint) != sum {
            return Err(refused());
        }
        Ok(Self::new(fingerprint, position))
    }

    /// The place, for the query it is of.
    pub(crate) fn position(&self, fingerprint: u64) -> Result<&[u8]> {
        if self.fingerprint == fingerprint {
            return Ok(&self.position);
        }
        let sentence = "the continuation is of another query";
        Err(Error::invalid_argument(sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_what_was_given_is_taken(fingerprint: u64, position: Vec<u8>, at: prop::sample::Index) {
            prop_assume!(!position.is_empty());
            let continuation = Continuation::new(fingerprint, &position);
            let mut bytes = continuation.to_bytes();
            prop_assert_eq!(&Continuation::from_bytes(&bytes).unwrap(), &continuation);
            prop_assert!(continuation.position(fingerprint.wrapping_add(1)).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            prop_assert!(Continuation::from_bytes(&bytes).is_err());
        }
    }
}

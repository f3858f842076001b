//! Ready merge operators: counters and appends.
//!
//! Invariant: what they refuse is refused for good: an operand of the wrong shape makes the key
//! unreadable until it is written anew, and nothing else.

use esker_base::merge_operator::MergeOperator;
use esker_base::{Error, Result};

pub use esker_base::merge_operator::{Associative, AssociativeMerge};

/// Sums of 64-bit integers: values and operands are 8 bytes, little-endian, two's complement. A key
/// without a value counts from 0. Sums wrap around at the ends, as atomics do.
///
/// ```
/// use esker::merge_operators::Counter;
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().merge_operator("default", Counter).open_in_memory()?;
/// db.merge("stock", Counter::encode(10))?;
/// db.merge("stock", Counter::encode(-3))?;
/// assert_eq!(Counter::decode(&db.get("stock")?.unwrap())?, 7);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter;

impl Counter {
    /// The bytes of a count, or of a change of one.
    #[must_use]
    pub fn encode(count: i64) -> [u8; 8] {
        count.to_le_bytes()
    }

    /// The count that a value holds.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but 8 bytes.
    pub fn decode(value: &[u8]) -> Result<i64> {
        let bytes = value.try_into().map_err(|_| {
            let bytes = value.len();
            Error::invalid_argument(format!("a counter has 8 bytes, not {bytes}"))
        })?;
        Ok(i64::from_le_bytes(bytes))
    }
}

impl MergeOperator for Counter {
    fn name(&self) -> &str {
        "esker.counter"
    }

    fn merge(&self, _key: &[u8], existing: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>> {
        let mut sum = existing.map_or(Ok(0), Self::decode)?;
        for operand in operands {
            sum = sum.wrapping_add(Self::decode(operand)?);
        }
        Ok(Self::encode(sum).to_vec())
    }

    fn combine(&self, _key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        let sum = Self::decode(older)
            .ok()?
            .wrapping_add(Self::decode(newer).ok()?);
        Some(Self::encode(sum).to_vec())
    }
}

/// Writes operands behind one another, with a separator between them.
///
/// ```
/// use esker::merge_operators::Append;
/// # fn main() -> esker::Result<()> {
/// let options = esker::Options::new().merge_operator("default", Append::new(", "));
/// let db = options.open_in_memory()?;
/// db.merge("tags", "red")?;
/// db.merge("tags", "round")?;
/// assert_eq!(db.get("tags")?.as_deref(), Some(&b"red, round"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    separator: Vec<u8>,
    name: String,
}

impl Append {
    /// An operator that writes `separator` between what is appended; it may be empty.
    #[must_use]
    pub fn new(separator: impl AsRef<[u8]>) -> Self {
        let separator = separator.as_ref();
        Self {
            separator: separator.to_vec(),
            name: format!("esker.append({})", separator.escape_ascii()),
        }
    }
}

impl Default for Append {
    fn default() -> Self {
        Self::new([])
    }
}

impl MergeOperator for Append {
    fn name(&self) -> &str {
        &self.name
    }

    fn merge(&self, _key: &[u8], existing: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>> {
        let parts: Vec<&[u8]> = existing
            .into_iter()
            .chain(operands.iter().copied())
            .collect();
        Ok(parts.join(self.separator.as_slice()))
    }

    fn combine(&self, _key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        Some([older, newer].join(self.separator.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn combining_first_changes_nothing(
            existing in proptest::option::of(any::<i64>()),
            changes in proptest::collection::vec(any::<i64>(), 2..6),
        ) {
            let encoded: Vec<_> = changes.iter().map(|change| Counter::encode(*change)).collect();
            let operands: Vec<&[u8]> = encoded.iter().map(|bytes| &bytes[..]).collect();
            let existing = existing.map(Counter::encode);
            let existing = existing.as_ref().map(|bytes| &bytes[..]);
            for operator in [&Counter as &dyn MergeOperator, &Append::new("-")] {
                let apart = operator.merge(b"k", existing, &operands).unwrap();
                let first = operator.combine(b"k", operands[0], operands[1]).unwrap();
                let fewer = [&[first.as_slice()], &operands[2..]].concat();
                prop_assert_eq!(apart, operator.merge(b"k", existing, &fewer).unwrap());
            }
        }
    }

    #[test]
    fn a_counter_refuses_what_is_none() {
        let error = Counter.merge(b"k", Some(b"text"), &[&Counter::encode(1)]);
        assert!(error.unwrap_err().to_string().contains("not 4"));
        assert_eq!(Counter.combine(b"k", b"", &Counter::encode(1)), None);
    }
}

//! The merge operands of one key down to the value beneath them, and what they make.
//!
//! Invariant: no operand ever lies over a value that had an expiry and was still alive when the
//! operand was written: the commit leader writes down the merged value instead, which keeps that
//! expiry. So a value with an expiry under an operand was gone by then and counts for nothing,
//! whatever the clock says now, and the outcome of a chain is a function of its records alone: a
//! compaction may write it down, and no reader sees a difference. Called by db's read path and by
//! compaction's retention.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};
use crate::internal_key::ValueKind;
use crate::merge_operator::MergeOperator;

/// The operands of one key and the value under them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperandChain {
    /// Oldest first.
    operands: VecDeque<Vec<u8>>,
    base: Option<Vec<u8>>,
    bytes: usize,
}

impl OperandChain {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.operands.clear();
        self.base = None;
        self.bytes = 0;
    }

    /// Whether there is no operand.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operands.is_empty()
    }

    /// Number of operands.
    #[must_use]
    pub fn count(&self) -> usize {
        self.operands.len()
    }

    /// Bytes of the operands.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the operand below those collected so far.
    pub fn push_older(&mut self, operand: &[u8]) {
        self.bytes += operand.len();
        self.operands.push_front(operand.to_vec());
    }

    /// Adds the operand above those collected so far.
    pub fn push_newer(&mut self, operand: &[u8]) {
        self.bytes += operand.len();
        self.operands.push_back(operand.to_vec());
    }

    /// Takes the operands out, newest first.
    pub fn drain_newest_first(&mut self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.bytes = 0;
        self.operands.drain(..).rev()
    }

    /// Notes the record under the operands, as it is stored. Without this nothing lies there.
    pub fn set_base(&mut self, kind: ValueKind, stored: &[u8]) {
        self.base = (kind == ValueKind::Value).then(|| stored.to_vec());
    }

    /// The value that all of it makes. A panic of the operator is its refusal, wherever it is called.
    ///
    /// # Errors
    /// Of the operator, with its name and the key; `InvalidArgument` where it panicked.
    pub fn fold(&self, operator: &dyn MergeOperator, key: &[u8]) -> Result<Vec<u8>> {
        let operands: Vec<&[u8]> = self.operands.iter().map(Vec::as_slice).collect();
        let merge = || operator.merge(key, self.base.as_deref(), &operands);
        match catch_unwind(AssertUnwindSafe(merge)) {
            Ok(merged) => merged.map_err(|error| refused(operator, key, &error)),
            Err(_) => Err(panicked(operator, key)),
        }
    }

    /// One operand that does what all do, if the operator can make it. If it panics, it cannot.
    #[must_use]
    pub fn combined(&self, operator: &dyn MergeOperator, key: &[u8]) -> Option<Vec<u8>> {
        let mut operands = self.operands.iter();
        let first = operands.next()?.clone();
        let combine =
            move || operands.try_fold(first, |older, newer| operator.combine(key, &older, newer));
        catch_unwind(AssertUnwindSafe(combine)).unwrap_or(None)
    }
}

fn refused(operator: &dyn MergeOperator, key: &[u8], error: &Error) -> Error {
    let sentence = format!(
        "the merge operator {:?} refuses what was merged into \"{}\": {error}",
        operator.name(),
        shown(key)
    );
    Error::new(error.kind(), sentence)
}

fn panicked(operator: &dyn MergeOperator, key: &[u8]) -> Error {
    Error::invalid_argument(format!(
        "the merge operator {:?} panicked at what was merged into \"{}\"; the operands stay as they are",
        operator.name(),
        shown(key)
    ))
}

fn shown(key: &[u8]) -> impl fmt::Display + '_ {
    key.get(..64).unwrap_or(key).escape_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::merge_operator::{Associative, AssociativeMerge};

    #[derive(Debug)]
    struct Concat;

    impl AssociativeMerge for Concat {
        fn name(&self) -> &str {
            "concat"
        }
        fn merge(&self, _key: &[u8], left: &[u8], right: &[u8]) -> Result<Vec<u8>> {
            if right == b"!" {
                return Err(Error::invalid_argument("no exclamations"));
            }
            assert_ne!(right, b"?", "no questions");
            Ok([left, right].concat())
        }
    }

    fn chain(oldest_first: &[&str]) -> OperandChain {
        let mut chain = OperandChain::default();
        let middle = oldest_first.len() / 2;
        let (older, newer) = oldest_first.split_at(middle);
        newer.iter().for_each(|o| chain.push_newer(o.as_bytes()));
        older
            .iter()
            .rev()
            .for_each(|o| chain.push_older(o.as_bytes()));
        chain
    }

    #[test]
    fn operands_apply_in_their_order_to_the_value_beneath() {
        let expiring = [&[9; 8][..], b"x"].concat();
        type Base<'a> = Option<(ValueKind, &'a [u8])>;
        let cases: [(Base<'_>, &str); 4] = [
            (None, "abc"),
            (Some((ValueKind::Value, b"v")), "vabc"),
            (Some((ValueKind::Tombstone, b"")), "abc"),
            (Some((ValueKind::ValueWithExpiry, &expiring)), "abc"),
        ];
        for (base, expected) in cases {
            let mut chain = chain(&["a", "b", "c"]);
            if let Some((kind, stored)) = base {
                chain.set_base(kind, stored);
            }
            let folded = chain.fold(&Associative(Concat), b"k").unwrap();
            assert_eq!(folded, expected.as_bytes(), "{base:?}");
        }
    }

    #[test]
    fn combined_operands_do_what_they_did_apart() {
        let concat = Associative(Concat);
        assert_eq!(
            chain(&["a", "b", "c"]).combined(&concat, b"k"),
            Some(b"abc".to_vec())
        );
        assert_eq!(chain(&["a", "!"]).combined(&concat, b"k"), None);
        assert_eq!(OperandChain::default().combined(&concat, b"k"), None);
    }

    #[test]
    fn what_an_operator_refuses_names_it_and_the_key() {
        let error = chain(&["v", "!"])
            .fold(&Associative(Concat), b"the key")
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("concat") && text.contains("the key"),
            "{text}"
        );
        assert!(text.contains("no exclamations"), "{text}");
    }

    #[test]
    fn a_panic_of_the_operator_is_its_refusal() {
        let concat = Associative(Concat);
        let chain = chain(&["v", "?"]);
        let error = chain.fold(&concat, b"the key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let text = error.to_string();
        assert!(
            text.contains("concat") && text.contains("panicked") && text.contains("the key"),
            "{text}"
        );
        assert_eq!(chain.combined(&concat, b"the key"), None);
    }
}

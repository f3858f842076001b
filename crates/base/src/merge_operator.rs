//! What a merge operand means: the seam through which a keyspace's owner says how values and
//! operands combine.
//!
//! Invariant: an operator is a pure function of its arguments. The engine calls it as often as it
//! likes, on any thread, for a reader and again when a compaction writes the outcome down; both must
//! agree. Called by db's read path and by compaction's retention, through
//! [`OperandChain`](crate::operand_chain::OperandChain).

use crate::error::Result;
use std::fmt;

/// Combines what a key holds with what was merged into it.
///
/// A `merge` writes only its operand; the value is made of it when somebody reads, or when a
/// compaction finds the value that lies beneath. What an operator returns must depend on its
/// arguments alone.
///
/// ```
/// use esker_base::merge_operator::MergeOperator;
///
/// /// Keeps the longest.
/// #[derive(Debug)]
/// struct Longest;
///
/// impl MergeOperator for Longest {
///     fn name(&self) -> &str {
///         "longest"
///     }
///     fn merge(
///         &self,
///         _key: &[u8],
///         existing: Option<&[u8]>,
///         operands: &[&[u8]],
///     ) -> esker_base::Result<Vec<u8>> {
///         let all = existing.iter().chain(operands);
///         Ok(all.max_by_key(|bytes| bytes.len()).unwrap_or(&&[][..]).to_vec())
///     }
/// }
/// assert_eq!(Longest.merge(b"k", Some(b"abc"), &[b"a", b"abcd"])?, b"abcd");
/// # Ok::<(), esker_base::Error>(())
/// ```
pub trait MergeOperator: Send + Sync + fmt::Debug + 'static {
    /// Names what the operator does, for errors and logs; not empty.
    fn name(&self) -> &str;

    /// The value that `operands`, oldest first and at least one, make of `existing`: the value
    /// before the first of them, if there was one and it had not expired.
    ///
    /// # Errors
    /// Where the bytes make no sense to it. The reader gets the error; the operands stay as they are.
    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>>;

    /// One operand that does what `older` and then `newer` do, whatever the value beneath; `None`
    /// (which is what this does unless it is overridden) where there is none. Compaction shortens
    /// chains of operands with it whose value lies in tables that it does not read.
    fn combine(&self, key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        let _ = (key, older, newer);
        None
    }
}

/// A merge whose values and operands are the same thing, and where grouping does not matter:
/// `merge(merge(a, b), c) == merge(a, merge(b, c))`. [`Associative`] makes an operator of it; a
/// first operand without a value beneath is the value.
pub trait AssociativeMerge: Send + Sync + fmt::Debug + 'static {
    /// As [`MergeOperator::name`].
    fn name(&self) -> &str;

    /// `left` and then `right`.
    ///
    /// # Errors
    /// As [`MergeOperator::merge`].
    fn merge(&self, key: &[u8], left: &[u8], right: &[u8]) -> Result<Vec<u8>>;
}

/// The operator of an associative merge.
///
/// ```
/// use esker_base::merge_operator::{Associative, AssociativeMerge, MergeOperator};
///
/// #[derive(Debug)]
/// struct Max;
///
/// impl AssociativeMerge for Max {
///     fn name(&self) -> &str {
///         "max"
///     }
///     fn merge(&self, _key: &[u8], left: &[u8], right: &[u8]) -> esker_base::Result<Vec<u8>> {
///         Ok(left.max(right).to_vec())
///     }
/// }
/// assert_eq!(Associative(Max).merge(b"k", None, &[b"a", b"c", b"b"])?, b"c");
/// # Ok::<(), esker_base::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Associative<M>(pub M);

impl<M: AssociativeMerge> MergeOperator for Associative<M> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>> {
        let mut parts = existing.into_iter().chain(operands.iter().copied());
        let first = parts.next().unwrap_or_default().to_vec();
        parts.try_fold(first, |left, right| self.0.merge(key, &left, right))
    }

    fn combine(&self, key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        self.0.merge(key, older, newer).ok()
    }
}

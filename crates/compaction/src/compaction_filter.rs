//! Compaction filters: what a keyspace's owner lets merges drop or change.
//!
//! Invariant (I6): a filter judges only records that no snapshot sees which was open when the merge
//! began, so that none of them moves; a value that it removes hides what is older than it, as a
//! deletion does. It is called by merges,
//! never by flushes, at most once for a record of a merge and any number of times over a value's
//! life. Called by `job`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use esker_base::write_batch::split_expiry;
use esker_base::{SequenceNumber, Trailer, ValueKind};

use crate::retention::{Expiry, RetentionRules, ValueFilter, Verdict};

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterDecision {
    /// It stays.
    Keep,
    /// It goes, as if it had been deleted when it was written.
    Remove,
    /// This takes its place, with the same expiry.
    Replace(Vec<u8>),
}

/// Lets merges drop or change values: old versions of a schema, data past its use, secrets that must
/// not stay on disk.
///
/// When a value meets a filter is up to compaction; `compact` has all of them meet it. Readers see a
/// value until then. A snapshot never loses a value to a compaction that began after it was taken; one
/// that is taken while a compaction runs may, at its end. A filter that panics keeps the value.
///
/// ```
/// use esker_compaction::{CompactionFilter, FilterDecision};
///
/// #[derive(Debug)]
/// struct DropDrafts;
///
/// impl CompactionFilter for DropDrafts {
///     fn filter(&self, key: &[u8], _value: &[u8], _expiry_millis: Option<u64>) -> FilterDecision {
///         if key.starts_with(b"draft:") {
///             FilterDecision::Remove
///         } else {
///             FilterDecision::Keep
///         }
///     }
/// }
/// assert_eq!(DropDrafts.filter(b"draft:1", b"", None), FilterDecision::Remove);
/// ```
pub trait CompactionFilter: Send + Sync + fmt::Debug + 'static {
    /// What becomes of this value, which expires at `expiry_millis` since 1970, if ever. Expired and
    /// deleted values are not asked about; operands are once they have become a value.
    fn filter(&self, key: &[u8], value: &[u8], expiry_millis: Option<u64>) -> FilterDecision;
}

/// A filter, and whom it must not disturb.
#[derive(Clone, Debug)]
pub struct OwnersFilter {
    /// The filter.
    pub filter: Arc<dyn CompactionFilter>,
    /// The newest open snapshot: what it sees is not judged.
    pub newest_snapshot: Option<SequenceNumber>,
}

impl OwnersFilter {
    fn may_judge(&self, trailer: Trailer) -> bool {
        self.newest_snapshot
            .is_none_or(|newest| trailer.sequence() > newest)
    }
}

/// Expiry, and then the owner's filter if there is one.
#[derive(Debug)]
pub(crate) struct Filters<'a> {
    rules: &'a RetentionRules,
    expiry: Expiry,
}

impl<'a> Filters<'a> {
    pub(crate) fn new(rules: &'a RetentionRules) -> Self {
        let expiry = Expiry {
            now_millis: rules.now_millis,
        };
        Self { rules, expiry }
    }
}

impl ValueFilter for Filters<'_> {
    fn wants_values(&self) -> bool {
        self.rules.filter.is_some()
    }

    #[inline]
    fn judge(&mut self, user_key: &[u8], trailer: Trailer, value: &[u8]) -> Verdict {
        let verdict = self.expiry.judge(user_key, trailer, value);
        match &self.rules.filter {
            Some(owners) if verdict == Verdict::Keep && owners.may_judge(trailer) => {
                ask(&*owners.filter, user_key, trailer, value)
            }
            _ => verdict,
        }
    }
}

/// Asks the owner's filter about a value as it is stored.
fn ask(filter: &dyn CompactionFilter, key: &[u8], trailer: Trailer, stored: &[u8]) -> Verdict {
    let expires = trailer.kind() == Some(ValueKind::ValueWithExpiry);
    let (expiry, value) = match split_expiry(stored) {
        Some((expiry, value)) if expires => (Some(expiry), value),
        None if expires => return Verdict::Keep,
        _ => (None, stored),
    };
    let decision = catch_unwind(AssertUnwindSafe(|| filter.filter(key, value, expiry)));
    match decision {
        Ok(FilterDecision::Keep) => Verdict::Keep,
        Ok(FilterDecision::Remove) => Verdict::Remove,
        Ok(FilterDecision::Replace(value)) => Verdict::Replace(match expiry {
            Some(expiry) => [&expiry.to_le_bytes()[..], &value].concat(),
            None => value,
        }),
        Err(_) => {
            tracing::error!(?filter, "a compaction filter panicked; the value stays");
            Verdict::Keep
        }
    }
}

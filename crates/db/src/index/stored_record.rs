//! Records as indexes see them: value and expiry, whether or not they have expired.
//!
//! Invariant: what is read here is the newest state of a keyspace. The caller holds the writer lock,
//! or owns the super-version and sequence that it asks at.

use crate::cursor::{Source, sources};
use crate::merged;
use crate::range_spec::KeyRange;
use crate::read;
use crate::super_version::SuperVersion;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::InternalIterator;
use esker_base::key_bounds::end_is_above;
use esker_base::merging_iterator::MergingIterator;
use esker_base::write_batch::split_expiry;
use esker_base::{Error, Result, SequenceNumber, Trailer, ValueKind};

/// A record's value with its expiry, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    pub(crate) value: Vec<u8>,
    pub(crate) expiry_millis: Option<u64>,
}

impl StoredRecord {
    /// What a stored record of this kind holds; `None` for a tombstone.
    pub(crate) fn of(kind: Option<ValueKind>, stored: &[u8]) -> Result<Option<Self>> {
        match kind {
            Some(ValueKind::Value) => Ok(Some(Self {
                value: stored.to_vec(),
                expiry_millis: None,
            })),
            Some(ValueKind::ValueWithExpiry) => {
                let (expiry, value) = split_expiry(stored).ok_or_else(|| {
                    Error::corruption("an expiring value is shorter than its expiry")
                })?;
                Ok(Some(Self {
                    value: value.to_vec(),
                    expiry_millis: Some(expiry),
                }))
            }
            Some(ValueKind::Tombstone | ValueKind::SingleDelete) => Ok(None),
            kind => Err(Error::corruption(format!(
                "a record of kind {kind:?} stands in an indexed keyspace"
            ))),
        }
    }

    /// Whether readers see it at `now_millis`.
    pub(crate) fn is_live(&self, now_millis: u64) -> bool {
        self.expiry_millis.is_none_or(|expiry| expiry > now_millis)
    }
}

/// The record of `key` at `visible`.
pub(crate) fn find(
    view: &SuperVersion,
    key: &[u8],
    visible: SequenceNumber,
) -> Result<Option<StoredRecord>> {
    match read::find(view, key, visible)? {
        // From before the keyspace had indexes: since then leaders write down what operands make.
        Some(found) if found.is_operand() => {
            let merged = merged::get(view, key, visible, view.operator())?;
            Ok(merged.map(|value| StoredRecord {
                value: value.to_vec(),
                expiry_millis: None,
            }))
        }
        Some(found) => StoredRecord::of(found.trailer().kind(), found.stored()),
        None => Ok(None),
    }
}

/// Hands out the keys of `range` that have any record, ascending, until `each` answers `false`.
pub(crate) fn for_each_key(
    view: &SuperVersion,
    range: &KeyRange,
    each: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<()> {
    for_each_key_in(sources(view, 0), range, each)
}

/// As [`for_each_key`], of these sources.
pub(crate) fn for_each_key_in(
    sources: Vec<Source>,
    range: &KeyRange,
    mut each: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let mut merge = MergingIterator::new(sources);
    if range.start().is_empty() {
        merge.seek_to_first()?;
    } else {
        merge.seek(range.start(), Trailer::seek(MAX_SEQUENCE))?;
    }
    let mut last = Vec::new();
    while merge.valid() && end_is_above(range.end(), merge.user_key()) {
        if merge.user_key() != last.as_slice() {
            last.clear();
            last.extend_from_slice(merge.user_key());
            if !each(&last)? {
                return Ok(());
            }
        }
        merge.next()?;
    }
    Ok(())
}

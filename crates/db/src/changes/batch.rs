//! What a feed of changes yields: a committed batch and the operations in it.
//!
//! Invariant: a batch is whole. What it does to hidden keyspaces (indexes) and to keyspaces that are
//! dropped by the time it is read is left out; everything else is there, in the order in which it was
//! written.

use super::keyspace_change::KeyspaceChange;
use crate::engine::Engine;
use crate::index::definition::is_reserved_name;
use esker_base::write_batch::{BatchView, KeyspaceId, split_expiry};
use esker_base::{Result, SequenceNumber, ValueKind};
use std::sync::Arc;

/// A batch that was committed: one `put` or `delete`, a [`WriteBatch`](crate::WriteBatch), or a
/// transaction. Yielded by [`Changes`](crate::Changes).
#[derive(Clone)]
pub struct ChangeBatch {
    payload: Vec<u8>,
    first_sequence: SequenceNumber,
    last_sequence: SequenceNumber,
    committed_millis: Option<u64>,
    /// The keyspaces whose changes are shown.
    names: Vec<(KeyspaceId, Arc<str>)>,
    /// What became of keyspaces since the batch before.
    keyspaces: Vec<KeyspaceChange>,
}

impl ChangeBatch {
    /// Copies a batch of the log; `None` where there is nothing in it that may be shown.
    pub(crate) fn of(
        engine: &Engine,
        batch: &BatchView<'_>,
        payload: &[u8],
        committed_millis: Option<u64>,
        keyspace_changes: Vec<KeyspaceChange>,
    ) -> Result<Option<Self>> {
        let mut names: Vec<(KeyspaceId, Arc<str>)> = Vec::new();
        let mut hidden = Vec::new();
        for record in batch.records() {
            let id = record?.keyspace;
            if hidden.contains(&id) || names.iter().any(|(known, _)| *known == id) {
                continue;
            }
            let keyspaces = engine.keyspaces.read();
            let state = keyspaces.by_id.get(&id);
            match state.filter(|state| !is_reserved_name(&state.name)) {
                Some(state) => names.push((id, Arc::from(state.name.as_str()))),
                None => hidden.push(id),
            }
        }
        if names.is_empty() && keyspace_changes.is_empty() {
            return Ok(None);
        }
        let first_sequence = batch.sequence();
        Ok(Some(Self {
            payload: payload.to_vec(),
            first_sequence,
            last_sequence: first_sequence + u64::from(batch.count()) - 1,
            committed_millis,
            names,
            keyspaces: keyspace_changes,
        }))
    }

    /// The sequence number of its first operation. Numbers go up from batch to batch; some stand for
    /// nothing.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The sequence number of its last operation, hidden ones included: the position to begin the next
    /// feed behind, with [`ChangeBatch::last_sequence`] ` + 1`.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The time from which on it was committed, at most 100 ms before it was, milliseconds since 1970;
    /// `None` where the log was not archived then and no cursor followed it.
    #[must_use]
    pub fn committed_millis(&self) -> Option<u64> {
        self.committed_millis
    }

    /// Keyspaces that came and went before it was committed, in their order: a follower does to its own what they
    /// say, and then what [`ChangeBatch::changes`] say. Told where the log was archived or a cursor
    /// followed it. What becomes of keyspaces is told with the first batch behind it, so that a batch may
    /// come for that alone, with nothing else to show.
    #[must_use]
    pub fn keyspaces(&self) -> &[KeyspaceChange] {
        &self.keyspaces
    }

    /// Its operations, in the order in which they were written.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let batch = BatchView::parse(&self.payload);
        let records = batch.map(|batch| batch.records()).into_iter().flatten();
        // It was read once before it was made a batch of.
        let numbered = (self.first_sequence..).zip(records.filter_map(Result::ok));
        numbered.filter_map(|(sequence, record)| {
            let (_, keyspace) = self.names.iter().find(|(id, _)| *id == record.keyspace)?;
            Some(Change {
                keyspace,
                sequence,
                operation: Operation::of(record.kind, record.key, record.value),
            })
        })
    }
}

impl std::fmt::Debug for ChangeBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeBatch")
            .field("first_sequence", &self.first_sequence)
            .field("last_sequence", &self.last_sequence)
            .field("committed_millis", &self.committed_millis)
            .field("keyspaces", &self.keyspaces)
            .field("changes", &self.changes().collect::<Vec<_>>())
            .finish()
    }
}

impl PartialEq for ChangeBatch {
    fn eq(&self, other: &Self) -> bool {
        self.first_sequence == other.first_sequence
            && self.last_sequence == other.last_sequence
            && self.changes().eq(other.changes())
    }
}

impl Eq for ChangeBatch {}

/// One operation of a [`ChangeBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    keyspace: &'a str,
    sequence: SequenceNumber,
    operation: Operation<'a>,
}

impl<'a> Change<'a> {
    /// The keyspace that it was written to: `default` for what was written to the database itself.
    #[must_use]
    pub fn keyspace(&self) -> &'a str {
        self.keyspace
    }

    /// Its own sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What was done.
    #[must_use]
    pub fn operation(&self) -> Operation<'a> {
        self.operation
    }
}

/// What a [`Change`] does. Later versions may know more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// `key` has this value.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `key` has this value until it expires.
    PutExpiring {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// From this time on it has none, milliseconds since 1970.
        expires_at_millis: u64,
    },
    /// `key` has no value.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// No key from `start` on, up to but not including `end`, has a value.
    DeleteRange {
        /// The first key.
        start: &'a [u8],
        /// The first key behind the range; `None` where it has no end.
        end: Option<&'a [u8]>,
    },
    /// The keyspace's merge operator changes what `key` has by this operand.
    Merge {
        /// The key.
        key: &'a [u8],
        /// The operand.
        operand: &'a [u8],
    },
}

impl<'a> Operation<'a> {
    fn of(kind: ValueKind, key: &'a [u8], value: &'a [u8]) -> Self {
        match kind {
            ValueKind::ValueWithExpiry => match split_expiry(value) {
                Some((expires_at_millis, value)) => Self::PutExpiring {
                    key,
                    value,
                    expires_at_millis,
                },
                None => Self::Put { key, value },
            },
            ValueKind::Tombstone | ValueKind::SingleDelete => Self::Delete { key },
            ValueKind::RangeDelete => Self::DeleteRange {
                start: key,
                end: (!value.is_empty()).then_some(value),
            },
            ValueKind::MergeOperand => Self::Merge {
                key,
                operand: value,
            },
            // The log has no pointers and no reserved kinds.
            _ => Self::Put { key, value },
        }
    }

    /// The key, or the first key of a range.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Self::Put { key, .. }
            | Self::PutExpiring { key, .. }
            | Self::Delete { key }
            | Self::DeleteRange { start: key, .. }
            | Self::Merge { key, .. } => key,
        }
    }
}

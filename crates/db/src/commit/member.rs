//! One batch on its way through the commit pipeline, and what became of it.
//!
//! Invariant: what its changes to indexes append to the batch is taken back before it is tried again, so
//! that they are never logged twice. Made by whoever writes, used by the commit leader.

use crate::index::maintain::IndexChanges;
use crate::keyspace::KeyspaceState;
use crate::options::Durability;
use crate::validation::Validation;
use esker_base::write_batch::{BatchEncoder, KeyspaceId};
use esker_base::{Error, Result, ValueKind};
use std::sync::Arc;

/// One batch on its way.
pub(crate) struct Member<'a> {
    pub(super) batch: &'a mut BatchEncoder,
    pub(super) keyspaces: &'a [Arc<KeyspaceState>],
    pub(super) durability: Durability,
    /// Hidden keyspaces of indexes that the batch changes as well.
    index_keyspaces: Vec<Arc<KeyspaceState>>,
    /// The batch before these changes were appended: how many records, how many bytes.
    own_records: Option<(u32, usize)>,
    /// What must not have changed since it was read, for a transaction.
    pub(super) validation: Option<&'a Arc<Validation>>,
    pub(super) outcome: Result<()>,
}

impl<'a> Member<'a> {
    pub(crate) fn new(
        batch: &'a mut BatchEncoder,
        keyspaces: &'a [Arc<KeyspaceState>],
        durability: Durability,
        validation: Option<&'a Arc<Validation>>,
    ) -> Self {
        Self {
            batch,
            keyspaces,
            durability,
            index_keyspaces: Vec::new(),
            own_records: None,
            validation,
            outcome: Ok(()),
        }
    }

    /// Whether it writes to a keyspace with indexes.
    #[inline]
    pub(crate) fn is_indexed(&self) -> bool {
        self.keyspaces.iter().any(|state| state.indexes.any())
    }

    pub(crate) fn batch(&self) -> &BatchEncoder {
        self.batch
    }

    /// Takes back what was appended to the batch.
    pub(crate) fn forget_index_changes(&mut self) {
        if let Some((count, encoded_bytes)) = self.own_records.take() {
            self.batch.truncate(count, encoded_bytes);
        }
    }

    /// Appends what the batch changes in indexes. It is logged from then on.
    pub(crate) fn add_index_changes(&mut self, changes: IndexChanges) {
        self.own_records = Some((self.batch.count(), self.batch.encoded_bytes()));
        self.batch.extend(&changes.records);
        self.index_keyspaces = changes.keyspaces;
        self.durability = self.durability.max(Durability::Buffered);
    }

    pub(crate) fn keyspaces(&self) -> &'a [Arc<KeyspaceState>] {
        self.keyspaces
    }

    pub(crate) fn encoded_bytes(&self) -> usize {
        self.batch.encoded_bytes()
    }

    /// Whether it takes away and adds nothing.
    pub(crate) fn has_only_deletes(&self) -> bool {
        let deletes = |kind| matches!(kind, ValueKind::Tombstone | ValueKind::RangeDelete);
        let mut records = self.batch.records();
        records.all(|record| record.is_ok_and(|record| deletes(record.kind)))
    }

    pub(crate) fn refuse(&mut self, error: &Error) {
        self.outcome = Err(error.clone());
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.outcome.is_err()
    }

    /// Commits other records in place of the batch's, as many and for the same keys.
    pub(crate) fn replace_batch(&mut self, batch: BatchEncoder) {
        debug_assert_eq!(batch.count(), self.batch.count());
        *self.batch = batch;
    }

    /// The keyspace of one of its records.
    pub(crate) fn keyspace(&self, id: KeyspaceId) -> Result<&Arc<KeyspaceState>> {
        let mut named = self.keyspaces.iter().chain(&self.index_keyspaces);
        let state = named.find(|state| state.id == id);
        state.ok_or_else(|| Error::invalid_argument("an unnamed keyspace"))
    }
}

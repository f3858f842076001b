//! Which keyspaces keep states that a restore replaced, for the snapshots that still read them.
//!
//! Invariant (I6): a replaced state is kept as long as a snapshot from before its replacement is
//! open, and no longer than until the last of them is dropped.

use crate::engine::Engine;
use crate::keyspace::KeyspaceState;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The keyspaces with replaced states.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    keyspaces: Mutex<Vec<Arc<KeyspaceState>>>,
    /// So that dropping a snapshot costs one load where nothing was ever restored.
    any: AtomicBool,
}

impl Replaced {
    pub(crate) fn add(&self, keyspace: &Arc<KeyspaceState>) {
        self.keyspaces.lock().push(Arc::clone(keyspace));
        self.any.store(true, Ordering::Release);
    }
}

impl Engine {
    /// Forgets every replaced state that no open snapshot needs. Called when a snapshot is dropped
    /// and at the end of a restore.
    #[inline]
    pub(crate) fn forget_replaced(&self) {
        if self.replaced.any.load(Ordering::Acquire) {
            self.forget_unread_states();
        }
    }

    #[cold]
    fn forget_unread_states(&self) {
        let mut keyspaces = self.replaced.keyspaces.lock();
        let oldest = self.snapshots.summary().1.unwrap_or(MAX_SEQUENCE);
        keyspaces.retain(|keyspace| keyspace.forget_replaced(oldest));
        self.replaced
            .any
            .store(!keyspaces.is_empty(), Ordering::Release);
    }
}

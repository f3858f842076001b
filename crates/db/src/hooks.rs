//! What the owner of a keyspace registers for it at open: a merge operator, a compaction filter.
//!
//! Invariant: code cannot be persisted, so that each open names it again; what a keyspace was
//! merged into with one operator must be opened with the same one again, or with one that its owner says
//! was called so before.

use crate::index::definition::IndexDefinitions;
use esker_base::merge_operator::MergeOperator;
use esker_base::{Error, Result};
use esker_compaction::CompactionFilter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is registered for one keyspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyspaceHooks {
    pub(crate) operator: Option<Arc<dyn MergeOperator>>,
    /// Names that the operator had before, in its owner's word: what was merged under them is its own.
    pub(crate) former_names: Vec<String>,
    pub(crate) filter: Option<Arc<dyn CompactionFilter>>,
}

/// What is registered, by the keyspace's name. A keyspace need not exist yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegisteredHooks {
    by_name: BTreeMap<String, KeyspaceHooks>,
}

impl RegisteredHooks {
    pub(crate) fn of(&self, keyspace: &str) -> KeyspaceHooks {
        self.by_name.get(keyspace).cloned().unwrap_or_default()
    }

    pub(crate) fn entry(&mut self, keyspace: String) -> &mut KeyspaceHooks {
        self.by_name.entry(keyspace).or_default()
    }

    /// Fails where a name can be no keyspace's, an operator has none, or a filter would drop records
    /// that indexes lead to.
    pub(crate) fn check(&self, indexes: &IndexDefinitions) -> Result<()> {
        for (keyspace, hooks) in &self.by_name {
            if hooks.filter.is_some() && !indexes.of(keyspace).is_empty() {
                let sentence =
                    format!("keyspace {keyspace:?} has indexes: no filter may change it");
                return Err(Error::invalid_argument(sentence));
            }
            let nameless = hooks.operator.as_ref().is_some_and(|o| o.name().is_empty());
            if keyspace.is_empty() || nameless {
                let sentence = "a merge operator and its keyspace must have a name";
                return Err(Error::invalid_argument(sentence));
            }
            if hooks.operator.is_none() && !hooks.former_names.is_empty() {
                let sentence = format!(
                    "keyspace {keyspace:?} has no merge operator whose name could have changed; give it one \
                     with Options::merge_operator"
                );
                return Err(Error::invalid_argument(sentence));
            }
        }
        Ok(())
    }
}

//! Which merge operator a keyspace has in this open, and which one its operands need.
//!
//! Invariants: the name of the operator is durable in the keyspace's options before its first operand
//! is, so that no open folds operands with another one; what has no operator says in its errors which
//! one is needed. Called by `open` and `restore` (the check), by whoever writes an operand (the
//! record), and by the read path (through [`Operator`](crate::merged::Operator)).

use crate::engine::Engine;
use crate::hooks::RegisteredHooks;
use crate::keyspace::{KeyspaceState, dropped};
use crate::keyspace_options::KeyspaceOptions;
use esker_base::merge_operator::MergeOperator;
use esker_base::{Error, ErrorKind, Result};
use esker_manifest::KeyspaceEdit;
use std::sync::Arc;

/// What makes values of a keyspace's operands, or what is missing to do so.
#[derive(Clone, Debug)]
pub(crate) enum OperatorSlot {
    /// The operator that this open was given.
    Given(Arc<dyn MergeOperator>),
    /// None was given.
    Missing {
        keyspace: String,
        /// The name of the one that operands were written with, if any were.
        needed: Option<String>,
    },
}

impl Default for OperatorSlot {
    fn default() -> Self {
        Self::Missing {
            keyspace: String::new(),
            needed: None,
        }
    }
}

impl OperatorSlot {
    pub(crate) fn new(
        keyspace: &str,
        given: Option<Arc<dyn MergeOperator>>,
        options: &KeyspaceOptions,
    ) -> Arc<Self> {
        Arc::new(match given {
            Some(operator) => Self::Given(operator),
            None => Self::Missing {
                keyspace: keyspace.to_string(),
                needed: options.own_merge_operator().map(str::to_string),
            },
        })
    }

    /// The operator.
    ///
    /// # Errors
    /// `Unsupported` where none was given, with the name of the one that is needed.
    #[inline]
    pub(crate) fn get(&self) -> Result<&dyn MergeOperator> {
        match self {
            Self::Given(operator) => Ok(&**operator),
            Self::Missing { keyspace, needed } => Err(missing(keyspace, needed.as_deref())),
        }
    }
}

#[cold]
fn missing(keyspace: &str, needed: Option<&str>) -> Error {
    let sentence = match needed {
        Some(needed) => format!(
            "keyspace {keyspace:?} was merged into with the operator {needed:?}, and this open has none; \
             give it that one with Options::merge_operator"
        ),
        None => format!(
            "keyspace {keyspace:?} has no merge operator; give it one with Options::merge_operator"
        ),
    };
    Error::new(ErrorKind::Unsupported, sentence)
}

impl RegisteredHooks {
    /// Whether the operator of a keyspace, if one is registered, is the one that its operands were
    /// written with, by its name or by one that it had before.
    ///
    /// # Errors
    /// `InvalidArgument` that names both.
    pub(crate) fn check_operator(&self, keyspace: &str, options: &KeyspaceOptions) -> Result<()> {
        let hooks = self.of(keyspace);
        let (Some(operator), Some(needed)) = (hooks.operator, options.own_merge_operator()) else {
            return Ok(());
        };
        let given = operator.name();
        if given == needed || hooks.former_names.iter().any(|name| name == needed) {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "keyspace {keyspace:?} was merged into with the operator {needed:?}, and {given:?} is given \
             for it; give it {needed:?} with Options::merge_operator, or, if {given:?} is that operator under a \
             new name, say so with Options::renamed_merge_operator"
        )))
    }
}

impl Engine {
    /// Makes sure that the name of the keyspace's operator is durable, before an operand is written.
    ///
    /// # Errors
    /// `Unsupported` where the keyspace has no operator; otherwise of the manifest.
    #[inline]
    pub(crate) fn note_operator(&self, state: &KeyspaceState) -> Result<()> {
        if state.operator_is_noted() {
            return Ok(());
        }
        self.persist_operator(state)
    }

    #[cold]
    fn persist_operator(&self, state: &KeyspaceState) -> Result<()> {
        let name = state.operator().get()?.name();
        self.check_writable()?;
        let _edits_one_at_a_time = state.edit.lock();
        if state.is_dropped() {
            return Err(dropped(&state.name));
        }
        let own = state.own_options();
        if own.own_merge_operator() != Some(name) {
            let next = KeyspaceOptions::clone(&own).with_merge_operator(name);
            self.apply(KeyspaceEdit {
                id: state.id,
                set_options: Some(next.encode()),
                ..KeyspaceEdit::default()
            })?;
            state.set_own_options(next);
        }
        Ok(())
    }
}

//! Which tables make a version, durably: the current versions of all keyspaces, the edits that
//! change them, and the MANIFEST that logs the edits.
//!
//! Invariant (I2): [`VersionSet`] is the only thing that changes a current version, and it changes
//! memory only after the edit is on stable storage (I1). Everything else here is pure data and pure
//! functions over it. What is in a MANIFEST is specified in `docs/format/manifest.md`.
//!
//! | file | concept |
//! |---|---|
//! | [`version`] | one keyspace's tables, by level and run |
//! | [`version_edit`] | a change, and its tagged encoding |
//! | [`version_builder`] | an edit applied to a version |
//! | [`manifest_state`] | everything the manifest says, immutable, cheap to change into the next |
//! | [`manifest_log`] | MANIFEST files and CURRENT |
//! | [`version_set`] | the one writer of truth |
#![forbid(unsafe_code)]

pub mod version;
pub mod version_edit;

pub use version::{Level, Run, Version};
pub use version_edit::{AddedTable, KeyspaceEdit, RecoveryPointEdit, RunPlacement, VersionEdit};

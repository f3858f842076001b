//! Which tables make a version, durably: the current versions of all keyspaces, the edits that
//! change them, and the MANIFEST that logs the edits.
//!
//! Invariant (I2): [`VersionSet`] is the only thing that changes a current version, and it changes
//! memory only after the edit is on stable storage (I1). Everything else here is pure data and pure
//! functions over it. What is in a MANIFEST is specified in `docs/format/manifest.md`.
//!
//! ```
//! use std::{path::Path, sync::Arc};
//! use esker_base::{key_bounds::KeyBounds, table_meta::TableMeta};
//! use esker_manifest::{AddedTable, KeyspaceEdit, ManifestOptions, RunPlacement, VersionEdit, VersionSet};
//! use esker_vfs::{FileSystem, MemFileSystem};
//!
//! let (fs, directory) = (MemFileSystem::new(), Path::new("/db"));
//! fs.create_dir_all(directory).unwrap();
//! let options = ManifestOptions::default();
//! let set = VersionSet::create(Arc::new(fs.clone()), directory, options, VersionEdit::default())?;
//!
//! // What a flush of the default keyspace logs.
//! let number = set.new_file_number();
//! let bounds = KeyBounds::inclusive("a", "z");
//! let meta = Arc::new(TableMeta { number, bounds, entries: 1, ..TableMeta::default() });
//! let added = vec![AddedTable { level: 0, run: RunPlacement::New, meta }];
//! let keyspaces = vec![KeyspaceEdit { id: 0, added, ..KeyspaceEdit::default() }];
//! set.log_and_apply(VersionEdit { keyspaces, ..VersionEdit::default() })?;
//!
//! let again = VersionSet::recover(Arc::new(fs), directory, options)?;
//! assert_eq!(again.current(0).map(|version| version.table_count()), Some(1));
//! # Ok::<(), esker_base::Error>(())
//! ```
//!
//! | file | concept |
//! |---|---|
//! | [`version`] | one keyspace's tables, by level and run |
//! | [`version_edit`] | a change, and its tagged encoding |
//! | [`version_builder`] | an edit applied to a version |
//! | [`live_index`] | where every live table stands |
//! | [`keyspace_map`] | keyspaces by number, cheap to copy |
//! | [`manifest_state`] | everything the manifest says, immutable, cheap to change into the next |
//! | `manifest_log` | the MANIFEST being written, and the next one taking over |
//! | `current_file` | the file that names the live MANIFEST |
//! | `recovery` | from `CURRENT` to the state |
//! | `succession` | which MANIFEST has taken over, told without `CURRENT` |
//! | `creation` | whether a directory may become a database |
//! | [`version_set`] | the one writer of truth |
#![forbid(unsafe_code)]

mod creation;
mod current_file;
pub mod keyspace_map;
pub mod live_index;
mod manifest_log;
pub mod manifest_state;
mod recovery;
mod succession;
mod table_fields;
mod tagged_fields;
pub mod values;
pub mod version;
pub mod version_builder;
pub mod version_edit;
pub mod version_set;

pub use manifest_state::{Keyspace, KeyspaceMeta, ManifestState};
pub use recovery::ManifestReading;
pub use values::{ValueUse, Values};
pub use version::{Level, Run, Version};
pub use version_edit::{
    AddedTable, ChangeCursorEdit, KeyspaceEdit, RecoveryPointEdit, RunPlacement, VersionEdit,
};
pub use version_set::{ManifestOptions, VersionSet};

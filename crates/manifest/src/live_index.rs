//! Where every live table stands, and which names keyspaces have: so that applying an edit searches
//! for nothing.
//!
//! Invariant: it describes exactly the current state, and so no table number is ever live twice
//! and no name is taken twice. The version set (and recovery) notes every edit after applying it.

use std::collections::HashMap;
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;

use crate::version_edit::{RunPlacement, VersionEdit};

/// Where a live table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLocation {
    /// Its keyspace.
    pub keyspace: KeyspaceId,
    /// Its level.
    pub level: usize,
    /// Its run.
    pub run_id: u64,
    /// The table, with the key by which its run is sorted.
    pub meta: Arc<TableMeta>,
}

/// The live tables and names of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveIndex {
    tables: HashMap<FileNumber, TableLocation>,
    names: HashMap<String, KeyspaceId>,
}

impl LiveIndex {
    /// Where a table stands, if it is live.
    #[must_use]
    pub fn table(&self, number: FileNumber) -> Option<&TableLocation> {
        self.tables.get(&number)
    }

    /// The numbers of all live tables.
    pub fn tables(&self) -> impl Iterator<Item = FileNumber> {
        self.tables.keys().copied()
    }

    /// Whether a keyspace has this name.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Notes an edit that was applied.
    pub fn note(&mut self, edit: &VersionEdit) {
        for keyspace in &edit.keyspaces {
            if let Some((name, _)) = &keyspace.create {
                self.names.insert(name.clone(), keyspace.id);
            }
            if keyspace.drop {
                self.names.retain(|_, id| *id != keyspace.id);
                self.tables
                    .retain(|_, location| location.keyspace != keyspace.id);
            }
            for number in &keyspace.removed {
                self.tables.remove(number);
            }
            for added in &keyspace.added {
                let run_id = match added.run {
                    RunPlacement::Existing(id) | RunPlacement::Created(id) => id,
                    RunPlacement::New => continue,
                };
                let meta = Arc::clone(&added.meta);
                let location = TableLocation {
                    keyspace: keyspace.id,
                    level: added.level,
                    run_id,
                    meta,
                };
                self.tables.insert(added.meta.number, location);
            }
        }
    }
}

//! A change of what the manifest says, and its encoding.
//!
//! Invariant: an edit is a list of tagged, length-prefixed fields. A field that this version does
//! not know is skipped where its tag says that it may be, and refused otherwise, so that the format
//! only grows (I11). Decoding never panics, and allocates in proportion to the input (I10).

use std::sync::Arc;

use esker_base::SequenceNumber;
use esker_base::filename::FileNumber;
use esker_base::limits::VALUE_LEVEL;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;

mod encoding;

/// Everything that changes at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionEdit {
    /// No file of this number or above has been named yet. The version set keeps it.
    pub next_file_number: Option<u64>,
    /// No write has a larger sequence number, as far as tables are concerned.
    pub last_sequence: Option<SequenceNumber>,
    /// Log segments below this number are not needed any more.
    pub oldest_segment: Option<FileNumber>,
    /// Log segments that exist from now on: a missing one is damage.
    pub added_segments: Vec<FileNumber>,
    /// Log segments that need not exist any more.
    pub removed_segments: Vec<FileNumber>,
    /// What changes in each keyspace.
    pub keyspaces: Vec<KeyspaceEdit>,
    /// The database's own number, drawn at its creation.
    pub database_id: Option<[u8; 16]>,
    /// The database's persisted options, opaque here.
    pub options: Option<Vec<u8>>,
    /// Named recovery points that come or go.
    pub recovery_points: Vec<RecoveryPointEdit>,
    /// Cursors of the feed of changes that come, move or go.
    pub change_cursors: Vec<ChangeCursorEdit>,
    /// The largest keyspace number ever given out. The version set keeps it.
    pub largest_keyspace: Option<KeyspaceId>,
    /// The latest wall time that was seen, milliseconds since 1970. The version set keeps it.
    pub latest_millis: Option<u64>,
    /// Written by the version set at the end of the snapshot with which each MANIFEST begins.
    pub completes_snapshot: bool,
    /// Written by the version set once `CURRENT` durably names the MANIFEST that this stands in.
    pub is_published: bool,
}

/// What changes in one keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceEdit {
    /// The keyspace.
    pub id: KeyspaceId,
    /// It comes into being with this name and these options (opaque here).
    pub create: Option<(String, Vec<u8>)>,
    /// It and all of its tables go.
    pub drop: bool,
    /// Its options from now on.
    pub set_options: Option<Vec<u8>>,
    /// All of its writes up to this sequence number are in tables.
    pub flushed_sequence: Option<SequenceNumber>,
    /// Tables that leave the version. They leave before others are added, so that a table may
    /// leave one level and enter another in the same edit.
    pub removed: Vec<FileNumber>,
    /// Tables that enter the version.
    pub added: Vec<AddedTable>,
    /// Value tables that are given up though pointers to them are left: what they held is gone from
    /// now on.
    pub lost_values: Vec<FileNumber>,
}

/// A table and the place where it enters the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedTable {
    /// The level, below [`MAX_LEVELS`](esker_base::limits::MAX_LEVELS); or
    /// [`VALUE_LEVEL`] for a table of values.
    pub level: usize,
    /// The run within the level.
    pub run: RunPlacement,
    /// The table.
    pub meta: Arc<TableMeta>,
}

impl AddedTable {
    /// A table of values, which joins no run.
    #[must_use]
    pub fn of_values(meta: Arc<TableMeta>) -> Self {
        Self {
            level: VALUE_LEVEL,
            run: RunPlacement::Created(meta.number),
            meta,
        }
    }
}

/// Which run a table joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunPlacement {
    /// A run that the level has. It keeps its place among the runs even where the same edit removes
    /// all the tables it had.
    Existing(u64),
    /// A new run, newer than all others of the level. All tables that one edit adds as `New` to one
    /// level of a keyspace form one run; the version set draws its number.
    New,
    /// As `New`, with the number drawn: what stands in the MANIFEST.
    Created(u64),
}

/// A change of the named recovery points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryPointEdit {
    /// The point called `name` exists from now on, or is replaced.
    Added {
        /// Its name.
        name: String,
        /// What it says, opaque here.
        bytes: Vec<u8>,
    },
    /// The point called `name` is gone.
    Removed {
        /// Its name.
        name: String,
    },
}

/// A change of the cursors of the feed of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeCursorEdit {
    /// The cursor called `name` exists from now on, or has moved.
    Set {
        /// Its name.
        name: String,
        /// Everything up to this sequence number is acknowledged.
        acknowledged: SequenceNumber,
    },
    /// The cursor called `name` is gone.
    Removed {
        /// Its name.
        name: String,
    },
}

#[cfg(test)]
mod tests;

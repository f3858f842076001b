//! Everything that the manifest says at one moment: keyspaces with their versions, log segments,
//! counters.
//!
//! Invariant: a state is immutable once it is shared; the next one is a cheap copy to which an edit
//! was applied. Replaying a manifest's edits on the empty state gives the state again. The callers
//! are the version set and recovery; everybody else reads.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::limits::MAX_KEYSPACE_NAME_BYTES;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, Result, SequenceNumber};

use crate::keyspace_map::KeyspaceMap;
use crate::live_index::LiveIndex;
use crate::version::Version;
use crate::version_builder;
use crate::version_edit::{
    AddedTable, ChangeCursorEdit, KeyspaceEdit, RecoveryPointEdit, RunPlacement, VersionEdit,
};

/// The name of keyspace 0, which always exists.
pub const DEFAULT_KEYSPACE_NAME: &str = "default";
/// How many tables one record of a snapshot describes at most.
const SNAPSHOT_TABLES_PER_RECORD: usize = 512;

/// What is known of a keyspace beside its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceMeta {
    /// Its number, never given out again.
    pub id: KeyspaceId,
    /// Its name, 1 to [`MAX_KEYSPACE_NAME_BYTES`] bytes, unlike any other's.
    pub name: String,
    /// Its options, opaque here.
    pub options: Vec<u8>,
    /// All of its writes up to here are in tables.
    pub flushed_sequence: SequenceNumber,
}

/// A keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyspace {
    /// What is known of it.
    pub meta: KeyspaceMeta,
    /// Its tables.
    pub version: Arc<Version>,
}

/// What the manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestState {
    /// The database's own number.
    pub database_id: [u8; 16],
    /// The database's persisted options, opaque here.
    pub options: Arc<Vec<u8>>,
    /// No file of this number or above had been named when the last edit was logged.
    pub next_file_number: u64,
    /// No table holds a larger sequence number.
    pub last_sequence: SequenceNumber,
    /// The latest wall time that was seen, milliseconds since 1970.
    pub latest_millis: u64,
    /// Log segments below are not needed.
    pub oldest_segment: FileNumber,
    /// Log segments that must exist: added, not removed, not below `oldest_segment`.
    pub segments: BTreeSet<FileNumber>,
    /// Named recovery points, opaque here.
    pub recovery_points: Arc<BTreeMap<String, Vec<u8>>>,
    /// Cursors of the feed of changes, and what each has acknowledged.
    pub change_cursors: Arc<BTreeMap<String, SequenceNumber>>,
    /// The largest keyspace number ever given out.
    pub largest_keyspace: Option<KeyspaceId>,
    /// The keyspaces.
    pub keyspaces: KeyspaceMap,
}

fn refused(message: impl Into<String>) -> Error {
    Error::invalid_argument(message.into())
}

impl ManifestState {
    /// The version of a keyspace.
    #[must_use]
    pub fn version(&self, keyspace: KeyspaceId) -> Option<&Arc<Version>> {
        self.keyspaces
            .get(keyspace)
            .map(|keyspace| &keyspace.version)
    }

    /// The keyspace of a name.
    #[must_use]
    pub fn keyspace_named(&self, name: &str) -> Option<&Arc<Keyspace>> {
        self.keyspaces
            .iter()
            .find(|keyspace| keyspace.meta.name == name)
    }

    /// Applies an edit; `index` says where the tables of this state stand.
    ///
    /// # Errors
    /// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) that says why the edit cannot be
    /// applied; this state must then be thrown away.
    pub fn apply(&mut self, edit: &VersionEdit, index: &LiveIndex) -> Result<()> {
        self.next_file_number = self
            .next_file_number
            .max(edit.next_file_number.unwrap_or(0));
        self.last_sequence = self.last_sequence.max(edit.last_sequence.unwrap_or(0));
        self.latest_millis = self.latest_millis.max(edit.latest_millis.unwrap_or(0));
        self.database_id = edit.database_id.unwrap_or(self.database_id);
        if let Some(options) = &edit.options {
            self.options = Arc::new(options.clone());
        }
        self.apply_segments(edit)?;
        self.apply_recovery_points(&edit.recovery_points);
        self.apply_change_cursors(&edit.change_cursors);
        let mut added = HashSet::new();
        let mut names = HashSet::new();
        for keyspace in &edit.keyspaces {
            for table in &keyspace.added {
                if !added.insert(table.meta.number) {
                    return Err(refused(format!(
                        "table {} is added twice",
                        table.meta.number
                    )));
                }
            }
            if let Some((name, _)) = &keyspace.create
                && (index.has_name(name) || !names.insert(name))
            {
                return Err(refused(format!("a keyspace is called {name} already")));
            }
            self.apply_keyspace(keyspace, index)?;
        }
        // Last: the keyspaces of a snapshot are created below it.
        self.largest_keyspace = self.largest_keyspace.max(edit.largest_keyspace);
        Ok(())
    }

    fn apply_segments(&mut self, edit: &VersionEdit) -> Result<()> {
        let oldest = edit.oldest_segment.unwrap_or(self.oldest_segment);
        if oldest < self.oldest_segment {
            return Err(refused(format!("segment {oldest} is needed again")));
        }
        self.oldest_segment = oldest;
        self.segments.extend(&edit.added_segments);
        for number in &edit.removed_segments {
            self.segments.remove(number);
        }
        self.segments = self.segments.split_off(&oldest);
        Ok(())
    }

    fn apply_recovery_points(&mut self, edits: &[RecoveryPointEdit]) {
        for edit in edits {
            let points = Arc::make_mut(&mut self.recovery_points);
            match edit {
                RecoveryPointEdit::Added { name, bytes } => {
                    points.insert(name.clone(), bytes.clone());
                }
                RecoveryPointEdit::Removed { name } => {
                    points.remove(name);
                }
            }
        }
    }

    fn apply_change_cursors(&mut self, edits: &[ChangeCursorEdit]) {
        for edit in edits {
            let cursors = Arc::make_mut(&mut self.change_cursors);
            match edit {
                ChangeCursorEdit::Set { name, acknowledged } => {
                    cursors.insert(name.clone(), *acknowledged);
                }
                ChangeCursorEdit::Removed { name } => {
                    cursors.remove(name);
                }
            }
        }
    }

    fn apply_keyspace(&mut self, edit: &KeyspaceEdit, index: &LiveIndex) -> Result<()> {
        if let Some((name, options)) = &edit.create {
            self.create_keyspace(edit.id, name, options)?;
        }
        if edit.drop {
            let alone = edit.id != 0 && edit.removed.is_empty() && edit.added.is_empty();
            if !alone || !self.keyspaces.remove(edit.id) {
                return Err(refused(format!("keyspace {} cannot be dropped", edit.id)));
            }
            return Ok(());
        }
        let Some(keyspace) = self.keyspaces.get_mut(edit.id) else {
            return Err(refused(format!("there is no keyspace {}", edit.id)));
        };
        if let Some(options) = &edit.set_options {
            keyspace.meta.options.clone_from(options);
        }
        if let Some(sequence) = edit.flushed_sequence {
            keyspace.meta.flushed_sequence = keyspace.meta.flushed_sequence.max(sequence);
        }
        let tables = !edit.removed.is_empty() || !edit.added.is_empty();
        if tables || !edit.lost_values.is_empty() {
            version_builder::apply(Arc::make_mut(&mut keyspace.version), edit, index)?;
        }
        let sequences = |meta: &TableMeta| meta.largest_sequence.max(meta.ingested_sequence);
        let largest = edit.added.iter().map(|added| sequences(&added.meta)).max();
        self.last_sequence = self.last_sequence.max(largest.unwrap_or(0));
        Ok(())
    }

    fn create_keyspace(&mut self, id: KeyspaceId, name: &str, options: &[u8]) -> Result<()> {
        if name.is_empty() || name.len() > MAX_KEYSPACE_NAME_BYTES {
            return Err(refused("the name of a keyspace is empty or too long"));
        }
        let meta = KeyspaceMeta {
            id,
            name: name.to_owned(),
            options: options.to_vec(),
            flushed_sequence: 0,
        };
        let is_next = self.largest_keyspace.is_none_or(|largest| largest < id);
        if !is_next
            || !self.keyspaces.insert(Keyspace {
                meta,
                version: Arc::default(),
            })
        {
            return Err(refused(format!(
                "the number of keyspace {id} was given out before"
            )));
        }
        self.largest_keyspace = Some(id);
        Ok(())
    }

    /// Edits that make this state out of the empty one. The last one completes the snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Vec<VersionEdit> {
        let mut edits = Vec::new();
        let mut edit = VersionEdit::default();
        let mut tables = 0;
        for keyspace in self.keyspaces.iter() {
            let mut part = created(&keyspace.meta);
            part.lost_values.extend(&keyspace.version.values.lost);
            // Before what points to them.
            let values = keyspace.version.values.tables.iter().cloned();
            part.added.extend(values.map(AddedTable::of_values));
            tables += part.added.len();
            // Oldest first, because each new run becomes the newest of its level.
            for (level, run) in keyspace.version.runs_newest_first().rev() {
                let mut placement = RunPlacement::Created(run.id);
                for meta in &run.tables {
                    part.added.push(AddedTable {
                        level,
                        run: placement,
                        meta: Arc::clone(meta),
                    });
                    tables += 1;
                    if tables >= SNAPSHOT_TABLES_PER_RECORD {
                        let next = KeyspaceEdit {
                            id: part.id,
                            ..KeyspaceEdit::default()
                        };
                        edit.keyspaces.push(std::mem::replace(&mut part, next));
                        edits.push(std::mem::take(&mut edit));
                        placement = RunPlacement::Existing(run.id);
                        tables = 0;
                    }
                }
            }
            edit.keyspaces.push(part);
            tables += 1;
            if tables >= SNAPSHOT_TABLES_PER_RECORD {
                edits.push(std::mem::take(&mut edit));
                tables = 0;
            }
        }
        edits.push(self.complete(edit));
        edits
    }

    /// Adds everything that is not a keyspace.
    fn complete(&self, edit: VersionEdit) -> VersionEdit {
        let points = self
            .recovery_points
            .iter()
            .map(|(name, bytes)| RecoveryPointEdit::Added {
                name: name.clone(),
                bytes: bytes.clone(),
            });
        let cursors =
            self.change_cursors
                .iter()
                .map(|(name, &acknowledged)| ChangeCursorEdit::Set {
                    name: name.clone(),
                    acknowledged,
                });
        VersionEdit {
            next_file_number: Some(self.next_file_number),
            last_sequence: Some(self.last_sequence),
            oldest_segment: Some(self.oldest_segment),
            added_segments: self.segments.iter().copied().collect(),
            database_id: Some(self.database_id),
            options: Some(self.options.as_ref().clone()),
            recovery_points: points.collect(),
            change_cursors: cursors.collect(),
            largest_keyspace: self.largest_keyspace,
            latest_millis: Some(self.latest_millis).filter(|&millis| millis > 0),
            completes_snapshot: true,
            ..edit
        }
    }
}

/// The edit that makes a keyspace without tables.
fn created(meta: &KeyspaceMeta) -> KeyspaceEdit {
    KeyspaceEdit {
        id: meta.id,
        create: Some((meta.name.clone(), meta.options.clone())),
        flushed_sequence: Some(meta.flushed_sequence),
        ..KeyspaceEdit::default()
    }
}

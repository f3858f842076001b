//! The tagged encoding of edits. The numbers below are on disk: they only grow.

use std::sync::Arc;

use esker_base::coding::{Decoder, put_bytes, put_varint};
use esker_base::limits::{MAX_KEYSPACE_NAME_BYTES, MAX_LEVELS, VALUE_LEVEL};
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, Result};

use super::{
    AddedTable, ChangeCursorEdit, KeyspaceEdit, RecoveryPointEdit, RunPlacement, VersionEdit,
};
use crate::table_fields;
use crate::tagged_fields::{Field, put_field, put_skippable_field, put_varint_field};

mod edit_field {
    pub(super) const NEXT_FILE_NUMBER: u64 = 1;
    pub(super) const LAST_SEQUENCE: u64 = 2;
    pub(super) const OLDEST_SEGMENT: u64 = 3;
    pub(super) const ADDED_SEGMENT: u64 = 4;
    pub(super) const REMOVED_SEGMENT: u64 = 5;
    pub(super) const KEYSPACE: u64 = 6;
    pub(super) const DATABASE_ID: u64 = 7;
    pub(super) const OPTIONS: u64 = 8;
    pub(super) const ADDED_RECOVERY_POINT: u64 = 9;
    pub(super) const REMOVED_RECOVERY_POINT: u64 = 10;
    pub(super) const LARGEST_KEYSPACE: u64 = 11;
    pub(super) const COMPLETES_SNAPSHOT: u64 = 12;
    pub(super) const IS_PUBLISHED: u64 = 13;
    pub(super) const LATEST_MILLIS: u64 = 14;
    /// Must be known: who does not know the cursors lets go of the log that they need.
    pub(super) const SET_CHANGE_CURSOR: u64 = 20;
    pub(super) const REMOVED_CHANGE_CURSOR: u64 = 21;
}

mod keyspace_field {
    pub(super) const ID: u64 = 1;
    pub(super) const CREATE: u64 = 2;
    pub(super) const DROP: u64 = 3;
    pub(super) const SET_OPTIONS: u64 = 4;
    pub(super) const FLUSHED_SEQUENCE: u64 = 5;
    pub(super) const REMOVED_TABLE: u64 = 6;
    pub(super) const ADDED_TABLE: u64 = 7;
    pub(super) const LOST_VALUES: u64 = 8;
}

mod added_field {
    pub(super) const LEVEL: u64 = 1;
    pub(super) const EXISTING_RUN: u64 = 2;
    pub(super) const CREATED_RUN: u64 = 3;
    pub(super) const TABLE: u64 = 4;
    /// A table of values, in place of a level and a run. Must be known.
    pub(super) const IS_VALUES: u64 = 5;
}

impl VersionEdit {
    /// The edit as it stands in a MANIFEST record.
    ///
    /// # Errors
    /// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) where a run is still
    /// [`RunPlacement::New`]: its number must have been drawn.
    pub fn encode(&self) -> Result<Vec<u8>> {
        use edit_field as f;
        let mut out = Vec::new();
        let numbers = [
            (f::NEXT_FILE_NUMBER, self.next_file_number),
            (f::LAST_SEQUENCE, self.last_sequence),
            (f::OLDEST_SEGMENT, self.oldest_segment),
            (f::LARGEST_KEYSPACE, self.largest_keyspace.map(u64::from)),
        ];
        for (number, value) in numbers {
            if let Some(value) = value {
                put_varint_field(&mut out, number, value);
            }
        }
        self.added_segments
            .iter()
            .for_each(|&n| put_varint_field(&mut out, f::ADDED_SEGMENT, n));
        self.removed_segments
            .iter()
            .for_each(|&n| put_varint_field(&mut out, f::REMOVED_SEGMENT, n));
        for keyspace in &self.keyspaces {
            put_field(&mut out, f::KEYSPACE, &keyspace.encode()?);
        }
        if let Some(id) = &self.database_id {
            put_field(&mut out, f::DATABASE_ID, id);
        }
        if let Some(options) = &self.options {
            put_field(&mut out, f::OPTIONS, options);
        }
        for point in &self.recovery_points {
            point.encode(&mut out);
        }
        for cursor in &self.change_cursors {
            cursor.encode(&mut out);
        }
        if let Some(millis) = self.latest_millis {
            let mut payload = Vec::new();
            put_varint(&mut payload, millis);
            put_skippable_field(&mut out, f::LATEST_MILLIS, &payload);
        }
        if self.completes_snapshot {
            put_field(&mut out, f::COMPLETES_SNAPSHOT, &[]);
        }
        if self.is_published {
            put_skippable_field(&mut out, f::IS_PUBLISHED, &[]);
        }
        Ok(out)
    }

    /// Decodes an edit.
    ///
    /// # Errors
    /// [`Corruption`](esker_base::ErrorKind::Corruption) for bytes that are no edit,
    /// [`Unsupported`](esker_base::ErrorKind::Unsupported) for one that needs a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        use edit_field as f;
        let mut edit = Self::default();
        let mut decoder = Decoder::new(bytes);
        while !decoder.is_empty() {
            let field = Field::read(&mut decoder)?;
            match field.number {
                f::NEXT_FILE_NUMBER => field.set(&mut edit.next_file_number, field.varint()?)?,
                f::LAST_SEQUENCE => field.set(&mut edit.last_sequence, field.varint()?)?,
                f::OLDEST_SEGMENT => field.set(&mut edit.oldest_segment, field.varint()?)?,
                f::LARGEST_KEYSPACE => field.set(&mut edit.largest_keyspace, id(&field)?)?,
                f::ADDED_SEGMENT => edit.added_segments.push(field.varint()?),
                f::REMOVED_SEGMENT => edit.removed_segments.push(field.varint()?),
                f::KEYSPACE => edit.keyspaces.push(KeyspaceEdit::decode(field.payload)?),
                f::DATABASE_ID => {
                    let id = field.payload.try_into().map_err(|_| field.malformed())?;
                    field.set(&mut edit.database_id, id)?;
                }
                f::OPTIONS => field.set(&mut edit.options, field.payload.to_vec())?,
                f::ADDED_RECOVERY_POINT => {
                    let mut parts = Decoder::new(field.payload);
                    let name = text(parts.bytes()?)?;
                    let bytes = parts.rest().to_vec();
                    edit.recovery_points
                        .push(RecoveryPointEdit::Added { name, bytes });
                }
                f::REMOVED_RECOVERY_POINT => {
                    let name = text(field.payload)?;
                    edit.recovery_points
                        .push(RecoveryPointEdit::Removed { name });
                }
                f::SET_CHANGE_CURSOR => {
                    let mut parts = Decoder::new(field.payload);
                    let name = text(parts.bytes()?)?;
                    let acknowledged = parts.varint()?;
                    if !parts.is_empty() {
                        return Err(field.malformed());
                    }
                    edit.change_cursors
                        .push(ChangeCursorEdit::Set { name, acknowledged });
                }
                f::REMOVED_CHANGE_CURSOR => {
                    let name = text(field.payload)?;
                    edit.change_cursors.push(ChangeCursorEdit::Removed { name });
                }
                f::LATEST_MILLIS => field.set(&mut edit.latest_millis, field.varint()?)?,
                f::COMPLETES_SNAPSHOT => edit.completes_snapshot = field.flag()?,
                f::IS_PUBLISHED => edit.is_published = field.flag()?,
                _ => field.skip_or_refuse("record")?,
            }
        }
        Ok(edit)
    }
}

impl ChangeCursorEdit {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set { name, acknowledged } => {
                let mut payload = Vec::new();
                put_bytes(&mut payload, name.as_bytes());
                put_varint(&mut payload, *acknowledged);
                put_field(out, edit_field::SET_CHANGE_CURSOR, &payload);
            }
            Self::Removed { name } => {
                put_field(out, edit_field::REMOVED_CHANGE_CURSOR, name.as_bytes());
            }
        }
    }
}

impl RecoveryPointEdit {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Added { name, bytes } => {
                let mut payload = Vec::new();
                put_bytes(&mut payload, name.as_bytes());
                payload.extend_from_slice(bytes);
                put_field(out, edit_field::ADDED_RECOVERY_POINT, &payload);
            }
            Self::Removed { name } => {
                put_field(out, edit_field::REMOVED_RECOVERY_POINT, name.as_bytes());
            }
        }
    }
}

impl KeyspaceEdit {
    fn encode(&self) -> Result<Vec<u8>> {
        use keyspace_field as f;
        let mut out = Vec::new();
        put_varint_field(&mut out, f::ID, u64::from(self.id));
        if let Some((name, options)) = &self.create {
            let mut payload = Vec::new();
            put_bytes(&mut payload, name.as_bytes());
            payload.extend_from_slice(options);
            put_field(&mut out, f::CREATE, &payload);
        }
        if self.drop {
            put_field(&mut out, f::DROP, &[]);
        }
        if let Some(options) = &self.set_options {
            put_field(&mut out, f::SET_OPTIONS, options);
        }
        if let Some(sequence) = self.flushed_sequence {
            put_varint_field(&mut out, f::FLUSHED_SEQUENCE, sequence);
        }
        self.removed
            .iter()
            .for_each(|&n| put_varint_field(&mut out, f::REMOVED_TABLE, n));
        for added in &self.added {
            put_field(&mut out, f::ADDED_TABLE, &added.encode()?);
        }
        self.lost_values
            .iter()
            .for_each(|&n| put_varint_field(&mut out, f::LOST_VALUES, n));
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        use keyspace_field as f;
        let mut edit = Self::default();
        let mut keyspace = None;
        let mut decoder = Decoder::new(bytes);
        while !decoder.is_empty() {
            let field = Field::read(&mut decoder)?;
            match field.number {
                f::ID => field.set(&mut keyspace, id(&field)?)?,
                f::CREATE => {
                    let mut parts = Decoder::new(field.payload);
                    let name = text(parts.bytes()?)?;
                    if name.len() > MAX_KEYSPACE_NAME_BYTES {
                        return Err(field.malformed());
                    }
                    field.set(&mut edit.create, (name, parts.rest().to_vec()))?;
                }
                f::DROP => edit.drop = field.flag()?,
                f::SET_OPTIONS => field.set(&mut edit.set_options, field.payload.to_vec())?,
                f::FLUSHED_SEQUENCE => field.set(&mut edit.flushed_sequence, field.varint()?)?,
                f::REMOVED_TABLE => edit.removed.push(field.varint()?),
                f::ADDED_TABLE => edit.added.push(AddedTable::decode(field.payload)?),
                f::LOST_VALUES => edit.lost_values.push(field.varint()?),
                _ => field.skip_or_refuse("keyspace")?,
            }
        }
        edit.id = keyspace.ok_or_else(|| Error::corruption("an edit of a keyspace without id"))?;
        Ok(edit)
    }
}

impl AddedTable {
    fn encode(&self) -> Result<Vec<u8>> {
        use added_field as f;
        let mut out = Vec::new();
        if self.level == VALUE_LEVEL {
            put_field(&mut out, f::IS_VALUES, &[]);
        } else {
            self.encode_place(&mut out)?;
        }
        let mut table = Vec::new();
        table_fields::encode(&self.meta, &mut table);
        put_field(&mut out, f::TABLE, &table);
        Ok(out)
    }

    fn encode_place(&self, out: &mut Vec<u8>) -> Result<()> {
        use added_field as f;
        put_varint_field(out, f::LEVEL, self.level as u64);
        match self.run {
            RunPlacement::Existing(run) => put_varint_field(out, f::EXISTING_RUN, run),
            RunPlacement::Created(run) => put_varint_field(out, f::CREATED_RUN, run),
            RunPlacement::New => {
                return Err(Error::invalid_argument(
                    "the number of a new run was not drawn",
                ));
            }
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        use added_field as f;
        let (mut level, mut run, mut meta) = (None, None, None);
        let mut is_values = false;
        let mut decoder = Decoder::new(bytes);
        while !decoder.is_empty() {
            let field = Field::read(&mut decoder)?;
            match field.number {
                f::LEVEL => field.set(&mut level, field.varint()?)?,
                f::EXISTING_RUN => field.set(&mut run, RunPlacement::Existing(field.varint()?))?,
                f::CREATED_RUN => field.set(&mut run, RunPlacement::Created(field.varint()?))?,
                f::TABLE => field.set(&mut meta, Arc::new(table_fields::decode(field.payload)?))?,
                f::IS_VALUES => is_values = field.flag()?,
                _ => field.skip_or_refuse("added table")?,
            }
        }
        match (level, run, meta) {
            (None, None, Some(meta)) if is_values => Ok(Self::of_values(meta)),
            (Some(level), Some(run), Some(meta)) if !is_values && level < MAX_LEVELS as u64 => {
                Ok(Self {
                    level: level as usize,
                    run,
                    meta,
                })
            }
            _ => Err(Error::corruption("an added table without its place")),
        }
    }
}

fn id(field: &Field<'_>) -> Result<KeyspaceId> {
    KeyspaceId::try_from(field.varint()?).map_err(|_| field.malformed())
}

fn text(bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned)
        .map_err(|_| Error::corruption("a name in the manifest is not UTF-8"))
}

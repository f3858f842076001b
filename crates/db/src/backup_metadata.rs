//! What a backup or a recovery point says of itself, and its bytes (docs/format/backup.md).
//!
//! Invariants: the bytes are versioned and checksummed; a field that this version does not know is
//! skipped where its tag says that it may be and refused otherwise (I11); decoding never panics and
//! allocates in proportion to its input (I10). The tables are described in the manifest's own words:
//! one version edit that makes all keyspaces out of nothing.

use crate::backup_name::is_name;
use esker_base::checksum::checksum;
use esker_base::coding::{Decoder, put_bytes, put_varint, u64_at};
use esker_base::filename::FileNumber;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_manifest::{AddedTable, RunPlacement, VersionEdit};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"eskerBKP";
const FORMAT_VERSION: u32 = 1;
/// Magic, version, three words of feature bits.
const HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 8;

const NAME: u64 = 1;
const DESCRIPTION: u64 = 2;
const IS_RECOVERY_POINT: u64 = 3;
const CREATED_MILLIS: u64 = 4;
const SEQUENCE: u64 = 5;
const ESKER_VERSION: u64 = 6;
const CONTENTS: u64 = 7;
const NEW_BYTES: u64 = 8;
const RESTORED: u64 = 9;
/// Set in a key: a reader that does not know the number may go on without it.
const SKIPPABLE: u64 = 1;

/// A backup or recovery point: what it is called, when it was made, what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) is_recovery_point: bool,
    pub(crate) created_millis: u64,
    pub(crate) sequence: SequenceNumber,
    pub(crate) esker_version: String,
    pub(crate) new_bytes: u64,
    /// The sequence number of what came back, of a point that a restore has left.
    pub(crate) restored: Option<SequenceNumber>,
    /// Every keyspace with its tables, as an edit of an empty database.
    pub(crate) contents: VersionEdit,
}

impl BackupInfo {
    /// Its name: the second of its creation in UTC as `YYYYMMDD_HHMMSS`, or the next free one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its maker said of it.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Whether it is a recovery point: it pins tables of the database itself and goes with it.
    #[must_use]
    pub fn is_recovery_point(&self) -> bool {
        self.is_recovery_point
    }

    /// When it was made, milliseconds since 1970.
    #[must_use]
    pub fn created_millis(&self) -> u64 {
        self.created_millis
    }

    /// It holds every write up to this sequence number and none after.
    #[must_use]
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Bytes of all of its tables, shared with others or not.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.tables().map(|meta| meta.file_bytes).sum()
    }

    /// Bytes of the tables that no backup had before it.
    #[must_use]
    pub fn new_bytes(&self) -> u64 {
        self.new_bytes
    }

    /// Number of tables.
    #[must_use]
    pub fn table_count(&self) -> usize {
        self.tables().count()
    }

    /// Of a recovery point that a restore into the open database has left, so that the moments behind it
    /// can be restored: the sequence number of what came back. `None` of every other.
    #[must_use]
    pub fn restored_sequence(&self) -> Option<SequenceNumber> {
        self.restored
    }

    /// The names of its keyspaces.
    #[must_use]
    pub fn keyspace_names(&self) -> Vec<&str> {
        let created = self.contents.keyspaces.iter();
        created
            .filter_map(|keyspace| keyspace.create.as_ref())
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The version of esker that made it.
    #[must_use]
    pub fn esker_version(&self) -> &str {
        &self.esker_version
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        let keyspaces = self.contents.keyspaces.iter();
        keyspaces.flat_map(|keyspace| keyspace.added.iter().map(|added| &added.meta))
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = FileNumber> {
        self.tables().map(|meta| meta.number)
    }

    /// The bytes of a metadata file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        // No compatible, read-only-compatible or incompatible features yet.
        out.extend_from_slice(&[0; 12]);
        put_field(&mut out, NAME << 1, self.name.as_bytes());
        put_field(&mut out, DESCRIPTION << 1, self.description.as_bytes());
        if self.is_recovery_point {
            put_field(&mut out, IS_RECOVERY_POINT << 1, &[]);
        }
        put_number(&mut out, CREATED_MILLIS << 1, self.created_millis);
        put_number(&mut out, SEQUENCE << 1, self.sequence);
        let version = self.esker_version.as_bytes();
        put_field(&mut out, ESKER_VERSION << 1 | SKIPPABLE, version);
        put_field(&mut out, CONTENTS << 1, &self.contents.encode()?);
        put_number(&mut out, NEW_BYTES << 1 | SKIPPABLE, self.new_bytes);
        if let Some(restored) = self.restored {
            put_number(&mut out, RESTORED << 1 | SKIPPABLE, restored);
        }
        let sum = checksum(&out, 0);
        out.extend_from_slice(&sum.to_le_bytes());
        Ok(out)
    }

    /// Reads a metadata file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(checked_bytes) = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .filter(|&length| length >= HEADER_BYTES)
        else {
            return Err(Error::corruption("the metadata of a backup is cut short"));
        };
        let checked = &bytes[..checked_bytes];
        if !checked.starts_with(MAGIC) {
            return Err(Error::corruption("this is not the metadata of a backup").with_offset(0));
        }
        if u64_at(bytes, checked_bytes) != Some(checksum(checked, 0)) {
            let error = Error::corruption("the metadata of a backup does not match its checksum");
            return Err(error.with_offset(checked_bytes as u64));
        }
        let mut decoder = Decoder::new(&checked[MAGIC.len()..]);
        let version = decoder.u32()?;
        let (_compatible, _read_only) = (decoder.u32()?, decoder.u32()?);
        let incompatible = decoder.u32()?;
        if version != FORMAT_VERSION || incompatible != 0 {
            let sentence = "this backup was made by a later version of esker";
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        let info = Self::decode_fields(&mut decoder)?;
        info.check()?;
        Ok(info)
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self> {
        let mut info = Self {
            name: String::new(),
            description: String::new(),
            is_recovery_point: false,
            created_millis: 0,
            sequence: 0,
            esker_version: String::new(),
            new_bytes: 0,
            restored: None,
            contents: VersionEdit::default(),
        };
        let mut seen = 0u64;
        while !decoder.is_empty() {
            let key = decoder.varint()?;
            let payload = decoder.bytes()?;
            let number = key >> 1;
            let bit = 1u64
                .checked_shl(u32::try_from(number).unwrap_or(u32::MAX))
                .unwrap_or(0);
            if seen & bit != 0 {
                return Err(Error::corruption(
                    "the metadata of a backup has a field twice",
                ));
            }
            seen |= bit;
            match number {
                NAME => info.name = text(payload)?,
                DESCRIPTION => info.description = text(payload)?,
                IS_RECOVERY_POINT => info.is_recovery_point = true,
                CREATED_MILLIS => info.created_millis = one_number(payload)?,
                SEQUENCE => info.sequence = one_number(payload)?,
                ESKER_VERSION => info.esker_version = text(payload)?,
                CONTENTS => info.contents = VersionEdit::decode(payload)?,
                NEW_BYTES => info.new_bytes = one_number(payload)?,
                RESTORED => info.restored = Some(one_number(payload)?),
                _ if key & SKIPPABLE != 0 => {}
                _ => {
                    let sentence =
                        format!("field {number} of a backup needs a later version of esker");
                    return Err(Error::new(ErrorKind::Unsupported, sentence));
                }
            }
        }
        Ok(info)
    }

    /// What the checksum does not say: that it makes sense.
    fn check(&self) -> Result<()> {
        let keyspaces = &self.contents.keyspaces;
        let has_default = keyspaces.first().is_some_and(|first| first.id == 0);
        let ascending = keyspaces.windows(2).all(|pair| pair[0].id < pair[1].id);
        let made = keyspaces.iter().all(|keyspace| {
            let placed = |added: &AddedTable| matches!(added.run, RunPlacement::Created(_));
            let alone = !keyspace.drop && keyspace.removed.is_empty();
            alone && keyspace.create.is_some() && keyspace.added.iter().all(placed)
        });
        if is_name(&self.name) && has_default && ascending && made {
            return Ok(());
        }
        Err(Error::corruption("the metadata of a backup makes no sense"))
    }
}

fn put_field(out: &mut Vec<u8>, key: u64, payload: &[u8]) {
    put_varint(out, key);
    put_bytes(out, payload);
}

fn put_number(out: &mut Vec<u8>, key: u64, value: u64) {
    let mut payload = Vec::with_capacity(10);
    put_varint(&mut payload, value);
    put_field(out, key, &payload);
}

fn text(payload: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(payload);
    text.map(str::to_owned)
        .map_err(|_| Error::corruption("a text in the metadata of a backup is not UTF-8"))
}

fn one_number(payload: &[u8]) -> Result<u64> {
    let mut decoder = Decoder::new(payload);
    let value = decoder.varint()?;
    if decoder.is_empty() {
        Ok(value)
    } else {
        Err(Error::corruption(
            "a number in the metadata of a backup is malformed",
        ))
    }
}

#[cfg(test)]
mod tests;

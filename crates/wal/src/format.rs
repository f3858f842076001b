//! The bytes of a segment: the header page, the synced note, the record header, and the checksums that bind both to
//! their place. Specified in `docs/format/wal.md`; the writer, the reader and the tail policy all
//! encode and decode through here.
//!
//! Invariant: a record verifies only in the segment and at the offset it was written to, so that
//! neither an older life of a recycled file nor a displaced block is ever taken for a record. The
//! decoders return `None` or an error on any other bytes (I10).

use esker_base::checksum::checksum;
use esker_base::coding::{u32_at, u64_at};
use esker_base::filename::FileNumber;
use esker_base::{Error, ErrorKind, Result};

/// Bytes of the header page.
pub const HEADER_PAGE_BYTES: usize = 4096;
/// Where the synced note stands in a segment that has one, alone in its page: it is rewritten after
/// every sync, and a write of it that a power loss tears must not take a byte of anything else along.
pub const NOTE_OFFSET: u64 = HEADER_PAGE_BYTES as u64;
/// Where the second one stands. They are written in turns, so that one which a power loss tears is not
/// the only proof of the sync before.
pub const SECOND_NOTE_OFFSET: u64 = NOTE_OFFSET + 2048;
/// Bytes of the synced note.
pub const NOTE_BYTES: usize = 16;
/// Where the first record begins.
pub const FIRST_RECORD_OFFSET: u64 = 2 * HEADER_PAGE_BYTES as u64;
/// Where it begins in a segment that was written before there were notes.
const FIRST_RECORD_WITHOUT_NOTE: u64 = HEADER_PAGE_BYTES as u64;
/// Bytes before a record's payload.
pub const RECORD_HEADER_BYTES: usize = 20;
/// Records begin at multiples of this.
pub const RECORD_ALIGNMENT: u64 = 8;
/// The longest payload, bytes: the largest write batch with room to spare.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 31;
/// Bytes of a watermark record, all included.
pub const WATERMARK_RECORD_BYTES: u64 = 32;
/// Bytes of an end record, all included.
pub const END_RECORD_BYTES: u64 = 40;
/// What a preallocated segment keeps free for its end record and the watermarks around it.
pub const TAIL_RESERVE_BYTES: u64 = END_RECORD_BYTES + 2 * WATERMARK_RECORD_BYTES;

/// The first eight bytes of every segment.
pub const MAGIC: [u8; 8] = *b"esk-log\n";
/// The format version that this code writes and the highest it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Incompatible feature: the second page holds the synced note, and records begin behind it.
pub const FEATURE_SYNCED_NOTE: u32 = 1;
/// Incompatible feature: groups that were synced have copies ahead of the records, which may go on
/// behind those.
pub const FEATURE_SYNCED_COPIES: u32 = 2;
/// Incompatible feature: records may go on behind the length in the header, as far as the file reaches.
pub const FEATURE_GROWN: u32 = 4;
/// What this code knows of incompatible features.
const KNOWN_FEATURES: u32 = FEATURE_SYNCED_NOTE | FEATURE_SYNCED_COPIES | FEATURE_GROWN;
/// Flag: the file was an older segment before, so unwritten space holds that one's bytes.
pub const FLAG_RECYCLED: u32 = 1;

const CHECKSUM_AT: usize = HEADER_PAGE_BYTES - 8;

/// What a record is. The numbers are on disk: they only grow. Readers skip unknown types from 128
/// on and refuse unknown ones below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// A payload of the caller's.
    Data = 1,
    /// Every byte of the segment below the offset in the payload has been synced.
    Watermark = 2,
    /// Nothing follows; the payload names the next segment and the synced offset.
    End = 3,
    /// What the caller notes between its payloads: older readers skip it.
    Mark = 128,
}

/// The header page, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HeaderPage {
    /// The number in the segment's file name.
    pub number: FileNumber,
    /// The segment before this one; 0 for none.
    pub previous: FileNumber,
    /// The sequence number of the first write that may be in the segment.
    pub first_sequence: u64,
    /// The length of a preallocated file when it was made, bytes; 0 for one that grows with its records.
    pub segment_bytes: u64,
    /// [`FLAG_RECYCLED`] and flags of later versions that may be ignored.
    pub flags: u32,
    /// Features that an older reader and writer may ignore.
    pub compatible_features: u32,
    /// Features that an older reader may ignore, but no writer.
    pub read_only_features: u32,
    /// [`FEATURE_SYNCED_NOTE`] but for a segment that was written before there were notes, and
    /// [`FEATURE_SYNCED_COPIES`] and [`FEATURE_GROWN`] where they are needed to read it.
    pub incompatible_features: u32,
}

impl HeaderPage {
    /// The page as it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_PAGE_BYTES);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        page.extend_from_slice(&self.flags.to_le_bytes());
        page.extend_from_slice(&self.compatible_features.to_le_bytes());
        page.extend_from_slice(&self.read_only_features.to_le_bytes());
        page.extend_from_slice(&u64::from(self.incompatible_features).to_le_bytes());
        page.extend_from_slice(&self.number.to_le_bytes());
        page.extend_from_slice(&self.previous.to_le_bytes());
        page.extend_from_slice(&self.first_sequence.to_le_bytes());
        page.extend_from_slice(&self.segment_bytes.to_le_bytes());
        page.resize(CHECKSUM_AT, 0);
        let check = checksum(&page, 0);
        page.extend_from_slice(&check.to_le_bytes());
        page
    }

    /// Whether the second page holds the synced note.
    #[must_use]
    pub fn has_note(&self) -> bool {
        self.incompatible_features & FEATURE_SYNCED_NOTE != 0
    }

    /// Whether synced groups have copies.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        self.incompatible_features & FEATURE_SYNCED_COPIES != 0
    }

    /// Whether records may go on behind [`HeaderPage::segment_bytes`].
    #[must_use]
    pub fn may_grow(&self) -> bool {
        self.incompatible_features & FEATURE_GROWN != 0
    }

    /// Where records end at the latest, in a file of so many bytes.
    #[must_use]
    pub fn limit(&self, file_bytes: u64) -> u64 {
        match self.segment_bytes {
            0 => file_bytes,
            _ if self.may_grow() => file_bytes,
            bytes => bytes.min(file_bytes),
        }
    }

    /// Where the first record begins.
    #[must_use]
    pub fn first_record_offset(&self) -> u64 {
        if self.has_note() {
            FIRST_RECORD_OFFSET
        } else {
            FIRST_RECORD_WITHOUT_NOTE
        }
    }

    /// Decodes and verifies a page.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`] for anything that is no intact page, [`ErrorKind::Unsupported`]
    /// for an intact one of a later version that must not be read by this one.
    pub fn decode(page: &[u8]) -> Result<Self> {
        let damaged =
            |what: &'static str, at: usize| Error::corruption(what).with_offset(at as u64);
        if page.len() != HEADER_PAGE_BYTES {
            return Err(damaged(
                "the segment is shorter than its header page",
                page.len(),
            ));
        }
        if !page.starts_with(&MAGIC) {
            return Err(damaged("this is not a log segment", 0));
        }
        if u64_at(page, CHECKSUM_AT) != Some(checksum(&page[..CHECKSUM_AT], 0)) {
            return Err(damaged(
                "the segment's header page has a wrong checksum",
                CHECKSUM_AT,
            ));
        }
        let word = |at: usize| u32_at(page, at).ok_or_else(|| damaged("cut short", at));
        let long = |at: usize| u64_at(page, at).ok_or_else(|| damaged("cut short", at));
        let version = word(8)?;
        let incompatible_features = word(24)?;
        if version != FORMAT_VERSION || incompatible_features & !KNOWN_FEATURES != 0 {
            let message = format!("log format {version} needs a later version of esker");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Self {
            flags: word(12)?,
            compatible_features: word(16)?,
            read_only_features: word(20)?,
            incompatible_features,
            number: long(32)?,
            previous: long(40)?,
            first_sequence: long(48)?,
            segment_bytes: long(56)?,
        })
    }
}

/// What ties the checksums of the record at `offset` of segment `number` to that place. Distinct for
/// all places while both are below 2^32, and different in practice beyond.
#[inline]
pub(crate) fn place(number: FileNumber, offset: u64) -> u64 {
    number ^ offset.rotate_left(32)
}

/// Bytes that a record with a payload of `payload_bytes` takes, header and padding included.
#[must_use]
#[inline]
pub const fn record_bytes(payload_bytes: usize) -> u64 {
    (RECORD_HEADER_BYTES as u64 + payload_bytes as u64).next_multiple_of(RECORD_ALIGNMENT)
}

/// What the header's own check covers: the length and the type (with its reserved zeros) in one
/// word, the payload's checksum in the other. Two whole words, so that hashing them right after they
/// were made waits for no store.
#[inline]
fn header_check(length_and_type: u64, payload_checksum: u64, place: u64) -> u32 {
    let mut words = [0; 16];
    words[..8].copy_from_slice(&length_and_type.to_le_bytes());
    words[8..].copy_from_slice(&payload_checksum.to_le_bytes());
    checksum(&words, place) as u32
}

/// The header of a record that will stand at `offset` of segment `number`.
#[must_use]
#[inline]
pub fn encode_record_header(
    number: FileNumber,
    offset: u64,
    record_type: RecordType,
    payload: &[u8],
) -> [u8; RECORD_HEADER_BYTES] {
    encode_header_at(place(number, offset), record_type as u8, payload)
}

/// The header of what is bound to `place`.
#[inline]
pub(crate) fn encode_header_at(
    place: u64,
    record_type: u8,
    payload: &[u8],
) -> [u8; RECORD_HEADER_BYTES] {
    let length_and_type = payload.len() as u64 | u64::from(record_type) << 32;
    let payload_checksum = checksum(payload, 0) ^ place;
    let check = header_check(length_and_type, payload_checksum, place);
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..4].copy_from_slice(&check.to_le_bytes());
    header[4..12].copy_from_slice(&length_and_type.to_le_bytes());
    header[12..].copy_from_slice(&payload_checksum.to_le_bytes());
    header
}

/// A record header that verified at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The type's number, never 0; it may be none that this version knows.
    pub record_type: u8,
    /// The length of the payload, at most [`MAX_PAYLOAD_BYTES`].
    pub payload_bytes: usize,
    payload_checksum: u64,
    place: u64,
}

impl RecordHeader {
    /// Decodes the header at the front of `bytes`, which are those at `offset` of segment `number`;
    /// `None` where no header stands that was written there.
    #[must_use]
    #[inline]
    pub fn decode(bytes: &[u8], number: FileNumber, offset: u64) -> Option<Self> {
        Self::decode_at(bytes, place(number, offset))
    }

    /// Decodes the header of what is bound to `place`.
    #[inline]
    pub(crate) fn decode_at(bytes: &[u8], place: u64) -> Option<Self> {
        let header = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
        // The type together with the reserved bytes after it, which are zero.
        let record_type = u8::try_from(u32_at(header, 8)?)
            .ok()
            .filter(|&byte| byte != 0)?;
        let payload_bytes = u32_at(header, 4)? as usize;
        let payload_checksum = u64_at(header, 12)?;
        let check = header_check(u64_at(header, 4)?, payload_checksum, place);
        let intact = payload_bytes <= MAX_PAYLOAD_BYTES && u32_at(header, 0)? == check;
        intact.then_some(Self {
            record_type,
            payload_bytes,
            payload_checksum,
            place,
        })
    }

    /// Whether `payload` is the one that the header was written for.
    #[must_use]
    #[inline]
    pub fn verifies(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes
            && checksum(payload, 0) ^ self.place == self.payload_checksum
    }

    /// Bytes from this record's start to the next one's.
    #[must_use]
    #[inline]
    pub fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_bytes)
    }
}

/// The payload of a watermark record: everything below `synced_bytes` was synced.
#[must_use]
pub fn encode_watermark(synced_bytes: u64) -> [u8; 8] {
    synced_bytes.to_le_bytes()
}

/// The payload of an end record.
#[must_use]
pub fn encode_end(next: FileNumber, synced_bytes: u64) -> [u8; 16] {
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&next.to_le_bytes());
    payload[8..].copy_from_slice(&synced_bytes.to_le_bytes());
    payload
}

/// The note of segment `number`, to stand at `offset`, that everything below `synced_bytes` was synced. It is bound to the
/// segment, so that the note of a recycled file's earlier life says nothing.
#[must_use]
#[inline]
pub fn encode_note(number: FileNumber, offset: u64, synced_bytes: u64) -> [u8; NOTE_BYTES] {
    let synced = synced_bytes.to_le_bytes();
    let check = checksum(&synced, place(number, offset));
    let mut note = [0; NOTE_BYTES];
    note[..8].copy_from_slice(&synced);
    note[8..].copy_from_slice(&check.to_le_bytes());
    note
}

/// What the note of segment `number` at `offset` says, at the front of `bytes`; `None` for anything that is none: never written, of an
/// earlier life, or torn by a power loss.
#[must_use]
pub fn decode_note(bytes: &[u8], number: FileNumber, offset: u64) -> Option<u64> {
    let note = bytes.first_chunk::<NOTE_BYTES>()?;
    let synced_bytes = u64_at(note, 0)?;
    (encode_note(number, offset, synced_bytes) == *note).then_some(synced_bytes)
}

/// A record that says how far the segment was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncedRecord {
    /// Every byte below was synced when the record was written.
    pub synced_bytes: u64,
    /// For an end record, the next segment's number.
    pub end: Option<FileNumber>,
}

impl SyncedRecord {
    /// Decodes the payload of a verified watermark or end record; `None` for any other.
    #[must_use]
    pub fn decode(record_type: u8, payload: &[u8]) -> Option<Self> {
        const WATERMARK: u8 = RecordType::Watermark as u8;
        const END: u8 = RecordType::End as u8;
        match (record_type, payload.len()) {
            (WATERMARK, 8) => Some(Self {
                synced_bytes: u64_at(payload, 0)?,
                end: None,
            }),
            (END, 16) => Some(Self {
                synced_bytes: u64_at(payload, 8)?,
                end: Some(u64_at(payload, 0)?),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

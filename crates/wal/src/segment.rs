//! A segment file as a whole: what its header says, and the three ways to begin writing one (new,
//! over a recycled file, after a clean end).
//!
//! Invariant: a writer exists only for a segment whose header page is on stable storage (`create`,
//! `recycle`) or has just been read and verified (`reopen`), so that a record is never written
//! where the header could not vouch for it. The callers are db (the WAL) and manifest.

use std::path::Path;
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::fs::{FileSystem, WritableFile};

use crate::format::{
    FEATURE_GROWN, FEATURE_SYNCED_COPIES, FEATURE_SYNCED_NOTE, FIRST_RECORD_OFFSET, FLAG_RECYCLED,
    HEADER_PAGE_BYTES, HeaderPage, NOTE_BYTES, NOTE_OFFSET, RECORD_ALIGNMENT, SECOND_NOTE_OFFSET,
    TAIL_RESERVE_BYTES, decode_note,
};
use crate::writer::{Begun, SegmentWriter};

/// The shortest segment with copies of what is synced: in a shorter one they would leave too little room
/// for records.
const COPIED_SEGMENT_BYTES: u64 = FIRST_RECORD_OFFSET + (16 << 10);

/// What the header of a segment says about its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SegmentHeader {
    /// The number in the segment's file name. Every checksum in the segment depends on it.
    pub number: FileNumber,
    /// The sequence number of the first write that may be in the segment.
    pub first_sequence: u64,
    /// The segment before this one; 0 for none.
    pub previous: FileNumber,
}

/// How a segment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SegmentOptions {
    /// The length of the file, bytes, all of which is allocated at once; 0 for a file that grows
    /// with its records (whose truncation cannot be told from a crash).
    pub segment_bytes: u64,
    /// Whether buffered appends are copies into a map of the file, where the file system has maps.
    pub mapped: bool,
    /// Whether [`SegmentWriter::grow`] may make it longer; versions before that refuse to read it.
    pub may_grow: bool,
    /// How many bytes of zeros a synced append writes ahead, so that the syncs after it find
    /// blocks that were written before; 0 for none.
    pub zero_ahead_bytes: u64,
    /// Whether small groups that are synced are written twice by the same sync, so that no damage to
    /// the last of them goes unnoticed (only in a preallocated segment of 24 KiB or more). All other syncs, and all of a
    /// segment without this, take a second one for the note that proves them.
    pub copied_syncs: bool,
}

impl SegmentOptions {
    /// The smallest `segment_bytes` that holds a record of `payload_bytes` beside all overhead.
    #[must_use]
    pub const fn segment_bytes_for(payload_bytes: usize) -> u64 {
        FIRST_RECORD_OFFSET + crate::format::record_bytes(payload_bytes) + TAIL_RESERVE_BYTES
    }
}

impl SegmentWriter {
    /// Creates `path`, allocates it, writes its header and syncs it. The caller syncs the directory
    /// before it relies on the segment.
    ///
    /// # Errors
    /// Whatever the file system says; [`ErrorKind::InvalidArgument`] for a `segment_bytes` that
    /// holds no record or is no multiple of 8. The file may be left behind, unusable.
    pub fn create(
        fs: &dyn FileSystem,
        path: &Path,
        header: SegmentHeader,
        options: SegmentOptions,
    ) -> Result<Self> {
        check_segment_bytes(options.segment_bytes)?;
        let file = fs
            .create(path)
            .map_err(|e| Error::io("create the log segment", path, e))?;
        begin(file, path, header, options, 0)
    }

    /// Takes over the file at `path`, a segment that is no longer needed and that the caller has
    /// renamed: its blocks stay, its records are disowned. Otherwise as [`SegmentWriter::create`].
    ///
    /// # Errors
    /// As [`SegmentWriter::create`].
    pub fn recycle(
        fs: &dyn FileSystem,
        path: &Path,
        header: SegmentHeader,
        options: SegmentOptions,
    ) -> Result<Self> {
        check_segment_bytes(options.segment_bytes)?;
        let file = fs
            .open_write(path)
            .map_err(|e| Error::io("open the log segment", path, e))?;
        begin(file, path, header, options, FLAG_RECYCLED)
    }

    /// Goes on writing at `offset`, the end that a reader's [`Clean`](crate::SegmentEnd::Clean)
    /// outcome reported. After any other outcome older records may stand behind the end and come
    /// back to life: begin another segment then. The length of the file is what its header says;
    /// `options.segment_bytes` is not looked at.
    ///
    /// # Errors
    /// Whatever the file system says, [`ErrorKind::Corruption`] where the header page is not that
    /// of `header`, [`ErrorKind::Unsupported`] where a later version forbids writing.
    pub fn reopen(
        fs: &dyn FileSystem,
        path: &Path,
        header: SegmentHeader,
        offset: u64,
        options: SegmentOptions,
    ) -> Result<Self> {
        let page = read_header_page(fs, path, header.number)?;
        if page.read_only_features != 0 {
            let message = "the log was written by a later version; this one may only read it";
            return Err(Error::new(ErrorKind::Unsupported, message).with_file(path));
        }
        if offset < page.first_record_offset() || !offset.is_multiple_of(RECORD_ALIGNMENT) {
            let message = "the offset to go on from is no end of a record";
            return Err(Error::invalid_argument(message)
                .with_file(path)
                .with_offset(offset));
        }
        let file = fs
            .open_write(path)
            .map_err(|e| Error::io("open the log segment", path, e))?;
        let old_bytes = file
            .len()
            .map_err(|e| Error::io("measure the log segment", path, e))?;
        let options = SegmentOptions {
            segment_bytes: match page.segment_bytes {
                bytes if page.may_grow() => bytes.max(old_bytes),
                bytes => bytes,
            },
            may_grow: page.may_grow(),
            copied_syncs: page.has_copies(),
            ..options
        };
        let window = map(&file, path, options)?;
        let recycled = page.flags & FLAG_RECYCLED != 0;
        let prewritten_bytes = match recycled {
            true => page.segment_bytes.max(offset),
            false => offset,
        };
        Ok(Self::at(Begun {
            file,
            window,
            path,
            header,
            options,
            first_record_offset: page.first_record_offset(),
            first_bytes: page.segment_bytes,
            has_note: page.has_note(),
            note_offset: free_note(fs, path, header.number)?,
            bytes: offset,
            prewritten_bytes,
        }))
    }
}

fn check_segment_bytes(segment_bytes: u64) -> Result<()> {
    let smallest = SegmentOptions::segment_bytes_for(0);
    if segment_bytes != 0
        && (segment_bytes < smallest || !segment_bytes.is_multiple_of(RECORD_ALIGNMENT))
    {
        let message = format!("a segment cannot be {segment_bytes} bytes long");
        return Err(Error::invalid_argument(message));
    }
    Ok(())
}

/// Makes `file` an empty segment, durably.
fn begin(
    file: Arc<dyn WritableFile>,
    path: &Path,
    header: SegmentHeader,
    options: SegmentOptions,
    flags: u32,
) -> Result<SegmentWriter> {
    let options = SegmentOptions {
        copied_syncs: options.copied_syncs && options.segment_bytes >= COPIED_SEGMENT_BYTES,
        may_grow: options.may_grow && options.segment_bytes > 0,
        ..options
    };
    let old_bytes = file
        .len()
        .map_err(|e| Error::io("measure the log segment", path, e))?;
    let wanted = options.segment_bytes;
    if old_bytes > wanted {
        file.set_len(wanted)
            .map_err(|e| Error::io("cut the log segment", path, e))?;
    }
    if wanted > 0 {
        file.allocate(wanted)
            .map_err(|e| Error::io("allocate the log segment", path, e))?;
    }
    let page = HeaderPage {
        number: header.number,
        previous: header.previous,
        first_sequence: header.first_sequence,
        segment_bytes: wanted,
        flags,
        incompatible_features: features(options),
        ..HeaderPage::default()
    };
    // With an empty page for the note: its block is written before the first sync of a record, which
    // then has no block to convert.
    let mut pages = page.encode();
    pages.resize(FIRST_RECORD_OFFSET as usize, 0);
    let stored = if flags & FLAG_RECYCLED != 0 && old_bytes == wanted {
        // Nothing but these pages has to be stored: what an earlier life has left unwritten is
        // disowned, and would take the device as long as a whole segment.
        file.write_synced_at(0, &pages)
    } else {
        file.write_at(0, &pages).and_then(|()| file.sync_data())
    };
    stored.map_err(|e| Error::io("write and sync the log header", path, e))?;
    let window = map(&file, path, options)?;
    let prewritten_bytes = old_bytes.clamp(FIRST_RECORD_OFFSET, wanted.max(FIRST_RECORD_OFFSET));
    let mut writer = SegmentWriter::at(Begun {
        file,
        window,
        path,
        header,
        options,
        first_record_offset: FIRST_RECORD_OFFSET,
        first_bytes: wanted,
        has_note: true,
        note_offset: NOTE_OFFSET,
        bytes: FIRST_RECORD_OFFSET,
        prewritten_bytes,
    });
    writer.mark_synced();
    Ok(writer)
}

/// What readers have to know for a segment that is written so.
fn features(options: SegmentOptions) -> u32 {
    let of = |is_on: bool, feature: u32| if is_on { feature } else { 0 };
    FEATURE_SYNCED_NOTE
        | of(options.copied_syncs, FEATURE_SYNCED_COPIES)
        | of(options.may_grow, FEATURE_GROWN)
}

pub(crate) fn map(
    file: &Arc<dyn WritableFile>,
    path: &Path,
    options: SegmentOptions,
) -> Result<Option<Box<dyn esker_vfs::fs::MappedWriter>>> {
    if !options.mapped || options.segment_bytes == 0 {
        return Ok(None);
    }
    file.map(options.segment_bytes)
        .map_err(|e| Error::io("map the log segment", path, e))
}

/// Which of the two notes says less: the next one takes its place.
fn free_note(fs: &dyn FileSystem, path: &Path, number: FileNumber) -> Result<u64> {
    let read = || {
        let file = fs.open_read(path)?;
        let mut said = [None; 2];
        for (said, offset) in said.iter_mut().zip([NOTE_OFFSET, SECOND_NOTE_OFFSET]) {
            let mut note = [0; NOTE_BYTES];
            if offset + NOTE_BYTES as u64 <= file.len()? {
                file.read_exact_at(&mut note, offset)?;
            }
            *said = decode_note(&note, number, offset);
        }
        Ok(said)
    };
    let [first, second] = read().map_err(|e| Error::io("read the log segment", path, e))?;
    Ok(if first > second {
        SECOND_NOTE_OFFSET
    } else {
        NOTE_OFFSET
    })
}

/// Reads and verifies the header page of the segment at `path`, which must have the number
/// `expected`.
pub(crate) fn read_header_page(
    fs: &dyn FileSystem,
    path: &Path,
    expected: FileNumber,
) -> Result<HeaderPage> {
    let file = fs
        .open_read(path)
        .map_err(|e| Error::io("open the log segment", path, e))?;
    let bytes = file
        .len()
        .map_err(|e| Error::io("measure the log segment", path, e))?;
    let mut page = vec![0; bytes.min(HEADER_PAGE_BYTES as u64) as usize];
    file.read_exact_at(&mut page, 0)
        .map_err(|e| Error::io("read the log header", path, e))?;
    let header = HeaderPage::decode(&page).map_err(|e| e.with_file(path))?;
    if header.number != expected {
        let message = format!(
            "the header is that of segment {}, not {expected}",
            header.number
        );
        return Err(Error::corruption(message).with_file(path).with_offset(32));
    }
    Ok(header)
}

//! What is in one file of a database, in words: for people who look into a directory with nothing
//! but this library, and for `esker dump-wal`, `dump-table` and `dump-manifest`.
//!
//! Invariant: reads the one file that it is given, whether or not the database is open or can be
//! opened, and writes no file. Everything that is whole is printed before damage is reported. Keys
//! are printed whole and values cut short, both with what is not plain ASCII escaped.

mod mark;

use crate::archived_segment::ArchivedSegment;
use esker_base::filename::{FileKind, FileNumber};
use esker_base::internal_key::{SequenceNumber, ValueKind};
use esker_base::iterator::InternalIterator as _;
use esker_base::limits::VALUE_LEVEL;
use esker_base::value_pointer::ValuePointer;
use esker_base::write_batch::{BatchView, Record, split_expiry};
use esker_base::{Error, ErrorKind, Result};
use esker_manifest::{
    AddedTable, ChangeCursorEdit, KeyspaceEdit, RecoveryPointEdit, RunPlacement, VersionEdit,
};
use esker_sstable::{BlockCache, FillCache, Properties, Table, TableCache, TableIter};
use esker_vfs::OsFileSystem;
use esker_wal::{RecordType, SegmentEnd, SegmentReader};
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// The longest part of a value that is printed, bytes.
const SHOWN_VALUE_BYTES: usize = 64;

/// Prints the batches and marks of a write-ahead log segment, live or archived, and how the segment
/// ends.
///
/// # Errors
/// `InvalidArgument` where the name is not that of a segment; `Corruption` where the header, a
/// batch, or anything that had been synced is damaged; `Io` from the file or from `out`.
pub fn dump_wal(path: &Path, out: &mut dyn Write) -> Result<()> {
    let archived = || {
        let name = path.file_name()?.to_str()?;
        ArchivedSegment::parse(Path::new(""), name, 0).map(|segment| segment.number())
    };
    let number = match kind_of(path) {
        Some(FileKind::WalSegment(number)) => Some(number),
        _ => archived(),
    };
    let number = number.ok_or_else(|| misnamed(path, "a log segment", "000001.wal"))?;
    dump_segment(path, number, out, |kind, payload, offset, out| {
        if kind == RecordType::Mark {
            return mark::dump_mark(payload, offset, out);
        }
        let batch = BatchView::parse(payload)?;
        let (first, count) = (batch.sequence(), u64::from(batch.count()));
        let last = first + count.saturating_sub(1);
        say(
            out,
            format_args!("at {offset}: batch of {count}, sequence {first} to {last}"),
        )?;
        for (sequence, record) in (first..).zip(batch.records()) {
            say(
                out,
                format_args!(
                    "  {}",
                    Described {
                        sequence,
                        record: record?
                    }
                ),
            )?;
        }
        Ok(())
    })
}

/// Prints the edits of a manifest, and how it ends.
///
/// # Errors
/// As [`dump_wal`].
pub fn dump_manifest(path: &Path, out: &mut dyn Write) -> Result<()> {
    let number = match kind_of(path) {
        Some(FileKind::Manifest(number)) => number,
        _ => return Err(misnamed(path, "a manifest", "MANIFEST-000001")),
    };
    dump_segment(path, number, out, |_, payload, offset, out| {
        let edit = VersionEdit::decode(payload)?;
        say(out, format_args!("at {offset}: edit"))?;
        dump_edit(&edit, out)
    })
}

fn dump_edit(edit: &VersionEdit, out: &mut dyn Write) -> Result<()> {
    // No `..`: a field that is added to edits must be added here.
    let VersionEdit {
        next_file_number,
        last_sequence,
        oldest_segment,
        added_segments,
        removed_segments,
        keyspaces,
        database_id,
        options,
        recovery_points,
        change_cursors,
        largest_keyspace,
        latest_millis,
        completes_snapshot,
        is_published,
    } = edit;
    let numbers = [
        ("next file number", *next_file_number),
        ("last sequence", *last_sequence),
        ("oldest segment", *oldest_segment),
        ("largest keyspace", largest_keyspace.map(u64::from)),
        ("latest wall time, milliseconds,", *latest_millis),
        (
            "bytes of options",
            options.as_ref().map(|options| options.len() as u64),
        ),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            say(out, format_args!("  {name} {number}"))?;
        }
    }
    if let Some(id) = database_id {
        say(
            out,
            format_args!("  database id {:032x}", u128::from_be_bytes(*id)),
        )?;
    }
    for number in added_segments {
        say(out, format_args!("  segment {number} added"))?;
    }
    for number in removed_segments {
        say(out, format_args!("  segment {number} removed"))?;
    }
    for cursor in change_cursors {
        match cursor {
            ChangeCursorEdit::Set { name, acknowledged } => {
                say(
                    out,
                    format_args!("  change cursor {name:?} has acknowledged {acknowledged}"),
                )?;
            }
            ChangeCursorEdit::Removed { name } => {
                say(out, format_args!("  change cursor {name:?} removed"))?;
            }
        }
    }
    for point in recovery_points {
        match point {
            RecoveryPointEdit::Added { name, bytes } => {
                let bytes = bytes.len();
                say(
                    out,
                    format_args!("  recovery point {name:?} added, {bytes} bytes"),
                )?;
            }
            RecoveryPointEdit::Removed { name } => {
                say(out, format_args!("  recovery point {name:?} removed"))?;
            }
        }
    }
    for keyspace in keyspaces {
        dump_keyspace_edit(keyspace, out)?;
    }
    if *completes_snapshot {
        say(out, format_args!("  completes the snapshot"))?;
    }
    if *is_published {
        say(out, format_args!("  CURRENT names this manifest"))?;
    }
    Ok(())
}

fn dump_keyspace_edit(edit: &KeyspaceEdit, out: &mut dyn Write) -> Result<()> {
    let KeyspaceEdit {
        id,
        create,
        drop,
        set_options,
        flushed_sequence,
        removed,
        added,
        lost_values,
    } = edit;
    if let Some((name, options)) = create {
        let bytes = options.len();
        say(
            out,
            format_args!("  keyspace {id} created as {name:?}, {bytes} bytes of options"),
        )?;
    }
    if let Some(options) = set_options {
        let bytes = options.len();
        say(
            out,
            format_args!("  keyspace {id} has new options, {bytes} bytes"),
        )?;
    }
    if let Some(sequence) = flushed_sequence {
        say(
            out,
            format_args!("  keyspace {id} flushed up to sequence {sequence}"),
        )?;
    }
    for number in removed {
        say(out, format_args!("  keyspace {id} loses table {number}"))?;
    }
    for number in lost_values {
        say(
            out,
            format_args!("  keyspace {id} gives up the values of table {number}"),
        )?;
    }
    for AddedTable { level, run, meta } in added {
        if *level == VALUE_LEVEL {
            let (number, bytes, entries) = (meta.number, meta.file_bytes, meta.entries);
            say(
                out,
                format_args!(
                    "  keyspace {id} gains table {number} of {entries} values: {bytes} bytes"
                ),
            )?;
            continue;
        }
        let run = match run {
            RunPlacement::Existing(run) => format!("run {run}"),
            RunPlacement::Created(run) => format!("new run {run}"),
            RunPlacement::New => "a new run".to_owned(),
        };
        let (number, bytes, entries) = (meta.number, meta.file_bytes, meta.entries);
        let (smallest, largest) = (Shown(&meta.bounds.smallest), End(&meta.bounds.largest));
        say(
            out,
            format_args!(
                "  keyspace {id} gains table {number} in level {level}, {run}: {bytes} bytes, \
                 {entries} entries, keys {smallest} to {largest}"
            ),
        )?;
    }
    if *drop {
        say(out, format_args!("  keyspace {id} dropped"))?;
    }
    Ok(())
}

/// Prints what a table says of itself, its entries in order, and its range tombstones.
///
/// # Errors
/// As [`dump_wal`].
pub fn dump_table(path: &Path, out: &mut dyn Write) -> Result<()> {
    let number = match kind_of(path) {
        Some(FileKind::Table(number)) => number,
        _ => return Err(misnamed(path, "a table", "000001.sst")),
    };
    let fs = Arc::new(OsFileSystem::new());
    let blocks = BlockCache::new(0);
    let table = Table::open(fs.as_ref(), path, number, Arc::clone(&blocks))?;
    let properties = table.properties().clone();
    dump_properties(&properties, out)?;
    let directory = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let cache = TableCache::new(fs, directory, blocks, 4);
    let handle = cache.handle(Arc::new(properties.meta));
    let mut entries = TableIter::new(&handle, FillCache::No)?;
    entries.seek_to_first()?;
    while entries.valid() {
        let trailer = entries.trailer();
        let kind = trailer.kind().ok_or_else(|| {
            Error::corruption("a table holds an entry of an unknown kind").with_file(path)
        })?;
        let record = Record {
            keyspace: 0,
            kind,
            key: entries.user_key(),
            value: entries.value(),
        };
        say(
            out,
            format_args!(
                "{}",
                Described {
                    sequence: trailer.sequence(),
                    record
                }
            ),
        )?;
        entries.next()?;
    }
    for (start, end, sequences) in table.range_tombstones().iter() {
        let (start, end) = (Shown(start), End(end));
        say(
            out,
            format_args!("range tombstone {start} to {end}, sequences {sequences:?}"),
        )?;
    }
    Ok(())
}

fn dump_properties(properties: &Properties, out: &mut dyn Write) -> Result<()> {
    let meta = &properties.meta;
    say(
        out,
        format_args!("table {}, {} bytes", meta.number, meta.file_bytes),
    )?;
    let (smallest, largest) = (Shown(&meta.bounds.smallest), End(&meta.bounds.largest));
    let excluded = if meta.bounds.largest_is_exclusive {
        " (excluded)"
    } else {
        ""
    };
    say(out, format_args!("keys {smallest} to {largest}{excluded}"))?;
    let (oldest, newest) = (meta.smallest_sequence, meta.largest_sequence);
    say(out, format_args!("sequences {oldest} to {newest}"))?;
    let (entries, tombstones) = (meta.entries, meta.tombstones);
    let (ranges, expiring) = (meta.range_tombstones, meta.expiring_entries);
    say(
        out,
        format_args!(
            "{entries} entries: {tombstones} tombstones, {expiring} that expire; \
             {ranges} range tombstones"
        ),
    )?;
    for one in &meta.value_refs {
        let (records, bytes, number) = (one.records, one.bytes, one.number);
        say(
            out,
            format_args!("points to {records} values of {bytes} bytes in table {number}"),
        )?;
    }
    let (stored, plain) = (properties.data_bytes, properties.uncompressed_data_bytes);
    let (count, compression) = (properties.data_blocks, properties.compression);
    say(
        out,
        format_args!("{count} data blocks: {stored} bytes, {plain} uncompressed, {compression:?}"),
    )?;
    say(
        out,
        format_args!(
            "filter {:?}, checksum {:016x}",
            properties.filter, meta.checksum
        ),
    )
}

/// Walks through the records of a segment and says how it ends.
fn dump_segment(
    path: &Path,
    number: FileNumber,
    out: &mut dyn Write,
    mut print: impl FnMut(RecordType, &[u8], u64, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let fs = OsFileSystem::new();
    let mut segment = SegmentReader::open(&fs, path, number)?;
    let header = segment.header();
    let (first, previous) = (header.first_sequence, header.previous);
    say(
        out,
        format_args!(
            "segment {number}, first sequence {first}, after segment {previous} (0: none)"
        ),
    )?;
    loop {
        // The payload borrows the reader, which then cannot be asked where the payload lies.
        let Some((kind, payload)) = segment.next_or_mark()? else {
            break;
        };
        let payload = payload.to_vec();
        let offset = segment.offset();
        let printed = print(kind, &payload, offset, out);
        printed.map_err(|error| match error.kind() {
            ErrorKind::Corruption => error.with_file(path).with_offset(offset),
            _ => error,
        })?;
    }
    let end = segment.end_offset();
    if segment.has_restored() {
        let sentence = "records were taken from copies: they do not stand whole in their place";
        say(out, format_args!("{sentence}"))?;
    }
    match segment.outcome() {
        Some(SegmentEnd::Damaged { offset, reason, .. }) => {
            say(out, format_args!("damaged at {offset}: {reason}"))?;
            Err(Error::corruption(reason.clone())
                .with_file(path)
                .with_offset(*offset))
        }
        Some(SegmentEnd::Sealed { next }) => say(
            out,
            format_args!("complete at {end}; segment {next} follows (0: none)"),
        ),
        Some(SegmentEnd::Torn) => say(
            out,
            format_args!("torn at {end}: what follows was never synced"),
        ),
        Some(SegmentEnd::Clean) | None => say(out, format_args!("open at {end}")),
    }
}

fn kind_of(path: &Path) -> Option<FileKind> {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(FileKind::parse)
}

fn misnamed(path: &Path, what: &str, example: &str) -> Error {
    let sentence = format!("the name is not that of {what}, such as {example}");
    Error::invalid_argument(sentence).with_file(path)
}

fn say(out: &mut dyn Write, line: fmt::Arguments<'_>) -> Result<()> {
    writeln!(out, "{line}").map_err(|error| {
        Error::new(ErrorKind::Io, "could not write what the file holds").with_source(error)
    })
}

/// A record in words.
struct Described<'a> {
    sequence: SequenceNumber,
    record: Record<'a>,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record {
            keyspace,
            kind,
            key,
            value,
        } = self.record;
        write!(f, "{} ", self.sequence)?;
        if keyspace != 0 {
            write!(f, "in keyspace {keyspace} ")?;
        }
        let key = Shown(key);
        match kind {
            ValueKind::Value => write!(f, "put {key} = {}", Cut(value)),
            ValueKind::ValueWithExpiry => match split_expiry(value) {
                Some((expiry, value)) => {
                    write!(f, "put {key} = {} until {expiry} ms after 1970", Cut(value))
                }
                None => write!(f, "put {key} with an expiry that is cut short"),
            },
            kind if kind.is_pointer() => match ValuePointer::of_stored(kind, value) {
                Ok((expiry, at)) => {
                    let (bytes, number, offset) = (at.value_bytes, at.number, at.offset);
                    write!(f, "put {key} = {bytes} bytes in table {number} at {offset}")?;
                    match expiry {
                        Some(expiry) => write!(f, " until {expiry} ms after 1970"),
                        None => Ok(()),
                    }
                }
                Err(_) => write!(f, "put {key} with a pointer that is malformed"),
            },
            ValueKind::Tombstone => write!(f, "delete {key}"),
            ValueKind::RangeDelete => write!(f, "delete range {key} to {}", End(value)),
            other => write!(f, "{other:?} {key} = {}", Cut(value)),
        }
    }
}

/// Bytes in quotes, with what is not plain ASCII escaped.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The end of a range, which is empty where the range has none.
struct End<'a>(&'a [u8]);

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("the last key")
        } else {
            Shown(self.0).fmt(f)
        }
    }
}

/// A value, cut short where it is long.
struct Cut<'a>(&'a [u8]);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..SHOWN_VALUE_BYTES) {
            Some(start) if self.0.len() > SHOWN_VALUE_BYTES => {
                write!(f, "{}... ({} bytes)", Shown(start), self.0.len())
            }
            _ => Shown(self.0).fmt(f),
        }
    }
}

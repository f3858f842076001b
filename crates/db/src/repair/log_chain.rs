//! Which log segments the new manifest names, told without the old one.
//!
//! Segments that nothing needs may still be there, waiting for their reuse, and their records may long
//! have been overwritten. Reading a log from some point to its very end is right whatever the tables
//! hold, because the last word on each key that it mentions is in it; reading one with a gap is not. So
//! what counts is the chain of segments, each naming the one before it, that ends with the newest. A
//! segment names in its header what it was to follow when it was made, which may be earlier than what it
//! came to follow; the end record of the one before it says that for certain, and is believed first.
//! A segment that was made ahead and never used is empty, and at the end or in nobody's chain.

use super::{Contents, Files, Part, RepairReport};
use crate::salvage::Loss;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::write_batch::BatchView;
use esker_base::{ErrorKind, Result};
use esker_vfs::FileSystem;
use esker_wal::{SegmentEnd, SegmentReader};
use std::path::Path;

/// Adds the segments, and the keyspaces that only they know of.
pub(crate) fn add(
    fs: &dyn FileSystem,
    directory: &Path,
    files: &Files,
    contents: &mut Contents,
    report: &mut RepairReport,
) -> Result<()> {
    let mut wanted: Option<FileNumber> = None;
    let mut follower = 0;
    for &number in files.segments.iter().rev() {
        let path = wal_path(directory, number);
        match SegmentReader::open(fs, &path, number) {
            Ok(mut found) => {
                if wanted.is_some_and(|wanted| wanted > number) {
                    break;
                }
                if wanted.is_some_and(|wanted| wanted < number) && !is_before(&mut found, follower)?
                {
                    continue;
                }
                contents.segments.push(number);
                let mut reader = SegmentReader::open(fs, &path, number)?;
                note_keyspaces(&mut reader, contents)?;
                follower = number;
                match reader.header().previous {
                    0 => break,
                    previous => wanted = Some(previous),
                }
            }
            Err(error) if error.kind() == ErrorKind::Corruption => {
                let bytes = fs.metadata(&path).map_or(0, |entry| entry.bytes);
                let loss = Loss::of(&path, &error);
                report.losses.push(Loss { bytes, ..loss });
                if wanted == Some(number) {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    contents.segments.sort_unstable();
    Ok(())
}

/// Whether the end record of a segment says that `follower` goes on from there.
fn is_before(reader: &mut SegmentReader, follower: FileNumber) -> Result<bool> {
    while reader.next()?.is_some() {}
    Ok(matches!(reader.outcome(), Some(SegmentEnd::Sealed { next }) if *next == follower))
}

/// Keyspaces that have no table yet have a number in the log, and no name.
fn note_keyspaces(reader: &mut SegmentReader, contents: &mut Contents) -> Result<()> {
    while let Some(payload) = reader.next()? {
        let Ok(batch) = BatchView::parse(payload) else {
            break;
        };
        let last = batch.sequence() + u64::from(batch.count());
        contents.last_sequence = contents.last_sequence.max(last);
        for record in batch.records() {
            let Ok(record) = record else { break };
            let id = record.keyspace;
            contents.keyspaces.entry(id).or_insert_with(|| Part {
                name: format!("recovered-{id}"),
                ..Part::default()
            });
        }
    }
    Ok(())
}

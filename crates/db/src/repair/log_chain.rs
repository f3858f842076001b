//! Which log segments the new manifest names, told without the old one.
//!
//! Segments that nothing needs may still be there, waiting for their reuse, and their records may long
//! have been overwritten. Reading a log from some point to its very end is right whatever the tables
//! hold, because the last word on each key that it mentions is in it; reading one with a gap is not. So
//! what counts is the chain of segments, each naming the one before it, that ends with the newest.

use super::{Contents, Files, Part, RepairReport};
use crate::salvage::Loss;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::write_batch::BatchView;
use esker_base::{ErrorKind, Result};
use esker_vfs::FileSystem;
use esker_wal::SegmentReader;
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
    for &number in files.segments.iter().rev() {
        let path = wal_path(directory, number);
        match SegmentReader::open(fs, &path, number) {
            Ok(mut reader) if wanted.is_none_or(|wanted| wanted == number) => {
                contents.segments.push(number);
                note_keyspaces(&mut reader, contents)?;
                match reader.header().previous {
                    0 => break,
                    previous => wanted = Some(previous),
                }
            }
            Ok(_) => {}
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

//! Which files of the archive of the log go: what neither its limits nor a cursor of the feed of changes
//! keeps.
//!
//! Invariants: files go from the oldest on, so that what is left has no hole; no file that a cursor
//! needs goes before the limit of those. Called with the lock of the archive held.

use crate::archived_segment::ArchivedSegment;
use crate::engine::Engine;
use crate::restored_base;
use crate::table_files::remove_if_there;
use esker_base::filename::FileNumber;
use esker_base::{Result, SequenceNumber};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Engine {
    /// Removes what neither the limits of the archive nor a cursor keeps, the oldest first. The caller
    /// holds the lock of the archive.
    pub(crate) fn prune_archive(&self) -> Result<()> {
        let segments = self.archived_segments()?;
        let pins = Pins::of(self, &segments);
        let now = self.clock().now_millis();
        let most_bytes = self.settings.wal_archive_limit_bytes();
        let most_millis = self.settings.wal_archive_max_age();
        for directory in [&self.archive.directory, &self.archive.followed] {
            let is_archive = *directory == self.archive.directory;
            if is_archive && !self.archive.is_wanted() {
                continue;
            }
            let here = |segment: &&ArchivedSegment| segment.path.parent() == Some(directory);
            let mut bytes: u64 = segments
                .iter()
                .filter(here)
                .map(ArchivedSegment::bytes)
                .sum();
            let mut gone = Vec::new();
            for segment in segments.iter().filter(here) {
                let age = u128::from(now.saturating_sub(segment.archived_millis));
                let too_old = most_millis.is_some_and(|most| age > most.as_millis());
                let is_kept = is_archive && !too_old && most_bytes.is_none_or(|most| bytes <= most);
                if is_kept || pins.keep(segment) {
                    break;
                }
                gone.push(segment);
                bytes -= segment.bytes;
            }
            if let Some(last) = gone.iter().map(|segment| segment.last_sequence).max()
                && is_archive
            {
                // First: after a crash in between they are no less of use than the segments are.
                restored_base::remove_before(self, last)?;
            }
            for segment in gone {
                remove_if_there(&*self.fs, &segment.path)?;
            }
        }
        Ok(())
    }

    /// What each cursor keeps in the archive, by its name, and all of them together.
    pub(crate) fn pinned_by_cursors(&self) -> Result<(Vec<(String, u64)>, u64)> {
        let cursors = Arc::clone(&self.versions.state().change_cursors);
        if cursors.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let segments = self.archived_segments()?;
        let behind = |acknowledged: SequenceNumber| -> u64 {
            let needed = segments.iter().filter(|s| s.last_sequence > acknowledged);
            needed.map(ArchivedSegment::bytes).sum()
        };
        let pinned = cursors.iter().map(|(name, &at)| (name.clone(), behind(at)));
        let all = cursors.values().min().map_or(0, |&slowest| behind(slowest));
        Ok((pinned.collect(), all))
    }
}

/// What cursors of the feed of changes keep.
pub(crate) struct Pins {
    /// Everything up to here is acknowledged by all of them; `None` without any.
    acknowledged: Option<SequenceNumber>,
    /// Segments from this number on are within what they may keep.
    from: FileNumber,
}

impl Pins {
    /// What cursors keep of these segments.
    pub(crate) fn of(engine: &Engine, segments: &[ArchivedSegment]) -> Self {
        let most = engine.settings.change_retention_bytes();
        let making = engine.archive.making.load(Ordering::Acquire);
        // After the look at the one that is being made: it is one of these by the time it is made.
        let cursors = Arc::clone(&engine.versions.state().change_cursors);
        let making = (making != SequenceNumber::MAX).then_some(making);
        let mut bytes = 0;
        let within = segments.iter().rev().take_while(|segment| {
            bytes += segment.bytes;
            bytes <= most
        });
        Self {
            acknowledged: cursors.values().copied().chain(making).min(),
            from: within
                .last()
                .map_or(FileNumber::MAX, |segment| segment.number),
        }
    }

    /// Whether one of them keeps this segment.
    pub(crate) fn keep(&self, segment: &ArchivedSegment) -> bool {
        let is_needed = |acknowledged| segment.last_sequence > acknowledged;
        self.acknowledged.is_some_and(is_needed) && segment.number >= self.from
    }
}

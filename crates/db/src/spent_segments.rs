//! Files and maps of log segments that nobody writes to any more, until the background closes them.
//!
//! Invariant: whoever holds the writer lock leaves them here and goes on. Closing the file of a released
//! segment frees its pages and its blocks, which takes some three milliseconds for 16 MiB, and taking
//! down a map takes one. They are few: beyond [`MOST`] whoever adds to them closes them. What is here is
//! never written, mapped or synced again. Called by `log` and `segments`, with the writer lock held, and by the
//! background, without.

use crate::engine::Engine;
use esker_base::sync::Mutex;
use esker_compaction::Lane;
use esker_vfs::MappedWriter;
use esker_wal::SegmentWriter;
use std::sync::Arc;

/// What may wait: more than a flush releases, even one that is far behind.
const MOST: usize = 32;

#[derive(Debug, Default)]
struct Spent {
    files: Vec<SegmentWriter>,
    maps: Vec<Box<dyn MappedWriter>>,
}

/// What is to be closed.
#[derive(Debug, Default)]
pub(crate) struct SpentSegments(Mutex<Spent>);

impl SpentSegments {
    /// Leaves writers to be closed.
    pub(crate) fn add_files(&self, files: impl Iterator<Item = SegmentWriter>) {
        self.add(|spent| spent.files.extend(files));
    }

    /// Leaves a map to be taken down, if there is one.
    pub(crate) fn add_map(&self, map: Option<Box<dyn MappedWriter>>) {
        self.add(|spent| spent.maps.extend(map));
    }

    fn add(&self, add: impl FnOnce(&mut Spent)) {
        let mut spent = self.0.lock();
        add(&mut spent);
        if spent.files.len() + spent.maps.len() > MOST {
            let too_many = std::mem::take(&mut *spent);
            drop(spent);
            drop(too_many);
        }
    }

    /// Whether there is anything.
    pub(crate) fn any(&self) -> bool {
        let spent = self.0.lock();
        !spent.files.is_empty() || !spent.maps.is_empty()
    }

    /// Closes all of it.
    pub(crate) fn close(&self) {
        let spent = std::mem::take(&mut *self.0.lock());
        drop(spent);
    }
}

impl Engine {
    /// Closes what is left of earlier segments, in the background.
    #[cold]
    pub(crate) fn close_spent(self: &Arc<Self>) {
        if !self.background.begin_log_job() {
            return;
        }
        let engine = Arc::clone(self);
        let job = move || {
            engine.segments.spent.close();
            engine.background.end_log_job();
        };
        self.executor.spawn(Lane::Log, Box::new(job));
    }

    /// After segments were released: closes those that waited for a sync, unless somebody writes just now,
    /// who will leave them with the next segment.
    pub(crate) fn close_released(&self) {
        if let Some(mut writer) = self.commit_queue.try_lock() {
            writer.log.leave_released(self);
        }
        self.segments.spent.close();
    }
}

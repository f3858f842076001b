//! Files of manifest edits that failed, and the moment they may go.
//!
//! Invariant (I1): whether a failed edit is on disk is unknown until a new MANIFEST has taken over, so
//! that the tables or the segment it was to add must stay until then. From then on nothing names them
//! and nothing ever will, since whoever failed makes other files for its next attempt; kept until the
//! next open, each failure would cost its bytes on a disk that is full already. Jobs note such files
//! here; what ends a job removes those whose fate is known, in the order of their numbers, so that a
//! simulated run repeats itself.

use crate::engine::Engine;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::sync::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// Files that nobody will name any more, if the manifest does not.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    any: AtomicBool,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    tables: BTreeSet<FileNumber>,
    segments: BTreeSet<FileNumber>,
}

impl GivenUp {
    /// Notes tables of a failed edit.
    pub(crate) fn note_tables(&self, numbers: impl IntoIterator<Item = FileNumber>) {
        self.files.lock().tables.extend(numbers);
        self.any.store(true, Ordering::Release);
    }

    /// Notes a log segment of a failed edit.
    pub(crate) fn note_segment(&self, number: FileNumber) {
        self.files.lock().segments.insert(number);
        self.any.store(true, Ordering::Release);
    }

    /// Whether the file of this number waits here.
    pub(crate) fn holds(&self, number: FileNumber) -> bool {
        let files = self.files.lock();
        files.tables.contains(&number) || files.segments.contains(&number)
    }
}

impl Engine {
    /// Removes files that nothing needs any more: those whose last reader is gone, and those of failed
    /// edits of which it is certain by now that the manifest does not name them.
    pub(crate) fn remove_unneeded_files(&self) {
        if self.given_up.any.load(Ordering::Acquire) {
            self.remove_given_up();
        }
        self.tables.remove_unread();
    }

    #[cold]
    fn remove_given_up(&self) {
        let mut files = self.given_up.files.lock();
        let named = self.versions.live_files();
        let (kept, gone) = files.tables.iter().partition(|it| named.contains(it));
        files.tables = kept;
        let gone: BTreeSet<FileNumber> = gone;
        self.tables.retire(gone);
        files.segments.retain(|&number| {
            if named.contains(&number) {
                return true;
            }
            let removed = self.fs.remove_file(&wal_path(&self.directory, number));
            let stays = |error: &std::io::Error| error.kind() != std::io::ErrorKind::NotFound;
            removed.is_err_and(|error| stays(&error))
        });
        let any = !files.tables.is_empty() || !files.segments.is_empty();
        self.given_up.any.store(any, Ordering::Release);
    }
}

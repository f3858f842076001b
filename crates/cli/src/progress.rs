//! The bar on standard error while something long runs; nothing where that is no terminal.
//!
//! Invariant: costs the verb a few additions for each group of records. Called by the verbs that
//! take long.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use esker::Db;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

const REDRAWN_AFTER: Duration = Duration::from_millis(100);

/// A bar that a thread of its own keeps up to date, until it is dropped.
pub(crate) struct Watched {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some((ends, thread)) = self.thread.take() {
            drop(ends);
            // It only draws: what became of it changes nothing.
            let _ = thread.join();
        }
    }
}

/// A bar for a stream of records.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for a stream of `total_bytes`, or of an unknown length.
    pub(crate) fn new(total_bytes: Option<u64>) -> Self {
        let (bar, template) = match total_bytes {
            Some(total) => (
                ProgressBar::new(total),
                "{elapsed} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {msg}, {eta} left",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{elapsed} {spinner} {bytes}, {bytes_per_sec}, {msg}",
            ),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    /// A bar for what the database tells of itself while this thread waits for it: a backup, a restore, a
    /// compaction.
    pub(crate) fn of_work(db: &Db, message: &'static str) -> Watched {
        let bar = ProgressBar::new(0);
        let template = "{elapsed} {msg} {wide_bar} {bytes}/{total_bytes}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message);
        let bar = Self { bar };
        if bar.bar.is_hidden() {
            return Watched { thread: None };
        }
        let (ends, ended) = channel::<()>();
        let db = db.clone();
        let watch = move || {
            while ended.recv_timeout(REDRAWN_AFTER) == Err(RecvTimeoutError::Timeout) {
                if let Some(so_far) = db.work_progress() {
                    bar.advance(so_far.done_bytes, so_far.total_bytes);
                }
                bar.bar.tick();
            }
        };
        let thread = std::thread::spawn(watch);
        Watched {
            thread: Some((ends, thread)),
        }
    }

    /// A bar for something that tells how far it is in bytes.
    pub(crate) fn bytes() -> Self {
        let bar = ProgressBar::new(0);
        let template = "{elapsed} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// `done` of `total` bytes are done.
    pub(crate) fn advance(&self, done: u64, total: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_length(total);
            self.bar.set_position(done);
        }
    }

    /// The stream has come to byte `bytes` and record `records`.
    pub(crate) fn set(&self, bytes: u64, records: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_position(bytes);
            self.bar
                .set_message(format!("{} records", HumanCount(records)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

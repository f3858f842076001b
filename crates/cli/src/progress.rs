//! The bar on standard error while something long runs; nothing where that is no terminal.
//!
//! Invariant: costs the verb a few additions for each group of records. Called by the verbs that
//! take long.

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

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

    /// A sign of life while something runs whose length nobody knows.
    pub(crate) fn spinner(message: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{elapsed} {spinner} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(message);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar }
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

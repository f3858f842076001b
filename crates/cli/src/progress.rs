//! The bar on standard error while records stream by; nothing where that is no terminal.
//!
//! Invariant: costs the verb a few additions for each group of records. Called by `import` and
//! `export`.

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

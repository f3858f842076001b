//! A progress bar per phase, on the terminal's error stream; nothing where that is no terminal.
//!
//! Invariant: it never writes to the standard output, which belongs to the results.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// The bar of one phase.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    duration: Option<Duration>,
}

impl Progress {
    /// Begins a phase of `operations` operations, or of `duration`.
    pub(crate) fn start(name: &str, operations: u64, duration: Option<Duration>) -> Self {
        let length = duration.map_or(operations, |duration| duration.as_millis() as u64);
        let bar = ProgressBar::new(length).with_message(name.to_owned());
        let template = "{msg:18} {bar:32} {percent:>3} % {prefix}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            start: Instant::now(),
            duration,
        }
    }

    /// `done` operations have ended by now.
    pub(crate) fn at(&mut self, done: u64) {
        let elapsed = self.start.elapsed();
        let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
        self.bar.set_prefix(format!("{rate:.0} operations/s"));
        self.bar.set_position(match self.duration {
            Some(_) => elapsed.as_millis() as u64,
            None => done,
        });
    }

    /// Removes the bar.
    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}

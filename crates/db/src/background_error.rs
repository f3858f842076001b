//! What stops writes: the latched failure of the log, and how it is cured.
//!
//! Invariant (I3): after a failed append or sync of the log no write is acknowledged until every
//! record that the log alone held is durable in tables and the log goes on in a new segment. Reads
//! are never stopped.

use esker_base::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether writes may go on.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: AtomicBool,
    cause: Mutex<Option<Error>>,
}

impl Health {
    /// Fails where the log has failed and is not cured.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            Err(self.stopped())
        } else {
            Ok(())
        }
    }

    #[cold]
    fn stopped(&self) -> Error {
        let cause = self.cause.lock();
        let Some(cause) = &*cause else {
            return Error::new(ErrorKind::Background, "the log failed");
        };
        let kind = match cause.kind() {
            ErrorKind::NoSpace => ErrorKind::NoSpace,
            _ => ErrorKind::Background,
        };
        let sentence = "writes are stopped until what the failed log holds is safe in tables";
        Error::new(kind, sentence).with_source(cause.clone())
    }

    /// Whether writes are stopped.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Stops writes; the first cause is the one that is told.
    pub(crate) fn latch_log_failure(&self, error: &Error) {
        tracing::error!(%error, "the log failed; writes stop");
        self.cause.lock().get_or_insert_with(|| error.clone());
        self.failed.store(true, Ordering::Release);
    }

    /// The log that was read at open may be in memory only: it has to be replaced before the first
    /// write, which is what a failed one needs too.
    pub(crate) fn distrust_log(&self) {
        let sentence = "the log of the last life was not synced to its end";
        *self.cause.lock() = Some(Error::new(ErrorKind::Background, sentence));
        self.failed.store(true, Ordering::Release);
    }

    /// Lets writes go on.
    pub(crate) fn cure(&self) {
        self.cause.lock().take();
        self.failed.store(false, Ordering::Release);
        tracing::info!("the log was replaced; writes go on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_is_told_until_it_is_cured() {
        let health = Health::default();
        assert!(health.check().is_ok());
        health.latch_log_failure(&Error::new(ErrorKind::NoSpace, "full"));
        health.latch_log_failure(&Error::new(ErrorKind::Io, "second"));
        assert_eq!(health.check().unwrap_err().kind(), ErrorKind::NoSpace);
        health.cure();
        assert!(health.check().is_ok());
    }
}

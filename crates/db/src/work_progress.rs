//! How far the long things are that somebody waits for: backups, restores and requested compactions.
//!
//! Invariants: what is told of one never goes back and never exceeds its total; what has ended, however, is
//! told no more. Costs an addition for each table. They begin one here, and shells ask for their bars.

use crate::db::Db;
use esker_base::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far something long is: [`Db::work_progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkProgress {
    /// Bytes done so far.
    pub done_bytes: u64,
    /// Bytes that there are to be done, or an estimate.
    pub total_bytes: u64,
}

/// One long thing: what a counter has gained since it began.
#[derive(Debug)]
struct Work {
    counter: Arc<AtomicU64>,
    began_at: u64,
    total_bytes: u64,
}

/// The long things that are under way.
#[derive(Debug, Default)]
pub(crate) struct WorkGauge {
    under_way: Mutex<Vec<Arc<Work>>>,
}

/// Something long that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    gauge: &'a WorkGauge,
    work: Arc<Work>,
}

impl WorkGauge {
    /// Something begins that tells itself what it does, of `total_bytes`.
    pub(crate) fn begin(&self, total_bytes: u64) -> UnderWay<'_> {
        self.follow(&Arc::default(), total_bytes)
    }

    /// Something begins that is measured by what `counter` gains, of about `total_bytes`.
    pub(crate) fn follow(&self, counter: &Arc<AtomicU64>, total_bytes: u64) -> UnderWay<'_> {
        let work = Arc::new(Work {
            counter: Arc::clone(counter),
            began_at: counter.load(Relaxed),
            total_bytes,
        });
        self.under_way.lock().push(Arc::clone(&work));
        UnderWay { gauge: self, work }
    }

    fn read(&self) -> Option<WorkProgress> {
        let under_way = self.under_way.lock();
        let all = under_way.iter().map(|work| {
            let gained = work.counter.load(Relaxed).saturating_sub(work.began_at);
            (gained.min(work.total_bytes), work.total_bytes)
        });
        all.map(|(done_bytes, total_bytes)| WorkProgress {
            done_bytes,
            total_bytes,
        })
        .reduce(|a, b| WorkProgress {
            done_bytes: a.done_bytes + b.done_bytes,
            total_bytes: a.total_bytes + b.total_bytes,
        })
    }
}

impl UnderWay<'_> {
    /// `bytes` more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.work.counter.fetch_add(bytes, Relaxed);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = self.gauge.under_way.lock();
        under_way.retain(|work| !Arc::ptr_eq(work, &self.work));
    }
}

impl Db {
    /// How far the backups, restores and requested compactions are that run now, all together; `None` where
    /// none does. For whoever shows a bar while another thread waits for one.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = esker::Db::open(dir.path())?;
    /// db.put("k", "v")?;
    /// std::thread::scope(|scope| {
    ///     let backup = scope.spawn(|| db.create_backup("nightly"));
    ///     if let Some(so_far) = db.work_progress() {
    ///         println!("{} of {} bytes", so_far.done_bytes, so_far.total_bytes);
    ///     }
    ///     backup.join().unwrap()
    /// })?;
    /// assert!(db.work_progress().is_none());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn work_progress(&self) -> Option<WorkProgress> {
        self.engine().work.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_told_until_it_ends() {
        let gauge = WorkGauge::default();
        assert_eq!(gauge.read(), None);
        let counter = Arc::new(AtomicU64::new(1000));
        let merge = gauge.follow(&counter, 50);
        let told = |done_bytes, total_bytes| {
            Some(WorkProgress {
                done_bytes,
                total_bytes,
            })
        };
        assert_eq!(gauge.read(), told(0, 50));
        counter.fetch_add(20, Relaxed);
        let backup = gauge.begin(100);
        backup.advance(30);
        assert_eq!(gauge.read(), told(50, 150));
        counter.fetch_add(200, Relaxed);
        assert_eq!(gauge.read(), told(80, 150), "an estimate is not exceeded");
        drop(merge);
        assert_eq!(gauge.read(), told(30, 100));
        drop(backup);
        assert_eq!(gauge.read(), None);
    }
}

//! Has tables that reads miss blocks of again and again loaded into the cache by the background.
//!
//! Loads without reads leave the cache empty, so that what reads them first would wait for one block after
//! the other. Which tables are worth it is for the table to say ([`Table::wants_warming`]).
//!
//! Invariants (I8): a read waits for nothing here; it takes a lock only to start the job, once for each open
//! table. What cannot be loaded is left to the reads that need it, which say what is wrong. Called by
//! `read_toll` for the reads that it counts.

use crate::engine::{Engine, Mode};
use esker_compaction::Lane;
use esker_compaction::executor::guarded;
use esker_sstable::{Table, TableHandle};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Engine {
    /// Starts loading the rest of a table that was just read if it is worth it and nothing else runs.
    #[inline]
    pub(crate) fn warm_if_wanted(self: &Arc<Self>, handle: &TableHandle) {
        if self.mode == Mode::Disk
            && let Some(table) = handle.open_table()
            && table.wants_warming()
        {
            self.schedule_warming(handle);
        }
    }

    #[cold]
    fn schedule_warming(self: &Arc<Self>, handle: &TableHandle) {
        let Ok(table) = handle.table_arc() else {
            return;
        };
        {
            let mut state = self.background.state.lock();
            // Reads ask again soon, and want the processors for themselves meanwhile.
            if state.stopping || state.compactions > 0 {
                return;
            }
            state.compactions += 1;
        }
        let engine = Arc::clone(self);
        let job = move || {
            engine.warm(&table);
            engine.background.state.lock().compactions -= 1;
            engine.background.notify();
            // What came due meanwhile may have found no thread free.
            engine.schedule_compactions(None);
        };
        self.executor.spawn(Lane::Compaction, Box::new(job));
    }

    fn warm(&self, table: &Table) {
        let goes_on = || !self.background.cancelled.load(Ordering::Relaxed) && !self.is_closed();
        if let Err(error) = guarded(|| table.warm_up(goes_on)) {
            tracing::warn!(%error, "a table could not be loaded for reads");
        }
    }
}

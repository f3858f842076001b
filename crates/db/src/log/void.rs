//! What the log says before something that does not stand in it.
//!
//! Invariant: numbers of writes that never happened are said to be void by a mark of their own before a number is given
//! to what is written past the log. That brings the number into tables, or ends with the life, and the next life would
//! take all before it for writes that happened: an archived copy of the log may hold some that the power took.
//! Called by whoever commits, loads or restores, with the writer lock held.

use super::Log;
use crate::engine::Engine;
use esker_base::{Result, SequenceNumber};
use esker_wal::SyncMode;

impl Log {
    /// Says in an archived log which numbers before `next` are void, if that is not said yet. Durable with the next
    /// sync, which comes before the memtables are sealed.
    #[cold]
    pub(crate) fn write_void(&mut self, engine: &Engine, next: SequenceNumber) -> Result<()> {
        let (from, reasons) = self.marker.unlogged();
        if !engine.archive.is_on() || from >= next || !reasons.are_void() {
            return Ok(());
        }
        self.append_with_marks(engine, &[], next, SyncMode::Buffered, || false)
    }
}

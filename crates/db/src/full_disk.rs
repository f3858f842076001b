//! What writers may do on a full disk: delete.
//!
//! Invariants: a group of writes that finds no room in memory or log goes on with its deletes alone,
//! and the others are told `NoSpace`; memory stays bounded all the same (I9): a memtable grows by
//! [`EXTRA_BYTES`] at most, and one more than usual is sealed. Deletes never wait for a flush that has
//! just failed; every so often they have one tried, since a range tombstone that is flushed with what
//! it covers leaves nothing to write.

use crate::commit::{Member, Writer};
use crate::engine::{Engine, Mode};
use esker_base::{Error, ErrorKind, Result};
use std::sync::Arc;

/// How much a memtable may outgrow its limit by deletes that a full disk keeps from being flushed.
const EXTRA_BYTES: usize = 8 << 20;
/// How often, at most, deletes have a flush tried.
const RELIEF_INTERVAL_MICROS: u64 = 100_000;

impl Engine {
    /// Notes how the last flush went: on a full disk no file of a table waits for another to go first.
    pub(crate) fn note_room(&self, flushed: &Result<()>) {
        let is_full = |error: &Error| error.kind() == ErrorKind::NoSpace;
        let wants_room = flushed.as_ref().is_err_and(is_full);
        self.tables
            .set_wants_room(wants_room || self.mode == Mode::Memory);
    }

    /// As [`Engine::note_room`], of a log that failed to take a write.
    #[cold]
    pub(crate) fn note_log_room(&self, error: &Error) {
        if error.kind() == ErrorKind::NoSpace && self.tables.set_wants_room(true) {
            self.tables.remove_unread();
        }
    }

    /// Fails where the last flush found the disk full and only deletes are to be written.
    #[cold]
    pub(crate) fn check_not_known_full(&self, members: &[Member<'_>]) -> Result<()> {
        let state = self.background.state.lock();
        match &state.flush_error {
            Some(error)
                if error.kind() == ErrorKind::NoSpace
                    && members.iter().all(Member::has_only_deletes) =>
            {
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    /// Refuses every member but deletes that there is memory for, where `error` is that the disk is
    /// full. Whether any is left.
    #[cold]
    pub(crate) fn refuse_all_but_deletes(&self, members: &mut [Member<'_>], error: &Error) -> bool {
        if error.kind() != ErrorKind::NoSpace || !self.logs_writes() {
            return false;
        }
        let most = self
            .settings
            .write_buffer_bytes()
            .saturating_add(EXTRA_BYTES);
        let mut any_left = false;
        for member in members.iter_mut().filter(|member| !member.is_refused()) {
            let mut keyspaces = member.keyspaces().iter();
            let fits = keyspaces.all(|state| state.load().active.memtable.bytes() < most);
            if fits && member.has_only_deletes() {
                any_left = true;
            } else {
                member.refuse(error);
            }
        }
        any_left
    }

    /// After deletes went on where nothing else could: has them flushed, with whatever waits for that,
    /// so that what they cover is let go.
    #[cold]
    pub(crate) fn relieve(self: &Arc<Self>, writer: &mut Writer, members: &[Member<'_>]) {
        let now = self.clock.monotonic_micros();
        if now < writer.next_relief_micros {
            return;
        }
        writer.next_relief_micros = now + RELIEF_INTERVAL_MICROS;
        if self.secure_log(writer).is_err() {
            return;
        }
        let most = self.settings.max_sealed_memtables();
        for state in members.iter().flat_map(Member::keyspaces) {
            let view = state.load_full();
            if !view.active.memtable.is_empty() && view.sealed.len() <= most {
                self.seal(writer, state);
            }
        }
        self.schedule_flush();
    }
}

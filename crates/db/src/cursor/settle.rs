//! Where a cursor comes to stand: from the record that its merge stands on to the next entry that is seen.
//!
//! Invariant: of the records of a key the newest one that is seen counts, and all others are passed over.
//! Called by the movements of `cursor`, which have moved the merge.

use super::Source;
use super::body::{Body, Position};
use super::covers::Covers;
use crate::merged::{self, OldestFirst};
use crate::read::{Visibility, judge};
use esker_base::internal_key::{MAX_SEQUENCE, Trailer};
use esker_base::iterator::{Direction as Way, InternalIterator, Step};
use esker_base::key_bounds::end_is_above;
use esker_base::operand_chain::OperandChain;
use esker_base::{Result, ValueKind};

/// So many records that are too new to be seen are passed one by one before what is seen of their key is searched
/// for.
const UNSEEN_BEFORE_SEEK: usize = 16;
/// So many records of a key are gone past backwards before the one that counts is searched for.
const GATHERED_BEFORE_SEEK: usize = 32;

impl Body {
    /// From where the merge stands, forwards to the first visible entry. With `skip_key`, records of
    /// the key in the buffer are passed first.
    #[inline]
    pub(super) fn settle_forwards(&mut self, skip_key: bool) -> Result<()> {
        if skip_key && self.merge.valid() && self.merge.user_key() == self.key.as_slice() {
            self.leave_key()?;
        }
        let mut unseen = 0;
        while self.merge.valid() {
            let trailer = self.merge.trailer();
            if !self.view.sees(trailer.sequence()) {
                self.pass_unseen(&mut unseen)?;
                continue;
            }
            let end = self.range.end();
            if !end.is_empty() && !end_is_above(end, self.merge.user_key()) {
                return Ok(());
            }
            if self.is_plain(trailer) {
                self.position = Position::Forwards { skip: 0 };
                return Ok(());
            }
            match self.judge()? {
                Visibility::Visible { skip, .. } => {
                    self.position = Position::Forwards { skip };
                    return Ok(());
                }
                Visibility::Apart { .. } => {
                    if self.fetch_forwards()? {
                        return Ok(());
                    }
                }
                Visibility::Operand => return self.merge_forwards(),
                Visibility::Hidden => {}
            }
            // The key's newest visible record hides it: none of its older ones counts.
            self.buffer_key();
            self.leave_key()?;
        }
        Ok(())
    }

    /// From a record of a key that is done with, and in the buffer, to the next record of another key.
    #[inline]
    fn leave_key(&mut self) -> Result<()> {
        if self.merge.step(Way::Forward)? == Step::Stayed && self.merge.pass_key(&self.key)? {
            self.view.note_search();
        }
        Ok(())
    }

    /// Goes past a record that is too new to be seen, and after many of one key to the first of the key that is
    /// seen, or the next key. `unseen` counts those of the key that were passed.
    fn pass_unseen(&mut self, unseen: &mut usize) -> Result<()> {
        *unseen = match self.merge.neighbour_differs(Way::Forward) {
            true => 0,
            false => *unseen + 1,
        };
        // What a transaction sees of its own writes has sequence numbers above all others.
        if *unseen < UNSEEN_BEFORE_SEEK || self.view.overlay.is_some() {
            return self.merge.next();
        }
        *unseen = 0;
        self.buffer_key();
        self.merge
            .seek(&self.key, Trailer::seek(self.view.sequence))
    }

    /// Whether the record with this trailer that the merge stands on, of whose key none was passed over, is
    /// an entry as it stands.
    #[inline]
    pub(super) fn is_shown_as_is(&self, trailer: Trailer) -> bool {
        let end = self.range.end();
        trailer.kind() == Some(ValueKind::Value)
            && trailer.sequence() < self.plain_end
            && (end.is_empty() || end_is_above(end, self.merge.user_key()))
    }

    /// Whether a visible record with this trailer is a value as it stands. Of most records that is told
    /// without a look at the rest of them, or at the clock, which lies some way off.
    #[inline]
    fn is_plain(&self, trailer: Trailer) -> bool {
        trailer.kind() == Some(ValueKind::Value)
            && self.covers.as_ref().is_some_and(Covers::is_empty)
    }

    /// What the visible record means that the merge stands on.
    fn judge(&mut self) -> Result<Visibility> {
        let covers = self.covers.get_or_insert_default();
        self.view.judge(covers, &self.merge.record())
    }

    /// Makes the entry of the operand that the merge stands on and of what lies under it.
    #[cold]
    fn merge_forwards(&mut self) -> Result<()> {
        self.buffer_key();
        let mut chain = OperandChain::default();
        while self.merge.valid() && self.merge.user_key() == self.key.as_slice() {
            let trailer = self.merge.trailer();
            if self.view.sees(trailer.sequence()) {
                let covers = self.covers.get_or_insert_default();
                if covers.hide(&self.view, &self.key, trailer.sequence())
                    || !merged::add_older(
                        &mut chain,
                        &self.view.super_version().values,
                        &self.key,
                        trailer,
                        self.merge.value(),
                    )?
                {
                    break;
                }
            }
            self.merge.next()?;
        }
        self.value = merged::fold(&chain, self.view.keyspace().state().operator(), &self.key)?;
        self.position = Position::Merged;
        Ok(())
    }

    /// From where the merge stands, backwards to the first visible entry.
    #[inline]
    pub(super) fn settle_backwards(&mut self) -> Result<()> {
        self.position = Position::Nowhere;
        while self.merge.valid() {
            let start = self.range.start();
            if !start.is_empty() && self.merge.user_key() < start {
                return Ok(());
            }
            // The usual case: a key with one record, which is the newest one.
            if self.merge.neighbour_differs(Way::Backward) {
                let trailer = self.merge.trailer();
                let is_seen = self.view.sees(trailer.sequence());
                if is_seen && self.is_plain(trailer) {
                    self.position = Position::Backwards { skip: 0 };
                    return Ok(());
                }
                let judged = match is_seen {
                    true => self.judge()?,
                    false => Visibility::Hidden,
                };
                match judged {
                    Visibility::Visible { skip, .. } => {
                        self.position = Position::Backwards { skip };
                        return Ok(());
                    }
                    Visibility::Hidden => {
                        self.merge.prev()?;
                        continue;
                    }
                    Visibility::Operand | Visibility::Apart { .. } => {}
                }
            }
            if self.gather_backwards()? {
                self.position = Position::Buffered;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes backwards past all records of the key that the merge stands on. They are met oldest
    /// first, so that the last visible one met is the one that counts; of many it is searched for. Says whether that
    /// leaves a value, which is in the buffer then.
    fn gather_backwards(&mut self) -> Result<bool> {
        self.buffer_key();
        let mut met = OldestFirst::default();
        let mut apart = None;
        let (mut count, mut has_seen) = (0, false);
        while self.merge.valid() && self.merge.user_key() == self.key.as_slice() {
            count += 1;
            // Of a transaction the last ones may be its own.
            if count > GATHERED_BEFORE_SEEK && (has_seen || self.view.overlay.is_none()) {
                return self.search_newest(has_seen);
            }
            let trailer = self.merge.trailer();
            if self.view.sees(trailer.sequence()) {
                has_seen = true;
                self.meet(&mut met, &mut apart, trailer)?;
            }
            self.merge.prev()?;
        }
        if let Some(kind) = apart
            && !self.fetch_backwards(kind)?
        {
            return Ok(false);
        }
        let operator = self.view.keyspace().state().operator();
        let has_value = met.settle(&mut self.value, operator, &self.key);
        self.note_buffers();
        has_value
    }

    /// As [`Body::gather_backwards`], for the key in the buffer: by a search for its newest visible record, if any
    /// that was met `has_seen` to be visible, and one for the record before all of its own.
    ///
    /// Where none was, those to come are newer still. They may have been written while the merge was on its way
    /// from a key that it is done with, or that lies behind its bound: what is seen of that must not be found.
    #[cold]
    fn search_newest(&mut self, has_seen: bool) -> Result<bool> {
        if matches!(self.merge.current_child(), Source::Memtable(_)) {
            self.view.note_search();
        }
        let has_value = has_seen && self.fetch_newest()?;
        self.position = Position::Nowhere;
        let before = Trailer::seek(MAX_SEQUENCE);
        self.merge.seek_for_prev(&self.key, before)?;
        // Damaged tables may have records of the key in the first place that there is.
        while self.merge.valid() && self.merge.user_key() == self.key.as_slice() {
            self.merge.prev()?;
        }
        Ok(has_value)
    }

    /// Searches the newest visible record of the key in the buffer. Says whether that leaves a value, which is in the
    /// buffer then.
    fn fetch_newest(&mut self) -> Result<bool> {
        // What a transaction sees of its own writes has sequence numbers above all others.
        let newest = match self.view.overlay {
            Some(_) => MAX_SEQUENCE,
            None => self.view.sequence,
        };
        self.merge.seek(&self.key, Trailer::seek(newest))?;
        while self.merge.valid() && self.merge.user_key() == self.key.as_slice() {
            if !self.view.sees(self.merge.trailer().sequence()) {
                self.merge.next()?;
                continue;
            }
            return Ok(match self.judge()? {
                Visibility::Hidden => false,
                Visibility::Visible { skip, .. } => {
                    self.value.clear();
                    self.value.extend_from_slice(&self.merge.value()[skip..]);
                    true
                }
                Visibility::Apart { .. } => self.fetch_forwards()?,
                Visibility::Operand => {
                    self.merge_forwards()?;
                    true
                }
            });
        }
        Ok(false)
    }

    /// Takes the record that the merge stands on into account; those of its key are met oldest first.
    #[inline]
    fn meet(
        &mut self,
        met: &mut OldestFirst,
        apart: &mut Option<ValueKind>,
        trailer: Trailer,
    ) -> Result<()> {
        let covers = self.covers.get_or_insert_default();
        if covers.hide(&self.view, &self.key, trailer.sequence()) {
            met.hidden();
            *apart = None;
            return Ok(());
        }
        let clock = self.view.keyspace().engine().clock();
        match judge(trailer, self.merge.value(), clock)? {
            Visibility::Hidden => {
                met.hidden();
                *apart = None;
            }
            Visibility::Operand => {
                if let Some(kind) = apart.take()
                    && !self.fetch_base(kind)?
                {
                    met.hidden();
                }
                met.operand(&self.value, self.merge.value());
            }
            Visibility::Apart { expiry_millis } => {
                self.value.clear();
                self.value.extend_from_slice(self.merge.value());
                met.value(expiry_millis.is_some());
                *apart = trailer.kind();
            }
            Visibility::Visible {
                skip,
                expiry_millis,
            } => {
                self.value.clear();
                self.value.extend_from_slice(&self.merge.value()[skip..]);
                met.value(expiry_millis.is_some());
                *apart = None;
            }
        }
        Ok(())
    }
}

//! A cursor on entries whose values are kept apart.
//!
//! Invariant: a value is read when its entry is the one that the cursor comes to stand on, and not
//! before; never where only keys are wanted. One that a salvage gave up is no entry.

use super::body::{Body, Position};
use esker_base::iterator::InternalIterator;
use esker_base::{Result, ValueKind};

impl Body {
    /// Stands on the record of the merge, whose value is kept apart; `false` where it was given up.
    #[cold]
    pub(super) fn fetch_forwards(&mut self) -> Result<bool> {
        let (key, trailer, stored) = (
            self.merge.user_key(),
            self.merge.trailer(),
            self.merge.value(),
        );
        let values = &self.view.super_version().values;
        let kind = trailer.kind().unwrap_or(ValueKind::ValuePointer);
        if self.keys_only {
            self.value.clear();
            if values.is_lost(kind, stored)? {
                return Ok(false);
            }
        } else {
            match values.value(key, kind, stored)? {
                Some(value) => self.buffer_value(&value)?,
                None => return Ok(false),
            }
        }
        self.position = Position::Apart;
        Ok(true)
    }

    /// The buffer holds the record that stands for the value of the key in the other buffer: that is
    /// brought here; `false` where it was given up.
    #[cold]
    pub(super) fn fetch_backwards(&mut self, kind: ValueKind) -> Result<bool> {
        if self.keys_only {
            let values = &self.view.super_version().values;
            return Ok(!values.is_lost(kind, &self.value)?);
        }
        self.fetch_base(kind)
    }

    /// As [`Body::fetch_backwards`], for operands: what they make of it is asked of their operator, which may
    /// refuse other bytes than those of the value.
    #[cold]
    pub(super) fn fetch_base(&mut self, kind: ValueKind) -> Result<bool> {
        let values = &self.view.super_version().values;
        match values.value(&self.key, kind, &self.value)? {
            Some(value) => {
                self.buffer_value(&value)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

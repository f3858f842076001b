//! The range tombstones of a view, and which records they hide.
//!
//! Invariant: the fragment that was asked for last is remembered, so that keys in order cost a comparison
//! each. Asked by a cursor for every record that it may show.

use super::View;
use esker_base::SequenceNumber;
use esker_base::key_bounds::end_is_above;
use esker_base::range_tombstone::FragmentedTombstones;

/// Range tombstones with the fragment that was asked for last.
#[derive(Default)]
pub(super) struct Cover {
    tombstones: FragmentedTombstones,
    start: Vec<u8>,
    end: Vec<u8>,
    sequence: Option<SequenceNumber>,
    known: bool,
}

impl Cover {
    /// `None` where there are none: then nothing is to be asked.
    pub(super) fn new(tombstones: FragmentedTombstones) -> Option<Box<Self>> {
        if tombstones.is_empty() {
            return None;
        }
        Some(Box::new(Self {
            tombstones,
            ..Self::default()
        }))
    }

    /// Whether a tombstone visible at `visible` hides a record of `key` with `sequence`.
    #[inline]
    fn hides(&mut self, key: &[u8], sequence: SequenceNumber, visible: SequenceNumber) -> bool {
        let inside = self.known && self.start.as_slice() <= key && end_is_above(&self.end, key);
        if !inside {
            let fragment = self.tombstones.fragment_at(key, visible);
            self.start.clear();
            self.start.extend_from_slice(fragment.start);
            self.end.clear();
            self.end.extend_from_slice(fragment.end);
            self.sequence = fragment.sequence;
            self.known = true;
        }
        self.sequence.is_some_and(|covering| covering > sequence)
    }
}

/// All range tombstones of a view.
#[derive(Default)]
pub(super) struct Covers {
    pub(super) base: Option<Box<Cover>>,
    pub(super) overlay: Option<Box<Cover>>,
}

impl Covers {
    /// Whether there are no range tombstones.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.base.is_none() && self.overlay.is_none()
    }

    /// Whether a range tombstone hides a record of `key` with `sequence`.
    #[inline]
    pub(super) fn hide(&mut self, view: &View, key: &[u8], sequence: SequenceNumber) -> bool {
        !self.is_empty() && self.any_hides(view, key, sequence)
    }

    #[inline(never)]
    fn any_hides(&mut self, view: &View, key: &[u8], sequence: SequenceNumber) -> bool {
        let overlay = view.overlay.as_ref().zip(self.overlay.as_mut());
        let base = self.base.as_mut();
        base.is_some_and(|base| base.hides(key, sequence, view.sequence))
            || overlay.is_some_and(|(view, cover)| cover.hides(key, sequence, view.visible))
    }
}

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
    pub(super) fn new(tombstones: FragmentedTombstones) -> Self {
        Self {
            tombstones,
            ..Self::default()
        }
    }

    /// Whether a tombstone visible at `visible` hides a record of `key` with `sequence`.
    #[inline]
    fn hides(&mut self, key: &[u8], sequence: SequenceNumber, visible: SequenceNumber) -> bool {
        if self.tombstones.is_empty() {
            return false;
        }
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
    pub(super) base: Cover,
    pub(super) overlay: Cover,
}

impl Covers {
    #[inline]
    pub(super) fn hide(&mut self, view: &View, key: &[u8], sequence: SequenceNumber) -> bool {
        let overlay = view.overlay.as_ref();
        self.base.hides(key, sequence, view.sequence)
            || overlay.is_some_and(|o| self.overlay.hides(key, sequence, o.visible))
    }
}

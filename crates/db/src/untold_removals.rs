//! Tables that were let go of by an edit that added none, so that no table on the disk says they are gone.
//!
//! Without a manifest, repair knows what is gone from the tables that were made since: each names what it
//! replaced, and what was gone when it was begun (`origins`). A merge of which nothing is left, a drop of tables and a
//! drop of a keyspace make none. Their tables hide each other, as a range delete hides the run below, and they
//! may be the last to name those that went before them and that a reader still keeps on the disk. So until a
//! flush that began later has a table that names them, their files go in steps, the oldest run first, each
//! after the files that went before it are gone for certain: whatever a crash leaves, what hides and names
//! outlives what is hidden and named. (The table of a later merge may not be the one to tell: repair does not
//! ask it while all of its own inputs are there.)
//!
//! Of tables that an open has found no order may be known (`strays`): these wait for that flush, and all steps for them.
//!
//! Where room is needed nothing waits: on a full disk the flush that would name them may need what they take.
//!
//! Invariant: a step has a number for as long as its file is there and nothing durable names it; the first
//! step is the only one that may go, unless room is needed. Kept by `table_references`.

use esker_base::filename::FileNumber;
use std::collections::{BTreeSet, VecDeque};

/// The steps that are left, the next first.
#[derive(Debug, Default)]
pub(crate) struct UntoldRemovals {
    steps: VecDeque<BTreeSet<FileNumber>>,
    /// Before all steps, and never next.
    unordered: BTreeSet<FileNumber>,
    /// Whether room is needed more than an order that only a repair without a manifest looks at.
    wants_room: bool,
}

impl UntoldRemovals {
    /// Adds steps behind those that are there.
    pub(crate) fn add(&mut self, steps: impl IntoIterator<Item = BTreeSet<FileNumber>>) {
        self.steps.extend(steps);
        self.drop_empty();
    }

    /// Adds those whose turn does not come.
    pub(crate) fn add_unordered(&mut self, numbers: impl IntoIterator<Item = FileNumber>) {
        self.unordered.extend(numbers);
    }

    /// Says that a durable table of the database names `numbers` as gone, or that their files are.
    pub(crate) fn forget(&mut self, numbers: &[FileNumber]) {
        for step in self.steps.iter_mut().chain([&mut self.unordered]) {
            for number in numbers {
                step.remove(number);
            }
        }
        self.drop_empty();
    }

    /// Whether `number` waits in a step.
    pub(crate) fn holds(&self, number: FileNumber) -> bool {
        let mut all = self.steps.iter().chain([&self.unordered]);
        all.any(|step| step.contains(&number))
    }

    /// Says whether what can go is to go, whatever stays. Whether that is new.
    pub(crate) fn set_wants_room(&mut self, wants_room: bool) -> bool {
        std::mem::replace(&mut self.wants_room, wants_room) != wants_room
    }

    /// Those of `unread` whose turn it is, where `all_retired` are all whose files are there.
    pub(crate) fn next_of(
        &self,
        unread: &[FileNumber],
        all_retired: &[FileNumber],
    ) -> BTreeSet<FileNumber> {
        let are_next = |step: &BTreeSet<FileNumber>| {
            let numbers = unread.iter().filter(|it| step.contains(it));
            numbers.copied().collect::<BTreeSet<_>>()
        };
        if self.wants_room {
            let mut steps = self.steps.iter().chain([&self.unordered]).map(are_next);
            return steps.find(|it| !it.is_empty()).unwrap_or_default();
        }
        let waits = !self.unordered.is_empty() || all_retired.iter().any(|it| !self.holds(*it));
        let first = self.steps.front().filter(|_| !waits);
        first.map(are_next).unwrap_or_default()
    }

    fn drop_empty(&mut self) {
        self.steps.retain(|step| !step.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(numbers: &[&[FileNumber]]) -> UntoldRemovals {
        let mut untold = UntoldRemovals::default();
        untold.add(numbers.iter().map(|step| step.iter().copied().collect()));
        untold
    }

    #[test]
    fn the_first_step_with_a_number_is_next() {
        let mut untold = steps(&[&[], &[4, 5], &[2]]);
        let next = |untold: &UntoldRemovals| {
            let next = untold.next_of(&[2, 4, 5], &[]);
            [2, 4, 5].map(|it| next.contains(&it))
        };
        assert_eq!(next(&untold), [false, true, true]);
        untold.forget(&[4]);
        assert_eq!(next(&untold), [false, false, true]);
        untold.add([BTreeSet::from([4])]);
        untold.forget(&[5, 9]);
        assert_eq!(next(&untold), [true, false, false]);
        assert!(untold.holds(4) && !untold.holds(5));
        untold.forget(&[2]);
        assert_eq!(next(&untold), [false, true, false]);
    }

    #[test]
    fn what_has_no_order_waits_to_be_named_or_for_want_of_room() {
        let mut untold = steps(&[&[4]]);
        untold.add_unordered([2, 3]);
        assert!(untold.holds(2) && untold.holds(4));
        assert_eq!(untold.next_of(&[2, 3, 4], &[2, 3, 4]), [].into());
        untold.set_wants_room(true);
        assert_eq!(untold.next_of(&[2, 3], &[2, 3, 4]), [2, 3].into());
        untold.set_wants_room(false);
        untold.forget(&[2, 3]);
        assert!(!untold.holds(2));
        assert_eq!(untold.next_of(&[4], &[4]), [4].into());
    }

    #[test]
    fn nothing_waits_where_room_is_needed() {
        let mut untold = steps(&[&[4], &[2, 3]]);
        assert_eq!(untold.next_of(&[4], &[2, 3, 4, 9]), [].into());
        assert_eq!(untold.next_of(&[3], &[2, 3, 4]), [].into());
        assert!(untold.set_wants_room(true) && !untold.set_wants_room(true));
        assert_eq!(untold.next_of(&[3, 4], &[2, 3, 4, 9]), [4].into());
        assert_eq!(untold.next_of(&[3], &[2, 3, 4, 9]), [3].into());
        assert!(untold.set_wants_room(false));
        assert_eq!(untold.next_of(&[3], &[2, 3, 4]), [].into());
    }
}

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
//! Invariant: a step has a number for as long as its file is there and nothing durable names it; the first
//! step is the only one that may go. Kept by `table_references`.

use esker_base::filename::FileNumber;
use std::collections::{BTreeSet, VecDeque};

/// The steps that are left, the next first.
#[derive(Debug, Default)]
pub(crate) struct UntoldRemovals {
    steps: VecDeque<BTreeSet<FileNumber>>,
}

impl UntoldRemovals {
    /// Adds steps behind those that are there.
    pub(crate) fn add(&mut self, steps: impl IntoIterator<Item = BTreeSet<FileNumber>>) {
        self.steps.extend(steps);
        self.drop_empty();
    }

    /// Says that a durable table of the database names `numbers` as gone, or that their files are.
    pub(crate) fn forget(&mut self, numbers: &[FileNumber]) {
        for step in &mut self.steps {
            for number in numbers {
                step.remove(number);
            }
        }
        self.drop_empty();
    }

    /// Whether `number` waits in a step.
    pub(crate) fn holds(&self, number: FileNumber) -> bool {
        self.steps.iter().any(|step| step.contains(&number))
    }

    /// Whether `number` may go once all that went before the steps is gone.
    pub(crate) fn is_next(&self, number: FileNumber) -> bool {
        self.steps
            .front()
            .is_some_and(|step| step.contains(&number))
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
        let next = |untold: &UntoldRemovals| [2, 4, 5].map(|it| untold.is_next(it));
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
}

//! What the filters of the newest runs say of a key, asked before anybody needs to know.
//!
//! A filter is a cache miss, and the run it is of is searched only if it lets the key through. Asked
//! one run after the other, the misses would follow each other. Nothing here depends on an answer, so
//! that the processor waits for all of them at once. Memtables come before, with filters of their own: to
//! take a table is a locked instruction.
//!
//! Invariant: a hint alone. It never opens a table, so that one that cannot be opened fails a read
//! only where the search comes to it. Used by `read`.

use super::search::KnownRuns;
use crate::super_version::SuperVersion;
use esker_sstable::{Lookup, Table, TableRef};

/// So many runs are asked together: a thread can hold a few tables at once cheaply.
pub(super) const ASKED_RUNS: usize = 4;

/// What is known of a run before it is searched.
#[derive(Clone, Copy)]
pub(crate) enum Verdict<'a> {
    /// Nothing.
    Unknown,
    /// No table of it has the key within its bounds.
    OutOfBounds,
    /// This one has, whether its filter lets the key through, and a lookup in it if one was begun.
    Table(&'a Table, bool, Option<&'a Lookup>),
}

enum Answer {
    Unknown,
    OutOfBounds,
    Table(TableRef, bool),
}

/// The verdicts on one key.
pub(crate) struct Verdicts {
    answers: [Answer; ASKED_RUNS],
}

impl Verdicts {
    /// Asks the newest runs of `view` for `key`, whose hash is `hash`.
    #[inline]
    pub(super) fn ask(view: &SuperVersion, key: &[u8], hash: u64) -> Self {
        let mut answers = [const { Answer::Unknown }; ASKED_RUNS];
        // Taking a table waits for loads that were begun before, so all are taken first.
        for (answer, run) in answers.iter_mut().zip(view.runs.iter()) {
            *answer = match run.find(key) {
                None => Answer::OutOfBounds,
                Some(handle) => match handle.open_table() {
                    Some(table) => Answer::Table(table, true),
                    None => Answer::Unknown,
                },
            };
        }
        for answer in &mut answers {
            if let Answer::Table(table, may_contain) = answer {
                *may_contain = table.may_contain(hash);
            }
        }
        Self { answers }
    }
}

impl KnownRuns for Verdicts {
    #[inline]
    fn on(&self, index: usize) -> Verdict<'_> {
        match self.answers.get(index) {
            None | Some(Answer::Unknown) => Verdict::Unknown,
            Some(Answer::OutOfBounds) => Verdict::OutOfBounds,
            Some(Answer::Table(table, may_contain)) => Verdict::Table(table, *may_contain, None),
        }
    }
}

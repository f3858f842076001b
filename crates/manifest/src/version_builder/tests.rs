//! Which edits apply, and what they leave.

use esker_base::ErrorKind;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;

use super::*;
use crate::version_edit::VersionEdit;

const KEYSPACE: u32 = 3;

fn add(level: usize, run: RunPlacement, number: u64, smallest: &str, largest: &str) -> AddedTable {
    let bounds = KeyBounds::inclusive(smallest, largest);
    let meta = Arc::new(TableMeta {
        number,
        bounds,
        entries: 1,
        ..TableMeta::default()
    });
    AddedTable { level, run, meta }
}

fn edit(removed: &[u64], added: Vec<AddedTable>) -> KeyspaceEdit {
    KeyspaceEdit {
        id: KEYSPACE,
        removed: removed.to_vec(),
        added,
        ..KeyspaceEdit::default()
    }
}

/// A version with the index that belongs to it.
#[derive(Clone, Default)]
struct Subject {
    version: Version,
    index: LiveIndex,
}

impl Subject {
    fn apply(&mut self, edit: KeyspaceEdit) -> Result<()> {
        apply(&mut self.version, &edit, &self.index)?;
        self.version.check_invariants()?;
        self.index.note(&VersionEdit {
            keyspaces: vec![edit],
            ..VersionEdit::default()
        });
        Ok(())
    }

    /// `level:run[table,...]` of all runs, newest first.
    fn drawn(&self) -> String {
        let runs = self.version.runs_newest_first().map(|(level, run)| {
            let tables: Vec<String> = run.tables.iter().map(|t| t.number.to_string()).collect();
            format!("{level}:{}[{}]", run.id, tables.join(","))
        });
        runs.collect::<Vec<_>>().join(" ")
    }
}

use RunPlacement::{Created, Existing, New};

fn subject() -> Subject {
    let mut subject = Subject::default();
    subject
        .apply(edit(&[], vec![add(0, Created(20), 1, "a", "m")]))
        .unwrap();
    subject
        .apply(edit(&[], vec![add(0, Created(21), 2, "a", "z")]))
        .unwrap();
    let level2 = vec![
        add(2, Created(22), 4, "k", "p"),
        add(2, Created(22), 3, "a", "c"),
    ];
    subject.apply(edit(&[], level2)).unwrap();
    assert_eq!(subject.drawn(), "0:21[2] 0:20[1] 2:22[3,4]");
    subject
}

#[test]
fn edits_and_what_they_leave() {
    let cases = [
        (
            "a flush",
            edit(&[], vec![add(0, Created(30), 9, "b", "c")]),
            "0:30[9] 0:21[2] 0:20[1] 2:22[3,4]",
        ),
        (
            "a merge into a run",
            edit(&[1, 3], vec![add(2, Existing(22), 9, "a", "j")]),
            "0:21[2] 2:22[9,4]",
        ),
        (
            "a run keeps its place",
            edit(&[2], vec![add(0, Existing(21), 9, "a", "b")]),
            "0:21[9] 0:20[1] 2:22[3,4]",
        ),
        (
            "a move of a table",
            edit(&[1], vec![add(1, Created(30), 1, "a", "m")]),
            "0:21[2] 1:30[1] 2:22[3,4]",
        ),
        ("an emptied level", edit(&[3, 4], vec![]), "0:21[2] 0:20[1]"),
        ("everything", edit(&[1, 2, 3, 4], vec![]), ""),
        (
            "two runs at once",
            edit(
                &[],
                vec![
                    add(1, Created(30), 8, "a", "b"),
                    add(1, Created(31), 9, "a", "b"),
                ],
            ),
            "0:21[2] 0:20[1] 1:31[9] 1:30[8] 2:22[3,4]",
        ),
    ];
    for (name, edit, expected) in cases {
        let mut subject = subject();
        subject.apply(edit).unwrap();
        assert_eq!(subject.drawn(), expected, "{name}");
        assert!(
            subject.version.levels.len() == 1
                || !subject.version.levels.last().unwrap().runs.is_empty()
        );
    }
}

#[test]
fn edits_that_are_refused() {
    let other = KeyspaceEdit {
        id: 4,
        ..edit(&[1], vec![])
    };
    let cases = [
        ("a table that is not there", edit(&[7], vec![])),
        ("a table removed twice", edit(&[1, 1], vec![])),
        ("a table of another keyspace", other),
        (
            "a table that is there already",
            edit(&[], vec![add(1, Created(30), 1, "a", "b")]),
        ),
        (
            "a table added twice",
            edit(
                &[],
                vec![
                    add(1, Created(30), 9, "a", "b"),
                    add(1, Created(30), 9, "x", "y"),
                ],
            ),
        ),
        (
            "an overlap to the left",
            edit(&[], vec![add(2, Existing(22), 9, "c", "d")]),
        ),
        (
            "an overlap to the right",
            edit(&[], vec![add(2, Existing(22), 9, "d", "k")]),
        ),
        (
            "an overlap around",
            edit(&[], vec![add(2, Existing(22), 9, "0", "z")]),
        ),
        (
            "a run that is not there",
            edit(&[], vec![add(0, Existing(99), 9, "d", "e")]),
        ),
        (
            "a run of another level",
            edit(&[], vec![add(1, Existing(22), 9, "d", "e")]),
        ),
        (
            "a run that is there already",
            edit(&[], vec![add(0, Created(22), 9, "d", "e")]),
        ),
        (
            "a run without a number",
            edit(&[], vec![add(0, New, 9, "d", "e")]),
        ),
        (
            "too deep a level",
            edit(&[], vec![add(MAX_LEVELS, Created(30), 9, "d", "e")]),
        ),
        (
            "a description that makes no sense",
            edit(&[], vec![add(0, Created(30), 9, "e", "d")]),
        ),
    ];
    for (name, edit) in cases {
        let error = subject().apply(edit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
    }
}

#[test]
fn a_shared_version_does_not_change() {
    let mut subject = subject();
    let before = subject.version.clone();
    let copy = subject.version.clone();
    subject
        .apply(edit(&[1, 3], vec![add(2, Existing(22), 9, "a", "j")]))
        .unwrap();
    assert_eq!(before, copy);
    let untouched = |version: &Version| Arc::as_ptr(&version.levels[0].runs[0]);
    assert_eq!(
        untouched(&before),
        untouched(&subject.version),
        "runs are shared"
    );
}

//! What is needed of value tables, and which edits may let go of them.

use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::ValueRef;

use super::*;
use crate::live_index::LiveIndex;
use crate::version_builder;
use crate::version_edit::{AddedTable, RunPlacement, VersionEdit};

fn values(number: FileNumber, entries: u64) -> AddedTable {
    AddedTable::of_values(Arc::new(TableMeta {
        number,
        entries,
        file_bytes: 1000 * entries,
        raw_value_bytes: 900 * entries,
        bounds: KeyBounds::inclusive("a", "z"),
        ..TableMeta::default()
    }))
}

fn table(number: FileNumber, key: &str, refs: &[(FileNumber, u64)]) -> AddedTable {
    let refs = refs.iter().map(|&(number, records)| ValueRef {
        number,
        records,
        bytes: 900 * records,
    });
    let meta = TableMeta {
        number,
        entries: 9,
        bounds: KeyBounds::inclusive(key, key),
        value_refs: refs.collect(),
        ..TableMeta::default()
    };
    AddedTable {
        level: 0,
        run: RunPlacement::Created(number + 1000),
        meta: Arc::new(meta),
    }
}

#[derive(Default)]
struct Subject {
    version: Version,
    index: LiveIndex,
}

impl Subject {
    fn apply(&mut self, edit: KeyspaceEdit) -> Result<()> {
        let mut next = self.version.clone();
        version_builder::apply(&mut next, &edit, &self.index)?;
        next.check_invariants()?;
        self.version = next;
        self.index.note(&VersionEdit {
            keyspaces: vec![edit],
            ..VersionEdit::default()
        });
        Ok(())
    }
}

fn edit(removed: &[FileNumber], added: Vec<AddedTable>) -> KeyspaceEdit {
    KeyspaceEdit {
        removed: removed.to_vec(),
        added,
        ..KeyspaceEdit::default()
    }
}

#[test]
fn what_is_garbage_follows_from_what_tables_point_to() {
    let mut subject = Subject::default();
    let added = vec![
        values(1, 10),
        values(2, 4),
        table(3, "a", &[(1, 6), (2, 4)]),
        table(4, "b", &[(1, 4)]),
    ];
    subject.apply(edit(&[], added)).unwrap();
    let shares = |subject: &Subject| -> Vec<f64> {
        let uses = subject.version.value_uses();
        uses.iter().map(ValueUse::garbage_share).collect()
    };
    assert_eq!(shares(&subject), [0.0, 0.0]);
    // What replaces a table needs less of the values.
    let merged = edit(&[3], vec![table(5, "a", &[(1, 1)])]);
    assert_eq!(subject.version.values_unneeded_after(&merged), [2]);
    subject.apply(merged.clone()).unwrap();
    assert_eq!(shares(&subject), [0.5, 1.0]);
    assert_eq!(subject.version.value_uses()[0].garbage_bytes(), 5000);
    assert_eq!(subject.version.value_bytes(), 14_000);
    // It is never forgotten while it is needed, and may go with the last pointer.
    assert!(subject.apply(edit(&[1], vec![])).is_err());
    subject.apply(edit(&[2], vec![])).unwrap();
    let last = edit(&[4, 5], vec![]);
    assert_eq!(subject.version.values_unneeded_after(&last), [1]);
    subject.apply(edit(&[1, 4, 5], vec![])).unwrap();
    assert_eq!(subject.version, Version::default());
}

#[test]
fn pointers_lead_to_tables_that_are_named_or_known_to_be_lost() {
    let mut subject = Subject::default();
    let dangling = edit(&[], vec![table(3, "a", &[(1, 1)])]);
    assert!(subject.apply(dangling.clone()).is_err());
    let both = vec![values(1, 1), table(3, "a", &[(1, 1)])];
    subject.apply(edit(&[], both)).unwrap();
    let given_up = KeyspaceEdit {
        lost_values: vec![1],
        ..edit(&[1], vec![])
    };
    subject.apply(given_up).unwrap();
    assert!(subject.version.values.lost.contains(&1));
    // More than a table holds is needed of it: the manifest is wrong.
    let more = vec![values(7, 1), table(8, "b", &[(7, 2)])];
    assert!(subject.apply(edit(&[], more)).is_err());
}

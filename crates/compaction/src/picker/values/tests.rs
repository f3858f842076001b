//! Which table is rewritten for the sake of which values.

use std::collections::HashSet;

use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::ValueRef;
use esker_manifest::{Level, Run, Values, Version};

use super::*;
use crate::picker::{PickInput, pick};
use crate::plan::{OutputRun, PlanKind};
use crate::shape::ShapeOptions;

fn table(number: FileNumber, key: u8, refs: &[(FileNumber, u64)]) -> Arc<TableMeta> {
    let refs = refs.iter().map(|&(number, records)| ValueRef {
        number,
        records,
        bytes: records * 100,
    });
    Arc::new(TableMeta {
        number,
        file_bytes: 50,
        entries: 10,
        bounds: KeyBounds::inclusive([key], [key]),
        value_refs: refs.collect(),
        ..TableMeta::default()
    })
}

/// One run in the last level of `tables`, with value tables of ten records each.
fn version(tables: Vec<Arc<TableMeta>>, values: &[FileNumber]) -> Version {
    let mut levels = vec![Level::default(); 7];
    levels[6].runs.push(Arc::new(Run { id: 500, tables }));
    let values = values.iter().map(|&number| {
        Arc::new(TableMeta {
            number,
            file_bytes: 1100,
            entries: 10,
            raw_value_bytes: 1000,
            ..TableMeta::default()
        })
    });
    Version {
        levels,
        values: Values {
            tables: values.collect(),
            ..Values::default()
        },
    }
}

#[test]
fn the_table_that_needs_most_of_the_worst_values_is_rewritten_alone() {
    let needs = |a: u64, b: u64, c: u64| {
        vec![
            table(1, b'a', &[(10, a)]),
            table(2, b'b', &[(10, b), (11, c)]),
        ]
    };
    // (version, busy, what is rewritten)
    let cases: [(Version, &[FileNumber], Option<FileNumber>); 6] = [
        (version(needs(5, 5, 10), &[10, 11]), &[], None),
        // Exactly half is garbage: not more than the ratio.
        (version(needs(3, 2, 10), &[10, 11]), &[], None),
        (version(needs(3, 1, 10), &[10, 11]), &[], Some(1)),
        (version(needs(3, 1, 10), &[10, 11]), &[1], Some(2)),
        (version(needs(3, 1, 10), &[10, 11]), &[1, 2], None),
        // The one with more garbage first.
        (version(needs(4, 0, 2), &[10, 11]), &[], Some(2)),
    ];
    for (case, (mut version, busy, expected)) in cases.into_iter().enumerate() {
        for level in &mut version.levels {
            for run in &mut level.runs {
                for table in &mut Arc::make_mut(run).tables {
                    let refs = &mut Arc::make_mut(table).value_refs;
                    refs.retain(|one| one.records > 0);
                }
            }
        }
        let busy: HashSet<FileNumber> = busy.iter().copied().collect();
        let plan = pick(&PickInput {
            version: &version,
            shape: &ShapeOptions::default(),
            busy: &busy,
            now_millis: 0,
            oldest_snapshot: MAX_SEQUENCE,
            tombstones: None,
        });
        let picked = plan.as_ref().map(|plan| plan.files().collect::<Vec<_>>());
        assert_eq!(picked, expected.map(|number| vec![number]), "case {case}");
        if let Some(plan) = plan {
            let place = (plan.kind, plan.output_level, plan.output_run, plan.reason);
            let expected = (PlanKind::Merge, 6, OutputRun::Within(500), Reason::Values);
            assert_eq!(place, expected, "case {case}");
        }
    }
}

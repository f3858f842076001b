//! Which merge reads have earned, when, and that asking comes to an end.

use std::collections::HashSet;
use std::sync::Arc;

use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_manifest::{Level, Run, Version};

use super::*;
use crate::shape::{CompactionShape, ShapeOptions};
use crate::simulation::{Simulation, Write};

const MIB: u64 = 1 << 20;

/// A version of runs of one table each, over all keys: `(level, MiB)`, newest first.
fn version(runs: &[(usize, u64)]) -> Version {
    let mut levels = vec![Level::default(); 7];
    for (number, &(level, mib)) in (1..).zip(runs) {
        let table = TableMeta {
            number,
            file_bytes: mib * MIB,
            entries: 10,
            bounds: KeyBounds::inclusive("a", "z"),
            ..TableMeta::default()
        };
        let tables = vec![Arc::new(table)];
        levels[level]
            .runs
            .push(Arc::new(Run { id: number, tables }));
    }
    Version {
        levels,
        ..Version::default()
    }
}

fn decide(runs: &[(usize, u64)], busy: &[u64], memtable_mib: u64, lost_mib: u64) -> Relief {
    let memtable = MemtableSize {
        bytes: memtable_mib * MIB,
        full_bytes: 64 * MIB,
        searched_bytes: 0,
    };
    let input = PickInput {
        version: &version(runs),
        shape: &ShapeOptions::default(),
        busy: &busy.iter().copied().collect::<HashSet<_>>(),
        now_millis: 0,
        oldest_snapshot: MAX_SEQUENCE,
        tombstones: None,
    };
    pick_for_reads(&input, memtable, lost_mib * MIB)
}

/// What is decided, in a word or two: the inputs of a merge and the level it goes to.
fn said(relief: &Relief) -> String {
    match relief {
        Relief::Flush => "flush".into(),
        Relief::Nothing => "nothing".into(),
        Relief::At(bytes) => format!("at {}", bytes / MIB),
        Relief::Merge(plan) => {
            let numbers: Vec<_> = plan.files().collect();
            format!("{numbers:?} to {}", plan.output_level)
        }
    }
}

#[test]
fn what_reads_have_earned() {
    // (runs, MiB of the memtable, MiB lost, what is decided)
    type Case<'a> = (&'a [(usize, u64)], u64, u64, &'a str);
    let cases: [Case<'_>; 16] = [
        (&[], 0, 1000, "nothing"),
        (&[(0, 30)], 0, 1000, "nothing"),
        (&[(0, 30)], 28, 13, "at 14"),
        (&[(0, 30)], 28, 14, "flush"),
        (&[(0, 30)], 3, 1000, "nothing"),
        (&[(0, 30)], 4, 1000, "flush"),
        // It would fill level 0, which is merged then however small its runs are.
        (&[(0, 30), (0, 30), (0, 30)], 15, 80, "at 90"),
        (&[(0, 30), (0, 30), (0, 30)], 16, 80, "flush"),
        (&[(0, 30), (0, 30)], 0, 59, "at 60"),
        (&[(0, 30), (0, 30)], 0, 60, "[1, 2] to 6"),
        (&[(0, 30), (6, 100)], 0, 130, "[1, 2] to 6"),
        // Too much would be rewritten for too little.
        (&[(0, 30), (6, 121)], 0, 1000, "nothing"),
        (&[(0, 30), (0, 30), (6, 300)], 0, 1000, "[1, 2] to 0"),
        (
            &[(0, 2), (0, 2), (0, 30), (6, 3000)],
            0,
            1000,
            "[1, 2] to 0",
        ),
        // A tier and the level under it.
        (&[(5, 300), (5, 300), (6, 900)], 0, 4000, "[1, 2, 3] to 6"),
        (&[(5, 100), (5, 100), (6, 1000)], 0, 4000, "[1, 2] to 5"),
    ];
    for (runs, memtable, lost, expected) in cases {
        let relief = decide(runs, &[], memtable, lost);
        let case = format!("{runs:?}, {memtable} MiB, {lost} MiB lost");
        assert_eq!(said(&relief), expected, "{case}");
    }
}

#[test]
fn a_small_memtable_goes_when_scans_have_searched_it_for_long() {
    let decide = |runs: usize, mib: u64, searched: u64| {
        let version = version(&vec![(0, 30); runs]);
        let memtable = MemtableSize {
            bytes: mib * MIB,
            full_bytes: 64 * MIB,
            searched_bytes: searched * MIB,
        };
        let input = PickInput {
            version: &version,
            shape: &ShapeOptions::default(),
            busy: &HashSet::new(),
            now_millis: 0,
            oldest_snapshot: MAX_SEQUENCE,
            tombstones: None,
        };
        said(&pick_for_reads(&input, memtable, searched * MIB + 10))
    };
    assert_eq!(decide(0, 0, 1000), "nothing");
    assert_eq!(decide(1, 2, 0), "nothing");
    assert_eq!(decide(1, 2, 3), "at 4");
    assert_eq!(decide(1, 2, 4), "flush");
    // It would fill level 0.
    assert_eq!(decide(3, 2, 15), "at 16");
    assert_eq!(decide(3, 2, 16), "flush");
}

#[test]
fn what_is_busy_stays() {
    let runs = [(0, 30), (0, 30)];
    assert_eq!(said(&decide(&runs, &[2], 0, 1000)), "nothing");
    assert_eq!(said(&decide(&runs, &[3], 0, 1000)), "[1, 2] to 6");
}

#[test]
fn reads_of_a_small_tree_leave_one_run_and_then_nothing_to_merge() {
    for shape in [
        CompactionShape::Leveled,
        CompactionShape::Tiered,
        CompactionShape::LazyLeveled,
    ] {
        let mut tree = Simulation::new(ShapeOptions {
            shape,
            ..ShapeOptions::default()
        });
        for round in 0..3_u8 {
            let put = |key: u8| Write::Put(key * 3 + round);
            tree.flush(&(0..20).map(put).collect::<Vec<_>>());
        }
        while tree.start_for_reads() {
            tree.finish(0);
        }
        let runs = tree.version.runs_newest_first().count();
        assert_eq!(runs, 1, "{shape:?}: {:?}", tree.version);
        tree.settle();
    }
}

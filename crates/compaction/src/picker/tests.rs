//! The picker in simulated trees, and against hand-made versions.

use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::key_bounds::KeyBounds;
use proptest::prelude::*;

use super::*;
use crate::simulation::{Simulation, Write};

const SHAPES: [CompactionShape; 3] = [
    CompactionShape::Leveled,
    CompactionShape::Tiered,
    CompactionShape::LazyLeveled,
];

/// A tree so small that a few dozen flushes reach every level.
fn tiny(shape: CompactionShape) -> ShapeOptions {
    ShapeOptions {
        shape,
        level0_runs: 3,
        tier_runs: 3,
        size_ratio: 3,
        base_bytes: 1500,
        target_file_bytes: 400,
        max_levels: 5,
        max_merge_bytes: 4000,
        ..ShapeOptions::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Flush(Vec<Write>),
    Start,
    Read,
    Finish(usize),
    Snapshot,
    Wait(u64),
    Compact(u8, u8),
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        12 => any::<u8>().prop_map(Write::Put),
        3 => (any::<u8>(), 1..200_u64).prop_map(|(key, expiry)| Write::PutExpiring(key, expiry)),
        5 => any::<u8>().prop_map(Write::Delete),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Write::DeleteRange(a.min(b), a.max(b))),
    ]
}

/// A flush of scattered keys, or of neighbours, so that moves without rewriting happen.
fn flush() -> impl Strategy<Value = Step> {
    let scattered = proptest::collection::vec(write(), 1..12);
    let neighbours = (any::<u8>(), 1..12_u8).prop_map(|(first, count)| {
        (0..count)
            .map(|i| Write::Put(first.saturating_add(i)))
            .collect()
    });
    prop_oneof![2 => scattered, 1 => neighbours].prop_map(Step::Flush)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => flush(),
        10 => Just(Step::Start),
        3 => Just(Step::Read),
        10 => any::<usize>().prop_map(Step::Finish),
        1 => Just(Step::Snapshot),
        1 => (1..60_u64).prop_map(Step::Wait),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Compact(a.min(b), a.max(b))),
    ]
}

fn run(options: ShapeOptions, steps: &[Step], shows_tombstones: bool) {
    let mut tree = Simulation::new(options);
    tree.shows_tombstones = shows_tombstones;
    for step in steps {
        match step {
            Step::Flush(writes) => tree.flush(writes),
            Step::Start if tree.running() < 4 => drop(tree.start()),
            Step::Read if tree.running() < 4 => drop(tree.start_for_reads()),
            Step::Start | Step::Read => {}
            Step::Finish(index) if tree.running() > 0 => tree.finish(index % tree.running()),
            Step::Finish(_) => {}
            Step::Snapshot => tree.toggle_snapshot(),
            Step::Wait(millis) => {
                tree.now_millis += millis;
                tree.check_views();
            }
            Step::Compact(start, end) => tree.compact(&KeyBounds::inclusive([*start], [*end])),
        }
    }
    tree.settle();
    assert_eq!(
        debt_bytes(&tree.version, &tree.options),
        0,
        "{:?}",
        tree.version
    );
    tree.compact(&KeyBounds::half_open("", ""));
    tree.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The invariant of the order of runs, for plans that run at the same time, and that
    /// picking comes to an end, for each shape.
    #[test]
    fn whatever_is_compacted_readers_see_the_same_and_it_comes_to_rest(
        steps in proptest::collection::vec(step(), 1..150),
        shape in 0..3_usize,
        shows_tombstones: bool,
        recompress in prop_oneof![Just(0), Just(4)],
    ) {
        let options = ShapeOptions { recompress_from_level: recompress, ..tiny(SHAPES[shape]) };
        run(options, &steps, shows_tombstones);
    }
}

#[test]
fn a_full_compaction_leaves_no_garbage() {
    for shape in SHAPES {
        let mut tree = Simulation::new(tiny(shape));
        for round in 0..40_u8 {
            let writes: Vec<Write> = (0..20)
                .map(|index| match (index, round % 3) {
                    (0, 0) => Write::DeleteRange(round, round + 9),
                    (_, 1) => Write::Delete(round.wrapping_mul(7).wrapping_add(index)),
                    _ => Write::Put(round.wrapping_mul(13).wrapping_add(index * 3)),
                })
                .collect();
            tree.flush(&writes);
            if round % 2 == 0 && tree.start() {
                tree.finish(0);
            }
        }
        tree.compact(&KeyBounds::half_open("", ""));
        while tree.running() > 0 {
            tree.finish(0);
        }
        let tables: Vec<_> = tree.version.tables().collect();
        assert!(!tables.is_empty());
        for (_, _, table) in &tables {
            let garbage = table.tombstones + table.range_tombstones;
            assert_eq!((garbage, table.largest_sequence), (0, 0), "{shape:?}");
        }
        let runs = tree.version.runs_newest_first().count();
        assert_eq!(runs, 1, "{shape:?}: {:?}", tree.version);
    }
}

#[test]
fn ascending_keys_are_never_rewritten() {
    for shape in SHAPES {
        let mut tree = Simulation::new(tiny(shape));
        for chunk in 0..50_u8 {
            let writes: Vec<Write> = (0..5).map(|index| Write::Put(chunk * 5 + index)).collect();
            tree.flush(&writes);
            while let Some(plan) = pick_settled(&tree) {
                assert_eq!(plan.kind, PlanKind::TrivialMove, "{shape:?}: {plan:?}");
                assert!(tree.start());
                tree.finish(0);
            }
        }
        assert!(tree.version.level_bytes(0) < 5 * 500 && tree.version.table_count() >= 50);
    }
}

fn pick_settled(tree: &Simulation) -> Option<Plan> {
    pick(&PickInput {
        version: &tree.version,
        shape: &tree.options,
        busy: &HashSet::new(),
        now_millis: tree.now_millis,
        oldest_snapshot: MAX_SEQUENCE,
        tombstones: None,
    })
}

#[test]
fn a_range_delete_gives_its_space_back_unread() {
    for shape in SHAPES {
        let mut tree = Simulation::new(tiny(shape));
        for round in 0..20_u8 {
            let writes: Vec<Write> = (0..12).map(|i| Write::Put(round * 12 + i)).collect();
            tree.flush(&writes);
            tree.settle();
        }
        let before = tree.version.total_bytes();
        tree.flush(&[Write::DeleteRange(0, 255)]);
        assert!(tree.start());
        tree.finish(0);
        assert!(
            tree.version.total_bytes() < before / 10,
            "{shape:?}: {:?}",
            tree.version
        );
        tree.settle();
    }
}

#[test]
fn a_snapshot_keeps_what_a_range_delete_covers() {
    let mut tree = Simulation::new(tiny(CompactionShape::LazyLeveled));
    tree.flush(&[Write::Put(1), Write::Put(2)]);
    tree.toggle_snapshot();
    tree.flush(&[Write::DeleteRange(0, 9)]);
    tree.settle();
    tree.check_views();
    tree.toggle_snapshot();
    tree.settle();
    assert_eq!(tree.version.table_count(), 0, "{:?}", tree.version);
}

#[test]
fn expired_tables_are_dropped_only_from_the_bottom_up() {
    for shape in SHAPES {
        let mut tree = Simulation::new(ShapeOptions {
            garbage_ratio: 100.0,
            ..tiny(shape)
        });
        tree.flush(&[Write::Put(1), Write::Put(9)]);
        tree.flush(&[Write::PutExpiring(1, 50), Write::PutExpiring(2, 60)]);
        tree.now_millis = 70;
        // What expired hides an older value of key 1.
        assert_eq!(pick_settled(&tree), None, "{shape:?}");
        tree.flush(&[Write::PutExpiring(20, 80), Write::PutExpiring(30, 90)]);
        tree.now_millis = 100;
        let plan = pick_settled(&tree).expect("the newest table hides nothing");
        assert_eq!((plan.kind, plan.reason), (PlanKind::Drop, Reason::Expired));
        assert_eq!(plan.tables().count(), 1);
        tree.settle();
    }
}

#[test]
fn deleted_data_is_reclaimed_though_no_level_is_full() {
    for shape in SHAPES {
        let mut tree = Simulation::new(ShapeOptions {
            level0_runs: 9,
            ..tiny(shape)
        });
        tree.flush(&(0..40).map(Write::Put).collect::<Vec<_>>());
        tree.flush(&(0..40).map(Write::Delete).collect::<Vec<_>>());
        tree.settle();
        assert_eq!(
            tree.version.table_count(),
            0,
            "{shape:?}: {:?}",
            tree.version
        );
    }
}

#[test]
fn overwritten_data_is_reclaimed_though_no_level_is_full() {
    for shape in SHAPES {
        let mut tree = Simulation::new(ShapeOptions {
            level0_runs: 9,
            tier_runs: 9,
            ..tiny(shape)
        });
        for _ in 0..5 {
            tree.flush(&(0..10).map(Write::Put).collect::<Vec<_>>());
        }
        tree.settle();
        let bytes = tree.version.total_bytes();
        assert!(bytes <= 3 * 10 * 100, "{shape:?}: {bytes}");
    }
}

#[test]
fn a_tree_takes_another_shape() {
    for from in SHAPES {
        for to in SHAPES {
            let mut tree = Simulation::new(tiny(from));
            for round in 0..60_u8 {
                let put = |index: u8| Write::Put(round.wrapping_mul(31).wrapping_add(index * 17));
                tree.flush(&(0..9).map(put).collect::<Vec<_>>());
                if tree.start() {
                    tree.finish(0);
                }
            }
            tree.reshape(tiny(to));
            tree.settle();
            tree.check_shape();
        }
    }
}

#[test]
fn debt_is_what_is_over_and_nothing_without_data() {
    assert_eq!(debt_bytes(&Version::default(), &ShapeOptions::default()), 0);
    for shape in SHAPES {
        let mut tree = Simulation::new(tiny(shape));
        let mut last = 0;
        for _ in 0..12 {
            tree.flush(&(0..8).map(Write::Put).collect::<Vec<_>>());
            let debt = debt_bytes(&tree.version, &tree.options);
            assert!(debt >= last, "{shape:?}");
            last = debt;
        }
        assert!(last >= tree.version.level_bytes(0));
    }
}

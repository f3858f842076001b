//! Versions, at their edges.

use super::*;

fn table(number: u64, smallest: &str, largest: &str) -> Arc<TableMeta> {
    let bounds = KeyBounds::inclusive(smallest, largest);
    Arc::new(TableMeta {
        number,
        file_bytes: 10 * number,
        bounds,
        smallest_sequence: number,
        largest_sequence: number + 5,
        entries: 1,
        ..TableMeta::default()
    })
}

fn run(id: u64, tables: Vec<Arc<TableMeta>>) -> Arc<Run> {
    Arc::new(Run { id, tables })
}

fn version(levels: Vec<Vec<Arc<Run>>>) -> Version {
    Version {
        levels: levels.into_iter().map(|runs| Level { runs }).collect(),
        ..Version::default()
    }
}

fn sample() -> Version {
    version(vec![
        vec![
            run(21, vec![table(5, "a", "z")]),
            run(20, vec![table(4, "k", "m")]),
        ],
        vec![],
        vec![run(
            22,
            vec![table(1, "a", "c"), table(2, "e", "g"), table(3, "p", "q")],
        )],
    ])
}

#[test]
fn sums_and_orders() {
    let version = sample();
    version.check_invariants().unwrap();
    let runs: Vec<(usize, u64)> = version
        .runs_newest_first()
        .map(|(level, run)| (level, run.id))
        .collect();
    assert_eq!(runs, [(0, 21), (0, 20), (2, 22)]);
    let tables: Vec<u64> = version.tables().map(|(_, _, table)| table.number).collect();
    assert_eq!(tables, [5, 4, 1, 2, 3]);
    assert_eq!((version.table_count(), version.total_bytes()), (5, 150));
    assert_eq!(
        (
            version.level_bytes(0),
            version.level_bytes(1),
            version.level_bytes(9)
        ),
        (90, 0, 0)
    );
    assert_eq!(
        (version.find_run(22), version.find_run(5)),
        (Some((2, 0)), None)
    );
    assert!(!version.is_empty() && Version::default().is_empty());
    Version::default().check_invariants().unwrap();
}

#[test]
fn a_run_finds_keys_and_ranges() {
    let run = &sample().levels[2].runs[0];
    let cases = [
        ("a", Some(0)),
        ("c", Some(0)),
        ("d", None),
        ("e", Some(1)),
        ("q", Some(2)),
        ("r", None),
        ("0", None),
    ];
    for (key, expected) in cases {
        assert_eq!(run.find(key.as_bytes()), expected, "{key}");
    }
    let cases = [
        (KeyBounds::inclusive("b", "f"), 0..2),
        (KeyBounds::inclusive("d", "d"), 1..1),
        (KeyBounds::half_open("d", "e"), 1..1),
        (KeyBounds::half_open("c", ""), 0..3),
        (KeyBounds::inclusive("r", "z"), 3..3),
        (KeyBounds::inclusive("0", "1"), 0..0),
    ];
    for (bounds, expected) in cases {
        assert_eq!(run.overlapping(&bounds), expected, "{bounds:?}");
    }
    assert_eq!(run.bounds(), KeyBounds::inclusive("a", "q"));
    assert_eq!(
        (run.smallest_sequence(), run.largest_sequence(), run.bytes()),
        (1, 8, 60)
    );
    let empty = Run::default();
    assert_eq!(
        (empty.bounds(), empty.largest_sequence()),
        (KeyBounds::default(), 0)
    );
}

#[test]
fn what_is_older_than_a_run() {
    let version = sample();
    let cases = [
        (0, 21, "k", true),  // the run after it
        (0, 20, "k", false), // only newer ones
        (0, 20, "f", true),  // a deeper level
        (2, 22, "f", false), // itself
        (1, 99, "f", true),  // a run still to be made
        (2, 99, "f", true),
        (5, 99, "f", false),
    ];
    for (level, run, key, expected) in cases {
        let bounds = KeyBounds::inclusive(key, key);
        assert_eq!(
            version.older_overlaps(level, run, &bounds),
            expected,
            "{level} {run} {key}"
        );
    }
}

#[test]
fn broken_versions_are_told() {
    let broken = [
        Version {
            levels: Vec::new(),
            ..Version::default()
        },
        version(vec![Vec::new(); MAX_LEVELS + 1]),
        version(vec![vec![run(1, vec![])]]),
        version(vec![
            vec![run(1, vec![table(1, "a", "a")])],
            vec![run(1, vec![table(2, "b", "b")])],
        ]),
        version(vec![vec![
            run(1, vec![table(1, "a", "a")]),
            run(2, vec![table(1, "b", "b")]),
        ]]),
        version(vec![vec![run(
            1,
            vec![table(1, "a", "c"), table(2, "c", "d")],
        )]]),
        version(vec![vec![run(
            1,
            vec![table(1, "e", "f"), table(2, "a", "b")],
        )]]),
        version(vec![vec![run(1, vec![table(0, "a", "b")])]]),
        version(vec![vec![run(1, vec![table(1, "b", "a")])]]),
    ];
    for version in broken {
        let error = version.check_invariants().unwrap_err();
        assert_eq!(
            error.kind(),
            esker_base::ErrorKind::Corruption,
            "{version:?}"
        );
    }
}

#[test]
fn descriptions_that_make_no_sense_are_told() {
    let good = table(1, "a", "b");
    let bad = [
        TableMeta {
            smallest_sequence: 9,
            largest_sequence: 8,
            ..(*good).clone()
        },
        TableMeta {
            largest_sequence: MAX_SEQUENCE + 1,
            ..(*good).clone()
        },
        TableMeta {
            tombstones: 2,
            ..(*good).clone()
        },
        TableMeta {
            expiring_entries: 2,
            ..(*good).clone()
        },
        TableMeta {
            bounds: KeyBounds::half_open("b", "b"),
            ..(*good).clone()
        },
        TableMeta {
            bounds: KeyBounds::inclusive(vec![0; MAX_KEY_BYTES + 1], "b"),
            ..(*good).clone()
        },
    ];
    check_table(&good).unwrap();
    for meta in bad {
        assert!(check_table(&meta).is_err(), "{meta:?}");
    }
}

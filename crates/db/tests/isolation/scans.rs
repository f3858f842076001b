//! What a scan protects: the stretch that it moved over, from either end, and nothing beyond.

use super::{kind, memory};
use esker::{Db, ErrorKind, Snapshot, Transaction, TransactionOptions};
use proptest::prelude::*;

/// Entries `10`, `20` ... `90`.
fn nine_entries() -> Db {
    let db = memory();
    for key in 1..=9 {
        db.put(format!("{key}0"), "old").unwrap();
        if key == 5 {
            db.flush().unwrap();
        }
    }
    db
}

struct Case {
    name: &'static str,
    scan: fn(&mut Transaction) -> usize,
    conflicts: &'static [&'static str],
    harmless: &'static [&'static str],
}

fn walk(tx: &mut Transaction, moves: &[fn(&mut esker::Cursor) -> esker::Result<()>]) -> usize {
    let mut cursor = tx.cursor();
    moves.iter().for_each(|to| to(&mut cursor).unwrap());
    moves.len()
}

const CASES: &[Case] = &[
    Case {
        name: "the first two of all",
        scan: |tx| tx.iter().take(2).count(),
        conflicts: &["0", "10", "15", "20"],
        harmless: &["200", "21", "30", "99"],
    },
    Case {
        name: "the last two of all",
        scan: |tx| tx.iter().rev().take(2).count(),
        conflicts: &["80", "85", "90", "zz"],
        harmless: &["10", "75", "799"],
    },
    Case {
        name: "a range to its end",
        scan: |tx| tx.range("20".."50").count(),
        conflicts: &["20", "25", "40", "45", "499"],
        harmless: &["19", "50", "10"],
    },
    Case {
        name: "a range backwards to its start",
        scan: |tx| tx.range("20".."50").rev().filter(Result::is_ok).count(),
        conflicts: &["20", "25", "40", "499"],
        harmless: &["199", "50", "60"],
    },
    Case {
        name: "a range from both ends, that do not meet",
        scan: |tx| {
            let mut range = tx.range("20".."80");
            let front = range.next().is_some();
            let back = range.next_back().is_some();
            usize::from(front) + usize::from(back)
        },
        conflicts: &["20", "70", "75"],
        harmless: &["19", "25", "60", "65", "80"],
    },
    Case {
        name: "an empty range",
        scan: |tx| tx.range("21".."29").count(),
        conflicts: &["21", "25", "289"],
        harmless: &["20", "29", "30"],
    },
    Case {
        name: "a prefix",
        scan: |tx| tx.prefix("3").take(1).count(),
        conflicts: &["3", "30"],
        harmless: &["31", "29", "4"],
    },
    Case {
        name: "an iterator that was never used",
        scan: |tx| {
            drop(tx.iter());
            0
        },
        conflicts: &[],
        harmless: &["10", "50", "0"],
    },
    Case {
        name: "a cursor that seeks and goes back and forth",
        scan: |tx| {
            walk(
                tx,
                &[
                    |cursor| cursor.seek("35"),
                    |cursor| cursor.next(),
                    |cursor| cursor.prev(),
                    |cursor| cursor.prev(),
                ],
            )
        },
        conflicts: &["30", "35", "40", "45", "50"],
        harmless: &["299", "51", "60"],
    },
    Case {
        name: "a cursor that jumps leaves out what it jumped over",
        scan: |tx| {
            walk(
                tx,
                &[
                    |cursor| cursor.seek_to_first(),
                    |cursor| cursor.seek_for_prev("65"),
                    |cursor| cursor.seek_to_last(),
                ],
            )
        },
        conflicts: &["0", "10", "60", "63", "65", "90", "91"],
        harmless: &["11", "50", "599", "66", "80"],
    },
    Case {
        name: "a cursor that seeks beyond the last key",
        scan: |tx| walk(tx, &[|cursor| cursor.seek("95"), |cursor| cursor.next()]),
        conflicts: &["95", "99"],
        harmless: &["90", "94"],
    },
    Case {
        name: "single keys, absent ones too",
        scan: |tx| {
            let keys = tx.multi_get(["20", "25"]).unwrap();
            usize::from(tx.ttl("70").unwrap().is_some()) + keys.len()
        },
        conflicts: &["20", "25", "70"],
        harmless: &["24", "30", "71"],
    },
];

/// Whether a transaction that scanned and wrote elsewhere conflicts with `write`.
fn conflicts(case: &Case, write: impl FnOnce(&Db)) -> bool {
    let db = nine_entries();
    let mut tx = db.begin().unwrap();
    (case.scan)(&mut tx);
    tx.put("elsewhere", "written").unwrap();
    write(&db);
    match tx.commit() {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            true
        }
    }
}

#[test]
fn a_scan_conflicts_with_what_it_passed_and_nothing_else() {
    for case in CASES {
        let name = case.name;
        let keys = case.conflicts.iter().map(|key| (*key, true));
        let keys = keys.chain(case.harmless.iter().map(|key| (*key, false)));
        for (key, expected) in keys {
            let put = conflicts(case, |db| db.put(key, "new").unwrap());
            assert_eq!(put, expected, "{name}: put {key}");
            // By a table, by a range delete, and by a transaction.
            let flushed = conflicts(case, |db| {
                db.put(key, "new").unwrap();
                db.flush().unwrap();
            });
            assert_eq!(flushed, expected, "{name}: put {key} and flush");
            let removed = conflicts(case, |db| db.delete_range(key..=key).unwrap());
            assert_eq!(removed, expected, "{name}: delete the range of {key} alone");
        }
        assert!(
            case.conflicts.is_empty() || conflicts(case, |db| db.delete_range("0".."zzz").unwrap()),
            "{name}: everything removed"
        );
    }
}

/// A scan that lives on when its transaction commits has been counted up to there.
#[test]
fn a_scan_that_is_still_open_counts() {
    for expected in [true, false] {
        let db = nine_entries();
        let mut tx = db.begin().unwrap();
        let mut scan = tx.iter();
        scan.next().unwrap().unwrap();
        tx.put("elsewhere", "written").unwrap();
        db.put(if expected { "05" } else { "15" }, "new").unwrap();
        let outcome = tx.commit();
        assert_eq!(outcome.is_err(), expected);
        assert_eq!(
            &*scan.next().unwrap().unwrap().0,
            b"20",
            "it goes on in its moment"
        );
    }
}

/// What a transaction remembers is bounded; what does not fit is remembered coarser, never less.
#[test]
fn a_huge_read_set_protects_more_not_less() {
    let db = memory();
    for number in 0..2000u32 {
        db.put(number.to_be_bytes(), "old").unwrap();
    }
    let small = TransactionOptions::new().read_set_bytes(4096);
    let conflicts = |key: u32| {
        let mut tx = db.begin_with(&small).unwrap();
        for number in (0..1000u32).step_by(2) {
            tx.get(number.to_be_bytes()).unwrap();
        }
        for number in (1000..1200u32).step_by(10) {
            let range = number.to_be_bytes()..(number + 3).to_be_bytes();
            assert_eq!(tx.range(range).count(), 3);
        }
        tx.put("elsewhere", "written").unwrap();
        db.put(key.to_be_bytes(), "new").unwrap();
        match tx.commit() {
            Ok(()) => false,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                true
            }
        }
    };
    for key in (0..1000).step_by(50).chain([1000, 1002, 1191]) {
        assert!(conflicts(key), "{key} was read");
    }
    assert!(!conflicts(1500), "far from everything that was read");
}

/// One thing that a transaction does to read.
#[derive(Clone, Debug)]
enum Read {
    Get(u8),
    Forwards(u8, u8, usize),
    Backwards(u8, u8, usize),
    Cursor(u8, Vec<bool>),
}

fn reads() -> impl Strategy<Value = Vec<Read>> {
    let one = prop_oneof![
        (0u8..30).prop_map(Read::Get),
        (0u8..30, 0u8..30, 0usize..6).prop_map(|(a, b, n)| Read::Forwards(a, b, n)),
        (0u8..30, 0u8..30, 0usize..6).prop_map(|(a, b, n)| Read::Backwards(a, b, n)),
        (0u8..30, prop::collection::vec(any::<bool>(), 0..6))
            .prop_map(|(key, moves)| Read::Cursor(key, moves)),
    ];
    prop::collection::vec(one, 1..5)
}

macro_rules! observe {
    ($reader:expr, $reads:expr) => {{
        let mut seen: Vec<Option<Vec<u8>>> = Vec::new();
        for read in $reads {
            match read {
                Read::Get(key) => seen.push($reader.get([*key]).unwrap().map(|v| v.to_vec())),
                Read::Forwards(from, to, most) => {
                    let entries = $reader.range([*from]..[*to]).take(*most);
                    seen.extend(entries.map(|entry| Some(entry.unwrap().0.to_vec())));
                }
                Read::Backwards(from, to, most) => {
                    let entries = $reader.range([*from]..[*to]).rev().take(*most);
                    seen.extend(entries.map(|entry| Some(entry.unwrap().0.to_vec())));
                }
                Read::Cursor(key, moves) => {
                    let mut cursor = $reader.cursor();
                    cursor.seek([*key]).unwrap();
                    for forwards in moves {
                        seen.push(cursor.valid().then(|| cursor.key().to_vec()));
                        if *forwards {
                            cursor.next().unwrap();
                        } else {
                            cursor.prev().unwrap();
                        }
                    }
                    seen.push(cursor.valid().then(|| cursor.key().to_vec()));
                }
            }
            seen.push(None);
        }
        seen
    }};
}

fn observed_by(tx: &mut Transaction, reads: &[Read]) -> Vec<Option<Vec<u8>>> {
    observe!(tx, reads)
}

fn observed_at(snapshot: &Snapshot, reads: &[Read]) -> Vec<Option<Vec<u8>>> {
    observe!(snapshot, reads)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is read, and whatever one other write changes: if the reads would now answer
    /// otherwise, the transaction is refused.
    #[test]
    fn no_change_of_what_was_read_goes_unnoticed(
        keys in prop::collection::btree_set(0u8..30, 0..12),
        reads in reads(),
        written in 0u8..30,
        deletes in any::<bool>(),
        flushes in any::<bool>(),
    ) {
        let db = memory();
        for key in &keys {
            db.put([*key], "old").unwrap();
        }
        let mut tx = db.begin().unwrap();
        let before = observed_by(&mut tx, &reads);
        prop_assert_eq!(&before, &observed_at(&db.snapshot(), &reads));
        tx.put("elsewhere", "written").unwrap();
        if deletes {
            db.delete([written]).unwrap();
        } else {
            db.put([written], "new").unwrap();
        }
        if flushes {
            db.flush().unwrap();
        }
        let after = observed_at(&db.snapshot(), &reads);
        let outcome = tx.commit();
        if before != after {
            prop_assert_eq!(kind(outcome), ErrorKind::Conflict);
        }
    }
}

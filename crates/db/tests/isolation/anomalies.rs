//! The classic anomalies, each as a script of two or three transactions that are stepped by hand, in
//! every mode: what is prevented does not happen, what is allowed does. The names are those of
//! Adya (1999) and of Hermitage; P4 is of Berenson and others (1995).

use super::{memory, modes, options, text};
use esker::{Concurrency, Db, ErrorKind, Isolation, Result, Transaction};

/// One step of one transaction.
#[derive(Clone, Copy, Debug)]
enum Step {
    Get(&'static str),
    GetForUpdate(&'static str),
    /// All values of a range, in order.
    Scan(&'static str, &'static str),
    Put(&'static str, &'static str),
    /// Appends a character.
    Merge(&'static str, &'static str),
    DeleteRange(&'static str, &'static str),
    Commit,
    Rollback,
}
use Step::{Commit, DeleteRange, Get, GetForUpdate, Merge, Put, Rollback, Scan};

/// What became of one transaction.
#[derive(Debug, Default)]
struct Run {
    /// What each of its reads saw, values joined by commas.
    reads: Vec<String>,
    committed: bool,
    refused: Option<ErrorKind>,
}

/// What was seen of a script that has ended.
struct Seen {
    runs: Vec<Run>,
    db: Db,
}

impl Seen {
    fn both_committed(&self) -> bool {
        self.runs.iter().take(2).all(|run| run.committed)
    }

    fn value(&self, key: &str) -> String {
        text(self.db.get(key).unwrap()).unwrap_or_default()
    }

    /// Whether a committed transaction's reads are these.
    fn read(&self, transaction: usize, reads: &[&str]) -> bool {
        self.runs[transaction].committed && self.runs[transaction].reads == reads
    }
}

struct Anomaly {
    name: &'static str,
    steps: &'static [(usize, Step)],
    happened: fn(&Seen) -> bool,
    /// Whether `Snapshot` isolation lets it happen; `Serializable` lets nothing happen.
    allowed_by_snapshot: bool,
}

fn step(tx: &mut Transaction, step: Step, run: &mut Run) -> Result<()> {
    match step {
        Get(key) => run.reads.push(text(tx.get(key)?).unwrap_or_default()),
        GetForUpdate(key) => {
            let read = text(tx.get_for_update(key)?);
            run.reads.push(read.unwrap_or_default());
        }
        Scan(start, end) => {
            let values: Result<Vec<_>> = tx
                .range(start..end)
                .map(|entry| entry.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()))
                .collect();
            run.reads.push(values?.join(","));
        }
        Put(key, value) => tx.put(key, value)?,
        Merge(key, operand) => tx.merge(key, operand)?,
        DeleteRange(start, end) => tx.delete_range(start..end)?,
        Commit | Rollback => unreachable!("ends are played by `play`"),
    }
    Ok(())
}

fn play(mode: (Isolation, Concurrency), steps: &[(usize, Step)]) -> Seen {
    let db = memory();
    db.put("x", "10").unwrap();
    db.put("y", "20").unwrap();
    // Half of what is read lies in tables.
    db.flush().unwrap();
    let transactions = steps
        .iter()
        .map(|(number, _)| number + 1)
        .max()
        .unwrap_or(0);
    // A transaction begins with its first step, and is gone when it has ended.
    let mut open: Vec<Option<Transaction>> = (0..transactions).map(|_| None).collect();
    let mut begun = vec![false; transactions];
    let mut runs: Vec<Run> = (0..transactions).map(|_| Run::default()).collect();
    for &(number, what) in steps {
        let run = &mut runs[number];
        if !std::mem::replace(&mut begun[number], true) {
            open[number] = Some(db.begin_with(&options(mode)).unwrap());
        }
        let Some(mut tx) = open[number].take() else {
            continue;
        };
        let outcome = match what {
            Commit => tx.commit().map(|()| run.committed = true),
            Rollback => tx.rollback(),
            what => {
                let outcome = step(&mut tx, what, run);
                open[number] = outcome.is_ok().then_some(tx);
                outcome
            }
        };
        if let Err(error) = outcome {
            assert!(
                matches!(error.kind(), ErrorKind::Conflict | ErrorKind::TimedOut),
                "{error}"
            );
            run.refused = Some(error.kind());
        }
    }
    Seen { runs, db }
}

const ANOMALIES: &[Anomaly] = &[
    Anomaly {
        name: "G0, dirty writes: two transactions' writes interleave",
        steps: &[
            (0, Put("x", "11")),
            (1, Put("x", "12")),
            (0, Put("y", "21")),
            (0, Commit),
            (1, Put("y", "22")),
            (1, Commit),
        ],
        happened: |seen| seen.value("x")[1..] != seen.value("y")[1..],
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G1a, aborted reads",
        steps: &[
            (0, Put("x", "101")),
            (1, Get("x")),
            (0, Rollback),
            (1, Get("x")),
            (1, Commit),
        ],
        happened: |seen| !seen.read(1, &["10", "10"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G1b, intermediate reads",
        steps: &[
            (0, Put("x", "101")),
            (1, Get("x")),
            (0, Put("x", "11")),
            (0, Commit),
            (1, Get("x")),
            (1, Commit),
        ],
        happened: |seen| !seen.read(1, &["10", "10"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G1c, circular information flow",
        steps: &[
            (0, Put("x", "11")),
            (1, Put("y", "22")),
            (0, Get("y")),
            (1, Get("x")),
            (0, Commit),
            (1, Commit),
        ],
        happened: |seen| seen.read(0, &["22"]) || seen.read(1, &["11"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "OTV, an observed transaction vanishes",
        steps: &[
            (0, Put("x", "11")),
            (0, Put("y", "19")),
            (1, Put("x", "12")),
            (0, Commit),
            (2, Get("x")),
            (1, Put("y", "18")),
            (2, Get("y")),
            (1, Commit),
            (2, Get("y")),
            (2, Get("x")),
            (2, Commit),
        ],
        happened: |seen| !seen.read(2, &["11", "19", "19", "11"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "PMP, predicate-many-preceders: a range that is read twice grows in between",
        steps: &[
            (0, Scan("p", "q")),
            (1, Put("p1", "30")),
            (1, Commit),
            (0, Scan("p", "q")),
            (0, Commit),
        ],
        happened: |seen| !seen.read(0, &["", ""]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "PMP for writes: what a range delete removed was changed meanwhile",
        steps: &[
            (1, Scan("x", "z")),
            (0, Put("x", "20")),
            (0, Put("y", "30")),
            (0, Commit),
            (1, DeleteRange("x", "y")),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "P4, lost update",
        steps: &[
            (0, Get("x")),
            (1, Get("x")),
            (0, Put("x", "11")),
            (1, Put("x", "12")),
            (0, Commit),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "P4 by a range delete: an update is removed unseen",
        steps: &[
            (0, Get("x")),
            (1, Get("x")),
            (0, Put("x", "11")),
            (0, Commit),
            (1, DeleteRange("x", "y")),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "P4 by a range delete that comes first: an update brings back what was removed",
        steps: &[
            (0, Get("x")),
            (1, Get("x")),
            (1, DeleteRange("a", "z")),
            (1, Commit),
            (0, Put("x", "11")),
            (0, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G-single, read skew",
        steps: &[
            (0, Get("x")),
            (1, Get("x")),
            (1, Get("y")),
            (1, Put("x", "12")),
            (1, Put("y", "18")),
            (1, Commit),
            (0, Get("y")),
            (0, Commit),
        ],
        happened: |seen| !seen.read(0, &["10", "20"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G-single by a predicate: two ranges read of two moments",
        steps: &[
            (0, Scan("a", "x1")),
            (1, Put("b", "3")),
            (1, Put("y", "18")),
            (1, Commit),
            (0, Scan("x1", "z")),
            (0, Commit),
        ],
        happened: |seen| !seen.read(0, &["10", "20"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G-single by a write over what was skewed",
        steps: &[
            (0, Get("x")),
            (1, Scan("x", "z")),
            (1, Put("x", "12")),
            (1, Put("y", "18")),
            (1, Commit),
            (0, Put("y", "21")),
            (0, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G2-item, write skew",
        steps: &[
            (0, Get("x")),
            (0, Get("y")),
            (1, Get("x")),
            (1, Get("y")),
            (0, Put("x", "11")),
            (1, Put("y", "21")),
            (0, Commit),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: true,
    },
    Anomaly {
        name: "G2-item where what was read is locked or checked: get_for_update",
        steps: &[
            (0, GetForUpdate("x")),
            (0, GetForUpdate("y")),
            (1, GetForUpdate("x")),
            (1, GetForUpdate("y")),
            (0, Put("x", "11")),
            (1, Put("y", "21")),
            (0, Commit),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G2, anti-dependency cycle over a predicate: two phantoms",
        steps: &[
            (0, Scan("p", "q")),
            (1, Scan("p", "q")),
            (0, Put("p1", "30")),
            (1, Put("p2", "42")),
            (0, Commit),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: true,
    },
    Anomaly {
        name: "G2 of three (Fekete and others, 2004): a reader sees a state that no serial order has",
        steps: &[
            (0, Get("x")),
            (0, Get("y")),
            (1, Get("y")),
            (1, Put("y", "25")),
            (1, Commit),
            (2, Get("x")),
            (2, Get("y")),
            (2, Commit),
            (0, Put("x", "0")),
            (0, Commit),
        ],
        happened: |seen| seen.both_committed() && seen.read(2, &["10", "25"]),
        allowed_by_snapshot: true,
    },
];

/// The same with merges as the writes. Two blind merges may both commit: then both count, in one and
/// the same order everywhere.
const BY_MERGES: &[Anomaly] = &[
    Anomaly {
        name: "G0 by merges: two transactions' operands come in different orders",
        steps: &[
            (0, Merge("x", "a")),
            (1, Merge("x", "b")),
            (0, Merge("y", "a")),
            (0, Commit),
            (1, Merge("y", "b")),
            (1, Commit),
        ],
        happened: |seen| seen.value("x")[2..] != seen.value("y")[2..],
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G1a by merges",
        steps: &[
            (0, Merge("x", "a")),
            (1, Get("x")),
            (0, Rollback),
            (1, Get("x")),
            (1, Commit),
        ],
        happened: |seen| !seen.read(1, &["10", "10"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G1b by merges",
        steps: &[
            (0, Merge("x", "a")),
            (1, Get("x")),
            (0, Merge("x", "b")),
            (0, Commit),
            (1, Get("x")),
            (1, Commit),
        ],
        happened: |seen| !seen.read(1, &["10", "10"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G1c by merges",
        steps: &[
            (0, Merge("x", "a")),
            (1, Merge("y", "b")),
            (0, Get("y")),
            (1, Get("x")),
            (0, Commit),
            (1, Commit),
        ],
        happened: |seen| seen.read(0, &["20b"]) || seen.read(1, &["10a"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "OTV by merges",
        steps: &[
            (0, Merge("x", "a")),
            (0, Merge("y", "a")),
            (0, Commit),
            (2, Get("x")),
            (1, Merge("x", "b")),
            (1, Merge("y", "b")),
            (1, Commit),
            (2, Get("y")),
            (2, Get("x")),
            (2, Commit),
        ],
        happened: |seen| !seen.read(2, &["10a", "20a", "10a"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "PMP by merges: a merge makes the first value of a key",
        steps: &[
            (0, Scan("p", "q")),
            (1, Merge("p1", "a")),
            (1, Commit),
            (0, Scan("p", "q")),
            (0, Commit),
        ],
        happened: |seen| !seen.read(0, &["", ""]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "P4 by a merge and a put: the operand is lost unseen",
        steps: &[
            (0, Get("x")),
            (1, Get("x")),
            (0, Merge("x", "a")),
            (0, Commit),
            (1, Put("x", "12")),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G-single by merges",
        steps: &[
            (0, Get("x")),
            (1, Merge("x", "a")),
            (1, Merge("y", "a")),
            (1, Commit),
            (0, Get("y")),
            (0, Commit),
        ],
        happened: |seen| !seen.read(0, &["10", "20"]),
        allowed_by_snapshot: false,
    },
    Anomaly {
        name: "G2-item by merges",
        steps: &[
            (0, Get("x")),
            (0, Get("y")),
            (1, Get("x")),
            (1, Get("y")),
            (0, Merge("x", "a")),
            (1, Merge("y", "b")),
            (0, Commit),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: true,
    },
    Anomaly {
        name: "G2 by merges: two phantoms",
        steps: &[
            (0, Scan("p", "q")),
            (1, Scan("p", "q")),
            (0, Merge("p1", "a")),
            (1, Merge("p2", "b")),
            (0, Commit),
            (1, Commit),
        ],
        happened: Seen::both_committed,
        allowed_by_snapshot: true,
    },
];

#[test]
fn each_anomaly_is_prevented_or_allowed_as_documented() {
    for mode in modes() {
        for anomaly in ANOMALIES.iter().chain(BY_MERGES) {
            let seen = play(mode, anomaly.steps);
            let happened = (anomaly.happened)(&seen);
            let allowed = anomaly.allowed_by_snapshot && mode.0 == Isolation::Snapshot;
            let (name, runs) = (anomaly.name, &seen.runs);
            assert_eq!(happened, allowed, "{mode:?}: {name}: {runs:?}");
            // Preventing by failing everybody is no way: somebody always gets through.
            assert!(
                runs.iter().any(|run| run.committed),
                "{mode:?}: {name}: {runs:?}"
            );
        }
    }
}

/// Who only reads is never refused, whatever others do.
#[test]
fn a_transaction_that_wrote_nothing_always_commits() {
    for mode in modes() {
        let db = memory();
        db.put("x", "1").unwrap();
        let mut reader = db.begin_with(&options(mode)).unwrap();
        assert_eq!(text(reader.get("x").unwrap()).as_deref(), Some("1"));
        assert_eq!(reader.iter().count(), 1);
        db.put("x", "2").unwrap();
        db.put("a", "2").unwrap();
        assert_eq!(text(reader.get("x").unwrap()).as_deref(), Some("1"));
        reader.commit().unwrap();
    }
}

/// Blind writes depend on nothing: the later commit wins, and nobody is refused.
#[test]
fn blind_writes_of_serializable_transactions_do_not_conflict() {
    let db = memory();
    let mode = (Isolation::Serializable, Concurrency::Optimistic);
    let mut first = db.begin_with(&options(mode)).unwrap();
    let mut second = db.begin_with(&options(mode)).unwrap();
    first.put("x", "first").unwrap();
    second.put("x", "second").unwrap();
    second.commit().unwrap();
    first.commit().unwrap();
    assert_eq!(text(db.get("x").unwrap()).as_deref(), Some("first"));
}

/// A keyspace that was read and is dropped answers `NotFound`, one of another database is refused.
#[test]
fn keyspaces_that_are_gone_or_foreign_are_named() {
    let (db, other) = (memory(), memory());
    let (ks, foreign) = (db.keyspace("k").unwrap(), other.keyspace("k").unwrap());
    ks.put("a", "1").unwrap();
    let mut tx = db.begin().unwrap();
    assert_eq!(
        super::kind(tx.get_in(&foreign, "a")),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        super::kind(tx.put_in(&foreign, "a", "1")),
        ErrorKind::InvalidArgument
    );
    let mut entries = tx.range_in(&foreign, "a".."b");
    assert_eq!(
        super::kind(entries.next().unwrap()),
        ErrorKind::InvalidArgument
    );
    assert!(tx.get_in(&ks, "a").unwrap().is_some());
    tx.put("b", "1").unwrap();
    db.drop_keyspace("k").unwrap();
    assert_eq!(super::kind(tx.put_in(&ks, "a", "1")), ErrorKind::NotFound);
    assert_eq!(super::kind(tx.commit()), ErrorKind::NotFound);
    assert!(db.get("b").unwrap().is_none());
}

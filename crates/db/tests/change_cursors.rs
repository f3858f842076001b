//! Change cursors: what they have not acknowledged comes, through flushes, reopening and crashes, or they
//! say that they lag.
#![allow(clippy::unwrap_used)]

mod feed_disk;

use esker::vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem};
use esker::{
    ChangeBatch, ChangeCursor, Db, ErrorKind, Operation, Options, RuntimeOptions, WriteBatch,
};
use esker_testkit::seed::{Random, seeds};
use feed_disk::{HOME, disk, options};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn read(cursor: &ChangeCursor) -> Vec<ChangeBatch> {
    cursor.changes().unwrap().map(Result::unwrap).collect()
}

fn write(db: &Db, random: &mut Random) {
    let mut batch = WriteBatch::new();
    for _ in 0..=random.below(2) {
        let key = format!("key{:02}", random.below(40));
        match random.index(5) {
            0 => batch.delete(key),
            _ => batch.put(key, vec![7; 50 + random.index(400)]),
        }
    }
    db.write(batch).unwrap();
}

fn archived_files(fs: &dyn FileSystem, directory: &str) -> usize {
    let entries = fs.read_dir(&Path::new(HOME).join(directory));
    entries.map_or(0, |entries| entries.len())
}

#[test]
fn what_is_not_acknowledged_comes_and_the_rest_goes() {
    for (seed, is_archived) in seeds(3).flat_map(|seed| [(seed, false), (seed, true)]) {
        let (fs, mut random) = (disk(), Random::new(seed));
        let place = format!("seed {seed}, archived {is_archived}");
        let open = || options(&fs).wal_archive(is_archived).open(HOME).unwrap();
        let mut db = open();
        (0..50).for_each(|_| write(&db, &mut random));
        let mut told = Vec::new();
        let names = ["slow", "quick"];
        for name in names {
            let cursor = db.create_change_cursor(name).unwrap();
            assert_eq!(cursor.acknowledged().unwrap(), db.snapshot().sequence());
        }
        let begin = db.snapshot().sequence();
        let mut followed = begin + 1;
        let mut quick = begin;
        for _ in 0..500 {
            match random.index(40) {
                0 => db.flush().unwrap(),
                1 => db.wal().rotate().unwrap(),
                2 => db.wal().clear().unwrap(),
                3 => {
                    db.close().unwrap();
                    db = open();
                }
                4 => {
                    let cursor = db.change_cursor("quick").unwrap();
                    assert_eq!(cursor.acknowledged().unwrap(), quick, "{place}");
                    let batches = read(&cursor);
                    let part = random.index(batches.len() + 1);
                    if let Some(last) = batches[..part].last() {
                        quick = last.last_sequence();
                        cursor.acknowledge(quick).unwrap();
                    }
                }
                5..8 => {
                    let mut changes = db.changes(followed).unwrap();
                    told.extend(changes.by_ref().map(Result::unwrap));
                    followed = changes.next_sequence();
                }
                _ => write(&db, &mut random),
            }
        }
        told.extend(db.changes(followed).unwrap().map(Result::unwrap));
        assert!(read(&db.change_cursor("slow").unwrap()) == told, "{place}");
        let rest = told.iter().filter(|batch| batch.last_sequence() > quick);
        let found = read(&db.change_cursor("quick").unwrap());
        assert!(found.iter().eq(rest), "{place}");

        db.wal().clear().unwrap();
        let usage = db.disk_usage().unwrap();
        assert!(usage.cursor_bytes() > 0 && usage.cursor_bytes() <= usage.archived_bytes());
        let [(first, few), (second, all)] = usage.pinned_by_cursors() else {
            panic!("{usage:?}");
        };
        assert_eq!((&first[..], &second[..]), ("quick", "slow"));
        assert!(few <= all && *all == usage.cursor_bytes(), "{usage:?}");
        let last = db.snapshot().sequence();
        for name in names {
            db.change_cursor(name).unwrap().acknowledge(last).unwrap();
        }
        let left = archived_files(&*fs, "changes");
        assert_eq!(left, 0, "{place}: nothing is kept for cursors");
        assert_eq!(archived_files(&*fs, "archive") > 0, is_archived, "{place}");
        assert_eq!(db.disk_usage().unwrap().cursor_bytes(), 0);
        assert!(db.validate().unwrap().is_ok());
        // In a new manifest too, and without the last of them the log goes again.
        db.close().unwrap();
        let db = open();
        let known: Vec<_> = db.change_cursors().unwrap();
        assert!(known.iter().all(|known| known.acknowledged() == last));
        for name in names {
            db.delete_change_cursor(name).unwrap();
        }
        (0..100).for_each(|_| write(&db, &mut random));
        db.wal().clear().unwrap();
        assert_eq!(archived_files(&*fs, "changes"), 0);
        assert_eq!(db.wal().is_archived(), is_archived);
    }
}

#[test]
fn a_cursor_that_keeps_too_much_lags_and_says_so() {
    let fs = disk();
    let limit = 60 << 10;
    let open = || options(&fs).change_retention_bytes(limit).open(HOME);
    let db = open().unwrap();
    let cursor = db.create_change_cursor("slow").unwrap();
    let mut random = Random::new(1);
    let rounds = |db: &Db, random: &mut Random| {
        for _ in 0..400 {
            write(db, random);
        }
        db.wal().clear().unwrap();
    };
    rounds(&db, &mut random);
    let kept = db.disk_usage().unwrap().cursor_bytes();
    assert!(kept <= limit && kept > limit / 2, "{kept}");
    for _ in 0..2 {
        let mut changes = cursor.changes().unwrap();
        let error = changes.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lagged, "{error}");
        let gap = changes.gap().unwrap().clone();
        assert_eq!(gap.first_sequence(), 1);
        let left = format!("begins with {}", gap.next_sequence());
        assert!(error.to_string().contains(&left), "{error}");
        changes.pass_gap();
        let next = changes.next().unwrap().unwrap();
        assert_eq!(next.first_sequence(), gap.next_sequence());
        assert!(changes.all(|batch| batch.is_ok()));
    }
    drop(cursor);
    db.close().unwrap();
    let db = open().unwrap();
    let cursor = db.change_cursor("slow").unwrap();
    let error = cursor.changes().unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lagged);
    // Made up for from a snapshot, it goes on; with more room it does not lag.
    let snapshot = db.snapshot();
    cursor.acknowledge(snapshot.sequence()).unwrap();
    db.set_options(&RuntimeOptions::new().change_retention_bytes(1 << 30))
        .unwrap();
    rounds(&db, &mut random);
    assert_eq!(read(&cursor).len(), 400);
}

#[test]
fn what_cannot_be_is_refused() {
    let fs = disk();
    let db = options(&fs).open(HOME).unwrap();
    db.put("a", "1").unwrap();
    db.put("b", "2").unwrap();
    db.wal().clear().unwrap();
    db.put("c", "3").unwrap();
    let kind = |outcome: esker::Result<ChangeCursor>| outcome.unwrap_err().kind();
    assert_eq!(
        kind(db.create_change_cursor("")),
        ErrorKind::InvalidArgument
    );
    let long = "x".repeat(256);
    assert_eq!(
        kind(db.create_change_cursor(&long)),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(db.create_change_cursor_from("gone", 1)),
        ErrorKind::Gap
    );
    assert_eq!(
        kind(db.create_change_cursor_from("ahead", 5)),
        ErrorKind::InvalidArgument
    );
    let cursor = db.create_change_cursor_from("cursor", 3).unwrap();
    assert_eq!(
        kind(db.create_change_cursor("cursor")),
        ErrorKind::InvalidArgument
    );
    assert_eq!(read(&cursor).len(), 1);
    cursor.acknowledge(3).unwrap();
    cursor.acknowledge(3).unwrap();
    for sequence in [2, 4] {
        let error = cursor.acknowledge(sequence).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(cursor.acknowledged().unwrap(), 3);
    }
    assert_eq!(kind(db.change_cursor("other")), ErrorKind::NotFound);
    let error = db.delete_change_cursor("other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let copy = db.checkpoint("/copy");
    copy.unwrap();
    db.close().unwrap();
    assert_eq!(cursor.changes().unwrap_err().kind(), ErrorKind::Closed);

    // Whoever only reads may look. A copy has no cursors of its own.
    let db = options(&fs).open_read_only(HOME).unwrap();
    assert_eq!(db.change_cursors().unwrap()[0].acknowledged(), 3);
    let cursor = db.change_cursor("cursor").unwrap();
    assert!(read(&cursor).is_empty());
    assert_eq!(
        cursor.acknowledge(3).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(kind(db.create_change_cursor("new")), ErrorKind::ReadOnly);
    let copy = options(&fs).open("/copy").unwrap();
    assert!(copy.change_cursors().unwrap().is_empty());
    let memory = Options::new().open_in_memory().unwrap();
    assert_eq!(
        kind(memory.create_change_cursor("a")),
        ErrorKind::Unsupported
    );
    assert_eq!(
        memory.change_cursors().unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

/// A backup that is restored is a gap for a cursor too: its log was not let go of.
#[test]
fn a_restore_is_a_gap_and_the_cursor_stays() {
    let db = options(&disk()).open(HOME).unwrap();
    let cursor = db.create_change_cursor("cursor").unwrap();
    db.put("a", "1").unwrap();
    let backup = db.create_backup("before").unwrap();
    db.put("a", "2").unwrap();
    db.restore_backup(backup.name()).unwrap();
    db.put("b", "3").unwrap();
    let mut changes = cursor.changes().unwrap();
    assert_eq!(changes.by_ref().take(2).filter(Result::is_ok).count(), 2);
    let error = changes.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert!(error.to_string().contains("restored"), "{error}");
    changes.pass_gap();
    assert_eq!(changes.count(), 1);
}

/// What a run did, and when.
#[derive(Default)]
struct Run {
    /// Operations of the disk after which the cursor had been made.
    made: usize,
    /// What was about to be acknowledged, and from which operation on it was known to be.
    acknowledged: Vec<(u64, usize)>,
    history: Vec<ChangeBatch>,
}

fn crash_options(disk: &CrashFileSystem) -> Options {
    options(&(Arc::new(disk.clone()) as Arc<dyn FileSystem>))
}

fn run(disk: &CrashFileSystem) -> Run {
    let mut run = Run::default();
    let mut random = Random::new(7);
    let mut db = crash_options(disk).open(HOME).unwrap();
    (0..10).for_each(|_| write(&db, &mut random));
    db.create_change_cursor("cursor").unwrap();
    run.made = disk.operations();
    let begin = db.snapshot().sequence();
    run.acknowledged.push((begin, run.made));
    let mut next = 1;
    for turn in 0..90 {
        write(&db, &mut random);
        match turn % 15 {
            3 => db.flush().unwrap(),
            7 => db.wal().clear().unwrap(),
            11 if turn > 40 => {
                db.close().unwrap();
                db = crash_options(disk).open(HOME).unwrap();
            }
            14 => db.wal().rotate().unwrap(),
            _ => {}
        }
        if turn % 6 == 5 {
            let mut changes = db.changes(next).unwrap();
            run.history.extend(changes.by_ref().map(Result::unwrap));
            next = changes.next_sequence();
            // Not all of it.
            let at = run.history.len() - 1 - random.index(4);
            let sequence = run.history[at].last_sequence();
            let cursor = db.change_cursor("cursor").unwrap();
            if sequence > cursor.acknowledged().unwrap() {
                run.acknowledged.push((sequence, usize::MAX));
                cursor.acknowledge(sequence).unwrap();
                run.acknowledged.last_mut().unwrap().1 = disk.operations();
            }
        }
    }
    let changes = db.changes(next).unwrap();
    run.history.extend(changes.map(Result::unwrap));
    db.close().unwrap();
    run
}

/// The sweep found that what a flushed table holds could be missing in the log after a loss of power, and
/// that numbers which the manifest knew of, of writes that were never durable, were taken for missing.
#[test]
fn after_a_crash_at_any_moment_nothing_is_skipped() {
    let moments = if cfg!(debug_assertions) { 250 } else { 4000 };
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let run = run(&disk);
    let operations = disk.operations();
    let step = (operations / moments).max(1);
    let mut points = 0;
    for moment in (0..=operations).step_by(step) {
        let seed = moment as u64;
        for (number, policy) in [
            ImagePolicy::ONLY_SYNCED,
            ImagePolicy::random_subset(seed),
            ImagePolicy::torn_tail(seed),
        ]
        .iter()
        .enumerate()
        {
            let place = format!("operation {moment} of {operations}, policy {number}");
            let image = CrashFileSystem::new(disk.image(moment, policy));
            let db = crash_options(&image).open(HOME);
            let db = db.unwrap_or_else(|error| panic!("{place}: {error}"));
            check_cursor(&db, &run, moment, &place);
            points += 1;
        }
    }
    println!("points tried: {points}");
}

fn replayed<'a>(batches: impl Iterator<Item = &'a ChangeBatch>) -> Map {
    let mut map = Map::new();
    for change in batches.flat_map(ChangeBatch::changes) {
        match change.operation() {
            Operation::Put { key, value } => drop(map.insert(key.to_vec(), value.to_vec())),
            Operation::Delete { key } => drop(map.remove(key)),
            other => panic!("nothing else is written: {other:?}"),
        }
    }
    map
}

fn contents(db: &Db) -> Map {
    let entries = db.iter().map(Result::unwrap);
    entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

fn check_cursor(db: &Db, run: &Run, moment: usize, place: &str) {
    let cursor = match db.change_cursor("cursor") {
        Ok(cursor) => cursor,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(moment < run.made, "{place}: the cursor is gone");
            return;
        }
    };
    let found = cursor.acknowledged().unwrap();
    let known = run.acknowledged.iter();
    let durable = known.clone().rfind(|(_, at)| *at <= moment);
    let durable = durable.map_or(0, |(sequence, _)| *sequence);
    assert!(found >= durable, "{place}: {found} came before {durable}");
    let is_one = known.clone().any(|(sequence, _)| *sequence == found);
    assert!(is_one, "{place}: {found} was never acknowledged");
    let last = db.snapshot().sequence();
    assert!(
        last >= found,
        "{place}: {found} is behind the last write, {last}"
    );
    let mut told: Vec<_> = cursor
        .changes()
        .unwrap()
        .map(|batch| batch.unwrap_or_else(|error| panic!("{place}: {error}")))
        .collect();
    // It is what was written behind it, and all that the database has of that.
    let expected = run.history.iter();
    let expected = expected.filter(|batch| batch.first_sequence() > found);
    assert!(told.iter().eq(expected.take(told.len())), "{place}");
    let end = told.last().map_or(found, ChangeBatch::last_sequence);
    let before = run.history.iter().filter(|b| b.last_sequence() <= end);
    assert!(replayed(before) == contents(db), "{place}: {end}");
    // And what is written from here on, also through the archive.
    for round in 0..2 {
        db.put(format!("after {round}"), "value").unwrap();
        db.wal().clear().unwrap();
        let now = read(&cursor);
        assert!(now[..told.len()] == told[..], "{place}");
        assert_eq!(now.len(), told.len() + 1, "{place}");
        told = now;
    }
    cursor.acknowledge(db.snapshot().sequence()).unwrap();
    assert!(read(&cursor).is_empty(), "{place}");
}

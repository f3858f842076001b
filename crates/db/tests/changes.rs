//! The feed of changes against what was written: every batch once, whole and in order, or a gap that is
//! named.
#![allow(clippy::unwrap_used)]

mod feed_disk;

use esker::merge_operators::Append;
use esker::vfs::{DeviceError, Fault, FaultFileSystem, FileSystem, OperationKind};
use esker::{
    ChangeBatch, Changes, Db, Durability, ErrorKind, IndexDefinition, ManualClock, Operation,
    Options, WriteBatch, WriteOptions,
};
use esker_testkit::seed::{Random, seeds};
use feed_disk::{HOME, disk};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// So long that only a lost wake-up lasts until then.
const VERY_LONG: Duration = Duration::from_secs(600);

type Map = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// With lists that are merged into.
fn options(fs: &Arc<dyn FileSystem>) -> Options {
    feed_disk::options(fs).merge_operator("lists", Append::new(","))
}

fn archived(fs: &Arc<dyn FileSystem>) -> Options {
    options(fs).wal_archive(true)
}

/// Everything there is now.
fn all(changes: &mut Changes) -> Vec<ChangeBatch> {
    changes.map(Result::unwrap).collect()
}

/// Does to `map` what a batch did to the database.
fn apply(map: &mut Map, batch: &ChangeBatch) {
    for change in batch.changes() {
        let name = |key: &[u8]| (change.keyspace().to_owned(), key.to_vec());
        match change.operation() {
            Operation::Put { key, value } | Operation::PutExpiring { key, value, .. } => {
                map.insert(name(key), value.to_vec());
            }
            Operation::Delete { key } => drop(map.remove(&name(key))),
            Operation::DeleteRange { start, end } => map.retain(|(keyspace, key), _| {
                let is_in = &key[..] >= start && end.is_none_or(|end| &key[..] < end);
                keyspace != change.keyspace() || !is_in
            }),
            Operation::Merge { key, operand } => {
                let value = map.entry(name(key)).or_default();
                if !value.is_empty() {
                    value.push(b',');
                }
                value.extend(operand);
            }
            other => panic!("an operation that the test does not know: {other:?}"),
        }
    }
}

fn contents(db: &Db) -> Map {
    let mut map = Map::new();
    for name in db.keyspace_names().unwrap() {
        for entry in db.keyspace(&name).unwrap().iter() {
            let (key, value) = entry.unwrap();
            map.insert((name.clone(), key.to_vec()), value.to_vec());
        }
    }
    map
}

/// Batches are in order, and what they do makes the database.
fn agree(db: &Db, batches: &[ChangeBatch], place: &str) {
    let mut next = 1;
    let mut map = Map::new();
    for batch in batches {
        assert!(batch.first_sequence() >= next, "{place}: {batch:?}");
        assert!(
            batch.last_sequence() >= batch.first_sequence(),
            "{place}: {batch:?}"
        );
        next = batch.last_sequence() + 1;
        apply(&mut map, batch);
    }
    assert!(map == contents(db), "{place}: the replayed state differs");
}

/// One write of any kind.
fn write(db: &Db, random: &mut Random) {
    let key = format!("key{:02}", random.below(30));
    let value = format!("{:x}", random.next_u64()).repeat(1 + random.index(20));
    let keyspace = |name| db.keyspace(name).unwrap();
    match random.index(9) {
        0 => db.delete(&key).unwrap(),
        1 => db.delete_range(key.clone()..format!("{key}5")).unwrap(),
        2 => {
            let mut batch = WriteBatch::new();
            batch.put_in(&keyspace("users"), &key, &value);
            batch.delete_in(&keyspace("users"), "key05");
            batch.put(&key, "both");
            batch.delete_range(format!("key0{}", random.below(9)).as_str().."key09");
            db.write(batch).unwrap();
        }
        3 => db.put_with_ttl(&key, &value, VERY_LONG).unwrap(),
        4 => keyspace("lists").merge(&key, "item").unwrap(),
        5 => keyspace("notes").put(&key, &value[..8]).unwrap(),
        6 => db
            .transact(|tx| {
                let known = tx.get(&key)?.map_or(0, |value| value.len());
                tx.put(&key, known.to_string())?;
                tx.put(format!("{key}'"), "seen")
            })
            .unwrap(),
        7 => {
            let options = WriteOptions::new().durability(Durability::Sync);
            db.put_opt(&key, &value, &options).unwrap();
        }
        _ => db.put(&key, &value).unwrap(),
    }
}

#[test]
fn every_kind_of_operation_is_told_with_its_keyspace() {
    let fs = disk();
    let by_value = IndexDefinition::new("by_value", 1, |_key, value, keys| {
        keys.add(value);
        Ok(())
    });
    let db = archived(&fs).index("users", by_value).open(HOME).unwrap();
    db.build_indexes().unwrap();
    let (users, lists) = (db.keyspace("users").unwrap(), db.keyspace("lists").unwrap());
    let first = db.snapshot().sequence() + 1;
    let mut batch = WriteBatch::new();
    batch.put("a", "1");
    batch.put_in(&users, "u", "Ada");
    batch.delete("b");
    batch.delete_range("c".."d");
    batch.delete_range("x"..);
    batch.merge_in(&lists, "l", "item");
    db.write(batch).unwrap();
    db.put_with_ttl("t", "2", Duration::from_secs(1)).unwrap();

    let mut changes = db.changes(first).unwrap();
    let batch = changes.next().unwrap().unwrap();
    let told: Vec<_> = batch
        .changes()
        .map(|change| (change.keyspace(), change.operation()))
        .collect();
    let expected = [
        (
            "default",
            Operation::Put {
                key: b"a",
                value: b"1",
            },
        ),
        (
            "users",
            Operation::Put {
                key: b"u",
                value: b"Ada",
            },
        ),
        ("default", Operation::Delete { key: b"b" }),
        (
            "default",
            Operation::DeleteRange {
                start: b"c",
                end: Some(b"d"),
            },
        ),
        (
            "default",
            Operation::DeleteRange {
                start: b"x",
                end: None,
            },
        ),
        (
            "lists",
            Operation::Merge {
                key: b"l",
                operand: b"item",
            },
        ),
    ];
    assert_eq!(told, expected);
    let sequences: Vec<_> = batch.changes().map(|change| change.sequence()).collect();
    assert_eq!(sequences, (first..first + 6).collect::<Vec<_>>());
    // What the index took stands in the same batch, and is not shown.
    assert!(batch.last_sequence() > first + 5);
    assert!(batch.committed_millis().is_some());
    let batch = changes.next().unwrap().unwrap();
    let change = batch.changes().next().unwrap();
    match change.operation() {
        Operation::PutExpiring {
            key,
            value,
            expires_at_millis,
        } => {
            assert_eq!((key, value), (&b"t"[..], &b"2"[..]));
            assert!(expires_at_millis > batch.committed_millis().unwrap());
        }
        other => panic!("{other:?}"),
    }
    assert!(changes.next().is_none());

    // A batch that lies around the number comes whole; those of a dropped keyspace are left out.
    let batch = db.changes(first + 3).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.first_sequence(), first);
    drop(users);
    db.drop_keyspace("users").unwrap();
    let batch = db.changes(first).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.changes().count(), 5);
}

#[test]
fn a_feed_is_the_history_in_order() {
    for seed in seeds(8) {
        let (fs, mut random) = (disk(), Random::new(seed));
        let place = format!("seed {seed}");
        let mut db = archived(&fs).open(HOME).unwrap();
        let mut followed = Vec::new();
        let mut changes = Some(db.changes(0).unwrap());
        for _ in 0..600 {
            match random.index(60) {
                0 => db.flush().unwrap(),
                1 => db.wal().rotate().unwrap(),
                2 => db.wal().clear().unwrap(),
                3 => {
                    let next = changes.take().map(|mut changes| {
                        followed.extend(all(&mut changes));
                        changes.next_sequence()
                    });
                    db.close().unwrap();
                    db = archived(&fs).open(HOME).unwrap();
                    changes = next.map(|next| db.changes(next).unwrap());
                }
                4..15 => followed.extend(all(changes.as_mut().unwrap())),
                _ => write(&db, &mut random),
            }
        }
        followed.extend(all(changes.as_mut().unwrap()));
        agree(&db, &followed, &place);
        let anew = all(&mut db.changes(1).unwrap());
        assert!(anew == followed, "{place}: read once more");
        // From anywhere, it is the rest.
        let from = random.below(db.snapshot().sequence()) + 1;
        let rest = all(&mut db.changes(from).unwrap());
        let mut expected = followed.iter();
        expected.by_ref().position(|b| b.last_sequence() >= from);
        assert_eq!(rest.len(), expected.len() + 1, "{place}");
        drop(changes);
        db.close().unwrap();
        let db = archived(&fs).open_read_only(HOME).unwrap();
        assert!(all(&mut db.changes(1).unwrap()) == followed, "{place}");
    }
}

/// Stops whoever looks at it, also where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Where a test fails, whoever waits for a write is told that none will come.
struct CloseOnPanic<'a>(&'a Db);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.close();
        }
    }
}

/// Writers, who put what they write twice into each batch, and somebody who has the log change its files.
fn write_together(db: &Db, writers: u32, batches: u32) {
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            for turn in 0.. {
                match turn % 3 {
                    0 => db.flush().unwrap(),
                    1 => db.wal().rotate().unwrap(),
                    _ => db.wal().clear().unwrap(),
                }
                if done.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        let _stop = Stop(done);
        let writing: Vec<_> = (0..writers)
            .map(|writer| {
                scope.spawn(move || {
                    for number in 0..batches {
                        let mut batch = WriteBatch::new();
                        batch.put(format!("{writer} {number}"), [7; 200]);
                        batch.put(format!("{writer} last"), number.to_string());
                        let durability = match number % 50 {
                            0 => Durability::Sync,
                            _ => Durability::Buffered,
                        };
                        let options = WriteOptions::new().durability(durability);
                        db.write_opt(batch, &options).unwrap();
                    }
                })
            })
            .collect();
        for writer in writing {
            writer.join().unwrap();
        }
    });
}

#[test]
fn a_follower_sees_what_many_threads_write() {
    const WRITERS: u32 = 4;
    const BATCHES: u32 = 400;
    let db = archived(&disk()).open(HOME).unwrap();
    let followed = thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut changes = db.changes(1).unwrap();
            let mut followed = Vec::new();
            while followed.len() < (WRITERS * BATCHES) as usize {
                assert!(changes.wait(VERY_LONG).unwrap());
                followed.extend(all(&mut changes));
            }
            followed
        });
        let _told = CloseOnPanic(&db);
        write_together(&db, WRITERS, BATCHES);
        follower.join().unwrap()
    });
    let mut next = 1;
    for batch in &followed {
        assert_eq!(batch.first_sequence(), next);
        assert_eq!(batch.changes().count(), 2);
        next = batch.last_sequence() + 1;
    }
    agree(&db, &followed, "many threads");
    assert!(all(&mut db.changes(1).unwrap()) == followed);
}

#[test]
fn without_an_archive_what_is_gone_is_said() {
    const WRITERS: u32 = 3;
    const BATCHES: u32 = 300;
    let db = options(&disk()).open(HOME).unwrap();
    let (mut seen, mut missing) = (0, 0);
    thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut changes = db.changes(1).unwrap();
            let (mut seen, mut missing, mut next) = (0, 0, 1);
            while next <= u64::from(2 * WRITERS * BATCHES) {
                assert!(changes.wait(VERY_LONG).unwrap());
                match changes.next() {
                    None => {}
                    Some(Ok(batch)) => {
                        assert_eq!(batch.first_sequence(), next);
                        assert_eq!(batch.changes().count(), 2);
                        next = batch.last_sequence() + 1;
                        seen += 1;
                    }
                    Some(Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::Gap, "{error}");
                        let gap = changes.gap().unwrap();
                        assert_eq!(gap.first_sequence(), next);
                        let left = format!("begins with {}", gap.next_sequence());
                        assert!(error.to_string().contains(&left), "{error}");
                        next = gap.next_sequence();
                        missing += next - gap.first_sequence();
                        changes.pass_gap();
                    }
                }
            }
            (seen, missing)
        });
        let _told = CloseOnPanic(&db);
        write_together(&db, WRITERS, BATCHES);
        (seen, missing) = follower.join().unwrap();
    });
    assert_eq!(2 * seen + missing, u64::from(2 * WRITERS * BATCHES));
    db.put("one", "more").unwrap();
    let mut changes = db.changes(1).unwrap();
    for _ in 0..2 {
        let error = changes.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap);
    }
    // The background may still be letting go of some.
    let mut last = None;
    while let Some(next) = changes.next() {
        match next {
            Ok(batch) => last = Some(batch),
            Err(_) => changes.pass_gap(),
        }
    }
    let last = last.unwrap();
    let last = last.changes().next().unwrap();
    assert_eq!(last.operation().key(), b"one");
}

#[test]
fn what_went_past_the_log_is_a_gap() {
    let db = archived(&disk()).open(HOME).unwrap();
    let volatile = WriteOptions::new().durability(Durability::Volatile);
    let past: [(&str, &dyn Fn()); 3] = [
        ("Volatile", &|| {
            db.put_opt("volatile", "write", &volatile).unwrap();
        }),
        ("bulk", &|| {
            db.ingest([("loaded", "entry")]).unwrap();
        }),
        ("restored", &|| {
            let backup = db.create_backup("to be restored").unwrap();
            db.restore_backup(backup.name()).unwrap();
        }),
    ];
    let mut changes = db.changes(1).unwrap();
    for (word, step) in past {
        db.put("before", word).unwrap();
        assert_eq!(all(&mut changes).len(), 1);
        step();
        let last = db.snapshot().sequence();
        // At once, and in the same way once something follows.
        for follows in [false, true] {
            if follows {
                db.put("after", word).unwrap();
            }
            let error = changes.next().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gap, "{word}: {error}");
            assert!(error.to_string().contains(word), "{error}");
            let gap = changes.gap().unwrap();
            assert_eq!(gap.last_sequence(), last, "{word}");
        }
        changes.pass_gap();
        assert_eq!(all(&mut changes).len(), 1, "{word}");
    }
}

/// A write that failed may have left its bytes in the log. Nobody saw it, and the feed does not tell it,
/// also where it stood right before them. (Without an archive its numbers were once a `Gap`.)
#[test]
fn a_write_that_failed_is_not_told() {
    for is_archived in [true, false] {
        write_and_fail(is_archived);
    }
}

fn write_and_fail(is_archived: bool) {
    let faulty = FaultFileSystem::new(disk());
    let fs: Arc<dyn FileSystem> = Arc::new(faulty.clone());
    let clock = Arc::new(ManualClock::at_millis(1_700_000_000_000));
    let options = options(&fs).wal_archive(is_archived).clock(clock.clone());
    let db = options.open(HOME).unwrap();
    let mut changes = db.changes(1).unwrap();
    let sync = WriteOptions::new().durability(Durability::Sync);
    let mut told = Vec::new();
    for round in 0..6u32 {
        let key = format!("good {round}");
        db.put(&key, "value").unwrap();
        if round % 2 == 0 || !is_archived {
            // The cure lets go of a log that nothing keeps.
            let batch = all(&mut changes).pop().unwrap();
            told.push(batch);
        }
        faulty.set_plan(|_, operation| {
            let syncs = operation.kind == OperationKind::Sync;
            let is_log = operation.path.extension().is_some_and(|end| end == "wal");
            (syncs && is_log).then_some(Fault::Refuse(DeviceError::Io))
        });
        let mut batch = WriteBatch::new();
        batch.put("bad", "1");
        batch.put("bad", "2");
        db.write_opt(batch, &sync).unwrap_err();
        faulty.clear();
        clock.advance(VERY_LONG);
        let has_followed = round % 2 == 0 || !is_archived;
        assert!(!has_followed || changes.next().is_none());
        db.put_opt(format!("cured {round}"), "value", &sync)
            .unwrap();
        told.extend(all(&mut changes));
    }
    assert_eq!(told.len(), 12);
    agree(&db, &told, "failed writes");
    if is_archived {
        assert!(all(&mut db.changes(1).unwrap()) == told);
    }
}

#[test]
fn a_damaged_file_is_named_with_the_place() {
    let fs = disk();
    let db = archived(&fs).open(HOME).unwrap();
    for round in 0..3u32 {
        for i in 0..50u32 {
            db.put(i.to_be_bytes(), round.to_string().repeat(50))
                .unwrap();
        }
        db.wal().clear().unwrap();
    }
    let segments = db.wal().archived().unwrap();
    assert_eq!(segments.len(), 3);
    let middle = &segments[1];
    let file = fs.open_write(middle.path()).unwrap();
    file.write_at(middle.bytes() - 2000, &[0xff; 30]).unwrap();
    let mut changes = db.changes(1).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = changes.by_ref().take(200).partition(Result::is_ok);
    assert!(good.len() >= 50 && good.len() < 100);
    for error in bad {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(error.file(), Some(middle.path()));
        let offset = error.offset().unwrap();
        assert!(offset <= middle.bytes() - 2000 && offset > middle.bytes() - 2300);
    }
    // It stays where it is; behind the damage another feed goes on.
    assert_eq!(changes.next_sequence(), good.len() as u64 + 1);
    assert_eq!(all(&mut db.changes(101).unwrap()).len(), 50);

    // Cut within a record; the header; the whole file.
    file.set_len(middle.bytes() - 1501).unwrap();
    let error = changes.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    file.write_at(3, &[0xff]).unwrap();
    let error = changes.next().unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::Corruption, Some(middle.path()))
    );
    assert!(error.offset().is_some());
    drop(file);
    fs.remove_file(middle.path()).unwrap();
    let (first, last) = (changes.next_sequence(), 100);
    let error = changes.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    let named = format!("writes {first} to {last}");
    assert!(error.to_string().contains(&named), "{error}");
}

#[test]
fn positions_that_are_none_are_refused() {
    let fs = disk();
    let db = archived(&fs).open(HOME).unwrap();
    assert!(db.changes(1).unwrap().next().is_none());
    let error = db.changes(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    db.put("key", "value").unwrap();
    assert!(db.changes(2).unwrap().next().is_none());
    assert_eq!(
        db.changes(9).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert!(!db.changes(2).unwrap().wait(Duration::ZERO).unwrap());
    let changes = db.changes(2).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| changes.wait(VERY_LONG));
        db.close().unwrap();
        assert_eq!(
            waiting.join().unwrap().unwrap_err().kind(),
            ErrorKind::Closed
        );
    });
    assert_eq!(db.changes(1).unwrap_err().kind(), ErrorKind::Closed);
    let memory = Options::new().open_in_memory().unwrap();
    assert_eq!(
        memory.changes(1).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

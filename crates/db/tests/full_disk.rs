//! A full disk: reads work throughout, puts are told `NoSpace`, deletes and range deletes go on, and
//! once there is room the same open database takes everything again, with nothing lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FaultRule, FileSystem, ImagePolicy,
    MemFileSystem, OperationKind,
};
use esker::{Db, Durability, ErrorKind, ManualClock, Options, WriteBatch, WriteOptions};
use esker_testkit::seed::noise;

const HOME: &str = "/db";

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn small(fs: Arc<dyn FileSystem>) -> Options {
    Options::new()
        .file_system(fs)
        .write_buffer_bytes(128 << 10)
        .target_file_bytes(64 << 10)
        .wal_segment_bytes(64 << 10)
        .wal_size_limit_bytes(512 << 10)
        .manifest_bytes(16 << 10)
        .cache_bytes(256 << 10)
}

fn key(number: usize) -> Vec<u8> {
    format!("key{number:06}").into_bytes()
}

/// Bytes that do not compress, and tell which write they are of.
fn value(number: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend(noise(number as u64, 240));
    bytes
}

fn is_full<T>(answer: esker::Result<T>) -> bool {
    match answer {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            true
        }
    }
}

fn durably(durability: Durability) -> WriteOptions {
    WriteOptions::new().durability(durability)
}

/// Puts until the answer is `NoSpace`, several times over; what was acknowledged.
fn fill(db: &Db, model: &mut Map, durability: Durability) {
    fill_with(db, model, durability, value);
}

fn fill_with(db: &Db, model: &mut Map, durability: Durability, value: impl Fn(usize) -> Vec<u8>) {
    let mut refusals = 0;
    for number in 0.. {
        if is_full(db.put_opt(key(number), value(number), &durably(durability))) {
            refusals += 1;
            if refusals == 20 {
                break;
            }
        } else {
            model.insert(key(number), value(number));
        }
        assert!(number < 200_000, "the disk is never full");
    }
}

fn assert_valid(db: &Db) {
    let report = db.validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
}

fn compare(db: &Db, model: &Map) {
    let found = db.iter().map(Result::unwrap);
    let found: Map = found.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    assert_eq!(found.len(), model.len());
    assert!(found == *model, "the database differs from the model");
}

/// Deletes `count` keys of the model one by one, and a range of them.
fn delete(db: &Db, model: &mut Map, count: usize, durability: Durability) {
    let keys: Vec<_> = model.keys().step_by(2).take(count).cloned().collect();
    for (at, key) in keys.iter().enumerate() {
        db.delete_opt(key, &durably(durability))
            .unwrap_or_else(|error| panic!("delete {at} was refused: {error}"));
        model.remove(key);
    }
    // Beyond what there is to delete: as many deletes as were asked for.
    for number in keys.len()..count {
        let key = format!("no such key {number}");
        db.delete_opt(key, &durably(durability))
            .unwrap_or_else(|error| panic!("delete {number} was refused: {error}"));
    }
    let ends: Vec<_> = model.keys().rev().take(20).cloned().collect();
    if let (Some(last), Some(first)) = (ends.first(), ends.last()) {
        db.delete_range(first.clone()..last.clone()).unwrap();
        model.retain(|key, _| key < first || key >= last);
    }
}

/// The disk has room again: writes go on in the same open database, and nothing is lost.
fn resume(db: &Db, model: &mut Map, options: impl Fn() -> Options) {
    db.put("after", "all").unwrap();
    model.insert(b"after".to_vec(), b"all".to_vec());
    compare(db, model);
    for number in 300_000..301_000 {
        db.put_opt(key(number), value(number), &durably(Durability::Buffered))
            .unwrap();
        model.insert(key(number), value(number));
    }
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    assert_valid(db);
    compare(db, model);
    db.close().unwrap();
    let again = options().open(HOME).unwrap();
    compare(&again, model);
    assert_valid(&again);
}

#[test]
fn deletes_go_on_where_the_database_has_filled_the_disk() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let disk = MemFileSystem::with_capacity(8 << 20);
        let options = || small(Arc::new(disk.clone()));
        let db = options().open(HOME).unwrap();
        let mut model = Map::new();
        fill(&db, &mut model, durability);
        compare(&db, &model);
        delete(&db, &mut model, 5_000, durability);
        compare(&db, &model);
        disk.set_capacity(u64::MAX);
        resume(&db, &mut model, options);
    }
}

#[test]
fn deletes_go_on_where_others_have_filled_the_disk() {
    for written in [1, 100, 1000, 5000] {
        let disk = MemFileSystem::new();
        let options = || small(Arc::new(disk.clone()));
        let db = options().open(HOME).unwrap();
        let mut model = Map::new();
        for number in 0..written {
            db.put_opt(key(number), value(number), &durably(Durability::Buffered))
                .unwrap();
            model.insert(key(number), value(number));
        }
        db.wait_for_background_work().unwrap();
        disk.set_capacity(disk.used_bytes());
        fill(&db, &mut model, Durability::Sync);
        delete(&db, &mut model, 3_000, Durability::Sync);
        assert!(is_full(db.put("more than was freed", vec![0; 32 << 20])));
        compare(&db, &model);
        disk.set_capacity(u64::MAX);
        resume(&db, &mut model, options);
    }
}

/// What range deletes cover is let go of, and writes go on in the space: nobody has to help.
#[test]
fn range_deletes_free_space_that_writes_go_on_in() {
    let disk = MemFileSystem::with_capacity(8 << 20);
    let options = || small(Arc::new(disk.clone()));
    let db = options().open(HOME).unwrap();
    let mut model = Map::new();
    fill(&db, &mut model, Durability::Buffered);
    let before = disk.used_bytes();
    db.delete_range(key(0)..key(999_999)).unwrap();
    model.clear();
    compare(&db, &model);
    db.flush().unwrap();
    db.compact().unwrap();
    assert!(disk.used_bytes() < before / 2, "nothing was freed");
    resume(&db, &mut model, options);
}

/// What a cursor of the feed of changes keeps of the log is bounded, and the copying of it holds up nothing for
/// ever: range deletes make room as they do without one, and nobody has to help.
#[test]
fn a_change_cursor_does_not_keep_a_full_disk_full() {
    let disk = MemFileSystem::with_capacity(8 << 20);
    let options = || small(Arc::new(disk.clone())).change_retention_bytes(256 << 10);
    let db = options().open(HOME).unwrap();
    db.create_change_cursor("nobody reads it").unwrap();
    let mut model = Map::new();
    fill(&db, &mut model, Durability::Buffered);
    db.delete_range(key(0)..key(999_999)).unwrap();
    model.clear();
    db.flush().unwrap();
    db.compact().unwrap();
    resume(&db, &mut model, options);
}

/// A batch and a transaction of deletes alone are deletes; one put among them makes them a put.
#[test]
fn what_counts_as_a_delete() {
    let disk = MemFileSystem::with_capacity(8 << 20);
    let options = || small(Arc::new(disk.clone()));
    let db = options().open(HOME).unwrap();
    let mut model = Map::new();
    fill(&db, &mut model, Durability::Buffered);
    // The rest of the log is used up first.
    delete(&db, &mut model, 2_000, Durability::Buffered);
    let victims: Vec<_> = model.keys().take(4).cloned().collect();
    let mut mixed = WriteBatch::new();
    mixed.delete(&victims[0]);
    mixed.put("more than the disk holds", vec![7; 9 << 20]);
    assert!(is_full(db.write(mixed)));
    compare(&db, &model);
    let mut batch = WriteBatch::new();
    batch.delete(&victims[0]);
    batch.delete_range(victims[1].clone()..victims[2].clone());
    db.write(batch).unwrap();
    let mut transaction = db.begin().unwrap();
    transaction.delete(&victims[3]).unwrap();
    transaction.commit().unwrap();
    for gone in [0, 1, 3] {
        model.remove(&victims[gone]);
    }
    compare(&db, &model);
    disk.set_capacity(u64::MAX);
    resume(&db, &mut model, options);
}

/// Deletes that were acknowledged on a full disk survive the power.
#[test]
fn deletes_on_a_full_disk_are_as_durable_as_others() {
    let memory = MemFileSystem::with_capacity(8 << 20);
    let disk = CrashFileSystem::new(memory);
    let db = small(Arc::new(disk.clone())).open(HOME).unwrap();
    let mut model = Map::new();
    fill(&db, &mut model, Durability::Sync);
    let mut replay = disk.replay();
    for round in 0..20 {
        delete(&db, &mut model, 300, Durability::Sync);
        let policy = match round % 2 {
            0 => ImagePolicy::ONLY_SYNCED,
            _ => ImagePolicy::from_seed(round),
        };
        if round == 0 || round > 15 {
            replay = disk.replay();
        }
        let moment = disk.operations();
        if replay.operations() == moment {
            let image = replay.image(moment, &policy);
            let recovered = small(Arc::new(image)).open(HOME).unwrap();
            compare(&recovered, &model);
            recovered.put("goes", "on").unwrap();
        }
    }
}

/// A file system that refuses every write when it is full, into allocated space as well: then nothing
/// can be deleted either, which is told, and everything goes on once there is room.
#[test]
fn where_no_write_works_that_is_told_and_ends_by_itself() {
    let faulty = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = || small(Arc::new(faulty.clone())).clock(clock.clone());
    let db = options().open(HOME).unwrap();
    let mut model = Map::new();
    for round in 0..20 {
        for number in round * 500..(round + 1) * 500 {
            db.put_opt(key(number), value(number), &durably(Durability::Buffered))
                .unwrap();
            model.insert(key(number), value(number));
        }
        let error = [DeviceError::NoSpace, DeviceError::Quota][round % 2];
        let takes_space = [
            OperationKind::Create,
            OperationKind::Write,
            OperationKind::Allocate,
            OperationKind::SetLen,
            OperationKind::Rename,
            OperationKind::HardLink,
        ];
        faulty.add_rule(FaultRule::new(Fault::Refuse(error)).on(&takes_space));
        for number in 0..50 {
            let gone = key(round * 500 + number);
            match number % 2 {
                0 => {
                    _ = is_full(
                        db.put(&gone, "new")
                            .map(|()| model.insert(gone, b"new".into())),
                    )
                }
                _ => _ = is_full(db.delete(&gone).map(|()| model.remove(&gone))),
            }
        }
        compare(&db, &model);
        faulty.clear();
        // A failed log is looked at again every so often only.
        clock.advance(Duration::from_millis(100));
        db.put("resumes", round.to_string()).unwrap();
        model.insert(b"resumes".to_vec(), round.to_string().into_bytes());
        compare(&db, &model);
    }
    resume(&db, &mut model, options);
}

fn tables_in(fs: &dyn FileSystem) -> usize {
    let entries = fs.read_dir(Path::new(HOME)).unwrap();
    let is_table = |name: &str| name.ends_with(".sst");
    entries.iter().filter(|it| is_table(&it.name)).count()
}

/// Tables and segments whose edit found no room once stayed until the next open: each attempt cost its
/// bytes on a disk that was full already.
#[test]
fn files_of_failed_edits_go_once_another_manifest_has_taken_over() {
    let faulty = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = || small(Arc::new(faulty.clone())).clock(clock.clone());
    let db = options().open(HOME).unwrap();
    let mut model = Map::new();
    let no_room = || {
        FaultRule::new(Fault::Refuse(DeviceError::NoSpace))
            .path_contains("MANIFEST")
            .on(&[OperationKind::Create, OperationKind::Write])
    };
    for round in 0..4 {
        for number in round * 100..(round + 1) * 100 {
            db.put_opt(key(number), value(number), &durably(Durability::Buffered))
                .unwrap();
            model.insert(key(number), value(number));
        }
        if round % 2 == 0 {
            db.flush().unwrap();
        }
        faulty.add_rule(no_room());
        for _ in 0..3 {
            assert!(is_full(db.flush()) || is_full(db.compact_range::<&str>(..)));
        }
        let held = tables_in(&faulty);
        let live = |db: &Db| {
            db.stats()
                .levels()
                .iter()
                .map(|it| it.tables)
                .sum::<usize>()
        };
        // After a flush only a merge is left to fail, and where there is one run it makes no table.
        let has_made_one = round % 2 == 1;
        assert!(
            held >= live(&db) + usize::from(has_made_one),
            "the edit may be durable: its tables stay"
        );
        faulty.clear();
        clock.advance(Duration::from_millis(100));
        db.put("resumes", round.to_string()).unwrap();
        model.insert(b"resumes".to_vec(), round.to_string().into_bytes());
        db.flush().unwrap();
        db.compact_range::<&str>(..).unwrap();
        db.wait_for_background_work().unwrap();
        assert_eq!(tables_in(&faulty), live(&db));
        assert_valid(&db);
        compare(&db, &model);
    }
    resume(&db, &mut model, options);
}

/// A real disk, where there is one for it: `ESKER_SMALL_DISK=/mnt/small cargo test -p esker --test
/// full_disk real`, with a file system of 64 to 128 MiB mounted there that nothing else is on.
#[test]
fn on_a_real_small_disk() {
    let Ok(place) = std::env::var("ESKER_SMALL_DISK") else {
        println!("ESKER_SMALL_DISK names no small disk: nothing to do");
        return;
    };
    let place = Path::new(&place);
    for (name, durability) in [("b", Durability::Buffered), ("s", Durability::Sync)] {
        let home = place.join(name);
        let filler = place.join("filler");
        let db = Options::new().open(&home).unwrap();
        let mut model = Map::new();
        for number in 0..1000 {
            db.put_opt(key(number), value(number), &durably(durability))
                .unwrap();
            model.insert(key(number), value(number));
        }
        // Somebody else fills the disk.
        let mut bytes = vec![1; 1 << 20];
        let mut file = std::fs::File::create(&filler).unwrap();
        while !bytes.is_empty() {
            if std::io::Write::write_all(&mut file, &bytes).is_err() {
                bytes.truncate(bytes.len() / 2);
            }
        }
        let large = |number| value(number).repeat(40);
        fill_with(&db, &mut model, durability, large);
        compare(&db, &model);
        delete(&db, &mut model, 3_000, durability);
        compare(&db, &model);
        drop(file);
        std::fs::remove_file(&filler).unwrap();
        db.put("after", "all").unwrap();
        model.insert(b"after".to_vec(), b"all".to_vec());
        // The database fills it itself.
        for number in 0.. {
            let (key, value) = (key(500_000 + number), value(number).repeat(40));
            if is_full(db.put_opt(&key, &value, &durably(durability))) {
                break;
            }
            model.insert(key, value);
        }
        compare(&db, &model);
        delete(&db, &mut model, 3_000, durability);
        db.delete_range(key(1000)..key(999_999)).unwrap();
        model.retain(|it, _| *it < key(1000) || *it >= key(999_999));
        compare(&db, &model);
        db.flush().unwrap();
        db.compact().unwrap();
        db.put("and", "on").unwrap();
        model.insert(b"and".to_vec(), b"on".to_vec());
        assert!(db.validate().unwrap().is_ok());
        db.close().unwrap();
        compare(&Db::open(&home).unwrap(), &model);
        std::fs::remove_dir_all(&home).unwrap();
    }
}

/// What puts may take of a disk that has no room left is what the log has allocated already, and never the space
/// that is kept back. (An engine that gave one group of puts the log's part of it passed all other tests: deletes
/// went on in what that group had left.)
#[test]
fn puts_leave_the_reserve_to_deletes() {
    let faulty = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let options = small(Arc::new(faulty.clone()))
        .write_buffer_bytes(16 << 20)
        .wal_size_limit_bytes(64 << 20);
    let db = options.open(HOME).unwrap();
    db.put("first", "value").unwrap();
    let kept = || {
        let entries = faulty.read_dir(Path::new(HOME)).unwrap();
        let kept = entries.iter().filter(|entry| entry.name.ends_with(".tmp"));
        kept.map(|entry| entry.bytes).collect::<Vec<_>>()
    };
    db.wait_for_background_work().unwrap();
    let before = kept();
    assert_eq!(before, [1 << 20; 2], "the reserve is set aside");
    faulty.set_free_bytes(Some(0));
    let mut model = Map::from([(b"first".to_vec(), b"value".to_vec())]);
    fill(&db, &mut model, Durability::Buffered);
    assert_eq!(kept(), before, "a put has taken of the reserve");
    let log = db.wal().size_bytes().unwrap();
    assert!(log < before[0] / 2, "{log} bytes went to the log");
    delete(&db, &mut model, 2000, Durability::Sync);
    compare(&db, &model);
}

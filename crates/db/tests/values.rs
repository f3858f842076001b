//! Values that are kept apart from their keys: everything reads as if they were not, and their space
//! comes back.

use esker::ManualClock;
use esker::vfs::{FileSystem, MemFileSystem};
use esker::{
    CompactionFilter, Db, FilterDecision, KeyspaceOptions, MergeOperator, Options, RecoveryPolicy,
    Result, RuntimeOptions,
};
use esker_testkit::seed::noise;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: &str = "/db";

fn options(disk: &MemFileSystem) -> Options {
    Options::new()
        .file_system(Arc::new(disk.clone()))
        .write_buffer_bytes(64 << 10)
        .target_file_bytes(64 << 10)
        .wal_size_limit_bytes(256 << 10)
        .wal_segment_bytes(64 << 10)
        .value_separation_threshold_bytes(1000)
        .value_garbage_ratio(0.3)
}

/// A value that does not compress, and no other has.
fn value(key: usize, version: usize) -> Vec<u8> {
    noise((key as u64) << 20 ^ version as u64, 3000)
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number:05}").into_bytes()
}

fn fill(db: &Db, keys: std::ops::Range<usize>, version: usize) {
    for number in keys {
        db.put(key(number), value(number, version)).unwrap();
    }
}

/// The numbers of the files that a pointer leads into.
fn value_tables(disk: &MemFileSystem) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in disk.read_dir(Path::new(DIRECTORY)).unwrap() {
        let path = Path::new(DIRECTORY).join(&entry.name);
        if entry.name.ends_with(".sst") && entry.bytes > 20_000 {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn assert_valid(db: &Db) {
    let report = db.validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
}

#[test]
fn all_reads_see_values_that_are_kept_apart() -> Result<()> {
    let disk = MemFileSystem::new();
    let db = options(&disk).open(DIRECTORY)?;
    fill(&db, 0..100, 1);
    db.put("small", "value")?;
    db.flush()?;
    assert!(db.disk_usage()?.value_bytes() > 290_000);
    let before = db.snapshot();
    fill(&db, 50..60, 2);
    db.delete(key(3))?;
    db.delete_range(key(10)..key(20))?;
    db.flush()?;
    let wanted = |number: usize| match number {
        3 | 10..20 => None,
        50..60 => Some(value(number, 2)),
        _ => Some(value(number, 1)),
    };
    let check = |db: &Db| -> Result<()> {
        let keys: Vec<_> = (0..100).map(key).collect();
        let found = db.multi_get(&keys)?;
        for (number, found) in found.into_iter().enumerate() {
            let expected = wanted(number);
            assert_eq!(db.get(key(number))?.as_deref(), expected.as_deref());
            assert_eq!(found.as_deref(), expected.as_deref());
            assert_eq!(db.contains_key(key(number))?, expected.is_some());
        }
        let expected: Vec<_> = (0..100)
            .filter_map(|number| wanted(number).map(|value| (key(number), value)))
            .collect();
        let owned = |entry: Result<(esker::Value, esker::Value)>| {
            entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        let forwards: Vec<_> = db.prefix("key").map(owned).collect::<Result<_>>()?;
        assert_eq!(forwards, expected);
        let mut backwards: Vec<_> = db.prefix("key").rev().map(owned).collect::<Result<_>>()?;
        backwards.reverse();
        assert_eq!(backwards, expected);
        assert_eq!(db.get("small")?.as_deref(), Some(&b"value"[..]));
        Ok(())
    };
    check(&db)?;
    assert_eq!(before.get(key(55))?.as_deref(), Some(&value(55, 1)[..]));
    assert_eq!(before.get(key(10))?.as_deref(), Some(&value(10, 1)[..]));
    let mut transaction = db.begin()?;
    assert_eq!(
        transaction.get(key(55))?.as_deref(),
        Some(&value(55, 2)[..])
    );
    drop(transaction);
    // There and back within a cursor, over versions that it may not see.
    let mut cursor = db.cursor();
    cursor.seek(key(55))?;
    cursor.prev()?;
    assert_eq!(
        (cursor.key(), cursor.value()),
        (&key(54)[..], &value(54, 2)[..])
    );
    cursor.next()?;
    assert_eq!(
        (cursor.key(), cursor.value()),
        (&key(55)[..], &value(55, 2)[..])
    );
    drop(cursor);
    db.compact()?;
    check(&db)?;
    assert_eq!(before.get(key(55))?.as_deref(), Some(&value(55, 1)[..]));
    drop(before);
    assert_valid(&db);
    db.close()?;
    // Whatever the option says, what is there stays readable.
    let db = options(&disk)
        .value_separation_threshold_bytes(0)
        .open(DIRECTORY)?;
    check(&db)?;
    assert_valid(&db);
    db.close()
}

#[test]
fn space_comes_back_after_everything_was_overwritten_or_deleted() -> Result<()> {
    let disk = MemFileSystem::new();
    let db = options(&disk).open(DIRECTORY)?;
    for version in 0..5 {
        fill(&db, 0..200, version);
    }
    db.flush()?;
    db.wait_for_background_work()?;
    let live = 200 * 3000;
    let usage = db.disk_usage()?;
    assert!(usage.live_bytes() < live * 2, "{usage:?}");
    assert_eq!(usage.garbage_bytes(), 0);
    // A few that stay in each table do not keep it.
    for number in (0..200).filter(|number| number % 10 != 0) {
        db.delete(key(number))?;
    }
    db.compact()?;
    db.wait_for_background_work()?;
    let usage = db.disk_usage()?;
    assert!(usage.live_bytes() < live / 10 * 2, "{usage:?}");
    for number in 0..200 {
        let expected = (number % 10 == 0).then(|| value(number, 4));
        assert_eq!(db.get(key(number))?.as_deref(), expected.as_deref());
    }
    assert_valid(&db);
    db.delete_range(key(0)..key(200))?;
    db.compact()?;
    db.wait_for_background_work()?;
    assert_eq!(db.disk_usage()?.value_bytes(), 0);
    assert!(value_tables(&disk).is_empty());
    assert_valid(&db);
    db.close()
}

#[test]
fn what_has_expired_is_gone_without_a_read_of_its_value() -> Result<()> {
    let disk = MemFileSystem::new();
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let open = || {
        options(&disk)
            .clock(clock.clone())
            .ttl_cleanup_interval(None)
            .open(DIRECTORY)
    };
    let db = open()?;
    let ttl = Duration::from_secs(60);
    for number in 0..30 {
        db.put_with_ttl(key(number), value(number, 1), ttl)?;
    }
    db.flush()?;
    assert_eq!(db.ttl(key(7))?, Some(ttl));
    assert_eq!(db.get(key(7))?.as_deref(), Some(&value(7, 1)[..]));
    assert!(db.persist(key(8))?);
    assert!(db.set_ttl(key(9), ttl * 3)?);
    clock.advance(Duration::from_secs(60));
    // The values are not read: they could not be.
    for path in value_tables(&disk) {
        let file = disk.open_write(&path).unwrap();
        file.write_at(100, &[0; 3000]).unwrap();
    }
    assert_eq!(db.get(key(7))?, None);
    assert_eq!(db.ttl(key(7))?, None);
    assert_eq!(db.iter().count(), 2);
    assert_eq!(db.get(key(8))?.as_deref(), Some(&value(8, 1)[..]));
    assert_eq!(db.cleanup_expired()?, 28);
    assert_eq!(db.get(key(9))?.as_deref(), Some(&value(9, 1)[..]));
    Ok(())
}

#[derive(Debug)]
struct Append;

impl MergeOperator for Append {
    fn name(&self) -> &str {
        "append"
    }
    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> std::result::Result<Vec<u8>, esker::Error> {
        let mut value = base.unwrap_or_default().to_vec();
        operands
            .iter()
            .for_each(|operand| value.extend_from_slice(operand));
        Ok(value)
    }
}

#[test]
fn operands_apply_to_values_that_are_kept_apart() -> Result<()> {
    let disk = MemFileSystem::new();
    let db = options(&disk)
        .merge_operator("default", Append)
        .open(DIRECTORY)?;
    fill(&db, 0..20, 1);
    db.flush()?;
    for number in 0..20 {
        db.merge(key(number), "more")?;
    }
    let check = || -> Result<()> {
        let mut cursor = db.cursor();
        cursor.seek_to_last()?;
        for number in (0..20).rev() {
            let expected = [&value(number, 1)[..], b"more"].concat();
            assert_eq!(db.get(key(number))?.as_deref(), Some(&expected[..]));
            assert_eq!(
                (cursor.key(), cursor.value()),
                (&key(number)[..], &expected[..])
            );
            cursor.prev()?;
        }
        let forwards = db.iter().map(|entry| entry.map(|(_, value)| value.len()));
        assert!(
            forwards
                .collect::<Result<Vec<_>>>()?
                .iter()
                .all(|&bytes| bytes == 3004)
        );
        Ok(())
    };
    check()?;
    db.flush()?;
    check()?;
    db.compact()?;
    check()?;
    assert_valid(&db);
    db.close()
}

#[derive(Debug)]
struct Shorten;

impl CompactionFilter for Shorten {
    fn filter(&self, key: &[u8], value: &[u8], _expiry_millis: Option<u64>) -> FilterDecision {
        match (key.last(), value.len()) {
            (Some(b'1'), _) => FilterDecision::Remove,
            (Some(b'2'), 3000) => FilterDecision::Replace(value[..2000].to_vec()),
            (_, 3000 | 2000) => FilterDecision::Keep,
            (_, bytes) => panic!("a filter sees {bytes} bytes"),
        }
    }
}

#[test]
fn filters_see_values_not_pointers() -> Result<()> {
    let disk = MemFileSystem::new();
    let db = options(&disk)
        .compaction_filter("default", Shorten)
        .open(DIRECTORY)?;
    fill(&db, 0..40, 1);
    db.flush()?;
    db.compact()?;
    for number in 0..40 {
        let expected = match number % 10 {
            1 => None,
            2 => Some(value(number, 1)[..2000].to_vec()),
            _ => Some(value(number, 1)),
        };
        assert_eq!(db.get(key(number))?.as_deref(), expected.as_deref());
    }
    assert_valid(&db);
    db.close()
}

#[test]
fn backups_checkpoints_and_recovery_points_hold_values_too() -> Result<()> {
    let disk = MemFileSystem::new();
    let db = options(&disk).open(DIRECTORY)?;
    fill(&db, 0..50, 1);
    let point = db.create_recovery_point("")?;
    let first = db.create_backup("")?;
    fill(&db, 50..60, 1);
    let second = db.create_backup("")?;
    // What the first one has is shared.
    assert!(second.new_bytes() < second.size_bytes() / 3, "{second:?}");
    db.checkpoint("/checkpoint")?;
    fill(&db, 0..60, 2);
    db.compact()?;
    db.wait_for_background_work()?;
    assert!(db.verify_backup(first.name())?.issues().is_empty());
    let holds = |db: &Db, count: usize, version: usize| -> Result<()> {
        assert_eq!(db.iter().count(), count);
        for number in 0..count {
            assert_eq!(
                db.get(key(number))?.as_deref(),
                Some(&value(number, version)[..])
            );
        }
        assert_valid(db);
        Ok(())
    };
    holds(&options(&disk).open("/checkpoint")?, 60, 1)?;
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    esker::backup::restore_on(
        &fs,
        Path::new(DIRECTORY),
        first.name(),
        Path::new("/restored"),
    )?;
    holds(&options(&disk).open("/restored")?, 50, 1)?;
    holds(&db, 60, 2)?;
    db.restore_backup(second.name())?;
    holds(&db, 60, 1)?;
    db.restore_backup(point.name())?;
    holds(&db, 50, 1)?;
    db.close()?;
    let db = options(&disk).open(DIRECTORY)?;
    holds(&db, 50, 1)?;
    db.close()
}

#[test]
fn damage_of_a_value_is_named_and_salvage_loses_that_table_of_values_alone() -> Result<()> {
    let disk = MemFileSystem::new();
    let db = options(&disk).open(DIRECTORY)?;
    db.put("small", "value")?;
    fill(&db, 0..50, 1);
    db.close()?;
    let tables = value_tables(&disk);
    assert!(tables.len() > 1, "{tables:?}");
    let file = disk.open_write(&tables[0]).unwrap();
    file.write_at(5000, b"damage").unwrap();
    let db = options(&disk).open(DIRECTORY)?;
    let broken: Vec<_> = (0..50)
        .filter_map(|number| db.get(key(number)).err())
        .collect();
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].kind(), esker::ErrorKind::Corruption);
    assert_eq!(broken[0].file(), Some(tables[0].as_path()));
    assert!(broken[0].offset().is_some());
    let issues = db.validate()?;
    assert_eq!(issues.issues()[0].file(), Some(tables[0].as_path()));
    db.close()?;

    let db = options(&disk)
        .recovery(RecoveryPolicy::Salvage)
        .open(DIRECTORY)?;
    let losses = db.recovery_state().losses().to_vec();
    assert_eq!(losses.len(), 1);
    assert_eq!(losses[0].file(), tables[0]);
    let lost = losses[0].records().unwrap() as usize;
    let found = (0..50).filter(|&number| {
        let found = db.get(key(number)).unwrap();
        assert!(found.is_none() || found.as_deref() == Some(&value(number, 1)[..]));
        found.is_some()
    });
    assert_eq!(found.count(), 50 - lost);
    assert_eq!(db.iter().count(), 51 - lost);
    assert_eq!(
        db.iter().rev().filter(|entry| entry.is_ok()).count(),
        51 - lost
    );
    assert_eq!(db.get("small")?.as_deref(), Some(&b"value"[..]));
    assert_valid(&db);
    db.compact()?;
    assert_eq!(db.iter().count(), 51 - lost);
    assert_valid(&db);
    db.close()?;
    let db = options(&disk).open(DIRECTORY)?;
    assert_eq!(db.iter().count(), 51 - lost);
    db.close()
}

#[test]
fn a_missing_table_of_values_is_damage_that_is_named() -> Result<()> {
    let disk = MemFileSystem::new();
    let db = options(&disk).open(DIRECTORY)?;
    fill(&db, 0..50, 1);
    db.close()?;
    let tables = value_tables(&disk);
    disk.remove_file(&tables[0]).unwrap();
    let error = options(&disk).open(DIRECTORY).unwrap_err();
    assert_eq!(error.kind(), esker::ErrorKind::Corruption);
    assert_eq!(error.file(), Some(tables[0].as_path()));
    Ok(())
}

#[test]
fn a_keyspace_has_its_own_threshold_and_keeps_it() -> Result<()> {
    let disk = MemFileSystem::new();
    let open = || {
        options(&disk)
            .value_separation_threshold_bytes(0)
            .open(DIRECTORY)
    };
    let db = open()?;
    let own = KeyspaceOptions::new().value_separation_threshold_bytes(500);
    let large = db.keyspace_with("large", &own)?;
    large.put("a", value(1, 1))?;
    db.put("a", value(1, 1))?;
    db.flush()?;
    let bytes = db.disk_usage()?.value_bytes();
    assert!((3000..4000).contains(&bytes), "{bytes}");
    db.close()?;
    let db = open()?;
    let large = db.keyspace("large")?;
    assert_eq!(large.options().value_separation_threshold_bytes(), 500);
    assert_eq!(large.get("a")?.as_deref(), Some(&value(1, 1)[..]));
    // For tables to be written: what is there follows when it is merged.
    db.set_options(&RuntimeOptions::new().value_separation_threshold_bytes(100))?;
    db.put("b", value(2, 1))?;
    db.flush()?;
    assert!(db.disk_usage()?.value_bytes() > 6000);
    db.close()
}

/// Takes nothing but what it made, and values of 3000 bytes.
#[derive(Debug)]
struct Strict;

impl MergeOperator for Strict {
    fn name(&self) -> &str {
        "strict"
    }
    fn merge(&self, _: &[u8], existing: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>> {
        match existing {
            Some(value) if value.len() == 3000 => {
                Ok([value, operands.concat().as_slice()].concat())
            }
            _ => Err(esker::Error::invalid_argument("a strange value")),
        }
    }
}

/// The story: a walk backwards for keys alone gave an operator the place of a value instead of the value, and
/// ended where that was refused.
#[test]
fn keys_with_operands_over_values_are_met_either_way() {
    let options = options(&MemFileSystem::new()).merge_operator("default", Strict);
    let db = options.open(DIRECTORY).unwrap();
    for number in 0..3 {
        db.put(key(number), value(number, 0)).unwrap();
    }
    db.flush().unwrap();
    db.merge(key(1), "more").unwrap();
    let mut cursor = db.cursor().keys_only();
    let mut found = Vec::new();
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        found.push(cursor.key().to_vec());
        cursor.next().unwrap();
    }
    cursor.seek_to_last().unwrap();
    while cursor.valid() {
        assert_eq!(found.pop().as_deref(), Some(cursor.key()));
        cursor.prev().unwrap();
    }
    assert!(found.is_empty());
}

//! Indexes after a loss of power at any moment: while records are written, while an index is built,
//! while a program that does not know it writes. Whatever is left, records and index agree.
#![allow(clippy::unwrap_used)]

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, ImagePolicy, MemFileSystem,
};
use esker::{Db, Durability, IndexDefinition, Keyspace, ManualClock, Options, Query, WriteBatch};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Moments that are tried, spread over the workload, each under every policy.
const MOMENTS: usize = 120;

fn by_word(version: u64) -> IndexDefinition {
    IndexDefinition::new("by_word", version, |_key, value, keys| {
        let text = String::from_utf8_lossy(value);
        text.split_whitespace().for_each(|word| keys.add(word));
        Ok(())
    })
}

fn by_first() -> IndexDefinition {
    let extract = |key: &[u8], _value: &[u8], keys: &mut esker::IndexKeys| {
        keys.add(key);
        Ok(())
    };
    IndexDefinition::new("by_first", 1, extract).unique(true)
}

fn options(disk: &CrashFileSystem) -> Options {
    Options::new()
        .file_system(Arc::new(disk.clone()))
        .write_buffer_bytes(4 << 10)
        .target_file_bytes(4 << 10)
        .wal_size_limit_bytes(64 << 10)
        .default_durability(Durability::Buffered)
}

fn declared(disk: &CrashFileSystem, version: u64) -> Options {
    options(disk)
        .index("notes", by_word(version))
        .index("notes", by_first())
}

/// The same words under the index as in the records, and nothing that validation minds.
fn agree(db: &Db, notes: &Keyspace, place: &str) {
    let mut expected = BTreeSet::new();
    for entry in notes.iter() {
        let (key, value) = entry.unwrap();
        for word in String::from_utf8_lossy(&value).split_whitespace() {
            expected.insert((word.to_string(), key.to_vec()));
        }
    }
    let rows = Query::new(notes).index_prefix("by_word", &()).rows();
    let found: Vec<_> = rows
        .unwrap_or_else(|error| panic!("{place}: {error}"))
        .map(|row| {
            let row = row.unwrap();
            let word: String = esker::tuple::decode(row.index_key().unwrap()).unwrap();
            (word, row.key().to_vec())
        })
        .collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{place}");
    let report = db.validate().unwrap();
    assert!(report.is_ok(), "{place}: {:?}", report.issues());
}

fn write_some(db: &Db, notes: &Keyspace, round: u32) {
    for i in 0..12u32 {
        let text = format!("w{} w{} {}", i % 5, (i + round) % 7, "x".repeat(100));
        let mut batch = WriteBatch::new();
        batch.put_in(notes, format!("{:02}", (i * 7 + round) % 30), &text);
        batch.delete_in(notes, format!("{:02}", (i * 5 + round) % 30));
        batch.put_in(notes, format!("{:02}", (i * 3) % 30), format!("w{i}"));
        db.write(batch).unwrap();
    }
    notes
        .put_with_ttl("t", "w1 w9", Duration::from_secs(3600))
        .unwrap();
    notes.delete_range("03".."07").unwrap();
    db.wal().sync().unwrap();
}

fn workload(disk: &CrashFileSystem) {
    // Records first, then an index over them.
    let db = options(disk).open("/db").unwrap();
    write_some(&db, &db.keyspace("notes").unwrap(), 0);
    db.close().unwrap();
    let db = declared(disk, 1).open("/db").unwrap();
    db.build_indexes().unwrap();
    let notes = db.keyspace("notes").unwrap();
    write_some(&db, &notes, 1);
    db.flush().unwrap();
    write_some(&db, &notes, 2);
    db.compact().unwrap();
    db.close().unwrap();
    // Somebody who does not know it.
    let db = options(disk).open("/db").unwrap();
    write_some(&db, &db.keyspace("notes").unwrap(), 3);
    db.close().unwrap();
    // A new version, built while records are written; a dropped keyspace in the end.
    let db = declared(disk, 2).open("/db").unwrap();
    let notes = db.keyspace("notes").unwrap();
    write_some(&db, &notes, 4);
    db.build_indexes().unwrap();
    notes.clear().unwrap();
    write_some(&db, &notes, 5);
    db.drop_keyspace("notes").unwrap();
    write_some(&db, &db.keyspace("notes").unwrap(), 6);
    db.close().unwrap();
}

#[test]
fn records_and_indexes_agree_after_a_loss_of_power_at_any_moment() {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    workload(&disk);
    let operations = disk.operations();
    let step = (operations / MOMENTS).max(1);
    let mut points = 0;
    for moment in (0..=operations).step_by(step) {
        let seed = moment as u64;
        let policies = [
            ImagePolicy::ONLY_SYNCED,
            ImagePolicy::random_subset(seed),
            ImagePolicy::torn_tail(seed),
        ];
        for (number, policy) in policies.iter().enumerate() {
            let image = CrashFileSystem::new(disk.image(moment, policy));
            let place = format!("operation {moment} of {operations}, policy {number}");
            // Either version may have been the last to be declared.
            for version in [1 + seed % 2, 2] {
                let db = declared(&image, version).open("/db");
                let db = db.unwrap_or_else(|error| panic!("{place}: {error}"));
                db.build_indexes()
                    .unwrap_or_else(|error| panic!("{place}: {error}"));
                let notes = db.keyspace("notes").unwrap();
                agree(&db, &notes, &place);
                write_some(&db, &notes, 7);
                agree(&db, &notes, &place);
                db.close().unwrap();
            }
            points += 1;
        }
    }
    println!("points tried: {points}");
    assert!(points >= 3 * MOMENTS);
}

/// Where the disk failed between a keyspace and its indexes, the keyspace was there without them: writes
/// left them alone, and queries said that none was declared, until the next open.
#[test]
fn a_keyspace_whose_creation_failed_halfway_gets_its_indexes_with_the_next_try() {
    let mut halfway = 0;
    for failing in 0.. {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let options = declared(&disk, 1).file_system(Arc::new(faulty.clone()));
        let db = options.clock(clock.clone()).open("/db").unwrap();
        let from = faulty.operations();
        faulty.fail_at(from + failing, Fault::Refuse(DeviceError::Io));
        let first_try = db.keyspace("notes");
        let has_failed = faulty.faults() > 0;
        faulty.clear();
        if !has_failed {
            first_try.unwrap();
            break;
        }
        halfway += u32::from(first_try.is_err() && db.keyspace_names().unwrap().len() == 2);
        clock.advance(Duration::from_secs(10));
        let notes = db.keyspace("notes").unwrap();
        notes.put("1", "blue moon").unwrap();
        db.build_indexes().unwrap();
        agree(&db, &notes, &format!("operation {failing}"));
    }
    assert!(halfway > 0, "no operation of the creation failed halfway");
}

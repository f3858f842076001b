//! The end of a process at every operation, a life after it, and then a loss of power: what the first life
//! left to the operating system must be durable before anything of the second life is.
//!
//! The other sweeps take what a process left for durable; here it stays in the memory of the simulated disk.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use esker::vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FileSystem, ImagePolicy, MemFileSystem,
};
use esker::{Db, Durability, Options, WriteBatch, WriteOptions};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: Arc<dyn FileSystem>) -> esker::Result<Db> {
    let options = Options::new().file_system(disk);
    let options = options
        .wal_segment_bytes(16 << 10)
        .wal_size_limit_bytes(1 << 20);
    options.open("/db")
}

/// Writes until the process ends, some of it synced; what was acknowledged.
fn live(disk: Arc<dyn FileSystem>) -> Map {
    let mut acknowledged = Map::new();
    let Ok(db) = open(disk) else {
        return acknowledged;
    };
    for number in 0..16u8 {
        // Several to a segment, one to a segment, and one that is longer than the usual segment.
        let bytes = [700, 2000, 7000, 20_000][usize::from(number) / 2 % 4];
        let durability = match number % 5 {
            3 => Durability::Sync,
            _ => Durability::Buffered,
        };
        let (key, value) = (vec![number], vec![number; bytes]);
        let how = WriteOptions::new().durability(durability);
        if db.put_opt(&key, &value, &how).is_ok() {
            acknowledged.insert(key, value);
        }
    }
    acknowledged
}

fn compare(db: &Db, acknowledged: &Map, place: &str) {
    for (key, value) in acknowledged {
        let found = db.get(key).unwrap();
        assert!(found.as_deref() == Some(&value[..]), "{place}: {key:?}");
    }
}

#[test]
fn what_a_process_left_is_durable_before_what_comes_after_it() {
    for ends_at in 0.. {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
        faulty
            .set_plan(move |index, _| (index >= ends_at).then_some(Fault::Refuse(DeviceError::Io)));
        let mut acknowledged = live(Arc::new(faulty.clone()));
        let has_ended = faulty.operations() > ends_at;

        let place = format!("the process ended at operation {ends_at}");
        let db = open(Arc::new(disk.clone())).unwrap_or_else(|error| panic!("{place}: {error}"));
        compare(&db, &acknowledged, &place);
        db.put("later", "synced").unwrap();
        acknowledged.insert(b"later".to_vec(), b"synced".to_vec());
        let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
        let left = open(Arc::new(image)).unwrap_or_else(|error| panic!("{place}, power: {error}"));
        compare(
            &left,
            &acknowledged,
            &format!("{place}, and then the power"),
        );
        if !has_ended {
            break;
        }
    }
}

/// An empty range, or an empty batch, came back at once where it asked for `Sync`: what had been written
/// before it as `Buffered` was not on stable storage, as it is behind every other such write.
#[test]
fn a_synced_write_of_nothing_makes_durable_what_was_before() {
    let nothings: [fn(&Db) -> esker::Result<()>; 2] = [
        |db| db.delete_range("k".."k"),
        |db| db.write(WriteBatch::new()),
    ];
    for nothing in nothings {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let db = open(Arc::new(disk.clone())).unwrap();
        let buffered = WriteOptions::new().durability(Durability::Buffered);
        db.put_opt("a", "1", &buffered).unwrap();
        nothing(&db).unwrap();
        let image = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
        let recovered = open(Arc::new(image)).unwrap();
        assert_eq!(recovered.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    }
}

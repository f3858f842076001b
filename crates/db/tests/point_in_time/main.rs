//! Restores to a sequence number, to a time and to the end of the log, compared with what was written.

use esker::merge_operators::Append;
use esker::vfs::{FileSystem, MemFileSystem};
use esker::{
    Db, Durability, ErrorKind, IndexDefinition, ManualClock, Options, RestorePoint, RestoreSource,
    WriteOptions,
};
use esker_testkit::seed::{Random, seeds};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod after_a_crash;
mod history;

use history::history;

const HOME: &str = "/db";
const COPY: &str = "/copy";
const BEGIN_MILLIS: u64 = 1_700_000_000_000;

type Map = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Everything in a database, but for keyspaces with nothing in them.
fn contents(db: &Db) -> Map {
    let mut all = Map::new();
    for name in db.keyspace_names().unwrap() {
        let keyspace = db.keyspace(&name).unwrap();
        let entries = keyspace.iter().map(Result::unwrap);
        let entries: BTreeMap<_, _> = entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        if !entries.is_empty() {
            all.insert(name, entries);
        }
    }
    all
}

struct World {
    fs: Arc<dyn FileSystem>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let fs = MemFileSystem::new();
        fs.create_dir_all(Path::new(HOME)).unwrap();
        Self {
            fs: Arc::new(fs),
            clock: Arc::new(ManualClock::at_millis(BEGIN_MILLIS)),
        }
    }

    fn options(&self) -> Options {
        let by_value = IndexDefinition::new("by_value", 1, |_key, value, keys| {
            keys.add(value);
            Ok(())
        });
        Options::new()
            .file_system(Arc::clone(&self.fs))
            .clock(self.clock.clone())
            .write_buffer_bytes(16 << 10)
            .target_file_bytes(16 << 10)
            .manifest_bytes(4 << 10)
            .wal_size_limit_bytes(64 << 10)
            .wal_segment_bytes(16 << 10)
            .ttl_cleanup_interval(None)
            .merge_operator("lists", Append::new(","))
            .index("notes", by_value)
    }

    fn open(&self) -> Db {
        self.options().wal_archive(true).open(HOME).unwrap()
    }

    fn source(&self) -> RestoreSource {
        RestoreSource::new(HOME)
            .file_system(Arc::clone(&self.fs))
            .clock(self.clock.clone())
    }

    /// What a restore to a new directory gives, which then goes away again.
    fn restored(&self, db: &Db, point: &RestorePoint) -> (u64, Map) {
        let restored = db.restore_into(point, COPY).unwrap();
        let all = self.look_at_copy();
        (restored.sequence(), all)
    }

    fn look_at_copy(&self) -> Map {
        let copy = self.options().open(COPY).unwrap();
        copy.build_indexes().unwrap();
        let report = copy.validate().unwrap();
        assert!(report.issues().is_empty(), "{:?}", report.issues());
        let all = contents(&copy);
        copy.close().unwrap();
        self.remove(Path::new(COPY));
        all
    }

    fn remove(&self, directory: &Path) {
        for entry in self.fs.read_dir(directory).unwrap() {
            let path = directory.join(&entry.name);
            match entry.is_dir {
                true => self.remove(&path),
                false => self.fs.remove_file(&path).unwrap(),
            }
        }
        self.fs.remove_dir(directory).unwrap();
    }
}

#[test]
fn any_sequence_number_is_restored_as_it_was() {
    for seed in seeds(6) {
        println!("seed {seed}");
        let (world, mut random) = (World::new(), Random::new(seed));
        let (db, told) = history(&world, &mut random, 250);
        let last = db.snapshot().sequence();
        for _ in 0..8 {
            let wanted = random.below(last + 1);
            let (sequence, found) = world.restored(&db, &RestorePoint::Sequence(wanted));
            assert!(sequence <= wanted);
            let told = told.at(wanted);
            assert!(told.contains(&&found), "seed {seed}: sequence {wanted}");
        }
        let now = contents(&db);
        let (sequence, found) = world.restored(&db, &RestorePoint::Latest);
        assert_eq!(sequence, last, "seed {seed}");
        assert!(found == now, "seed {seed}");
        assert!(!db.wal().archived().unwrap().is_empty());
        for segment in db.wal().archived().unwrap() {
            db.wal().verify_archived(&segment).unwrap();
        }

        // From what is left on the disk, and into the open database.
        db.close().unwrap();
        let wanted = random.below(last + 1);
        let point = RestorePoint::Sequence(wanted);
        let restored = world.source().restore(&point, COPY).unwrap();
        let found = world.look_at_copy();
        assert!(
            told.at(wanted).contains(&&found),
            "seed {seed}: {wanted}, {restored:?}"
        );
        let db = world.open();
        let restored = db.restore_to_point(&point).unwrap();
        assert!(told.at(wanted).contains(&&contents(&db)), "seed {seed}");
        assert!(restored.sequence() <= wanted);
        db.put("after", "the restore").unwrap();
        let report = db.validate().unwrap();
        assert!(report.issues().is_empty(), "{:?}", report.issues());
        drop(db);
        assert_eq!(
            world.open().get("after").unwrap().as_deref(),
            Some(&b"the restore"[..])
        );
        assert!(
            world
                .fs
                .metadata(&Path::new(HOME).join("restoring"))
                .is_err()
        );
    }
}

#[test]
fn any_time_is_restored_as_it_was() {
    for seed in seeds(4) {
        println!("seed {seed}");
        let (world, mut random) = (World::new(), Random::new(seed + 1000));
        let (db, told) = history(&world, &mut random, 200);
        let passed = esker::Clock::now_millis(&*world.clock) - BEGIN_MILLIS;
        for _ in 0..8 {
            let millis = BEGIN_MILLIS + random.below(passed + 50);
            let (_, found) = world.restored(&db, &RestorePoint::Time(millis));
            let told = told.at_time(millis);
            assert!(told.contains(&&found), "seed {seed}: time {millis}");
        }
    }
}

#[test]
fn a_hole_in_the_log_is_named_and_nothing_is_restored() {
    let world = World::new();
    let db = world.open();
    for i in 0..30 {
        db.put(format!("key{i:02}"), "value").unwrap();
        if i % 10 == 9 {
            db.wal().clear().unwrap();
        }
    }
    let segments = db.wal().archived().unwrap();
    assert_eq!(segments.len(), 3);
    let middle = &segments[1];
    assert_eq!((middle.first_sequence(), middle.last_sequence()), (11, 20));
    world.fs.remove_file(middle.path()).unwrap();
    let point = RestorePoint::Sequence(25);
    for error in [
        db.restore_into(&point, COPY).unwrap_err(),
        db.restore_to_point(&point).unwrap_err(),
        db.restore_into(&RestorePoint::Latest, COPY).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Gap);
        assert!(error.to_string().contains("writes 11 to 20"), "{error}");
    }
    assert!(world.fs.metadata(Path::new(COPY)).is_err());
    assert_eq!(contents(&db)["default"].len(), 30);
    // Before the hole, and from a backup that was made behind it.
    assert_eq!(world.restored(&db, &RestorePoint::Sequence(10)).0, 10);
    db.create_backup("behind the hole").unwrap();
    db.put("one", "more").unwrap();
    let last = db.snapshot().sequence();
    assert_eq!(world.restored(&db, &RestorePoint::Sequence(last)).0, last);
    let error = db
        .restore_into(&RestorePoint::Sequence(last + 1), COPY)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn what_went_past_the_log_is_a_hole() {
    let world = World::new();
    let db = world.open();
    let volatile = WriteOptions::new().durability(Durability::Volatile);
    let past: [(&str, &dyn Fn()); 2] = [
        ("Volatile", &|| {
            db.put_opt("volatile", "write", &volatile).unwrap();
        }),
        ("bulk", &|| {
            db.ingest([("loaded", "entry")]).unwrap();
        }),
    ];
    for (word, step) in past {
        let backup = db.create_backup("before").unwrap();
        db.put("before", word).unwrap();
        let before = db.snapshot().sequence();
        step();
        // Nothing in the log tells yet, but the database knows of the write.
        let error = db.restore_into(&RestorePoint::Latest, COPY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap, "{word}");
        db.put("after", word).unwrap();
        let error = db.restore_into(&RestorePoint::Latest, COPY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap, "{word}");
        assert!(error.to_string().contains(word), "{error}");
        let (sequence, found) = world.restored(&db, &RestorePoint::Sequence(before));
        assert_eq!(sequence, before);
        assert_eq!(found["default"][&b"before"[..]], word.as_bytes());
        db.delete_backup(backup.name()).unwrap();
        let backup = db.create_backup("behind it").unwrap();
        db.put("after", "the backup").unwrap();
        let latest = world.restored(&db, &RestorePoint::Latest);
        assert_eq!(latest.1, contents(&db));
        drop(backup);
    }
}

#[test]
fn without_an_archive_only_backups_are_restored() {
    let world = World::new();
    let db = world.options().open(HOME).unwrap();
    db.put("key", "value").unwrap();
    let backup = db.create_backup("the only one").unwrap();
    db.put("key", "later").unwrap();
    let error = db.restore_to_point(&RestorePoint::Latest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!db.wal().is_archived() && db.wal().archived().unwrap().is_empty());
    let point = RestorePoint::Backup(backup.name().to_owned());
    let (_, found) = world.restored(&db, &point);
    assert_eq!(found["default"][&b"key"[..]], b"value");
    db.restore_to_point(&point).unwrap();
    assert_eq!(db.get("key").unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn the_archive_keeps_within_its_limits_and_is_counted() {
    let world = World::new();
    let limited = world
        .options()
        .wal_archive_directory("/elsewhere")
        .wal_archive_limit_bytes(100 << 10);
    let db = limited.open(HOME).unwrap();
    for i in 0..400u32 {
        db.put(i.to_be_bytes(), [7; 1000]).unwrap();
    }
    db.wal().clear().unwrap();
    let segments = db.wal().archived().unwrap();
    let bytes: u64 = segments.iter().map(|segment| segment.bytes()).sum();
    assert!(bytes <= 100 << 10 && bytes > 50 << 10, "{bytes}");
    assert_eq!(db.disk_usage().unwrap().archived_bytes(), bytes);
    assert_eq!(segments.last().unwrap().last_sequence(), 400);
    for pair in segments.windows(2) {
        assert_eq!(pair[0].last_sequence() + 1, pair[1].first_sequence());
    }
    let error = db
        .restore_into(&RestorePoint::Sequence(5), COPY)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    db.close().unwrap();

    let aged = world
        .options()
        .wal_archive_directory("/elsewhere")
        .wal_archive_max_age(Duration::from_secs(60));
    world.clock.advance(Duration::from_secs(61));
    let db = aged.open(HOME).unwrap();
    db.put("young", "one").unwrap();
    db.wal().clear().unwrap();
    let segments = db.wal().archived().unwrap();
    assert_eq!(segments.len(), 1);
    assert_eq!(
        segments[0].archived_millis(),
        esker::Clock::now_millis(&*world.clock)
    );
}

#[test]
fn a_damaged_file_of_the_archive_is_named() {
    let world = World::new();
    let db = world.open();
    for i in 0..200u32 {
        db.put(i.to_be_bytes(), [3; 100]).unwrap();
    }
    db.wal().clear().unwrap();
    let segment = db.wal().archived().unwrap().remove(0);
    let file = world.fs.open_write(segment.path()).unwrap();
    file.write_at(segment.bytes() - 500, &[0xff; 30]).unwrap();
    for error in [
        db.wal().verify_archived(&segment).unwrap_err(),
        db.restore_into(&RestorePoint::Latest, COPY).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(error.file(), Some(segment.path()));
    }
    file.set_len(segment.bytes() - 500).unwrap();
    let error = db.wal().verify_archived(&segment).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn the_archive_and_the_backups_are_enough() {
    let world = World::new();
    let options = world
        .options()
        .backup_directory("/safe/backups")
        .wal_archive_directory("/safe/archive");
    let db = options.open(HOME).unwrap();
    let users = db.keyspace("users").unwrap();
    users.put("before", "the backup").unwrap();
    db.create_backup("the one").unwrap();
    db.keyspace("late").unwrap().put("after", "it").unwrap();
    db.drop_keyspace("users").unwrap();
    let all = contents(&db);
    db.close().unwrap();
    world.remove(Path::new(HOME));
    let source = world
        .source()
        .backup_directory("/safe/backups")
        .wal_archive_directory("/safe/archive");
    let restored = source.restore(&RestorePoint::Latest, COPY).unwrap();
    assert!(restored.backup().is_some() && restored.batches() == 1);
    assert_eq!(world.look_at_copy(), all);
}

/// The description of what a restore in place installs once left out tables of values, so that pointers
/// would have led nowhere.
#[test]
fn values_that_are_kept_apart_come_back_with_a_restore_in_place() {
    let world = World::new();
    let options = world.options().wal_archive(true);
    let options = options.value_separation_threshold_bytes(64);
    let db = options.open(HOME).unwrap();
    db.put("long", "value".repeat(1000)).unwrap();
    db.compact().unwrap();
    db.create_backup("with a table of values").unwrap();
    db.put("later", "value".repeat(900)).unwrap();
    let point = RestorePoint::Sequence(db.snapshot().sequence());
    let before = contents(&db);
    db.clear().unwrap();
    db.compact().unwrap();
    db.restore_to_point(&point).unwrap();
    assert_eq!(contents(&db), before);
    let report = db.validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
    db.close().unwrap();
    assert_eq!(contents(&world.open()), before);
}

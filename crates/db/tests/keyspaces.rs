//! Keyspaces: their options, what is persisted of them, and what thousands of them cost.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{
    CompactionShape, Compression, Db, Durability, ErrorKind, KeyspaceOptions, ManualClock, Options,
    WriteBatch, WriteOptions,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn on(fs: &Arc<MemFileSystem>) -> Options {
    let fs: Arc<dyn FileSystem> = fs.clone();
    Options::new()
        .file_system(fs)
        .default_durability(Durability::Buffered)
}

fn open(options: Options) -> Db {
    options.open("/db").unwrap()
}

#[test]
fn options_are_persisted_and_the_rest_follows_the_database() {
    let fs = Arc::new(MemFileSystem::new());
    let db = open(on(&fs).block_bytes(8192));
    let given = KeyspaceOptions::new()
        .compaction_shape(CompactionShape::Leveled)
        .compression(Compression::None)
        .filter_bits_per_key(14.5)
        .write_buffer_bytes(1 << 20)
        .default_ttl(Duration::from_micros(1_500_001));
    let events = db.keyspace_with("events", &given).unwrap();
    let check = |db: &Db, block_bytes: usize| {
        let options = db.keyspace("events").unwrap().options();
        assert_eq!(options.compaction_shape(), CompactionShape::Leveled);
        assert_eq!(options.compression(), Compression::None);
        assert!((options.filter_bits_per_key() - 14.5).abs() < f64::EPSILON);
        assert_eq!(options.write_buffer_bytes(), 1 << 20);
        assert_eq!(options.default_ttl(), Some(Duration::from_millis(1501)));
        assert_eq!(options.block_bytes(), block_bytes, "not given");
        assert_eq!(db.options().compression(), Compression::Lz4);
    };
    check(&db, 8192);
    events.put("k", "v").unwrap();
    db.close().unwrap();
    // Whatever the database is opened with, and through as many manifests as there may be.
    for block_bytes in [2048, 16384] {
        let db = open(on(&fs).block_bytes(block_bytes).manifest_bytes(4096));
        check(&db, block_bytes);
        for i in 0..200 {
            db.keyspace(&format!("filler {block_bytes} {i}")).unwrap();
        }
        db.close().unwrap();
    }
    check(&open(on(&fs).block_bytes(4096)), 4096);
}

#[test]
fn asking_for_other_options_than_a_keyspace_has_is_an_error() {
    let fs = Arc::new(MemFileSystem::new());
    let db = open(on(&fs));
    let tiered = KeyspaceOptions::new().compaction_shape(CompactionShape::Tiered);
    db.keyspace_with("k", &tiered).unwrap();
    db.keyspace_with("k", &tiered).unwrap();
    let leveled = KeyspaceOptions::new().compaction_shape(CompactionShape::Leveled);
    let with_ttl = tiered.clone().default_ttl(SECOND);
    for asked in [&leveled, &with_ttl] {
        let error = db.keyspace_with("k", asked).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("set_options"), "{error}");
    }
    // What it has from the database may be asked for as well.
    let lz4 = KeyspaceOptions::new().compression(Compression::Lz4);
    db.keyspace_with("k", &lz4).unwrap();
    let keyspace = db.keyspace("k").unwrap();
    keyspace.set_options(&with_ttl).unwrap();
    keyspace.set_options(&leveled).unwrap();
    drop(keyspace);
    db.close().unwrap();
    let options = open(on(&fs)).keyspace("k").unwrap().options();
    assert_eq!(options.compaction_shape(), CompactionShape::Leveled);
    assert_eq!(options.default_ttl(), Some(SECOND));
}

#[test]
fn options_out_of_their_bounds_are_refused_and_make_no_keyspace() {
    let db = Options::new().open_in_memory().unwrap();
    let cases = [
        (KeyspaceOptions::new().block_bytes(1), "block_bytes"),
        (KeyspaceOptions::new().size_ratio(1), "size_ratio"),
        (
            KeyspaceOptions::new().filter_bits_per_key(f64::NAN),
            "filter_bits_per_key",
        ),
        (
            KeyspaceOptions::new()
                .block_bytes(1 << 16)
                .target_file_bytes(1 << 12),
            "target_file_bytes",
        ),
    ];
    for (options, name) in cases {
        let error = db.keyspace_with("k", &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(name), "{error}");
        let error = db.set_options_of_default(&options);
        assert_eq!(error, ErrorKind::InvalidArgument);
    }
    assert_eq!(db.keyspace_names().unwrap(), ["default"]);
}

trait SetOptionsOfDefault {
    fn set_options_of_default(&self, options: &KeyspaceOptions) -> ErrorKind;
}

impl SetOptionsOfDefault for Db {
    fn set_options_of_default(&self, options: &KeyspaceOptions) -> ErrorKind {
        let default = self.keyspace("default").unwrap();
        default.set_options(options).unwrap_err().kind()
    }
}

/// Writes a key in every way there is, each under a name of its own.
fn write_in_every_way(db: &Db, name: &str) -> Vec<Vec<u8>> {
    let keyspace = db.keyspace(name).unwrap();
    keyspace.put("put", "v").unwrap();
    let buffered = WriteOptions::new().durability(Durability::Buffered);
    keyspace.put_opt("put_opt", "v", &buffered).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_in(&keyspace, "batch", "v");
    batch.put_in(&keyspace, "batch again", "v");
    db.write(batch).unwrap();
    let mut tx = db.begin().unwrap();
    tx.put_in(&keyspace, "transaction", "v").unwrap();
    tx.commit().unwrap();
    keyspace.ingest([("zingested", "v")]).unwrap();
    let keys = [
        "put",
        "put_opt",
        "batch",
        "batch again",
        "transaction",
        "zingested",
    ];
    keys.iter().map(|key| key.as_bytes().to_vec()).collect()
}

#[test]
fn the_default_time_to_live_holds_for_every_write_that_names_none() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let db = Options::new()
        .clock(clock.clone())
        .open_in_memory()
        .unwrap();
    let minute = 60 * SECOND;
    let brief = KeyspaceOptions::new().default_ttl(minute);
    let sessions = db.keyspace_with("sessions", &brief).unwrap();
    let keys = write_in_every_way(&db, "sessions");
    for key in &keys {
        assert_eq!(sessions.ttl(key).unwrap(), Some(minute), "{key:?}");
    }
    // What names its own keeps it, and a batch over keyspaces gives each its own.
    sessions.put_with_ttl("longer", "v", 2 * minute).unwrap();
    let forever = WriteOptions::new().ttl(None);
    sessions.put_opt("forever", "v", &forever).unwrap();
    assert!(sessions.persist("put").unwrap());
    let mut batch = WriteBatch::new();
    batch.put("elsewhere", "v");
    batch.put_in(&sessions, "here", "v");
    batch.put_with_ttl_in(&sessions, "named", "v", SECOND);
    batch.delete_in(&sessions, "batch again");
    db.write(batch).unwrap();
    assert_eq!(db.ttl("elsewhere").unwrap(), None);
    assert_eq!(sessions.ttl("here").unwrap(), Some(minute));
    assert_eq!(sessions.ttl("named").unwrap(), Some(SECOND));
    clock.advance(minute - Duration::from_millis(1));
    assert_eq!(sessions.count().unwrap(), keys.len() as u64 - 1 + 3);
    clock.advance(Duration::from_millis(1));
    let left: Vec<_> = sessions
        .iter()
        .map(|entry| entry.unwrap().0.to_vec())
        .collect();
    assert_eq!(left, [&b"forever"[..], b"longer", b"put"]);
    // A change is for writes from then on.
    sessions
        .set_options(&KeyspaceOptions::new().default_ttl(None))
        .unwrap();
    sessions.put("after", "v").unwrap();
    assert_eq!(sessions.ttl("after").unwrap(), None);
    assert_eq!(sessions.ttl("longer").unwrap(), Some(minute));
}

#[test]
fn a_database_has_a_default_time_to_live_that_keyspaces_may_replace() {
    let clock = Arc::new(ManualClock::at_millis(1_000_000));
    let options = Options::new().clock(clock).default_ttl(SECOND);
    let db = options.open_in_memory().unwrap();
    let never = KeyspaceOptions::new().default_ttl(None);
    let lasting = db.keyspace_with("lasting", &never).unwrap();
    lasting.put("k", "v").unwrap();
    assert_eq!(lasting.ttl("k").unwrap(), None);
    for key in write_in_every_way(&db, "default") {
        assert_eq!(db.ttl(key).unwrap(), Some(SECOND));
    }
}

#[test]
fn backups_and_restores_keep_the_options() {
    let fs = Arc::new(MemFileSystem::new());
    let db = open(on(&fs));
    let tiered = KeyspaceOptions::new()
        .compaction_shape(CompactionShape::Tiered)
        .default_ttl(1000 * SECOND);
    let events = db.keyspace_with("events", &tiered).unwrap();
    events.put("k", "v").unwrap();
    let backup = db.create_backup("with options").unwrap();
    let changed = KeyspaceOptions::new().compaction_shape(CompactionShape::Leveled);
    events.set_options(&changed).unwrap();
    let shape = |db: &Db| db.keyspace("events").unwrap().options().compaction_shape();
    db.restore_backup(backup.name()).unwrap();
    assert_eq!(shape(&db), CompactionShape::Tiered);
    db.drop_keyspace("events").unwrap();
    db.restore_backup(backup.name()).unwrap();
    assert_eq!(shape(&db), CompactionShape::Tiered);
    let ttl = db.keyspace("events").unwrap().options().default_ttl();
    assert_eq!(ttl, Some(1000 * SECOND));
    db.close().unwrap();
    assert_eq!(shape(&open(on(&fs))), CompactionShape::Tiered);
}

#[test]
fn tables_are_written_as_their_keyspace_says() {
    let fs = Arc::new(MemFileSystem::new());
    let db = open(on(&fs));
    let plain = KeyspaceOptions::new()
        .compression(Compression::None)
        .upper_compression(Compression::None);
    let plain = db.keyspace_with("plain", &plain).unwrap();
    let packed = db.keyspace("packed").unwrap();
    for keyspace in [&plain, &packed] {
        for i in 0..2000u32 {
            keyspace.put(i.to_be_bytes(), [b'x'; 100]).unwrap();
        }
    }
    db.flush().unwrap();
    let bytes = |keyspace: &esker::Keyspace| keyspace.keyspace_stats().table_bytes();
    assert!(bytes(&plain) > 200_000, "{}", bytes(&plain));
    assert!(bytes(&packed) < 100_000, "{}", bytes(&packed));
    // What is rewritten takes the new form.
    plain
        .set_options(&KeyspaceOptions::new().compression(Compression::Lz4))
        .unwrap();
    plain.compact().unwrap();
    assert!(bytes(&plain) < 100_000, "{}", bytes(&plain));
}

/// One record in a keyspace that nobody writes to any more, and a busy one beside it.
#[test]
fn an_idle_keyspace_does_not_pin_the_log_beyond_its_limit() {
    let fs = Arc::new(MemFileSystem::new());
    let limit = 1 << 20;
    let db = open(on(&fs).wal_size_limit_bytes(limit));
    let idle = db.keyspace("idle").unwrap();
    idle.put("old", "record").unwrap();
    let busy = db.keyspace("busy").unwrap();
    for i in 0..10_000u32 {
        busy.put(i.to_be_bytes(), [7; 1000]).unwrap();
        assert!(db.wal().size_bytes().unwrap() <= 2 * limit);
    }
    // The same after the process was killed, when the record comes from the log.
    idle.put("newer", "record").unwrap();
    let fs = Arc::new(fs.fork());
    drop((idle, busy, db));
    let db = open(on(&fs).wal_size_limit_bytes(limit));
    assert!(db.recovery_state().wal_records_replayed() > 0);
    let idle = db.keyspace("idle").unwrap();
    let busy = db.keyspace("busy").unwrap();
    for i in 0..5_000u32 {
        busy.put(i.to_be_bytes(), [8; 1000]).unwrap();
        assert!(db.wal().size_bytes().unwrap() <= 2 * limit);
    }
    assert_eq!(idle.get("old").unwrap().as_deref(), Some(&b"record"[..]));
    assert_eq!(idle.get("newer").unwrap().as_deref(), Some(&b"record"[..]));
}

#[test]
fn handles_are_cheap_owned_and_work_from_every_thread() {
    fn cheap<T: Clone + Send + Sync + 'static>(_: &T) {}
    let db = Options::new().open_in_memory().unwrap();
    let keyspace = db.keyspace("k").unwrap();
    cheap(&keyspace);
    assert!(size_of::<esker::Keyspace>() <= 2 * size_of::<usize>());
    drop(db);
    // A handle keeps the database open.
    std::thread::spawn(move || keyspace.put("k", "v").unwrap())
        .join()
        .unwrap();
}

/// What the issue asks for: 10,000 keyspaces, each opened, some written to, all dropped.
#[test]
fn ten_thousand_keyspaces_come_and_go() {
    const KEYSPACES: usize = 10_000;
    let fs = Arc::new(MemFileSystem::new());
    let db = open(on(&fs));
    for i in 0..KEYSPACES {
        let keyspace = db.keyspace(&format!("keyspace {i}")).unwrap();
        assert_eq!(
            keyspace.keyspace_stats().memtable_bytes(),
            0,
            "idle: no memory"
        );
        if i % 100 == 0 {
            keyspace.put("k", i.to_string()).unwrap();
        }
    }
    assert_eq!(db.keyspace_names().unwrap().len(), KEYSPACES + 1);
    db.close().unwrap();
    let db = open(on(&fs).max_open_files(16));
    assert_eq!(db.keyspace_names().unwrap().len(), KEYSPACES + 1);
    for i in (0..KEYSPACES).step_by(100) {
        let keyspace = db.keyspace(&format!("keyspace {i}")).unwrap();
        let expected = i.to_string();
        assert_eq!(
            keyspace.get("k").unwrap().as_deref(),
            Some(expected.as_bytes())
        );
    }
    for i in 0..KEYSPACES {
        db.drop_keyspace(&format!("keyspace {i}")).unwrap();
    }
    assert_eq!(db.keyspace_names().unwrap(), ["default"]);
    assert!(db.validate().unwrap().is_ok());
    db.close().unwrap();
    let tables = fs.read_dir(Path::new("/db")).unwrap();
    let tables = tables.iter().filter(|entry| entry.name.ends_with(".sst"));
    assert_eq!(tables.count(), 0, "a dropped keyspace leaves no file");
    let db = open(on(&fs));
    assert_eq!(db.keyspace_names().unwrap(), ["default"]);
}

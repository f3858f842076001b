//! Options: refused where they cannot hold, persisted where opens must agree, changed while the
//! database is open.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{Compression, Durability, ErrorKind, ManualClock, Options, RuntimeOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn on(fs: &Arc<MemFileSystem>) -> Options {
    let fs: Arc<dyn FileSystem> = fs.clone();
    Options::new().file_system(fs)
}

#[test]
fn contradictions_are_refused_with_the_reason_and_nothing_is_made() {
    let fs = Arc::new(MemFileSystem::new());
    let cases = [
        (
            on(&fs).create_if_missing(false).error_if_exists(true),
            "error_if_exists",
        ),
        (
            on(&fs)
                .wal_size_limit_bytes(1 << 20)
                .wal_segment_bytes(2 << 20),
            "wal_segment_bytes",
        ),
        (
            on(&fs).block_bytes(1 << 16).target_file_bytes(1 << 14),
            "target_file_bytes",
        ),
    ];
    for (options, name) in cases {
        let error = options.open("/db").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(fs.metadata(std::path::Path::new("/db")).is_err());
    // What was not asked for gives way.
    on(&fs)
        .wal_size_limit_bytes(1 << 20)
        .open("/db")
        .unwrap()
        .close()
        .unwrap();
}

#[test]
fn the_default_time_to_live_must_agree_with_what_the_database_persists() {
    let fs = Arc::new(MemFileSystem::new());
    let reopened = |options: Options| -> esker::Result<Option<Duration>> {
        let db = options.open("/db")?;
        let ttl = db.options().default_ttl();
        db.close()?;
        Ok(ttl)
    };
    assert_eq!(reopened(on(&fs).default_ttl(SECOND)).unwrap(), Some(SECOND));
    assert_eq!(
        reopened(on(&fs)).unwrap(),
        Some(SECOND),
        "it is found again"
    );
    assert_eq!(reopened(on(&fs).default_ttl(SECOND)).unwrap(), Some(SECOND));
    for other in [Some(2 * SECOND), None] {
        let error = reopened(on(&fs).default_ttl(other)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("default_ttl"), "{error}");
        let error = on(&fs)
            .default_ttl(other)
            .open_read_only("/db")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    let db = on(&fs).open("/db").unwrap();
    db.set_options(&RuntimeOptions::new().default_ttl(None))
        .unwrap();
    assert_eq!(db.options().default_ttl(), None);
    db.put("k", "v").unwrap();
    assert_eq!(db.ttl("k").unwrap(), None);
    db.close().unwrap();
    assert_eq!(reopened(on(&fs)).unwrap(), None, "the change is persisted");
    assert!(reopened(on(&fs).default_ttl(SECOND)).is_err());
}

#[test]
fn a_database_of_before_has_no_default_time_to_live() {
    let fs = Arc::new(MemFileSystem::new());
    on(&fs).open("/db").unwrap().close().unwrap();
    assert!(on(&fs).default_ttl(SECOND).open("/db").is_err());
    on(&fs)
        .default_ttl(None)
        .open("/db")
        .unwrap()
        .close()
        .unwrap();
}

#[test]
fn what_is_changed_counts_at_once_and_is_visible() {
    let clock = Arc::new(ManualClock::at_millis(1_000));
    let fs = Arc::new(MemFileSystem::new());
    let db = on(&fs).clock(clock).open("/db").unwrap();
    let change = RuntimeOptions::new()
        .cache_bytes(1 << 20)
        .max_key_bytes(10)
        .default_durability(Durability::Volatile)
        .write_buffer_bytes(64 << 10)
        .compression(Compression::None)
        .wal_size_limit_bytes(1 << 20);
    db.set_options(&change).unwrap();
    let options = db.options();
    assert_eq!(options.cache_bytes(), 1 << 20);
    assert_eq!(options.max_key_bytes(), 10);
    assert_eq!(options.compression(), Compression::None);
    assert_eq!(options.block_bytes(), 4096, "what was not named stays");
    assert!(options.wal_segment_bytes() * 8 <= 1 << 20, "settled again");
    assert_eq!(db.wal().size_limit_bytes(), 1 << 20);
    // It is what the engine acts by, too.
    let error = db.put("eleven bytes", "v").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let logged = db.stats().log_bytes_written();
    db.put("volatile", "v").unwrap();
    assert_eq!(db.stats().log_bytes_written(), logged);
    for i in 0..1000u32 {
        db.put(i.to_be_bytes(), [1; 1000]).unwrap();
    }
    assert!(db.stats().flushes() > 0, "the smaller memtable was sealed");
}

#[test]
fn a_bad_change_changes_nothing() {
    let db = Options::new().open_in_memory().unwrap();
    let before = db.options().to_text();
    for change in [
        RuntimeOptions::new().cache_bytes(5).level0_runs(0),
        RuntimeOptions::new()
            .wal_segment_bytes(1 << 30)
            .cache_bytes(5),
        RuntimeOptions::new()
            .filter_bits_per_key(65.0)
            .cache_bytes(5),
    ] {
        let error = db.set_options(&change).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(db.options().to_text(), before);
    }
}

#[test]
fn options_are_set_by_name_unless_they_are_settled_for_good() {
    let db = Options::new().open_in_memory().unwrap();
    let mut change = RuntimeOptions::new();
    for (name, text) in [
        ("cache_bytes", "4096"),
        ("compaction_shape", "tiered"),
        ("default_durability", "buffered"),
        ("default_ttl", "1500"),
        ("filter_bits_per_key", "7.5"),
    ] {
        change.set_by_name(name, text).unwrap();
    }
    let kind = |result: esker::Result<()>| result.unwrap_err().kind();
    let fixed = change.set_by_name("background_threads", "3");
    assert_eq!(kind(fixed), ErrorKind::Unsupported);
    let unknown = change.set_by_name("no_such_option", "3");
    assert_eq!(kind(unknown), ErrorKind::InvalidArgument);
    let no_value = change.set_by_name("cache_bytes", "many");
    assert_eq!(kind(no_value), ErrorKind::InvalidArgument);
    db.set_options(&change).unwrap();
    assert_eq!(
        db.options().default_ttl(),
        Some(Duration::from_millis(1500))
    );
    // What is shown can be set again.
    let mut again = RuntimeOptions::new();
    for (name, text) in db.options().to_text() {
        match again.set_by_name(name, &text) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            set => set.unwrap(),
        }
    }
    db.set_options(&again).unwrap();
}

/// Each change is whole: a reader of all options never sees half of one.
#[test]
fn changes_and_readers_do_not_race() {
    let db = Options::new().open_in_memory().unwrap();
    let pair = |size: usize| {
        RuntimeOptions::new()
            .cache_bytes(size)
            .max_value_bytes(size)
    };
    db.set_options(&pair(1 << 20)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                for i in 0..500usize {
                    db.set_options(&pair((1 << 20) + 2 * i + half)).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        while !done.load(Ordering::Relaxed) {
            let options = db.options();
            assert_eq!(options.cache_bytes(), options.max_value_bytes());
            db.put("k", [0; 100]).unwrap();
        }
    });
}

//! Each check by the damage that it is there for, and none without damage.

use super::*;
use crate::Db;
use crate::options::Options;
use esker_base::filename::FileKind;
use esker_manifest::{KeyspaceEdit, ManifestOptions, VersionEdit, VersionSet};
use esker_vfs::{FileSystem, MemFileSystem};
use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

const DIRECTORY: &str = "/db";
/// Where the records of a log segment and of a manifest begin (docs/format/wal.md).
const FIRST_RECORD_OFFSET: u64 = 8192;

fn open(fs: &MemFileSystem) -> Result<Db> {
    let options = Options::new()
        .file_system(Arc::new(fs.clone()))
        .write_buffer_bytes(16 << 10)
        .target_file_bytes(8 << 10)
        .block_bytes(256)
        .compression(crate::Compression::None)
        .upper_compression(crate::Compression::None)
        .wal_size_limit_bytes(128 << 10)
        .wal_segment_bytes(16 << 10)
        .manifest_bytes(8 << 10);
    options.open(DIRECTORY)
}

/// A database with tables, and with records in its log.
fn database() -> (MemFileSystem, Db) {
    let fs = MemFileSystem::new();
    let db = open(&fs).unwrap();
    for i in 0..600 {
        db.put(format!("key {i:04}"), format!("value {i} ").repeat(4))
            .unwrap();
    }
    db.compact().unwrap();
    db.put("in the log", "and nowhere else").unwrap();
    settle(&db);
    (fs, db)
}

/// Waits until no job changes what there is to look at.
fn settle(db: &Db) {
    db.wait_for_background_work().unwrap();
    while !db.engine().background.is_idle() {
        std::thread::yield_now();
    }
}

/// Files of a kind in the directory of the database, by name.
fn files(fs: &MemFileSystem, is_wanted: impl Fn(FileKind) -> bool) -> Vec<PathBuf> {
    let entries = fs.read_dir(Path::new(DIRECTORY)).unwrap();
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| FileKind::parse(name).is_some_and(&is_wanted));
    names.sort();
    names
        .iter()
        .map(|name| Path::new(DIRECTORY).join(name))
        .collect()
}

fn tables(fs: &MemFileSystem) -> Vec<PathBuf> {
    files(fs, |kind| matches!(kind, FileKind::Table(_)))
}

fn flip(fs: &MemFileSystem, path: &Path, offset: u64) {
    let mut byte = [0];
    fs.open_read(path)
        .unwrap()
        .read_exact_at(&mut byte, offset)
        .unwrap();
    fs.open_write(path)
        .unwrap()
        .write_at(offset, &[byte[0] ^ 4])
        .unwrap();
}

/// The one issue that a validation finds.
#[track_caller]
fn only_issue(db: &Db) -> Issue {
    let report = db.validate().unwrap();
    assert_eq!(report.issues().len(), 1, "{:?}", report.issues());
    assert_eq!(
        report.is_ok(),
        report.issues()[0].severity() == Severity::Note
    );
    report.issues()[0].clone()
}

/// Asserts that a validation finds one damage, in `path`, and says `words`.
#[track_caller]
fn finds(db: &Db, path: &Path, words: &str) -> Issue {
    finds_one(db, Severity::Damage, path, words)
}

/// Asserts that a validation finds one damage to what the database itself does without, in `path`.
#[track_caller]
fn warns(db: &Db, path: &Path, words: &str) -> Issue {
    finds_one(db, Severity::Warning, path, words)
}

#[track_caller]
fn finds_one(db: &Db, severity: Severity, path: &Path, words: &str) -> Issue {
    let report = db.validate().unwrap();
    let is_damage = |issue: &&Issue| issue.severity() > Severity::Note;
    let damage: Vec<&Issue> = report.issues().iter().filter(is_damage).collect();
    assert!(damage.len() == 1, "{:?}", report.issues());
    assert_eq!(report.worst(), Some(severity));
    assert_eq!(report.is_ok(), severity < Severity::Damage);
    let issue = damage[0].clone();
    assert_eq!(issue.file(), Some(path), "{issue}");
    let sentence = issue.to_string();
    assert!(sentence.contains(words), "{words:?} is not in {sentence:?}");
    assert!(!issue.advice().is_empty() && sentence.contains(issue.advice()));
    issue
}

#[test]
fn a_database_that_is_well_has_no_issues() {
    let (fs, db) = database();
    db.keyspace("other").unwrap().put("k", "v").unwrap();
    db.create_backup("whole").unwrap();
    db.create_recovery_point("whole").unwrap();
    for _ in 0..2 {
        let report = db.validate().unwrap();
        assert!(report.issues().is_empty(), "{:?}", report.issues());
        assert!(report.tables() > 1 && report.bytes() > 4000);
    }
    db.close().unwrap();
    let report = open(&fs).unwrap().validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
    let memory = Options::new().open_in_memory().unwrap();
    memory.put("k", "v").unwrap();
    memory.flush().unwrap();
    assert!(memory.validate().unwrap().issues().is_empty());
}

#[test]
fn writers_flushes_and_backups_that_go_on_are_no_findings() {
    let (_fs, db) = database();
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..6000 {
                db.put(
                    format!("key {:04}", i % 700),
                    format!("again {i} ").repeat(5),
                )
                .unwrap();
                if i % 1000 == 0 {
                    db.create_backup("meanwhile").unwrap();
                    db.create_recovery_point("meanwhile").unwrap();
                }
            }
            writing.store(false, Ordering::Relaxed);
        });
        let mut validations = 0;
        while writing.load(Ordering::Relaxed) || validations < 3 {
            let report = db.validate().unwrap();
            assert!(report.is_ok(), "{:?}", report.issues());
            validations += 1;
        }
    });
}

#[test]
fn a_flipped_bit_of_a_table_is_found_with_its_place_and_keys() {
    let (fs, db) = database();
    let table = tables(&fs).pop().unwrap();
    db.close().unwrap();
    let second_block = 700;
    flip(&fs, &table, second_block);
    let db = open(&fs).unwrap();
    let issue = finds(&db, &table, "checksum");
    assert!(
        issue.offset().is_some_and(|offset| offset <= second_block),
        "{issue}"
    );
    let (smallest, largest) = issue.keys().unwrap();
    assert!(smallest.starts_with(b"key ") && smallest < largest);
    assert!(issue.to_string().contains("keys \"key "), "{issue}");
    // Readers say the same.
    let error = db.iter().find_map(std::result::Result::err).unwrap();
    assert_eq!((error.file(), error.keys()), (issue.file(), issue.keys()));
}

#[test]
fn a_table_that_goes_or_shrinks_under_an_open_database_is_found() {
    let (fs, db) = database();
    let all = tables(&fs);
    assert!(db.validate().unwrap().is_ok());
    fs.remove_file(&all[0]).unwrap();
    finds(&db, &all[0], "missing");
    fs.create(&all[0])
        .unwrap()
        .write_at(0, b"something else")
        .unwrap();
    finds(&db, &all[0], "14 bytes, and the manifest says");
}

/// Makes the manifest of a closed database describe the first table of its last run in another way.
fn misdescribe(fs: &MemFileSystem, change: impl Fn(&mut TableMeta)) -> PathBuf {
    let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let manifest = ManifestOptions {
        rotate_bytes: 1 << 20,
    };
    let versions = VersionSet::recover(shared, Path::new(DIRECTORY), manifest).unwrap();
    let keyspace = versions.keyspaces()[0].id;
    let version = versions.current(keyspace).unwrap();
    let (level, run, _) = version.tables().last().unwrap();
    let number = versions.new_file_number();
    let others = version.tables().filter(|(_, other, _)| *other == run);
    let others: Vec<_> = others.map(|(_, _, meta)| Arc::clone(meta)).collect();
    assert!(others.len() > 1, "{others:?}");
    let mut changed = TableMeta::clone(&others[0]);
    change(&mut changed);
    let added = others.iter().map(|meta| esker_manifest::AddedTable {
        level,
        run: esker_manifest::RunPlacement::Created(number),
        meta: if meta.number == changed.number {
            Arc::new(changed.clone())
        } else {
            Arc::clone(meta)
        },
    });
    let edit = KeyspaceEdit {
        id: keyspace,
        removed: others.iter().map(|meta| meta.number).collect(),
        added: added.collect(),
        ..KeyspaceEdit::default()
    };
    let edit = VersionEdit {
        keyspaces: vec![edit],
        ..VersionEdit::default()
    };
    versions.log_and_apply(edit).unwrap();
    esker_base::filename::table_path(Path::new(DIRECTORY), changed.number)
}

#[test]
fn a_table_that_is_not_what_the_manifest_says_is_found() {
    type Change = fn(&mut TableMeta);
    let changes: [(&str, Change); 5] = [
        ("a count", |meta| meta.entries += 1),
        ("tombstones", |meta| meta.tombstones += 1),
        ("the smallest key", |meta| {
            meta.bounds.smallest = b"a".to_vec()
        }),
        ("the largest sequence", |meta| meta.largest_sequence += 1),
        ("the checksum", |meta| meta.checksum ^= 1),
    ];
    for (what, change) in changes {
        let (fs, db) = database();
        db.close().unwrap();
        let path = misdescribe(&fs, change);
        let db = open(&fs).unwrap();
        let report = db.validate().unwrap();
        assert!(!report.is_ok(), "{what}");
        assert_eq!(report.issues()[0].file(), Some(path.as_path()), "{what}");
    }
    // Sequence numbers that no write has had.
    let (fs, db) = database();
    db.close().unwrap();
    let path = misdescribe(&fs, |meta| meta.largest_sequence = 1 << 40);
    let db = open(&fs).unwrap();
    finds(&db, &path, "manifest");
}

#[test]
fn overlapping_tables_never_enter_a_version() {
    let (fs, db) = database();
    db.close().unwrap();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        misdescribe(&fs, |meta| meta.bounds.largest = b"key 9999".to_vec());
    }));
    assert!(refused.is_err());
    assert!(open(&fs).unwrap().validate().unwrap().is_ok());
}

#[test]
fn damage_to_the_segment_that_takes_records_is_found() {
    let (fs, db) = database();
    let number = db.engine().segments.current().unwrap();
    let path = esker_base::filename::wal_path(Path::new(DIRECTORY), number);
    let end = db.engine().commit_queue.lock().log.current_end();
    flip(&fs, &path, end - 5);
    let issue = finds(&db, &path, "cannot be read");
    assert!(issue.offset().is_some_and(|offset| offset < end));
    flip(&fs, &path, end - 5);
    assert!(db.validate().unwrap().is_ok());
}

#[test]
fn damage_to_complete_segments_and_missing_ones_is_found() {
    let (fs, db) = database();
    let first = db.engine().segments.current().unwrap();
    db.wal().rotate().unwrap();
    db.put("in the next", "segment").unwrap();
    let path = esker_base::filename::wal_path(Path::new(DIRECTORY), first);
    flip(&fs, &path, FIRST_RECORD_OFFSET + 30);
    finds(&db, &path, "damaged");
    fs.remove_file(&path).unwrap();
    let issue = finds(&db, &path, "could not open");
    assert!(issue.advice().contains("empty the log"));
    // The advice helps.
    db.flush().unwrap();
    settle(&db);
    assert!(db.validate().unwrap().is_ok());
    assert_eq!(
        db.get("in the log").unwrap().as_deref(),
        Some(&b"and nowhere else"[..])
    );
}

#[test]
fn damage_to_the_manifest_under_an_open_database_is_found() {
    let (fs, db) = database();
    let manifest = files(&fs, |kind| matches!(kind, FileKind::Manifest(_)))
        .pop()
        .unwrap();
    flip(&fs, &manifest, FIRST_RECORD_OFFSET + 30);
    let issue = finds(&db, &manifest, "");
    assert!(issue.advice().contains("checkpoint"));
    flip(&fs, &manifest, FIRST_RECORD_OFFSET + 30);
    fs.remove_file(&Path::new(DIRECTORY).join("CURRENT"))
        .unwrap();
    let issue = only_issue(&db);
    assert!(issue.to_string().contains("CURRENT"), "{issue}");
}

#[test]
fn backups_and_recovery_points_that_could_not_be_restored_are_found() {
    let (fs, db) = database();
    let backup = db.create_backup("soon damaged").unwrap();
    let backups = Path::new(DIRECTORY).join("backups");
    let metadata = backups.join(format!("{}.backup", backup.name()));
    flip(&fs, &metadata, 40);
    let issue = warns(&db, &metadata, "checksum");
    assert!(issue.message().contains(backup.name()));
    flip(&fs, &metadata, 40);
    let shared = fs.read_dir(&backups.join("tables")).unwrap();
    let table = backups.join("tables").join(&shared[0].name);
    fs.remove_file(&table).unwrap();
    warns(&db, &table, "cannot be found");
    db.delete_backup(backup.name()).unwrap();
    assert!(db.validate().unwrap().is_ok());

    let point = db.create_recovery_point("soon damaged").unwrap();
    let pinned: HashSet<PathBuf> = tables(&fs).into_iter().collect();
    for i in 0..300 {
        db.put(format!("key {i:04}"), "changed").unwrap();
    }
    db.compact().unwrap();
    let live: HashSet<PathBuf> = db
        .engine()
        .versions
        .live_files()
        .iter()
        .map(|number| esker_base::filename::table_path(Path::new(DIRECTORY), *number))
        .collect();
    let only_pinned = pinned.difference(&live).next().unwrap();
    fs.remove_file(only_pinned).unwrap();
    let issue = warns(&db, only_pinned, "cannot be found");
    assert!(issue.message().contains(point.name()));
}

#[test]
fn strays_are_noted_and_harmless() {
    let (fs, db) = database();
    db.wait_for_background_work().unwrap();
    // A number that was given out once, and names nothing now.
    let engine = db.engine();
    let live = engine.versions.live_files();
    let is_there = |name: String| fs.metadata(&Path::new(DIRECTORY).join(name)).is_ok();
    let is_free = |number: &u64| {
        !live.contains(number)
            && !engine.segments.is_kept(*number)
            && !is_there(format!("{number:06}.sst"))
            && !is_there(format!("{number:06}.wal"))
            && !is_there(format!("{number:06}.tmp"))
    };
    let number = (1..100).find(is_free).unwrap();
    for name in [
        format!("{number:06}.sst"),
        format!("{number:06}.wal"),
        format!("{number:06}.tmp"),
        "other.tmp".into(),
    ] {
        let path = Path::new(DIRECTORY).join(&name);
        fs.create(&path).unwrap();
        let report = db.validate().unwrap();
        assert_eq!(report.issues().len(), 1, "{name}");
        let issue = only_issue(&db);
        assert_eq!(issue.severity(), Severity::Note);
        assert_eq!(issue.file(), Some(path.as_path()));
        fs.remove_file(&path).unwrap();
    }
    // Not ours, and one that is in the making.
    for name in ["notes.txt", "900009.tmp"] {
        fs.create(&Path::new(DIRECTORY).join(name)).unwrap();
    }
    assert!(db.validate().unwrap().issues().is_empty());
}

#[test]
fn progress_is_told_and_can_cancel() {
    let (_fs, db) = database();
    let (last, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let report = db
        .validate_with(&|progress| {
            last.fetch_max(progress.done_bytes, Ordering::Relaxed);
            total.fetch_max(progress.total_bytes, Ordering::Relaxed);
            progress.done_bytes <= progress.total_bytes
        })
        .unwrap();
    assert_eq!(report.bytes(), last.into_inner());
    assert_eq!(report.bytes(), total.into_inner());
    let calls = AtomicU64::new(0);
    let cancelled = db.validate_with(&|_| {
        calls.fetch_add(1, Ordering::Relaxed);
        false
    });
    assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::Cancelled);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    assert!(calls.into_inner() <= threads);
    db.close().unwrap();
    assert_eq!(db.validate().unwrap_err().kind(), ErrorKind::Closed);
}

/// The story: tables of a bulk load that ran meanwhile, which nothing names yet, were told as strays.
#[test]
fn a_bulk_load_that_runs_is_no_finding() {
    let (_, db) = database();
    let other = db.keyspace("other").unwrap();
    let mut found = None;
    let entries = (0..200u32).map(|n| {
        if n == 150 {
            // With it the manifest knows of later numbers than the load's.
            db.put("beside", "the load").unwrap();
            db.flush().unwrap();
            db.wait_for_background_work().unwrap();
            found = Some(db.validate().unwrap());
        }
        (n.to_be_bytes(), [n as u8; 300])
    });
    other.ingest(entries).unwrap();
    let report = found.unwrap();
    assert!(report.issues().is_empty(), "{report:?}");
}

/// The story: between the moments at which the tables of a bulk load are current and visible, a validation told
/// them as damage.
#[test]
fn a_bulk_load_that_is_about_to_be_visible_is_no_damage() {
    let (_, db) = database();
    let before = db.engine().visible_sequence();
    db.ingest([("loaded", "later")]).unwrap();
    let version = db.engine().versions.current(0).unwrap();
    let tables = version.tables().map(|(_, _, meta)| meta);
    let loaded = tables.filter(|meta| meta.ingested_sequence > before);
    let checked = loaded.map(|meta| tables::check_sequences(db.engine(), meta, before));
    assert!(checked.map(Result::unwrap).count() > 0);
}

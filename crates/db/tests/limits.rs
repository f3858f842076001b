//! At the limits: the longest keys, long values, empty ones, few file handles, and batches that are
//! looked at by many threads while they are written.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use esker::vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem};
use esker::{Db, Durability, ErrorKind, Options, WriteBatch, WriteOptions};

const MEBIBYTE: usize = 1 << 20;

fn buffered() -> WriteOptions {
    WriteOptions::new().durability(Durability::Buffered)
}

/// `bytes` bytes that tell which value they are and do not compress to nothing.
fn long(number: u8, bytes: usize) -> Vec<u8> {
    let mut state = u32::from(number) + 1;
    let mut value = Vec::with_capacity(bytes);
    while value.len() < bytes {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(bytes);
    value
}

fn kind<T: std::fmt::Debug>(answer: esker::Result<T>) -> ErrorKind {
    answer.unwrap_err().kind()
}

fn assert_valid(db: &Db) {
    let report = db.validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
}

fn check(db: &Db, expected: &[(Vec<u8>, Vec<u8>)]) {
    for (key, value) in expected {
        let found = db.get(key).unwrap().expect("the key is there");
        assert!(*found == value[..], "another value");
    }
    let forwards: Vec<_> = db.iter().map(Result::unwrap).collect();
    assert_eq!(forwards.len(), expected.len());
    for ((key, value), (expected_key, expected_value)) in forwards.iter().zip(expected) {
        assert!(**key == expected_key[..] && **value == expected_value[..]);
    }
    let backwards: Vec<_> = db.iter().rev().map(|entry| entry.unwrap().0).collect();
    assert!(
        backwards
            .iter()
            .rev()
            .eq(forwards.iter().map(|(key, _)| key))
    );
}

/// Takes `entries`, ascending and at least four, through everything that a database does with them.
fn through_everything(options: impl Fn() -> Options, mut entries: Vec<(Vec<u8>, Vec<u8>)>) {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("db");
    let db = options().open(&place).unwrap();
    let mut batch = WriteBatch::new();
    for (index, (key, value)) in entries.iter().enumerate() {
        match index % 2 {
            0 => db.put(key, value).unwrap(),
            _ => batch.put(key, value),
        }
    }
    db.write(batch).unwrap();
    check(&db, &entries);
    // From the log: what is copied now is what a kill would leave.
    // A job may remove a file meanwhile: then the copy is of no moment, and is made again.
    let killed = home.path().join("killed");
    let copy = || -> std::io::Result<()> {
        db.wait_for_background_work().unwrap();
        std::fs::create_dir(&killed)?;
        for file in std::fs::read_dir(&place)? {
            let file = file?;
            if file.file_type()?.is_file() {
                std::fs::copy(file.path(), killed.join(file.file_name()))?;
            }
        }
        Ok(())
    };
    while copy().is_err() {
        std::fs::remove_dir_all(&killed).unwrap();
    }
    let replayed = options().open(&killed).unwrap();
    check(&replayed, &entries);
    replayed.close().unwrap();
    db.flush().unwrap();
    check(&db, &entries);
    let backup = db.create_backup("before").unwrap();
    assert!(db.verify_backup(backup.name()).unwrap().is_ok());
    let all = entries.clone();
    let (gone, _) = entries.remove(1);
    db.delete(&gone).unwrap();
    let last = entries.len() - 1;
    db.put(&entries[0].0, &entries[last].1).unwrap();
    entries[0].1 = entries[last].1.clone();
    db.compact().unwrap();
    check(&db, &entries);
    let mut transaction = db.begin().unwrap();
    assert!(transaction.get(&entries[0].0).unwrap().is_some());
    let value = entries[1].1.clone();
    transaction.put(&entries[0].0, &value).unwrap();
    transaction.commit().unwrap();
    entries[0].1 = value;
    check(&db, &entries);
    assert_valid(&db);
    db.restore_backup(backup.name()).unwrap();
    check(&db, &all);
    db.close().unwrap();
    check(&options().open(&place).unwrap(), &all);
}

#[test]
fn keys_of_a_mebibyte() {
    let small = || {
        Options::new()
            .write_buffer_bytes(3 * MEBIBYTE)
            .wal_segment_bytes(64 << 10)
    };
    // They differ in their last bytes alone, and one begins another.
    let key = |number: u8, bytes: usize| {
        let mut key = vec![b'k'; bytes];
        key[bytes - 1] = number;
        key
    };
    let mut entries = vec![(key(b'k', MEBIBYTE - 1), long(9, 10))];
    entries.extend((0..6).map(|number| (key(number, MEBIBYTE), long(number, 100))));
    entries.sort();
    through_everything(small, entries);

    let db = Options::new().open_in_memory().unwrap();
    let too_long = key(1, MEBIBYTE + 1);
    assert_eq!(kind(db.put(&too_long, "v")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.delete(&too_long)), ErrorKind::InvalidArgument);
    let longest = key(1, MEBIBYTE);
    db.put(&longest, "v").unwrap();
    // The successor of the longest key bounds a range.
    db.delete_range(longest.clone()..too_long_bound(&longest))
        .unwrap();
    assert!(db.get(&longest).unwrap().is_none());
}

fn too_long_bound(key: &[u8]) -> Vec<u8> {
    let mut bound = key.to_vec();
    bound.push(0);
    bound
}

#[test]
fn values_of_64_mebibytes() {
    let options = || {
        Options::new()
            .write_buffer_bytes(32 * MEBIBYTE)
            .cache_bytes(8 * MEBIBYTE)
    };
    let bytes = |number: u8| [64 * MEBIBYTE, 10][usize::from(number % 2)];
    let entries = (0..4u8).map(|number| (vec![number], long(number, bytes(number))));
    through_everything(options, entries.collect());
}

/// A segment that was made ahead stays empty where it is too short for the next write. With nothing
/// before it in the log, the log was taken to end there: a synced write behind it kept the database from
/// opening, and a buffered one was lost with the process.
#[test]
fn a_value_longer_than_a_segment_is_found_behind_one_made_ahead() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let options = |disk: Arc<dyn FileSystem>| {
            let options = Options::new().file_system(disk);
            options
                .wal_segment_bytes(64 << 10)
                .wal_size_limit_bytes(1 << 20)
        };
        let db = options(Arc::new(disk.clone())).open("/db").unwrap();
        for part in 0..5u8 {
            db.put([part], long(part, 9 << 10)).unwrap();
        }
        db.wait_for_background_work().unwrap();
        db.wal().clear().unwrap();
        let how = WriteOptions::new().durability(durability);
        db.put_opt("more than one", long(2, 100 << 10), &how)
            .unwrap();
        let mut policies = vec![ImagePolicy::PROCESS_END];
        if durability == Durability::Sync {
            policies.push(ImagePolicy::ONLY_SYNCED);
        }
        for policy in policies {
            let image = disk.image(disk.operations(), &policy);
            let recovered = options(Arc::new(image)).open("/db").unwrap();
            let found = recovered.get("more than one").unwrap();
            assert!(
                found.as_deref() == Some(&long(2, 100 << 10)[..]),
                "{policy:?}"
            );
            recovered.put("later", "1").unwrap();
            assert_valid(&recovered);
        }
    }
}

#[test]
fn values_beyond_their_limit_are_refused_and_change_nothing() {
    let db = Options::new()
        .max_value_bytes(100)
        .open_in_memory()
        .unwrap();
    db.put("k", vec![1; 100]).unwrap();
    assert_eq!(kind(db.put("k", vec![2; 101])), ErrorKind::InvalidArgument);
    let mut batch = WriteBatch::new();
    batch.put("other", "fine");
    batch.put("k", vec![2; 101]);
    assert_eq!(kind(db.write(batch)), ErrorKind::InvalidArgument);
    assert!(db.get("other").unwrap().is_none());
    assert_eq!(db.get("k").unwrap().unwrap().len(), 100);
}

#[test]
fn empty_keys_are_refused_and_empty_values_are_values() {
    let home = tempfile::tempdir().unwrap();
    let db = Db::open(home.path()).unwrap();
    assert_eq!(kind(db.put("", "v")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.delete("")), ErrorKind::InvalidArgument);
    let mut batch = WriteBatch::new();
    batch.put("a", "fine");
    batch.put("", "not");
    assert_eq!(kind(db.write(batch)), ErrorKind::InvalidArgument);
    assert!(db.get("a").unwrap().is_none(), "half a batch");
    // Asking for it is no error: it is not there.
    assert!(db.get("").unwrap().is_none());
    let entries = [(&b"empty"[..], &b""[..]), (b"full", b"x")];
    for (key, value) in entries {
        db.put(key, value).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(db.get("empty").unwrap().as_deref(), Some(&b""[..]));
        assert!(db.contains_key("empty").unwrap());
        assert_eq!(db.iter().count(), 2);
        db.flush().unwrap();
        db.compact().unwrap();
    }
    db.close().unwrap();
    let db = Db::open(home.path()).unwrap();
    assert_eq!(db.get("empty").unwrap().as_deref(), Some(&b""[..]));
    db.delete_range(""..).unwrap();
    assert_eq!(db.iter().count(), 0);
}

fn many_tables() -> Options {
    Options::new()
        .write_buffer_bytes(16 << 10)
        .target_file_bytes(4 << 10)
        .wal_segment_bytes(64 << 10)
        .wal_size_limit_bytes(128 << 10)
        .cache_bytes(64 << 10)
        .default_durability(Durability::Buffered)
}

/// Fills a database with far more tables than there are handles, and uses it from several threads.
fn use_many_tables(options: impl Fn() -> Options, place: &std::path::Path) {
    const KEYS: u32 = 12_000;
    let db = options().open(place).unwrap();
    let key = |number: u32| format!("key{:06}", number * 7919 % KEYS);
    for number in 0..KEYS {
        db.put(key(number), long(number as u8, 100)).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_background_work().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (db, key) = (&db, &key);
            scope.spawn(move || {
                for number in (thread..KEYS).step_by(4) {
                    let found = db.get(key(number)).unwrap().expect("it is there");
                    assert_eq!(*found, long(number as u8, 100)[..]);
                }
                assert_eq!(db.iter().map(Result::unwrap).count(), KEYS as usize);
                assert_eq!(db.iter().rev().map(Result::unwrap).count(), KEYS as usize);
            });
        }
    });
    db.compact().unwrap();
    assert_valid(&db);
    let backup = db.create_backup("of many tables").unwrap();
    assert!(backup.table_count() > 100, "{}", backup.table_count());
    db.close().unwrap();
    let db = options().open(place).unwrap();
    assert_eq!(db.iter().map(Result::unwrap).count(), KEYS as usize);
}

#[test]
fn few_open_tables() {
    let home = tempfile::tempdir().unwrap();
    use_many_tables(|| many_tables().max_open_files(4), home.path());
}

/// The story: the tables of a closed database stayed open as long as one of its handles lived.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_database_keeps_no_table_open() {
    let home = tempfile::tempdir().unwrap();
    let open_tables = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let files = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
        let tables = files.filter(|file| file.extension().is_some_and(|it| it == "sst"));
        tables.filter(|file| file.starts_with(home.path())).count()
    };
    let db = many_tables().open(home.path()).unwrap();
    for number in 0..2000u32 {
        db.put(number.to_be_bytes(), long(number as u8, 100))
            .unwrap();
    }
    db.flush().unwrap();
    assert_eq!(db.iter().count(), 2000);
    assert!(open_tables() > 10);
    db.close().unwrap();
    assert_eq!(open_tables(), 0);
    drop(db);
}

/// Set in the process that has few handles.
const FEW_HANDLES: &str = "ESKER_TEST_FEW_HANDLES";

/// The limit of the process is lower than that of the options. The test runs itself in a process of
/// its own for that. The story: on a busy machine it failed, since merges that are late read a table of every run that
/// there may be before writes wait, and readers theirs, and what was being read could not be closed.
#[test]
fn few_file_handles() {
    if std::env::var_os(FEW_HANDLES).is_some() {
        let home = tempfile::tempdir().unwrap();
        return use_many_tables(many_tables, home.path());
    }
    let output = Command::new("sh")
        .args([
            "-c",
            r#"ulimit -n 64 && exec "$0" --exact few_file_handles"#,
        ])
        .arg(std::env::current_exe().unwrap())
        .env(FEW_HANDLES, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}");
}

/// Several threads write batches that set all keys of a group to one number; others look, in every way
/// there is, for two different numbers.
#[test]
fn no_thread_sees_half_a_batch() {
    const GROUPS: usize = 3;
    const MEMBERS: usize = 20;
    const ROUNDS: u64 = 1500;
    let home = tempfile::tempdir().unwrap();
    let options = many_tables().write_buffer_bytes(64 << 10);
    let db = options.open(home.path()).unwrap();
    let other = db.keyspace("other").unwrap();
    let key = |group: usize, member: usize| format!("{group}/{member:02}");
    let write = |group: usize, round: u64| {
        let mut batch = WriteBatch::new();
        for member in 0..MEMBERS {
            let value = round.to_be_bytes();
            match member % 2 {
                0 => batch.put(key(group, member), value),
                _ => batch.put_in(&other, key(group, member), value),
            }
        }
        db.write_opt(batch, &buffered()).unwrap();
    };
    (0..GROUPS).for_each(|group| write(group, 0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (db, other, key, done) = (&db, &other, &key, &done);
            scope.spawn(move || {
                let mut last = [0; GROUPS];
                while !done.load(Ordering::Relaxed) {
                    let group = reader % GROUPS;
                    let snapshot = db.snapshot();
                    let there = snapshot.of(other);
                    let mut seen = Vec::new();
                    for member in 0..MEMBERS {
                        let value = match member % 2 {
                            0 => snapshot.get(key(group, member)).unwrap(),
                            _ => there.get(key(group, member)).unwrap(),
                        };
                        seen.push(value.expect("every member is always there").to_vec());
                    }
                    assert!(seen.iter().all(|value| *value == seen[0]), "half a batch");
                    let round = u64::from_be_bytes(seen[0][..].try_into().unwrap());
                    assert!(round >= last[group], "back in time");
                    last[group] = round;
                    let prefix = format!("{group}/");
                    let scanned: Vec<_> = db
                        .prefix(&prefix)
                        .map(|entry| entry.unwrap().1.to_vec())
                        .collect();
                    assert_eq!(scanned.len(), MEMBERS / 2);
                    assert!(
                        scanned.iter().all(|value| *value == scanned[0]),
                        "half a batch"
                    );
                }
            });
        }
        let writers: Vec<_> = (0..GROUPS)
            .map(|group| {
                let write = &write;
                scope.spawn(move || (1..=ROUNDS).for_each(|round| write(group, round)))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        db.flush().unwrap();
        db.compact().unwrap();
        done.store(true, Ordering::Relaxed);
    });
}

/// The story: behind a file with the largest number that there is the numbers began anew, with those of live
/// files; and a repair of its directory added one to it.
#[test]
fn a_stranger_with_the_largest_number_takes_no_number_away() {
    for end in ["tmp", "sst", "wal"] {
        let disk = MemFileSystem::new();
        let options = || Options::new().file_system(Arc::new(disk.clone()));
        let write = |round: u8| {
            let db = options().open("/db").unwrap();
            for number in 0..3 {
                db.put([round, number], "value").unwrap();
                db.flush().unwrap();
            }
            db.wait_for_background_work().unwrap();
            assert_valid(&db);
            assert_eq!(db.count().unwrap(), 3 * (u64::from(round) + 1));
            db.close().unwrap();
        };
        write(0);
        let stranger = Path::new("/db").join(format!("{}.{end}", u64::MAX));
        disk.create(&stranger).unwrap();
        write(1);
        disk.create(&stranger).unwrap();
        disk.remove_file(Path::new("/db/CURRENT")).unwrap();
        options().repair("/db").unwrap();
        write(2);
    }
}

//! The ancestor engine's whole promise, in Rust: this file must compile against
//! `esker` and pass, unchanged but for formatting, as `crates/db/tests/seed_document.rs`.
//!
//! It fixes names and meanings, not types: whatever derefs to `[u8]` will do for
//! a value, whatever iterates will do for a range.

use esker::{
    CompactionShape, Compression, Db, Durability, ErrorKind, Options, WriteBatch, WriteOptions,
};
use std::time::Duration;

fn options() -> Options {
    Options::new().wal_size_limit_bytes(10 * 1024 * 1024)
}

/// One behaviour, two engines: everything here holds in memory and on disk.
fn core_interface(db: &Db) -> esker::Result<()> {
    db.put("user:1", "John Doe")?;
    assert_eq!(db.get("user:1")?.as_deref(), Some(&b"John Doe"[..]));
    assert!(db.contains_key("user:1")?);
    assert_eq!(db.get("nobody")?.as_deref(), None);

    db.put("user:2", b"Jane")?;
    db.put(String::from("user:3"), vec![0u8, 255])?;
    let keys: Vec<Vec<u8>> = db
        .prefix("user:")
        .map(|entry| entry.map(|(key, _value)| key.to_vec()))
        .collect::<esker::Result<_>>()?;
    assert_eq!(
        keys,
        [b"user:1".to_vec(), b"user:2".to_vec(), b"user:3".to_vec()]
    );

    let backwards: Vec<Vec<u8>> = db
        .range("user:1".."user:3")
        .rev()
        .map(|entry| entry.map(|(_key, value)| value.to_vec()))
        .collect::<esker::Result<_>>()?;
    assert_eq!(backwards, [b"Jane".to_vec(), b"John Doe".to_vec()]);

    // A zero-copy cursor: positions freely, both ways.
    let mut cursor = db.cursor();
    cursor.seek("user:2")?;
    assert!(cursor.valid());
    assert_eq!(cursor.key(), b"user:2");
    cursor.next()?;
    assert_eq!(cursor.key(), b"user:3");
    cursor.prev()?;
    cursor.prev()?;
    assert_eq!(
        (cursor.key(), cursor.value()),
        (&b"user:1"[..], &b"John Doe"[..])
    );
    cursor.seek_to_last()?;
    assert_eq!(cursor.key(), b"user:3");
    cursor.seek_to_first()?;
    assert_eq!(cursor.key(), b"user:1");
    cursor.seek_for_prev("user:9")?;
    assert_eq!(cursor.key(), b"user:3");
    drop(cursor);

    // Batches are atomic; later operations on a key win.
    let mut batch = WriteBatch::new();
    batch.put("a", "1");
    batch.put("b", "2");
    batch.delete("user:3");
    db.write(batch)?;
    let got = db.multi_get(["a", "b", "user:3"])?;
    let got: Vec<Option<&[u8]>> = got.iter().map(|value| value.as_deref()).collect();
    assert_eq!(got, [Some(&b"1"[..]), Some(&b"2"[..]), None]);

    // A snapshot does not move.
    let snapshot = db.snapshot();
    db.delete("a")?;
    db.delete("a")?; // deleting what is not there is no error
    assert_eq!(db.get("a")?.as_deref(), None);
    assert_eq!(snapshot.get("a")?.as_deref(), Some(&b"1"[..]));
    assert_eq!(snapshot.iter().count(), 4);
    drop(snapshot);

    // Expired keys are never seen, whether or not anything cleaned them up.
    db.put_with_ttl("session", "active", Duration::from_secs(3600))?;
    db.put_with_ttl("blink", "gone", Duration::from_millis(1))?;
    assert_eq!(db.get("session")?.as_deref(), Some(&b"active"[..]));
    let ttl = db.ttl("session")?.expect("session has a time to live");
    assert!(ttl <= Duration::from_secs(3600) && ttl > Duration::from_secs(3500));
    assert!(db.ttl("b")?.is_none());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(db.get("blink")?.as_deref(), None);
    assert!(db.iter().all(|entry| &*entry.unwrap().0 != b"blink"));

    // O(1) range delete, visible at once.
    db.delete_range("user:1".."user:9")?;
    assert_eq!(db.prefix("user:").count(), 0);

    // Exact count, and clearing everything.
    assert_eq!(db.count()?, 2); // b, session
    db.clear()?;
    assert_eq!(db.count()?, 0);

    // Bad input is a typed error and changes nothing.
    let oversized = vec![0u8; db.options().max_key_bytes() + 1];
    let error = db.put(&oversized, "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        db.put("", "empty keys are refused").unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(db.count()?, 0);
    Ok(())
}

#[test]
fn in_memory_engine() -> esker::Result<()> {
    let db = options().open_in_memory()?;
    core_interface(&db)?;
    assert!(!db.wal().is_enabled());
    // What needs a disk says so.
    assert_eq!(
        db.wal().rotate().unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    db.close()
}

#[test]
fn disk_engine_survives_reopen() -> esker::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = options().open(dir.path())?;
    core_interface(&db)?;
    db.put("kept", "yes")?;
    db.close()?;
    let db = Db::open(dir.path())?;
    assert_eq!(db.get("kept")?.as_deref(), Some(&b"yes"[..]));
    db.compact()?;
    let usage = db.disk_usage()?;
    assert!(usage.total_bytes() >= usage.live_bytes());
    // A second open of the same directory is refused, not corrupted.
    assert_eq!(Db::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    // Handles are cheap clones; a closed database answers with an error.
    let other = db.clone();
    db.close()?;
    assert_eq!(other.get("kept").unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}

#[test]
fn wal_is_visible_and_controllable() -> esker::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = options().open(dir.path())?;
    assert!(db.wal().is_enabled());
    db.put("k", vec![7u8; 4096])?; // durable when `put` returns: the default
    assert!(db.wal().size_bytes()? >= 4096);
    assert_eq!(db.wal().size_limit_bytes(), 10 * 1024 * 1024);
    db.wal().rotate()?;
    db.put_opt(
        "k2",
        "v2",
        &WriteOptions::new().durability(Durability::Buffered),
    )?;
    let mut batch = WriteBatch::new();
    batch.put("k3", "v3");
    db.write_opt(batch, &WriteOptions::new().durability(Durability::Volatile))?;
    db.wal().sync()?;
    db.wal().clear()?; // makes every write durable in tables first: never loses one
    assert!(db.wal().size_bytes()? < 4096);
    assert_eq!(db.get("k2")?.as_deref(), Some(&b"v2"[..]));
    // The limit is enforced by flushing, without anyone calling rotate.
    for i in 0..3000u32 {
        db.put_opt(
            i.to_be_bytes(),
            vec![1u8; 16 * 1024],
            &WriteOptions::new().durability(Durability::Buffered),
        )?;
    }
    assert!(db.wal().size_bytes()? <= 2 * 10 * 1024 * 1024);
    db.close()
}

#[test]
fn transactions_are_atomic_isolated_and_serializable() -> esker::Result<()> {
    let db = Options::new().open_in_memory()?;
    db.put("balance:a", "100")?;

    let mut tx = db.begin()?;
    tx.put("key1", "value1")?;
    assert_eq!(tx.get("key1")?.as_deref(), Some(&b"value1"[..])); // reads its own writes
    assert_eq!(db.get("key1")?.as_deref(), None); // nobody else does
    let point = tx.savepoint();
    tx.delete("balance:a")?;
    tx.rollback_to(point)?;
    tx.commit()?;
    assert_eq!(db.get("key1")?.as_deref(), Some(&b"value1"[..]));

    let mut tx = db.begin()?;
    tx.put("key2", "never")?;
    tx.rollback()?;
    assert_eq!(db.get("key2")?.as_deref(), None);

    // Write skew: both read what the other writes; one must fail.
    let mut first = db.begin()?;
    let mut second = db.begin()?;
    assert!(first.get("skew:b")?.is_none() && second.get("skew:a")?.is_none());
    first.put("skew:a", "1")?;
    second.put("skew:b", "1")?;
    first.commit()?;
    assert_eq!(second.commit().unwrap_err().kind(), ErrorKind::Conflict);

    // A phantom: a range that was read grows.
    let mut reader = db.begin()?;
    assert_eq!(reader.range("p:".."p;").count(), 0);
    reader.put("seen", "none")?;
    db.put("p:1", "new")?;
    assert_eq!(reader.commit().unwrap_err().kind(), ErrorKind::Conflict);

    // Retried until it commits.
    let after: u64 = db.transact(|tx| {
        let now: u64 = tx
            .get("n")?
            .map_or(0, |v| String::from_utf8_lossy(&v).parse().unwrap());
        tx.put("n", (now + 1).to_string())?;
        Ok(now + 1)
    })?;
    assert_eq!(after, 1);
    db.close()
}

#[test]
fn keyspaces_are_separate_and_batches_span_them() -> esker::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path())?;
    let users = db.keyspace("users")?; // created on first use
    let posts = db.keyspace("posts")?;
    let mut batch = WriteBatch::new();
    batch.put_in(&users, "1", "Ada");
    batch.put_in(&posts, "1", "Notes");
    db.write(batch)?;
    assert_eq!(users.get("1")?.as_deref(), Some(&b"Ada"[..]));
    assert_eq!(posts.get("1")?.as_deref(), Some(&b"Notes"[..]));
    assert_eq!(db.get("1")?.as_deref(), None); // the default keyspace
    db.close()?;
    let db = Db::open(dir.path())?;
    assert_eq!(db.keyspace_names()?, ["default", "posts", "users"]);
    assert_eq!(
        db.keyspace("users")?.get("1")?.as_deref(),
        Some(&b"Ada"[..])
    );
    db.drop_keyspace("posts")?;
    assert_eq!(db.keyspace_names()?, ["default", "users"]);
    db.close()
}

#[test]
fn knobs_that_a_load_generator_needs() -> esker::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new()
        .create_if_missing(true)
        .cache_bytes(64 << 20)
        .write_buffer_bytes(4 << 20)
        .compression(Compression::Lz4)
        .filter_bits_per_key(10.0)
        .compaction_shape(CompactionShape::LazyLeveled) // or Leveled, Tiered
        .background_threads(2)
        .default_durability(Durability::Buffered)
        .open(dir.path())?;
    for i in 0..100_000u32 {
        db.put(i.to_be_bytes(), [b'v'; 100])?;
    }
    db.flush()?; // memtables are in tables when it returns
    db.wait_for_background_work()?; // no flush or compaction is due or running
    db.compact_range(1000u32.to_be_bytes()..2000u32.to_be_bytes())?;
    let stats = db.stats();
    assert!(stats.user_bytes_written() > 0 && stats.device_bytes_written() > 0);
    assert_eq!(db.count()?, 100_000);
    db.close()?;

    let reader = Options::new().open_read_only(dir.path())?;
    assert_eq!(reader.count()?, 100_000);
    assert_eq!(
        reader.put("k", "v").unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    reader.close()?;
    let missing = dir.path().join("nowhere");
    assert_eq!(
        Options::new()
            .create_if_missing(false)
            .open(&missing)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    Ok(())
}

#[test]
fn snapshots_and_iterators_can_be_stored_and_sent() -> esker::Result<()> {
    fn owned<T: Send + 'static>(value: T) -> T {
        value
    }
    let db = Options::new().open_in_memory()?;
    db.put("k", "v")?;
    let snapshot = owned(db.snapshot());
    let iterator = owned(snapshot.iter());
    let cursor = owned(db.cursor());
    let handle = std::thread::spawn(move || iterator.count());
    assert_eq!(handle.join().unwrap(), 1);
    drop((snapshot, cursor));
    db.close()
}

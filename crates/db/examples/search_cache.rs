//! A cache of words for a small search engine, kept up to date by a change cursor.
//!
//! The cache lives in memory and is lost with the process; the cursor remembers durably what it has been
//! given, so that nothing that was written meanwhile is missed, and says so where it cannot.
//!
//! `cargo run --example search_cache`

use esker::{ChangeCursor, Db, ErrorKind, Operation, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Which articles have a word.
#[derive(Default)]
struct SearchCache {
    articles: BTreeMap<Vec<u8>, String>,
    by_word: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

impl SearchCache {
    fn put(&mut self, key: &[u8], text: &str) {
        self.delete(key);
        for word in text.split_whitespace() {
            let word = word.to_lowercase();
            self.by_word.entry(word).or_default().insert(key.to_vec());
        }
        self.articles.insert(key.to_vec(), text.to_owned());
    }

    fn delete(&mut self, key: &[u8]) {
        let text = self.articles.remove(key).unwrap_or_default();
        for word in text.split_whitespace() {
            if let Some(keys) = self.by_word.get_mut(&word.to_lowercase()) {
                keys.remove(key);
            }
        }
    }

    fn find(&self, word: &str) -> usize {
        self.by_word.get(word).map_or(0, BTreeSet::len)
    }

    /// Reads all articles, as they are at one moment, and has the cursor go on behind it.
    fn rebuild(&mut self, db: &Db, cursor: &ChangeCursor) -> Result<()> {
        let snapshot = db.snapshot();
        *self = Self::default();
        for entry in snapshot.iter() {
            let (key, text) = entry?;
            self.put(&key, &String::from_utf8_lossy(&text));
        }
        cursor.acknowledge(snapshot.sequence())
    }

    /// Takes in what has changed; says how many batches that were.
    fn catch_up(&mut self, db: &Db, cursor: &ChangeCursor) -> Result<u64> {
        let mut batches = 0;
        for batch in cursor.changes()? {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) if matches!(error.kind(), ErrorKind::Lagged | ErrorKind::Gap) => {
                    println!("something is missing, so the cache is made anew: {error}");
                    self.rebuild(db, cursor)?;
                    return Ok(batches);
                }
                Err(error) => return Err(error),
            };
            for change in batch.changes() {
                match change.operation() {
                    Operation::Put { key, value } => {
                        self.put(key, &String::from_utf8_lossy(value));
                    }
                    Operation::Delete { key } => self.delete(key),
                    other => println!("articles are only put and deleted, not {other:?}"),
                }
            }
            batches += 1;
            // The cache is in memory: what has been taken in need not come again in this life.
            cursor.acknowledge(batch.last_sequence())?;
        }
        Ok(batches)
    }
}

fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("esker-search-{}", std::process::id()));
    let db = Db::open(&directory)?;
    db.put("article:1", "LSM trees write fast")?;
    db.put("article:2", "B trees read fast")?;

    // The first time, everything is read; from then on only what changes.
    let mut cache = SearchCache::default();
    let cursor = db.create_change_cursor("search")?;
    cache.rebuild(&db, &cursor)?;
    assert_eq!((cache.find("trees"), cache.find("fast")), (2, 2));

    db.put("article:2", "B trees are everywhere")?;
    db.delete("article:1")?;
    db.put("article:3", "Fast trees are rare")?;
    // The log is emptied; what the cursor has not seen is kept for it.
    db.wal().clear()?;
    println!("caught up with {} batches", cache.catch_up(&db, &cursor)?);
    assert_eq!((cache.find("trees"), cache.find("fast")), (2, 1));

    // What comes next, with a wait instead of a look from time to time.
    let changes = cursor.changes()?;
    let writer = std::thread::spawn({
        let db = db.clone();
        move || db.put("article:4", "a slow news day")
    });
    while !changes.wait(std::time::Duration::from_secs(60))? {}
    cache.catch_up(&db, &cursor)?;
    writer.join().expect("the writer ends well")?;
    assert_eq!(cache.find("news"), 1);
    for info in db.change_cursors()? {
        println!("cursor {} is at {}", info.name(), info.acknowledged());
    }
    db.delete_change_cursor("search")?;
    drop(changes);
    db.close()?;
    std::fs::remove_dir_all(&directory).expect("the example cleans up");
    Ok(())
}

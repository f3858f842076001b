//! The typed layer: keys in their order, values of any serializable type, and errors that name the
//! key where stored bytes are something else.
#![allow(clippy::unwrap_used)]

use esker::{Db, ErrorKind, Options, WriteBatch};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Book {
    title: String,
    pages: Option<u32>,
    tags: Vec<String>,
}

fn book(title: &str, pages: u32) -> Book {
    Book {
        title: title.into(),
        pages: Some(pages),
        tags: vec!["paper".into()],
    }
}

fn in_memory() -> Db {
    Options::new().open_in_memory().unwrap()
}

#[test]
fn entries_come_back_in_the_order_of_their_keys() {
    let db = in_memory();
    // By shelf, the newest first, negative shelves below.
    let shelf = db
        .typed_keyspace::<(i32, Reverse<u64>), Book>("shelf")
        .unwrap();
    for (place, year) in [(2, 1999), (-1, 1850), (2, 2020), (10, 1), (-1, 1900)] {
        let key = (place, Reverse(year));
        shelf
            .put(&key, &book(&format!("{place}/{year}"), 7))
            .unwrap();
    }
    let titles = |entries: esker::TypedEntries<(i32, Reverse<u64>), Book>| -> Vec<String> {
        entries.map(|entry| entry.unwrap().1.title).collect()
    };
    let all = ["-1/1900", "-1/1850", "2/2020", "2/1999", "10/1"];
    assert_eq!(titles(shelf.iter()), all);
    assert_eq!(titles(shelf.prefix(&(2,))), all[2..4]);
    assert_eq!(
        titles(shelf.range((-1, Reverse(1850))..(10, Reverse(5)))),
        all[1..4]
    );
    let last = shelf.iter().next_back().unwrap().unwrap();
    assert_eq!(last, ((10, Reverse(1)), book("10/1", 7)));
    assert_eq!(shelf.count().unwrap(), 5);
    shelf.delete_prefix(&(2,)).unwrap();
    assert_eq!(titles(shelf.iter()), ["-1/1900", "-1/1850", "10/1"]);
    let got = shelf
        .multi_get([&(-1, Reverse(1900)), &(0, Reverse(0))])
        .unwrap();
    assert_eq!(got, [Some(book("-1/1900", 7)), None]);
}

#[test]
fn batches_snapshots_and_transactions_have_typed_forms() {
    let db = in_memory();
    let books = db.typed_keyspace::<String, Book>("books").unwrap();
    let loans = db.typed_keyspace::<(String, u32), bool>("loans").unwrap();
    let mut batch = WriteBatch::new();
    books
        .batch(&mut batch)
        .put(&"a".into(), &book("A", 1))
        .unwrap();
    loans
        .batch(&mut batch)
        .put(&("ada".into(), 1), &true)
        .unwrap();
    loans
        .batch(&mut batch)
        .put_with_ttl(&("ada".into(), 2), &true, Duration::from_secs(60))
        .unwrap();
    db.write(batch).unwrap();
    let snapshot = db.snapshot();

    let mut tx = db.begin().unwrap();
    books.within(&mut tx).delete("a").unwrap();
    books
        .within(&mut tx)
        .put(&"b".into(), &book("B", 2))
        .unwrap();
    assert_eq!(books.within(&mut tx).get("a").unwrap(), None);
    assert_eq!(loans.within(&mut tx).prefix(&("ada",)).count(), 2);
    assert_eq!(books.get("a").unwrap(), Some(book("A", 1)));
    tx.commit().unwrap();

    assert_eq!(books.get("a").unwrap(), None);
    assert_eq!(books.at(&snapshot).get("a").unwrap(), Some(book("A", 1)));
    assert_eq!(books.at(&snapshot).iter().count(), 1);
    assert!(loans.ttl(&("ada".to_string(), 2)).unwrap().is_some());
    assert!(loans.persist(&("ada".to_string(), 2)).unwrap());
    assert!(!books.contains_key("a").unwrap());
}

#[test]
fn what_is_no_such_value_is_corruption_that_names_the_key() {
    let db = in_memory();
    let raw = db.keyspace("books").unwrap();
    let books = raw.typed::<(String, u8), Book>();
    let key = ("ada".to_string(), 7);
    books.put(&key, &book("A", 1)).unwrap();
    let stored = raw.get(esker::tuple::encode(&key)).unwrap().unwrap();

    let cut = &stored[..stored.len() - 1];
    let longer = [&stored[..], b"x"].concat();
    for (value, sentence) in [(cut, "is no"), (&longer[..], "1 bytes are left over")] {
        raw.put(esker::tuple::encode(&key), value).unwrap();
        for error in [
            books.get(&key).unwrap_err(),
            books.iter().next().unwrap().unwrap_err(),
            books.multi_get([&key]).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corruption);
            let text = error.to_string();
            assert!(text.contains(sentence), "{text}");
            assert!(text.contains("String(\"ada\"), Int(7)"), "{text}");
            assert!(text.contains("\"books\""), "{text}");
        }
    }
    raw.clear().unwrap();
    raw.put("plain bytes", "x").unwrap();
    let mut entries = books.iter();
    let error = entries.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("plain bytes"), "{error}");
    assert!(entries.next().is_none(), "an iterator ends after an error");
}

//! Queries against a list that is filtered, sorted and cut by hand: every path, order and page.
#![allow(clippy::unwrap_used)]

use esker::tuple::{decode, range};
use esker::vfs::{MemFileSystem, OperationKind, TraceFileSystem};
use esker::{
    Compression, Continuation, Db, ErrorKind, IndexDefinition, Keyspace, MAX_SORTED_ROWS, Options,
    Query,
};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

/// Values are (group, size): an index over both, sizes descending.
fn by_group() -> IndexDefinition {
    IndexDefinition::new("by_group", 1, |_key, value, keys| {
        let (group, size): (u8, i32) = decode(value)?;
        keys.add(&(group, Reverse(size)));
        Ok(())
    })
}

type Item = (u16, u8, i32);

fn filled(items: &[Item]) -> (Db, Keyspace) {
    let options = Options::new().write_buffer_bytes(8 << 10);
    let db = options.index("items", by_group()).open_in_memory().unwrap();
    let keyspace = db.keyspace("items").unwrap();
    for (key, group, size) in items {
        let value = esker::tuple::encode(&(*group, *size));
        keyspace.put(key.to_be_bytes(), value).unwrap();
    }
    (db, keyspace)
}

fn keys(query: Query<'_>) -> Vec<u16> {
    let rows = query.rows().unwrap();
    rows.map(|row| u16::from_be_bytes(row.unwrap().key().try_into().unwrap()))
        .collect()
}

/// All keys of a query, three rows a page, with the continuation kept as bytes between pages.
fn paged<'a>(query: impl Fn() -> Query<'a>) -> Vec<u16> {
    let (mut all, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let mut page = query().limit(3);
        if let Some(after) = &after {
            page = page.after(Continuation::from_bytes(after).unwrap());
        }
        let mut rows = page.rows().unwrap();
        let before = all.len();
        for row in rows.by_ref() {
            all.push(u16::from_be_bytes(row.unwrap().key().try_into().unwrap()));
        }
        assert!(all.len() - before <= 3);
        match rows.continuation() {
            Some(continuation) => after = Some(continuation.to_bytes()),
            None => return all,
        }
    }
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    proptest::collection::btree_map(0u16..200, (0u8..4, -5i32..5), 0..60).prop_map(|items| {
        let items = items.into_iter();
        items
            .map(|(key, (group, size))| (key, group, size))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn queries_answer_as_a_list_does(
        items in items(), group in 0u8..4, low in -5i32..5, high in -5i32..5,
        from in 0u16..200, to in 0u16..200, descending: bool, limit in 0usize..20, odd: bool,
    ) {
        let (db, keyspace) = filled(&items);
        db.flush().unwrap();
        let turn = |query: Query<'static>| if descending { query.descending() } else { query };
        let expected = |mut found: Vec<(Vec<u8>, u16)>| {
            found.sort();
            if descending {
                found.reverse();
            }
            found.into_iter().map(|(_, key)| key).collect::<Vec<u16>>()
        };
        let in_index = |keep: &dyn Fn(&Item) -> bool| {
            let kept = items.iter().filter(|item| keep(item));
            expected(kept.map(|&(key, group, size)| {
                (esker::tuple::encode(&(group, Reverse(size), &key.to_be_bytes()[..])), key)
            }).collect())
        };
        let by_key = |keep: &dyn Fn(&Item) -> bool| {
            let kept = items.iter().filter(|item| keep(item));
            expected(kept.map(|&(key, ..)| (key.to_be_bytes().to_vec(), key)).collect())
        };

        // Key ranges.
        let in_range = |key: u16| key >= from && key < to;
        let ranged = || turn(Query::new(&keyspace).keys(from.to_be_bytes()..to.to_be_bytes()));
        let answer = by_key(&|item| in_range(item.0));
        prop_assert_eq!(keys(ranged()), answer.clone());
        prop_assert_eq!(paged(ranged), answer.clone());
        prop_assert_eq!(ranged().count().unwrap(), answer.len() as u64);
        let cut: Vec<_> = answer.into_iter().take(limit).collect();
        prop_assert_eq!(keys(ranged().limit(limit)), cut);

        // One index key, the leading part of one, a range of them.
        let equal = || turn(Query::new(&keyspace).index_equal("by_group", &(group, Reverse(low))));
        let answer = in_index(&|item| item.1 == group && item.2 == low);
        prop_assert_eq!(keys(equal()), answer.clone());
        prop_assert_eq!(keys(equal().order_by_key()), answer.clone());
        prop_assert_eq!(paged(|| equal().keys_only()), answer);
        let prefix = || turn(Query::new(&keyspace).index_prefix("by_group", &(group,)));
        let answer = in_index(&|item| item.1 == group);
        prop_assert_eq!(keys(prefix()), answer.clone());
        prop_assert_eq!(paged(prefix), answer);
        let bounds = (group, Reverse(high))..=(group, Reverse(low));
        let ranged = || turn(Query::new(&keyspace).index_range("by_group", bounds.clone()));
        let answer = in_index(&|item| item.1 == group && (low..=high).contains(&item.2));
        prop_assert_eq!(keys(ranged()), answer);

        // A filter, a range of keys on top, and an order that the index does not have.
        let mixed = || turn(
            Query::new(&keyspace)
                .index_prefix("by_group", &())
                .keys(from.to_be_bytes()..to.to_be_bytes())
                .filter(move |key, value| {
                    let (_, size): (u8, i32) = decode(value).unwrap();
                    (size % 2 != 0) == odd && !key.is_empty()
                })
        );
        let holds = |item: &Item| in_range(item.0) && (item.2 % 2 != 0) == odd;
        prop_assert_eq!(keys(mixed()), in_index(&holds));
        prop_assert_eq!(paged(|| mixed().order_by_key()), by_key(&holds));
        let first: Vec<_> = by_key(&holds).into_iter().take(limit).collect();
        prop_assert_eq!(keys(mixed().order_by_key().limit(limit)), first);
        prop_assert_eq!(mixed().count().unwrap(), in_index(&holds).len() as u64);
    }
}

#[test]
fn rows_know_their_index_key_and_projections_what_they_are_asked_for() {
    let (_db, keyspace) = filled(&[(1, 2, 30), (2, 1, 7), (3, 1, 9)]);
    let rows = Query::new(&keyspace)
        .index_prefix("by_group", &())
        .rows()
        .unwrap();
    let index_keys: Vec<(u8, Reverse<i32>)> = rows
        .map(|row| decode(row.unwrap().index_key().unwrap()).unwrap())
        .collect();
    assert_eq!(
        index_keys,
        [(1, Reverse(9)), (1, Reverse(7)), (2, Reverse(30))]
    );
    let sizes = Query::new(&keyspace)
        .project(|_key, value| decode::<(u8, i32)>(value).unwrap().1)
        .unwrap();
    assert_eq!(
        sizes.collect::<esker::Result<Vec<_>>>().unwrap(),
        [30, 7, 9]
    );
    let snapshot_before = _db.snapshot();
    keyspace.clear().unwrap();
    assert_eq!(Query::new(&keyspace).count().unwrap(), 0);
    let then = Query::at(&keyspace, &snapshot_before).index_prefix("by_group", &(1u8,));
    assert_eq!(keys(then), [3, 2]);
}

#[test]
fn what_a_query_cannot_do_it_refuses() {
    let (_db, keyspace) = filled(&[(1, 2, 30), (2, 1, 7), (3, 1, 9)]);
    let all = || Query::new(&keyspace).index_prefix("by_group", &());
    let refused = |query: Query<'_>| query.rows().unwrap_err();
    assert_eq!(
        refused(all().order_by_key()).kind(),
        ErrorKind::InvalidArgument
    );
    let too_many = all().order_by_key().limit(MAX_SORTED_ROWS + 1);
    assert_eq!(refused(too_many).kind(), ErrorKind::InvalidArgument);
    let unknown = Query::new(&keyspace).index_equal("by_colour", "red");
    assert_eq!(refused(unknown).kind(), ErrorKind::NotFound);

    let mut page = all().limit(1).rows().unwrap();
    assert!(page.continuation().is_none());
    page.next().unwrap().unwrap();
    let continuation = page.continuation().unwrap();
    for other in [
        Query::new(&keyspace),
        all().descending(),
        Query::new(&keyspace).index_prefix("by_group", &(1u8,)),
        all().keys(range(&(..5u8))),
    ] {
        let error = refused(other.after(continuation.clone()));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(keys(all().after(continuation)).len(), 2);
}

#[test]
fn plans_tell_the_blocks_of_the_tables() {
    let (db, keyspace) = filled(&many());
    db.compact().unwrap();
    db.wait_for_background_work().unwrap();
    let everything = Query::new(&keyspace).plan().unwrap();
    assert_eq!(everything.index(), None);
    assert_eq!(everything.scanned_entries(), 4000);
    let blocks = everything.scanned_blocks();
    assert!(blocks > 10, "{everything}");
    let tenth = Query::new(&keyspace).keys(400u16.to_be_bytes()..800u16.to_be_bytes());
    let tenth = tenth.plan().unwrap();
    let about = blocks / 10;
    assert!(
        (about..=about + 3).contains(&tenth.scanned_blocks()),
        "{tenth} of {everything}"
    );

    let by_index = Query::new(&keyspace).index_equal("by_group", &(3u8, Reverse(3999i32)));
    let by_index = by_index.limit(5).plan().unwrap();
    assert_eq!(by_index.index(), Some("by_group"));
    assert!(by_index.scanned_blocks() <= 2, "{by_index}");
    assert!(by_index.lookup_blocks_at_most() <= 5, "{by_index}");
    let sorted = Query::new(&keyspace).index_prefix("by_group", &(3u8,));
    let sorted = sorted.order_by_key().limit(10).plan().unwrap();
    assert!(sorted.is_sorted());
    assert!(
        sorted.to_string().contains("sort by key, keeping 10 rows"),
        "{sorted}"
    );
}

fn many() -> Vec<Item> {
    (0..4000u16)
        .map(|i| (i, (i % 4) as u8, i32::from(i)))
        .collect()
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

/// What an explanation says was read is what the file system was asked for, and nothing a second time.
#[test]
fn explanations_count_the_blocks_that_were_read() {
    let traced = Arc::new(TraceFileSystem::new(Arc::new(MemFileSystem::new())));
    let table_reads = || {
        let entries = traced.entries();
        let operations = entries.iter().map(|entry| &entry.operation);
        let of_tables = operations.filter(|o| o.kind == OperationKind::Read && is_table(&o.path));
        of_tables.count() as u64
    };
    let options = Options::new()
        .file_system(traced.clone())
        .compression(Compression::None)
        .cache_bytes(8 << 20);
    let options = options.index("items", by_group());
    let fill = |db: &Db| {
        let keyspace = db.keyspace("items").unwrap();
        for (key, group, size) in many() {
            let value = esker::tuple::encode(&(group, size));
            keyspace.put(key.to_be_bytes(), value).unwrap();
        }
        db.compact().unwrap();
        db.close().unwrap();
    };
    fill(&options.clone().open("/db").unwrap());
    let db = options.open("/db").unwrap();
    let keyspace = db.keyspace("items").unwrap();
    let blocks = Query::new(&keyspace).plan().unwrap().scanned_blocks();
    let point = || Query::new(&keyspace).keys(7u16.to_be_bytes()..=7u16.to_be_bytes());

    // Cold: one block, by one read of the file; warm: the same block, and no read.
    for (cached, loaded) in [(0, 1), (1, 0)] {
        traced.clear();
        let found = point().explain().unwrap();
        let counted = (found.blocks_from_cache(), found.blocks_from_disk());
        assert_eq!(counted, (cached, loaded), "{found}");
        assert_eq!((found.rows(), found.entries()), (1, 1), "{found}");
        assert_eq!(table_reads(), loaded, "{found}");
    }
    // The rest of the keyspace: every block once, but for the one that is cached.
    let scanned = Query::new(&keyspace).explain().unwrap();
    let counted = (scanned.blocks_from_cache(), scanned.blocks_from_disk());
    assert_eq!(counted, (1, blocks - 1), "{scanned}");
    assert_eq!((scanned.rows(), scanned.lookups()), (4000, 0), "{scanned}");

    // By an index with a limit: only what five rows take.
    let mut largest = Query::new(&keyspace)
        .index_prefix("by_group", &(3u8,))
        .limit(5);
    let first = largest.explain().unwrap();
    assert_eq!((first.entries(), first.lookups(), first.rows()), (5, 5, 5));
    assert_eq!(first.index(), Some("by_group"));
    assert!((1..=2).contains(&first.blocks_from_disk()), "{first}");
    assert_eq!(
        first.blocks_from_cache(),
        5,
        "each record was looked up: {first}"
    );
    let again = largest.explain().unwrap();
    assert_eq!(again.blocks_from_disk(), 0, "{again}");
    assert_eq!(again.blocks(), first.blocks(), "{again}");
    // It can be run after it was explained, and its filter was no part of it.
    assert_eq!(keys(largest), [3999, 3995, 3991, 3987, 3983]);
    let mut filtered = Query::new(&keyspace).limit(1).filter(|_, _| {
        keyspace.get(3999u16.to_be_bytes()).unwrap();
        true
    });
    assert_eq!(filtered.explain().unwrap().blocks(), 1);

    // In a transaction it reads what the transaction sees, and records in memory take no block.
    let mut tx = db.begin().unwrap();
    let key = 9999u16.to_be_bytes();
    let value = esker::tuple::encode(&(9u8, 1i32));
    tx.put_in(&keyspace, key, &value).unwrap();
    let own = Query::within(&keyspace, &mut tx).keys(key..=key).explain();
    let own = own.unwrap();
    assert_eq!((own.rows(), own.blocks()), (1, 0), "{own}");
    let said = own.to_string();
    assert!(
        said.contains("1 rows out of 0 blocks, 0 cached and 0 read from disk"),
        "{said}"
    );
}

//! Tables that reads have missed many blocks of: fetched into the system's cache, and then loaded.

use super::*;

fn shelf_with_table(cache_bytes: usize) -> (Shelf, Arc<Table>, Vec<Record>) {
    let options = TableOptions {
        block_bytes: 256,
        index_partition_bytes: 2_000,
        ..TableOptions::default()
    };
    let records = numbered(6_000, 50);
    let shelf = Shelf::new(cache_bytes);
    let meta = shelf.write(1, &options, &records);
    let table = shelf.open(&meta).unwrap();
    (shelf, table, records)
}

/// Reads every tenth record from `read` on until warming is due; where it came to.
fn read_until_due(table: &Table, records: &[Record], mut read: usize) -> usize {
    while !table.wants_warming() {
        assert!(get(table, &records[read].0, 1 << 50).is_some());
        read += 10;
    }
    read
}

#[test]
fn a_table_that_is_missed_often_is_fetched_and_then_loaded_once_each() {
    let (shelf, table, records) = shelf_with_table(8 << 20);
    let blocks = table.properties().data_blocks;
    assert!(blocks > 400);
    table.warm_up(|| true).unwrap();
    assert_eq!(
        shelf.blocks.fetched_bytes(),
        0,
        "nobody has missed anything"
    );

    let read = read_until_due(&table, &records, 0);
    assert!((64..=100).contains(&shelf.blocks.misses()));
    let used = shelf.blocks.used_bytes();
    table.warm_up(|| true).unwrap();
    let data_bytes = table.properties().data_bytes as usize;
    assert_eq!(shelf.blocks.fetched_bytes(), data_bytes);
    assert_eq!(
        shelf.blocks.used_bytes(),
        used,
        "it takes none of our memory"
    );
    assert!(!table.wants_warming());

    read_until_due(&table, &records, read);
    let misses = shelf.blocks.misses();
    assert!((blocks / 4..=blocks / 4 + 20).contains(&misses));
    table.warm_up(|| true).unwrap();
    assert_eq!(shelf.blocks.fetched_bytes(), data_bytes);
    for (key, _, stored) in &records {
        assert_eq!(&get(&table, key, 1 << 50).unwrap().1, stored);
    }
    assert_eq!(shelf.blocks.misses(), misses);
    assert!(!table.wants_warming());
    drop(table);
    assert_eq!(shelf.blocks.fetched_bytes(), 0);
}

#[test]
fn a_table_that_is_told_to_stop_is_not_asked_again() {
    let (shelf, table, records) = shelf_with_table(8 << 20);
    let mut read = 0;
    for _ in 0..2 {
        read = read_until_due(&table, &records, read);
        let used = shelf.blocks.used_bytes();
        table.warm_up(|| false).unwrap();
        assert!(!table.wants_warming());
        assert_eq!(shelf.blocks.used_bytes(), used);
        assert_eq!(shelf.blocks.fetched_bytes(), 0);
    }
}

#[test]
fn what_is_fetched_is_no_more_than_twice_what_the_cache_may_hold() {
    let (shelf, table, records) = shelf_with_table(1 << 20);
    let data_bytes = table.properties().data_bytes as usize;
    read_until_due(&table, &records, 0);
    shelf.blocks.set_capacity_bytes((data_bytes - 1) / 2);
    table.warm_up(|| true).unwrap();
    let whole_pieces = data_bytes / (128 << 10) * (128 << 10);
    assert_eq!(shelf.blocks.fetched_bytes(), whole_pieces);
}

#[test]
fn what_is_loaded_takes_free_room_only() {
    let (shelf, table, records) = shelf_with_table(8 << 20);
    let read = read_until_due(&table, &records, 0);
    table.warm_up(|| true).unwrap();
    read_until_due(&table, &records, read);
    let capacity = shelf.blocks.used_bytes() + 20_000;
    shelf.blocks.set_capacity_bytes(capacity);
    let (first, misses) = (&records[0].0, shelf.blocks.misses());
    table.warm_up(|| true).unwrap();
    assert!((capacity - 5_000..=capacity).contains(&shelf.blocks.used_bytes()));
    assert_eq!(shelf.blocks.evictions(), 0);
    assert!(get(&table, first, 1 << 50).is_some());
    assert_eq!(
        shelf.blocks.misses(),
        misses,
        "what was read is still there"
    );
}

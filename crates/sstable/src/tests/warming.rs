//! Tables whose rest is loaded once reads have missed enough of it.

use super::*;

fn shelf_with_table(cache_bytes: usize) -> (Shelf, Arc<Table>, Vec<Record>) {
    let options = TableOptions {
        block_bytes: 256,
        index_partition_bytes: 2_000,
        ..TableOptions::default()
    };
    let records = numbered(3_000, 50);
    let shelf = Shelf::new(cache_bytes);
    let meta = shelf.write(1, &options, &records);
    let table = shelf.open(&meta).unwrap();
    (shelf, table, records)
}

#[test]
fn a_table_that_is_missed_often_is_loaded_once() {
    let (shelf, table, records) = shelf_with_table(8 << 20);
    assert!(table.properties().data_blocks > 200);
    let mut read = 0;
    while !table.wants_warming() {
        assert!(get(&table, &records[read].0, 1 << 50).is_some());
        read += 10;
    }
    assert!((64..=100).contains(&shelf.blocks.misses()));

    table.warm_up(|| false).unwrap();
    assert!(!table.wants_warming(), "told to stop, and not asked again");
    assert!((64..=100).contains(&shelf.blocks.misses()));

    let (shelf, table, records) = shelf_with_table(8 << 20);
    table.warm_up(|| true).unwrap();
    for (key, _, stored) in &records {
        assert_eq!(&get(&table, key, 1 << 50).unwrap().1, stored);
    }
    assert_eq!(shelf.blocks.misses(), 0);
}

#[test]
fn what_is_loaded_takes_free_room_only() {
    let (shelf, table, records) = shelf_with_table(20_000);
    let (first, _, _) = &records[0];
    assert!(get(&table, first, 1 << 50).is_some());
    table.warm_up(|| true).unwrap();
    assert!((15_000..=20_000).contains(&shelf.blocks.used_bytes()));
    assert_eq!(shelf.blocks.evictions(), 0);
    assert!(get(&table, first, 1 << 50).is_some());
    assert_eq!(shelf.blocks.misses(), 1, "what was read is still there");
}

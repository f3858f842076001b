//! Blocks that a writer keeps for the table it writes.

use super::*;

fn write(shelf: &Shelf, number: u64, options: &TableOptions) -> (TableMeta, NewBlocks) {
    let path = shelf.path(number);
    let mut writer = TableWriter::create(&shelf.fs, &path, number, options).unwrap();
    writer.keep_blocks(&shelf.blocks);
    for (key, trailer, stored) in numbered(500, 50) {
        writer.add(&key, trailer, &stored).unwrap();
    }
    let (meta, blocks) = writer.finish_with_blocks(0).unwrap();
    (meta, blocks.unwrap())
}

fn small_blocks(layout: BlockLayoutChoice, index_partition_bytes: usize) -> TableOptions {
    TableOptions {
        block_bytes: 256,
        layout,
        index_partition_bytes,
        ..TableOptions::default()
    }
}

#[test]
fn a_table_that_takes_them_over_reads_none() {
    for layout in [BlockLayoutChoice::Slot, BlockLayoutChoice::Restart] {
        for index_partition_bytes in [1 << 20, 100] {
            let shelf = Shelf::new(1 << 20);
            shelf.blocks.expect_reads();
            let (meta, blocks) = write(&shelf, 1, &small_blocks(layout, index_partition_bytes));
            let kept_bytes = shelf.blocks.used_bytes();
            let table = shelf.open(&meta).unwrap();
            table.adopt(blocks).unwrap();
            assert_eq!(shelf.blocks.used_bytes(), kept_bytes);
            let records = numbered(500, 50);
            for (key, _, stored) in &records {
                assert_eq!(&get(&table, key, 1 << 50).unwrap().1, stored);
            }
            let mut iter = TableIter::over(Arc::clone(&table), FillCache::Yes);
            assert_eq!(collect(&mut iter), records);
            assert_eq!(shelf.blocks.misses(), 0);
            drop((iter, table));
            assert_eq!(shelf.blocks.used_bytes(), 0);
        }
    }
}

#[test]
fn they_take_free_room_only_and_give_it_back() {
    let layout = BlockLayoutChoice::Auto;
    let shelf = Shelf::new(4_000);
    shelf.blocks.expect_reads();
    let options = small_blocks(layout, 1 << 20);
    let first = shelf
        .open(&shelf.write(1, &options, &numbered(20, 50)))
        .unwrap();
    for (key, _, _) in numbered(20, 50) {
        assert!(get(&first, &key, 1 << 50).is_some());
    }
    let (read, misses) = (shelf.blocks.used_bytes(), shelf.blocks.misses());

    let (meta, blocks) = write(&shelf, 2, &options);
    assert!((read + 1..=4_000).contains(&shelf.blocks.used_bytes()));
    drop(blocks);
    assert_eq!(shelf.blocks.used_bytes(), read, "nobody took them over");

    let (_, blocks) = write(&shelf, 3, &options);
    let other = shelf
        .open(&shelf.write(4, &options, &numbered(20, 50)))
        .unwrap();
    other.adopt(blocks).unwrap();
    assert_eq!(shelf.blocks.used_bytes(), read, "they are another table's");

    let (_, blocks) = write(&shelf, 5, &options);
    shelf.blocks.set_capacity_bytes(read);
    let table = shelf.open(&meta).unwrap();
    table.adopt(blocks).unwrap();
    assert!(
        shelf.blocks.used_bytes() <= read,
        "less room than when they were kept"
    );

    shelf.blocks.set_capacity_bytes(1 << 20);
    for (key, _, stored) in numbered(500, 50) {
        assert_eq!(get(&table, &key, 1 << 50).unwrap().1, stored);
    }
    assert!(shelf.blocks.misses() > misses);
}

#[test]
fn they_take_no_more_than_reads_have_had_use_for() {
    let shelf = Shelf::new(1 << 20);
    let options = small_blocks(BlockLayoutChoice::Auto, 1 << 20);
    let (meta, blocks) = write(&shelf, 1, &options);
    assert_eq!(shelf.blocks.used_bytes(), 0, "nobody has read anything");
    let table = shelf.open(&meta).unwrap();
    table.adopt(blocks).unwrap();
    for (key, _, _) in numbered(100, 50) {
        assert!(get(&table, &key, 1 << 50).is_some());
    }
    let read = shelf.blocks.used_bytes();
    assert!(read > 0);
    let (_, blocks) = write(&shelf, 2, &options);
    assert_eq!(shelf.blocks.used_bytes(), read, "what was read is there");
    drop((blocks, table));
    let (_, blocks) = write(&shelf, 3, &options);
    let kept = shelf.blocks.used_bytes();
    assert!(
        kept > read / 2 && kept <= read,
        "{kept} in the place of {read}"
    );
    drop(blocks);
    shelf.blocks.expect_reads();
    let (_, blocks) = write(&shelf, 4, &options);
    assert!(shelf.blocks.used_bytes() > read);
    drop(blocks);
}

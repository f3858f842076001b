//! Records that a writer takes over from another table as they are stored there.

use esker_base::ErrorKind;
use proptest::prelude::*;

use super::*;

/// Writes what `source` holds into table `number`: as it is stored where that can be had, or record by record.
fn copy(
    shelf: &Shelf,
    number: u64,
    options: &TableOptions,
    source: &Arc<Table>,
    as_stored: bool,
) -> (TableMeta, NewBlocks) {
    let path = shelf.path(number);
    let mut writer = TableWriter::create(&shelf.fs, &path, number, options).unwrap();
    writer.keep_blocks(&shelf.blocks);
    let mut iter = TableIter::over(Arc::clone(source), FillCache::No);
    iter.seek_to_first().unwrap();
    while iter.valid() {
        let stored = if as_stored {
            // Where the file is damaged, the record in memory is written instead.
            iter.stored_record().unwrap_or_default()
        } else {
            None
        };
        match stored {
            Some(record) => writer.add_stored(&record).unwrap(),
            None => {
                let (key, trailer) = (iter.user_key().to_vec(), iter.trailer());
                writer.add(&key, trailer, iter.value()).unwrap();
            }
        }
        iter.next().unwrap();
    }
    let (meta, blocks) = writer.finish_with_blocks(0).unwrap();
    (meta, blocks.unwrap())
}

/// Values of which each fills a block of the usual size alone.
fn large() -> Vec<Record> {
    let record = |index: u64| {
        let value = index.to_le_bytes().repeat(700 + index as usize);
        let trailer = Trailer::new(index + 1, ValueKind::Value);
        (format!("key{index:04}").into_bytes(), trailer, value)
    };
    (0..40).map(record).collect()
}

fn restart_blocks(table: &Table) -> usize {
    let summaries = table.block_summaries().unwrap();
    let is_restart = |it: &&BlockSummary| it.kind == BlockKind::RestartData;
    summaries.iter().filter(is_restart).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_copy_is_the_same_to_the_byte_however_its_blocks_came(
        records in model::records(),
        options in model::options(),
        other in model::options(),
        same_options: bool,
        cached in 0usize..4,
    ) {
        // The layout of a block that is taken over is that of its table.
        let target = TableOptions { layout: options.layout, ..other };
        let target = if same_options { options.clone() } else { target };
        let shelf = Shelf::new(1 << 20);
        shelf.blocks.expect_reads();
        let source = shelf.open(&shelf.write(1, &options, &records)).unwrap();
        for (key, _, _) in records.iter().step_by(cached + 1).take(cached * 30) {
            let _ = get(&source, key, 1 << 50);
        }
        let (plain, _) = copy(&shelf, 2, &target, &source, false);
        let expected = shelf.contents(2);
        shelf.fs.remove_file(&shelf.path(2)).unwrap();
        let (meta, blocks) = copy(&shelf, 2, &target, &source, true);
        prop_assert_eq!(&meta, &plain);
        prop_assert!(shelf.contents(2) == expected);
        let table = shelf.open(&meta).unwrap();
        table.adopt(blocks).unwrap();
        prop_assert_eq!(collect(&mut TableIter::over(Arc::clone(&table), FillCache::Yes)), records);
        table.verify_against(&meta, &mut |_| true).unwrap();
    }
}

#[test]
fn what_fills_a_block_alone_is_taken_over_where_the_compression_asked_for_is_the_same() {
    let restart = TableOptions {
        layout: BlockLayoutChoice::Restart,
        ..TableOptions::default()
    };
    let slot = TableOptions::default();
    let wider = TableOptions {
        block_bytes: 1 << 20,
        ..TableOptions::default()
    };
    let plain = TableOptions {
        compression: Compression::None,
        ..TableOptions::default()
    };
    for (target, taken_over) in [(slot, 40), (wider, 0), (plain, 0)] {
        let shelf = Shelf::new(1 << 20);
        let source = shelf.open(&shelf.write(1, &restart, &large())).unwrap();
        let (meta, _) = copy(&shelf, 2, &target, &source, true);
        let table = shelf.open(&meta).unwrap();
        assert_eq!(restart_blocks(&table), taken_over, "{target:?}");
        let mut iter = TableIter::over(table, FillCache::No);
        assert_eq!(collect(&mut iter), large());
    }
}

/// The story: a merge kept the blocks that it handed on in what the cache had free, as if they took memory once more,
/// so that of 148 MiB of hot blocks in a cache of 256 MiB a quarter was read again behind it.
#[test]
fn cached_blocks_that_are_taken_over_stay_cached_and_count_once() {
    let options = TableOptions::default();
    let shelf = Shelf::new(40 * 8192);
    let source = shelf.open(&shelf.write(1, &options, &large())).unwrap();
    let read_all = |table: &Table| {
        let before = shelf.blocks.misses();
        for (key, _, value) in large() {
            let found = get(table, &key, 1 << 50);
            assert!(found.is_some_and(|(_, found)| found == value));
        }
        shelf.blocks.misses() - before
    };
    assert_eq!(read_all(&source), 40);
    let cached = shelf.blocks.used_bytes();
    assert!(2 * cached > shelf.blocks.capacity_bytes());
    let (meta, blocks) = copy(&shelf, 2, &options, &source, true);
    assert_eq!(shelf.blocks.used_bytes(), cached);
    let table = shelf.open(&meta).unwrap();
    table.adopt(blocks).unwrap();
    assert_eq!((read_all(&table), read_all(&source)), (0, 0));
    assert_eq!(shelf.blocks.used_bytes(), cached, "each counts once");
    drop(source);
    assert_eq!((read_all(&table), shelf.blocks.used_bytes()), (0, cached));
    drop(table);
    assert_eq!(shelf.blocks.used_bytes(), 0);
}

#[test]
fn what_stands_under_another_number_than_it_shows_is_written_anew() {
    let shelf = Shelf::new(1 << 20);
    let ingested = |(key, _, value)| (key, Trailer::new(0, ValueKind::Value), value);
    let records: Vec<Record> = large().into_iter().map(ingested).collect();
    let mut meta = shelf.write(1, &TableOptions::default(), &records);
    (meta.smallest_sequence, meta.largest_sequence) = (77, 77);
    meta.ingested_sequence = 77;
    let source = shelf.open(&meta).unwrap();
    let mut iter = TableIter::over(Arc::clone(&source), FillCache::No);
    iter.seek_to_first().unwrap();
    assert_eq!(iter.trailer().sequence(), 77);
    assert!(iter.stored_record().unwrap().is_none());
}

#[test]
fn a_record_in_memory_is_not_lost_with_the_file_under_it() {
    let shelf = Shelf::new(1 << 20);
    let source = shelf
        .open(&shelf.write(1, &TableOptions::default(), &large()))
        .unwrap();
    for (key, _, _) in large() {
        assert!(get(&source, &key, 1 << 50).is_some());
    }
    let mut damaged = shelf.contents(1);
    damaged.iter_mut().for_each(|byte| *byte ^= 0x55);
    shelf
        .fs
        .open_write(&shelf.path(1))
        .unwrap()
        .write_at(0, &damaged)
        .unwrap();
    let mut iter = TableIter::over(Arc::clone(&source), FillCache::No);
    iter.seek_to_first().unwrap();
    let error = iter.stored_record().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(
        error
            .to_string()
            .contains(&*shelf.path(1).to_string_lossy())
    );
    let (meta, _) = copy(&shelf, 2, &TableOptions::default(), &source, true);
    let table = shelf.open(&meta).unwrap();
    let mut iter = TableIter::over(table, FillCache::No);
    assert_eq!(collect(&mut iter), large());
}

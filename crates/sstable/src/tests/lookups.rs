//! Lookups and descriptions of tables whose shape is chosen.

use esker_base::ErrorKind;
use esker_base::key_bounds::KeyBounds;

use super::*;

fn small_blocks() -> TableOptions {
    TableOptions {
        block_bytes: 256,
        ..TableOptions::default()
    }
}

#[test]
fn one_key_may_have_versions_in_many_blocks() {
    let mut records = vec![(b"before".to_vec(), value(20_000), b"b".to_vec())];
    for sequence in (1..=10_000).rev() {
        records.push((
            b"key".to_vec(),
            value(sequence),
            sequence.to_string().into_bytes(),
        ));
    }
    records.push((b"key\0".to_vec(), value(5), b"after".to_vec()));
    for layout in [BlockLayoutChoice::Slot, BlockLayoutChoice::Restart] {
        for index_partition_bytes in [1 << 20, 100] {
            let options = TableOptions {
                layout,
                index_partition_bytes,
                ..small_blocks()
            };
            let shelf = Shelf::new(1 << 20);
            let meta = shelf.write(1, &options, &records);
            let table = shelf.open(&meta).unwrap();
            assert!(table.properties().data_blocks > 300);
            assert_eq!(table.properties().distinct_keys, 3);
            table.verify_against(&meta, &mut |_| true).unwrap();
            for visible in (1..=10_000)
                .step_by(7)
                .chain([1, 2, 9_999, 10_000, 10_001, 1 << 50])
            {
                let (trailer, stored) = get(&table, b"key", visible).unwrap();
                assert_eq!(trailer.sequence(), visible.min(10_000));
                assert_eq!(stored, visible.min(10_000).to_string().into_bytes());
            }
            assert_eq!(get(&table, b"key", 0), None);
            assert_eq!(get(&table, b"ke", 1 << 50), None);
            assert_eq!(get(&table, b"key\0", 10).unwrap().1, b"after");
            let mut iter = TableIter::over(Arc::clone(&table), FillCache::Yes);
            for sequence in (1..=10_000).step_by(611) {
                iter.seek(b"key", Trailer::seek(sequence)).unwrap();
                assert_eq!(iter.trailer(), value(sequence));
                iter.seek_for_prev(b"key", Trailer::seek(sequence)).unwrap();
                let newer = records
                    .iter()
                    .rfind(|r| r.0 == b"key" && r.1.sequence() > sequence);
                assert_eq!(iter.trailer(), newer.map_or(value(20_000), |r| r.1));
            }
            iter.seek(b"key", Trailer::seek(0)).unwrap();
            assert_eq!(iter.user_key(), b"key\0");
            assert!(table.block_boundaries(1000).len() <= 3);
        }
    }
}

#[test]
fn a_lookup_reads_one_block_even_among_thousands_of_versions() {
    let records: Vec<Record> = (1..=5000)
        .rev()
        .map(|sequence| (b"key".to_vec(), value(sequence), vec![7; 20]))
        .collect();
    let shelf = Shelf::new(0);
    let table = shelf
        .open(&shelf.write(1, &small_blocks(), &records))
        .unwrap();
    for (lookups, visible) in [1, 17, 2500, 4999, 5000].into_iter().enumerate() {
        assert!(
            table
                .get(b"key", key_hash(b"key"), visible)
                .unwrap()
                .is_some()
        );
        assert_eq!(shelf.blocks.misses(), lookups as u64 + 1);
    }
}

#[test]
fn the_filter_spares_the_blocks() {
    for filter in [FilterKind::Blocked, FilterKind::Standard] {
        let options = TableOptions {
            filter,
            filter_bits_per_key: 16.0,
            ..small_blocks()
        };
        let shelf = Shelf::new(0);
        let table = shelf
            .open(&shelf.write(1, &options, &numbered(2000, 20)))
            .unwrap();
        for number in 0..2000 {
            assert_eq!(
                get(&table, format!("key{number:08}x").as_bytes(), 1 << 50),
                None
            );
        }
        // Each lookup of the helper asks twice.
        assert!(
            shelf.blocks.misses() < 2 * 2000 / 50,
            "{} blocks read",
            shelf.blocks.misses()
        );
    }
}

#[test]
fn cached_blocks_are_not_read_again() {
    let shelf = Shelf::new(1 << 20);
    let records = numbered(500, 50);
    let table = shelf
        .open(&shelf.write(1, &small_blocks(), &records))
        .unwrap();
    for _ in 0..3 {
        for (key, _, stored) in &records {
            assert_eq!(&get(&table, key, 1 << 50).unwrap().1, stored);
        }
        assert_eq!(shelf.blocks.misses(), table.properties().data_blocks);
    }
    let mut iter = TableIter::over(Arc::clone(&table), FillCache::Yes);
    assert_eq!(collect(&mut iter), records);
    assert_eq!(shelf.blocks.misses(), table.properties().data_blocks);
}

#[test]
fn a_compaction_leaves_the_cache_alone() {
    let shelf = Shelf::new(1 << 20);
    let records = numbered(500, 50);
    let table = shelf
        .open(&shelf.write(1, &small_blocks(), &records))
        .unwrap();
    let mut iter = TableIter::over(table, FillCache::No);
    assert_eq!(collect(&mut iter), records);
    assert_eq!((shelf.blocks.misses(), shelf.blocks.used_bytes()), (0, 0));
}

#[test]
fn range_tombstones_widen_the_bounds_and_come_back() {
    let tombstones =
        FragmentedTombstones::build([deletion("a", "c", 50), deletion("key00000005", "z", 40)]);
    let shelf = Shelf::new(1 << 20);
    let meta = shelf.write_with(1, &small_blocks(), &numbered(20, 10), &tombstones);
    assert_eq!(meta.bounds, KeyBounds::half_open("a", "z"));
    assert_eq!((meta.smallest_sequence, meta.largest_sequence), (1, 50));
    assert_eq!((meta.entries, meta.range_tombstones), (20, 2));
    let table = shelf.open(&meta).unwrap();
    assert_eq!(
        table.range_tombstones().covering_sequence(b"b", 100),
        Some(50)
    );
    table.verify_against(&meta, &mut |_| true).unwrap();
    let only = FragmentedTombstones::build([deletion("k", "", 7)]);
    let meta = shelf.write_with(2, &small_blocks(), &[], &only);
    assert_eq!(meta.bounds, KeyBounds::half_open("k", ""));
    let table = shelf.open(&meta).unwrap();
    table.verify_against(&meta, &mut |_| true).unwrap();
    assert_eq!(get(&table, b"k", 100), None);
    let mut iter = TableIter::over(Arc::clone(&table), FillCache::Yes);
    assert!(collect(&mut iter).is_empty() && collect_backwards(&mut iter).is_empty());
    iter.seek(b"k", Trailer::seek(9)).unwrap();
    assert!(!iter.valid());
    iter.seek_for_prev(b"k", Trailer::seek(9)).unwrap();
    assert!(!iter.valid());
    assert!(table.block_boundaries(10).is_empty());
    assert_eq!(table.approximate_offset(b"k"), 0);
}

#[test]
fn a_bulk_loaded_table_takes_its_place_in_the_order() {
    let records: Vec<Record> = numbered(100, 10)
        .into_iter()
        .map(|(key, _, stored)| (key, value(0), stored))
        .collect();
    let tombstones = FragmentedTombstones::build([deletion("x", "y", 0)]);
    let shelf = Shelf::new(1 << 20);
    let stored = shelf.write_with(1, &small_blocks(), &records, &tombstones);
    let meta = TableMeta {
        ingested_sequence: 77,
        smallest_sequence: 77,
        largest_sequence: 77,
        ..stored.clone()
    };
    let table = shelf.open(&meta).unwrap();
    table.verify_against(&meta, &mut |_| true).unwrap();
    let (key, _, expected) = &records[40];
    assert_eq!(get(&table, key, 77), Some((value(77), expected.clone())));
    assert_eq!(get(&table, key, 78), Some((value(77), expected.clone())));
    assert_eq!(get(&table, key, 76), None);
    assert_eq!(
        table.range_tombstones().covering_sequence(b"x", 80),
        Some(77)
    );
    assert_eq!(table.range_tombstones().covering_sequence(b"x", 76), None);
    let mut iter = TableIter::over(Arc::clone(&table), FillCache::Yes);
    assert!(
        collect(&mut iter)
            .iter()
            .all(|record| record.1 == value(77))
    );
    for (sequence, expected) in [(76, 41), (77, 40), (78, 40)] {
        iter.seek(key, Trailer::seek(sequence)).unwrap();
        assert_eq!(iter.user_key(), records[expected].0);
    }
    iter.seek(key, value(77)).unwrap();
    assert_eq!(iter.user_key(), records[40].0);
    for (sequence, expected) in [(76, 40), (77, 39), (78, 39)] {
        iter.seek_for_prev(key, Trailer::seek(sequence)).unwrap();
        assert_eq!(iter.user_key(), records[expected].0);
    }
    let numbered_meta = shelf.write(2, &small_blocks(), &numbered(3, 3));
    let wrong = TableMeta {
        ingested_sequence: 9,
        ..numbered_meta
    };
    assert_eq!(
        shelf.open(&wrong).unwrap_err().kind(),
        ErrorKind::Corruption
    );
}

#[test]
fn records_out_of_order_or_bounds_are_refused_and_leave_the_writer_usable() {
    let shelf = Shelf::new(0);
    let mut writer =
        TableWriter::create(&shelf.fs, &shelf.path(1), 1, &TableOptions::default()).unwrap();
    assert!(writer.is_empty());
    writer.add(b"k", value(5), b"v").unwrap();
    let long = vec![1; esker_base::limits::MAX_KEY_BYTES + 1];
    let refused: [(&[u8], Trailer, &[u8]); 7] = [
        (b"k", value(5), b""),
        (b"k", value(6), b""),
        (b"j", value(1), b""),
        (b"", value(1), b""),
        (&long, value(1), b""),
        (b"l", Trailer::new(1, ValueKind::RangeDelete), b""),
        (
            b"l",
            Trailer::new(1, ValueKind::ValueWithExpiry),
            b"1234567",
        ),
    ];
    for (key, trailer, stored) in refused {
        let error = writer.add(key, trailer, stored).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    writer.add(b"k", value(4), b"older").unwrap();
    assert_eq!(writer.entries(), 2);
    let meta = writer.finish(0).unwrap();
    assert_eq!(
        get(&shelf.open(&meta).unwrap(), b"k", 4).unwrap().1,
        b"older"
    );
}

#[test]
fn options_out_of_bounds_are_refused() {
    let shelf = Shelf::new(0);
    let plain = TableOptions::default;
    for options in [
        TableOptions {
            block_bytes: 1,
            ..plain()
        },
        TableOptions {
            block_bytes: 1 << 30,
            ..plain()
        },
        TableOptions {
            filter_bits_per_key: 0.0,
            ..plain()
        },
        TableOptions {
            filter_bits_per_key: f64::NAN,
            ..plain()
        },
        TableOptions {
            index_partition_bytes: 0,
            ..plain()
        },
    ] {
        let error = TableWriter::create(&shelf.fs, &shelf.path(1), 1, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    let empty = TableWriter::create(&shelf.fs, &shelf.path(1), 1, &plain()).unwrap();
    assert_eq!(
        empty.finish(0).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn sizes_are_estimated_and_cuts_are_even() {
    let records = numbered(5000, 100);
    for index_partition_bytes in [1 << 20, 500] {
        let options = TableOptions {
            compression: Compression::None,
            index_partition_bytes,
            ..TableOptions::default()
        };
        let shelf = Shelf::new(0);
        let mut writer = TableWriter::create(&shelf.fs, &shelf.path(1), 1, &options).unwrap();
        for (key, trailer, stored) in &records {
            writer.add(key, *trailer, stored).unwrap();
        }
        let estimate = writer.estimated_bytes() as f64;
        let meta = writer.finish(0).unwrap();
        assert!((0.97..1.03).contains(&(estimate / meta.file_bytes as f64)));
        let table = shelf.open(&meta).unwrap();
        let middle = table.approximate_offset(&records[2500].0) as f64;
        assert!((0.48..0.52).contains(&(middle / table.properties().data_bytes as f64)));
        assert_eq!(table.approximate_offset(b"a"), 0);
        assert_eq!(
            table.approximate_offset(b"z"),
            table.properties().data_bytes
        );
        for at_most in [0, 1, 4, 100] {
            let boundaries = table.block_boundaries(at_most);
            assert!(boundaries.len() <= at_most);
            assert!(boundaries.len() >= at_most / 2);
            assert!(boundaries.is_sorted());
        }
    }
}

#[test]
fn expiries_are_described() {
    let expiring = |millis: u64| [&millis.to_le_bytes()[..], b"v"].concat();
    let kind = |sequence| Trailer::new(sequence, ValueKind::ValueWithExpiry);
    let records = [
        (b"a".to_vec(), kind(3), expiring(900)),
        (b"b".to_vec(), kind(2), expiring(100)),
    ];
    let shelf = Shelf::new(0);
    let meta = shelf.write(1, &TableOptions::default(), &records);
    assert_eq!(
        (meta.earliest_expiry_millis, meta.latest_expiry_millis),
        (100, 900)
    );
    assert!(meta.is_wholly_expired(900) && !meta.is_wholly_expired(899));
}

#[test]
fn summaries_cover_the_file() {
    let tombstones = FragmentedTombstones::build([deletion("a", "c", 50)]);
    let options = TableOptions {
        index_partition_bytes: 200,
        ..small_blocks()
    };
    let shelf = Shelf::new(0);
    let meta = shelf.write_with(1, &options, &numbered(300, 40), &tombstones);
    let summaries = shelf.open(&meta).unwrap().block_summaries().unwrap();
    let mut offset = 0;
    for summary in &summaries {
        assert_eq!(summary.offset, offset);
        offset += summary.stored_bytes;
    }
    assert_eq!(offset + 120, meta.file_bytes);
    let entries = |kind| -> u64 {
        summaries
            .iter()
            .filter(|s| s.kind == kind)
            .map(|s| s.entries)
            .sum()
    };
    assert_eq!(entries(BlockKind::SlotData), 300);
    assert_eq!(entries(BlockKind::RangeTombstones), 1);
    let partitions = summaries
        .iter()
        .filter(|s| s.kind == BlockKind::IndexPartition)
        .count();
    assert_eq!(entries(BlockKind::Index), partitions as u64);
}

#[test]
fn what_a_lookup_pins_outlives_the_table_and_the_cache() {
    let long: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
    let records = vec![
        (b"a".to_vec(), value(3), b"short".to_vec()),
        (b"b".to_vec(), value(2), long.clone()),
    ];
    // One cache has room for the block, the other has none.
    for cache_bytes in [1 << 20, 0] {
        let shelf = Shelf::new(cache_bytes);
        let meta = shelf.write(1, &small_blocks(), &records);
        let table = shelf.open(&meta).unwrap();
        let pin = |record: FoundRecord<'_>| {
            assert_eq!(record.trailer(), value(2));
            (record.stored().len(), record.pin(8))
        };
        let (stored_bytes, pinned) = table.find_with(b"b", 9, pin).unwrap().unwrap();
        let mut lookup = table.begin(b"b", 9).unwrap().unwrap();
        table.take_block(&mut lookup);
        let (_, again) = table.finish(&lookup, b"b", 9, pin).unwrap().unwrap();
        drop((lookup, table, shelf));
        assert_eq!(stored_bytes, long.len());
        assert!(*pinned == long[8..] && *again == long[8..]);
    }
}

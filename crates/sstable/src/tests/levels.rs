//! Sorted runs, and which tables are open.

use esker_base::ErrorKind;
use esker_base::iterator::{Direction, Step};

use super::*;

/// Tables of ten records each, some of which have range tombstones that reach further, or nothing
/// but range tombstones.
fn run(shelf: &Shelf, tables: &Arc<TableCache>) -> (Arc<[Arc<TableHandle>]>, Vec<Record>) {
    let records = numbered(100, 20);
    let options = TableOptions {
        block_bytes: 128,
        ..TableOptions::default()
    };
    let mut handles = Vec::new();
    for (part, chunk) in records.chunks(10).enumerate() {
        let number = 10 + 2 * part as u64;
        let gap = |from: u64, to: u64| {
            let first = part as u64 * 10;
            let (start, end) = (first + from, first + to);
            deletion(&format!("key{start:08}x"), &format!("key{end:08}"), 500)
        };
        let (own, alone) = match part % 3 {
            // This table's bounds end behind its records, and a table without records follows.
            0 => (vec![gap(9, 10)], None),
            1 => (vec![], Some(FragmentedTombstones::build([gap(9, 10)]))),
            _ => (vec![], None),
        };
        let own = FragmentedTombstones::build(own);
        handles.push(tables.handle(Arc::new(shelf.write_with(number, &options, chunk, &own))));
        if let Some(alone) = alone {
            let meta = shelf.write_with(number + 1, &options, &[], &alone);
            handles.push(tables.handle(Arc::new(meta)));
        }
    }
    (handles.into(), records)
}

#[test]
fn a_run_is_one_list() {
    let shelf = Shelf::new(1 << 20);
    let tables = shelf.tables(2);
    let (handles, records) = run(&shelf, &tables);
    for fill in [FillCache::Yes, FillCache::No] {
        let mut iter = LevelIter::new(Arc::clone(&handles), fill);
        assert!(!iter.valid());
        assert_eq!(collect(&mut iter), records);
        assert_eq!(collect_backwards(&mut iter), records);
        for number in 0..100usize {
            let key = format!("key{number:08}");
            for (suffix, after) in [("", number), ("x", number + 1), ("y", number + 1)] {
                let key = format!("{key}{suffix}").into_bytes();
                iter.seek(&key, Trailer::seek(1 << 40)).unwrap();
                assert_eq!(current(&iter), records.get(after).cloned());
                if iter.valid() {
                    assert_eq!(&*iter.pinned_value(), iter.value());
                }
                iter.seek_for_prev(&key, Trailer::seek(1 << 40)).unwrap();
                assert_eq!(
                    current(&iter),
                    after.checked_sub(1).map(|at| records[at].clone())
                );
            }
        }
        iter.seek_for_prev(b"zzz", Trailer::OLDEST).unwrap();
        assert_eq!(current(&iter), records.last().cloned());
        iter.seek(b"zzz", Trailer::OLDEST).unwrap();
        assert!(!iter.valid());
    }
    assert!(tables.open_tables() <= 2);
    let mut nothing = LevelIter::new(Arc::new([]), FillCache::Yes);
    assert!(collect(&mut nothing).is_empty() && collect_backwards(&mut nothing).is_empty());
}

/// Seeks with the steps in between that the bits of `steps` say.
fn seek_in_steps(iter: &mut LevelIter, key: &[u8], steps: usize) {
    let trailer = Trailer::seek(1 << 40);
    let Some(mut seek) = iter.begin_seek(key, trailer).unwrap() else {
        return iter.seek(key, trailer).unwrap();
    };
    if steps & 1 != 0 {
        iter.take_block(&mut seek);
    }
    if steps & 2 != 0 {
        iter.search_slots(&mut seek, key);
    }
    iter.finish_seek(&seek, key, trailer).unwrap();
}

#[test]
fn a_seek_in_steps_is_a_seek() {
    // With room for blocks and without any, and from wherever the seek before has led.
    for cache_bytes in [1 << 20, 0] {
        let shelf = Shelf::new(cache_bytes);
        let tables = shelf.tables(2);
        let (handles, records) = run(&shelf, &tables);
        for steps in 0..4 {
            let mut iter = LevelIter::new(Arc::clone(&handles), FillCache::Yes);
            for at in 0..400usize {
                let number = at * 37 % 100;
                let (suffix, after) = [("", number), ("x", number + 1)][at % 2];
                let key = format!("key{number:08}{suffix}").into_bytes();
                seek_in_steps(&mut iter, &key, steps);
                assert_eq!(current(&iter), records.get(after).cloned());
                for record in records.iter().skip(after + 1).take(at % 30) {
                    if iter.step(Direction::Forward).unwrap() == Step::Stayed {
                        iter.next().unwrap();
                    }
                    assert_eq!(current(&iter), Some(record.clone()));
                }
            }
            seek_in_steps(&mut iter, b"zzz", steps);
            assert!(!iter.valid());
        }
    }
}

#[test]
fn a_run_of_one_table_is_not_opened_for_what_lies_behind_it_but_asked_where_it_is_open() {
    let shelf = Shelf::new(1 << 20);
    let tables = shelf.tables(2);
    let (handles, records) = run(&shelf, &tables);
    let mut iter = LevelIter::new(Arc::new([Arc::clone(&handles[0])]), FillCache::Yes);
    for steps in 0..4 {
        seek_in_steps(&mut iter, b"zzz", steps);
        assert!(!iter.valid() && tables.open_tables() == 0);
    }
    for steps in 0..4 {
        // The last one ends with the table, and the bounds go on behind it.
        for record in &records[..10] {
            seek_in_steps(&mut iter, &record.0, steps);
            assert_eq!(current(&iter), Some(record.clone()));
        }
        for behind in ["key00000009x", "key00000010", "zzz"] {
            seek_in_steps(&mut iter, &records[0].0, steps);
            assert!(iter.valid());
            seek_in_steps(&mut iter, behind.as_bytes(), steps);
            assert!(!iter.valid());
        }
    }
}

#[test]
fn tables_that_are_used_stay_open() {
    let shelf = Shelf::new(1 << 20);
    let tables = shelf.tables(3);
    let (handles, records) = run(&shelf, &tables);
    let key = &records[0].0;
    let before = Arc::as_ptr(&handles[0].table_arc().unwrap());
    for handle in handles.iter() {
        assert!(
            handles[0]
                .table()
                .unwrap()
                .get(key, key_hash(key), 1 << 40)
                .unwrap()
                .is_some()
        );
        handle.table().unwrap();
        assert!(tables.open_tables() <= 3);
    }
    assert_eq!(
        Arc::as_ptr(&handles[0].table_arc().unwrap()),
        before,
        "it was never closed"
    );
}

#[test]
fn what_open_tables_take_is_bounded_and_takes_room_from_blocks() {
    let shelf = Shelf::new(1 << 20);
    let tables = shelf.tables(1000);
    let (handles, records) = run(&shelf, &tables);
    let each = handles[0].table_arc().unwrap().memory_bytes();
    assert_eq!(shelf.blocks.table_bytes(), each);
    let limit = 3 * each + each / 2;
    tables.set_table_bytes_limit(limit);
    for handle in handles.iter() {
        handle.table().unwrap();
        assert!(shelf.blocks.table_bytes() <= limit);
    }
    assert!(tables.open_tables() >= 2);

    let find = |key: &[u8]| {
        let open = |handle: &Arc<TableHandle>| handle.table_arc().unwrap();
        let mut found = handles
            .iter()
            .map(|it| open(it).get(key, key_hash(key), 1 << 40));
        found.any(|hit| hit.unwrap().is_some())
    };
    assert!(records.iter().step_by(7).all(|(key, ..)| find(key)));
    let blocks = shelf.blocks.used_bytes();
    let share = shelf.blocks.table_bytes() + blocks / 2;
    shelf.blocks.share(share, usize::MAX);
    assert!(shelf.blocks.used_bytes() <= blocks / 2);
    assert!(records.iter().step_by(7).all(|(key, ..)| find(key)));
    let kept = shelf.blocks.used_bytes() + shelf.blocks.table_bytes();
    assert!(kept <= share);
    drop(handles);
    assert_eq!(
        (shelf.blocks.used_bytes(), shelf.blocks.table_bytes()),
        (0, 0)
    );
}

#[test]
fn one_number_has_one_handle_while_it_lives() {
    let shelf = Shelf::new(1 << 20);
    let tables = shelf.tables(10);
    let meta = Arc::new(shelf.write(5, &TableOptions::default(), &numbered(10, 10)));
    let handle = tables.handle(Arc::clone(&meta));
    assert!(Arc::ptr_eq(&handle, &tables.handle(Arc::clone(&meta))));
    handle.table().unwrap();
    assert_eq!(tables.open_tables(), 1);
    handle.evict();
    handle.evict();
    assert_eq!((tables.open_tables(), shelf.blocks.used_bytes()), (0, 0));
    let mut iter = TableIter::new(&handle, FillCache::Yes).unwrap();
    drop(handle);
    assert_eq!(tables.open_tables(), 0);
    assert_eq!(collect(&mut iter).len(), 10, "an iterator keeps its table");
    drop(iter);
    assert_eq!(shelf.blocks.used_bytes(), 0);
    assert_eq!(
        tables
            .handle(meta)
            .table()
            .unwrap()
            .properties()
            .meta
            .entries,
        10
    );
}

#[test]
fn a_table_that_is_not_the_one_the_manifest_means_is_damage() {
    let shelf = Shelf::new(1 << 20);
    let options = TableOptions::default();
    let meta = shelf.write(5, &options, &numbered(10, 10));
    let other = shelf.write(6, &options, &numbered(10, 10));
    let tables = shelf.tables(10);
    let cases = [
        TableMeta {
            file_bytes: meta.file_bytes + 1,
            ..meta.clone()
        },
        TableMeta {
            checksum: meta.checksum ^ 1,
            ..meta.clone()
        },
        TableMeta {
            number: 99,
            ..meta.clone()
        },
    ];
    for case in cases {
        let error = tables.handle(Arc::new(case)).table().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(error.file().is_some());
    }
    shelf.replace(6, &shelf.contents(5));
    let error = tables.handle(Arc::new(other)).table().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("table 5 stands where table 6 should"),
        "{error}"
    );
    assert_eq!(tables.open_tables(), 0);
}

#[test]
fn many_threads_open_read_and_close() {
    let shelf = Shelf::new(5_000);
    let tables = shelf.tables(2);
    let (handles, records) = run(&shelf, &tables);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (handles, records) = (Arc::clone(&handles), &records);
            scope.spawn(move || {
                for step in 0..600usize {
                    let at = (step * 37 + thread * 11) % records.len();
                    let (key, trailer, stored) = &records[at];
                    let handle = handles
                        .iter()
                        .find(|h| h.meta().entries > 0 && h.meta().bounds.contains(key))
                        .unwrap();
                    if step % 50 == thread {
                        handle.evict();
                    }
                    let table = handle.table().unwrap();
                    assert!(table.may_contain(key_hash(key)));
                    let found = table.find_with(key, 1 << 40, |record| {
                        (record.trailer(), record.stored().to_vec())
                    });
                    assert_eq!(found.unwrap(), Some((*trailer, stored.clone())));
                }
            });
        }
    });
    assert!(tables.open_tables() <= 3);
    assert!(shelf.blocks.used_bytes() <= 5_000);
    drop(handles);
    assert_eq!((tables.open_tables(), shelf.blocks.used_bytes()), (0, 0));
}

/// The story: what dropped cursors had found in the cache was lent to them, and stayed so: scans were refused
/// though nobody scanned.
#[test]
fn at_rest_nothing_large_is_kept_and_nothing_that_counts() {
    for (value_bytes, is_shared, is_kept) in [
        (20, false, true),
        (20, true, false),
        (100_000, false, false),
    ] {
        let shelf = Shelf::new(1 << 20);
        if is_shared {
            shelf.blocks.share(1 << 20, 1 << 20);
        }
        let tables = shelf.tables(2);
        let records = numbered(4, value_bytes);
        let meta = shelf.write(5, &TableOptions::default(), &records);
        let run: Arc<[_]> = Arc::from([tables.handle(Arc::new(meta))]);
        let mut loads = LevelIter::new(Arc::clone(&run), FillCache::Yes);
        loads.seek(&records[0].0, Trailer::seek(1 << 40)).unwrap();
        let mut finds = LevelIter::new(run, FillCache::Yes);
        finds.seek(&records[0].0, Trailer::seek(1 << 40)).unwrap();
        drop(loads);
        finds.rest();
        while tables.close_one() {}
        let held = (
            shelf.blocks.table_bytes() > 0,
            shelf.blocks.used_bytes() > 0,
        );
        assert_eq!(held, (is_kept, is_kept), "{value_bytes} {is_shared}");
        assert_eq!(shelf.blocks.scan_bytes(), 0);
        finds.seek(&records[1].0, Trailer::seek(1 << 40)).unwrap();
        assert_eq!(current(&finds), Some(records[1].clone()));
    }
}

/// The story: what looks for conflicts of a transaction failed because others scanned.
#[test]
fn only_scans_of_users_are_refused_blocks() {
    let shelf = Shelf::new(1 << 20);
    shelf.blocks.share(1000, 1000);
    let tables = shelf.tables(2);
    let records = numbered(4, 20);
    let meta = shelf.write(5, &TableOptions::default(), &records);
    let run: Arc<[_]> = Arc::from([tables.handle(Arc::new(meta))]);
    let mut others = HeldMemory::new(Arc::clone(&shelf.blocks));
    others.set(2000);
    for (fill, expected) in [
        (FillCache::Yes, Err(ErrorKind::LimitExceeded)),
        (FillCache::Briefly, Ok(())),
        (FillCache::No, Ok(())),
    ] {
        let mut iter = LevelIter::new(Arc::clone(&run), fill);
        let sought = iter.seek(&records[0].0, Trailer::seek(1 << 40));
        assert_eq!(sought.map_err(|error| error.kind()), expected, "{fill:?}");
        assert_eq!(iter.valid(), expected.is_ok());
    }
}

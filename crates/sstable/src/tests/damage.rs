//! Damaged tables: a right answer or an error that says so, never a wrong answer.

use esker_base::ErrorKind;
use proptest::prelude::*;

use super::*;

/// A small table with every kind of block.
fn sample(index_partition_bytes: usize) -> (Shelf, TableMeta, Vec<Record>) {
    let shelf = Shelf::new(1 << 20);
    let options = TableOptions {
        block_bytes: 128,
        index_partition_bytes,
        ..TableOptions::default()
    };
    let records = numbered(12, 20);
    let tombstones = FragmentedTombstones::build([deletion("a", "c", 50)]);
    let meta = shelf.write_with(3, &options, &records, &tombstones);
    (shelf, meta, records)
}

/// Reads everything; whatever is not an error must be right.
fn read_everything(shelf: &Shelf, meta: &TableMeta, records: &[Record]) {
    let Ok(table) = shelf.open(meta) else {
        return;
    };
    assert_eq!(
        table.range_tombstones().covering_sequence(b"b", 60),
        Some(50)
    );
    for (key, trailer, stored) in records {
        if let Ok(hit) = table.get(key, key_hash(key), 1 << 40) {
            let hit = hit.unwrap();
            assert_eq!((hit.trailer, &*hit.value), (*trailer, stored.as_slice()));
        }
    }
    for fill in [FillCache::Yes, FillCache::No] {
        let mut iter = TableIter::over(Arc::clone(&table), fill);
        let mut moved = iter.seek_to_first();
        for record in records {
            if moved.is_err() {
                assert!(!iter.valid());
                break;
            }
            assert_eq!(current(&iter).as_ref(), Some(record));
            moved = iter.next();
        }
    }
}

#[test]
fn no_flipped_bit_gives_a_wrong_answer_or_passes_verification() {
    for index_partition_bytes in [1 << 20, 20] {
        let (shelf, meta, records) = sample(index_partition_bytes);
        let contents = shelf.contents(3);
        for bit in 0..contents.len() * 8 {
            let mut flipped = contents.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            shelf.replace(3, &flipped);
            read_everything(&shelf, &meta, &records);
            let verified = shelf
                .open(&meta)
                .and_then(|table| table.verify(&mut |_| true));
            let error = verified.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported),
                "bit {bit}: {error}"
            );
            assert!(error.file().is_some(), "bit {bit}: {error}");
        }
    }
}

#[test]
fn a_table_cut_short_is_refused() {
    let (shelf, meta, _) = sample(1 << 20);
    let contents = shelf.contents(3);
    for bytes in 0..contents.len() {
        shelf.replace(3, &contents[..bytes]);
        let path = shelf.path(3);
        let opened = Table::open(&shelf.fs, &path, meta.number, Arc::clone(&shelf.blocks));
        assert_eq!(
            opened.unwrap_err().kind(),
            ErrorKind::Corruption,
            "{bytes} bytes"
        );
    }
}

#[test]
fn damage_of_one_block_leaves_the_others_readable() {
    let (shelf, meta, records) = sample(1 << 20);
    let table = shelf.open(&meta).unwrap();
    let blocks = table.block_summaries().unwrap();
    assert!(blocks[2].kind == BlockKind::SlotData);
    let mut contents = shelf.contents(3);
    contents[blocks[1].offset as usize + 20] ^= 1;
    shelf.replace(3, &contents);
    let table = shelf.open(&meta).unwrap();
    let results: Vec<_> = records
        .iter()
        .map(|r| table.get(&r.0, key_hash(&r.0), 1 << 40))
        .collect();
    let damaged = results.iter().filter(|result| result.is_err()).count() as u64;
    assert_eq!(damaged, blocks[1].entries);
    let error = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!(error.offset(), Some(blocks[1].offset));
    assert_eq!(error.file(), Some(shelf.path(3).as_path()));
    let mut iter = TableIter::over(table, FillCache::Yes);
    iter.seek_to_first().unwrap();
    let failed = std::iter::from_fn(|| Some(iter.next())).find(Result::is_err);
    assert!(failed.is_some() && !iter.valid());
    iter.seek_to_last().unwrap();
    assert_eq!(
        current(&iter).as_ref(),
        records.last(),
        "the iterator goes on after damage"
    );
}

#[test]
fn verification_tells_how_far_it_is_and_stops_when_told() {
    let (shelf, meta, _) = sample(1 << 20);
    let table = shelf.open(&meta).unwrap();
    let mut told = Vec::new();
    table
        .verify(&mut |bytes| {
            told.push(bytes);
            true
        })
        .unwrap();
    assert!(told.is_sorted());
    assert_eq!(told.last(), Some(&meta.file_bytes));
    let error = table.verify(&mut |bytes| bytes < 300).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let other = TableMeta {
        entries: meta.entries + 1,
        ..meta
    };
    let error = table.verify_against(&other, &mut |_| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutilated_files_never_give_wrong_answers(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut: Option<prop::sample::Index>,
        garbage in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (shelf, meta, records) = sample(40);
        let mut contents = shelf.contents(3);
        for (at, byte) in changes {
            let at = at.index(contents.len());
            contents[at] = byte;
        }
        if let Some(cut) = cut {
            contents.truncate(cut.index(contents.len()));
        }
        contents.extend(garbage);
        shelf.replace(3, &contents);
        read_everything(&shelf, &meta, &records);
    }

    #[test]
    fn files_of_any_bytes_are_refused(contents: Vec<u8>) {
        let (shelf, meta, _) = sample(40);
        shelf.replace(3, &contents);
        prop_assert!(shelf.open(&meta).is_err());
    }
}

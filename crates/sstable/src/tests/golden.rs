//! The bytes of tables of format version 1. What is in `testdata/sstable` is never written again:
//! where one of these tests fails, the code has changed the format.

use super::*;

fn golden(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/sstable");
    let fs = esker_vfs::OsFileSystem::new();
    let file = fs.open_read(&directory.join(name)).unwrap();
    let mut contents = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut contents, 0).unwrap();
    contents
}

/// Three records and a range tombstone: the example that `docs/format/table.md` walks through.
fn example() -> (TableOptions, Vec<Record>, FragmentedTombstones) {
    let options = TableOptions {
        compression: Compression::None,
        filter_bits_per_key: 10.0,
        ..TableOptions::default()
    };
    let records = vec![
        (b"apple".to_vec(), value(3), b"red".to_vec()),
        (
            b"apricot".to_vec(),
            Trailer::new(5, ValueKind::Tombstone),
            vec![],
        ),
        (b"apricot".to_vec(), value(2), b"orange".to_vec()),
    ];
    (
        options,
        records,
        FragmentedTombstones::build([deletion("b", "c", 4)]),
    )
}

/// Many blocks, two levels of index, compression, restart blocks, the other filter.
fn large() -> (TableOptions, Vec<Record>, FragmentedTombstones) {
    let options = TableOptions {
        block_bytes: 512,
        compression: Compression::Lz4,
        filter: FilterKind::Standard,
        index_partition_bytes: 256,
        layout: BlockLayoutChoice::Restart,
        ..TableOptions::default()
    };
    let records = (0..200u64)
        .map(|i| {
            let key = format!("http://example.com/{:03}/{}", i / 3, i % 3).into_bytes();
            (
                key,
                value(1000 - i),
                format!("page {i} ").repeat(8).into_bytes(),
            )
        })
        .collect();
    (options, records, FragmentedTombstones::default())
}

/// Uniform trailers, wide offsets, versions of one key across blocks, values with expiry.
fn shapes() -> (TableOptions, Vec<Record>, FragmentedTombstones) {
    let options = TableOptions {
        block_bytes: 256,
        compression: Compression::None,
        filter: FilterKind::None,
        layout: BlockLayoutChoice::Slot,
        // As the first version wrote it.
        block_expiries: false,
        ..TableOptions::default()
    };
    let mut records: Vec<Record> = (0..20u32)
        .map(|i| (format!("a{i:04}").into_bytes(), value(0), vec![i as u8; 9]))
        .collect();
    for sequence in (1..=30).rev() {
        records.push((b"many versions".to_vec(), value(sequence), vec![b'v'; 10]));
    }
    let expiring = Trailer::new(9, ValueKind::ValueWithExpiry);
    records.push((
        b"short-lived".to_vec(),
        expiring,
        [&500u64.to_le_bytes()[..], b"x"].concat(),
    ));
    records.push((b"wide".to_vec(), value(1), vec![0; 70_000]));
    (options, records, FragmentedTombstones::default())
}

#[test]
fn tables_of_version_1_are_written_and_read_as_they_always_were() {
    for (name, number, (options, records, tombstones)) in [
        ("example.v1.sst", 7, example()),
        ("large.v1.sst", 8, large()),
        ("shapes.v1.sst", 9, shapes()),
    ] {
        let shelf = Shelf::new(1 << 20);
        let meta = shelf.write_with(number, &options, &records, &tombstones);
        assert!(
            shelf.contents(number) == golden(name),
            "{name} would be written differently"
        );
        shelf.replace(number, &golden(name));
        let table = shelf.open(&meta).unwrap();
        table.verify_against(&meta, &mut |_| true).unwrap();
        let mut iter = TableIter::over(table, FillCache::Yes);
        assert_eq!(collect(&mut iter), records, "{name}");
    }
}

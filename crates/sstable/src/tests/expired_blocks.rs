//! Walks that leave out blocks by what is known of their records' expiry.

use esker_base::clock::ManualClock;

use super::*;
use crate::SkipBlocks;

/// A hundred keys in blocks of a few; those from 20 to 79 expire at their number, the others never.
/// Key 50 has two versions, of which the older one does not expire.
fn records() -> Vec<Record> {
    let mut records = Vec::new();
    for number in 0..100u64 {
        let key = format!("key{number:08}").into_bytes();
        if (20..80).contains(&number) {
            let mut stored = number.to_le_bytes().to_vec();
            stored.extend_from_slice(&[7; 20]);
            let trailer = Trailer::new(10, ValueKind::ValueWithExpiry);
            records.push((key.clone(), trailer, stored));
        } else {
            records.push((key.clone(), value(10), vec![7; 28]));
        }
        if number == 50 {
            records.push((key, value(5), b"older".to_vec()));
        }
    }
    records
}

fn number_of(record: &Record) -> u64 {
    String::from_utf8(record.0[3..].to_vec())
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_walk_reads_only_blocks_that_may_hold_what_it_is_after() {
    for index_partition_bytes in [1 << 20, 64] {
        let shelf = Shelf::new(1 << 20);
        let options = TableOptions {
            block_bytes: 256,
            index_partition_bytes,
            ..TableOptions::default()
        };
        let records = records();
        let meta = shelf.write(1, &options, &records);
        let tables = shelf.tables(2);
        let handle = tables.handle(Arc::new(meta));
        handle.table().unwrap().verify(&mut |_| true).unwrap();
        let run: Arc<[Arc<TableHandle>]> = Arc::new([handle]);
        let walk =
            |skip: SkipBlocks| LevelIter::new(Arc::clone(&run), FillCache::No).skipping(skip);
        let clock = Arc::new(ManualClock::at_millis(0));
        let mut unread = 0;
        for now in [0, 19, 20, 45, 50, 79, 80] {
            clock.set_wall_millis(now);
            let skip = SkipBlocks::Expired(clock.clone());
            let seen = collect(&mut walk(skip.clone()));
            let mut backwards = collect_backwards(&mut walk(skip.clone()));
            assert_eq!(seen, backwards, "at {now}");
            backwards.clear();
            // What has not expired is there, and nothing else is but what shares a block with it.
            let lives = |record: &&Record| {
                record.1.kind() == Some(ValueKind::Value) || number_of(record) > now
            };
            let living: Vec<_> = records.iter().filter(lives).collect();
            assert!(
                seen.iter().filter(lives).eq(living.iter().copied()),
                "at {now}"
            );
            unread = records.len() - seen.len();
            // The newer version of a key never goes without the older ones.
            let versions = seen.iter().filter(|record| number_of(record) == 50).count();
            assert_eq!(versions, 2, "at {now}");
            for number in 0..100u64 {
                let key = format!("key{number:08}").into_bytes();
                let mut iter = walk(skip.clone());
                iter.seek(&key, Trailer::seek(1 << 40)).unwrap();
                let expected = seen.iter().find(|record| record.0 >= key);
                assert_eq!(current(&iter).as_ref(), expected, "seek {number} at {now}");
                iter.seek_for_prev(&key, Trailer::seek(1 << 40)).unwrap();
                let expected = seen.iter().rfind(|record| record.0 < key);
                assert_eq!(
                    current(&iter).as_ref(),
                    expected,
                    "seek back {number} at {now}"
                );
            }
        }
        assert!(unread > 30, "only {unread} records were not read");
        for until in [0, 20, 40, 200] {
            let seen = collect(&mut walk(SkipBlocks::NothingExpired { until }));
            let wanted = |record: &&Record| {
                record.1.kind() == Some(ValueKind::ValueWithExpiry) && number_of(record) <= until
            };
            assert_eq!(
                seen.iter().filter(wanted).count(),
                records.iter().filter(wanted).count()
            );
            assert!(seen.len() < records.len() - 30, "{} at {until}", seen.len());
        }
    }
}

#[test]
fn a_table_without_expiries_of_blocks_is_read_whole() {
    let shelf = Shelf::new(1 << 20);
    let options = TableOptions {
        block_bytes: 256,
        block_expiries: false,
        ..TableOptions::default()
    };
    let meta = shelf.write(1, &options, &records());
    let handle = shelf.tables(2).handle(Arc::new(meta));
    handle.table().unwrap().verify(&mut |_| true).unwrap();
    let clock = Arc::new(ManualClock::at_millis(1000));
    let run: Arc<[Arc<TableHandle>]> = Arc::new([handle]);
    let mut iter = LevelIter::new(run, FillCache::No).skipping(SkipBlocks::Expired(clock));
    assert_eq!(collect(&mut iter), records());
}

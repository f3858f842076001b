//! What counts against a shared bound, and who gives way to it.

use super::*;
use crate::block::{Block, BlockParts};
use crate::block_cache::BlockSlots;
use crate::block_cache::tests::block_in;
use crate::held_memory::HeldMemory;
use proptest::prelude::*;

/// Three blocks' room, and the blocks of one table.
fn small() -> (Arc<BlockCache>, Arc<BlockSlots>, usize) {
    let bytes = block_in(None, 1000).memory_bytes();
    let cache = BlockCache::new(usize::MAX);
    cache.share(3 * bytes, usize::MAX);
    let slots = BlockSlots::new(100, 0, Arc::clone(&cache));
    (cache, slots, bytes)
}

/// The story: scans that stood on the same blocks counted them once each, so that nothing could be refused by the sum.
#[test]
fn a_block_that_many_hold_counts_once_and_only_when_no_slot_has_it() {
    let (cache, slots, bytes) = small();
    let held = slots.insert(0, block_in(cache.block_memory(), 1000));
    let shares: Vec<Block> = (0..100).map(|_| held.clone()).collect();
    assert_eq!((cache.used_bytes(), cache.scan_bytes()), (bytes, 0));
    for index in 1..10 {
        slots.insert(index, block_in(cache.block_memory(), 1000));
    }
    assert!(slots.peek(0).is_none(), "it was evicted");
    assert_eq!((cache.used_bytes(), cache.scan_bytes()), (2 * bytes, bytes));
    drop(shares);
    assert_eq!(cache.scan_bytes(), bytes, "one holds it still");
    drop(held);
    assert_eq!(cache.scan_bytes(), 0);
    slots.insert(10, block_in(cache.block_memory(), 1000));
    assert_eq!(cache.used_bytes(), 3 * bytes);
}

#[test]
fn a_full_cache_keeps_as_many_blocks_as_there_is_room_for() {
    let (cache, slots, bytes) = small();
    for index in 0..50 {
        slots.insert(index, block_in(cache.block_memory(), 1000));
        let expected = 3.min(index + 1) * bytes;
        assert_eq!(cache.used_bytes(), expected, "block {index}");
    }
}

#[test]
fn scans_get_no_more_when_others_have_all_and_some_more_is_for_those_that_began() {
    let cache = BlockCache::new(0);
    let kind = |result: Result<()>| result.map_err(|error| error.kind());
    let refused = Err(ErrorKind::LimitExceeded);
    let mut scan = HeldMemory::new(Arc::clone(&cache));
    scan.set(usize::MAX / 2);
    assert_eq!(kind(cache.admit_scan()), Ok(()), "there is no bound");
    scan.set(0);
    cache.share(8000, usize::MAX);
    for (held, tables, begins, goes_on) in [
        (0, 0, Ok(()), Ok(())),
        (7999, 0, Ok(()), Ok(())),
        (7000, 1000, refused, Ok(())),
        (9999, 0, refused, Ok(())),
        (10_000, 0, refused, refused),
        (0, 11_000, refused, refused),
    ] {
        scan.set(held);
        cache.add_table_bytes(tables);
        assert_eq!(kind(cache.admit_scan()), begins, "{held} {tables}");
        assert_eq!(kind(cache.admit_block()), goes_on, "{held} {tables}");
        cache.remove_table_bytes(tables);
    }
    let held = block_in(cache.block_memory(), 10_000);
    scan.set(0);
    assert_eq!(kind(cache.admit_block()), refused, "a block that is lent");
    drop(held);
    assert_eq!(kind(cache.admit_scan()), Ok(()));
}

proptest! {
    /// Whatever is kept, held, let go and squeezed out, no byte is counted twice or forgotten.
    #[test]
    fn what_is_cached_and_what_is_lent_is_what_exists(
        shared in 0usize..20_000,
        steps in proptest::collection::vec((0usize..4, 0usize..12, 1usize..1500), 1..150),
    ) {
        let cache = BlockCache::new(usize::MAX);
        cache.share(shared, usize::MAX);
        let slots = BlockSlots::new(12, 0, Arc::clone(&cache));
        let mut held: Vec<Block> = Vec::new();
        let mut buffers = HeldMemory::new(Arc::clone(&cache));
        for (what, index, bytes) in steps {
            match what {
                0 => drop(slots.insert(index, block_in(cache.block_memory(), bytes))),
                1 => held.extend(slots.get(index).clone()),
                2 => held.truncate(index),
                _ => buffers.set(bytes),
            }
            let hanging = (0..12).filter_map(|index| slots.peek(index).clone());
            let mut existing: Vec<Block> = hanging.collect();
            let cached: usize = existing.iter().map(|block| block.memory_bytes()).sum();
            existing.extend(held.iter().cloned());
            existing.sort_by_key(|block| block.room().as_ptr());
            existing.dedup_by_key(|block| block.room().as_ptr());
            let all: usize = existing.iter().map(|block| block.memory_bytes()).sum();
            prop_assert_eq!(cache.used_bytes(), cached);
            prop_assert_eq!(cache.memory.bytes(), all);
            prop_assert!(cache.used_bytes() <= cache.room_bytes());
        }
        drop((slots, held));
        prop_assert_eq!(cache.memory.bytes(), 0);
    }
}

//! The count of cached blocks under every order of filling, emptying and dropping slots.

use super::*;
use crate::block_builder::BlockBuilder;
use crate::options::BlockLayoutChoice;
use esker_base::{Trailer, ValueKind};
use proptest::prelude::*;

fn block(value_bytes: usize) -> Block {
    block_in(None, value_bytes)
}

/// A block of one value, which counts in `memory`, if there is one.
pub(super) fn block_in(memory: Option<&Arc<BlockMemory>>, value_bytes: usize) -> Block {
    let mut builder = BlockBuilder::new(BlockLayoutChoice::Slot);
    builder.add(
        b"k",
        Trailer::new(1, ValueKind::Value),
        &vec![0; value_bytes],
    );
    let mut bytes = Vec::new();
    builder.finish(&mut bytes);
    crate::block::parse(&bytes, memory).unwrap()
}

/// What the blocks in the slots take, each counted once however many tables share it.
fn held_bytes(tables: &[Arc<BlockSlots>]) -> usize {
    let slots = tables.iter().flat_map(|table| table.slots.iter());
    let held: Vec<Block> = slots.filter_map(|slot| slot.load_full()).collect();
    let by_place: std::collections::HashMap<_, _> = held
        .iter()
        .map(|block| (block.room().as_ptr(), block.memory_bytes()))
        .collect();
    by_place.values().sum()
}

#[test]
fn blocks_that_are_used_outlive_blocks_that_are_not() {
    let bytes = block(100).memory_bytes();
    let cache = BlockCache::new(4 * bytes);
    let slots = BlockSlots::new(100, 0, Arc::clone(&cache));
    slots.insert(0, block(100));
    for index in 1..100 {
        let _ = slots.get(0);
        slots.insert(index, block(100));
        assert!(cache.used_bytes() <= cache.capacity_bytes());
    }
    assert!(slots.get(0).is_some());
    assert_eq!((cache.used_bytes(), cache.evictions()), (4 * bytes, 96));
}

#[test]
fn what_finds_no_room_is_used_all_the_same() {
    for capacity in [0, block(100).memory_bytes() - 1] {
        let cache = BlockCache::new(capacity);
        let slots = BlockSlots::new(1, 0, Arc::clone(&cache));
        assert_eq!(slots.insert(0, block(100)).entries(), 1);
        assert!(slots.get(0).is_none() && cache.used_bytes() == 0);
    }
}

#[test]
fn a_table_that_goes_takes_its_bytes_along_and_leaves_no_rubbish() {
    let cache = BlockCache::new(1 << 30);
    for salt in 0..2000 {
        let slots = BlockSlots::new(8, salt, Arc::clone(&cache));
        for index in 0..8 {
            slots.insert(index, block(10));
        }
    }
    assert_eq!(cache.used_bytes(), 0);
    let queued: usize = cache
        .shards
        .iter()
        .map(|shard| shard.lock().queue.len())
        .sum();
    assert!(
        queued <= SHARDS * (FIRST_PURGE + 1),
        "{queued} entries of vanished tables"
    );
}

#[test]
fn a_smaller_capacity_evicts_at_once() {
    let cache = BlockCache::new(1 << 20);
    let slots = BlockSlots::new(50, 3, Arc::clone(&cache));
    for index in 0..50 {
        slots.insert(index, block(100));
        let _ = slots.get(index);
    }
    cache.set_capacity_bytes(1000);
    assert!(cache.used_bytes() <= 1000);
    assert_eq!(cache.used_bytes(), held_bytes(&[Arc::clone(&slots)]));
}

#[test]
fn a_block_that_goes_leaves_its_memory_unless_somebody_holds_it() {
    let value_of = |block: &Block| {
        let newest = Trailer::new(9, ValueKind::Value);
        let (_, range) = block.find(b"k", newest).unwrap();
        block.bytes()[range].to_vec()
    };
    let cache = BlockCache::new(block(1000).memory_bytes());
    let slots = BlockSlots::new(3, 0, Arc::clone(&cache));
    slots.insert(0, block(1000));
    let shorter = block(990);
    let make = |index: usize| {
        let mut room = slots.make_room(shorter.bytes().len()).unwrap();
        let spare = room.take_spare().unwrap();
        let at = spare.room().as_ptr();
        let fill = |bytes: &mut [u8]| {
            bytes.copy_from_slice(shorter.bytes());
            Ok(())
        };
        let made = block::make_in(spare, shorter.bytes().len(), fill);
        let is_there = made.is_some_and(|made| {
            let made = made.unwrap();
            assert_eq!(made.room().as_ptr(), at);
            assert_eq!(value_of(&made), [0; 990]);
            slots.insert_into(Some(room), index, made);
            true
        });
        assert!(cache.used_bytes() <= cache.capacity_bytes());
        is_there
    };
    assert!(make(1), "the memory of the first block");
    let held = slots.get(1);
    assert!(!make(2), "which a reader looks at");
    assert_eq!(value_of(held.as_ref().unwrap()), [0; 990]);
    assert_eq!(cache.used_bytes(), 0, "nothing took the room");
}

#[test]
fn a_block_that_two_threads_load_is_counted_once() {
    let cache = BlockCache::new(1 << 20);
    let slots = BlockSlots::new(4, 0, Arc::clone(&cache));
    for index in 0..4 {
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    slots.insert(index, block(100));
                });
            }
        });
    }
    assert_eq!(cache.used_bytes(), 4 * block(100).memory_bytes());
}

#[test]
fn threads_that_fill_empty_and_drop_leave_the_count_exact() {
    let cache = BlockCache::new(20_000);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let cache = Arc::clone(&cache);
            scope.spawn(move || {
                for round in 0..50 {
                    let slots = BlockSlots::new(64, round, Arc::clone(&cache));
                    for step in 0..200usize {
                        let index = (step * 7 + thread) % 64;
                        if slots.get(index).is_none() {
                            slots.insert(index, block(index * 10));
                        }
                        assert!(cache.used_bytes() <= 20_000);
                    }
                }
            });
        }
    });
    assert_eq!(cache.used_bytes(), 0);
}

proptest! {
    #[test]
    fn the_count_is_what_the_slots_hold(
        capacity in 0usize..5000,
        steps in proptest::collection::vec((0usize..3, 0usize..20, 0usize..400), 0..200),
    ) {
        let cache = BlockCache::new(capacity);
        let mut tables: Vec<_> =
            (0..3).map(|salt| BlockSlots::new(20, salt, Arc::clone(&cache))).collect();
        for (table, index, bytes) in steps {
            if bytes % 8 == 7 {
                // A block of another table, where it has one there.
                let other = Arc::clone(&tables[(table + 1) % 3]);
                tables[table].adopt_from((index * 7) % 20, &other, index);
            } else if bytes == 0 {
                tables[table] = BlockSlots::new(20, index, Arc::clone(&cache));
            } else if tables[table].get(index).is_none() {
                tables[table].insert(index, block(bytes));
            }
            prop_assert_eq!(cache.used_bytes(), held_bytes(&tables));
            prop_assert!(cache.used_bytes() <= capacity);
        }
    }
}

/// The story: a block that was being read while the capacity became smaller was kept above it.
#[test]
fn a_block_on_its_way_does_not_stay_above_a_capacity_that_shrinks() {
    let shrinks: [fn(&BlockCache); 2] = [
        |cache| cache.set_capacity_bytes(1000),
        |cache| cache.add_table_bytes(1 << 20),
    ];
    for shrink in shrinks {
        let cache = BlockCache::new(1 << 20);
        cache.share(1 << 20, usize::MAX);
        let slots = BlockSlots::new(3, 0, Arc::clone(&cache));
        let block = block(100_000);
        let room = slots.make_room(block.room().len());
        assert!(room.is_some());
        shrink(&cache);
        slots.insert_into(room, 0, block);
        assert!(cache.used_bytes() <= cache.room_bytes());
    }
}

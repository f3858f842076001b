//! What the arena hands out is exact, whole and private, and its pool keeps to its limit.

use super::*;
use esker_base::ValueKind;

fn trailer(sequence: u64) -> Trailer {
    Trailer::new(sequence, ValueKind::Value)
}

#[test]
fn bytes_are_exact_across_chunks_and_records_stay_whole() {
    let arena = Arena::new(MIN_CHUNK_BYTES, None);
    let mut stored = Vec::new();
    let mut bytes = 0;
    for number in 0..if cfg!(miri) { 40 } else { 3000u64 } {
        let key = number.to_be_bytes();
        let value = vec![number as u8; (number * 37 % 600) as usize];
        bytes += (RECORD_HEADER_BYTES + key.len() + value.len()).next_multiple_of(8);
        stored.push((arena.store(&key, trailer(number), &value), value));
        assert_eq!(arena.bytes(), bytes);
    }
    assert!(arena.reserved_bytes() >= bytes);
    for (number, (record, value)) in stored.iter().enumerate() {
        // SAFETY: the arena lives, and nothing left this thread.
        let record = unsafe { record.view() };
        assert_eq!(record.key, (number as u64).to_be_bytes());
        assert_eq!(
            (record.trailer, record.value),
            (trailer(number as u64), value.as_slice())
        );
    }
}

#[test]
fn an_oversized_record_leaves_the_current_chunk_in_use() {
    let arena = Arena::new(MIN_CHUNK_BYTES, None);
    arena.store(b"a", trailer(1), b"");
    arena.store(b"b", trailer(2), &vec![0; OVERSIZED_BYTES]);
    let reserved = arena.reserved_bytes();
    arena.store(b"c", trailer(3), b"");
    assert_eq!(arena.reserved_bytes(), reserved);
    assert_eq!(
        arena.bytes(),
        24 + (17 + OVERSIZED_BYTES).next_multiple_of(8) + 24
    );
}

#[test]
fn threads_that_allocate_at_once_share_no_byte() {
    let arena = Arena::new(MIN_CHUNK_BYTES, None);
    let each = if cfg!(miri) { 30 } else { 2000u64 };
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let arena = &arena;
            scope.spawn(move || {
                let store = |number| arena.store(&[thread as u8; 90], trailer(number), b"v");
                let stored: Vec<_> = (0..each).map(store).collect();
                for (number, record) in stored.into_iter().enumerate() {
                    // SAFETY: the arena lives, and the record never left this thread.
                    let record = unsafe { record.view() };
                    assert_eq!(record.key, [thread as u8; 90]);
                    assert_eq!(record.trailer, trailer(number as u64));
                }
            });
        }
    });
    assert_eq!(arena.bytes() as u64, 3 * each * 112);
}

#[test]
fn a_pool_holds_no_more_than_its_limit() {
    let pool = ArenaPool::new(3 * MIN_CHUNK_BYTES);
    let fill = || {
        let arena = Arena::new(MIN_CHUNK_BYTES, Some(Arc::clone(&pool)));
        for number in 0..4 {
            arena.store(b"k", trailer(number), &[0; 3000]);
        }
        arena.reserved_bytes()
    };
    let first = fill();
    assert!(first > pool.held_bytes() && pool.held_bytes() > 0);
    assert!(pool.held_bytes() <= 3 * MIN_CHUNK_BYTES);
    assert_eq!(fill(), first);

    pool.rest();
    assert_eq!(pool.held_bytes(), 0);
    assert_eq!((fill(), pool.held_bytes()), (first, 0), "nothing is kept");
    pool.wake();
    assert_eq!(fill(), first);
    assert!(pool.held_bytes() > 0);
}

#[test]
fn a_chunk_is_made_ahead_once_the_last_one_is_taken_and_where_it_may_be_kept() {
    let pool = ArenaPool::new(MAX_CHUNK_BYTES);
    assert!(!pool.wants_chunk());
    let arena = Arena::new(MAX_CHUNK_BYTES, Some(Arc::clone(&pool)));
    arena.store(b"k", trailer(1), b"v");
    assert!(pool.wants_chunk() && !pool.wants_chunk(), "said once");
    pool.make_chunk();
    pool.make_chunk();
    assert_eq!(pool.held_bytes(), MAX_CHUNK_BYTES);
    let next = Arena::new(MAX_CHUNK_BYTES, Some(Arc::clone(&pool)));
    next.store(b"k", trailer(2), b"v");
    assert_eq!((pool.held_bytes(), pool.wants_chunk()), (0, true));
    drop(arena);
    pool.make_chunk();
    assert_eq!(pool.held_bytes(), MAX_CHUNK_BYTES, "there is one");
    pool.rest();
    pool.make_chunk();
    assert_eq!(pool.held_bytes(), 0, "nobody writes");
    let small = ArenaPool::new(MAX_CHUNK_BYTES - 1);
    small.make_chunk();
    assert_eq!(small.held_bytes(), 0);
}

/// The story: writers waited for four or five milliseconds for the first touch of a huge page, where the host of the
/// machine had taken the memory back.
#[test]
fn nobody_waits_for_a_huge_page_while_these_are_made_slowly() {
    let pool = ArenaPool::new(MAX_CHUNK_BYTES);
    assert_eq!(pool.pages(), Pages::Huge);
    assert!(pool.make_chunk());
    pool.note_made(true);
    assert_eq!(pool.pages(), Pages::Small);
    // What was made ahead is taken first, whatever it is made of, and small pages hold as much.
    let arena = Arena::new(MAX_CHUNK_BYTES, Some(Arc::clone(&pool)));
    let stored: Vec<_> = (0..40u64)
        .map(|number| arena.store(&number.to_be_bytes(), trailer(number), &[7; 100_000]))
        .collect();
    for (number, record) in stored.into_iter().enumerate() {
        // SAFETY: the arena lives, and nothing left this thread.
        let record = unsafe { record.view() };
        assert_eq!(record.key, (number as u64).to_be_bytes());
        assert!(record.value.iter().all(|&byte| byte == 7) && record.value.len() == 100_000);
    }
    pool.note_made(false);
    assert_eq!(pool.pages(), Pages::Huge);
}

//! `Options::memory_budget_bytes` under hostile loads, by an allocator that counts: whatever is done, the
//! process takes no more than the budget beside what the test itself holds. One test, since it looks
//! at the whole process. In a release build the loads are ten times larger.
//!
//! `cargo test --release -p esker --test memory_budget -- --nocapture` prints what each load took.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::thread;

use esker::{Db, Durability, Error, ErrorKind, Options, WriteBatch, WriteOptions};
use esker_testkit::seed::noise;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const BUDGET: usize = 48 << 20;
/// How many scans are open at once.
const SCANS: usize = 64;
/// How much is written by each load, in parts of the budget.
const TIMES: usize = if cfg!(debug_assertions) { 1 } else { 10 };

fn buffered() -> WriteOptions {
    WriteOptions::new().durability(Durability::Buffered)
}

fn key(number: usize) -> [u8; 8] {
    (number as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_be_bytes()
}

fn write_random(db: &Db, value_bytes: usize) {
    let count = TIMES * BUDGET / (value_bytes + 8);
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in (part..count).step_by(4) {
                    let value = noise(number as u64, value_bytes);
                    db.put_opt(key(number), value, &buffered()).unwrap();
                }
            });
        }
    });
}

/// Values that compress to half, each of which fills a block alone.
const WHOLE_BLOCK_BYTES: usize = 16 << 10;

fn write_whole_blocks(db: &Db) {
    let count = TIMES * BUDGET / WHOLE_BLOCK_BYTES;
    for number in 0..2 * count {
        let value = noise(number as u64, WHOLE_BLOCK_BYTES / 2).repeat(2);
        // Every key twice.
        db.put_opt(key(number % count), value, &buffered()).unwrap();
    }
}

fn read_whole_blocks(db: &Db) {
    let count = TIMES * BUDGET / WHOLE_BLOCK_BYTES;
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in (part..count).step_by(4) {
                    let value = db.get(key(number)).unwrap();
                    assert!(value.is_some_and(|value| !value.is_empty()));
                }
            });
        }
    });
}

/// Index and filter are most of what there is.
fn write_tiny(db: &Db) {
    for number in 0..TIMES * 100_000 {
        db.put_opt(key(number), "", &buffered()).unwrap();
    }
    db.flush().unwrap();
    assert!(db.get(key(7)).unwrap().is_some());
}

fn write_many_keyspaces(db: &Db) {
    let keyspaces: Vec<_> = (0..300)
        .map(|number| db.keyspace(&format!("keyspace {number}")).unwrap())
        .collect();
    let value = noise(1, 2000);
    for number in 0..TIMES * BUDGET / 2000 {
        let keyspace = &keyspaces[number % keyspaces.len()];
        keyspace.put_opt(key(number), &value, &buffered()).unwrap();
    }
}

/// The largest values that the budget has room for, and larger ones, which are refused.
fn write_large(db: &Db) {
    let largest = BUDGET / 128;
    for number in 0..TIMES * BUDGET / largest {
        let value = noise(number as u64, largest);
        db.put_opt(key(number), value, &buffered()).unwrap();
    }
    let kind = |result: Result<(), Error>| result.unwrap_err().kind();
    let refused = db.put_opt("k", vec![7; largest + 1], &buffered());
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
    let mut batch = WriteBatch::new();
    for number in 0..9 {
        batch.put(key(number), noise(1, largest));
    }
    assert_eq!(kind(db.write(batch)), ErrorKind::LimitExceeded);
}

fn read_everything(db: &Db) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let forwards = db.iter().map(|entry| entry.unwrap().1.len()).sum::<usize>();
                let backwards = db.iter().rev().map(|entry| entry.unwrap().1.len());
                assert_eq!(forwards, backwards.sum::<usize>());
            });
        }
    });
}

/// Each stands in every run, and holds on to where it is while the others walk. Some runs have the largest values
/// that there may be: not all that begin find memory for theirs.
fn scan_at_once(db: &Db) {
    let mut scans: Vec<_> = (0..SCANS).map(|first| db.range(key(first)..)).collect();
    let mut refused = 0;
    for round in 0..TIMES * 300 {
        scans.retain_mut(|scan| match scan.next() {
            Some(Err(error)) => {
                assert_eq!((error.kind(), round), (ErrorKind::LimitExceeded, 0));
                refused += 1;
                false
            }
            _ => true,
        });
    }
    println!("{refused} of {SCANS} scans were refused");
    assert!(refused < SCANS / 2);
}

/// Each stands on a block that it found in the cache, and the cache lets go of them for others. The story: what
/// the cache had let go of was counted no more, though the scans held it.
fn hold_cached_blocks(db: &Db) {
    const HELD: usize = 800;
    let mut scans = Vec::new();
    for number in 0..HELD {
        assert!(db.get(key(number)).unwrap().is_some());
        let mut scan = db.cursor();
        match scan.seek(key(number)) {
            Ok(()) => scans.push(scan),
            Err(error) => assert_eq!(error.kind(), ErrorKind::LimitExceeded),
        }
    }
    println!("{} of {HELD} scans were let in", scans.len());
    assert!(scans.len() > HELD / 2);
    for round in 0..2 {
        for number in HELD..TIMES * BUDGET / WHOLE_BLOCK_BYTES {
            assert!(db.get(key(number)).unwrap().is_some());
        }
        if round == 0 {
            write_random(db, 400);
        }
    }
}

/// More scans than there is memory for, each on a value of its own. The story: four thousand took 71 to 134 MiB of
/// 48.
fn scan_too_many(db: &Db) {
    let mut scans = Vec::new();
    let mut refused = 0;
    for number in 0..4000 {
        let mut scan = db.cursor();
        match scan.seek(key(number)) {
            Ok(()) => scans.push(scan),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LimitExceeded);
                assert!(!scan.valid());
                refused += 1;
            }
        }
    }
    println!("{} of 4,000 scans were let in", scans.len());
    assert!(refused > 0 && scans.len() > 200);
    // Those that were go on, and lookups find room.
    for scan in &mut scans {
        scan.next().unwrap();
    }
    assert!(db.get(key(7)).unwrap().is_some());
    // Where some end others may begin.
    scans.truncate(scans.len() / 2);
    db.cursor().seek(key(1)).unwrap();
}

/// Values that are kept, beside scans: they are the caller's own where the budget gets short.
fn keep_values(db: &Db) -> usize {
    let count = TIMES * BUDGET / WHOLE_BLOCK_BYTES;
    let kept: Vec<_> = (0..count.min(3000))
        .map(|number| db.get(key(number)).unwrap().unwrap())
        .collect();
    let mut scan = db.cursor();
    scan.seek_to_first().unwrap();
    assert!(scan.valid());
    kept.iter().map(|value| value.len()).sum()
}

fn compact(db: &Db) {
    db.compact().unwrap();
    db.wait_for_background_work().unwrap();
}

#[test]
fn no_load_takes_more_than_the_budget() {
    let home = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options::new().memory_budget_bytes(BUDGET as u64);
        options.open(home.path()).unwrap()
    };
    let mut db = open();
    type Load = (&'static str, fn(&Db));
    let loads: [Load; 14] = [
        ("random writes of 400 bytes", |db| write_random(db, 400)),
        ("the same again", |db| write_random(db, 400)),
        ("keys without values", write_tiny),
        ("300 keyspaces", write_many_keyspaces),
        ("large values", write_large),
        ("values of 16 KiB", write_whole_blocks),
        ("reads of them", read_whole_blocks),
        ("scans both ways from four threads", read_everything),
        ("sixty-four scans at once", scan_at_once),
        ("compaction", compact),
        ("scans of one run", read_everything),
        ("scans beyond the budget", scan_too_many),
        ("scans on cached blocks", hold_cached_blocks),
        ("validation", |db| {
            assert!(db.validate().unwrap().issues().is_empty());
        }),
    ];
    for (name, load) in loads {
        ALLOCATOR.reset_peak_usage();
        load(&db);
        report(name);
        // An open reads the log back into memtables.
        ALLOCATOR.reset_peak_usage();
        drop(db);
        db = open();
        report("closing and opening");
    }
    ALLOCATOR.reset_peak_usage();
    let kept = keep_values(&db);
    let beside = ALLOCATOR.peak_usage().saturating_sub(kept);
    assert!(
        beside <= BUDGET,
        "{beside} beside {kept} that the caller has"
    );
    let refused = Options::new()
        .memory_budget_bytes(1 << 20)
        .open(home.path());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let in_memory = Options::new().memory_budget_bytes(BUDGET as u64);
    assert_eq!(
        in_memory.open_in_memory().unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

fn report(load: &str) {
    let peak = ALLOCATOR.peak_usage();
    let share = peak as f64 / BUDGET as f64;
    println!(
        "{load}: {:.1} MiB, {share:.2} of the budget",
        peak as f64 / (1 << 20) as f64
    );
    assert!(peak <= BUDGET, "{load} took {peak} bytes of {BUDGET}");
}

//! Transactions a second from one, two and four threads: of keys that nobody else wants, of ranges,
//! of keys that all want, and plain writes by themselves and beside transactions.
//!
//! To compare two revisions, run this binary of each in turns and compare medians: threads on a busy
//! machine vary more than most changes do.
#![allow(clippy::expect_used)] // What fails here fails the measurement.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use esker::{Db, Durability, Options, Result, Transaction};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KEYS: u64 = 200_000;
const THREADS: [u64; 3] = [1, 2, 4];

fn database() -> (tempfile::TempDir, Db) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = Options::new()
        .default_durability(Durability::Buffered)
        .open(directory.path())
        .expect("an empty directory");
    let entries = (0..KEYS).map(|key| (key.to_be_bytes(), [b'v'; 100]));
    db.ingest(entries).expect("ascending keys");
    (directory, db)
}

/// The key that a thread touches in its `step`-th step: in a part of its own, in no order.
fn own_key(thread: u64, threads: u64, step: u64) -> u64 {
    let part = KEYS / threads;
    thread * part + step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % part
}

/// Runs `iterations` of `body` on so many threads, each with its number and a counter of its own.
fn on_threads(threads: u64, iterations: u64, body: impl Fn(u64, u64) + Sync) -> Duration {
    let begun = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let body = &body;
            scope.spawn(move || {
                let steps = iterations / threads + u64::from(thread < iterations % threads);
                (0..steps).for_each(|step| body(thread, step));
            });
        }
    });
    begun.elapsed()
}

/// Four reads and two writes.
fn read_and_write(tx: &mut Transaction, keys: [u64; 4]) -> Result<()> {
    for key in keys {
        tx.get(key.to_be_bytes())?;
    }
    for key in &keys[..2] {
        tx.put(key.to_be_bytes(), [b'w'; 100])?;
    }
    Ok(())
}

fn disjoint(db: &Db, threads: u64, iterations: u64) -> Duration {
    on_threads(threads, iterations, |thread, step| {
        let keys = [0, 1, 2, 3].map(|n| own_key(thread, threads, step * 4 + n));
        db.transact(|tx| read_and_write(tx, keys)).expect("commits");
    })
}

fn ranges(db: &Db, threads: u64, iterations: u64) -> Duration {
    on_threads(threads, iterations, |thread, step| {
        let first = own_key(thread, threads, step);
        db.transact(|tx| {
            let range = first.to_be_bytes()..(first + 100).to_be_bytes();
            let read = tx.range(range).count() as u64;
            tx.put(first.to_be_bytes(), read.to_be_bytes())
        })
        .expect("commits");
    })
}

fn contended(db: &Db, threads: u64, iterations: u64) -> Duration {
    on_threads(threads, iterations, |thread, step| {
        let key = (thread + step) % 8;
        db.transact(|tx| {
            let seen = tx.get(key.to_be_bytes())?.map_or(0, |value| value.len());
            tx.put(key.to_be_bytes(), vec![b'c'; seen % 100 + 1])
        })
        .expect("commits within its retries");
    })
}

fn puts(db: &Db, threads: u64, iterations: u64) -> Duration {
    on_threads(threads, iterations, |thread, step| {
        let key = own_key(thread, threads, step);
        db.put(key.to_be_bytes(), [b'p'; 100]).expect("written");
    })
}

/// Plain writes while one thread runs transactions.
fn puts_beside(db: &Db, threads: u64, iterations: u64) -> Duration {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut step = 0;
            while !done.load(Ordering::Relaxed) {
                let keys = [0, 1, 2, 3].map(|n| own_key(0, 1, step * 4 + n));
                db.transact(|tx| read_and_write(tx, keys)).expect("commits");
                step += 1;
            }
        });
        let took = puts(db, threads, iterations);
        done.store(true, Ordering::Relaxed);
        took
    })
}

type Workload = fn(&Db, u64, u64) -> Duration;

fn benches(criterion: &mut Criterion) {
    let workloads: [(&str, Workload); 5] = [
        ("disjoint", disjoint),
        ("ranges", ranges),
        ("contended", contended),
        ("puts", puts),
        ("puts beside transactions", puts_beside),
    ];
    for (name, workload) in workloads {
        let mut group = criterion.benchmark_group(format!("transactions/{name}"));
        group.throughput(Throughput::Elements(1));
        for threads in THREADS {
            let (_directory, db) = database();
            group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
                bencher.iter_custom(|iterations| workload(&db, threads, iterations));
            });
            db.close().expect("closes");
        }
        group.finish();
    }
}

criterion_group!(transactions, benches);
criterion_main!(transactions);

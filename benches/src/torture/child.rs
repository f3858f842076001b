//! The process that is killed: writes as fast as it can, and says after each write that it is done.
//!
//! Invariant: an answer is in the pipe, as one line of one write, only after the engine has
//! acknowledged the write.

use super::plan::{self, MIRROR, THREADS, Write};
use crate::args::Args;
use crate::cli::Refusal;
use crate::exit::{FAILED, USAGE};
use esker::{Db, Durability, WriteOptions};
use std::io::Write as _;

/// Writes for ever, each thread from where it stood.
///
/// # Errors
/// Of the engine: nothing that it answers here is expected.
pub(crate) fn run(args: &Args, begin: &str) -> Result<u8, Refusal> {
    let refuse = |sentence: &str| (USAGE, sentence.to_owned());
    let directory = args
        .db
        .as_deref()
        .ok_or_else(|| refuse("a child needs --db"))?;
    let begin: Result<Vec<u64>, _> = begin.split(',').map(str::parse).collect();
    let begin = begin.map_err(|_| refuse("--torture_child takes numbers"))?;
    if begin.len() != THREADS {
        return Err(refuse("--torture_child takes a number for each thread"));
    }
    let db = plan::open(directory).map_err(|error| (FAILED, error.to_string()))?;
    std::thread::scope(|scope| {
        for (thread, begin) in begin.iter().enumerate() {
            let db = &db;
            scope.spawn(move || {
                if let Err(sentence) = write(db, args.seed, thread, *begin) {
                    // Who waits for this process sees that it has not been killed.
                    eprintln!("db_bench: {sentence}");
                    std::process::exit(i32::from(FAILED));
                }
            });
        }
    });
    Ok(FAILED)
}

/// Never ends but by an error, or with its process.
fn write(db: &Db, seed: u64, thread: usize, begin: u64) -> Result<(), String> {
    let mirror = db.keyspace(MIRROR).map_err(|error| error.to_string())?;
    answer(thread, begin)?;
    for number in begin.. {
        let write = Write::of(seed, thread, number);
        let durability = match write.is_sync {
            true => Durability::Sync,
            false => Durability::Buffered,
        };
        let options = WriteOptions::new().durability(durability);
        let written = db.write_opt(write.batch(db, &mirror), &options);
        written.map_err(|error| error.to_string())?;
        answer(thread, number + 1)?;
    }
    Ok(())
}

/// Says that thread `thread` has so many writes behind it.
fn answer(thread: usize, writes: u64) -> Result<(), String> {
    let line = format!("{thread} {writes}\n");
    // Short enough that a pipe takes it whole or not at all.
    let mut out = std::io::stdout().lock();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| error.to_string())
}

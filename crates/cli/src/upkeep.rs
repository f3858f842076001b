//! `stats`, `verify` and `compact`: verbs on the database as a whole.
//!
//! Invariant: `verify` succeeds only if every check passed; it never repairs.

use std::path::Path;

use esker::Db;
use serde_json::{Value, json};

use crate::args::Stats;
use crate::failure::{Failure, Result};
use crate::open;
use crate::streams::Output;

/// Prints what the database is made of.
pub(crate) fn stats(directory: &Path, verb: &Stats) -> Result<()> {
    let db = open::for_reading(directory)?;
    let text = if verb.json {
        format!("{:#}\n", as_json(&db)?)
    } else {
        as_table(&db)?
    };
    let mut output = Output::standard();
    output.write(text.as_bytes())?;
    output.finish()?;
    Ok(db.close()?)
}

/// What takes how many bytes, with the names that both forms use.
fn sizes(db: &Db) -> Result<[(&'static str, u64); 6]> {
    let usage = db.disk_usage()?;
    Ok([
        ("total_bytes", usage.total_bytes()),
        ("live_bytes", usage.live_bytes()),
        ("garbage_bytes", usage.garbage_bytes()),
        ("wal_bytes", usage.wal_bytes()),
        ("manifest_bytes", usage.manifest_bytes()),
        ("memtable_bytes", db.stats().memtable_bytes()),
    ])
}

fn as_json(db: &Db) -> Result<Value> {
    let stats = db.stats();
    let levels = stats.levels().iter().map(|level| {
        json!({
            "runs": level.runs,
            "tables": level.tables,
            "bytes": level.bytes,
            "entries": level.entries,
        })
    });
    let levels: Vec<Value> = levels.collect();
    let mut object = json!({ "keyspaces": db.keyspace_names()?, "levels": levels });
    for (name, bytes) in sizes(db)? {
        object[name] = bytes.into();
    }
    Ok(object)
}

fn as_table(db: &Db) -> Result<String> {
    let stats = db.stats();
    let mut text = String::from("level   runs   tables            bytes        entries\n");
    for (number, level) in stats.levels().iter().enumerate() {
        let (runs, tables, bytes, entries) = (level.runs, level.tables, level.bytes, level.entries);
        text += &format!("{number:<5} {runs:>6} {tables:>8} {bytes:>16} {entries:>14}\n");
    }
    text += "(of the default keyspace)\n\n";
    for (name, bytes) in sizes(db)? {
        text += &format!("{name:<21} {bytes:>16}\n");
    }
    text += &format!("\nkeyspaces: {}\n", db.keyspace_names()?.join(", "));
    Ok(text)
}

/// Checks every byte of the database.
pub(crate) fn verify(directory: &Path) -> Result<()> {
    match check(directory) {
        // What is too damaged to be opened has been found not to be well.
        Err(Failure::Damage(message)) => Err(Failure::Refused(message)),
        result => result,
    }
}

fn check(directory: &Path) -> Result<()> {
    let db = open::for_reading(directory)?;
    let report = db.validate()?;
    db.close()?;
    let mut output = Output::standard();
    for issue in report.issues() {
        output.write(format!("{issue}\n").as_bytes())?;
    }
    if report.is_ok() {
        output.write(b"all is well\n")?;
        return output.finish();
    }
    output.finish()?;
    let count = report.issues().len();
    Err(Failure::Refused(format!(
        "the database is not well: {count} findings, listed above"
    )))
}

/// Merges all tables.
pub(crate) fn compact(directory: &Path) -> Result<()> {
    let db = open::for_writing(directory)?;
    db.compact()?;
    Ok(db.close()?)
}

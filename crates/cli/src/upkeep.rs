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
        format!("{:#}\n", as_json(&db))
    } else {
        as_table(&db)
    };
    let mut output = Output::standard();
    output.write(text.as_bytes())?;
    output.finish()?;
    Ok(db.close()?)
}

fn as_json(db: &Db) -> Value {
    let stats = db.stats();
    let levels: Vec<Value> = stats
        .levels()
        .iter()
        .map(|level| {
            json!({
                "runs": level.runs,
                "tables": level.tables,
                "bytes": level.bytes,
                "entries": level.entries,
            })
        })
        .collect();
    json!({ "memtable_bytes": stats.memtable_bytes(), "levels": levels })
}

fn as_table(db: &Db) -> String {
    let stats = db.stats();
    let mut lines = vec![row(
        &["level", "runs", "tables", "bytes", "entries"].map(String::from)
    )];
    let (mut tables, mut bytes, mut entries) = (0, 0, 0);
    for (number, level) in stats.levels().iter().enumerate() {
        let cells = [
            number.to_string(),
            level.runs.to_string(),
            level.tables.to_string(),
            level.bytes.to_string(),
            level.entries.to_string(),
        ];
        lines.push(row(&cells));
        tables += level.tables;
        bytes += level.bytes;
        entries += level.entries;
    }
    let total = [
        "all".into(),
        String::new(),
        tables.to_string(),
        bytes.to_string(),
        entries.to_string(),
    ];
    lines.push(row(&total));
    lines.push(format!(
        "not in tables yet: {} bytes\n",
        stats.memtable_bytes()
    ));
    lines.concat()
}

fn row(cells: &[String; 5]) -> String {
    let [level, runs, tables, bytes, entries] = cells;
    format!("{level:<5} {runs:>6} {tables:>8} {bytes:>16} {entries:>14}\n")
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

//! `export`: streams every record of a database to a file or pipe, in key order.
//!
//! Invariant: one moment of the database is written, in memory bounded by its longest record. A
//! record that the format cannot hold ends the export; a file then never appears.

use clap::ValueEnum as _;
use esker::Keyspace;

use crate::failure::{Failure, Result};
use crate::formats::Format;
use crate::keys;
use crate::progress::Progress;
use crate::streams::Output;
use crate::verb_arguments::Export;

/// The bar moves after this many records.
const PROGRESS_RECORDS: u64 = 1000;

/// Streams records out, and says how many.
pub(crate) fn run(keyspace: &Keyspace, verb: &Export) -> Result<u64> {
    export(keyspace, Output::create(&verb.file)?, verb.format)
}

fn export(keyspace: &Keyspace, mut output: Output, format: Format) -> Result<u64> {
    let progress = Progress::new(None);
    let mut cursor = keyspace.cursor();
    cursor.seek_to_first()?;
    let mut line = Vec::new();
    let (mut records, mut bytes) = (0, 0);
    while cursor.valid() {
        line.clear();
        let encoded = format.encode(cursor.key(), cursor.value(), &mut line);
        encoded.map_err(|problem| refused(cursor.key(), format, &problem))?;
        output.write(&line)?;
        records += 1;
        bytes += line.len() as u64;
        if records % PROGRESS_RECORDS == 0 {
            progress.set(bytes, records);
        }
        cursor.next()?;
    }
    output.finish()?;
    Ok(records)
}

fn refused(key: &[u8], format: Format, problem: &str) -> Failure {
    let name = format.to_possible_value();
    let name = name.as_ref().map_or("this format", |name| name.get_name());
    let shown = keys::shown(key);
    Failure::Refused(format!(
        "the record of key {shown} has no line in {name}: {problem}; tsv and jsonl can hold it"
    ))
}

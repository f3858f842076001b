//! `import`: streams the records of a file or pipe into a database.
//!
//! Invariant: memory is bounded by a batch and the longest record, whatever the stream's length.
//! Records are applied in their order, so that the last of a key wins. When the verb returns, what
//! it says was imported is on stable storage, and that is everything up to the end or to the line
//! that it names.

use std::io::BufRead;

use esker::{Db, Durability, Keyspace, WriteBatch, WriteOptions};

use crate::failure::{Failure, Result};
use crate::formats::lines::{LineError, LineReader};
use crate::formats::{Format, Problem, RecordLimits};
use crate::progress::Progress;
use crate::streams::Input;

/// A batch is written when it holds this many records...
const BATCH_RECORDS: usize = 1000;
/// ...or this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Streams records into `keyspace` of `db`, and says how many.
pub(crate) fn run(keyspace: &Keyspace, db: &Db, input: Input, format: Format) -> Result<u64> {
    let options = db.options();
    let limits = RecordLimits {
        key_bytes: options.max_key_bytes(),
        value_bytes: options.max_value_bytes(),
    };
    let progress = Progress::new(input.bytes);
    let mut lines = LineReader::new(input.reader, format.line_limits(limits));
    let mut writer = Writer::new(keyspace, db);
    let read = read_all(&mut lines, &mut writer, format, limits, &progress);
    drop(progress);
    // The records before a bad line are kept, and durable like all others.
    let written = if matches!(read, Err(Stop::Engine(_))) {
        Ok(())
    } else {
        writer.finish()
    };
    let so_far = counted(writer.written);
    let line = lines.number();
    match (read, written) {
        (Ok(()), Ok(())) => Ok(writer.written),
        (Err(Stop::Line(problem)), Ok(())) => {
            let sentence = format!("line {line}: {problem}; {so_far} before it were imported");
            Err(Failure::Refused(sentence))
        }
        (Err(Stop::Io(error)), Ok(())) => {
            let sentence = format!(
                "could not read on after line {}: {error}; {so_far} were imported",
                line.saturating_sub(1)
            );
            Err(Failure::Engine(sentence))
        }
        (Err(Stop::Engine(error)), _) | (_, Err(error)) => {
            let sentence = format!("{error}; {so_far} were written, up to about line {line}");
            Err(Failure::Engine(sentence))
        }
    }
}

/// Why reading ended before the stream did.
enum Stop {
    Line(String),
    Io(std::io::Error),
    Engine(esker::Error),
}

fn read_all(
    lines: &mut LineReader<Box<dyn BufRead>>,
    writer: &mut Writer<'_>,
    format: Format,
    limits: RecordLimits,
    progress: &Progress,
) -> std::result::Result<(), Stop> {
    let mut bytes = 0;
    loop {
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) => return Err(stop_of(error, limits)),
        };
        bytes += line.len() as u64 + 1;
        let refused = |problem: Problem| Stop::Line(problem.into_owned());
        let Some(record) = format.decode(line).map_err(refused)? else {
            continue;
        };
        limits.check(&record).map_err(refused)?;
        if writer
            .put(&record.key, &record.value)
            .map_err(Stop::Engine)?
        {
            progress.set(bytes, writer.written);
        }
    }
}

fn stop_of(error: LineError, limits: RecordLimits) -> Stop {
    match error {
        LineError::Io(error) => Stop::Io(error),
        LineError::TooLong { limit } => Stop::Line(format!(
            "it is longer than {limit} bytes, which no record within the limits needs \
             (keys {} bytes, values {} bytes)",
            limits.key_bytes, limits.value_bytes
        )),
        LineError::Head(problem) => Stop::Line(problem.into_owned()),
    }
}

/// Gathers records into batches.
struct Writer<'a> {
    keyspace: &'a Keyspace,
    db: &'a Db,
    batch: WriteBatch,
    batch_bytes: usize,
    /// Records in batches that were written.
    written: u64,
}

impl<'a> Writer<'a> {
    fn new(keyspace: &'a Keyspace, db: &'a Db) -> Self {
        Self {
            keyspace,
            db,
            batch: WriteBatch::new(),
            batch_bytes: 0,
            written: 0,
        }
    }

    /// Takes a record; whether a batch was written before it. The last batch is thus never empty
    /// when there was any record, and [`Writer::finish`] can make everything durable through it.
    fn put(&mut self, key: &[u8], value: &[u8]) -> esker::Result<bool> {
        let bytes = key.len() + value.len();
        let is_full = self.batch.len() >= BATCH_RECORDS
            || (!self.batch.is_empty() && self.batch_bytes + bytes > BATCH_BYTES);
        if is_full {
            self.write(Durability::Buffered)?;
        }
        self.batch.put_in(self.keyspace, key, value);
        self.batch_bytes += bytes;
        Ok(is_full)
    }

    /// Writes what is left and syncs it, and with it everything before it.
    fn finish(&mut self) -> esker::Result<()> {
        if self.batch.is_empty() {
            Ok(())
        } else {
            self.write(Durability::Sync)
        }
    }

    fn write(&mut self, durability: Durability) -> esker::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let records = batch.len() as u64;
        self.batch_bytes = 0;
        self.db
            .write_opt(batch, &WriteOptions::new().durability(durability))?;
        self.written += records;
        Ok(())
    }
}

/// "1 record", "2 records".
pub(crate) fn counted(records: u64) -> String {
    if records == 1 {
        "1 record".into()
    } else {
        format!("{records} records")
    }
}

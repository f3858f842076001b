//! The three line formats in which records travel in and out of a database.
//!
//! Invariant: every format is bytes to bytes. What `encode` accepts, `decode` gives back exactly,
//! and `encode` refuses what its format cannot hold instead of bending it. A line never contains a
//! newline, so that a stream can be cut into lines before it is understood. Called by `import`,
//! `export` and `scan`.

use std::borrow::Cow;

use clap::ValueEnum;

mod jsonl;
pub(crate) mod lines;
mod raw_tsv;
mod tsv;

#[cfg(test)]
mod tests;

/// How a record is written on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Key, tab, value; bytes as they stand (no tab or newline in a key, no newline in a value)
    RawTsv,
    /// Key, tab, value; backslash, tab, newline and carriage return written as \\ \t \n \r
    Tsv,
    /// {"key":"...","value":"..."}; what is not UTF-8 is written as {"base64":"..."}
    Jsonl,
}

/// What a record may at most measure. Comes from the options of the open database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordLimits {
    /// The longest key, bytes.
    pub(crate) key_bytes: usize,
    /// The longest value, bytes.
    pub(crate) value_bytes: usize,
}

/// A key and its value, borrowed from their line where the line holds them unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The user key.
    pub(crate) key: Cow<'a, [u8]>,
    /// The value.
    pub(crate) value: Cow<'a, [u8]>,
}

/// Why a line is no record, or a record no line: the end of a sentence that names which.
pub(crate) type Problem = Cow<'static, str>;

impl Format {
    /// The record on `line` (which has no newline); `None` for a line that holds none by the rules
    /// of the format.
    pub(crate) fn decode(self, line: &[u8]) -> Result<Option<Record<'_>>, Problem> {
        match self {
            Self::RawTsv => raw_tsv::decode(line).map(Some),
            Self::Tsv => tsv::decode(line).map(Some),
            Self::Jsonl => jsonl::decode(line),
        }
    }

    /// Appends the record and a newline to `out`; on an error `out` is unchanged.
    pub(crate) fn encode(self, key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        match self {
            Self::RawTsv => raw_tsv::encode(key, value, out)?,
            Self::Tsv => tsv::encode(key, value, out),
            Self::Jsonl => jsonl::encode(key, value, out)?,
        }
        out.push(b'\n');
        Ok(())
    }

    /// How long a line may be that holds a record within `limits`.
    pub(crate) fn line_limits(self, limits: RecordLimits) -> lines::LineLimits {
        // The most bytes of a line that one byte of a key or value can take.
        let widest = match self {
            Self::RawTsv => 1,
            Self::Tsv => 2,   // \t
            Self::Jsonl => 6, // \u0001
        };
        let record_bytes = limits.key_bytes.saturating_add(limits.value_bytes);
        let syntax_bytes = 1 << 10;
        lines::LineLimits {
            line_bytes: record_bytes
                .saturating_mul(widest)
                .saturating_add(syntax_bytes),
            // One byte more than the longest key: its tab.
            head_bytes: limits.key_bytes.saturating_mul(widest).saturating_add(1),
            check_head: match self {
                Self::RawTsv => raw_tsv::check_head,
                Self::Tsv => tsv::check_head,
                Self::Jsonl => jsonl::check_head,
            },
        }
    }
}

impl RecordLimits {
    /// Whether the database would take this record: said here, so that the message can name the
    /// line instead of a whole batch.
    pub(crate) fn check(&self, record: &Record<'_>) -> Result<(), Problem> {
        if record.key.is_empty() {
            return Err("the key is empty".into());
        }
        if record.key.len() > self.key_bytes {
            let bytes = record.key.len();
            let limit = self.key_bytes;
            return Err(format!("the key has {bytes} bytes; the limit is {limit}").into());
        }
        if record.value.len() > self.value_bytes {
            let bytes = record.value.len();
            let limit = self.value_bytes;
            return Err(format!("the value has {bytes} bytes; the limit is {limit}").into());
        }
        Ok(())
    }
}

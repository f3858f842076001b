//! `raw-tsv`: the key up to the first tab, the value the rest of the line, bytes as they stand.
//!
//! Invariant: nothing is escaped, so a record with a tab or newline in its key or a newline in its
//! value has no line and is refused. A carriage return is a byte like any other.

use std::borrow::Cow;

use super::{Problem, Record};

/// The record on `line`.
pub(super) fn decode(line: &[u8]) -> Result<Record<'_>, Problem> {
    let Some(tab) = line.iter().position(|byte| *byte == b'\t') else {
        return Err("there is no tab between a key and a value".into());
    };
    Ok(Record {
        key: Cow::Borrowed(&line[..tab]),
        value: Cow::Borrowed(&line[tab + 1..]),
    })
}

/// Whether a line that begins so, and is longer than any key, can hold a record.
pub(super) fn check_head(head: &[u8]) -> Result<(), Problem> {
    if head.contains(&b'\t') {
        return Ok(());
    }
    let bytes = head.len();
    Err(format!("there is no tab within its first {bytes} bytes, more than a key can have").into())
}

/// Appends the record's line, without a newline.
pub(super) fn encode(key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    if key.contains(&b'\t') {
        return Err("its key holds a tab".into());
    }
    if key.contains(&b'\n') {
        return Err("its key holds a newline".into());
    }
    if value.contains(&b'\n') {
        return Err("its value holds a newline".into());
    }
    out.extend_from_slice(key);
    out.push(b'\t');
    out.extend_from_slice(value);
    Ok(())
}

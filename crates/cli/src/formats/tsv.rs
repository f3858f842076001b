//! `tsv`: key, tab, value, with backslash, tab, newline and carriage return escaped in both.
//!
//! Invariant: every pair of byte strings has exactly one line, and every line that this file
//! accepts is the line of exactly one pair. Hence a bare carriage return, a second tab and an
//! unknown escape are refused instead of guessed at.

use std::borrow::Cow;

use super::{Problem, Record};

pub(super) use super::raw_tsv::check_head;

/// The record on `line`.
pub(super) fn decode(line: &[u8]) -> Result<Record<'_>, Problem> {
    let Some(tab) = line.iter().position(|byte| *byte == b'\t') else {
        return Err("there is no tab between a key and a value".into());
    };
    let (key, value) = (&line[..tab], &line[tab + 1..]);
    if value.contains(&b'\t') {
        return Err("there is a second tab (a tab within a value is written \\t)".into());
    }
    Ok(Record {
        key: unescape(key)?,
        value: unescape(value)?,
    })
}

/// Appends the record's line, without a newline.
pub(super) fn encode(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    escape(key, out);
    out.push(b'\t');
    escape(value, out);
}

/// Appends `bytes` to `out`, escaped.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(plain) = rest.iter().position(|byte| letter_of(*byte).is_some()) {
        out.extend_from_slice(&rest[..plain]);
        out.push(b'\\');
        out.extend(letter_of(rest[plain]));
        rest = &rest[plain + 1..];
    }
    out.extend_from_slice(rest);
}

/// The letter that stands for a byte after a backslash; `None` for bytes that need none.
fn letter_of(byte: u8) -> Option<u8> {
    Some(match byte {
        b'\\' => b'\\',
        b'\t' => b't',
        b'\n' => b'n',
        b'\r' => b'r',
        _ => return None,
    })
}

/// The bytes that `field` stands for.
fn unescape(field: &[u8]) -> Result<Cow<'_, [u8]>, Problem> {
    if field.contains(&b'\r') {
        let advice = "there is a bare carriage return (write it \\r; \
                      are the line ends those of Windows?)";
        return Err(advice.into());
    }
    if !field.contains(&b'\\') {
        return Ok(Cow::Borrowed(field));
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'\\') => b'\\',
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(other) => {
                let shown = other.escape_ascii();
                return Err(format!("\\{shown} is no escape (there are \\\\ \\t \\n \\r)").into());
            }
            None => return Err("a field ends in a lone backslash".into()),
        });
    }
    Ok(Cow::Owned(bytes))
}

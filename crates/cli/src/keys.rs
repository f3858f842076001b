//! Keys between the command line, the database and messages.
//!
//! Invariant: a key that is printed in a message is one line whatever its bytes; a key that is
//! given in hexadecimal digits is exactly those bytes. Called by the verbs that take keys.

use std::ffi::{OsStr, OsString};

use crate::failure::{Failure, Result};
use crate::verb_arguments::KeyArgument;

/// The longest part of a key that a message shows, bytes.
const SHOWN_BYTES: usize = 80;

/// The bytes of the key that the command line names.
pub(crate) fn bytes_of(argument: &KeyArgument) -> Result<Vec<u8>> {
    parse_key(&argument.key, argument.hex)
}

/// As [`parse`], for a whole key, which is never empty.
pub(crate) fn parse_key(text: &OsStr, hex: bool) -> Result<Vec<u8>> {
    let key = parse(text, hex)?;
    if key.is_empty() {
        return Err(Failure::Usage("a key has at least one byte".into()));
    }
    Ok(key)
}

/// The bytes that `text` stands for: its own, or those that its hexadecimal digits name.
pub(crate) fn parse(text: &OsStr, hex: bool) -> Result<Vec<u8>> {
    if !hex {
        return Ok(text.as_encoded_bytes().to_vec());
    }
    let digits = text.as_encoded_bytes();
    let pairs = digits.chunks_exact(2);
    let is_whole = pairs.remainder().is_empty();
    let bytes = pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    match bytes.collect::<Option<Vec<u8>>>() {
        Some(bytes) if is_whole => Ok(bytes),
        _ => {
            let shown = text.to_string_lossy();
            Err(Failure::Usage(format!(
                "\"{shown}\" is not an even number of hexadecimal digits"
            )))
        }
    }
}

/// As [`parse`], for an option that may be absent.
pub(crate) fn parse_option(text: Option<&OsString>, hex: bool) -> Result<Option<Vec<u8>>> {
    text.map(|text| parse(text, hex)).transpose()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// A key as a message shows it: quoted, escaped, and cut where it is long.
pub(crate) fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if key.len() <= SHOWN_BYTES => format!("{text:?}"),
        _ if key.len() <= SHOWN_BYTES => format!("\"{}\"", key.escape_ascii()),
        _ => format!(
            "\"{}...\" ({} bytes)",
            key[..SHOWN_BYTES].escape_ascii(),
            key.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_bytes() {
        let cases: [(&str, Option<&[u8]>); 6] = [
            ("", Some(b"")),
            ("00fF", Some(b"\x00\xff")),
            ("0", None),
            ("0g", None),
            ("+1", None),
            ("0x00", None),
        ];
        for (text, expected) in cases {
            let parsed = parse(OsStr::new(text), true);
            assert_eq!(parsed.ok().as_deref(), expected, "{text}");
        }
        assert_eq!(parse(OsStr::new("0g"), false).unwrap(), b"0g");
    }

    #[test]
    fn shown_keys_are_one_short_line() {
        assert_eq!(shown("a\nü".as_bytes()), "\"a\\nü\"");
        assert_eq!(shown(b"a\t\xff"), "\"a\\t\\xff\"");
        let long = shown(&[b'a'; 81]);
        assert!(
            long.len() < 120 && long.ends_with("...\" (81 bytes)"),
            "{long}"
        );
    }
}

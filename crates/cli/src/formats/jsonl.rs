//! `jsonl`: one JSON object a line, `{"key":"...","value":"..."}`.
//!
//! Invariant: a key or value that is UTF-8 is a JSON string of exactly those bytes; any other is
//! the object `{"base64":"..."}` (standard alphabet, padded). Both forms are accepted for either,
//! in any order of the two fields; a field of another name is an error, for it would be lost.
//! Lines of white space alone hold no record.

use std::borrow::Cow;
use std::fmt;
use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::{Problem, Record};

/// The record on `line`; `None` for a blank line.
pub(super) fn decode(line: &[u8]) -> Result<Option<Record<'_>>, Problem> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| sentence(&error))?;
    Ok(Some(Record {
        key: fields.key.0,
        value: fields.value.0,
    }))
}

/// Whether a line that begins so can be an object.
pub(super) fn check_head(head: &[u8]) -> Result<(), Problem> {
    if head.trim_ascii_start().first() == Some(&b'{') {
        return Ok(());
    }
    Err("it does not begin with {".into())
}

/// Appends the record's line, without a newline.
pub(super) fn encode(key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    out.extend_from_slice(b"{\"key\":");
    encode_bytes(key, out)?;
    out.extend_from_slice(b",\"value\":");
    encode_bytes(value, out)?;
    out.push(b'}');
    Ok(())
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    if let Ok(text) = str::from_utf8(bytes) {
        return serde_json::to_writer(out, text).map_err(|error| error.to_string().into());
    }
    out.extend_from_slice(b"{\"base64\":\"");
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.map_err(|error| Problem::from(error.to_string()))?);
    out.extend_from_slice(b"\"}");
    Ok(())
}

/// What the JSON parser said, with the column but without its line, which is always 1.
fn sentence(error: &serde_json::Error) -> Problem {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let full = error.to_string();
    let message = full.strip_suffix(&place).unwrap_or(&full);
    format!("{message} (at column {})", error.column()).into()
}

/// The object on a line.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    key: Bytes<'a>,
    #[serde(borrow)]
    value: Bytes<'a>,
}

/// A JSON string or `{"base64":"..."}`.
struct Bytes<'a>(Cow<'a, [u8]>);

/// The object form of [`Bytes`].
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor).map(Bytes)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\":\"...\"}")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text.as_bytes()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.as_bytes().to_vec()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let encoded = Encoded::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let bytes = STANDARD.decode(encoded.base64.as_bytes());
        bytes
            .map(Cow::Owned)
            .map_err(|error| de::Error::custom(format!("bad base64: {error}")))
    }
}

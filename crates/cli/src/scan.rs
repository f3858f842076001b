//! `scan` and `count`: verbs on many keys that print to a terminal or pipe.
//!
//! Invariant: what is printed is escaped tsv, one record a line whatever its bytes.

use std::ops::Bound;
use std::path::Path;

use esker::Db;

use crate::args::Scan;
use crate::failure::{Failure, Result};
use crate::formats::Format;
use crate::streams::Output;
use crate::{keys, open};

/// Prints records in key order.
pub(crate) fn scan(directory: &Path, verb: &Scan) -> Result<()> {
    let range = Range::of(verb)?;
    let db = open::for_reading(directory)?;
    print(&db, &range, verb)?;
    Ok(db.close()?)
}

fn print(db: &Db, range: &Range, verb: &Scan) -> Result<()> {
    let mut entries = db.range::<&[u8]>(range.bounds());
    let mut output = Output::standard();
    let mut line = Vec::new();
    let mut left = verb.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let entry = if verb.reverse {
            entries.next_back()
        } else {
            entries.next()
        };
        let Some(entry) = entry else { break };
        let (key, value) = entry?;
        line.clear();
        let encoded = Format::Tsv.encode(&key, &value, &mut line);
        encoded.map_err(|problem| Failure::Refused(problem.into_owned()))?;
        output.write(&line)?;
        left -= 1;
    }
    output.finish()
}

/// Prints the number of keys, alone.
pub(crate) fn count(directory: &Path) -> Result<()> {
    let db = open::for_reading(directory)?;
    let keys = db.count()?;
    let mut output = Output::standard();
    output.write(format!("{keys}\n").as_bytes())?;
    output.finish()?;
    Ok(db.close()?)
}

/// The keys from `from` (inclusive) to `to` (exclusive; `None`: to the last).
#[derive(Debug, PartialEq, Eq)]
struct Range {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Range {
    /// The keys that all options of the command line agree on.
    fn of(verb: &Scan) -> Result<Self> {
        let prefix = keys::parse_option(verb.prefix.as_ref(), verb.hex)?;
        let from = keys::parse_option(verb.from.as_ref(), verb.hex)?.unwrap_or_default();
        let to = keys::parse_option(verb.to.as_ref(), verb.hex)?;
        if to.as_ref().is_some_and(|to| *to < from) {
            return Err(Failure::Usage("--to comes before --from".into()));
        }
        let Some(prefix) = prefix else {
            return Ok(Self { from, to });
        };
        let end = end_of_prefix(&prefix);
        let to = match (to, end) {
            (Some(to), Some(end)) => Some(to.min(end)),
            (to, end) => to.or(end),
        };
        Ok(Self {
            from: from.max(prefix),
            to,
        })
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = if self.from.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(self.from.as_slice())
        };
        (
            from,
            self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        )
    }
}

/// The smallest key beyond all that begin with `prefix`; `None` where there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn a_range_is_what_all_options_agree_on() {
        type Case<'a> = (
            Option<&'a str>,
            Option<&'a str>,
            Option<&'a str>,
            &'a str,
            Option<&'a str>,
        );
        let cases: [Case<'_>; 7] = [
            (None, None, None, "", None),
            (None, Some("b"), Some("d"), "b", Some("d")),
            (Some("b"), None, None, "b", Some("c")),
            (Some("b"), Some("bb"), None, "bb", Some("c")),
            (Some("b"), Some("a"), Some("bx"), "b", Some("bx")),
            (Some("b"), Some("c"), None, "c", Some("c")),
            (Some("b"), None, Some("a"), "b", Some("a")),
        ];
        for (prefix, from, to, expected_from, expected_to) in cases {
            let verb = Scan {
                prefix: prefix.map(OsString::from),
                from: from.map(OsString::from),
                to: to.map(OsString::from),
                limit: None,
                reverse: false,
                hex: false,
            };
            let range = Range::of(&verb).unwrap();
            let expected_to = expected_to.map(|to| to.as_bytes().to_vec());
            assert_eq!(
                range,
                Range {
                    from: expected_from.as_bytes().to_vec(),
                    to: expected_to
                }
            );
        }
        assert_eq!(end_of_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of_prefix(b"\xff"), None);
    }
}

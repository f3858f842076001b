//! The range of keys that options agree on: `--prefix`, `--from` and `--to`.
//!
//! Invariant: pure; the range is the intersection of all that was given. Called by the verbs that
//! take ranges.

use std::ops::Bound;

use crate::failure::{Failure, Result};
use crate::keys;
use crate::verb_arguments::RangeArguments;

/// The keys from `from` (inclusive) to `to` (exclusive; `None`: to the last).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyRange {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl KeyRange {
    /// The keys that all of the options agree on.
    pub(crate) fn of(arguments: &RangeArguments) -> Result<Self> {
        let prefix = keys::parse_option(arguments.prefix.as_ref(), arguments.hex)?;
        let from = keys::parse_option(arguments.from.as_ref(), arguments.hex)?.unwrap_or_default();
        let to = keys::parse_option(arguments.to.as_ref(), arguments.hex)?;
        if to.as_ref().is_some_and(|to| *to < from) {
            return Err(Failure::Usage("--to comes before --from".into()));
        }
        let range = Self { from, to };
        Ok(match prefix {
            Some(prefix) => range.within(prefix),
            None => range,
        })
    }

    /// The keys of the range that begin with `prefix`.
    pub(crate) fn within(self, prefix: Vec<u8>) -> Self {
        let end = end_of_prefix(&prefix);
        let to = match (self.to, end) {
            (Some(to), Some(end)) => Some(to.min(end)),
            (to, end) => to.or(end),
        };
        Self {
            from: self.from.max(prefix),
            to,
        }
    }

    /// As the engine takes ranges.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
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

    /// For messages: what the range is.
    pub(crate) fn shown(&self) -> String {
        match (&self.from, &self.to) {
            (from, None) if from.is_empty() => "all keys".into(),
            (from, None) => format!("the keys from {} on", keys::shown(from)),
            (from, Some(to)) if from.is_empty() => format!("the keys before {}", keys::shown(to)),
            (from, Some(to)) => {
                let (from, to) = (keys::shown(from), keys::shown(to));
                format!("the keys from {from} to before {to}")
            }
        }
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
            let arguments = RangeArguments {
                prefix: prefix.map(OsString::from),
                from: from.map(OsString::from),
                to: to.map(OsString::from),
                hex: false,
            };
            let range = KeyRange::of(&arguments).unwrap();
            let expected_to = expected_to.map(|to| to.as_bytes().to_vec());
            assert_eq!(
                range,
                KeyRange {
                    from: expected_from.as_bytes().to_vec(),
                    to: expected_to
                }
            );
        }
        assert_eq!(end_of_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of_prefix(b"\xff"), None);
    }
}

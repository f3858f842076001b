//! Times to live between people and the database: `90s`, `1h30m`, `250ms`.
//!
//! Invariant: pure; what is not understood is refused with a sentence that shows how it is written,
//! and never taken for something else. Called by the verbs that set and show times to live.

use std::time::Duration;

/// Units, largest first, with their lengths in milliseconds.
const UNITS: [(&str, u64); 6] = [
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// The duration that `text` names: numbers with units, or a number of seconds alone.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let refused = || {
        format!(
            "{text:?} is no duration; write 90s, 15m, 1h30m, 7d, 2w or 250ms (a number alone is seconds)"
        )
    };
    if let Ok(seconds) = text.parse::<u64>()
        && text.bytes().all(|byte| byte.is_ascii_digit())
    {
        return checked(seconds.checked_mul(1000), text);
    }
    let mut total = Some(0_u64);
    let mut rest = text;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        let (Some((_, millis)), Ok(number)) = (unit, number.parse::<u64>()) else {
            return Err(refused());
        };
        if *millis >= smallest {
            return Err(refused());
        }
        smallest = *millis;
        let part = number.checked_mul(*millis);
        total = total
            .zip(part)
            .and_then(|(total, part)| total.checked_add(part));
        rest = tail;
    }
    if text.is_empty() {
        return Err(refused());
    }
    checked(total, text)
}

fn checked(millis: Option<u64>, text: &str) -> Result<Duration, String> {
    // Beyond this no clock could tell the instant.
    const MOST_MILLIS: u64 = 1 << 53;
    match millis {
        Some(0) => Err(format!(
            "{text:?} is no time at all; to remove a key at once, delete it"
        )),
        Some(millis) if millis <= MOST_MILLIS => Ok(Duration::from_millis(millis)),
        _ => Err(format!("{text:?} is too long; for ever is no ttl at all")),
    }
}

/// `duration` for people: its two largest units.
pub(crate) fn shown(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, length) in UNITS {
        let count = millis / length;
        millis %= length;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        }
        if parts.len() == 2 || (!parts.is_empty() && count == 0) {
            break;
        }
    }
    if parts.is_empty() {
        return "0s".to_string();
    }
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("90", 90_000),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("2w1d", 15 * 24 * 3_600_000),
            ("250ms", 250),
            ("1m5s250ms", 65_250),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "h", "1y", "-5", "+5", "1.5h", "5 s", "1m1h", "1s1s", "1e3", "soon", "5S",
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains("is no duration"), "{text}: {problem}");
        }
        assert!(parse("0s").unwrap_err().contains("no time at all"));
        for text in ["18446744073709551615", "99999999999w"] {
            assert!(parse(text).unwrap_err().contains("too long"), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_by_their_two_largest_units() {
        let cases = [
            (0, "0s"),
            (7, "7ms"),
            (59_999, "59s999ms"),
            (60_000, "1m"),
            (3_599_999, "59m59s"),
            (90_061_000, "1d1h"),
            (86_460_000, "1d"),
        ];
        for (millis, expected) in cases {
            assert_eq!(shown(Duration::from_millis(millis)), expected);
        }
    }
}

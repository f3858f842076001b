//! What backups and recovery points are called: the second of their creation, in UTC.
//!
//! Invariant: a name is `YYYYMMDD_HHMMSS`, 15 ASCII characters, for any time at all; later seconds
//! have greater names.

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// The last second of the year 9999: later ones do not fit the name.
const LAST_SECOND: u64 = 253_402_300_799;

/// The name of the second that `millis` after 1970 lies in.
pub(crate) fn utc_name(millis: u64) -> String {
    let seconds = (millis / 1000).min(LAST_SECOND);
    let (year, month, day) = civil_date(seconds / DAY_SECONDS);
    let of_day = seconds % DAY_SECONDS;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

/// The first name from that of `millis` on that is not taken.
pub(crate) fn free_name(mut millis: u64, is_taken: impl Fn(&str) -> bool) -> String {
    loop {
        let name = utc_name(millis);
        if !is_taken(&name) || millis / 1000 >= LAST_SECOND {
            return name;
        }
        millis += 1000;
    }
}

/// Whether `name` has the form of a name, so that it can be part of a path.
pub(crate) fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let fits = |(at, byte): (usize, &u8)| match at {
        8 => *byte == b'_',
        _ => byte.is_ascii_digit(),
    };
    bytes.len() == 15 && bytes.iter().enumerate().all(fits)
}

/// Year, month and day of the `days`-th day after 1970-01-01 in the Gregorian calendar. Years are
/// counted from March, so that the day that leap years add is the last one. Source: Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_utc_second() {
        let cases = [
            (0, "19700101_000000"),
            (951_782_399_999, "20000228_235959"),
            (951_782_400_000, "20000229_000000"),
            (1_136_214_245_000, "20060102_150405"),
            (1_709_251_199_000, "20240229_235959"),
            (4_107_542_400_000, "21000301_000000"),
            (u64::MAX, "99991231_235959"),
        ];
        for (millis, name) in cases {
            assert_eq!(utc_name(millis), name);
            assert!(is_name(name));
        }
        for stranger in ["", "../../etc/passwd", "20060102-150405", "20060102_15040x"] {
            assert!(!is_name(stranger), "{stranger}");
        }
    }

    #[test]
    fn a_taken_second_gives_way_to_the_next_free_one() {
        let taken = ["19700101_000059", "19700101_000100"];
        assert_eq!(
            free_name(59_500, |name| taken.contains(&name)),
            "19700101_000101"
        );
    }
}

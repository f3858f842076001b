//! Tables and numbers for people.
//!
//! Invariant: pure; columns line up whatever characters are in them, and nothing that is shown
//! moves the cursor. Called by the verbs.

use console::{measure_text_width, truncate_str};
use indicatif::{BinaryBytes, HumanCount};

use crate::words;

/// `bytes` as a person reads it: `12.50 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// `number` with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// "1 key", "2,000 keys".
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{} {many}", count(number))
    }
}

/// Names and what they stand for, one a line, in two columns.
pub(crate) fn pairs<N: AsRef<str>>(pairs: &[(N, String)]) -> String {
    let width = pairs
        .iter()
        .map(|(name, _)| measure_text_width(name.as_ref()))
        .max();
    let mut text = String::new();
    for (name, value) in pairs {
        text += &format!("{}  {value}\n", padded(name.as_ref(), width.unwrap_or(0)));
    }
    text
}

/// Rows under headings, each column as wide as its widest cell. The last column is never padded.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| measure_text_width(cell)).max();
        widest
            .unwrap_or(0)
            .max(measure_text_width(headings[column]))
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            line += &padded(cell, *width);
            line += "  ";
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(headings);
    for row in rows {
        text += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(measure_text_width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// A key in at most `width` columns, as a word that the shell reads back unless it was cut.
pub(crate) fn key(bytes: &[u8], width: usize) -> String {
    // No character takes more than ten columns when it is escaped, none is longer than four bytes.
    cut(
        &words::quoted(&bytes[..bytes.len().min(width * 4)]),
        bytes.len() > width * 4,
        width,
    )
}

/// A value in at most `width` columns.
pub(crate) fn value(bytes: &[u8], width: usize) -> String {
    cut(
        &words::printable(&bytes[..bytes.len().min(width * 4)]),
        bytes.len() > width * 4,
        width,
    )
}

fn cut(text: &str, is_cut: bool, width: usize) -> String {
    if is_cut {
        return truncate_str(&format!("{text}{}", " ".repeat(width)), width, "…").into_owned();
    }
    truncate_str(text, width, "…").into_owned()
}

/// The columns of the terminal on standard output.
pub(crate) fn terminal_columns() -> usize {
    usize::from(console::Term::stdout().size().1).clamp(40, 400)
}

/// A moment in milliseconds since 1970, as date and time in UTC.
pub(crate) fn moment(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Civil from days, after Howard Hinnant's description: years begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["é".to_string(), "1".to_string()],
            vec!["long name".to_string(), "22".to_string()],
        ];
        assert_eq!(
            table(&["name", "size"], &rows),
            "name       size\né          1\nlong name  22\n"
        );
        assert_eq!(
            pairs(&[("a", "1".to_string()), ("long", "2".to_string())]),
            "a     1\nlong  2\n"
        );
    }

    #[test]
    fn long_things_are_cut() {
        assert_eq!(key(b"short", 10), "short");
        assert_eq!(key(&[b'a'; 100], 10), "aaaaaaaaa…");
        assert_eq!(key(&[b'a'; 10], 10), "aaaaaaaaaa");
        assert_eq!(value(b"a\nb", 10), "a\\nb");
        let wide = value("😀".repeat(100).as_bytes(), 10);
        assert!(
            measure_text_width(&wide) <= 10 && wide.ends_with('…'),
            "{wide}"
        );
        assert!(value(&vec![0xff; 1 << 20], 20).len() < 40);
    }

    #[test]
    fn moments_are_dates() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_767_225_599_999, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ];
        for (millis, expected) in cases {
            assert_eq!(moment(millis), expected);
        }
    }

    #[test]
    fn things_are_counted() {
        assert_eq!(counted(1, "key", "keys"), "1 key");
        assert_eq!(counted(2000, "key", "keys"), "2,000 keys");
        assert_eq!(size(1536), "1.50 KiB");
    }
}

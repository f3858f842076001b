//! Cuts a stream into numbered lines in bounded memory.
//!
//! Invariant: only a newline ends a line (a carriage return is part of it), the last line may lack
//! its newline, and no more of a line is ever held than the longest lawful one. Called by `import`.

use std::io::{self, BufRead, Read};

use super::Problem;

/// A buffer that one long line has grown beyond this is given back after it.
const KEPT_BYTES: usize = 4 << 20;

/// How much of a line is read before it is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineLimits {
    /// The longest line, bytes.
    pub(crate) line_bytes: usize,
    /// Of a longer line, so much is read before `check_head` is asked, bytes.
    pub(crate) head_bytes: usize,
    /// Whether a line that begins so can be one of a record at all.
    pub(crate) check_head: fn(&[u8]) -> Result<(), Problem>,
}

/// Why there is no next line.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The stream could not be read.
    Io(io::Error),
    /// The line goes on for longer than any record could.
    TooLong {
        /// How much was read before it was given up, bytes.
        limit: usize,
    },
    /// The line is long, and its head already rules it out.
    Head(Problem),
}

impl From<io::Error> for LineError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads lines one at a time into a buffer of its own.
pub(crate) struct LineReader<R> {
    input: R,
    limits: LineLimits,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> LineReader<R> {
    /// Lines of `input`, none longer than `limits` allow.
    pub(crate) fn new(input: R, limits: LineLimits) -> Self {
        Self {
            input,
            limits,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The number of the line that [`LineReader::next_line`] gave or failed on last; from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line, without its newline; `None` at the end of the stream.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.line.clear();
        self.line.shrink_to(KEPT_BYTES);
        self.number += 1;
        let head_bytes = self.limits.head_bytes;
        self.read_up_to(head_bytes)?;
        if self.line.len() >= head_bytes && !self.is_ended() {
            (self.limits.check_head)(&self.line).map_err(LineError::Head)?;
        }
        let limit = self.limits.line_bytes;
        self.read_up_to(limit.saturating_add(1))?;
        if self.is_ended() {
            self.line.pop();
        } else if self.line.len() > limit {
            return Err(LineError::TooLong { limit });
        } else if self.line.is_empty() {
            self.number -= 1;
            return Ok(None);
        }
        Ok(Some(&self.line))
    }

    /// Whether the buffer holds a line to its newline.
    fn is_ended(&self) -> bool {
        self.line.last() == Some(&b'\n')
    }

    /// Reads on to the newline, the end of the stream, or until the buffer holds `bytes`.
    fn read_up_to(&mut self, bytes: usize) -> io::Result<()> {
        if !self.is_ended() && self.line.len() < bytes {
            let allowed = (bytes - self.line.len()) as u64;
            self.input
                .by_ref()
                .take(allowed)
                .read_until(b'\n', &mut self.line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: LineLimits = limits(1 << 20, 1 << 20);

    const fn limits(line_bytes: usize, head_bytes: usize) -> LineLimits {
        LineLimits {
            line_bytes,
            head_bytes,
            check_head: has_tab,
        }
    }

    fn has_tab(head: &[u8]) -> Result<(), Problem> {
        if head.contains(&b'\t') {
            Ok(())
        } else {
            Err("no tab".into())
        }
    }

    fn lines_of(input: &[u8], limits: LineLimits) -> Result<Vec<Vec<u8>>, (u64, String)> {
        // A capacity of 3 makes every line cross the reader's buffer.
        let mut reader = LineReader::new(io::BufReader::with_capacity(3, input), limits);
        let mut lines = Vec::new();
        loop {
            match reader.next_line() {
                Ok(Some(line)) => lines.push(line.to_vec()),
                Ok(None) => return Ok(lines),
                Err(error) => return Err((reader.number(), format!("{error:?}"))),
            }
        }
    }

    #[test]
    fn only_newlines_end_lines() {
        let cases: [(&[u8], &[&[u8]]); 6] = [
            (b"", &[]),
            (b"\n", &[b""]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"a\n\nb\r\n", &[b"a", b"", b"b\r"]),
            (
                b"a\rb\x00\x0b\x0c\xe2\x80\xa8c",
                &[b"a\rb\x00\x0b\x0c\xe2\x80\xa8c"],
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(lines_of(input, WIDE).unwrap(), expected, "{input:?}");
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        let limits = limits(5, 3);
        let lines = lines_of(b"ab\tcd\nab\n12\t45", limits).unwrap();
        assert_eq!(lines, [&b"ab\tcd"[..], b"ab", b"12\t45"]);
        let cases: [(&[u8], u64, &str); 4] = [
            (b"a\tb\nab\tcde\n", 2, "TooLong { limit: 5 }"),
            (b"ab\tcde", 1, "TooLong { limit: 5 }"),
            (b"abc\n", 1, "Head(\"no tab\")"),
            (b"\nabc", 2, "Head(\"no tab\")"),
        ];
        for (input, number, expected) in cases {
            let outcome = lines_of(input, limits);
            assert_eq!(outcome, Err((number, expected.to_owned())), "{input:?}");
        }
    }

    #[test]
    fn an_endless_line_is_given_up_in_bounded_memory() {
        let limits = limits(1 << 16, 1 << 10);
        let mut no_tab = LineReader::new(io::BufReader::new(io::repeat(0)), limits);
        assert!(matches!(no_tab.next_line(), Err(LineError::Head(_))));
        assert!(no_tab.line.capacity() <= 1 << 12);
        let mut endless = LineReader::new(io::BufReader::new(io::repeat(b'\t')), limits);
        assert!(matches!(
            endless.next_line(),
            Err(LineError::TooLong { .. })
        ));
        assert!(endless.line.capacity() <= 1 << 18);
    }

    proptest! {
        #[test]
        fn lines_are_what_splitting_at_newlines_gives(input in prop::collection::vec(
            prop_oneof![3 => Just(b'\n'), 1 => Just(b'\t'), 6 => any::<u8>()], 0..200)) {
            let mut expected: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            prop_assert_eq!(lines_of(&input, WIDE).unwrap(), expected);
        }
    }
}

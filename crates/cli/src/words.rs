//! A line of the shell, cut into words; and words written so that they are read back as they are.
//!
//! Invariant: pure. Words are bytes: any byte can be written. Words are separated by spaces and tabs.
//! Between single quotes everything stands for itself; elsewhere a backslash begins an escape, and
//! double quotes keep spaces. What [`quoted`] writes, [`split`] reads back. Called by the shell, its
//! completion, and whatever shows keys to people.

use std::fmt;

/// Why a line cannot be cut into words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The place of the character that is wrong, counted from 1.
    pub(crate) column: usize,
    /// What is wrong and how to do it right.
    pub(crate) problem: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.problem)
    }
}

/// The words of `line`. A line that begins with `#` has none.
pub(crate) fn split(line: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
    let mut words = Vec::new();
    let mut reader = Reader::new(line);
    reader.skip_blanks();
    if reader.peek() == Some('#') {
        return Ok(words);
    }
    while reader.peek().is_some() {
        words.push(reader.word()?);
        reader.skip_blanks();
    }
    Ok(words)
}

/// The word at the end of an unfinished line, for completion: where it begins, bytes, what it says
/// so far, and the words before it. `None` where what was typed cannot be read.
pub(crate) fn unfinished(line: &str) -> Option<(usize, Vec<u8>, Vec<Vec<u8>>)> {
    let mut words = Vec::new();
    let mut reader = Reader::new(line);
    loop {
        reader.skip_blanks();
        let start = reader.offset;
        if reader.peek().is_none() {
            return Some((start, Vec::new(), words));
        }
        // A quote that is still open may be closed by what follows.
        let read = reader.word();
        let word = match read {
            Ok(word) => word,
            Err(_) if reader.quote.is_some() => std::mem::take(&mut reader.so_far),
            Err(_) => return None,
        };
        if reader.peek().is_none() {
            return Some((start, word, words));
        }
        words.push(word);
    }
}

/// `bytes` as a word: as they stand where they may, and between double quotes otherwise.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:@%+=,~".contains(c);
    let begins_well = bytes.first().is_some_and(|first| *first != b'-');
    if let Ok(text) = std::str::from_utf8(bytes)
        && begins_well
        && text.chars().all(is_plain)
    {
        return text.to_owned();
    }
    format!("\"{}\"", escaped(bytes))
}

/// `bytes` as they are written between double quotes: one line, printable, unambiguous.
fn escaped(bytes: &[u8]) -> String {
    printable(bytes).replace('"', "\\\"")
}

/// `bytes` as one printable line, which is unambiguous but for its ends.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\'' => text.push(character),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\0'..='\x1f' | '\x7f' => text.push_str(&format!("\\x{:02x}", character as u32)),
                // Invisible and combining characters by their numbers.
                _ => text.extend(character.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

struct Reader<'a> {
    line: &'a str,
    offset: usize,
    /// The quote that is open, and where it was opened.
    quote: Option<(char, usize)>,
    /// The word that was being read when an error came.
    so_far: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(line: &'a str) -> Self {
        Self {
            line,
            offset: 0,
            quote: None,
            so_far: Vec::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.line[self.offset..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.offset += next.len_utf8();
        Some(next)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.next();
        }
    }

    fn unreadable(&self, offset: usize, problem: impl Into<String>) -> Unreadable {
        Unreadable {
            column: self.line[..offset].chars().count() + 1,
            problem: problem.into(),
        }
    }

    /// The word that begins here.
    fn word(&mut self) -> Result<Vec<u8>, Unreadable> {
        let mut word = std::mem::take(&mut self.so_far);
        word.clear();
        while let Some(next) = self.peek() {
            let at = self.offset;
            match (self.quote, next) {
                (None, next) if is_blank(next) => break,
                (None, '"' | '\'') => {
                    self.next();
                    self.quote = Some((next, at));
                }
                (Some((quote, _)), next) if next == quote => {
                    self.next();
                    self.quote = None;
                }
                (Some(('\'', _)), _) => self.plain(&mut word),
                (_, '\\') => {
                    self.next();
                    let escaped = self.escape(at, &mut word);
                    if escaped.is_err() {
                        self.so_far = word;
                        return escaped.map(|()| Vec::new());
                    }
                }
                _ => self.plain(&mut word),
            }
        }
        if let Some((quote, at)) = self.quote {
            self.so_far = word;
            let problem = format!("the {quote} that begins here has no end; close it with {quote}");
            return Err(self.unreadable(at, problem));
        }
        Ok(word)
    }

    fn plain(&mut self, word: &mut Vec<u8>) {
        if let Some(next) = self.next() {
            word.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// What follows a backslash at `at`.
    fn escape(&mut self, at: usize, word: &mut Vec<u8>) -> Result<(), Unreadable> {
        match self.next() {
            Some('n') => word.push(b'\n'),
            Some('r') => word.push(b'\r'),
            Some('t') => word.push(b'\t'),
            Some('0') => word.push(0),
            Some('x') => {
                let byte = self.digits(2).and_then(|digits| u8::try_from(digits).ok());
                let problem = "\\x takes two hexadecimal digits, as in \\x0a";
                word.push(byte.ok_or_else(|| self.unreadable(at, problem))?);
            }
            Some('u') => {
                let character = self.braced().and_then(char::from_u32);
                let problem = "\\u takes the number of a character in braces, as in \\u{e9}";
                let character = character.ok_or_else(|| self.unreadable(at, problem))?;
                word.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(next) if next.is_ascii_punctuation() || next == ' ' => word.push(next as u8),
            Some(next) => {
                let problem = format!(
                    "\\{next} is no escape; there are \\n \\r \\t \\0 \\xHH \\u{{HEX}} and a \
                     backslash before punctuation: write \\\\ for a backslash"
                );
                return Err(self.unreadable(at, problem));
            }
            None => {
                let problem = "a backslash at the end escapes nothing; write \\\\ for a backslash";
                return Err(self.unreadable(at, problem));
            }
        }
        Ok(())
    }

    /// The value of exactly `count` hexadecimal digits.
    fn digits(&mut self, count: usize) -> Option<u32> {
        let digits = self.line.get(self.offset..self.offset + count)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.offset += count;
        u32::from_str_radix(digits, 16).ok()
    }

    fn braced(&mut self) -> Option<u32> {
        let rest = self.line[self.offset..].strip_prefix('{')?;
        let (digits, _) = rest.split_once('}')?;
        let is_number =
            (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_number {
            return None;
        }
        self.offset += digits.len() + 2;
        u32::from_str_radix(digits, 16).ok()
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_quotes_and_escapes() {
        let cases: [(&str, &[&[u8]]); 22] = [
            ("", &[]),
            ("  \t ", &[]),
            ("# a remark", &[]),
            ("  # one too", &[]),
            ("set a 1", &[b"set", b"a", b"1"]),
            ("  set\ta  1  ", &[b"set", b"a", b"1"]),
            ("get a#b #c", &[b"get", b"a#b", b"#c"]),
            (r#"get "two words""#, &[b"get", b"two words"]),
            (r"get 'two words'", &[b"get", b"two words"]),
            (r"get two\ words", &[b"get", b"two words"]),
            (r#"get """#, &[b"get", b""]),
            ("get ''", &[b"get", b""]),
            (r#"a"b c"d'e f'g"#, &[b"ab cde fg"]),
            (r#""it's" '"'"#, &[b"it's", b"\""]),
            (r#""a\"b" 'a\b' a\'b"#, &[b"a\"b", b"a\\b", b"a'b"]),
            (r#""\x00\xff""#, &[b"\x00\xff"]),
            (r"\x00\xFf\0", &[b"\x00\xff\x00"]),
            (r"\n\r\t\\", &[b"\n\r\t\\"]),
            (r"\u{e9} \u{1F600}", &["é".as_bytes(), "😀".as_bytes()]),
            ("é 'ü'", &["é".as_bytes(), "ü".as_bytes()]),
            (r"\#a \$b", &[b"#a", b"$b"]),
            ("a\r", &[b"a"]),
        ];
        for (line, expected) in cases {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        let cases = [
            (r#"get "a"#, 5, "has no end"),
            ("get 'a", 5, "has no end"),
            ("é 'a", 3, "has no end"),
            (r"get a\", 6, "at the end"),
            (r"get \q", 5, r"\q is no escape"),
            (r"get \é", 5, r"\é is no escape"),
            (r"get \x", 5, "two hexadecimal digits"),
            (r"get \x0", 5, "two hexadecimal digits"),
            (r"get \x0g", 5, "two hexadecimal digits"),
            (r"get \x+1", 5, "two hexadecimal digits"),
            (r"get \xé", 5, "two hexadecimal digits"),
            (r"get \u{}", 5, "number of a character"),
            (r"get \u{d800}", 5, "number of a character"),
            (r"get \u{110000}", 5, "number of a character"),
            (r"get \u{41", 5, "number of a character"),
            (r"get \u41", 5, "number of a character"),
        ];
        for (line, column, problem) in cases {
            let error = split(line).unwrap_err();
            assert_eq!(error.column, column, "{line}");
            assert!(error.problem.contains(problem), "{line}: {error}");
        }
    }

    #[test]
    fn the_word_that_is_being_typed() {
        type Case<'a> = (&'a str, Option<(usize, &'a [u8], &'a [&'a [u8]])>);
        let cases: [Case<'_>; 9] = [
            ("", Some((0, b"", &[]))),
            ("ge", Some((0, b"ge", &[]))),
            ("get ", Some((4, b"", &[b"get"]))),
            ("get us", Some((4, b"us", &[b"get"]))),
            (r#"get "a b"#, Some((4, b"a b", &[b"get"]))),
            (r#"set "a b" c"#, Some((10, b"c", &[b"set", b"a b"]))),
            (r#"get "a\x00"#, Some((4, b"a\0", &[b"get"]))),
            (r"get 'a", Some((4, b"a", &[b"get"]))),
            (r"get a\q b", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(start, word, before)| {
                let before = before.iter().map(|word| word.to_vec()).collect();
                (start, word.to_vec(), before)
            });
            assert_eq!(unfinished(line), expected, "{line}");
        }
    }

    #[test]
    fn words_are_quoted_where_they_must_be() {
        let cases: [(&[u8], &str); 10] = [
            (b"user:1", "user:1"),
            (b"", r#""""#),
            (b"two words", r#""two words""#),
            (b"-k", r#""-k""#),
            (b"#", r##""#""##),
            (b"it's", r#""it's""#),
            (b"a\"b\\", r#""a\"b\\""#),
            (b"\x00\xff\n\x1b", r#""\x00\xff\n\x1b""#),
            ("é\u{200b}".as_bytes(), r#""é\u{200b}""#),
            ("café".as_bytes(), "café"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(quoted(bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..4)) {
            let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
            prop_assert!(!line.contains(['\n', '\r']));
            prop_assert_eq!(split(&line).unwrap(), words);
        }

        #[test]
        fn no_line_is_too_strange(line in "\\PC*|[ \"'\\\\xu{}0-9a-f#-]*") {
            let _ = split(&line);
            let _ = unfinished(&line);
        }
    }
}

//! A Rust file taken apart: code without comments and literals, the comments, and which lines are
//! tests. Enough of the lexical grammar (The Rust Reference, "Tokens" and "Comments") to never
//! mistake a string for code.
//!
//! Invariant: `code` has exactly the bytes of the file, with everything inside comments and
//! literals replaced by spaces, so that an offset means the same in both.

/// A comment: where it begins and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The line it begins in, from 1 on.
    pub line: usize,
    /// Its text with the slashes.
    pub text: String,
}

/// One file of Rust.
#[derive(Clone, Debug)]
pub struct RustSource {
    /// Relative to the root of the repository.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The file with blanks in place of comments and of the insides of literals.
    pub code: String,
    /// Every comment, in order.
    pub comments: Vec<Comment>,
    /// Every string literal's inside, in order.
    pub strings: Vec<String>,
    /// Whether the whole file is a test.
    pub is_test: bool,
    /// Byte ranges of items under `#[cfg(test)]` or `#[test]`.
    test_ranges: Vec<std::ops::Range<usize>>,
}

impl RustSource {
    /// Takes `text` apart.
    #[must_use]
    pub fn parse(path: &str, text: &str) -> Self {
        let mut lexer = Lexer::new(text);
        lexer.run();
        let code = String::from_utf8_lossy(&lexer.code).into_owned();
        let test_ranges = test_ranges(&code);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments: lexer.comments,
            strings: lexer.strings,
            is_test: is_test_path(path),
            test_ranges,
        }
    }

    /// The line of a byte offset, from 1 on.
    #[must_use]
    pub fn line_of(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
    }

    /// Whether the code at `offset` is built for tests only.
    #[must_use]
    pub fn in_test(&self, offset: usize) -> bool {
        self.is_test || self.test_ranges.iter().any(|range| range.contains(&offset))
    }

    /// Offsets at which `needle` stands in code, not as a part of a longer word.
    pub fn occurrences<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        word_occurrences(&self.code, needle)
    }

    /// The paths, without `.rs`, at which modules that this file declares under `#[cfg(test)]`
    /// can lie.
    #[must_use]
    pub fn test_module_stems(&self) -> Vec<String> {
        let (directory, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let directory = match file.strip_suffix(".rs") {
            Some("lib" | "main" | "mod") | None => directory.to_owned(),
            Some(stem) => format!("{directory}/{stem}"),
        };
        let declared = |range: &std::ops::Range<usize>| {
            let item = self.code[range.clone()].trim_end().strip_suffix(';')?;
            let (_, name) = item.rsplit_once("mod ")?;
            Some(format!("{directory}/{}", name.trim()))
        };
        self.test_ranges.iter().filter_map(declared).collect()
    }
}

fn is_test_path(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

/// Offsets at which `needle` stands in `code`, not as a part of a longer word.
fn word_occurrences<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = code.as_bytes();
    code.match_indices(needle)
        .map(|(offset, _)| offset)
        .filter(move |&offset| {
            let end = offset + needle.len();
            let begins_inside =
                is_word(needle.as_bytes().first()) && offset > 0 && is_word(bytes.get(offset - 1));
            let ends_inside = is_word(needle.as_bytes().last()) && is_word(bytes.get(end));
            !begins_inside && !ends_inside
        })
}

/// The items that follow `#[cfg(test)]`, `#[cfg(all(test, ...))]` and `#[test]`.
fn test_ranges(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    let markers = ["#[cfg(test)]", "#[cfg(all(test", "#[test]"];
    let mut starts: Vec<usize> = markers
        .iter()
        .flat_map(|marker| code.match_indices(marker))
        .map(|found| found.0)
        .collect();
    starts.sort_unstable();
    for start in starts {
        if ranges.last().is_none_or(|last| last.end <= start) {
            ranges.push(start..item_end(code, start));
        }
    }
    ranges
}

/// Where the item that begins with attributes at `start` ends: after its `;` or its closing brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if byte == b'}' && depth == 0 {
                    return offset + 1;
                }
            }
            b';' if depth == 0 => return offset + 1,
            _ => {}
        }
    }
    code.len()
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: usize,
    code: Vec<u8>,
    comments: Vec<Comment>,
    strings: Vec<String>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            line: 1,
            code: text.as_bytes().to_vec(),
            comments: Vec::new(),
            strings: Vec::new(),
        }
    }

    fn run(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            let rest = &self.bytes[self.at..];
            let end = match byte {
                b'/' if rest.starts_with(b"//") => self.line_comment_end(),
                b'/' if rest.starts_with(b"/*") => self.block_comment_end(),
                b'"' => self.string_end(self.at),
                b'r' | b'b' | b'c' if !self.is_inside_word() => self.prefixed_literal_end(),
                b'\'' => self.character_end(),
                _ => self.at + 1,
            };
            self.advance(end);
        }
    }

    fn advance(&mut self, end: usize) {
        let end = end.clamp(self.at + 1, self.bytes.len());
        let passed = &self.bytes[self.at..end];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.at = end;
    }

    fn is_inside_word(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.bytes.get(at));
        before.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    }

    fn blank(&mut self, from: usize, to: usize) {
        for byte in &mut self.code[from..to.min(self.bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }

    fn comment(&mut self, end: usize) -> usize {
        let text = self.text[self.at..end].to_owned();
        self.comments.push(Comment {
            line: self.line,
            text,
        });
        self.blank(self.at, end);
        end
    }

    fn line_comment_end(&mut self) -> usize {
        let length = self.text[self.at..]
            .find('\n')
            .unwrap_or(self.text.len() - self.at);
        self.comment(self.at + length)
    }

    fn block_comment_end(&mut self) -> usize {
        let (mut depth, mut at) = (0usize, self.at);
        while at < self.bytes.len() {
            if self.bytes[at..].starts_with(b"/*") {
                (depth, at) = (depth + 1, at + 2);
            } else if self.bytes[at..].starts_with(b"*/") {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    break;
                }
            } else {
                at += 1;
            }
        }
        self.comment(at)
    }

    /// The end of a string with escapes whose opening quote is at `quote`.
    fn string_end(&mut self, quote: usize) -> usize {
        let mut at = quote + 1;
        while at < self.bytes.len() && self.bytes[at] != b'"' {
            at += if self.bytes[at] == b'\\' { 2 } else { 1 };
        }
        self.string(quote + 1, at.min(self.bytes.len()));
        at + 1
    }

    fn string(&mut self, from: usize, to: usize) {
        self.strings
            .push(String::from_utf8_lossy(&self.bytes[from..to]).into_owned());
        self.blank(from, to);
    }

    /// The end of `r"..."`, `r#"..."#`, `b"..."`, `br"..."`, `c"..."`, `b'.'`, or of one letter.
    fn prefixed_literal_end(&mut self) -> usize {
        let mut at = self.at;
        while matches!(self.bytes.get(at), Some(b'r' | b'b' | b'c')) && at < self.at + 2 {
            at += 1;
        }
        let is_raw = self.bytes[self.at..at].contains(&b'r');
        let hashes = self.bytes[at..]
            .iter()
            .take_while(|&&byte| byte == b'#')
            .count();
        match self.bytes.get(at + hashes) {
            Some(b'"') if is_raw => {
                let from = at + hashes + 1;
                let closing = format!("\"{}", "#".repeat(hashes));
                let length = self.text[from..]
                    .find(&closing)
                    .unwrap_or(self.text.len() - from);
                self.string(from, from + length);
                from + length + closing.len()
            }
            Some(b'"') if hashes == 0 => self.string_end(at),
            _ => self.at + 1,
        }
    }

    /// The end of a character literal; of the quote alone where it begins a lifetime.
    fn character_end(&mut self) -> usize {
        let rest = &self.text[self.at + 1..];
        let mut characters = rest.char_indices();
        let length = match characters.next() {
            Some((_, '\\')) => rest
                .get(2..)
                .and_then(|rest| rest.find('\''))
                .map(|at| at + 2),
            Some((_, _)) => match characters.next() {
                Some((offset, '\'')) => Some(offset),
                _ => None,
            },
            None => None,
        };
        let Some(length) = length else {
            return self.at + 1;
        };
        let from = self.at + 1;
        self.blank(from, from + length);
        from + length + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let cases = [
            ("let a = 1; // b", "let a = 1;     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x\"y", 'z')"#, r#"f("    ", ' ')"#),
            (r###"f(r#"a"b"#, br"c")"###, r###"f(r#"   "#, br" ")"###),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            (r"g('\'', b'\\', '\u{41}')", r"g('  ', b'  ', '      ')"),
            ("\"two\nlines\" x", "\"   \n     \" x"),
            ("'ä' \"ö\" y", "'  ' \"  \" y"),
            ("r#type b2 br", "r#type b2 br"),
            ("\"never closed", "\"            "),
            ("/* never closed", "               "),
        ];
        for (text, expected) in cases {
            let source = RustSource::parse("src/x.rs", text);
            assert_eq!(source.code, expected, "{text}");
            assert_eq!(source.code.len(), text.len());
        }
    }

    #[test]
    fn comments_and_strings_are_kept() {
        let source = RustSource::parse("src/x.rs", "//! top\nf(\"s\", r\"t\");\n\n// end\n");
        let comments: Vec<_> = source
            .comments
            .iter()
            .map(|c| (c.line, c.text.as_str()))
            .collect();
        assert_eq!(comments, [(1, "//! top"), (4, "// end")]);
        assert_eq!(source.strings, ["s", "t"]);
    }

    #[test]
    fn items_for_tests_are_known() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { let x = [1]; }\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod cases;\n#[test]\nfn d() { e() }\nfn f() {}\n";
        let source = RustSource::parse("crates/x/src/table.rs", text);
        let is_test = |name: &str| source.in_test(text.find(name).unwrap());
        assert!(!is_test("fn a") && is_test("fn b") && !is_test("fn c"));
        assert!(is_test("fn d") && is_test("e()") && !is_test("fn f"));
        assert_eq!(source.test_module_stems(), ["crates/x/src/table/cases"]);
        assert!(RustSource::parse("crates/x/tests/all.rs", text).in_test(0));
    }

    #[test]
    fn words_are_found_whole() {
        let found = |needle| word_occurrences("fs std::fs std::fsx my_fs .f(", needle).count();
        assert_eq!((found("std::fs"), found("fs"), found(".f(")), (1, 2, 1));
    }
}

//! Code that is commented out is dead: version control remembers it.
//!
//! A plain comment (`//`, not documentation) is taken for code where its line ends as code does and
//! reads as code does: a statement with an assignment or a call, or an opening with a keyword.
//! Prose that merely ends in a semicolon passes.

use crate::{Repository, Violation};

/// Every comment line that reads as code.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in &repository.rust {
        for comment in &source.comments {
            let Some(text) = plain_comment(&comment.text) else {
                continue;
            };
            for (index, line) in text.lines().enumerate() {
                if reads_as_code(line.trim().trim_start_matches("* ")) {
                    let message = "delete code that is commented out";
                    violations.push(Violation::new(&source.path, comment.line + index, message));
                }
            }
        }
    }
    violations
}

/// The text of a comment that is not documentation.
fn plain_comment(comment: &str) -> Option<&str> {
    if let Some(text) = comment.strip_prefix("//") {
        return (!text.starts_with(['/', '!'])).then_some(text);
    }
    let text = comment.strip_prefix("/*")?;
    let text = text.strip_suffix("*/").unwrap_or(text);
    (!text.starts_with(['*', '!'])).then_some(text)
}

fn reads_as_code(line: &str) -> bool {
    if let Some(statement) = line.strip_suffix(';') {
        return is_declaration(statement) || is_assignment(statement) || is_call(statement);
    }
    if let Some(opening) = line.strip_suffix('{') {
        return opens_block(opening.trim_end());
    }
    matches!(line, "}" | "};" | "})" | "} else {" | "});") || is_call_with_macro(line)
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or_default()
}

/// `let x = ..`, `use a::b`, `mod x`, `return f(x)`, with `pub` before it or not.
fn is_declaration(statement: &str) -> bool {
    let rest = statement.strip_prefix("pub ").unwrap_or(statement);
    match first_word(rest) {
        "let" | "const" | "static" => rest.contains(" = "),
        "use" => rest.contains("::"),
        "mod" => rest.split(' ').count() == 2,
        "return" => rest.ends_with(')') || rest == "return",
        "fn" => rest.contains('('),
        _ => false,
    }
}

/// `a.b[c] = ..` and `a += ..`: the left side is one word without spaces.
fn is_assignment(statement: &str) -> bool {
    let mut parts = statement.splitn(3, ' ');
    let (Some(left), Some(sign), Some(right)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let is_sign = matches!(sign, "=" | "+=" | "-=" | "*=" | "/=" | "|=" | "&=" | "^=");
    let left = left.trim_start_matches('*');
    is_sign && !right.is_empty() && left.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
}

/// `a.b(c)`, `A::b(c)?` and `a!(b)`: no space before the first parenthesis.
fn is_call(statement: &str) -> bool {
    let statement = statement.trim_end_matches('?');
    let Some((callee, _)) = statement.split_once('(') else {
        return false;
    };
    let is_path = |c: char| c.is_alphanumeric() || "_.:!<>&*?".contains(c);
    statement.ends_with(')') && !callee.is_empty() && callee.chars().all(is_path)
}

/// A macro's call without its semicolon.
fn is_call_with_macro(line: &str) -> bool {
    [
        "println!(",
        "eprintln!(",
        "assert!(",
        "assert_eq!(",
        "dbg!(",
    ]
    .iter()
    .any(|call| line.starts_with(call))
}

/// `if x {`, `fn f() {`, `impl A for B {`: a keyword, and nothing that only prose has.
fn opens_block(opening: &str) -> bool {
    let rest = opening.strip_prefix("} ").unwrap_or(opening);
    let rest = rest.strip_prefix("pub ").unwrap_or(rest);
    let keywords = [
        "if", "else", "for", "while", "loop", "match", "fn", "impl", "struct", "enum", "trait",
        "mod", "unsafe", "async",
    ];
    keywords.contains(&first_word(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::lines_reported;

    #[test]
    fn code_in_comments_is_found_and_prose_is_not() {
        let cases = [
            ("// let x = f(y);", true),
            ("// use std::io;", true),
            ("// self.count += 1;", true),
            ("// state.flush()?;", true),
            ("// Self::open(path);", true),
            ("// println!(\"{x}\")", true),
            ("// if a < b {", true),
            ("// } else {", true),
            ("// pub fn open() {", true),
            ("// }", true),
            ("/* let x = 1; */", true),
            ("// mod table;", true),
            ("// The writer waits for the flush;", false),
            ("// then (unless it was asked to stop) it goes on;", false),
            ("// a set is written as {", false),
            ("// use the larger one;", false),
            ("// let nobody pass;", false),
            ("// the sum is a + b = c;", false),
            ("// return early;", false),
            ("/// let x = f(y);", false),
            ("//! let x = f(y);", false),
            ("/** let x = 1; */", false),
            ("let s = \"// let x = 1;\";", false),
        ];
        for (text, is_code) in cases {
            let found = lines_reported(check, "crates/db/src/open.rs", text);
            assert_eq!(!found.is_empty(), is_code, "{text}");
        }
        assert_eq!(
            lines_reported(check, "a.rs", "//! x\n/* one\n let x = 1;\n*/"),
            [3]
        );
    }
}

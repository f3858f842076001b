//! What is unfinished stands in an issue, not in the code: no placeholder macros, no marks, no
//! tests that are switched off.

use crate::{Repository, Violation};

const IN_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

const IN_COMMENTS: &[&str] = &["FIXME", "TODO", "XXX"];

/// Every placeholder, mark and disabled test.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in &repository.rust {
        for found in IN_CODE {
            for offset in source.occurrences(found) {
                let line = source.line_of(offset);
                let message = format!("`{found}` does not stay: finish it or open an issue");
                violations.push(Violation::new(&source.path, line, message));
            }
        }
        if Repository::crate_of(&source.path) == "tidy" {
            continue;
        }
        for comment in &source.comments {
            for mark in IN_COMMENTS
                .iter()
                .filter(|mark| comment.text.contains(**mark))
            {
                let message = format!("{mark} does not stay: finish it or open an issue");
                violations.push(Violation::new(&source.path, comment.line, message));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::lines_reported;

    #[test]
    fn unfinished_work_is_found() {
        let cases: [(&str, &[usize]); 7] = [
            ("fn f() { todo!() }", &[1]),
            ("//! x\nlet a = dbg!(b);", &[2]),
            ("unimplemented!(\"later\")", &[1]),
            ("#[test]\n#[ignore = \"slow\"]\nfn t() {}", &[2]),
            ("// FIXME: wrong\n// TODO later", &[1, 2]),
            ("let x = \"todo!() FIXME\";", &[]),
            ("my_dbg!(x); // todo lists are fine", &[]),
        ];
        for (text, expected) in cases {
            let path = "crates/db/src/open.rs";
            assert_eq!(lines_reported(check, path, text), expected, "{text}");
        }
    }
}

//! A library never panics on what a caller, a file or a machine does: no `unwrap`, and `expect` only
//! with the invariant that makes it unreachable.

use crate::{Repository, RustSource, Violation};

const LIBRARIES: &[&str] = &[
    "base",
    "vfs",
    "memtable",
    "prefetch",
    "wal",
    "sstable",
    "tuple",
    "manifest",
    "compaction",
    "db",
];

/// How the message of an allowed `expect` begins.
const INVARIANT: &str = "\"invariant: ";

fn is_library(source: &RustSource) -> bool {
    source.path.starts_with("crates/")
        && LIBRARIES.contains(&Repository::crate_of(&source.path))
        && source.path.contains("/src/")
        && !source.is_test
}

/// Every `unwrap` and unexplained `expect` in a library.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in repository.rust.iter().filter(|source| is_library(source)) {
        let mut report = |offset: usize, message: &str| {
            if !source.in_test(offset) {
                violations.push(Violation::new(
                    &source.path,
                    source.line_of(offset),
                    message,
                ));
            }
        };
        for offset in source.occurrences(".unwrap()") {
            report(
                offset,
                "return an error, or `expect(\"invariant: ...\")` what makes it impossible",
            );
        }
        for offset in source.occurrences(".expect(") {
            let message = source.text[offset + ".expect(".len()..].trim_start();
            if !message.starts_with(INVARIANT) {
                report(
                    offset,
                    "begin the message of `expect` with \"invariant: \", or return an error",
                );
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
    fn panics_in_libraries_are_found() {
        let cases: [(&str, &str, &[usize]); 9] = [
            ("crates/wal/src/reader.rs", "//! x\na.unwrap();", &[2]),
            (
                "crates/wal/src/reader.rs",
                "a.unwrap_or(b).unwrap_or_default()",
                &[],
            ),
            (
                "crates/wal/src/reader.rs",
                "a\n  .expect(\"the lock\")",
                &[2],
            ),
            (
                "crates/wal/src/reader.rs",
                "a.expect(\n  \"invariant: never empty\")",
                &[],
            ),
            ("crates/wal/src/reader.rs", "a.expect_err(b)", &[]),
            (
                "crates/wal/src/reader.rs",
                "/// a.unwrap()\n// a.unwrap()",
                &[],
            ),
            (
                "crates/wal/src/reader.rs",
                "#[test]\nfn t() { a.unwrap(); }",
                &[],
            ),
            ("crates/wal/src/reader/tests.rs", "a.unwrap();", &[]),
            ("crates/cli/src/main.rs", "a.unwrap();", &[]),
        ];
        for (path, text, expected) in cases {
            assert_eq!(lines_reported(check, path, text), expected, "{text}");
        }
    }
}

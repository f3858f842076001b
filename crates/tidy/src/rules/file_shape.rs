//! The shape of a Rust file: it opens by saying what it owns, its name is its concept, and it is
//! short enough to be read at once.

use crate::{Repository, Violation};

/// The longest file that is not a test, lines.
pub const MAX_LINES: usize = 700;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "common", "helper", "helpers", "misc", "type", "types", "util", "utils",
];

/// Files without a head, with an empty name, or too long.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in &repository.rust {
        let mut report = |line, message: String| {
            violations.push(Violation::new(&source.path, line, message));
        };
        if !source.text.starts_with("//!") {
            report(
                1,
                "open the file with `//!`: what it owns, its invariant, who calls it".into(),
            );
        }
        let names = source
            .path
            .split('/')
            .map(|part| part.strip_suffix(".rs").unwrap_or(part));
        for name in names.filter(|name| EMPTY_NAMES.contains(name)) {
            report(
                0,
                format!("`{name}` is no concept: name the file after what it holds"),
            );
        }
        let lines = source.text.lines().count();
        if !source.is_test && lines > MAX_LINES {
            report(
                0,
                format!("{lines} lines are more than {MAX_LINES}: split it by concept"),
            );
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::lines_reported;

    #[test]
    fn headless_nameless_and_endless_files_are_found() {
        let long = format!("//! x\n{}", "\n".repeat(MAX_LINES));
        let cases: [(&str, &str, &[usize]); 8] = [
            ("crates/a/src/table.rs", "//! x\n", &[]),
            ("crates/a/src/table.rs", "// x\n", &[1]),
            ("crates/a/src/table.rs", "", &[1]),
            ("crates/a/src/util.rs", "//! x\n", &[0]),
            ("crates/a/tests/common/mod.rs", "//! x\n", &[0]),
            ("crates/a/src/utility_cost.rs", "//! x\n", &[]),
            ("crates/a/src/table.rs", &long, &[0]),
            ("crates/a/src/table/tests.rs", &long, &[]),
        ];
        for (path, text, expected) in cases {
            assert_eq!(lines_reported(check, path, text), expected, "{path}");
        }
    }
}

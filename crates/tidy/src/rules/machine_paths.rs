//! Nothing in the repository knows the machine that it was written on.

use crate::{Repository, Violation};

/// Beginnings of paths of build machines. Spelt in pieces, so that this file passes.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/fa", "rm/")];

/// Every line that contains such a path.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in &repository.files {
        for (index, line) in file.text.lines().enumerate() {
            for path in MACHINE_PATHS.iter().filter(|path| has_absolute(line, path)) {
                let message = format!("`{path}` is a path of one machine");
                violations.push(Violation::new(&file.path, index + 1, message));
            }
        }
    }
    violations
}

/// Whether `path` stands in `line` at the start of a path, not inside a relative one or an address.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(offset, _)| {
        let before = line[..offset].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::lines_reported;

    #[test]
    fn machine_paths_are_found() {
        let [work, farm] = [MACHINE_PATHS[0], MACHINE_PATHS[1]];
        let cases: [(String, &[usize]); 4] = [
            (format!("a\ncd {work}main\n"), &[2]),
            (format!("see `{farm}x`"), &[1]),
            (
                format!("the folder frame{work}x and https://example.com{work}x"),
                &[],
            ),
            ("work/main".to_owned(), &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(
                lines_reported(check, "README.md", &text),
                expected,
                "{text}"
            );
        }
    }
}

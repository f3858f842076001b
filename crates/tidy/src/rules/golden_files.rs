//! A golden file that no test reads proves nothing.

use crate::{Repository, Violation};

const FOLDER: &str = "testdata/";

/// Golden files that no string in a Rust file names, neither by file name nor by ending in a
/// folder that holds them.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let strings: Vec<&str> = repository
        .rust
        .iter()
        .filter(|source| Repository::crate_of(&source.path) != "tidy")
        .flat_map(|source| source.strings.iter())
        .map(|string| string.trim_end_matches('/'))
        .collect();
    repository
        .files
        .iter()
        .filter(|file| file.path.starts_with(FOLDER) && !file.path.ends_with(".md"))
        .filter(|file| !is_named(&file.path, &strings))
        .map(|file| Violation::new(&file.path, 0, "no test reads this golden file"))
        .collect()
}

fn is_named(path: &str, strings: &[&str]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let folders = path.match_indices('/').map(|(end, _)| &path[..end]).skip(1);
    let folders: Vec<&str> = folders.collect();
    strings.iter().any(|string| {
        string.contains(name) || folders.iter().any(|folder| string.ends_with(folder))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::repository;

    #[test]
    fn unread_golden_files_are_found() {
        let cases = [
            ("read(\"write_batch_v1.hex\")", 0),
            ("read(\"../../testdata/base/v1/\")", 0),
            ("read(\"testdata/base\")", 0),
            ("read(\"testdata/\")", 1),
            ("// write_batch_v1.hex", 1),
            ("read(\"testdata/base/other.hex\")", 1),
        ];
        for (text, expected) in cases {
            let found = check(&repository(&[
                ("crates/base/tests/golden.rs", text),
                ("testdata/base/v1/write_batch_v1.hex", "00"),
            ]));
            assert_eq!(found.len(), expected, "{text}");
        }
    }
}

//! The files of the repository: read once, judged by all rules.
//!
//! Invariant: paths are relative to the root and use `/`. Build output and version control are not
//! part of it; bytes that are not UTF-8 have a path and no text.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::rust_source::RustSource;

/// A file and its text.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Empty where the bytes are not UTF-8.
    pub text: String,
}

/// Everything the rules look at.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// Every file, in path order.
    pub files: Vec<TextFile>,
    /// Every Rust file, in path order.
    pub rust: Vec<RustSource>,
}

impl Repository {
    /// Reads the repository at `root`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        read_directory(root, "", &mut files)?;
        Ok(Self::from_files(files))
    }

    /// The repository that consists of `files`.
    #[must_use]
    pub fn from_files(mut files: Vec<TextFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let is_rust = |file: &&TextFile| file.path.ends_with(".rs");
        let mut rust: Vec<_> = files
            .iter()
            .filter(is_rust)
            .map(|file| RustSource::parse(&file.path, &file.text))
            .collect();
        let test_modules: HashSet<String> = rust
            .iter()
            .flat_map(RustSource::test_module_stems)
            .collect();
        for source in &mut rust {
            source.is_test |= test_modules.iter().any(|stem| {
                source
                    .path
                    .strip_prefix(stem.as_str())
                    .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            });
        }
        Self { files, rust }
    }

    /// The name of the crate that `path` belongs to: the folder under `crates/`, or the first
    /// folder (`benches`, `fuzz`).
    #[must_use]
    pub fn crate_of(path: &str) -> &str {
        let path = path.strip_prefix("crates/").unwrap_or(path);
        path.split('/').next().unwrap_or(path)
    }
}

fn read_directory(root: &Path, relative: &str, files: &mut Vec<TextFile>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(relative))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if relative.is_empty() {
            name.clone()
        } else {
            format!("{relative}/{name}")
        };
        // A file in a worktree, a directory elsewhere; git's own in both cases.
        if name == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            let is_generated = relative == "fuzz" && name == "artifacts";
            if name != "target" && !is_generated {
                read_directory(root, &path, files)?;
            }
            continue;
        }
        let text = match std::fs::read(entry.path()) {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            // Tests that run beside this one make files and remove them.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        files.push(TextFile { path, text });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_for_tests_is_a_test_wherever_it_lies() {
        let file = |path: &str, text: &str| TextFile {
            path: path.into(),
            text: text.into(),
        };
        let repository = Repository::from_files(vec![
            file(
                "crates/a/src/lib.rs",
                "//! x\n#[cfg(test)]\nmod model;\nmod real;\n",
            ),
            file("crates/a/src/model.rs", "//! x\n"),
            file("crates/a/src/real.rs", "//! x\n#[cfg(test)]\nmod cases;\n"),
            file("crates/a/src/real/cases.rs", "//! x\n"),
            file("crates/a/src/real/part.rs", "//! x\n"),
            file("crates/a/README.md", ""),
        ]);
        let tests: Vec<_> = repository
            .rust
            .iter()
            .filter(|source| source.is_test)
            .collect();
        let paths: Vec<_> = tests.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(
            paths,
            ["crates/a/src/model.rs", "crates/a/src/real/cases.rs"]
        );
        assert_eq!(repository.files.len(), 6);
    }

    #[test]
    fn crates_are_named_by_their_folder() {
        assert_eq!(Repository::crate_of("crates/base/src/lib.rs"), "base");
        assert_eq!(Repository::crate_of("benches/src/main.rs"), "benches");
        assert_eq!(Repository::crate_of("README.md"), "README.md");
    }
}

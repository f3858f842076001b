//! A dependency that no file of its package names costs every user compile time and trust for
//! nothing.

use crate::{Repository, Violation};

/// A dependency as a package's manifest declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The folder of the package, relative to the root.
    pub folder: String,
    /// The name that code calls it by.
    pub name: String,
}

/// Every declared dependency whose name stands in no Rust file of its package, documentation
/// examples included.
#[must_use]
pub fn check(repository: &Repository, declared: &[Declared]) -> Vec<Violation> {
    declared
        .iter()
        .filter(|dependency| !is_named(repository, dependency))
        .map(|dependency| {
            let path = format!("{}/Cargo.toml", dependency.folder);
            Violation::new(
                &path,
                0,
                format!("nothing here names `{}`", dependency.name),
            )
        })
        .collect()
}

fn is_named(repository: &Repository, dependency: &Declared) -> bool {
    let inside = format!("{}/", dependency.folder);
    repository
        .rust
        .iter()
        .filter(|source| source.path.starts_with(&inside))
        .any(|source| source.text.contains(&dependency.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::repository;

    #[test]
    fn dependencies_that_nothing_names_are_found() {
        let repository = repository(&[
            (
                "crates/a/src/lib.rs",
                "use lz4_flex::block;\n/// use tempfile::tempdir;\n",
            ),
            ("crates/b/src/lib.rs", "use rayon::scope;"),
        ]);
        let cases = [
            ("crates/a", "lz4_flex", true),
            ("crates/a", "tempfile", true),
            ("crates/a", "rayon", false),
            ("crates/b", "lz4_flex", false),
        ];
        for (folder, name, is_used) in cases {
            let declared = Declared {
                folder: folder.into(),
                name: name.into(),
            };
            assert_eq!(
                check(&repository, &[declared]).is_empty(),
                is_used,
                "{folder}: {name}"
            );
        }
    }
}

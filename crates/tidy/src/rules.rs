//! The rules, one file each. A rule is a pure function from the repository, or from what cargo says
//! of its packages, to the places that break it.

pub mod commented_out_code;
pub mod confined_crates;
pub mod dependency_edges;
pub mod file_shape;
pub mod golden_files;
pub mod injected_effects;
pub mod links;
pub mod machine_paths;
pub mod panics;
pub mod unfinished_work;
pub mod unsafe_rooms;
pub mod unused_dependencies;

use crate::{Repository, Violation};

/// A rule over the files of the repository.
pub type Rule = fn(&Repository) -> Vec<Violation>;

/// Every rule over the files, by name.
pub const RULES: &[(&str, Rule)] = &[
    ("commented_out_code", commented_out_code::check),
    ("confined_crates", confined_crates::check),
    ("file_shape", file_shape::check),
    ("golden_files", golden_files::check),
    ("injected_effects", injected_effects::check),
    ("links", links::check),
    ("machine_paths", machine_paths::check),
    ("panics", panics::check),
    ("unfinished_work", unfinished_work::check),
    ("unsafe_rooms", unsafe_rooms::check),
];

#[cfg(test)]
pub(crate) mod cases {
    //! Repositories of a few lines, for the tables of the rules.

    use super::Rule;
    use crate::{Repository, TextFile};

    /// The lines that `rule` reports in a repository of one file.
    pub(crate) fn lines_reported(rule: Rule, path: &str, text: &str) -> Vec<usize> {
        rule(&repository(&[(path, text)]))
            .iter()
            .map(|violation| violation.line)
            .collect()
    }

    /// A repository of these files.
    pub(crate) fn repository(files: &[(&str, &str)]) -> Repository {
        let file = |(path, text): &(&str, &str)| TextFile {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Repository::from_files(files.iter().map(file).collect())
    }
}

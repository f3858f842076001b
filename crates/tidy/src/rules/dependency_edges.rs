//! Who may depend on whom: the picture of the workspace in ARCHITECTURE.md, as a table. An upward
//! or sideways import fails here, whatever the compiler thinks of it.

use crate::Violation;

/// A dependency between two packages of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The package that depends.
    pub from: String,
    /// The package that it depends on.
    pub to: String,
    /// Whether tests, examples and benches alone have it.
    pub is_dev: bool,
    /// Whether a feature has to ask for it.
    pub is_optional: bool,
}

/// Packages and what they may depend on; `None`: anything.
const ALLOWED: &[(&str, Option<&[&str]>)] = &[
    ("esker-base", Some(&[])),
    ("esker-prefetch", Some(&[])),
    ("esker-vfs", Some(&[])),
    ("esker-memtable", Some(&["esker-base", "esker-prefetch"])),
    ("esker-tuple", Some(&["esker-base"])),
    ("esker-wal", Some(&["esker-base", "esker-vfs"])),
    (
        "esker-sstable",
        Some(&["esker-base", "esker-prefetch", "esker-vfs"]),
    ),
    (
        "esker-manifest",
        Some(&["esker-base", "esker-vfs", "esker-wal"]),
    ),
    (
        "esker-compaction",
        Some(&["esker-base", "esker-vfs", "esker-sstable", "esker-manifest"]),
    ),
    (
        "esker",
        Some(&[
            "esker-base",
            "esker-prefetch",
            "esker-vfs",
            "esker-memtable",
            "esker-wal",
            "esker-sstable",
            "esker-manifest",
            "esker-compaction",
            "esker-tuple",
        ]),
    ),
    ("esker-cli", Some(&["esker"])),
    ("esker-testkit", Some(&["esker-base", "esker-vfs"])),
    ("esker-tidy", Some(&[])),
    ("esker-benches", None),
];

const TESTKIT: &str = "esker-testkit";
const FACADE: &str = "esker";
/// What testkit itself stands on, and so must not be tested with it.
const BELOW_TESTKIT: &[&str] = &["esker-base", "esker-vfs"];

/// Whether `edge` is drawn in the picture.
#[must_use]
pub fn is_allowed(edge: &Edge) -> bool {
    let Some((_, allowed)) = ALLOWED.iter().find(|(package, _)| *package == edge.from) else {
        return false;
    };
    let Some(allowed) = allowed else { return true };
    if edge.is_dev && edge.to == TESTKIT {
        return !BELOW_TESTKIT.contains(&edge.from.as_str()) && edge.from != "esker-tidy";
    }
    // The simulation drives the whole engine. It is a feature of the kit, which those who are tested
    // with the kit do without, so that the kit's library stays below them.
    if edge.from == TESTKIT && edge.to == FACADE {
        return edge.is_optional;
    }
    allowed.contains(&edge.to.as_str())
}

/// Every edge that is not drawn.
#[must_use]
pub fn check(edges: &[Edge]) -> Vec<Violation> {
    let message = |edge: &Edge| {
        let kind = if edge.is_dev { "tests of " } else { "" };
        format!("{kind}{} must not depend on {}", edge.from, edge.to)
    };
    edges
        .iter()
        .filter(|edge| !is_allowed(edge))
        .map(|edge| Violation::new("Cargo.toml", 0, message(edge)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downward_edges_pass_and_others_do_not() {
        let cases = [
            ("esker-wal", "esker-base", false, true),
            ("esker-manifest", "esker-wal", false, true),
            ("esker", "esker-compaction", false, true),
            ("esker-cli", "esker", false, true),
            ("esker-benches", "esker-sstable", false, true),
            ("esker", "esker-testkit", true, true),
            ("esker-wal", "esker-testkit", true, true),
            ("esker-base", "esker-wal", false, false),
            ("esker-vfs", "esker-base", false, false),
            ("esker-manifest", "esker-sstable", false, false),
            ("esker-compaction", "esker-memtable", false, false),
            ("esker-cli", "esker-base", false, false),
            ("esker", "esker-testkit", false, false),
            ("esker-vfs", "esker-testkit", true, false),
            ("esker-sstable", "esker-manifest", true, false),
            ("esker-tidy", "esker-base", true, false),
            ("esker-newcomer", "esker-base", false, false),
        ];
        for (from, to, is_dev, allowed) in cases {
            let edge = Edge {
                from: from.into(),
                to: to.into(),
                is_dev,
                is_optional: false,
            };
            assert_eq!(is_allowed(&edge), allowed, "{edge:?}");
            assert_eq!(check(&[edge]).is_empty(), allowed);
        }
    }

    #[test]
    fn the_kit_knows_the_engine_by_a_feature_alone() {
        for is_optional in [true, false] {
            let edge = Edge {
                from: TESTKIT.into(),
                to: FACADE.into(),
                is_dev: false,
                is_optional,
            };
            assert_eq!(is_allowed(&edge), is_optional);
        }
    }
}

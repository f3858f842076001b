//! Files, time and sleep are injected (I12): only the rooms that wrap the real ones name them, so
//! that the whole engine runs over memory and by a clock that a test winds.

use crate::{Repository, RustSource, Violation};

const EFFECTS: &[&str] = &[
    "std::fs",
    "SystemTime::now",
    "Instant::now",
    "thread::sleep",
];

/// The rooms that wrap the real things.
const ROOMS: &[&str] = &["crates/vfs/src/os", "crates/base/src/clock"];

/// Crates that are programs for people or for tests, not the engine.
const EXEMPT_CRATES: &[&str] = &["benches", "cli", "fuzz", "tidy"];

fn is_exempt(source: &RustSource) -> bool {
    source.is_test
        || EXEMPT_CRATES.contains(&Repository::crate_of(&source.path))
        || source.path.starts_with("crates/testkit/src/bin/")
        || source.path.split('/').any(|part| part == "examples")
        || ROOMS.iter().any(|room| is_in_room(&source.path, room))
}

/// Whether `path` is the file `room`.rs, one of its parts `room_*.rs`, or lies in the folder `room`.
fn is_in_room(path: &str, room: &str) -> bool {
    path.strip_prefix(room)
        .is_some_and(|rest| rest.starts_with(['.', '_', '/']))
}

/// Every place outside of tests and rooms that names a real effect.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in repository.rust.iter().filter(|source| !is_exempt(source)) {
        let named = EFFECTS
            .iter()
            .flat_map(|effect| source.occurrences(effect).map(move |at| (at, *effect)));
        let imported = grouped_fs_imports(&source.code)
            .into_iter()
            .map(|at| (at, "std::fs"));
        for (offset, effect) in named.chain(imported) {
            if !source.in_test(offset) {
                let line = source.line_of(offset);
                let message = format!("`{effect}` is injected: ask a FileSystem or a Clock");
                violations.push(Violation::new(&source.path, line, message));
            }
        }
    }
    violations
}

/// Offsets of `use std::{..., fs, ...}`.
fn grouped_fs_imports(code: &str) -> Vec<usize> {
    let groups = code.match_indices("use std::{").filter(|(offset, _)| {
        let group = &code[*offset..];
        let group = &group[..group.find(';').unwrap_or(group.len())];
        group
            .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
            .any(|name| name == "fs" || name.starts_with("fs::"))
    });
    groups.map(|(offset, _)| offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::lines_reported;

    #[test]
    fn effects_outside_their_rooms_are_found() {
        let cases: [(&str, &str, &[usize]); 13] = [
            ("crates/db/src/open.rs", "//! x\nuse std::fs::File;\n", &[2]),
            ("crates/db/src/open.rs", "use std::{io, fs::File};\n", &[1]),
            ("crates/db/src/open.rs", "use std::{fs, io};\n", &[1]),
            (
                "crates/db/src/open.rs",
                "use std::{io, path};\nuse crate::fs;\n",
                &[],
            ),
            (
                "crates/db/src/open.rs",
                "let t = std::time::Instant::now();",
                &[1],
            ),
            (
                "crates/db/src/open.rs",
                "SystemTime::now()\n;thread::sleep(d)",
                &[1, 2],
            ),
            (
                "crates/db/src/open.rs",
                "// std::fs\nlet x = \"std::fs\";",
                &[],
            ),
            (
                "crates/db/src/open.rs",
                "#[cfg(test)]\nmod tests { use std::fs; }",
                &[],
            ),
            ("crates/db/tests/open.rs", "use std::fs;", &[]),
            ("crates/vfs/src/os/sync.rs", "use std::fs;", &[]),
            ("crates/vfs/src/os_map.rs", "use std::fs;", &[]),
            ("crates/vfs/src/oscillate.rs", "use std::fs;", &[1]),
            ("crates/base/src/clock.rs", "SystemTime::now()", &[]),
        ];
        for (path, text, expected) in cases {
            let mut lines = lines_reported(check, path, text);
            lines.sort_unstable();
            assert_eq!(lines, expected, "{path}: {text}");
        }
    }
}

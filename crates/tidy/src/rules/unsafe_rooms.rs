//! Unsafe code lives in few rooms, each use with its argument; every other crate forbids it.

use crate::{Repository, RustSource, Violation};

/// Where unsafe code may be written: the system calls, the arena and its tests, the prefetch
/// instruction, a test's counting allocator, and the program that measures other engines, whose
/// interfaces can be unsafe.
const ROOMS: &[&str] = &[
    "crates/vfs/src/os",
    "crates/memtable/",
    "crates/prefetch/src/lib.rs",
    "crates/db/tests/damage/allocations.rs",
    "benches/peers/",
];

/// Crates that have such rooms, and so cannot forbid it as a whole.
const CRATES_WITH_ROOMS: &[&str] = &[
    "crates/vfs/src/lib.rs",
    "crates/memtable/src/lib.rs",
    "crates/prefetch/src/lib.rs",
    "benches/peers/src/main.rs",
];

const FORBID: &str = "#![forbid(unsafe_code)]";

/// How many lines above an unsafe block its argument may begin.
const ARGUMENT_LINES: usize = 12;

/// Crate roots that do not forbid unsafe code, uses outside the rooms, uses without an argument.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in &repository.rust {
        if is_crate_root(&source.path)
            && !CRATES_WITH_ROOMS.contains(&source.path.as_str())
            && !source.code.contains(FORBID)
        {
            violations.push(Violation::new(
                &source.path,
                0,
                format!("a crate root says {FORBID}"),
            ));
        }
        let may_use = ROOMS.iter().any(|room| source.path.starts_with(room));
        for offset in source.occurrences("unsafe") {
            let line = source.line_of(offset);
            if !may_use {
                let message = format!("unsafe code belongs into {}", ROOMS.join(", "));
                violations.push(Violation::new(&source.path, line, message));
            } else if needs_argument(&source.code[offset..]) && !has_argument(source, line) {
                let message = "say in a `// SAFETY:` comment above why this is sound";
                violations.push(Violation::new(&source.path, line, message));
            }
        }
    }
    violations
}

/// Roots that this repository compiles by itself. Integration tests, benches and fuzz targets are
/// crates too, but nobody depends on them, and the use rule covers them.
fn is_crate_root(path: &str) -> bool {
    let is_bin = path.contains("/src/bin/") && path.matches('/').count() == 4;
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || is_bin
}

/// Blocks and impls claim that something is sound; functions and traits pass the claim on.
fn needs_argument(code: &str) -> bool {
    let next = code["unsafe".len()..].trim_start();
    next.starts_with('{') || next.starts_with("impl")
}

fn has_argument(source: &RustSource, line: usize) -> bool {
    let near = line.saturating_sub(ARGUMENT_LINES)..=line;
    source
        .comments
        .iter()
        .any(|comment| near.contains(&comment.line) && comment.text.contains("SAFETY:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::lines_reported;

    #[test]
    fn unsafe_code_outside_its_rooms_or_without_argument_is_found() {
        let root = "//! x\n#![forbid(unsafe_code)]\n";
        let argued = "// SAFETY: in bounds.\nlet x = unsafe { y };";
        let cases: [(&str, &str, &[usize]); 10] = [
            ("crates/wal/src/lib.rs", root, &[]),
            ("crates/wal/src/lib.rs", "//! x\n", &[0]),
            (
                "crates/wal/src/lib.rs",
                "// #![forbid(unsafe_code)]\n",
                &[0],
            ),
            ("benches/src/main.rs", "//! x\n", &[0]),
            ("crates/memtable/src/lib.rs", "//! x\n", &[]),
            ("crates/memtable/src/arena.rs", argued, &[]),
            (
                "crates/memtable/src/arena.rs",
                "//! x\nlet x = unsafe { y };",
                &[2],
            ),
            (
                "crates/memtable/src/arena.rs",
                "unsafe fn f() {}\nunsafe impl Send for X {}",
                &[2],
            ),
            ("crates/wal/src/writer.rs", argued, &[2]),
            (
                "crates/wal/src/writer.rs",
                "// unsafe\nlet unsafe_code = \"unsafe\";",
                &[],
            ),
        ];
        for (path, text, expected) in cases {
            assert_eq!(
                lines_reported(check, path, text),
                expected,
                "{path}: {text}"
            );
        }
    }
}

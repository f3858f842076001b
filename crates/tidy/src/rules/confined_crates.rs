//! Crates from outside that decide bytes on disk, or whose traps somebody had to learn, are named
//! in one room each: to replace one means to read one file.

use crate::{Repository, Violation};

/// Crates and the rooms (beginnings of paths) that may name them.
const ROOMS: &[(&str, &[&str])] = &[
    ("xxhash_rust", &["crates/base/src/checksum.rs"]),
    ("lz4_flex", &["crates/sstable/src/compression.rs"]),
    ("bloomfilter", &["crates/sstable/src/filter"]),
    ("crossbeam_skiplist", &["crates/memtable/"]),
    ("crossbeam_epoch", &["crates/memtable/"]),
    // Files in vfs; the advice on huge pages in the arena.
    ("rustix", &["crates/vfs/", "crates/memtable/src/arena.rs"]),
    ("postcard", &["crates/db/src/typed/codec.rs"]),
    ("rayon", &["crates/compaction/"]),
];

/// Programs that measure other crates by name.
const EXEMPT_CRATES: &[&str] = &["benches", "fuzz", "tidy"];

/// Every place that names one of the crates outside its room.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in &repository.rust {
        if EXEMPT_CRATES.contains(&Repository::crate_of(&source.path)) {
            continue;
        }
        for (name, rooms) in ROOMS {
            if rooms.iter().any(|room| source.path.starts_with(room)) {
                continue;
            }
            for offset in source.occurrences(name) {
                let is_module = source.code[..offset].trim_end().ends_with("mod");
                if !is_module && !is_own_path(&source.code, offset) {
                    let message = format!("only {} may name `{name}`", rooms.join(", "));
                    let line = source.line_of(offset);
                    violations.push(Violation::new(&source.path, line, message));
                }
            }
        }
    }
    violations
}

/// Whether the name at `offset` is a module or item of the workspace that is called alike.
fn is_own_path(code: &str, offset: usize) -> bool {
    ["crate::", "self::", "super::", "."]
        .iter()
        .any(|path| code[..offset].ends_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::lines_reported;

    #[test]
    fn names_outside_their_room_are_found() {
        let cases: [(&str, &str, &[usize]); 9] = [
            (
                "crates/sstable/src/compression.rs",
                "use lz4_flex::block;",
                &[],
            ),
            (
                "crates/sstable/src/block_io.rs",
                "//! x\nlz4_flex::block::compress(b)",
                &[2],
            ),
            (
                "crates/sstable/src/filter/standard.rs",
                "use bloomfilter::Bloom;",
                &[],
            ),
            (
                "crates/sstable/src/table.rs",
                "use bloomfilter::Bloom;",
                &[1],
            ),
            (
                "crates/sstable/src/table.rs",
                "// bloomfilter\nmy_bloomfilter()",
                &[],
            ),
            (
                "crates/db/src/background.rs",
                "mod rayon; use crate::rayon::Pool;",
                &[],
            ),
            (
                "crates/db/src/background.rs",
                "use rayon::ThreadPool;",
                &[1],
            ),
            ("crates/db/tests/all.rs", "use xxhash_rust::xxh3;", &[1]),
            ("benches/src/main.rs", "use rustix::process;", &[]),
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

//! The corpus of every target, as it stands and damaged in many places: what can be had of fuzzing
//! without a fuzzer.

use std::path::Path;

use esker_fuzz::TARGETS;

/// How many damaged copies of a seed are run at most, spread over its length.
const DAMAGED_COPIES: usize = 500;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file());
    let mut paths: Vec<_> = paths.collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Prefixes of `seed`, and `seed` with one byte changed in several ways: all of them where they are
/// not too many.
fn damaged(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let cut = (0..seed.len()).map(|length| seed[..length].to_vec());
    let changed = (0..seed.len()).flat_map(move |at| {
        [0x01, 0x02, 0x80, 0xff].map(|mask| {
            let mut bytes = seed.to_vec();
            bytes[at] ^= mask;
            bytes
        })
    });
    let copies = 5 * seed.len();
    // An odd step, so that all four changes are met.
    cut.chain(changed).step_by((copies / DAMAGED_COPIES) | 1)
}

#[test]
fn every_target_survives_its_corpus_and_its_damage() {
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no corpus");
        for seed in seeds {
            run(&seed);
            damaged(&seed).for_each(|bytes| run(&bytes));
        }
    }
}

#[test]
fn every_target_has_a_door() {
    for (target, _) in TARGETS {
        let door = format!("fuzz_targets/{target}.rs");
        let door = Path::new(env!("CARGO_MANIFEST_DIR")).join(door);
        let text = std::fs::read_to_string(&door).unwrap();
        assert!(
            text.contains(&format!("esker_fuzz::{target}(data)")),
            "{}",
            door.display()
        );
    }
}

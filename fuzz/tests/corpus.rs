//! The corpus of every target, as it stands and damaged in every place: what can be had of fuzzing
//! without a fuzzer.

use std::path::Path;

use esker_fuzz::TARGETS;

/// Seeds longer than this are replayed as they are.
const MUTATED_BYTES: usize = 2048;

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

/// Every prefix of `seed`, and `seed` with each of its bytes changed in several ways.
fn damaged(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let cut = (0..seed.len()).map(|length| seed[..length].to_vec());
    let changed = (0..seed.len()).flat_map(move |at| {
        [0x01, 0x02, 0x80, 0xff].map(|mask| {
            let mut bytes = seed.to_vec();
            bytes[at] ^= mask;
            bytes
        })
    });
    cut.chain(changed)
}

#[test]
fn every_target_survives_its_corpus_and_its_damage() {
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no corpus");
        for seed in seeds {
            run(&seed);
            if seed.len() <= MUTATED_BYTES {
                damaged(&seed).for_each(|bytes| run(&bytes));
            }
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

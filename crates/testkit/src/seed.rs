//! Which seeds a test tries, and the generator that they start.
//!
//! Invariant: one number replays one run, on any machine: set `ESKER_SEED` to the number that a
//! failing test printed, and every test that takes its seeds from here runs that one alone.

use std::ops::Range;

pub use esker_vfs::Random;

/// The seeds to try: `ESKER_SEED` alone if it is set, else as many as `ESKER_SEEDS` says, else
/// `count`, from 0 on.
///
/// # Panics
/// Where one of the variables is set to something other than a number: a test that silently ran
/// other seeds than it was told to would mislead.
#[must_use]
pub fn seeds(count: u64) -> Range<u64> {
    let read = |name: &str| std::env::var(name).ok();
    match chosen(read("ESKER_SEED"), read("ESKER_SEEDS"), count) {
        Ok(range) => range,
        Err(text) => panic!("ESKER_SEED and ESKER_SEEDS take a number, not {text:?}"),
    }
}

/// Bytes that do not compress, the same for each `seed`.
#[must_use]
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    Random::new(seed).fill(&mut noise);
    noise
}

fn chosen(one: Option<String>, number: Option<String>, count: u64) -> Result<Range<u64>, String> {
    let parse = |text: String| text.trim().parse::<u64>().map_err(|_| text);
    if let Some(seed) = one.map(parse).transpose()? {
        // The last number of all would need an end beyond it.
        let seed = seed.min(u64::MAX - 1);
        return Ok(seed..seed + 1);
    }
    Ok(0..number.map(parse).transpose()?.unwrap_or(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_goes_before_a_number_of_them() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(chosen(None, None, 7), Ok(0..7));
        assert_eq!(chosen(None, text("3"), 7), Ok(0..3));
        assert_eq!(chosen(text(" 12\n"), text("3"), 7), Ok(12..13));
        assert_eq!(chosen(text("x"), None, 7), Err("x".to_owned()));
        assert_eq!(chosen(None, text("-1"), 7), Err("-1".to_owned()));
        assert_eq!(
            chosen(text("18446744073709551615"), None, 7).map(Iterator::count),
            Ok(1)
        );
    }
}

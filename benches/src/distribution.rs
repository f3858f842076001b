//! Which keys an operation touches: uniform, zipfian or latest, and a permutation for loads.
//!
//! Invariant: every index drawn is below the number of items. Called once per operation.

use crate::random::{Rng, mix64};
use clap::ValueEnum;
use serde::Serialize;

/// How requests spread over the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Every key equally often.
    Uniform,
    /// A few keys very often (theta 0.99), scattered over the key space.
    Zipfian,
    /// The most recently inserted keys most often.
    Latest,
}

/// YCSB's skew.
const THETA: f64 = 0.99;
/// Terms of the zeta sum that are added one by one; the rest is integrated.
const ZETA_EXACT_TERMS: u64 = 10_000;

/// Ranks with probability proportional to `1 / (rank + 1)^theta`.
///
/// Source: Gray, Sundaresan, Englert, Baclawski, Weinberger: Quickly Generating Billion-Record
/// Synthetic Databases (SIGMOD 1994), as in YCSB's `ZipfianGenerator`.
#[derive(Clone, Debug)]
pub struct Zipfian {
    items: u64,
    alpha: f64,
    zeta_items: f64,
    eta: f64,
    second_rank_below: f64,
}

impl Zipfian {
    /// A generator of ranks below `items` (at least 1).
    #[must_use]
    pub fn new(items: u64) -> Self {
        let items = items.max(1);
        let zeta_items = zeta(items);
        let zeta_two = zeta(2);
        let n = items as f64;
        Self {
            items,
            alpha: 1.0 / (1.0 - THETA),
            zeta_items,
            eta: (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - zeta_two / zeta_items),
            second_rank_below: 1.0 + 0.5f64.powf(THETA),
        }
    }

    /// Draws a rank: 0 most often.
    #[inline]
    pub fn rank(&self, rng: &mut Rng) -> u64 {
        let unit = rng.unit();
        let scaled = unit * self.zeta_items;
        if scaled < 1.0 || self.items == 1 {
            return 0;
        }
        if scaled < self.second_rank_below || self.items == 2 {
            return 1;
        }
        let rank = self.items as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items - 1)
    }
}

/// The sum of `i^-theta` for i in 1..=n: exact at first, then by the Euler-Maclaurin formula, so
/// that a run over many keys does not begin with a long sum.
fn zeta(n: u64) -> f64 {
    let exact = n.min(ZETA_EXACT_TERMS);
    let sum: f64 = (1..=exact).map(|i| (i as f64).powf(-THETA)).sum();
    if exact == n {
        return sum;
    }
    let (from, to) = (exact as f64, n as f64);
    let integral = (to.powf(1.0 - THETA) - from.powf(1.0 - THETA)) / (1.0 - THETA);
    let ends = (to.powf(-THETA) - from.powf(-THETA)) / 2.0;
    let slopes = THETA * (from.powf(-THETA - 1.0) - to.powf(-THETA - 1.0)) / 12.0;
    sum + integral + ends + slopes
}

/// Draws key indexes by a [`Distribution`].
#[derive(Clone, Debug)]
pub enum KeyChooser {
    /// See [`Distribution::Uniform`].
    Uniform,
    /// See [`Distribution::Zipfian`]; popular ranks are scattered by a hash.
    Zipfian(Zipfian),
    /// See [`Distribution::Latest`].
    Latest(Zipfian),
}

impl KeyChooser {
    /// A chooser over about `items` keys.
    #[must_use]
    pub fn new(distribution: Distribution, items: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform,
            Distribution::Zipfian => Self::Zipfian(Zipfian::new(items)),
            Distribution::Latest => Self::Latest(Zipfian::new(items)),
        }
    }

    /// An index below `items`, the number of keys now (at least 1; the newest is `items - 1`).
    #[inline]
    pub fn index(&self, rng: &mut Rng, items: u64) -> u64 {
        match self {
            Self::Uniform => rng.below(items),
            Self::Zipfian(zipfian) => mix64(zipfian.rank(rng)) % items,
            Self::Latest(zipfian) => items - 1 - zipfian.rank(rng).min(items - 1),
        }
    }
}

/// A pseudo-random order of `0..items` without a table: a Feistel network over the next even
/// number of bits, walked until it lands below `items` (Black and Rogaway, Ciphers with Arbitrary
/// Finite Domains, 2002).
#[derive(Clone, Debug)]
pub struct Permutation {
    items: u64,
    half_bits: u32,
    seed: u64,
}

impl Permutation {
    /// The order that `seed` decides.
    #[must_use]
    pub fn new(items: u64, seed: u64) -> Self {
        let bits = u64::BITS - items.saturating_sub(1).leading_zeros();
        Self {
            items,
            half_bits: bits.div_ceil(2).max(1),
            seed,
        }
    }

    /// Where `position` (below the number of items) goes.
    #[inline]
    #[must_use]
    pub fn at(&self, position: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let mut x = position;
        loop {
            let (mut left, mut right) = (x >> self.half_bits, x & mask);
            for round in 0..4u64 {
                let scrambled = mix64(right ^ self.seed.wrapping_add(round << 32)) & mask;
                (left, right) = (right, left ^ scrambled);
            }
            x = left << self.half_bits | right;
            if x < self.items {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integrated_zeta_equals_the_sum() {
        let n = 300_000u64;
        let sum: f64 = (1..=n).map(|i| (i as f64).powf(-THETA)).sum();
        assert!((zeta(n) - sum).abs() / sum < 1e-9);
    }

    #[test]
    fn zipfian_ranks_have_the_shares_that_the_law_gives() {
        let items = 10_000u64;
        let zipfian = Zipfian::new(items);
        let mut rng = Rng::new(1, 0);
        let draws = 400_000u32;
        let mut counts = vec![0u32; items as usize];
        for _ in 0..draws {
            counts[zipfian.rank(&mut rng) as usize] += 1;
        }
        let share = |rank: usize| f64::from(counts[rank]) / f64::from(draws);
        let law = |rank: u64| ((rank + 1) as f64).powf(-THETA) / zeta(items);
        assert!((share(0) - law(0)).abs() < 0.005, "{} {}", share(0), law(0));
        assert!((share(1) - law(1)).abs() < 0.005, "{} {}", share(1), law(1));
        // The most popular tenth takes what the law gives it, within the approximation of the
        // method.
        let tenth = (0..1000).map(share).sum::<f64>();
        let expected = (0..1000).map(law).sum::<f64>();
        assert!((tenth - expected).abs() < 0.03, "{tenth} {expected}");
    }

    #[test]
    fn every_choice_is_in_range_and_latest_prefers_the_newest() {
        let mut rng = Rng::new(3, 0);
        for items in [1u64, 2, 3, 100] {
            for distribution in [
                Distribution::Uniform,
                Distribution::Zipfian,
                Distribution::Latest,
            ] {
                let chooser = KeyChooser::new(distribution, items);
                for _ in 0..1000 {
                    assert!(chooser.index(&mut rng, items) < items);
                }
            }
        }
        let chooser = KeyChooser::new(Distribution::Latest, 1000);
        let newest = (0..10_000)
            .filter(|_| chooser.index(&mut rng, 1000) >= 990)
            .count();
        assert!(newest > 3000, "{newest}");
    }

    #[test]
    fn a_zipfian_chooser_scatters_its_popular_keys() {
        let chooser = KeyChooser::new(Distribution::Zipfian, 1000);
        let mut rng = Rng::new(5, 0);
        let low = (0..10_000)
            .filter(|_| chooser.index(&mut rng, 1000) < 100)
            .count();
        assert!(
            low < 5000,
            "the first tenth of the keys is not the popular one: {low}"
        );
    }

    #[test]
    fn a_permutation_visits_everything_once() {
        for items in [1u64, 2, 7, 64, 1000, 4097] {
            let permutation = Permutation::new(items, 11);
            let mut seen = vec![false; items as usize];
            for position in 0..items {
                let index = permutation.at(position) as usize;
                assert!(!std::mem::replace(&mut seen[index], true));
            }
        }
    }
}

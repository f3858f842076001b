//! The three shapes of a tree, and how large each of its levels should be.
//!
//! A version is levels of sorted runs, the newest first. A *tier* is a level that holds several
//! runs, which may overlap each other; a *sorted* level holds one run at most.
//!
//! - Leveled (O'Neil 1996; LevelDB, RocksDB): level 0 is a tier of flushes, every other is sorted.
//! - Tiered (Cassandra; RocksDB's universal style): every level is a tier, the last one too.
//! - Lazy-leveled (Dostoevsky, SIGMOD 2018): tiers above one sorted last level.
//!
//! Invariant: the sizes follow the data. In the two shapes with a sorted last level that level is
//! always the deepest one; what lies above is sized from what the tree really holds, and levels
//! come into use from the bottom up as it grows. Pure; called by the picker and by whoever wants
//! to show the shape of a tree.

use esker_base::limits::MAX_LEVELS;

/// Which shape compaction keeps a keyspace's tables in. `docs/compaction.md` compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum CompactionShape {
    /// One run per level below level 0: fewest bytes on disk, cheapest scans, most rewriting.
    Leveled,
    /// Several runs per level everywhere: least rewriting, most bytes on disk.
    Tiered,
    /// Tiers above one sorted last level: rewrites nearly as little as tiered, takes nearly as
    /// few bytes as leveled.
    #[default]
    LazyLeveled,
}

/// The knobs of a shape. Plain data; [`ShapeOptions::sanitized`] brings it within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapeOptions {
    /// The shape.
    pub shape: CompactionShape,
    /// Runs at which level 0 is compacted, at least 1.
    pub level0_runs: usize,
    /// Runs at which a tier below level 0 is compacted, and how many times larger each tier is
    /// than the one above; at least 2. Tiered and lazy-leveled.
    pub tier_runs: usize,
    /// How many times larger each level is than the one above, at least 2. Leveled.
    pub size_ratio: usize,
    /// What level 0 is expected to hold when it is compacted, bytes: about `level0_runs` times
    /// what a flush writes. No level is kept for less than a part of it.
    pub base_bytes: u64,
    /// The size at which a merge begins a new table, bytes.
    pub target_file_bytes: u64,
    /// Levels, level 0 included; 2 to [`MAX_LEVELS`].
    pub max_levels: usize,
    /// A merge for the sake of space alone must promise to free this share of the bytes that it
    /// reads, above 0.
    pub garbage_ratio: f64,
    /// How many times the oldest run's bytes may lie above and overlap it before they are merged
    /// although no level is full, above 0.
    pub space_amplification: f64,
    /// About how many bytes one merge reads at most where it can be cut smaller.
    pub max_merge_bytes: u64,
    /// Tables that come into this level or a deeper one from above it are rewritten even where
    /// moving them would do: their compression differs. 0: never.
    pub recompress_from_level: usize,
    /// Values that are kept apart move on where a larger share of their table is garbage; and as much
    /// of them, by bytes, may lie above older ones that they presumably replace.
    pub value_garbage_ratio: f64,
}

impl Default for ShapeOptions {
    fn default() -> Self {
        Self {
            shape: CompactionShape::default(),
            level0_runs: 4,
            tier_runs: 4,
            size_ratio: 10,
            base_bytes: 256 << 20,
            target_file_bytes: 64 << 20,
            max_levels: 7,
            garbage_ratio: 0.25,
            space_amplification: 2.0,
            max_merge_bytes: 25 * (64 << 20),
            recompress_from_level: 0,
            value_garbage_ratio: 0.5,
        }
    }
}

impl ShapeOptions {
    /// The same with every knob within its bounds, so that no arithmetic on it can fail.
    #[must_use]
    pub fn sanitized(&self) -> Self {
        let positive = |ratio: f64, default: f64| if ratio > 0.0 { ratio } else { default };
        Self {
            level0_runs: self.level0_runs.max(1),
            tier_runs: self.tier_runs.max(2),
            size_ratio: self.size_ratio.max(2),
            base_bytes: self.base_bytes.max(1),
            target_file_bytes: self.target_file_bytes.max(1),
            max_levels: self.max_levels.clamp(2, MAX_LEVELS),
            garbage_ratio: positive(self.garbage_ratio, 0.25),
            space_amplification: positive(self.space_amplification, 2.0),
            value_garbage_ratio: positive(self.value_garbage_ratio, 0.5),
            ..self.clone()
        }
    }

    /// What each level should be, given the bytes that each holds now (`level_bytes[0]` is level
    /// 0). Levels beyond `max_levels` that hold data, left by other options, still count.
    #[must_use]
    pub fn layout(&self, level_bytes: &[u64]) -> Layout {
        let deepest = level_bytes
            .iter()
            .rposition(|bytes| *bytes > 0)
            .unwrap_or(0);
        let last_level = deepest.max(self.max_levels - 1);
        let layout = Layout {
            base_level: 1,
            last_level,
            sorted_from: match self.shape {
                CompactionShape::Leveled => 1,
                CompactionShape::Tiered => usize::MAX,
                CompactionShape::LazyLeveled => last_level,
            },
            target_bytes: vec![u64::MAX; last_level + 1],
        };
        match self.shape {
            CompactionShape::Tiered => layout,
            CompactionShape::Leveled => self.size_leveled(layout, level_bytes),
            CompactionShape::LazyLeveled => self.size_lazy(layout, level_bytes),
        }
    }

    /// RocksDB's `level_compaction_dynamic_level_bytes`: the largest level is taken as full, every
    /// level above is `size_ratio` times smaller, and the first one in use is the one whose size
    /// comes out between `base_bytes / size_ratio` and `base_bytes`.
    fn size_leveled(&self, mut layout: Layout, level_bytes: &[u64]) -> Layout {
        let ratio = self.size_ratio as u64;
        let last = layout.last_level;
        let (first, largest) = first_and_largest(level_bytes, last);
        let mut size = (first..last).fold(largest, |size, _| size / ratio);
        let mut base = first;
        if size <= self.base_bytes / ratio {
            size = self.base_bytes / ratio + 1;
        } else {
            while base > 1 && size > self.base_bytes {
                base -= 1;
                size /= ratio;
            }
        }
        layout.base_level = base;
        for level in base..last {
            // No level below `base_bytes`: otherwise the tree would be thinner below than above.
            layout.target_bytes[level] = size.max(self.base_bytes);
            size = size.saturating_mul(ratio);
        }
        layout
    }

    /// The last level is taken as full, every tier above holds `tier_runs` times less. A tier is
    /// worth having only where it holds several times what level 0 hands down.
    fn size_lazy(&self, mut layout: Layout, level_bytes: &[u64]) -> Layout {
        let ratio = self.tier_runs as u64;
        let last = layout.last_level;
        let (first, largest) = first_and_largest(level_bytes, last);
        let mut size = largest;
        let mut base = last;
        while base > 1 && (base > first || size / ratio > self.base_bytes) {
            base -= 1;
            size /= ratio;
            layout.target_bytes[base] = size;
        }
        layout.base_level = base;
        layout
    }
}

/// The first level below level 0 that holds data (the last level where none does), and the bytes
/// of the largest.
fn first_and_largest(level_bytes: &[u64], last: usize) -> (usize, u64) {
    let below = level_bytes.get(1..).unwrap_or_default();
    let first = below
        .iter()
        .position(|bytes| *bytes > 0)
        .map_or(last, |index| index + 1);
    (first, below.iter().copied().max().unwrap_or(0))
}

/// What each level of a tree should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where level 0 is merged into. Levels between are empty.
    pub base_level: usize,
    /// The deepest level.
    pub last_level: usize,
    /// The first level that holds at most one run; `usize::MAX` where none does.
    pub sorted_from: usize,
    /// The bytes that each level should hold at most; `u64::MAX` for no bound.
    pub target_bytes: Vec<u64>,
}

impl Layout {
    /// Whether `level` holds at most one run.
    #[must_use]
    pub fn is_sorted(&self, level: usize) -> bool {
        level >= self.sorted_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn options(shape: CompactionShape) -> ShapeOptions {
        ShapeOptions {
            shape,
            base_bytes: 256 * MIB,
            ..ShapeOptions::default()
        }
    }

    #[test]
    fn leveled_levels_come_into_use_from_the_bottom_up() {
        // (bytes per level, base level, targets of levels 1..6 in MiB; 0 for no bound)
        let cases: [(&[u64], usize, [u64; 6]); 5] = [
            (&[], 6, [0; 6]),
            (&[100, 0, 0, 0, 0, 0, 200], 6, [0; 6]),
            (&[0, 0, 0, 0, 0, 0, 1000], 5, [0, 0, 0, 0, 256, 0]),
            (&[0, 0, 0, 0, 0, 300, 30_000], 3, [0, 0, 256, 300, 3000, 0]),
            (&[0, 0, 0, 0, 10, 0, 1000], 4, [0, 0, 0, 256, 256, 0]),
        ];
        for (mib, base, targets) in cases {
            let bytes: Vec<u64> = mib.iter().map(|mib| mib * MIB).collect();
            let layout = options(CompactionShape::Leveled).layout(&bytes);
            assert_eq!(layout.base_level, base, "{mib:?}");
            for (level, target) in (1..).zip(targets) {
                let target = if target == 0 { u64::MAX } else { target * MIB };
                let real = layout.target_bytes[level];
                let real = if real == u64::MAX {
                    real
                } else {
                    real / MIB * MIB
                };
                assert_eq!(real, target, "{mib:?} level {level}");
            }
            assert!(layout.is_sorted(1) && !layout.is_sorted(0));
        }
    }

    #[test]
    fn a_lazy_tier_is_kept_only_where_it_batches() {
        let lazy = options(CompactionShape::LazyLeveled);
        let base = |last_mib: u64| lazy.layout(&[0, 0, 0, 0, 0, 0, last_mib * MIB]).base_level;
        assert_eq!([base(0), base(1024), base(1100), base(4500)], [6, 6, 5, 4]);
        let layout = lazy.layout(&[0, 0, 0, 0, 0, 0, 8192 * MIB]);
        assert_eq!(layout.target_bytes[5], 2048 * MIB);
        assert!(layout.is_sorted(6) && !layout.is_sorted(5));
        // A tier that still holds data stays in use, with the size that the last level gives it.
        let shrunk = lazy.layout(&[0, 0, 0, 0, 0, MIB, 8 * MIB]);
        assert_eq!((shrunk.base_level, shrunk.target_bytes[5]), (5, 2 * MIB));
    }

    #[test]
    fn tiers_have_no_byte_bounds_and_deeper_levels_of_other_options_count() {
        let layout = options(CompactionShape::Tiered).layout(&[1, 2, 3]);
        assert!(layout.target_bytes.iter().all(|target| *target == u64::MAX));
        assert!(!layout.is_sorted(layout.last_level));
        let small = ShapeOptions {
            max_levels: 3,
            ..options(CompactionShape::LazyLeveled)
        };
        assert_eq!(small.layout(&[0, 0, 0, 0, 0, 9]).last_level, 5);
        let absurd = ShapeOptions {
            max_levels: 0,
            size_ratio: 0,
            tier_runs: 0,
            ..small
        };
        assert_eq!(absurd.sanitized().max_levels, 2);
    }
}

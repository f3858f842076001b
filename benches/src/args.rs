//! The command line, and the settings that come of it.
//!
//! Invariant: a [`Config`] is consistent: whatever contradicts itself is refused here, with a
//! sentence that says how to mend it, before anything is created.

use crate::directory::is_empty_or_missing;
use crate::distribution::Distribution;
use crate::engine::{CompactionShape, Compression, Durability, EngineSettings};
use crate::expectations::MAX_KEYS;
use crate::keys::{KeyShape, Keys};
use crate::step::{self, Step};
use crate::suite;
use crate::verb::{TOUR, Verb};
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Measures key-value stores by the verbs of LevelDB's and RocksDB's db_bench and by YCSB, and
/// checks every answer. Without arguments: a tour of about a minute.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "db_bench",
    version,
    rename_all = "snake_case",
    args_override_self = true,
    after_long_help = step::help()
)]
pub struct Args {
    /// What to measure, in this order: verbs, some of which may have flags of their own, as in
    /// readrandom:threads=2 (--help lists them) [default: a tour of everything; with --engines, the
    /// pieces of the comparison]
    #[arg(long, value_delimiter = ',', value_name = "VERB,...")]
    pub benchmarks: Vec<Step>,
    /// Number of keys; also of entries that a fill writes, over all threads
    #[arg(long, default_value_t = 1_000_000)]
    pub num: u64,
    /// Number of operations of each read or mixed verb, over all threads [default: --num; a tenth
    /// of it for seekrandom and ycsbe; for multireadrandom it counts keys]
    #[arg(long)]
    pub reads: Option<u64>,
    /// Threads that work at once
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// What keys look like
    #[arg(long, default_value = "decimal")]
    pub key_shape: KeyShape,
    /// Bytes of a key, for shapes of any length [default: 16; of huge keys 1024]
    #[arg(long)]
    pub key_size: Option<usize>,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_size: usize,
    /// Size to which a value compresses, as a part of its own
    #[arg(long, default_value_t = 0.5)]
    pub compression_ratio: f64,
    /// Entries of a batch [default: 100 for fillbatch, fillrandbatch and multireadrandom, else 1]
    #[arg(long)]
    pub batch_size: Option<u64>,
    /// Block or page cache, bytes (K, M and G are powers of 1024)
    #[arg(long, default_value = "256M", value_parser = parse_bytes)]
    pub cache_size: u64,
    /// How random verbs choose keys [default: uniform; ycsb*: as the workload says]
    #[arg(long)]
    pub distribution: Option<Distribution>,
    /// Use what --db holds instead of beginning with an empty database
    #[arg(long)]
    pub use_existing_db: bool,
    /// Where the database goes, and stays [default: a directory in the system's temporary one,
    /// removed at the end]
    #[arg(long)]
    pub db: Option<PathBuf>,
    /// Short for --durability sync
    #[arg(long)]
    pub sync: bool,
    /// What a write has survived when it returns [default: buffered]
    #[arg(long)]
    pub durability: Option<Durability>,
    /// Seconds that each verb without a natural end takes, instead of a number of operations
    #[arg(long)]
    pub duration: Option<f64>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 20_261_123)]
    pub seed: u64,
    /// Operations a second, over all threads; latencies then count from the intended start
    #[arg(long)]
    pub rate: Option<f64>,
    /// Bytes of recent writes collected in memory [default: the engine's]
    #[arg(long, value_parser = parse_bytes)]
    pub write_buffer_size: Option<u64>,
    /// How tables are merged [default: the engine's]
    #[arg(long)]
    pub compaction_shape: Option<CompactionShape>,
    /// Values of so many bytes or more are kept apart from their keys; 0: none [default: the engine's]
    #[arg(long, value_parser = parse_bytes)]
    pub value_separation: Option<u64>,
    /// Block compression
    #[arg(long, default_value = "lz4")]
    pub compression: Compression,
    /// Filter bits per key, 0 for no filters
    #[arg(long, default_value_t = 10.0)]
    pub bloom_bits: f64,
    /// Entries that seekrandom reads behind the one it seeks
    #[arg(long, default_value_t = 10)]
    pub seek_nexts: u64,
    /// Print one JSON document instead of a table
    #[arg(long)]
    pub json: bool,
    /// Draw throughput and latencies into an SVG file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// The engine to measure
    #[arg(long, default_value = "esker")]
    pub engine: String,
    /// Compare engines: each in a process of its own, in interleaved rounds
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "ENGINE,...",
        conflicts_with_all = ["engine", "db", "use_existing_db"]
    )]
    pub engines: Vec<String>,
    /// Rounds of a comparison
    #[arg(long, default_value_t = 3, requires = "engines")]
    pub rounds: usize,
    /// Which pieces of the comparison to run, where --benchmarks does not say what [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PIECE,...", requires = "engines",
          conflicts_with = "benchmarks", value_parser = suite::find)]
    pub pieces: Vec<&'static suite::Piece>,
    /// Keep the report of every run here, go on where an earlier comparison stopped, and write the
    /// tables, the charts and the whole as JSON beside them
    #[arg(long, value_name = "DIR", requires = "engines")]
    pub results: Option<PathBuf>,
    /// Seconds after which a comparison with --results starts nothing more (exit code 130: the same
    /// command goes on with the rest)
    #[arg(long, value_name = "SECONDS", requires = "results")]
    pub stop_after: Option<f64>,
    /// Kill a writing child process (kill -9) again and again, and check after each kill that all it
    /// acknowledged is there, whole and in order; for --duration seconds where that is given
    #[arg(long, conflicts_with_all = ["benchmarks", "engines", "use_existing_db"])]
    pub torture: bool,
    /// How many children are killed
    #[arg(
        long,
        default_value_t = 300,
        requires = "torture",
        value_name = "KILLS"
    )]
    pub torture_rounds: u64,
    /// What a child of a torture is started with
    #[arg(long, hide = true, requires = "db")]
    pub torture_child: Option<String>,
    /// End by kill -9 in place of closing the database
    #[arg(long, hide = true, requires = "db")]
    pub die_at_end: bool,
}

/// The settings of a run, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to measure, in this order.
    pub steps: Vec<Step>,
    /// Number of keys.
    pub num: u64,
    /// Number of read operations, if it was given.
    pub reads: Option<u64>,
    /// Threads.
    pub threads: usize,
    /// What keys look like.
    pub key_shape: KeyShape,
    /// Bytes of a key, if they were given.
    pub key_size: Option<usize>,
    /// The keys.
    pub keys: Keys,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Size to which values compress, as a part of their own.
    pub compression_ratio: f64,
    /// Entries of a batch, if it was given.
    pub batch: Option<u64>,
    /// The distribution, if it was given.
    pub distribution: Option<Distribution>,
    /// Whether to begin with what is there.
    pub use_existing: bool,
    /// Where the database goes; a temporary directory where `None`.
    pub directory: Option<PathBuf>,
    /// Length of the verbs without a natural end, if it was given.
    pub duration: Option<Duration>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Operations a second, if it was given.
    pub rate: Option<f64>,
    /// Entries behind a seek.
    pub seek_nexts: u64,
    /// How the engine is set up.
    pub engine: EngineSettings,
    /// Whether the process ends by kill -9 in place of closing the database.
    pub dies_at_end: bool,
}

impl Config {
    /// Checks the arguments.
    ///
    /// # Errors
    /// A sentence for the user about the first argument that cannot be.
    pub fn from_args(args: &Args) -> Result<Self, String> {
        refuse_impossible(args)?;
        let durability = match (args.sync, args.durability) {
            (true, None | Some(Durability::Sync)) => Durability::Sync,
            (true, Some(_)) => return Err("--sync contradicts --durability".into()),
            (false, given) => given.unwrap_or(Durability::Buffered),
        };
        let steps = if args.benchmarks.is_empty() {
            TOUR.iter().copied().map(Step::plain).collect()
        } else {
            args.benchmarks.clone()
        };
        Ok(Self {
            steps,
            num: args.num,
            reads: args.reads,
            threads: args.threads,
            key_shape: args.key_shape,
            key_size: args.key_size,
            keys: Keys::new(args.key_shape, args.key_size, args.num),
            value_bytes: args.value_size,
            compression_ratio: args.compression_ratio,
            batch: args.batch_size,
            distribution: args.distribution,
            use_existing: args.use_existing_db,
            directory: args.db.clone(),
            duration: args.duration.map(Duration::from_secs_f64),
            seed: args.seed,
            rate: args.rate,
            seek_nexts: args.seek_nexts,
            engine: EngineSettings {
                cache_bytes: args.cache_size,
                write_buffer_bytes: args.write_buffer_size,
                compression: args.compression,
                filter_bits_per_key: args.bloom_bits,
                compaction_shape: args.compaction_shape,
                value_separation_bytes: args.value_separation,
                durability,
            },
            dies_at_end: args.die_at_end,
        })
    }

    /// Entries of a batch for `verb`.
    #[must_use]
    pub fn batch_of(&self, verb: Verb) -> u64 {
        let usual = match verb {
            Verb::FillBatch | Verb::FillRandBatch | Verb::MultiReadRandom => 100,
            _ => 1,
        };
        self.batch.unwrap_or(usual)
    }

    /// How many operations `verb` does over all threads, where the time does not decide.
    #[must_use]
    pub fn operations_of(&self, verb: Verb) -> u64 {
        let batches = |entries: u64| entries.div_ceil(self.batch_of(verb));
        match verb {
            Verb::FillSync => (self.num / 1000).max(1),
            verb if verb.starts_fresh() => batches(self.num),
            Verb::Overwrite | Verb::DeleteSeq | Verb::DeleteRandom => batches(self.num),
            Verb::SeekRandom | Verb::YcsbE => self.reads.unwrap_or(self.num.div_ceil(10)),
            Verb::MultiReadRandom => batches(self.reads.unwrap_or(self.num)),
            Verb::Open => self.reads.unwrap_or(20),
            Verb::OpenAfterKill => self.reads.unwrap_or(3),
            Verb::Flush | Verb::WaitForCompaction | Verb::Compact | Verb::Stats => 1,
            _ => self.reads.unwrap_or(self.num),
        }
    }
}

fn refuse_impossible(args: &Args) -> Result<(), String> {
    if args.num == 0 || args.num > MAX_KEYS / 2 {
        return Err(format!("--num must be between 1 and {}", MAX_KEYS / 2));
    }
    if args.threads == 0 || args.threads > 1024 {
        return Err("--threads must be between 1 and 1024".into());
    }
    refuse_keys(args)?;
    if !(0.0..=1.0).contains(&args.compression_ratio) {
        return Err("--compression_ratio must be between 0 and 1".into());
    }
    if args.batch_size == Some(0) || args.reads == Some(0) || args.rounds == 0 {
        return Err("--batch_size, --reads and --rounds must be at least 1".into());
    }
    if !(0.0..=100.0).contains(&args.bloom_bits) {
        return Err("--bloom_bits must be between 0 and 100".into());
    }
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
        return Err("--rate must be above 0 and at most 1000000000".into());
    }
    if args
        .duration
        .is_some_and(|seconds| !(seconds > 0.0 && seconds <= 1e7))
    {
        return Err("--duration must be above 0 and at most 10000000 seconds".into());
    }
    refuse_directory(args)
}

fn refuse_keys(args: &Args) -> Result<(), String> {
    if let Some(bytes) = args.key_size {
        if !Keys::have_any_length(args.key_shape) {
            let shape = args.key_shape;
            return Err(format!(
                "--key_size: keys of shape {shape:?} have a length of their own"
            ));
        }
        if !(1..=65_536).contains(&bytes) {
            return Err("--key_size must be between 1 and 65536".into());
        }
    }
    // Inserting workloads go beyond --num: the keys must have room for them.
    let keys = Keys::new(args.key_shape, args.key_size, args.num);
    if keys.limit() < args.num.saturating_mul(2) {
        return Err(format!(
            "keys of {} bytes are too short for {} of them and as many inserted ones",
            keys.bytes(),
            args.num
        ));
    }
    Ok(())
}

fn refuse_directory(args: &Args) -> Result<(), String> {
    let Some(directory) = &args.db else {
        return match args.use_existing_db {
            true => Err("--use_existing_db needs --db: where is it?".into()),
            false => Ok(()),
        };
    };
    let empty = is_empty_or_missing(directory)
        .map_err(|error| format!("cannot look at {}: {error}", directory.display()))?;
    match (args.use_existing_db, empty) {
        (true, true) => Err(format!(
            "there is no database in {} to use",
            directory.display()
        )),
        (false, false) => Err(format!(
            "{} is not empty: nothing is overwritten; give another --db, or --use_existing_db",
            directory.display()
        )),
        _ => Ok(()),
    }
}

/// Reads a number of bytes, such as `4096`, `64K`, `256M` or `1G` (powers of 1024).
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        unit => return Err(format!("unknown unit {unit:?}: use K, M or G")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a number of bytes"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &str) -> Result<Config, String> {
        let words = std::iter::once("db_bench").chain(arguments.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        Config::from_args(&args)
    }

    #[test]
    fn sizes_have_units() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("1mib", 1 << 20),
            ("2G", 2 << 30),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for text in ["", "M", "1T", "-1", "1.5M", "99999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_arguments_there_is_a_tour() {
        let config = config("").unwrap();
        let verbs: Vec<Verb> = config.steps.iter().map(|step| step.verb).collect();
        assert_eq!(verbs, TOUR);
        assert_eq!(
            (config.num, config.keys.bytes(), config.value_bytes),
            (1_000_000, 16, 100)
        );
        assert_eq!(config.engine.cache_bytes, 256 << 20);
        assert_eq!(config.engine.durability, Durability::Buffered);
    }

    #[test]
    fn operations_follow_from_the_flags() {
        let plain = config("--num 10000").unwrap();
        for (verb, operations) in [
            (Verb::FillSeq, 10_000),
            (Verb::FillBatch, 100),
            (Verb::FillSync, 10),
            (Verb::SeekRandom, 1000),
            (Verb::MultiReadRandom, 100),
            (Verb::YcsbA, 10_000),
            (Verb::Compact, 1),
        ] {
            assert_eq!(plain.operations_of(verb), operations, "{verb:?}");
        }
        let given = config("--num 10000 --reads 500 --batch_size 7").unwrap();
        for (verb, operations) in [
            (Verb::FillSeq, 1429),
            (Verb::ReadRandom, 500),
            (Verb::SeekRandom, 500),
            (Verb::YcsbE, 500),
            (Verb::MultiReadRandom, 72),
        ] {
            assert_eq!(given.operations_of(verb), operations, "{verb:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for arguments in [
            "--num 0",
            "--threads 0",
            "--key_size 6",
            "--key_size 0",
            "--key_shape round",
            "--key_shape url --key_size 20",
            "--engines esker --pieces nonsense",
            "--pieces fills",
            "--stop_after 5",
            "--benchmarks readrandom:threads=0",
            "--compression_ratio 1.5",
            "--compression_ratio nan",
            "--batch_size 0",
            "--reads 0",
            "--rate 0",
            "--rate nan",
            "--duration -1",
            "--bloom_bits 1000",
            "--sync --durability buffered",
            "--use_existing_db",
            "--use_existing_db --db /nonexistent/nowhere",
            "--benchmarks nonsense",
            "--compression zstd",
            "--engine esker --engines esker,btreemap",
            "--engines esker,btreemap --db /nonexistent/nowhere",
            "--cache_size many",
            "stray",
        ] {
            assert!(config(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        assert!(config(&format!("--db {path}")).is_ok());
        tempfile::Builder::new()
            .disable_cleanup(true)
            .tempfile_in(directory.path())
            .unwrap();
        let refused = config(&format!("--db {path}")).unwrap_err();
        assert!(refused.contains("not empty"), "{refused}");
        assert!(config(&format!("--db {path} --use_existing_db")).is_ok());
    }
}

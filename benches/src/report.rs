//! What a run found, in the shape in which programs read it (`--json`).
//!
//! Invariant: field names are stable; a field is only ever added, and a changed meaning raises
//! [`SCHEMA_VERSION`]. Units are the last word of a name. What is unknown is null.

use crate::args::Config;
use crate::checks::CheckReport;
use crate::engine::EngineSettings;
use crate::keys::KeyShape;
use crate::latency::LatencyReport;
use crate::resources::Machine;
use serde::{Deserialize, Serialize};

/// The version of the JSON document.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of one run over one engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunReport {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The engine's name.
    pub engine: String,
    /// What the engine says about its setup: (name, value).
    pub engine_facts: Vec<(String, String)>,
    /// What was asked for.
    pub settings: SettingsReport,
    /// Where it ran.
    pub machine: Machine,
    /// One element per verb, in the order in which they ran.
    pub phases: Vec<PhaseReport>,
    /// From the first phase to the close of the database.
    pub total_seconds: f64,
    /// The largest peak of all phases.
    pub peak_memory_bytes: Option<u64>,
    /// Wrong answers over all phases.
    pub check_failures: u64,
    /// Whether the user ended it.
    pub interrupted: bool,
    /// The error that ended it.
    pub error: Option<String>,
    /// Whether everything ran to its end and every answer was right.
    pub ok: bool,
}

/// The settings of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettingsReport {
    /// Keys.
    pub num: u64,
    /// Read operations, if given.
    pub reads: Option<u64>,
    /// Threads.
    pub threads: usize,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// What keys look like.
    #[serde(default)]
    pub key_shape: KeyShape,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Size to which values compress.
    pub compression_ratio: f64,
    /// Entries of a batch, if given.
    pub batch: Option<u64>,
    /// Seconds of each verb, if given.
    pub duration_seconds: Option<f64>,
    /// Operations a second, if given.
    pub rate: Option<f64>,
    /// Entries behind a seek.
    pub seek_nexts: u64,
    /// The seed.
    pub seed: u64,
    /// The engine's settings.
    pub engine: EngineSettings,
}

impl SettingsReport {
    /// The settings of `config`.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            num: config.num,
            reads: config.reads,
            threads: config.threads,
            key_bytes: config.keys.bytes(),
            key_shape: config.key_shape,
            value_bytes: config.value_bytes,
            compression_ratio: config.compression_ratio,
            batch: config.batch,
            duration_seconds: config.duration.map(|duration| duration.as_secs_f64()),
            rate: config.rate,
            seek_nexts: config.seek_nexts,
            seed: config.seed,
            engine: config.engine.clone(),
        }
    }
}

/// The result of one verb.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseReport {
    /// The verb, or `load` where keys had to be loaded for it first.
    pub name: String,
    /// Threads that were measured.
    pub threads: usize,
    /// Operations that ended.
    pub operations: u64,
    /// Entries written, read or passed over.
    pub entries: u64,
    /// Wall-clock seconds of the operations.
    pub seconds: f64,
    /// Operations a second.
    pub operations_per_second: f64,
    /// Entries a second.
    pub entries_per_second: f64,
    /// Bytes of keys and values read and written, MiB a second.
    pub user_mib_per_second: f64,
    /// Bytes of keys and values written.
    pub user_bytes_written: u64,
    /// Bytes of keys and values read.
    pub user_bytes_read: u64,
    /// Reads that found something.
    pub found: u64,
    /// Reads that found nothing.
    pub missed: u64,
    /// How long operations took.
    pub latency: Option<LatencyReport>,
    /// What the thread beside the measured ones did.
    pub beside: Option<BesideReport>,
    /// What the checks found.
    pub checks: CheckReport,
    /// Operations in each full second.
    pub operations_in_each_second: Vec<u64>,
    /// How long background work went on behind the last operation.
    pub settle_seconds: f64,
    /// CPU seconds of the process, background work included.
    pub cpu_seconds: f64,
    /// CPU seconds for a million operations.
    pub cpu_seconds_per_million_operations: f64,
    /// The most resident memory at once, this harness included.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes that the process caused to be written to the device, background work included.
    pub process_bytes_written: Option<u64>,
    /// Bytes that the process caused to be read from the device.
    pub process_bytes_read: Option<u64>,
    /// Bytes that the engine says it wrote to files.
    pub engine_bytes_written: Option<u64>,
    /// Bytes that the engine says it read from files.
    pub engine_bytes_read: Option<u64>,
    /// Bytes written to files (the engine's count, else the process's) per user byte written.
    pub write_amplification: Option<f64>,
    /// Bytes of all files of the database afterwards.
    pub disk_bytes: u64,
    /// Bytes that the file system gave to these files: neither holes nor the rest of a file beyond its
    /// end are hidden.
    #[serde(default)]
    pub disk_allocated_bytes: Option<u64>,
    /// Bytes of the keys and values that are live afterwards, where they are known.
    pub live_user_bytes: Option<u64>,
    /// Bytes of all files per live user byte.
    pub space_amplification: Option<f64>,
    /// What the engine tells people (verb `stats`).
    pub text: Option<String>,
}

/// The thread that works beside the measured ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BesideReport {
    /// What it did.
    pub name: String,
    /// Operations that ended.
    pub operations: u64,
    /// Operations a second.
    pub operations_per_second: f64,
    /// How long operations took.
    pub latency: Option<LatencyReport>,
}

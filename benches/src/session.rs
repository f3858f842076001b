//! One run: opens the engine, goes through the verbs, and reports on each.
//!
//! Invariant: background work that a phase caused is waited for and charged to that phase; it never
//! slows the next one. Called by `cli` with the engine's type chosen. What opens and closes the
//! database while it is measured is in `opening`.

mod opening;

use crate::args::Config;
use crate::checks::CheckReport;
use crate::directory::{Place, allocated_bytes_in, bytes_in};
use crate::engine::{Direction, Engine, EngineResult, EngineStats, Scanner};
use crate::expectations::{ABSENT, Expectations, UNKNOWN, generation_of_phase};
use crate::phase::{Outcome, Shared};
use crate::report::{BesideReport, PhaseReport, RunReport, SCHEMA_VERSION, SettingsReport};
use crate::resources::{Machine, Usage, peak_memory_bytes, reset_peak_memory};
use crate::values::Values;
use crate::verb::Verb;
use crate::workload::{self, Job};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Entries of a batch in which keys are loaded for a verb that needs them.
const LOAD_BATCH: u64 = 100;

/// What a run is given beside its settings.
pub struct Surroundings<'a> {
    /// The engine's name.
    pub engine: &'a str,
    /// Where the database goes.
    pub place: &'a Place,
    /// Set when the user wants it to end.
    pub interrupted: Arc<AtomicBool>,
    /// Told of the engine's setup before the first phase.
    pub on_start: &'a mut dyn FnMut(&RunReport),
    /// Told of every phase as it ends.
    pub on_phase: &'a mut dyn FnMut(&PhaseReport),
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// Runs every verb of `config` on an engine of type `E`.
pub fn run<E: Engine>(config: &Config, surroundings: Surroundings<'_>) -> RunReport {
    let mut report = RunReport {
        schema_version: SCHEMA_VERSION,
        engine: surroundings.engine.to_owned(),
        engine_facts: Vec::new(),
        settings: SettingsReport::of(config),
        machine: Machine::this(),
        phases: Vec::new(),
        total_seconds: 0.0,
        peak_memory_bytes: None,
        check_failures: 0,
        interrupted: false,
        error: None,
        ok: false,
    };
    let start = Instant::now();
    let interrupted = Arc::clone(&surroundings.interrupted);
    let mut session = Session::<'_, '_, E>::new(config, surroundings);
    let result = session.run_all(&mut report);
    if config.dies_at_end {
        opening::die();
    }
    let closed = session.engine.take().map_or(Ok(()), E::close);
    report.error = result.and(closed).err().map(|error| error.to_string());
    report.total_seconds = start.elapsed().as_secs_f64();
    report.interrupted = interrupted.load(Ordering::Relaxed);
    report.check_failures = report
        .phases
        .iter()
        .map(|phase| phase.checks.failures)
        .sum();
    report.peak_memory_bytes = report
        .phases
        .iter()
        .filter_map(|phase| phase.peak_memory_bytes)
        .max();
    report.ok = report.error.is_none() && !report.interrupted && report.check_failures == 0;
    report
}

struct Session<'c, 's, E> {
    config: &'c Config,
    surroundings: Surroundings<'s>,
    engine: Option<E>,
    expectations: Expectations,
    values: Values,
    key_bound: AtomicU64,
    phases: u64,
    /// Whether anything was written or was there from the start.
    holds_data: bool,
}

impl<'c, 's, E: Engine> Session<'c, 's, E> {
    fn new(config: &'c Config, surroundings: Surroundings<'s>) -> Self {
        let state = if config.use_existing { UNKNOWN } else { ABSENT };
        Self {
            config,
            surroundings,
            engine: None,
            expectations: Expectations::new(state),
            values: Values::new(config.value_bytes, config.compression_ratio),
            key_bound: AtomicU64::new(config.num),
            phases: 0,
            holds_data: config.use_existing,
        }
    }

    fn run_all(&mut self, report: &mut RunReport) -> EngineResult<()> {
        self.open()?;
        report.engine_facts = self.engine.as_ref().map(E::facts).unwrap_or_default();
        (self.surroundings.on_start)(report);
        for step in &self.config.steps {
            self.prepare(step.verb, report)?;
            let settings = step.settings(self.config);
            self.phase(step.verb, &step.to_string(), &settings, report)?;
            if self.surroundings.interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Opens the engine; of an existing database it learns how far its keys reach.
    fn open(&mut self) -> EngineResult<()> {
        let engine = E::open(self.surroundings.place.path(), &self.config.engine)?;
        if self.config.use_existing {
            let keys = self.config.keys;
            let mut bound = self.config.num;
            engine
                .scanner()?
                .scan(None, Direction::Backward, 1, |key, _| {
                    let last = keys.parse(key).map_or(0, |index| index + 1);
                    bound = bound.max(last);
                    true
                })?;
            self.key_bound.store(bound, Ordering::Relaxed);
        }
        self.engine = Some(engine);
        Ok(())
    }

    /// Brings the database into the state that `verb` begins with.
    fn prepare(&mut self, verb: Verb, report: &mut RunReport) -> EngineResult<()> {
        if !self.config.use_existing {
            self.prepare_keys(verb, report)?;
        }
        match verb {
            Verb::ReadCold => self.reopen_cold(),
            _ => Ok(()),
        }
    }

    fn prepare_keys(&mut self, verb: Verb, report: &mut RunReport) -> EngineResult<()> {
        let missing = verb.needs_all_keys()
            && self.expectations.live_keys(self.config.num).0 < self.config.num;
        if missing || verb.needs_data() && !self.holds_data {
            self.start_fresh()?;
            let settings = Config {
                batch: self.config.batch.or(Some(LOAD_BATCH)),
                ..self.config.clone()
            };
            self.phase(Verb::FillUniqueRandom, "load", &settings, report)?;
        } else if verb.starts_fresh() {
            self.start_fresh()?;
        }
        Ok(())
    }

    fn start_fresh(&mut self) -> EngineResult<()> {
        if !self.holds_data {
            return Ok(());
        }
        if let Some(engine) = self.engine.take() {
            engine.close()?;
        }
        self.surroundings.place.clear()?;
        self.expectations = Expectations::new(ABSENT);
        self.key_bound = AtomicU64::new(self.config.num);
        self.holds_data = false;
        self.open()
    }

    fn phase(
        &mut self,
        verb: Verb,
        name: &str,
        settings: &Config,
        report: &mut RunReport,
    ) -> EngineResult<()> {
        let number = self.phases;
        self.phases += 1;
        if verb.opens() {
            let phase = self.opening_phase(verb, name, settings)?;
            (self.surroundings.on_phase)(&phase);
            report.phases.push(phase);
            return Ok(());
        }
        let Some(engine) = &self.engine else {
            return Ok(());
        };
        self.holds_data |= verb.writes();
        reset_peak_memory();
        let before = (Usage::now(), engine.stats());
        let shared = Shared {
            engine,
            config: settings,
            expectations: &self.expectations,
            values: &self.values,
        };
        let generation = generation_of_phase(number);
        let job = Job {
            verb,
            name,
            number,
            generation,
            key_bound: &self.key_bound,
        };
        let outcome = workload::run(shared, &job, &self.surroundings.interrupted);
        let settling = Instant::now();
        if verb.writes() && outcome.error.is_none() {
            engine.settle()?;
        }
        let settle_seconds = settling.elapsed().as_secs_f64();
        let mut phase = summarize(name, threads_of(verb, settings), &outcome);
        phase.settle_seconds = settle_seconds;
        charge(&mut phase, &before, &engine.stats());
        self.measure_space(&mut phase);
        if verb == Verb::Stats {
            phase.text = Some(engine.stats().text);
        }
        (self.surroundings.on_phase)(&phase);
        report.phases.push(phase);
        outcome.error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn measure_space(&self, phase: &mut PhaseReport) {
        phase.disk_bytes = bytes_in(self.surroundings.place.path());
        phase.disk_allocated_bytes = allocated_bytes_in(self.surroundings.place.path());
        let bound = self.key_bound.load(Ordering::Relaxed);
        let (known, unknown) = self.expectations.live_keys(bound);
        if unknown > 0 {
            return;
        }
        let live = known * (self.config.keys.bytes() + self.config.value_bytes) as u64;
        phase.live_user_bytes = Some(live);
        if live > 0 && phase.disk_bytes > 0 {
            phase.space_amplification = Some(phase.disk_bytes as f64 / live as f64);
        }
    }
}

fn threads_of(verb: Verb, settings: &Config) -> usize {
    match verb {
        Verb::Flush | Verb::WaitForCompaction | Verb::Compact | Verb::Stats => 1,
        _ => settings.threads,
    }
}

/// The figures that the workers gave.
fn summarize(name: &str, threads: usize, outcome: &Outcome) -> PhaseReport {
    let seconds = outcome.elapsed.as_secs_f64();
    let per_second = |count| rate(count, outcome.elapsed);
    let operations = outcome.recording.operations;
    let tally = outcome.tally;
    let user_bytes = tally.user_bytes_written + tally.user_bytes_read;
    PhaseReport {
        name: name.to_owned(),
        threads,
        operations,
        entries: tally.entries,
        seconds,
        operations_per_second: per_second(operations),
        entries_per_second: per_second(tally.entries),
        user_mib_per_second: per_second(user_bytes) / f64::from(1 << 20),
        user_bytes_written: tally.user_bytes_written
            + outcome
                .beside
                .as_ref()
                .map_or(0, |beside| beside.tally.user_bytes_written),
        user_bytes_read: tally.user_bytes_read,
        found: tally.found,
        missed: tally.missed,
        latency: outcome.recording.report(),
        beside: outcome.beside.as_ref().map(|beside| BesideReport {
            name: "writer".into(),
            operations: beside.recording.operations,
            operations_per_second: rate(beside.recording.operations, beside.elapsed),
            latency: beside.recording.report(),
        }),
        checks: outcome.checks.clone(),
        operations_in_each_second: outcome.per_second.clone(),
        ..PhaseReport::default()
    }
}

/// `count` per second; 0 where no time has passed.
fn rate(count: u64, elapsed: Duration) -> f64 {
    match elapsed.as_secs_f64() {
        0.0 => 0.0,
        seconds => count as f64 / seconds,
    }
}

/// The figures that the process and the engine counted since `before`.
fn charge(phase: &mut PhaseReport, before: &(Usage, EngineStats), after: &EngineStats) {
    let usage = Usage::now().since(&before.0);
    let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
    phase.cpu_seconds = usage.cpu_seconds;
    if phase.operations > 0 {
        phase.cpu_seconds_per_million_operations =
            usage.cpu_seconds / phase.operations as f64 * 1e6;
    }
    phase.peak_memory_bytes = peak_memory_bytes();
    phase.process_bytes_written = usage.bytes_written;
    phase.process_bytes_read = usage.bytes_read;
    phase.engine_bytes_written =
        difference(after.device_bytes_written, before.1.device_bytes_written);
    phase.engine_bytes_read = difference(after.device_bytes_read, before.1.device_bytes_read);
    if phase.user_bytes_written > 0 {
        let written = phase.engine_bytes_written.or(phase.process_bytes_written);
        phase.write_amplification =
            written.map(|bytes| bytes as f64 / phase.user_bytes_written as f64);
    }
}

/// The checks of all phases together.
#[must_use]
pub fn all_checks(report: &RunReport) -> CheckReport {
    let mut all = CheckReport::default();
    report
        .phases
        .iter()
        .for_each(|phase| all.merge(phase.checks.clone()));
    all
}

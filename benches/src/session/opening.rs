//! Phases that close and open the database: reads from the device, clean opens, and opens of what a
//! killed process left.
//!
//! Invariant: nothing but `Engine::open` is timed, and what an open finds is checked: a key of each
//! clean one, all of what a killed writer had been told is written.

use super::{Session, charge, summarize};
use crate::args::Config;
use crate::checks::{CheckReport, Checks, ScanChecks};
use crate::directory::drop_from_cache;
use crate::engine::{Direction, Engine, EngineResult, EngineStats, Scanner};
use crate::expectations::{ABSENT, Expectations, UNKNOWN, generation_of_phase};
use crate::keys::{KeyBuffer, Keys};
use crate::latency::Recording;
use crate::phase::{Outcome, Tally};
use crate::random::Rng;
use crate::report::PhaseReport;
use crate::resources::{Usage, reset_peak_memory};
use crate::verb::Verb;
use clap::ValueEnum;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Of so many keys, a writer that is killed writes one.
const KILLED_PART: u64 = 5;
/// The generation that it writes: that of the first phase of its own run.
const KILLED_PHASE: u64 = 0;

/// Ends this process as `kill -9` does.
pub(super) fn die() {
    // Nothing can be done where a process may not kill itself; whoever waits for it sees that.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

impl<E: Engine> Session<'_, '_, E> {
    /// Opens the database anew, with none of its files in the system's cache.
    pub(super) fn reopen_cold(&mut self) -> EngineResult<()> {
        refuse_forgetful::<E>()?;
        self.close()?;
        drop_from_cache(self.surroundings.place.path())?;
        self.open()
    }

    /// Runs a verb that opens the database itself.
    pub(super) fn opening_phase(
        &mut self,
        verb: Verb,
        name: &str,
        settings: &Config,
    ) -> EngineResult<PhaseReport> {
        refuse_forgetful::<E>()?;
        reset_peak_memory();
        let before = (Usage::now(), EngineStats::default());
        let (times, checks) = match verb {
            Verb::OpenAfterKill => self.open_after_kills(settings)?,
            _ => self.open_again(settings)?,
        };
        let outcome = Outcome {
            elapsed: times.iter().sum(),
            recording: Recording::of(&times),
            tally: Tally::default(),
            beside: None,
            checks,
            per_second: Vec::new(),
            error: None,
        };
        let mut phase = summarize(name, 1, &outcome);
        charge(&mut phase, &before, &EngineStats::default());
        self.measure_space(&mut phase);
        if verb == Verb::OpenAfterKill {
            // What is there are not the keys of the run.
            self.start_fresh()?;
        }
        Ok(phase)
    }

    fn close(&mut self) -> EngineResult<()> {
        self.engine.take().map_or(Ok(()), E::close)
    }

    /// How long it takes to open a database that was closed, several times.
    fn open_again(&mut self, settings: &Config) -> EngineResult<(Vec<Duration>, CheckReport)> {
        let mut rng = Rng::new(settings.seed, self.phases);
        let mut key = KeyBuffer::new(settings.keys);
        let (mut times, mut report) = (Vec::new(), CheckReport::default());
        for opened in 0..=settings.operations_of(Verb::Open) {
            self.close()?;
            let start = Instant::now();
            let engine = E::open(self.surroundings.place.path(), &settings.engine)?;
            let time = start.elapsed();
            // The first finds what the phase before has left to do.
            if opened > 0 {
                times.push(time);
            }
            let index = rng.below(settings.num);
            let mut checks = Checks::new(&self.expectations, &self.values, None);
            let expected = checks.before(index);
            engine.get(key.set(index), |answer| {
                checks.answer(index, expected, answer)
            })?;
            report.merge(checks.into_report());
            self.engine = Some(engine);
            if self.surroundings.interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok((times, report))
    }

    /// How long it takes to open what a killed process left, several times.
    fn open_after_kills(
        &mut self,
        settings: &Config,
    ) -> EngineResult<(Vec<Duration>, CheckReport)> {
        let keys = (settings.num / KILLED_PART).max(1);
        let written = Config {
            num: keys,
            keys: Keys::new(settings.key_shape, settings.key_size, keys),
            ..settings.clone()
        };
        let (mut times, mut report) = (Vec::new(), CheckReport::default());
        self.expectations = Expectations::new(match E::BUFFERED_SURVIVES_KILL {
            true => ABSENT,
            false => UNKNOWN,
        });
        if E::BUFFERED_SURVIVES_KILL {
            let generation = generation_of_phase(KILLED_PHASE);
            (0..keys).for_each(|index| self.expectations.set(index, generation));
        }
        self.key_bound = AtomicU64::new(keys);
        for _ in 0..settings.operations_of(Verb::OpenAfterKill) {
            self.close()?;
            self.surroundings.place.clear()?;
            self.holds_data = true;
            self.write_and_be_killed(&written)?;
            let start = Instant::now();
            let engine = E::open(self.surroundings.place.path(), &settings.engine)?;
            times.push(start.elapsed());
            let mut checks = Checks::new(&self.expectations, &self.values, None);
            let mut scan = ScanChecks::forward(written.keys, 0);
            engine
                .scanner()?
                .scan(None, Direction::Forward, u64::MAX, |key, value| {
                    scan.entry(&mut checks, key, value);
                    true
                })?;
            scan.end(&mut checks, keys);
            report.merge(checks.into_report());
            self.engine = Some(engine);
            if self.surroundings.interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok((times, report))
    }

    /// Has a process of this program write the keys of `written` and be killed.
    fn write_and_be_killed(&self, written: &Config) -> EngineResult<()> {
        let ended = Command::new(std::env::current_exe()?)
            .args(arguments_of(written))
            .arg("--db")
            .arg(self.surroundings.place.path())
            .args(["--engine", self.surroundings.engine])
            .args(["--json", "--die_at_end"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()?;
        match ended.signal() {
            Some(signal) if signal == rustix::process::Signal::KILL.as_raw() => Ok(()),
            _ => Err(format!("the writer that was to be killed ended with {ended}").into()),
        }
    }
}

/// Refuses an engine that forgets everything when it is closed.
fn refuse_forgetful<E: Engine>() -> EngineResult<()> {
    match E::KEEPS_DATA {
        true => Ok(()),
        false => Err("an engine in memory cannot be opened again".into()),
    }
}

/// The command line on which a process writes what `written` says.
fn arguments_of(written: &Config) -> Vec<String> {
    let engine = &written.engine;
    let mut arguments = vec![
        "--benchmarks=filluniquerandom".to_owned(),
        format!("--num={}", written.num),
        format!("--seed={}", written.seed),
        format!("--key_shape={}", name_of(&written.key_shape)),
        format!("--value_size={}", written.value_bytes),
        format!("--compression_ratio={}", written.compression_ratio),
        format!("--cache_size={}", engine.cache_bytes),
        format!("--bloom_bits={}", engine.filter_bits_per_key),
        format!("--compression={}", name_of(&engine.compression)),
        format!("--durability={}", name_of(&engine.durability)),
    ];
    arguments.extend(written.key_size.map(|bytes| format!("--key_size={bytes}")));
    let buffer = engine.write_buffer_bytes;
    arguments.extend(buffer.map(|bytes| format!("--write_buffer_size={bytes}")));
    let apart = engine.value_separation_bytes;
    arguments.extend(apart.map(|bytes| format!("--value_separation={bytes}")));
    let shape = engine.compaction_shape.as_ref();
    arguments.extend(shape.map(|shape| format!("--compaction_shape={}", name_of(shape))));
    arguments
}

/// The name of a value on the command line.
fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

//! Every verb on engines that are right, and on engines that lie: the first must pass and the
//! second must be found out.
#![allow(clippy::unwrap_used)] // What fails here fails the test.

use clap::Parser;
use esker_benches::args::{Args, Config};
use esker_benches::cli::exit_code;
use esker_benches::directory::Place;
use esker_benches::engine::btree::{BTreeBatch, BTreeEngine, BTreeScanner};
use esker_benches::engine::esker::EskerEngine;
use esker_benches::engine::{
    Direction, Durability, Engine, EngineResult, EngineSettings, EngineStats, Scanner,
};
use esker_benches::exit::{CHECK_FAILED, FAILED, INTERRUPTED, SUCCESS};
use esker_benches::report::{PhaseReport, RunReport};
use esker_benches::session::{self, Surroundings};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs `arguments` on `E` without a process.
fn run<E: Engine>(arguments: &str) -> RunReport {
    run_until::<E>(arguments, Arc::default())
}

fn run_until<E: Engine>(arguments: &str, interrupted: Arc<AtomicBool>) -> RunReport {
    let words = std::iter::once("db_bench").chain(arguments.split_whitespace());
    let config = Config::from_args(&Args::parse_from(words)).unwrap();
    let place = Place::new(config.directory.as_deref()).unwrap();
    let surroundings = Surroundings {
        engine: "test",
        place: &place,
        interrupted,
        on_start: &mut |_| {},
        on_phase: &mut |_| {},
    };
    session::run::<E>(&config, surroundings)
}

fn phase<'r>(report: &'r RunReport, name: &str) -> &'r PhaseReport {
    report
        .phases
        .iter()
        .find(|phase| phase.name == name)
        .unwrap()
}

const EVERYTHING: &str = "fillseq,fillbatch,fillsync,fillrandom,fillrandbatch,overwrite,\
     deleterandom,verify,filluniquerandom,readrandom,readmissing,readhot,readseq,readreverse,\
     seekrandom,multireadrandom,readwhilewriting,ycsba,ycsbb,ycsbc,ycsbd,ycsbe,ycsbf,flush,\
     waitforcompaction,compact,verify,readseq,deleteseq,verify,stats";

#[test]
fn every_verb_passes_on_a_sorted_map_with_every_kind_of_setting() {
    for settings in [
        "",
        "--threads 3",
        "--batch_size 7",
        "--threads 2 --batch_size 3 --distribution zipfian",
        "--distribution latest",
        "--key_size 33 --value_size 0",
        "--key_size 5 --value_size 1",
        "--value_size 5000 --compression_ratio 1",
        "--reads 100 --seek_nexts 0",
        "--seed 9",
        "--key_shape random --threads 2",
        "--key_shape url",
        "--key_shape composite",
        "--key_shape tiny",
        "--key_shape huge --value_size 10",
    ] {
        let report =
            run::<BTreeEngine>(&format!("--num 2000 --benchmarks {EVERYTHING} {settings}"));
        assert!(
            report.ok,
            "{settings}: {:?} {:#?}",
            report.error,
            wrong(&report)
        );
        assert_eq!(report.phases.len(), EVERYTHING.split(',').count());
        assert_eq!(exit_code(&report), SUCCESS);
    }
}

#[test]
fn every_verb_passes_on_esker() {
    for settings in [
        "",
        "--threads 2 --compression none --bloom_bits 0",
        "--compaction_shape tiered",
    ] {
        let arguments =
            format!("--num 3000 --write_buffer_size 64K --benchmarks {EVERYTHING} {settings}");
        let report = run::<EskerEngine<false>>(&arguments);
        assert!(
            report.ok,
            "{settings}: {:?} {:#?}",
            report.error,
            wrong(&report)
        );
        let report = run::<EskerEngine<true>>(&arguments);
        assert!(
            report.ok,
            "in memory, {settings}: {:?} {:#?}",
            report.error,
            wrong(&report)
        );
    }
}

#[test]
fn opens_find_everything_and_engines_that_forget_are_refused() {
    let report = run::<EskerEngine<false>>(
        "--num 3000 --key_shape url --benchmarks open:reads=2,readcold,overwrite,readcold:threads=2,\
         open:reads=3,verify",
    );
    assert!(report.ok, "{:?} {:#?}", report.error, wrong(&report));
    let opens: Vec<(u64, u64)> = report
        .phases
        .iter()
        .filter(|phase| phase.name.starts_with("open"))
        .map(|phase| (phase.operations, phase.checks.checked))
        .collect();
    // The first open of each phase is checked and not timed.
    assert_eq!(opens, [(2, 3), (3, 4)]);
    assert!(phase(&report, "open:reads=2").operations_per_second > 0.0);
    for verb in ["open", "readcold", "openafterkill"] {
        let report = run::<BTreeEngine>(&format!("--num 100 --benchmarks {verb}"));
        assert!(
            !report.ok && report.error.unwrap().contains("in memory"),
            "{verb}"
        );
    }
}

#[test]
fn a_step_has_flags_of_its_own() {
    let report = run::<BTreeEngine>(
        "--num 1000 --benchmarks fillseq,readrandom:reads=7,readrandom:threads=2,readrandom,\
         filluniquerandom:batch_size=100,seekrandom:seek_nexts=3:reads=10",
    );
    assert!(report.ok, "{:#?}", wrong(&report));
    let counts: Vec<(usize, u64, u64)> = report
        .phases
        .iter()
        .map(|phase| (phase.threads, phase.operations, phase.entries))
        .collect();
    let last = counts[5];
    assert_eq!(
        counts[..5],
        [
            (1, 1000, 1000),
            (1, 7, 7),
            (2, 1000, 1000),
            (1, 1000, 1000),
            (1, 10, 1000)
        ]
    );
    assert!(last.1 == 10 && (10..=40).contains(&last.2), "{last:?}");
}

fn wrong(report: &RunReport) -> Vec<(&str, &[String])> {
    let failed = report
        .phases
        .iter()
        .filter(|phase| phase.checks.failures > 0);
    failed
        .map(|phase| (&*phase.name, &*phase.checks.first_failures))
        .collect()
}

#[test]
fn counts_are_exact() {
    let report = run::<BTreeEngine>(
        "--num 2000 --benchmarks fillseq,readseq,readreverse,fillbatch,readmissing,ycsbe,deleteseq,\
         readseq",
    );
    let counts: Vec<(&str, u64, u64)> = report
        .phases
        .iter()
        .map(|phase| (&*phase.name, phase.operations, phase.missed))
        .collect();
    let inserted = counts[5].1;
    assert_eq!(
        counts,
        [
            ("fillseq", 2000, 0),
            ("readseq", 2000, 0),
            ("readreverse", 2000, 0),
            ("fillbatch", 20, 0),
            ("readmissing", 2000, 2000),
            ("ycsbe", inserted, 0),
            ("deleteseq", 2000, 0),
            ("readseq", report.phases[7].operations, 0),
        ]
    );
    // What is left are the keys that workload E inserted, a twentieth of its operations.
    assert!(
        (1..60).contains(&report.phases[7].operations),
        "{:?}",
        report.phases[7].operations
    );
    let fill = phase(&report, "fillseq");
    assert_eq!((fill.entries, fill.user_bytes_written), (2000, 2000 * 116));
    assert_eq!(fill.live_user_bytes, Some(2000 * 116));
    assert_eq!(phase(&report, "readseq").user_bytes_read, 2000 * 116);
}

#[test]
fn threads_share_the_work_without_overlap() {
    let report = run::<BTreeEngine>(
        "--num 1001 --threads 4 --benchmarks fillseq,readseq,readreverse,filluniquerandom,readseq",
    );
    assert!(report.ok, "{:#?}", wrong(&report));
    assert!(
        report.phases.iter().all(|phase| phase.operations == 1001),
        "{:#?}",
        report.phases
    );
}

#[test]
fn what_needs_keys_loads_them_first() {
    let report = run::<BTreeEngine>("--num 500 --benchmarks readrandom,deleterandom,ycsba,verify");
    let names: Vec<&str> = report.phases.iter().map(|phase| &*phase.name).collect();
    assert_eq!(
        names,
        [
            "load",
            "readrandom",
            "deleterandom",
            "load",
            "ycsba",
            "verify"
        ]
    );
    assert!(report.ok);
}

#[test]
fn an_existing_database_is_used_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let arguments = |more: &str| format!("--num 1000 --db {} {more}", path.display());
    let report = run::<EskerEngine<false>>(&arguments("--benchmarks ycsbd,deleterandom"));
    assert!(report.ok, "{:?}", report.error);
    let report = run::<EskerEngine<false>>(&arguments(
        "--use_existing_db --benchmarks readrandom,readseq,verify,readrandom,readseq,overwrite,\
         readrandom,verify",
    ));
    assert!(report.ok, "{:?} {:#?}", report.error, wrong(&report));
    let reads: Vec<(u64, u64)> = report
        .phases
        .iter()
        .map(|phase| (phase.found, phase.missed))
        .collect();
    assert!(
        reads[0].0 > 100 && reads[0].1 > 100,
        "some keys were deleted: {reads:?}"
    );
    assert_eq!(reads[1].0, reads[4].0, "two scans find the same");
    assert_eq!(
        report.phases[0].space_amplification, None,
        "what is live is not known yet"
    );
    assert!(
        report.phases[3].space_amplification.is_some(),
        "verify has learned it"
    );
    assert!(path.exists(), "a given directory is kept");
}

#[test]
fn durations_and_rates_are_kept() {
    let report = run::<BTreeEngine>(
        "--num 1000 --duration 0.3 --rate 2000 --benchmarks overwrite,readrandom,ycsba",
    );
    assert!(report.ok, "{:#?}", wrong(&report));
    for phase in report.phases.iter().filter(|phase| phase.name != "load") {
        assert!(phase.seconds >= 0.29, "{}: {} s", phase.name, phase.seconds);
        assert!(
            phase.operations <= 700,
            "{}: {} operations",
            phase.name,
            phase.operations
        );
        assert!(phase.latency.as_ref().unwrap().from_intended_start);
    }
}

#[test]
fn an_interruption_ends_the_run_in_order() {
    let interrupted = Arc::new(AtomicBool::new(true));
    let report = run_until::<BTreeEngine>("--num 100000 --benchmarks fillseq,readseq", interrupted);
    assert!(report.interrupted && !report.ok);
    assert_eq!(report.phases.len(), 1);
    assert!(report.phases[0].operations < 100_000);
    assert_eq!(exit_code(&report), INTERRUPTED);
}

#[test]
fn the_json_has_the_promised_fields() {
    let report = run::<BTreeEngine>("--num 3000 --benchmarks fillseq,readwhilewriting");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema_version"], 1);
    for field in [
        "engine",
        "engine_facts",
        "settings",
        "machine",
        "ok",
        "check_failures",
    ] {
        assert!(!json[field].is_null(), "{field}");
    }
    assert_eq!(json["settings"]["engine"]["durability"], "buffered");
    assert_eq!(json["settings"]["num"], 3000);
    let phase = &json["phases"][1];
    assert_eq!(phase["name"], "readwhilewriting");
    for field in [
        "operations",
        "entries",
        "seconds",
        "operations_per_second",
        "entries_per_second",
        "user_mib_per_second",
        "user_bytes_written",
        "user_bytes_read",
        "found",
        "missed",
        "settle_seconds",
        "cpu_seconds",
        "cpu_seconds_per_million_operations",
        "disk_bytes",
    ] {
        assert!(phase[field].is_number(), "{field}: {phase:#}");
    }
    for field in [
        "p50_micros",
        "p90_micros",
        "p99_micros",
        "p999_micros",
        "max_micros",
        "timed",
    ] {
        assert!(phase["latency"][field].is_number(), "{field}");
        assert!(phase["beside"]["latency"][field].is_number(), "{field}");
    }
    assert_eq!(phase["checks"]["failures"], 0);
    assert!(phase["checks"]["checked"].as_u64().unwrap() >= 3000);
    let back: RunReport = serde_json::from_value(json).unwrap();
    assert_eq!(back.phases.len(), 2);
}

/// A sorted map that lies in one way.
struct Liar<const LIE: u8> {
    map: BTreeEngine,
    calls: AtomicU64,
}

const WRONG_BYTE: u8 = 0;
const NEIGHBOUR: u8 = 1;
const STALE: u8 = 2;
const LOST: u8 = 3;
const PHANTOM: u8 = 4;
const SCAN_SKIPS: u8 = 5;
const SCAN_REPEATS: u8 = 6;
const SCAN_ENDS_EARLY: u8 = 7;
const SWAPPED_ANSWERS: u8 = 8;
const UNANSWERED: u8 = 9;
const KEEPS_DELETED: u8 = 10;
const TRUNCATED: u8 = 11;
const LOSES_LAST_OF_BATCH: u8 = 12;
const FAILS: u8 = 13;

impl<const LIE: u8> Liar<LIE> {
    /// Whether this call is one of those that are answered wrongly.
    fn lies_now(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) % 100 == 50
    }
}

impl<const LIE: u8> Engine for Liar<LIE> {
    type Batch = BTreeBatch;
    type Scanner<'a> = LyingScanner<'a, LIE>;

    fn open(directory: &Path, settings: &EngineSettings) -> EngineResult<Self> {
        let map = BTreeEngine::open(directory, settings)?;
        Ok(Self {
            map,
            calls: AtomicU64::new(0),
        })
    }

    fn facts(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> EngineResult<()> {
        if LIE == FAILS && self.lies_now() {
            return Err("the disk is on fire".into());
        }
        let there = || self.map.get(key, |value| value.is_some());
        if LIE == STALE && there()? && self.lies_now() {
            return Ok(());
        }
        self.map.put(key, value, durability)
    }

    fn delete(&self, key: &[u8], durability: Durability) -> EngineResult<()> {
        if LIE == KEEPS_DELETED && self.lies_now() {
            return Ok(());
        }
        self.map.delete(key, durability)
    }

    fn batch(&self) -> BTreeBatch {
        self.map.batch()
    }

    fn batch_put(batch: &mut BTreeBatch, key: &[u8], value: &[u8]) {
        BTreeEngine::batch_put(batch, key, value);
    }

    fn batch_delete(batch: &mut BTreeBatch, key: &[u8]) {
        BTreeEngine::batch_delete(batch, key);
    }

    fn write(&self, mut batch: BTreeBatch, durability: Durability) -> EngineResult<()> {
        if LIE == LOSES_LAST_OF_BATCH {
            batch.pop();
        }
        self.map.write(batch, durability)
    }

    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> EngineResult<R> {
        let mut answer = self.map.get(key, |value| value.map(<[u8]>::to_vec))?;
        match LIE {
            WRONG_BYTE => {
                if let Some(last) = answer.as_mut().and_then(|value| value.last_mut()) {
                    *last ^= 1;
                }
            }
            NEIGHBOUR if self.lies_now() => {
                self.map
                    .scanner()?
                    .scan(Some(key), Direction::Forward, 2, |_, value| {
                        answer = Some(value.to_vec());
                        true
                    })?;
            }
            LOST if self.lies_now() => answer = None,
            PHANTOM if self.lies_now() => answer = answer.or(Some(vec![0; 100])),
            TRUNCATED if self.lies_now() => {
                answer.iter_mut().for_each(|value| value.truncate(99));
            }
            _ => {}
        }
        Ok(read(answer.as_deref()))
    }

    fn multi_get<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut each: impl FnMut(usize, Option<&[u8]>),
    ) -> EngineResult<()> {
        self.map.multi_get(keys, |at, value| match (LIE, at) {
            (SWAPPED_ANSWERS, 0 | 1) => each(1 - at, value),
            (UNANSWERED, 5) => {}
            _ => each(at, value),
        })
    }

    fn scanner(&self) -> EngineResult<LyingScanner<'_, LIE>> {
        Ok(LyingScanner {
            scanner: self.map.scanner()?,
            liar: self,
        })
    }

    fn flush(&self) -> EngineResult<()> {
        Ok(())
    }

    fn settle(&self) -> EngineResult<()> {
        Ok(())
    }

    fn compact(&self) -> EngineResult<()> {
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        self.map.stats()
    }

    fn close(self) -> EngineResult<()> {
        Ok(())
    }
}

struct LyingScanner<'a, const LIE: u8> {
    scanner: BTreeScanner<'a>,
    liar: &'a Liar<LIE>,
}

impl<const LIE: u8> Scanner for LyingScanner<'_, LIE> {
    fn scan(
        &mut self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> EngineResult<u64> {
        let liar = self.liar;
        let mut count = 0u64;
        self.scanner.scan(from, direction, limit, |key, value| {
            count += 1;
            let now = count > 3 && liar.lies_now();
            match LIE {
                SCAN_SKIPS if now => true,
                SCAN_REPEATS if now => each(key, value) && each(key, value),
                SCAN_ENDS_EARLY if count == 500 => false,
                WRONG_BYTE => {
                    let mut value = value.to_vec();
                    value
                        .iter_mut()
                        .next_back()
                        .into_iter()
                        .for_each(|last| *last ^= 1);
                    each(key, &value)
                }
                _ => each(key, value),
            }
        })
    }
}

#[track_caller]
fn is_found_out<const LIE: u8>(verbs: &str) {
    for verbs in verbs.split_whitespace() {
        let report = run::<Liar<LIE>>(&format!("--num 2000 --reads 2000 --benchmarks {verbs}"));
        assert!(
            !report.ok && report.check_failures > 0,
            "{verbs} did not find lie {LIE}"
        );
        assert_eq!(exit_code(&report), CHECK_FAILED);
        let described = wrong(&report);
        assert!(described.iter().all(|(_, failures)| !failures.is_empty()));
        let last = report.phases.last().unwrap();
        assert!(
            last.checks.failures > 0,
            "{verbs}: the last verb is the one that must find it"
        );
    }
}

#[test]
fn lies_of_point_reads_are_found_out() {
    let reads = "readrandom readhot readwhilewriting ycsba ycsbb ycsbc ycsbd ycsbf";
    is_found_out::<WRONG_BYTE>(reads);
    is_found_out::<NEIGHBOUR>(reads);
    is_found_out::<LOST>(reads);
    is_found_out::<TRUNCATED>(reads);
    is_found_out::<PHANTOM>("readmissing deleterandom,verify");
}

#[test]
fn lies_of_multi_get_are_found_out() {
    is_found_out::<SWAPPED_ANSWERS>("multireadrandom");
    is_found_out::<UNANSWERED>("multireadrandom");
}

#[test]
fn lies_of_scans_are_found_out() {
    let scans = "readseq readreverse seekrandom ycsbe verify";
    is_found_out::<WRONG_BYTE>(scans);
    is_found_out::<SCAN_SKIPS>(scans);
    is_found_out::<SCAN_REPEATS>(scans);
    is_found_out::<SCAN_ENDS_EARLY>("verify");
}

#[test]
fn lies_of_writes_are_found_out() {
    is_found_out::<STALE>("fillseq,overwrite,verify fillseq,overwrite,readseq");
    is_found_out::<STALE>("fillseq,overwrite,readrandom fillseq,overwrite,readreverse");
    is_found_out::<KEEPS_DELETED>("fillseq,deleterandom,verify fillseq,deleteseq,readseq");
    is_found_out::<KEEPS_DELETED>("fillseq,deleteseq,readrandom");
    is_found_out::<LOSES_LAST_OF_BATCH>("fillbatch,verify fillbatch,readrandom fillbatch,readseq");
}

#[test]
fn an_error_of_the_engine_ends_the_run_and_is_named() {
    let report = run::<Liar<FAILS>>("--num 2000 --threads 2 --benchmarks fillseq,readseq");
    assert_eq!(report.error.as_deref(), Some("the disk is on fire"));
    assert_eq!((report.phases.len(), report.ok), (1, false));
    assert_eq!(exit_code(&report), FAILED);
}

//! What a comparison found: for each row and engine the median over rounds and repetitions.
//!
//! Invariant: field names are stable, as those of [`report`](crate::report); what was not measured is
//! null. Rows come in the order in which they were first measured; phases of one name are one row.

use crate::args::Args;
use crate::latency::LatencyReport;
use crate::report::{PhaseReport, RunReport, SCHEMA_VERSION, SettingsReport};
use crate::resources::Machine;
use crate::suite::{Piece, TREES, row_title};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Seconds that a phase must have lasted for its slowest one to say something.
const SECONDS_NEEDED: usize = 10;

/// The result of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// The version of the document.
    pub schema_version: u32,
    /// The most rounds per engine.
    pub rounds: usize,
    /// Where it ran.
    pub machine: Machine,
    /// What was asked of every engine in the first piece.
    pub settings: SettingsReport,
    /// What each engine says about its setup, in the order of the columns.
    pub engines: Vec<EngineColumn>,
    /// One row per piece and verb.
    pub rows: Vec<Row>,
    /// Runs that failed, in words.
    pub failures: Vec<String>,
}

/// One engine of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineColumn {
    /// Its name.
    pub name: String,
    /// Its setup: (name, value).
    pub facts: Vec<(String, String)>,
}

/// One verb over all engines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The piece that it belongs to; empty for what `--benchmarks` named.
    #[serde(default)]
    pub piece: String,
    /// The step; with `.writer` for the thread beside its readers.
    pub name: String,
    /// What people call it.
    #[serde(default)]
    pub title: String,
    /// The first engine's operations a second over the best other's.
    pub first_over_best_other: Option<f64>,
    /// What each engine did, in the order of the columns; null where it failed.
    pub results: Vec<Option<Medians>>,
}

/// The medians of one engine over the rounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Medians {
    /// Operations a second.
    pub operations_per_second: f64,
    /// The same in every round.
    pub rounds_operations_per_second: Vec<f64>,
    /// Median latency.
    pub p50_micros: Option<f64>,
    /// 99th percentile.
    pub p99_micros: Option<f64>,
    /// 99.9th percentile.
    pub p999_micros: Option<f64>,
    /// Longest stall.
    pub max_micros: Option<f64>,
    /// Bytes that the process caused to be written to the device per user byte written.
    pub process_write_amplification: Option<f64>,
    /// Bytes on disk per live user byte.
    pub space_amplification: Option<f64>,
    /// Bytes that the file system has given to the database after settling.
    pub disk_allocated_bytes: Option<f64>,
    /// CPU seconds for a million operations.
    pub cpu_seconds_per_million_operations: Option<f64>,
    /// Peak memory of the process, bytes.
    pub peak_memory_bytes: Option<f64>,
    /// The slowest second's operations as a part of the median second's.
    pub slowest_second_of_median: Option<f64>,
    /// Operations in each second of the last round, where it took more than a few.
    pub operations_in_each_second: Vec<u64>,
}

impl Comparison {
    /// The first engine's figure over the lowest of the other log-structured engines (of all others,
    /// where there is no such), for figures of which less is better.
    #[must_use]
    pub fn first_over_lowest(
        &self,
        row: &Row,
        pick: impl Fn(&Medians) -> Option<f64>,
    ) -> Option<f64> {
        let figure = |at: usize| row.results.get(at)?.as_ref().and_then(&pick);
        let is_tree = |at: usize| TREES.contains(&self.engines[at].name.as_str());
        let others = |trees: bool| {
            (1..self.engines.len())
                .filter(|at| trees || !is_tree(*at))
                .filter_map(figure)
                .reduce(f64::min)
        };
        let lowest = others(false).or_else(|| others(true))?;
        figure(0)
            .filter(|_| lowest > 0.0)
            .map(|first| first / lowest)
    }
}

/// All reports of a comparison: by piece in their order, then by engine.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pieces: Vec<(&'static Piece, BTreeMap<usize, Vec<RunReport>>)>,
}

impl Runs {
    pub(super) fn add(&mut self, piece: &'static Piece, engine: usize, report: RunReport) {
        let at = self.pieces.iter().position(|(known, _)| *known == piece);
        let at = at.unwrap_or_else(|| {
            self.pieces.push((piece, BTreeMap::new()));
            self.pieces.len() - 1
        });
        self.pieces[at].1.entry(engine).or_default().push(report);
    }

    fn all(&self) -> impl Iterator<Item = (usize, &RunReport)> {
        let runs = self.pieces.iter().flat_map(|(_, runs)| runs);
        runs.flat_map(|(engine, reports)| reports.iter().map(|report| (*engine, report)))
    }
}

/// Puts the runs side by side; `None` where there is none.
pub(super) fn assemble(args: &Args, runs: &Runs, failures: Vec<String>) -> Option<Comparison> {
    let (_, any) = runs.all().next()?;
    let facts = |engine: usize| {
        let mut of_engine = runs.all().filter(|(known, _)| *known == engine);
        of_engine
            .next()
            .map(|(_, report)| report.engine_facts.clone())
    };
    let engines = args.engines.iter().enumerate();
    let engines = engines.map(|(engine, name)| EngineColumn {
        name: name.clone(),
        facts: facts(engine).unwrap_or_default(),
    });
    let rows = runs.pieces.iter();
    Some(Comparison {
        schema_version: SCHEMA_VERSION,
        rounds: args.rounds,
        machine: any.machine.clone(),
        settings: any.settings.clone(),
        engines: engines.collect(),
        rows: rows
            .flat_map(|(piece, runs)| rows_of(piece, runs, args.engines.len()))
            .collect(),
        failures,
    })
}

fn rows_of(piece: &Piece, runs: &BTreeMap<usize, Vec<RunReport>>, engines: usize) -> Vec<Row> {
    // Names in the order of the first run that has them: (name, is it the thread beside).
    let mut names: Vec<(String, Option<String>)> = Vec::new();
    for phase in runs.values().flatten().flat_map(|run| &run.phases) {
        let writer = phase.beside.as_ref();
        let beside = writer.map(|beside| format!("{}.{}", phase.name, beside.name));
        let name = (phase.name.clone(), beside);
        // Loading is not what a piece measures.
        if phase.name != "load" && !names.contains(&name) {
            names.push(name);
        }
    }
    let mut rows = Vec::new();
    for (name, beside) in names {
        let results = |beside: bool| -> Vec<Option<Medians>> {
            (0..engines)
                .map(|engine| medians(runs.get(&engine)?, &name, beside))
                .collect()
        };
        rows.push(row(piece, name.clone(), results(false)));
        if let Some(beside) = beside {
            rows.push(row(piece, beside, results(true)));
        }
    }
    rows
}

fn row(piece: &Piece, name: String, results: Vec<Option<Medians>>) -> Row {
    let rate = |result: &Option<Medians>| result.as_ref().map(|r| r.operations_per_second);
    let best_other = results.iter().skip(1).filter_map(rate).fold(0.0, f64::max);
    let first = results.first().and_then(rate);
    let first_over_best_other = first
        .filter(|_| best_other > 0.0)
        .map(|rate| rate / best_other);
    Row {
        piece: piece.name.to_owned(),
        title: row_title(piece.name, &name),
        name,
        first_over_best_other,
        results,
    }
}

fn medians(runs: &[RunReport], name: &str, beside: bool) -> Option<Medians> {
    let phases = runs.iter().flat_map(|run| &run.phases);
    let phases: Vec<&PhaseReport> = phases.filter(|phase| phase.name == name).collect();
    let of = |pick: &dyn Fn(&PhaseReport) -> Option<f64>| {
        median(phases.iter().filter_map(|phase| pick(phase)).collect())
    };
    // What the whole process used is said once, in the row of the measured threads.
    let of_process = |pick: &dyn Fn(&PhaseReport) -> Option<f64>| (!beside).then(|| of(pick))?;
    let latency = |pick: fn(&LatencyReport) -> f64| {
        of(&|phase| match beside {
            true => phase.beside.as_ref()?.latency.as_ref().map(pick),
            false => phase.latency.as_ref().map(pick),
        })
    };
    let rate = |phase: &PhaseReport| match beside {
        true => phase
            .beside
            .as_ref()
            .map(|beside| beside.operations_per_second),
        false => Some(phase.operations_per_second),
    };
    let seconds = |phase: &PhaseReport| match phase.operations_in_each_second.len() {
        SECONDS_NEEDED.. => Some(phase.operations_in_each_second.clone()),
        _ => None,
    };
    Some(Medians {
        operations_per_second: of(&rate)?,
        rounds_operations_per_second: phases.iter().filter_map(|phase| rate(phase)).collect(),
        p50_micros: latency(|latency| latency.p50_micros),
        p99_micros: latency(|latency| latency.p99_micros),
        p999_micros: latency(|latency| latency.p999_micros),
        max_micros: latency(|latency| latency.max_micros),
        process_write_amplification: of_process(&|phase| {
            let user = phase.user_bytes_written;
            (user > 0).then_some(phase.process_bytes_written? as f64 / user as f64)
        }),
        space_amplification: of_process(&|phase| phase.space_amplification),
        disk_allocated_bytes: of_process(&|phase| phase.disk_allocated_bytes.map(|b| b as f64)),
        cpu_seconds_per_million_operations: of_process(&|phase| {
            Some(phase.cpu_seconds_per_million_operations)
        }),
        peak_memory_bytes: of_process(&|phase| phase.peak_memory_bytes.map(|b| b as f64)),
        slowest_second_of_median: of_process(&|phase| slowest_of_median(&seconds(phase)?)),
        operations_in_each_second: match beside {
            true => Vec::new(),
            false => phases
                .last()
                .and_then(|phase| seconds(phase))
                .unwrap_or_default(),
        },
    })
}

fn slowest_of_median(seconds: &[u64]) -> Option<f64> {
    let middle = median(
        seconds
            .iter()
            .map(|&operations| operations as f64)
            .collect(),
    )?;
    let slowest = *seconds.iter().min()? as f64;
    (middle > 0.0).then(|| slowest / middle)
}

/// The middle value; the mean of the two middle ones of an even number.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(match values.len() % 2 {
        0 => (upper + values[middle - 1]) / 2.0,
        _ => upper,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::PIECES;

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(slowest_of_median(&[10, 5, 20]), Some(0.5));
        assert_eq!(slowest_of_median(&[]), None);
    }

    fn result(rate: f64) -> Option<Medians> {
        Some(Medians {
            operations_per_second: rate,
            p99_micros: Some(rate),
            ..Medians::default()
        })
    }

    #[test]
    fn the_ratio_is_to_the_best_other_engine() {
        let ratio = |results| row(&PIECES[0], "x".into(), results).first_over_best_other;
        assert_eq!(
            ratio(vec![result(6.0), result(2.0), result(3.0)]),
            Some(2.0)
        );
        assert_eq!(ratio(vec![result(6.0), None]), None);
        assert_eq!(ratio(vec![None, result(1.0)]), None);
    }

    #[test]
    fn costs_are_compared_with_the_other_log_structured_engines() {
        let column = |name: &str| EngineColumn {
            name: name.to_owned(),
            facts: Vec::new(),
        };
        let mut comparison = Comparison {
            schema_version: SCHEMA_VERSION,
            rounds: 1,
            machine: Machine::this(),
            settings: serde_json::from_str(SETTINGS).unwrap(),
            engines: ["esker", "rocksdb", "lmdb"].map(column).into(),
            rows: Vec::new(),
            failures: Vec::new(),
        };
        let results = vec![result(6.0), result(3.0), result(1.0)];
        let with_tree = row(&PIECES[0], "x".into(), results);
        let p99 = |medians: &Medians| medians.p99_micros;
        assert_eq!(comparison.first_over_lowest(&with_tree, p99), Some(2.0));
        comparison.engines.remove(1);
        let only_tree = row(&PIECES[0], "x".into(), vec![result(6.0), result(1.0)]);
        assert_eq!(comparison.first_over_lowest(&only_tree, p99), Some(6.0));
    }

    const SETTINGS: &str = r#"{"num":1,"threads":1,"key_bytes":1,"value_bytes":1,"seed":1,
        "compression_ratio":1.0,"seek_nexts":1,"engine":{"cache_bytes":1,"compression":"lz4",
        "filter_bits_per_key":1.0,"durability":"buffered"}}"#;
}

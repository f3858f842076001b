//! The report for people.
//!
//! Invariant: one line per verb, the same columns for all; what does not apply is a dash.

use crate::directory::Place;
use crate::report::{PhaseReport, RunReport};
use std::fmt::Write;

const HEADER: &str = "verb                  ops/s   entries/s   MiB/s   p50 us   p99 us p99.9 us    max ms  \
 w-amp  s-amp  cpu s   peak MiB  checks";

/// What is above the first line.
#[must_use]
pub fn start(report: &RunReport, place: &Place) -> String {
    let settings = &report.settings;
    let mut text = String::new();
    let machine = &report.machine;
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{}: {} {:?} keys of {} bytes, values of {} bytes that compress to {:.0} %, {} thread{}, {:?} \
         writes",
        report.engine,
        grouped(settings.num),
        settings.key_shape,
        settings.key_bytes,
        settings.value_bytes,
        settings.compression_ratio * 100.0,
        settings.threads,
        if settings.threads == 1 { "" } else { "s" },
        settings.engine.durability,
    );
    for (name, value) in &report.engine_facts {
        let _ = writeln!(text, "  {name}: {value}");
    }
    let _ = writeln!(
        text,
        "on {} x {}, {}, database in {}",
        machine.processors,
        machine.processor.as_deref().unwrap_or("unknown processor"),
        machine.system,
        place.path().display()
    );
    let _ = write!(text, "\n{HEADER}");
    text
}

/// One verb's line, and lines for whatever went beside or wrong.
#[must_use]
pub fn phase(phase: &PhaseReport) -> String {
    let latency =
        |pick: fn(&crate::latency::LatencyReport) -> f64| phase.latency.as_ref().map(pick);
    let entries = (phase.entries != phase.operations).then_some(phase.entries_per_second);
    let checks = match phase.checks.failures {
        0 if phase.checks.checked == 0 => "-".to_owned(),
        0 => "ok".to_owned(),
        failures => format!("{failures} WRONG"),
    };
    let mut line = format!(
        "{:16} {:>10} {:>11} {:>7} {:>8} {:>8} {:>8} {:>9} {:>6} {:>6} {:>6} {:>10}  {}",
        phase.name,
        number(Some(phase.operations_per_second), 0),
        number(entries, 0),
        number(Some(phase.user_mib_per_second), 1),
        number(latency(|latency| latency.p50_micros), 2),
        number(latency(|latency| latency.p99_micros), 2),
        number(latency(|latency| latency.p999_micros), 2),
        number(latency(|latency| latency.max_micros / 1000.0), 3),
        number(phase.write_amplification, 2),
        number(phase.space_amplification, 2),
        number(Some(phase.cpu_seconds), 2),
        number(
            phase
                .peak_memory_bytes
                .map(|bytes| bytes as f64 / 1048576.0),
            0
        ),
        checks,
    );
    if let Some(beside) = &phase.beside {
        let latency = beside.latency.clone().unwrap_or_default();
        let _ = write!(
            line,
            "\n  beside: {:7} {:>10} {:>11} {:>7} {:>8} {:>8} {:>8} {:>9}",
            beside.name,
            number(Some(beside.operations_per_second), 0),
            "-",
            "-",
            number(Some(latency.p50_micros), 2),
            number(Some(latency.p99_micros), 2),
            number(Some(latency.p999_micros), 2),
            number(Some(latency.max_micros / 1000.0), 3),
        );
    }
    for failure in &phase.checks.first_failures {
        let _ = write!(line, "\n  WRONG: {failure}");
    }
    for text in phase.text.iter().flat_map(|text| text.lines()) {
        let _ = write!(line, "\n  {text}");
    }
    line
}

/// What is below the last line.
#[must_use]
pub fn end(report: &RunReport) -> String {
    let mut text = String::new();
    let checks = crate::session::all_checks(report);
    let _ = writeln!(
        text,
        "\n{} answers checked, {} of them byte for byte: {}.",
        grouped(checks.checked),
        grouped(checks.compared_whole),
        match checks.failures {
            0 => "all right".to_owned(),
            failures => format!("{failures} WRONG"),
        }
    );
    let peak = report.peak_memory_bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| format!("{:.0} MiB", bytes as f64 / 1048576.0),
    );
    let _ = write!(
        text,
        "{:.1} s in all, peak memory {peak}. Latencies are of a sample (the JSON says one in \
         how many);\nmax is at least the longest stall. w-amp and cpu include background work.",
        report.total_seconds
    );
    if report.interrupted {
        text.push_str("\nInterrupted before the end.");
    }
    text
}

/// A number with so many decimals and grouped thousands; a dash for none.
pub(crate) fn number(value: Option<f64>, decimals: usize) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if decimals == 0 => grouped(value.round() as u64),
        Some(value) if value >= 10_000.0 => grouped(value.round() as u64),
        Some(value) => format!("{value:.decimals$}"),
    }
}

/// Thousands, grouped by commas.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_rounded() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(grouped(value), text);
        }
        assert_eq!(number(None, 2), "-");
        assert_eq!(number(Some(1.005), 1), "1.0");
        assert_eq!(number(Some(12345.6), 2), "12,346");
    }

    #[test]
    fn a_wrong_answer_stands_out() {
        let mut phase = PhaseReport {
            name: "readrandom".into(),
            ..PhaseReport::default()
        };
        phase.checks.failures = 2;
        phase.checks.first_failures = vec!["key 5 is gone".into()];
        let line = super::phase(&phase);
        assert!(
            line.contains("2 WRONG") && line.contains("key 5 is gone"),
            "{line}"
        );
    }
}

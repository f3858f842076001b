//! A comparison as tables: for a terminal, and as Markdown for a document.
//!
//! Invariant: both show the same figures; a row that no engine has a figure for is left out.

use super::{Comparison, Medians};
use crate::table::number;
use std::fmt::Write;

/// One table.
struct Section {
    title: &'static str,
    decimals: usize,
    pick: fn(&Medians) -> Option<f64>,
    /// Whether more is better.
    is_rate: bool,
}

const MEBIBYTE: f64 = 1_048_576.0;

const SECTIONS: &[Section] = &[
    Section {
        title: "operations per second",
        decimals: 0,
        pick: |medians| Some(medians.operations_per_second),
        is_rate: true,
    },
    Section {
        title: "p99, microseconds",
        decimals: 1,
        pick: |medians| medians.p99_micros,
        is_rate: false,
    },
    Section {
        title: "p99.9, microseconds",
        decimals: 1,
        pick: |medians| medians.p999_micros,
        is_rate: false,
    },
    Section {
        title: "longest stall, milliseconds",
        decimals: 2,
        pick: |medians| medians.max_micros.map(|micros| micros / 1000.0),
        is_rate: false,
    },
    Section {
        title: "device bytes per user byte written",
        decimals: 2,
        pick: |medians| medians.process_write_amplification,
        is_rate: false,
    },
    Section {
        title: "MiB on disk after settling",
        decimals: 0,
        pick: |medians| medians.disk_allocated_bytes.map(|bytes| bytes / MEBIBYTE),
        is_rate: false,
    },
    Section {
        title: "peak memory, MiB",
        decimals: 0,
        pick: |medians| medians.peak_memory_bytes.map(|bytes| bytes / MEBIBYTE),
        is_rate: false,
    },
    Section {
        title: "CPU seconds per million operations",
        decimals: 2,
        pick: |medians| medians.cpu_seconds_per_million_operations,
        is_rate: false,
    },
    Section {
        title: "slowest second, as a part of the median second",
        decimals: 2,
        pick: |medians| medians.slowest_second_of_median,
        is_rate: true,
    },
];

impl Section {
    /// What stands above the last column.
    fn ratio(&self, comparison: &Comparison) -> String {
        let first = comparison.engines.first().map_or("", |engine| &engine.name);
        match self.is_rate {
            true => format!("{first} / best other"),
            false => format!("{first} / lowest LSM"),
        }
    }

    /// A row's name and its figures, the ratio last, for each row that has any.
    fn rows<'c>(
        &'c self,
        comparison: &'c Comparison,
    ) -> impl Iterator<Item = (&'c str, Vec<String>)> + 'c {
        comparison.rows.iter().filter_map(|row| {
            let figures = row.results.iter();
            let figures: Vec<Option<f64>> = figures
                .map(|result| result.as_ref().and_then(self.pick))
                .collect();
            if figures.iter().all(Option::is_none) {
                return None;
            }
            let ratio = match self.is_rate {
                true => {
                    let best_other = figures.iter().skip(1).flatten().copied();
                    let best_other = best_other.reduce(f64::max).filter(|best| *best > 0.0);
                    best_other.and_then(|best| Some((*figures.first()?)? / best))
                }
                false => comparison.first_over_lowest(row, self.pick),
            };
            let mut cells: Vec<String> = figures
                .into_iter()
                .map(|figure| number(figure, self.decimals))
                .collect();
            cells.push(number(ratio, 2));
            Some((row.title.as_str(), cells))
        })
    }
}

/// What every engine was set to, a line each.
fn facts(comparison: &Comparison) -> impl Iterator<Item = String> + '_ {
    comparison.engines.iter().map(|engine| {
        let facts: Vec<String> = engine
            .facts
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        format!("{}: {}", engine.name, facts.join(", "))
    })
}

fn ending(comparison: &Comparison) -> String {
    format!(
        "Medians of up to {} interleaved rounds, each engine in a process of its own, on {} x {}, {}.",
        comparison.rounds,
        comparison.machine.processors,
        comparison
            .machine
            .processor
            .as_deref()
            .unwrap_or("unknown processor"),
        comparison.machine.system
    )
}

/// For a terminal.
pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    for line in facts(comparison) {
        let _ = writeln!(text, "{line}");
    }
    for section in SECTIONS {
        let mut rows = section.rows(comparison).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let _ = write!(text, "\n{:46}", section.title);
        for engine in &comparison.engines {
            let _ = write!(text, " {:>12}", engine.name);
        }
        let _ = writeln!(text, "  {}", section.ratio(comparison));
        for (title, cells) in rows {
            let _ = write!(text, "{title:46}");
            for cell in cells {
                let _ = write!(text, " {cell:>12}");
            }
            text.push('\n');
        }
    }
    for failure in &comparison.failures {
        let _ = writeln!(text, "FAILED {failure}");
    }
    let _ = write!(text, "\n{}", ending(comparison));
    text
}

/// For a document.
pub(super) fn markdown(comparison: &Comparison) -> String {
    let mut text = format!("{}\n\n", ending(comparison));
    for line in facts(comparison) {
        let _ = writeln!(text, "- {line}");
    }
    for section in SECTIONS {
        let mut rows = section.rows(comparison).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let names: Vec<&str> = comparison.engines.iter().map(|e| e.name.as_str()).collect();
        let columns = names.len() + 2;
        let _ = writeln!(
            text,
            "\n| {} | {} | {} |\n{}|",
            section.title,
            names.join(" | "),
            section.ratio(comparison),
            "|---".repeat(columns)
        );
        for (title, cells) in rows {
            let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
        }
    }
    for failure in &comparison.failures {
        let _ = writeln!(text, "\nFailed: {failure}");
    }
    text
}

//! Charts of a comparison.
//!
//! Invariant: bars of one row are drawn to one scale, that of its largest figure, which is written
//! nowhere: the table has it.

use super::{COLOURS, Drawn, ROW_HEIGHT, WIDTH, legend};
use crate::compare::{Comparison, Medians, Row};
use plotters::prelude::*;
use std::path::Path;

/// The height of a chart over time.
const CHART_HEIGHT: u32 = 320;

/// Draws every engine's throughput as a part of the best one's.
///
/// # Errors
/// Where the file cannot be written.
pub fn comparison(comparison: &Comparison, path: &Path) -> Drawn {
    let caption = "operations per second, as a part of the fastest engine's: longer is better";
    bars(comparison, path, caption, |medians| {
        Some(medians.operations_per_second)
    })
}

/// Draws every engine's 99.9th percentile as a part of the worst one's.
///
/// # Errors
/// Where the file cannot be written.
pub fn tails(comparison: &Comparison, path: &Path) -> Drawn {
    let caption = "p99.9, as a part of the slowest engine's: shorter is better";
    bars(comparison, path, caption, |medians| medians.p999_micros)
}

fn bars(
    comparison: &Comparison,
    path: &Path,
    caption: &str,
    pick: fn(&Medians) -> Option<f64>,
) -> Drawn {
    let engines = comparison.engines.len().max(1);
    let row_height = 6 * engines as u32 + ROW_HEIGHT / 2;
    let rows = comparison.rows.len().max(1);
    let height = 110 + row_height * rows as u32;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    // A row's bars lie around its number, counted from below.
    let row_of = |at: usize| (rows - 1 - at) as f64;
    let rows_axis = (-1.0..rows as f64).step(1.0);
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(290)
        .build_cartesian_2d(0.0..1.12f64, rows_axis)?;
    let label = |y: &f64| {
        let row = (0..rows).find(|at| row_of(*at) == y.round());
        let row = row.and_then(|at| comparison.rows.get(at));
        row.map_or_else(String::new, |row| row.title.clone())
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows + 2)
        .y_label_formatter(&label)
        .draw()?;
    for (engine, column) in comparison.engines.iter().enumerate() {
        let colour = COLOURS[engine % COLOURS.len()];
        let bars = comparison.rows.iter().enumerate().filter_map(|(at, row)| {
            let figure = |result: &Option<Medians>| result.as_ref().and_then(pick);
            let largest = row.results.iter().filter_map(figure).fold(0.0, f64::max);
            let part = figure(row.results.get(engine)?)? / largest;
            let thickness = 0.8 / engines as f64;
            let top = row_of(at) + 0.4 - engine as f64 * thickness;
            let corners = [(0.0, top), (part, top - thickness)];
            part.is_finite()
                .then(|| Rectangle::new(corners, colour.filled()))
        });
        chart
            .draw_series(bars)?
            .label(&column.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    legend(&mut chart)?;
    root.present()?;
    Ok(())
}

/// Draws the operations in each second, for every row that took long enough, one below the other.
///
/// # Errors
/// Where the file cannot be written.
pub fn seconds(comparison: &Comparison, path: &Path) -> Drawn {
    let series = |result: &Option<Medians>| {
        let medians = result.as_ref();
        medians.map_or_else(Vec::new, |medians| {
            medians.operations_in_each_second.clone()
        })
    };
    let rows = comparison.rows.iter();
    let rows: Vec<&Row> = rows
        .filter(|row| row.results.iter().any(|result| !series(result).is_empty()))
        .collect();
    let height = CHART_HEIGHT * rows.len().max(1) as u32;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, row) in root.split_evenly((rows.len().max(1), 1)).iter().zip(rows) {
        let all: Vec<Vec<u64>> = row.results.iter().map(series).collect();
        let length = all.iter().map(Vec::len).max().unwrap_or(0);
        let highest = all.iter().flatten().max().copied().unwrap_or(0);
        let mut chart = ChartBuilder::on(area)
            .caption(
                format!("{}: operations in each second", row.title),
                ("sans-serif", 18),
            )
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(90)
            .build_cartesian_2d(0..length.max(1), 0..highest + highest / 10 + 1)?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_label_formatter(&|y| super::short(&(*y as f64)))
            .draw()?;
        for (engine, seconds) in all.into_iter().enumerate() {
            let colour = COLOURS[engine % COLOURS.len()];
            let points = seconds.into_iter().enumerate();
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(&comparison.engines[engine].name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
        }
        legend(&mut chart)?;
    }
    root.present()?;
    Ok(())
}

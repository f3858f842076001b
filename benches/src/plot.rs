//! Charts of a run or a comparison, as SVG.
//!
//! Invariant: a chart shows nothing that the table or the JSON does not. Scales are logarithmic where
//! figures of a run span decades. Comparisons are in `comparison`.

mod comparison;

pub use comparison::{comparison, seconds, tails};

use crate::latency::LatencyReport;
use crate::report::{PhaseReport, RunReport};
use plotters::coord::Shift;
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

type Drawn = Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1280;
const ROW_HEIGHT: u32 = 26;
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
];

/// Draws the throughput and the latencies of a run.
///
/// # Errors
/// Where the file cannot be written.
pub fn run(report: &RunReport, path: &Path) -> Drawn {
    let phases: Vec<&PhaseReport> = report
        .phases
        .iter()
        .filter(|phase| phase.operations > 1)
        .collect();
    let height = 110 + ROW_HEIGHT * phases.len().max(1) as u32;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{}, {} keys", report.engine, report.settings.num);
    let root = root.titled(&title, ("sans-serif", 20))?;
    let (left, right) = root.split_horizontally(WIDTH / 2);
    throughput(&left, &phases)?;
    latencies(&right, &phases)?;
    root.present()?;
    Ok(())
}

fn throughput(area: &Area<'_>, phases: &[&PhaseReport]) -> Drawn {
    let rates = || phases.iter().map(|phase| phase.operations_per_second);
    let (low, high) = decades(rates());
    let rows = phases.len().max(1);
    let mut chart = ChartBuilder::on(area)
        .caption("operations per second", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(140)
        .build_cartesian_2d((low..high).log_scale(), (0..rows).into_segmented())?;
    let label = |y: &SegmentValue<usize>| row_label(phases, y);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows)
        .y_label_formatter(&label)
        .x_label_formatter(&short)
        .draw()?;
    chart.draw_series(rates().enumerate().map(|(at, rate)| {
        let row = rows - 1 - at;
        let corners = [
            (low, SegmentValue::Exact(row)),
            (rate, SegmentValue::Exact(row + 1)),
        ];
        let mut bar = Rectangle::new(corners, COLOURS[0].filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    }))?;
    Ok(())
}

fn latencies(area: &Area<'_>, phases: &[&PhaseReport]) -> Drawn {
    type Pick = fn(&LatencyReport) -> f64;
    let percentiles: [(&str, Pick); 4] = [
        ("p50", |latency| latency.p50_micros),
        ("p99", |latency| latency.p99_micros),
        ("p99.9", |latency| latency.p999_micros),
        ("max", |latency| latency.max_micros),
    ];
    let timed = || {
        phases
            .iter()
            .enumerate()
            .filter_map(|(at, p)| Some((at, p.latency.as_ref()?)))
    };
    let all = percentiles
        .iter()
        .flat_map(|(_, pick)| timed().map(move |(_, l)| pick(l)));
    let (low, high) = decades(all);
    let rows = phases.len().max(1);
    let mut chart = ChartBuilder::on(area)
        .caption("latency, microseconds", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(140)
        .build_cartesian_2d((low..high).log_scale(), (0..rows).into_segmented())?;
    let label = |y: &SegmentValue<usize>| row_label(phases, y);
    chart
        .configure_mesh()
        .y_labels(rows)
        .y_label_formatter(&label)
        .x_label_formatter(&short)
        .draw()?;
    for (at, (name, pick)) in percentiles.into_iter().enumerate() {
        let colour = COLOURS[at];
        let dots = timed().map(|(row, latency)| {
            let place = (
                pick(latency).max(low),
                SegmentValue::CenterOf(rows - 1 - row),
            );
            Circle::new(place, 4, colour.filled())
        });
        chart
            .draw_series(dots)?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 7, y), 4, colour.filled()));
    }
    legend(&mut chart)
}

fn legend<'a, C: CoordTranslate>(chart: &mut ChartContext<'a, SVGBackend<'a>, C>) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.4))
        .draw()?;
    Ok(())
}

fn row_label(phases: &[&PhaseReport], y: &SegmentValue<usize>) -> String {
    match y {
        SegmentValue::CenterOf(row) => {
            let at = (phases.len() - 1).checked_sub(*row);
            at.and_then(|at| phases.get(at))
                .map_or_else(String::new, |phase| phase.name.clone())
        }
        _ => String::new(),
    }
}

/// Powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return (1.0, 10.0);
    }
    (
        10f64.powf(low.log10().floor()),
        10f64.powf((high * 1.01).log10().ceil()),
    )
}

/// A number with a unit of thousands, for axes.
fn short(value: &f64) -> String {
    match *value {
        v if v >= 1e6 => format!("{:.0} M", v / 1e6),
        v if v >= 1e3 => format!("{:.0} k", v / 1e3),
        v if v >= 1.0 => format!("{v:.0}"),
        v => format!("{v}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_all_values() {
        assert_eq!(decades([5.0, 20.0].into_iter()), (1.0, 100.0));
        assert_eq!(decades([0.0].into_iter()), (1.0, 10.0));
        let (low, high) = decades([100.0].into_iter());
        assert!(low <= 100.0 && high > 100.0);
    }

    #[test]
    fn axis_numbers_are_short() {
        for (value, text) in [(2e6, "2 M"), (1e3, "1 k"), (10.0, "10"), (0.1, "0.1")] {
            assert_eq!(short(&value), text);
        }
    }
}

//! Three pictures of a run: latency by percentile, rate and latency over time, connections over time.

use std::fs;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use crate::tally::{Latencies, Outcome, Second};

const SIZE: (u32, u32) = (960, 540);
/// Told apart without colour too: the legend has their order.
const LINES: [RGBColor; 3] = [RGBColor(0, 90, 181), RGBColor(220, 50, 32), RGBColor(26, 133, 80)];
/// The percentile axis is logarithmic in 1 / (1 - p): 1 is 0 %, 1000 is 99.9 %.
const TAIL_MAX: f64 = 100_000.0;

type Fault = Box<dyn std::error::Error>;
type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Writes them into a folder, which is made.
///
/// # Errors
/// A text that names the file.
pub fn write(dir: &Path, outcome: &Outcome) -> Result<Vec<PathBuf>, String> {
    let fault = |path: &Path, error: Fault| format!("--plot: {}: {error}", path.display());
    fs::create_dir_all(dir).map_err(|error| fault(dir, error.into()))?;
    let mut written = Vec::new();
    let mut add = |name: &str, draw: &dyn Fn(&Path) -> Result<(), Fault>| {
        let path = dir.join(name);
        draw(&path).map_err(|error| fault(&path, error))?;
        written.push(path);
        Ok::<(), String>(())
    };
    add("latency.svg", &|path| percentiles(path, outcome))?;
    add("rate.svg", &|path| rates(path, &outcome.timeline))?;
    add("connections.svg", &|path| connections(path, &outcome.timeline))?;
    Ok(written)
}

fn percentiles(path: &Path, outcome: &Outcome) -> Result<(), Fault> {
    let tally = &outcome.tally;
    let all = [("latency", &tally.latency), ("delivery", &tally.delivery), ("login", &tally.login_latency)];
    let lines: Vec<Line<'_>> =
        all.into_iter().filter(|(_, of)| !of.0.is_empty()).map(|(name, of)| (name, curve(of))).collect();
    let highest = highest(&lines);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Latency by percentile", ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d((1.0..TAIL_MAX).log_scale(), (0.001..highest.max(0.01) * 1.2).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("milliseconds")
        .x_label_formatter(&|tail| {
            format!("{:.6}", 100.0 * (1.0 - 1.0 / tail))
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
                + " %"
        })
        .y_label_formatter(&|ms| format!("{ms}"))
        .draw()?;
    for ((name, points), colour) in lines.into_iter().zip(LINES) {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    Ok(root.present()?)
}

/// (1 / (1 - p), ms).
fn curve(of: &Latencies) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut tail = 1.0;
    while tail <= TAIL_MAX {
        let value = of.0.value_at_quantile(1.0 - 1.0 / tail);
        points.push((tail, value as f64 / 1e6));
        tail *= 1.1;
    }
    points
}

fn rates(path: &Path, timeline: &[Second]) -> Result<(), Fault> {
    let over = |of: fn(&Second) -> u64| {
        timeline.iter().map(|second| (second.at_seconds, of(second) as f64)).collect()
    };
    lines(
        path,
        ("Per second", "answers, deliveries, errors"),
        vec![
            ("answered", over(|second| second.answered)),
            ("delivered", over(|second| second.deliveries)),
            ("errors", over(|second| second.errors)),
        ],
    )
}

fn connections(path: &Path, timeline: &[Second]) -> Result<(), Fault> {
    let open = timeline.iter().map(|second| (second.at_seconds, second.open as f64)).collect();
    lines(path, ("Connections", "open"), vec![("open", open)])
}

/// A picture over time; both axes from 0.
fn lines(path: &Path, (caption, unit): (&str, &str), lines: Vec<Line<'_>>) -> Result<(), Fault> {
    let last = lines.iter().flat_map(|(_, points)| points).map(|(at, _)| *at).fold(1.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..last, 0.0..highest(&lines).max(1.0) * 1.1)?;
    chart.configure_mesh().x_desc("seconds from the start").y_desc(unit).draw()?;
    for ((name, points), colour) in lines.into_iter().zip(LINES) {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    Ok(root.present()?)
}

fn highest(lines: &[Line<'_>]) -> f64 {
    lines.iter().flat_map(|(_, points)| points).map(|(_, value)| *value).fold(0.0, f64::max)
}

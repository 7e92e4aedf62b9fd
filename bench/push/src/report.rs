//! What a scenario prints: where it ran and with which command, then a line per figure with the least, the median and
//! the largest of its runs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Figures of several runs, in the order in which they were first added.
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

impl Report {
    /// Prints the head.
    pub fn new(scenario: &str, gateway: &Path, engine: &str) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        println!("\n== {scenario}");
        println!("command   bench-push {}", arguments.join(" "));
        println!("date      {} UTC, load average {}", output("date", &["-u", "+%F %R"]), load());
        println!("machine   {}, kernel {}", processor(), output("uname", &["-r"]));
        println!("gateway   {}", version(gateway));
        println!("engine    {engine}");
        Self { rows: Vec::new() }
    }

    /// Adds a value of one run.
    pub fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { name, unit, values: vec![value] }),
        }
    }

    /// Prints the table. The spread is (max - min) / median.
    pub fn print(mut self) {
        println!("{:<44} {:>11} {:>11} {:>11}  {:<9} spread", "", "min", "median", "max", "unit");
        for Row { name, unit, values } in &mut self.rows {
            values.sort_by(f64::total_cmp);
            let (min, max) = (values[0], values[values.len() - 1]);
            let median = median(values);
            let spread = if median > 0.0 { 100.0 * (max - min) / median } else { 0.0 };
            let [min, middle, max] = [min, median, max].map(number);
            println!("{name:<44} {min:>11} {middle:>11} {max:>11}  {unit:<9} {spread:.0} %");
        }
    }
}

/// Of sorted values, at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Three digits that matter, and no more noise.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The first line that a program prints, or why there is none.
fn output(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned(),
        Err(e) => format!("({program}: {e})"),
    }
}

fn version(gateway: &Path) -> String {
    let text = Command::new(gateway).arg("--version").output();
    let text = text.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
    format!("{} x {model}", models.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two() {
        assert_eq!(
            [median(&[1.0, 2.0, 9.0]), median(&[1.0, 2.0, 4.0, 9.0]), median(&[5.0])],
            [2.0, 3.0, 5.0]
        );
    }
}

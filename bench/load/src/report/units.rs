//! Figures as wrk writes them.

/// `635.91us`, `1.23ms`, `30.00s`.
pub fn time(ns: f64) -> String {
    for (unit, size) in [("us", 1e3), ("ms", 1e6), ("s", 1e9)] {
        if ns < size * 1e3 {
            return format!("{:.2}{unit}", ns / size);
        }
    }
    format!("{:.2}m", ns / 60e9)
}

/// `17.76GB`: wrk counts in 1024s.
pub fn size(bytes: f64) -> String {
    scaled(bytes, 1024.0, ["B", "KB", "MB", "GB", "TB"])
}

/// `56.20k`.
pub fn count(number: f64) -> String {
    scaled(number, 1000.0, ["", "k", "M", "G", "T"])
}

fn scaled(number: f64, step: f64, units: [&str; 5]) -> String {
    let (mut rest, mut unit) = (number, 0);
    while rest.abs() >= step && unit + 1 < units.len() {
        rest /= step;
        unit += 1;
    }
    format!("{rest:.2}{}", units[unit])
}

/// A part of a whole; 0 of nothing.
pub fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

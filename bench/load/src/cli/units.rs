//! Numbers as wrk takes them: `10k`, `30s`.

use std::time::Duration;

/// `400`, `10k`, `1.5M`.
///
/// # Errors
/// What was expected.
pub fn count(text: &str) -> Result<usize, String> {
    let number = scaled(text).filter(|number| *number >= 1.0 && *number <= 1e9 && number.fract() == 0.0);
    number
        .map(|number| number as usize)
        .ok_or_else(|| "expected a number above 0, like 400 or 10k".to_owned())
}

/// As [`count`], and 0.
///
/// # Errors
/// What was expected.
pub fn index(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { count(text) }
}

/// Per second: `2000`, `10k`, `0.5`.
///
/// # Errors
/// What was expected.
pub fn rate(text: &str) -> Result<f64, String> {
    scaled(text)
        .filter(|number| *number > 0.0 && *number <= 1e9)
        .ok_or_else(|| "expected a rate per second above 0, like 2000 or 10k".to_owned())
}

/// `30s`, `2m`, `1h`, `250ms`; a bare number is seconds.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => 0.0,
    };
    digits
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number >= 0.0 && unit > 0.0 && number * unit <= 31_536_000.0)
        .map(|number| Duration::from_secs_f64(number * unit))
        .ok_or_else(|| "expected a time like 30s, 2m, 1h or 250ms".to_owned())
}

fn scaled(text: &str) -> Option<f64> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'm' | 'M') => (&text[..at], 1e6),
        (at, 'g' | 'G') => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    digits.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * unit)
}

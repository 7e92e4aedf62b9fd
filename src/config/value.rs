//! Text to values: the small grammars that settings share. A parser gives `None` for what it does not accept; the
//! settings table says in words what that is.

use std::fmt;
use std::ops::RangeInclusive;

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// A decimal number in a range.
pub(super) fn number<T>(text: &str, range: RangeInclusive<T>) -> Option<T>
where
    T: std::str::FromStr + PartialOrd,
{
    text.parse().ok().filter(|n| range.contains(n))
}

/// Bytes: a plain number, or one with `KiB`, `MiB` or `GiB`.
pub(super) fn bytes(text: &str, range: RangeInclusive<u64>) -> Option<u64> {
    scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)], range)
}

/// Milliseconds: a plain number, or one with `ms` or `s`.
pub(super) fn millis(text: &str, range: RangeInclusive<u64>) -> Option<u64> {
    scaled(text, &[("ms", 1), ("s", 1000)], range)
}

fn scaled(text: &str, units: &[(&str, u64)], range: RangeInclusive<u64>) -> Option<u64> {
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))
        .unwrap_or((text, 1));
    // `parse` would accept a leading plus sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(factor).filter(|n| range.contains(n))
}

/// Names between commas, blanks around them dropped; at least one, none empty.
pub(super) fn names(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

/// What callers send as bearer token: a secret that fits into an HTTP header and cannot be guessed in a lifetime.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// 16 to 512 visible ASCII characters without blanks.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (16..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// The secret itself.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// A setting that may be left empty: `Some(None)` is nothing, `None` is not what was expected.
pub(super) fn optional<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text).map(Some) }
}

/// Two 64-bit numbers in hexadecimal, joined by a colon.
pub(super) fn key_pair(text: &str) -> Option<[u64; 2]> {
    let (first, second) = text.split_once(':')?;
    Some([u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(second, 16).ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_take_units_and_stay_in_range() {
        let any = 0..=u64::MAX;
        for (text, want) in [
            ("0", Some(0)),
            ("32768", Some(32768)),
            ("32KiB", Some(32768)),
            ("32 KiB", Some(32768)),
            ("2MiB", Some(2 << 20)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("KiB", None),
            ("-1", None),
            ("+1", None),
            ("1.5MiB", None),
            ("1MB", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(bytes(text, any.clone()), want, "{text:?}");
        }
        for (text, want) in [
            ("250", Some(250)),
            ("250ms", Some(250)),
            ("3s", Some(3000)),
            ("3 s", Some(3000)),
            ("3m", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(millis(text, any.clone()), want, "{text:?}");
        }
        assert_eq!(millis("11s", 0..=10_000), None);
        assert_eq!(number::<u16>("65536", 0..=u16::MAX), None);
    }

    #[test]
    fn a_token_is_long_visible_and_never_printed() {
        for (text, good) in [
            ("0123456789abcdef", true),
            ("0123456789abcde", false),
            ("0123456789 abcdef", false),
            ("0123456789abcd\u{e9}", false),
            ("", false),
        ] {
            assert_eq!(Token::parse(text).is_some(), good, "{text:?}");
        }
        assert!(Token::parse(&"x".repeat(512)).is_some() && Token::parse(&"x".repeat(513)).is_none());
        assert!(!format!("{:?}", Token::parse("0123456789abcdef")).contains("0123"));
    }

    #[test]
    fn lists_and_keys_have_one_spelling() {
        assert_eq!(names("a, b"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(names("a,,b"), None);
        assert_eq!(names(""), None);
        assert_eq!(key_pair("ff:10"), Some([255, 16]));
        assert_eq!(key_pair("ff"), None);
        assert_eq!(boolean("yes"), None);
    }
}

//! Text to values: the small grammars that settings share. A parser gives `None` for what it does not accept; the
//! settings table says in words what that is.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use crate::limits;

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

/// A secret of any form, which may be empty. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The secret itself.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret()" } else { "Secret(hidden)" })
    }
}

/// A host and a port of it. Written `host:port`, an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// From 1.
    pub port: u16,
}

impl Endpoint {
    /// Reads `host:port`; `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| number(port, 1..=u16::MAX))??;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').filter(|ip| ip.parse::<Ipv6Addr>().is_ok())?,
            None => Some(host).filter(|host| is_host(host))?,
        };
        Some(Self { host: host.to_owned(), port })
    }

    /// Reads a list between commas, at least one.
    pub(super) fn list(text: &str) -> Option<Vec<Self>> {
        let endpoints: Option<Vec<Self>> = names(text)?.iter().map(|name| Self::parse(name)).collect();
        endpoints.filter(|endpoints| endpoints.len() <= limits::ENDPOINTS_MAX)
    }

    /// As [`Endpoint::list`], or nothing at all.
    pub(super) fn list_or_none(text: &str) -> Option<Vec<Self>> {
        if text.is_empty() { Some(Vec::new()) } else { Self::list(text) }
    }

    /// What [`Endpoint::list`] reads.
    pub(super) fn listed(endpoints: &[Self]) -> String {
        endpoints.iter().map(Self::to_string).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a resolver or the network takes: letters, digits, dots, dashes and (Docker's names have them) underscores.
fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// A name of Kubernetes: a label of DNS (RFC 1123).
pub(super) fn label(text: &str) -> Option<String> {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-');
    good.then(|| text.to_owned())
}

/// Visible ASCII without blanks, at most 255 characters.
pub(super) fn word(text: &str) -> Option<String> {
    let good = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| text.to_owned())
}

/// The address of a web service; a slash at its end is dropped.
pub(super) fn web_url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let good = !rest.is_empty() && !rest.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| text.trim_end_matches('/').to_owned())
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
    fn endpoints_are_hosts_with_a_port() {
        for (text, want) in [
            ("localhost:12379", Some("localhost:12379")),
            ("10.0.0.1:1", Some("10.0.0.1:1")),
            ("[::1]:65535", Some("[::1]:65535")),
            ("open_im-etcd.ns.svc:2379", Some("open_im-etcd.ns.svc:2379")),
            ("localhost", None),
            ("localhost:0", None),
            ("localhost:65536", None),
            ("localhost:+1", None),
            (":1", None),
            ("::1:1", None),
            ("[nowhere]:1", None),
            ("http://localhost:1", None),
            ("", None),
        ] {
            assert_eq!(Endpoint::parse(text).map(|e| e.to_string()).as_deref(), want, "{text:?}");
        }
        let many = |n: usize| vec!["a:1"; n].join(",");
        assert_eq!(Endpoint::list("a:1, b:2").map(|l| Endpoint::listed(&l)).as_deref(), Some("a:1,b:2"));
        assert!(Endpoint::list(&many(limits::ENDPOINTS_MAX)).is_some());
        assert!(Endpoint::list(&many(limits::ENDPOINTS_MAX + 1)).is_none());
        assert!(Endpoint::list("").is_none() && Endpoint::list_or_none("").is_some());
        assert!(Endpoint::list("a:1,,b:2").is_none());
    }

    #[test]
    fn names_and_urls_are_what_others_take() {
        for (text, good) in [
            ("default", true),
            ("openim-lin2", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
        ] {
            assert_eq!(label(text).is_some(), good, "{text:?}");
        }
        assert!(label(&"x".repeat(63)).is_some() && label(&"x".repeat(64)).is_none());
        assert!(word("open/im").is_some() && word("open im").is_none() && word("").is_none());
        for (text, want) in [
            ("http://127.0.0.1:10006/callback/", Some("http://127.0.0.1:10006/callback")),
            ("https://hooks", Some("https://hooks")),
            ("ftp://hooks", None),
            ("http://", None),
            ("http:///x", None),
            ("http://a b", None),
        ] {
            assert_eq!(web_url(text).as_deref(), want, "{text:?}");
        }
        let secret = Secret::new("hunter2");
        assert_eq!((secret.secret(), secret.is_empty()), ("hunter2", false));
        assert!(!format!("{secret:?}").contains("hunter2") && Secret::default().is_empty());
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

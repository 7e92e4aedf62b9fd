//! JSON as Go's `encoding/json` reads and writes it, where that differs from serde's habits.
//!
//! Reading: keys match without regard to case, unknown keys are skipped, the last of equal keys wins, `null` leaves the
//! zero value (also at the top), integers are integer literals, invalid UTF-8 becomes U+FFFD (the caller converts).
//! Writing: `<`, `>`, `&`, U+2028 and U+2029 are escaped, so that JSON may stand in HTML.
//!
//! Known difference: an escaped lone surrogate in a key is an error here and U+FFFD in Go.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A value has another type than its field.
#[derive(Debug)]
pub(crate) struct WrongType;

/// Calls `each` with every key and value of the object `text`, in order. Nothing for `null`.
///
/// # Errors
/// `text` is not one JSON object, or `each` refused a value.
pub(crate) fn fields<'a, F>(text: &'a str, each: F) -> serde_json::Result<()>
where
    F: FnMut(&str, &'a RawValue) -> Result<(), WrongType>,
{
    let mut json = serde_json::Deserializer::from_str(text);
    serde::Deserializer::deserialize_any(&mut json, Fields(each))?;
    json.end()
}

struct Fields<F>(F);

impl<'de, F> Visitor<'de> for Fields<F>
where
    F: FnMut(&str, &'de RawValue) -> Result<(), WrongType>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Str(key)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            (self.0)(&key, value)
                .map_err(|_| A::Error::custom(format_args!("wrong type for field {key}")))?;
        }
        Ok(())
    }
}

/// A string, borrowed where it has no escapes. (A bare `Cow` would always be copied.)
#[derive(Deserialize)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

/// A string; `None` for `null`.
pub(crate) fn string(value: &RawValue) -> Result<Option<Cow<'_, str>>, WrongType> {
    match serde_json::from_str::<Option<Str<'_>>>(value.get()) {
        Ok(text) => Ok(text.map(|Str(text)| text)),
        // What serde refuses in a string that is well-formed, as every raw value is, are lone surrogates.
        Err(_) => match serde_json::from_str(value.get()) {
            Ok(Surrogates(text)) => Ok(Some(Cow::Owned(text))),
            Err(_) => Err(WrongType),
        },
    }
}

/// A string in which lone surrogates have become U+FFFD.
struct Surrogates(String);

impl<'de> Deserialize<'de> for Surrogates {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Surrogates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Surrogates, E> {
                Ok(Surrogates(replace_surrogates(bytes)))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// serde_json gives a lone surrogate as the three bytes that UTF-8 would have for it; U+FFFD has three bytes, too.
fn replace_surrogates(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        if let [first @ 0xed, second @ 0xa0..=0xbf, third, ..] = rest {
            (*first, *second, *third) = (0xef, 0xbf, 0xbd);
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An integer literal in the range of `T`; `None` for `null`.
pub(crate) fn integer<T: std::str::FromStr>(value: &RawValue) -> Result<Option<T>, WrongType> {
    match value.get() {
        "null" => Ok(None),
        // A JSON number at this point, so that Rust's parser takes what Go's takes: digits and a minus.
        digits => digits.parse().map(Some).map_err(|_| WrongType),
    }
}

/// A boolean; `None` for `null`.
pub(crate) fn boolean(value: &RawValue) -> Result<Option<bool>, WrongType> {
    match value.get() {
        "null" => Ok(None),
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => Err(WrongType),
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for part in text.split_inclusive(needs_escape) {
        let mut chars = part.chars();
        match chars.next_back() {
            Some(last) if needs_escape(last) => {
                out.push_str(chars.as_str());
                write_escape(out, last);
            }
            _ => out.push_str(part),
        }
    }
    out.push('"');
}

fn needs_escape(c: char) -> bool {
    c < ' ' || matches!(c, '"' | '\\') || is_html(c)
}

/// What Go escapes although JSON does not ask for it.
fn is_html(c: char) -> bool {
    matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

fn write_escape(out: &mut String, c: char) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        _ => {
            let digit = |shift: u32| char::from_digit(u32::from(c) >> shift & 0xf, 16).unwrap_or('0');
            out.push_str("\\u");
            out.extend([digit(12), digit(8), digit(4), digit(0)]);
            return;
        }
    };
    out.push_str(short);
}

/// Appends the JSON value `json` without the space between its tokens and with Go's HTML escapes. Everything else
/// stays as written: digits of numbers, escapes, the order of keys.
pub(crate) fn write_compact(out: &mut String, json: &str) {
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            if is_html(c) { write_escape(out, c) } else { out.push(c) }
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            in_string = c == '"';
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_gos_escapes() {
        for (text, json) in [
            ("", r#""""#),
            ("plain ü 用", r#""plain ü 用""#),
            ("a\"b\\c/", r#""a\"b\\c/""#),
            ("\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}", "\"\\n\\r\\t\\b\\f\\u0001\\u001f\u{7f}\""),
            ("<a>&\u{2028}\u{2029}", r#""\u003ca\u003e\u0026\u2028\u2029""#),
        ] {
            let mut out = String::new();
            write_string(&mut out, text);
            assert_eq!(out, json);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn compacting_keeps_the_text_of_values() {
        for (json, compact) in [
            (" { \"a\" : [ 1.50e+10 , -0 ] } ", r#"{"a":[1.50e+10,-0]}"#),
            (r#"" a \" b \\" "#, r#"" a \" b \\""#),
            (r#""\u003c<é""#, r#""\u003c\u003cé""#),
            ("12345678901234567890.12", "12345678901234567890.12"),
        ] {
            let mut out = String::new();
            write_compact(&mut out, json);
            assert_eq!(out, compact);
        }
    }

    #[test]
    fn strings_are_read_as_go_reads_them() {
        let parse = |json: &str| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            string(raw).ok().map(|text| text.map(Cow::into_owned))
        };
        for (json, text) in [
            (r#""""#, Some("")),
            (r#""a\u00fc\n\/\\""#, Some("aü\n/\\")),
            (r#""\ud83d\ude00""#, Some("😀")),
            (r#""\ud800""#, Some("\u{fffd}")),
            (r#""a\udc00b""#, Some("a\u{fffd}b")),
            (r#""\ud800\ud800\udc00""#, Some("\u{fffd}\u{10000}")),
            (r#""\ud800\u0041\ud7ff""#, Some("\u{fffd}A\u{d7ff}")),
            ("null", None),
        ] {
            assert_eq!(parse(json), Some(text.map(String::from)), "{json}");
        }
        for json in ["1", "true", "[]", "[97]", "{}", r#"["\ud800"]"#] {
            assert_eq!(parse(json), None, "{json}");
        }
    }

    #[test]
    fn integers_are_integer_literals() {
        let parse = |json: &str| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            integer::<i32>(raw).ok()
        };
        assert_eq!(parse("2147483647"), Some(Some(i32::MAX)));
        assert_eq!(parse("-2147483648"), Some(Some(i32::MIN)));
        assert_eq!(parse("-0"), Some(Some(0)));
        assert_eq!(parse("null"), Some(None));
        for json in ["2147483648", "1.0", "1e3", "\"1\"", "true", "[]", "{}"] {
            assert_eq!(parse(json), None, "{json}");
        }
    }
}

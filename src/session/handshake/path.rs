//! Which paths Go's HTTP mux redirects, and where to (spec 1.1).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a path keeps as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// The path without empty, `.` and `..` segments, if it has any; unescaped. A path with a broken escape is left alone
/// (upstream's server answers it 400; the gateway serves every path alike).
pub(super) fn cleaned(path: &str) -> Option<String> {
    if !escapes_are_whole(path) {
        return None;
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if decoded.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != decoded).then_some(clean)
}

/// The target to redirect to.
pub(super) fn with_query(path: &str, query: &str) -> Box<str> {
    let path = utf8_percent_encode(path, ESCAPED);
    match query {
        "" => path.to_string().into(),
        query => format!("{path}?{query}").into(),
    }
}

/// Whether each `%` is followed by two hexadecimal digits.
pub(super) fn escapes_are_whole(text: &str) -> bool {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    text.as_bytes().split(|byte| *byte == b'%').skip(1).all(|after| hex(after.first()) && hex(after.get(1)))
}

//! The query string as Go reads it, and the arguments in it (spec 1.2).

use std::borrow::Cow;

use super::{Arguments, Refusal, SERVER_ERROR, Strictness};

/// The pairs of a query string, in order. Pairs with `;` or a broken escape are not among them.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn parse(query: &'a str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.contains(';')).filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key)?, unescape(value)?))
        });
        Self(pairs.collect())
    }

    /// The first value of a key; empty if there is none.
    pub(super) fn first(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

/// Undoes `%xx` and `+`. `None`: a broken escape. Bytes that are not UTF-8 become U+FFFD.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Some(Cow::Borrowed(text));
    }
    if !super::path::escapes_are_whole(text) {
        return None;
    }
    let spaced = text.replace('+', " ");
    Some(Cow::Owned(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()))
}

/// Checks 2a to 2c.
pub(super) fn arguments(
    query: &Query<'_>,
    compression_header: Option<&str>,
    strictness: Strictness,
) -> Result<Arguments, Refusal> {
    // Go's decimal parse and Rust's agree: an optional sign and digits, nothing else.
    let platform =
        query.first("platformID").parse().map_err(|_| Refusal::arguments("platformID is not int"))?;
    let wants_response = match query.first("isMsgResp") {
        "" => false,
        text => boolean(text).ok_or_else(|| Refusal::arguments("isMsgResp is not bool"))?,
    };
    let background = query.first("isBackground");
    let may_be_missing = strictness == Strictness::Lenient;
    if boolean(background).is_none() && !(may_be_missing && background.is_empty()) {
        return Err(Refusal::new(SERVER_ERROR, "invalid syntax"));
    }
    let compression = match query.first("compression") {
        "" => compression_header.unwrap_or_default(),
        text => text,
    };
    Ok(Arguments {
        user: query.first("sendID").into(),
        token: query.first("token").into(),
        platform,
        operation_id: query.first("operationID").into(),
        compression: compression.into(),
        sdk_type: query.first("sdkType").into(),
        wants_response,
    })
}

/// The checks of 3.5 (spec 1.3): three arguments that must be there, and no more. What later versions added (`v`,
/// `isMsgResp`, `sdkType`) is not known, and `isBackground`, which has no effect, is not even read.
pub(super) fn arguments_v35(
    query: &Query<'_>,
    compression_header: Option<&str>,
) -> Result<Arguments, Refusal> {
    let refused = || Refusal::arguments("1602 args err, need token, sendID, platformID");
    let given = |key| Some(query.first(key)).filter(|value| !value.is_empty()).ok_or_else(refused);
    let (token, user) = (given("token")?, given("sendID")?);
    let platform = given("platformID")?.parse().map_err(|_| refused())?;
    let compression = [Some(query.first("compression")), compression_header];
    Ok(Arguments {
        user: user.into(),
        token: token.into(),
        platform,
        operation_id: query.first("operationID").into(),
        // Unlike later, an argument that says something else does not hide the header.
        compression: compression.into_iter().flatten().find(|c| *c == "gzip").unwrap_or_default().into(),
        ..Arguments::default()
    })
}

/// Go's spellings of a boolean.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

//! Text frames from clients: heartbeats of those that cannot send control frames (spec 1.6).
//!
//! Not here: the one text frame that the gateway sends by itself (`session::handshake`).

use serde_json::value::RawValue;

use super::gojson;

/// What a text frame asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum TextAnswer {
    /// Send this text frame.
    Pong(String),
    /// It was a pong.
    Nothing,
}

/// Why the connection closes, without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFault {
    /// Not a JSON object, or a field has the wrong type.
    NotJson,
    /// Neither ping nor pong.
    UnknownType,
}

/// Judges the payload of a text frame.
///
/// # Errors
/// See [`TextFault`].
pub fn answer(payload: &[u8]) -> Result<TextAnswer, TextFault> {
    let text = String::from_utf8_lossy(payload);
    let mut kind = None;
    let mut body: Option<&RawValue> = None;
    gojson::fields(&text, |key, value| {
        if key.eq_ignore_ascii_case("type") {
            kind = gojson::string(value)?.or(kind.take());
        } else if key.eq_ignore_ascii_case("body") {
            body = Some(value);
        }
        Ok(())
    })
    .map_err(|_| TextFault::NotJson)?;
    match kind.as_deref() {
        Some("ping") => {
            let mut pong = String::from(r#"{"type":"pong","body":"#);
            gojson::write_compact(&mut pong, body.map_or("null", RawValue::get));
            pong.push('}');
            Ok(TextAnswer::Pong(pong))
        }
        Some("pong") => Ok(TextAnswer::Nothing),
        _ => Err(TextFault::UnknownType),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pings_are_answered_with_their_body() {
        for (ping, pong) in [
            (r#"{"type":"ping"}"#, r#"{"type":"pong","body":null}"#),
            (r#"{"type":"ping","body":null}"#, r#"{"type":"pong","body":null}"#),
            (r#"{"type":"ping","body":"op1"}"#, r#"{"type":"pong","body":"op1"}"#),
            (
                r#" { "Body" : { "a" : [ 1.0 , "<x y>" ] } , "TYPE" : "ping" } "#,
                r#"{"type":"pong","body":{"a":[1.0,"\u003cx y\u003e"]}}"#,
            ),
            (
                r#"{"type":"pong","type":"ping","type":null,"body":1,"body":2,"x":{}}"#,
                r#"{"type":"pong","body":2}"#,
            ),
        ] {
            assert_eq!(answer(ping.as_bytes()), Ok(TextAnswer::Pong(pong.into())), "{ping}");
        }
    }

    #[test]
    fn everything_else_is_nothing_or_a_fault() {
        assert_eq!(answer(br#"{"type":"pong","body":"x"}"#), Ok(TextAnswer::Nothing));
        for (text, fault) in [
            (r#"{"type":"hello"}"#, TextFault::UnknownType),
            (r#"{"type":"Ping"}"#, TextFault::UnknownType),
            (r#"{}"#, TextFault::UnknownType),
            (r#"null"#, TextFault::UnknownType),
            (r#"{"type":1}"#, TextFault::NotJson),
            (r#"{"type":"ping"} x"#, TextFault::NotJson),
            (r#"["ping"]"#, TextFault::NotJson),
            ("ping", TextFault::NotJson),
            ("", TextFault::NotJson),
        ] {
            assert_eq!(answer(text.as_bytes()), Err(fault), "{text}");
        }
    }

    #[test]
    fn captured_text_pings_get_the_captured_pong() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/openim-handshake.json");
        let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let frames = file["text_frames"].as_array().unwrap();
        let ping = frames.iter().position(|frame| frame["direction"] == "client->gateway").unwrap();
        let text = |at: usize| frames[at]["text"].as_str().unwrap();
        assert_eq!(answer(text(ping).as_bytes()), Ok(TextAnswer::Pong(text(ping + 1).into())));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(answer(&bytes).is_err());
        }

        #[test]
        fn a_pong_is_json_with_the_body(body in "[a-z<>&\\\\\" \u{2028}]{0,20}") {
            let body = serde_json::to_string(&body).unwrap();
            let Ok(TextAnswer::Pong(pong)) = answer(format!(r#"{{"type":"ping","body":{body}}}"#).as_bytes()) else {
                panic!("no pong")
            };
            let pong: serde_json::Value = serde_json::from_str(&pong).unwrap();
            prop_assert_eq!(pong["body"].to_string(), body);
        }
    }
}

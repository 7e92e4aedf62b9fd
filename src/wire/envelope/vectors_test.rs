//! Captures of real clients (`tests/vectors`): each decodes to what the file says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;

const GOB: Variant = Variant { encoding: Encoding::Gob, gzip: false };
const GOB_GZIP: Variant = Variant { encoding: Encoding::Gob, gzip: true };
const JSON: Variant = Variant { encoding: Encoding::Json, gzip: false };

fn vectors(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A field of the file; what it leaves out is zero.
fn text<'a>(parts: &'a Value, key: &str) -> &'a str {
    parts[key].as_str().unwrap_or_default()
}

fn number(parts: &Value, key: &str) -> i32 {
    i32::try_from(parts[key].as_i64().unwrap_or_default()).unwrap()
}

fn data(parts: &Value) -> Vec<u8> {
    STANDARD.decode(text(parts, "Data_base64")).unwrap()
}

fn request(parts: &Value) -> Request {
    Request {
        id: number(parts, "ReqIdentifier"),
        send_id: text(parts, "SendID").into(),
        operation_id: text(parts, "OperationID").into(),
        msg_incr: text(parts, "MsgIncr").into(),
        data: data(parts).into(),
    }
}

/// Checks every vector of a file; `plain` and `wire` are the variants of its two forms.
fn check(file: &str, plain: Variant, wire: Variant) -> (usize, usize) {
    let mut codec = Codec::default();
    let (mut requests, mut responses) = (0, 0);
    for vector in vectors(file) {
        let name = format!("{file}: {}", vector["description"]);
        let plain_bytes = match &vector["plain_text"] {
            Value::String(text) => text.clone().into_bytes(),
            _ => bytes(&vector["plain_hex"]),
        };
        for (variant, message) in [(plain, plain_bytes), (wire, bytes(&vector["wire_hex"]))] {
            if vector["direction"] == "client->gateway" {
                let expected = request(&vector["req"]);
                assert_eq!(codec.decode(variant, &message, 1 << 20), Ok(expected.clone()), "{name}");
                let again = codec.encode_request(variant, &expected);
                assert_eq!(codec.decode(variant, &again, 1 << 20), Ok(expected), "{name}");
                requests += 1;
            } else {
                let parts = &vector["resp"];
                let got = codec.decode_response(variant, &message).unwrap();
                assert_eq!(got.id, number(parts, "ReqIdentifier"), "{name}");
                assert_eq!(got.msg_incr, text(parts, "MsgIncr"), "{name}");
                assert_eq!(got.operation_id, text(parts, "OperationID"), "{name}");
                assert_eq!(got.err_code, number(parts, "ErrCode"), "{name}");
                assert_eq!(got.err_msg, text(parts, "ErrMsg"), "{name}");
                assert_eq!(got.data.unwrap_or_default(), data(parts), "{name}");
                responses += 1;
            }
        }
    }
    (requests, responses)
}

#[test]
fn captured_frames_decode_to_what_the_file_says() {
    for (file, plain, wire) in [
        ("openim-native-gob.json", GOB, GOB_GZIP),
        ("openim-native-offline-group.json", GOB, GOB_GZIP),
        ("openim-wasm-gob.json", GOB, GOB_GZIP),
        ("openim-js-json.json", JSON, JSON),
    ] {
        let (requests, responses) = check(file, plain, wire);
        assert!(requests > 0 && responses > 0, "{file}");
    }
}

#[test]
fn replies_that_sdks_accepted_decode_alike_in_both_forms() {
    let mut codec = Codec::default();
    for vector in vectors("openim-resp-variants.json") {
        let plain = codec.decode_response(GOB, &bytes(&vector["plain_hex"])).unwrap();
        let wire = codec.decode_response(GOB_GZIP, &bytes(&vector["wire_hex"])).unwrap();
        assert_eq!(plain, wire, "{}", vector["name"]);
        assert!([2001, 4242].contains(&plain.id), "{}: {}", vector["name"], plain.id);
    }
}

#[test]
fn what_we_encode_equals_what_sdks_accepted() {
    // The stub that these replies came from also wrote `Resp` with id 65: equal byte for byte.
    let mut codec = Codec::default();
    for (file, variant) in [("openim-native-gob.json", GOB), ("openim-js-json.json", JSON)] {
        for vector in vectors(file).iter().filter(|vector| vector["direction"] == "gateway->client") {
            let plain = bytes(&vector["plain_hex"]);
            let got = codec.decode_response(variant, &plain).unwrap();
            let response = Response {
                id: got.id,
                msg_incr: &got.msg_incr,
                operation_id: &got.operation_id,
                err_code: got.err_code,
                err_msg: &got.err_msg,
                data: got.data.as_deref(),
            };
            let frame = codec.encode(variant, &response);
            assert!(frame.bytes().ends_with(&plain), "{file}: {}", vector["description"]);
        }
    }
}

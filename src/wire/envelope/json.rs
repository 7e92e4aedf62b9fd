//! Envelopes as JSON, as `sdkType=js` speaks it (spec 2.3).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::value::RawValue;

use super::parts::{Field, Parts};
use super::{Request, Response};
use crate::wire::gojson::{self, WrongType};

/// As Go decodes: padding is needed, bits after the last byte need not be zero.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Decodes the fields `known` of one object; others are skipped. `None`: not as Go would accept it.
pub(super) fn decode<'a>(text: &'a str, known: &[Field]) -> Option<Parts<'a>> {
    let mut parts = Parts::default();
    let outcome = gojson::fields(text, |key, value| {
        match known.iter().find(|field| field.json_name().eq_ignore_ascii_case(key)) {
            Some(field) => set(&mut parts, *field, value),
            None => Ok(()),
        }
    });
    outcome.is_ok().then_some(parts)
}

/// Takes one value over.
fn set<'a>(parts: &mut Parts<'a>, field: Field, value: &'a RawValue) -> Result<(), WrongType> {
    if let Some(number) = parts.number(field) {
        *number = gojson::integer(value)?.unwrap_or(*number);
    } else if let Some(text) = parts.text(field) {
        if let Some(new) = gojson::string(value)? {
            *text = new;
        }
    } else {
        // For Go `null` empties a slice, but leaves a number or a string as it was.
        parts.data = data(value)?.map(Cow::Owned);
    }
    Ok(())
}

/// `data`: base64, or an array of numbers 0 to 255 (`null` among them is 0).
fn data(value: &RawValue) -> Result<Option<Vec<u8>>, WrongType> {
    if value.get().starts_with('[') {
        let numbers: Vec<Option<u8>> = serde_json::from_str(value.get()).map_err(|_| WrongType)?;
        return Ok(Some(numbers.into_iter().map(Option::unwrap_or_default).collect()));
    }
    let Some(mut text) = gojson::string(value)? else {
        return Ok(None);
    };
    if memchr::memchr2(b'\r', b'\n', text.as_bytes()).is_some() {
        text = Cow::Owned(text.replace(['\r', '\n'], ""));
    }
    LENIENT_BASE64.decode(text.as_bytes()).map(Some).map_err(|_| WrongType)
}

/// Appends a reply or push, keys in the order of spec 2.1.
pub(super) fn encode_response(out: &mut String, response: &Response<'_>) {
    write_number(out, "{\"reqIdentifier\":", response.id);
    write_text(out, ",\"msgIncr\":", response.msg_incr);
    write_text(out, ",\"operationID\":", response.operation_id);
    write_number(out, ",\"errCode\":", response.err_code);
    write_text(out, ",\"errMsg\":", response.err_msg);
    write_data(out, response.data);
}

/// Appends a request, as a client does.
pub(super) fn encode_request(out: &mut String, request: &Request) {
    write_number(out, "{\"reqIdentifier\":", request.id);
    write_text(out, ",\"token\":", "");
    write_text(out, ",\"sendID\":", &request.send_id);
    write_text(out, ",\"operationID\":", &request.operation_id);
    write_text(out, ",\"msgIncr\":", &request.msg_incr);
    write_data(out, Some(&request.data));
}

fn write_number(out: &mut String, key: &str, number: i32) {
    out.push_str(key);
    out.push_str(&number.to_string());
}

fn write_text(out: &mut String, key: &str, text: &str) {
    out.push_str(key);
    gojson::write_string(out, text);
}

fn write_data(out: &mut String, data: Option<&[u8]>) {
    out.push_str(",\"data\":");
    match data {
        Some(data) => {
            out.push('"');
            STANDARD.encode_string(data, out);
            out.push_str("\"}");
        }
        None => out.push_str("null}"),
    }
}

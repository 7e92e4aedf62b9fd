//! The one argument that holds all others: `v`, unpadded URL-safe base64 of JSON (spec 1.2, A.4).

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Arguments, Refusal};
use crate::wire::gojson;

/// As Go decodes: no padding, bits after the last byte need not be zero.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Check 2'. Missing keys are zero values, also `background`.
pub(super) fn arguments(v: &str) -> Result<Arguments, Refusal> {
    let text = v.replace(['\r', '\n'], ""); // Go's decoder passes over them
    let json = LENIENT_BASE64.decode(text).map_err(|_| Refusal::arguments("data is not base64"))?;
    let json = String::from_utf8_lossy(&json);
    let mut arguments = Arguments::default();
    let outcome = gojson::fields(&json, |key, value| {
        let text = match key.to_ascii_lowercase().as_str() {
            "token" => &mut arguments.token,
            "userid" => &mut arguments.user,
            "operationid" => &mut arguments.operation_id,
            "compression" => &mut arguments.compression,
            "sdktype" => &mut arguments.sdk_type,
            "platformid" => {
                arguments.platform = gojson::integer(value)?.unwrap_or(arguments.platform);
                return Ok(());
            }
            "sendresponse" => {
                arguments.wants_response = gojson::boolean(value)?.unwrap_or(arguments.wants_response);
                return Ok(());
            }
            "background" => return gojson::boolean(value).map(drop), // has no effect, but a type
            _ => return Ok(()),
        };
        if let Some(new) = gojson::string(value)? {
            *text = new.into_owned();
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(arguments),
        Err(fault) => Err(Refusal::arguments(&format!("data is not json, info={fault}"))),
    }
}

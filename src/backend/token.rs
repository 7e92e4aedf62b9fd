//! Login tokens: JWTs as OpenIM's auth service issues and checks them (spec 7.1).
//!
//! Not here: which tokens were kicked (`embedded::token_states`, `openim::tokens`). No clock: expiry is judged by the
//! caller's `now`, so the JWT library's own time checks are off. No error carries a token.

mod mac;

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, Validation};
use serde::{Deserialize, Serialize};

use crate::hub::upstream::UpstreamError;
use crate::ids::Platform;
use crate::time::UnixMs;
use mac::Hs256;

/// `{"alg":"HS256","typ":"JWT"}`: written in this order by OpenIM, and so by us.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// The same as the first part of a token. Nearly every token has it, and needs neither a parser for it nor the JWT
/// library: at 25 us of CPU for a whole login, the library's way took 3 of them.
const HEADER_PART: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// OpenIM dates tokens back, so that a verifier whose clock is behind accepts them (spec 7.1).
const BACKDATED_S: i64 = 5;

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `UserID`.
    pub user: Box<str>,
    /// `PlatformID`, as it stands there: not necessarily 1 to 11.
    pub platform: i32,
    /// `exp` in seconds since the epoch. `None`: never expires.
    pub expires_s: Option<i64>,
}

/// Why a token is refused. Always the client's (or its issuer's) fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// Not three parts of base64url JSON with claims of the expected types.
    Malformed,
    /// `exp` is not in the future.
    Expired,
    /// `nbf` is in the future.
    NotYetValid,
    /// Signed with another key or not with HS256, HS384 or HS512; or `iat` is in the future.
    Unknown,
    /// Good, but marked by a kick.
    Kicked,
}

impl TokenFault {
    /// As clients see it (spec 7.5).
    pub fn to_upstream(self) -> UpstreamError {
        let (code, message) = match self {
            Self::Expired => (1501, "TokenExpiredError"),
            Self::Malformed => (1503, "TokenMalformedError"),
            Self::NotYetValid => (1504, "TokenNotValidYetError"),
            Self::Unknown => (1505, "TokenUnknownError"),
            Self::Kicked => (1506, "TokenKickedError"),
        };
        UpstreamError { code, message: message.into(), detail: "".into() }
    }
}

/// Why no token was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueFault {
    /// The lifetime is below one second, or ends after the end of time.
    Lifetime,
    /// The library refused to encode or sign; not expected to happen.
    Encoding,
}

/// The claims on the wire. A missing one is zero, as Go's decoder has it.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    #[serde(rename = "UserID", default)]
    user: Box<str>,
    #[serde(rename = "PlatformID", default)]
    platform: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
}

/// A token for `user` on `platform`, good for `ttl_s` seconds from `now`.
///
/// # Errors
/// See [`IssueFault`].
pub fn issue(
    secret: &str,
    user: &str,
    platform: Platform,
    now: UnixMs,
    ttl_s: i64,
) -> Result<String, IssueFault> {
    let now_s = now.0.div_euclid(1000);
    let exp = now_s.checked_add(ttl_s).filter(|_| ttl_s >= 1).ok_or(IssueFault::Lifetime)?;
    let claims = WireClaims {
        user: user.into(),
        platform: platform.id(),
        exp: Some(exp),
        nbf: None,
        iat: Some(now_s.saturating_sub(BACKDATED_S)),
    };
    let payload = serde_json::to_vec(&claims).map_err(|_| IssueFault::Encoding)?;
    let mut token = BASE64_URL_SAFE_NO_PAD.encode(HEADER);
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let key = mac::encoding_key(secret);
    let signature = jsonwebtoken::crypto::sign(token.as_bytes(), &key, Algorithm::HS256)
        .map_err(|_| IssueFault::Encoding)?;
    token.push('.');
    token.push_str(&signature);
    Ok(token)
}

/// As [`Verifier::verify`] for a single token.
///
/// # Errors
/// See [`TokenFault`].
pub fn verify(secret: &str, token: &str, now: UnixMs) -> Result<Claims, TokenFault> {
    Verifier::new(secret).verify(token, now)
}

/// Checks tokens that were signed with one secret.
#[derive(Clone)]
pub struct Verifier {
    secret: Box<str>,
    hs256: Hs256,
}

impl Verifier {
    /// For tokens that are signed with this secret.
    pub fn new(secret: &str) -> Self {
        Self { secret: secret.into(), hs256: Hs256::new(secret) }
    }

    /// Checks shape, signature and times, in this order.
    ///
    /// # Errors
    /// See [`TokenFault`]; never [`TokenFault::Kicked`], since no state is asked here.
    pub fn verify(&self, token: &str, now: UnixMs) -> Result<Claims, TokenFault> {
        let claims = well_formed(token)?;
        // What is left to go wrong is the algorithm or the signature: both are 1505.
        if !self.has_signed(token) {
            return Err(TokenFault::Unknown);
        }
        // A moment counts as reached in its first millisecond.
        let reached = |seconds: i64| seconds.saturating_mul(1000) <= now.0;
        if claims.exp.is_some_and(reached) {
            return Err(TokenFault::Expired);
        }
        if claims.nbf.is_some_and(|nbf| !reached(nbf)) {
            return Err(TokenFault::NotYetValid);
        }
        if claims.iat.is_some_and(|iat| !reached(iat)) {
            return Err(TokenFault::Unknown);
        }
        Ok(Claims { user: claims.user, platform: claims.platform, expires_s: claims.exp })
    }

    /// Whether the last part signs the others.
    fn has_signed(&self, token: &str) -> bool {
        match token.rsplit_once('.') {
            Some((signed, signature)) if signed.split('.').next() == Some(HEADER_PART) => {
                let mut mac = [0; 32];
                BASE64_URL_SAFE_NO_PAD.decode_slice(signature, &mut mac) == Ok(mac.len())
                    && self.hs256.has_signed(signed, &mac)
            }
            _ => {
                let key = mac::decoding_key(&self.secret);
                jsonwebtoken::decode::<serde::de::IgnoredAny>(token, &key, &signature_only()).is_ok()
            }
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("secret", &"(hidden)").finish_non_exhaustive()
    }
}

/// The claims of a token of the right shape; its signature is not looked at.
fn well_formed(token: &str) -> Result<WireClaims, TokenFault> {
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenFault::Malformed);
    };
    if header != HEADER_PART {
        json::<serde_json::Map<String, serde_json::Value>>(header)?;
    }
    json(payload)
}

/// One base64url part, as a value.
fn json<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenFault> {
    let text = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)?;
    serde_json::from_slice(&text).map_err(|_| TokenFault::Malformed)
}

/// HS256, HS384 and HS512, and no claims: these are checked against the caller's `now`.
fn signature_only() -> Validation {
    let mut validation = Validation::new_for_family(AlgorithmFamily::Hmac);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec A.5.
    const VECTOR: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
        eyJVc2VySUQiOiJ1MSIsIlBsYXRmb3JtSUQiOjEsImV4cCI6MTgwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwfQ.\
        di_ejGECUyuK_JdnwMaTqPAtI6-afGebnLYJcHAh-S0";
    const SECRET: &str = "openIM123";

    fn signed(algorithm: Algorithm, claims: &serde_json::Value) -> String {
        let key = mac::encoding_key(SECRET);
        jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), claims, &key).unwrap()
    }

    fn at(seconds: i64) -> UnixMs {
        UnixMs(seconds * 1000)
    }

    #[test]
    fn the_vector_of_the_specification_is_issued_and_accepted() {
        let issued = issue(SECRET, "u1", Platform::IOS, at(1_700_000_005), 99_999_995).unwrap();
        assert_eq!(issued, VECTOR);
        let claims = verify(SECRET, VECTOR, at(1_750_000_000)).unwrap();
        assert_eq!(claims, Claims { user: "u1".into(), platform: 1, expires_s: Some(1_800_000_000) });
    }

    #[test]
    fn times_are_judged_by_the_given_now() {
        let table = [
            (at(1_800_000_000).0 - 1, Ok(())),
            (at(1_800_000_000).0, Err(TokenFault::Expired)),
            (at(1_700_000_000).0, Ok(())),
            (at(1_700_000_000).0 - 1, Err(TokenFault::Unknown)), // issued in the future
        ];
        for (now, expected) in table {
            assert_eq!(verify(SECRET, VECTOR, UnixMs(now)).map(|_| ()), expected, "{now}");
        }
    }

    #[test]
    fn the_usual_header_is_judged_as_the_library_judges_it() {
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(HEADER), HEADER_PART);
        let (signed, signature) = VECTOR.rsplit_once('.').unwrap();
        let key = mac::decoding_key(SECRET);
        for token in [
            VECTOR.to_owned(),
            format!("{signed}."),
            format!("{signed}.{signature}="),
            format!("{signed}.{}", &signature[1..]),
            format!("{signed}.{signature}AA"),
            format!("{signed}.{}1", &signature[..signature.len() - 1]), // bits that no byte has
            format!("{signed}x.{signature}"),
        ] {
            let library =
                jsonwebtoken::decode::<serde::de::IgnoredAny>(&token, &key, &signature_only()).is_ok();
            assert_eq!(Verifier::new(SECRET).has_signed(&token), library, "{token}");
            assert_eq!(library, token == VECTOR, "{token}");
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let good = serde_json::json!({"UserID": "u1", "PlatformID": 1, "exp": 200, "nbf": 50});
        let token = signed(Algorithm::HS256, &good);
        let (head_and_claims, _) = token.rsplit_once('.').unwrap();
        let unsigned = format!(
            "{}.{}.",
            BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
            BASE64_URL_SAFE_NO_PAD.encode(good.to_string())
        );
        let table = [
            (token.clone(), 100, Ok(())),
            (signed(Algorithm::HS384, &good), 100, Ok(())),
            (signed(Algorithm::HS512, &good), 100, Ok(())),
            (token.clone(), 49, Err(TokenFault::NotYetValid)),
            (token.clone(), 200, Err(TokenFault::Expired)),
            (format!("{head_and_claims}.AAAA"), 100, Err(TokenFault::Unknown)),
            (format!("{head_and_claims}.???"), 100, Err(TokenFault::Unknown)),
            (unsigned, 100, Err(TokenFault::Unknown)),
            (head_and_claims.to_owned(), 100, Err(TokenFault::Malformed)),
            (format!("{token}.x"), 100, Err(TokenFault::Malformed)),
            (String::new(), 100, Err(TokenFault::Malformed)),
            ("a.b.c".to_owned(), 100, Err(TokenFault::Malformed)),
            (signed(Algorithm::HS256, &serde_json::json!({"UserID": 7})), 100, Err(TokenFault::Malformed)),
            (signed(Algorithm::HS256, &serde_json::json!({"UserID": "u1"})), 100, Ok(())),
        ];
        for (token, now, expected) in table {
            assert_eq!(verify(SECRET, &token, at(now)).map(|_| ()), expected, "{token} at {now}");
        }
        assert_eq!(verify("another key", &token, at(100)), Err(TokenFault::Unknown));
    }

    #[test]
    fn a_lifetime_must_be_a_time() {
        for ttl in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(issue(SECRET, "u1", Platform::WEB, at(1), ttl), Err(IssueFault::Lifetime), "{ttl}");
        }
    }
}

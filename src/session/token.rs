//! The token of a registered session, packed. Policy 4 and `GetUsersOnlineStatus` want its text (spec 4.4, 8.2), so a
//! hash would not do; but all of a token as OpenIM issues it, other than three times and its signature, is known
//! from the session: 48 bytes instead of some 250.
//!
//! What always holds: what was packed comes back to the byte, since packing tries it and keeps the text of any token
//! that would not. Not here: whether a token is good (`backend`).

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::ids::Platform;

/// `{"alg":"HS256","typ":"JWT"}` and the dot after it: OpenIM writes no other (spec 7.1).
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackedToken {
    /// Issued by OpenIM for the session's user and platform. Seconds since the epoch.
    OpenIm {
        /// `exp`.
        expires_s: u32,
        /// `nbf`; 0: it has none.
        not_before_s: u32,
        /// `iat`.
        issued_s: u32,
        /// The last part of the token.
        signature: [u8; 32],
    },
    /// Anything else.
    Text(Box<str>),
}

/// The claims that are not known from the session.
#[derive(Deserialize)]
struct Times {
    exp: u32,
    #[serde(default)]
    nbf: u32,
    iat: u32,
}

impl PackedToken {
    /// Packs the token of a login of this user on this platform.
    pub fn pack(token: &str, user: &str, platform: Platform) -> Self {
        parse(token)
            .filter(|packed| *packed.text(user, platform) == *token)
            .unwrap_or_else(|| Self::Text(token.into()))
    }

    /// The token; `user` and `platform` are those that it was packed with.
    pub fn text(&self, user: &str, platform: Platform) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::OpenIm { expires_s, not_before_s, issued_s, signature } => {
                let (user, platform) = (serde_json::Value::from(user), platform.id());
                let not_before = match not_before_s {
                    0 => String::new(),
                    seconds => format!("\"nbf\":{seconds},"),
                };
                let claims = format!(
                    r#"{{"UserID":{user},"PlatformID":{platform},"exp":{expires_s},{not_before}"iat":{issued_s}}}"#
                );
                let mut text = String::with_capacity(256);
                text.push_str(HEADER);
                BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut text);
                text.push('.');
                BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
                Cow::Owned(text)
            }
        }
    }
}

fn parse(token: &str) -> Option<PackedToken> {
    let (claims, signature) = token.strip_prefix(HEADER)?.split_once('.')?;
    let mut bytes = [0; 32];
    // One byte more than is there would not decode; less is seen by the length.
    let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes).ok()?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let Times { exp, nbf, iat } = serde_json::from_slice(&claims).ok().filter(|_| decoded == bytes.len())?;
    Some(PackedToken::OpenIm { expires_s: exp, not_before_s: nbf, issued_s: iat, signature: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    fn token(claims: &str) -> String {
        format!("{HEADER}{}.{SIGNATURE}", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    fn packs(token: &str, user: &str) -> bool {
        let packed = PackedToken::pack(token, user, Platform::WEB);
        assert_eq!(packed.text(user, Platform::WEB), token);
        matches!(packed, PackedToken::OpenIm { .. })
    }

    #[test]
    fn openims_tokens_are_packed_and_come_back() {
        for claims in [
            r#"{"UserID":"u1","PlatformID":5,"exp":1707776000,"iat":1699999995}"#,
            r#"{"UserID":"u1","PlatformID":5,"exp":1707776000,"nbf":1699999700,"iat":1700000000}"#,
        ] {
            assert!(packs(&token(claims), "u1"), "{claims}");
        }
        let quoted = r#"{"UserID":"\"名\"","PlatformID":5,"exp":1,"iat":1}"#;
        assert!(packs(&token(quoted), "\"名\""));
    }

    #[test]
    fn a_token_that_would_not_come_back_is_kept_as_it_is() {
        for claims in [
            "",
            "{}",
            r#"{"UserID":"u1","PlatformID":5,"exp":1707776000,"iat":1.5}"#,
            r#"{"UserID":"u1","PlatformID":5,"exp":99999999999,"iat":1}"#,
            r#"{"UserID":"u1","PlatformID":5,"iat":1,"exp":1}"#,
            r#"{"UserID":"u1","PlatformID":5, "exp":1,"iat":1}"#,
            r#"{"UserID":"u1","PlatformID":5,"exp":1,"nbf":0,"iat":1}"#,
            r#"{"UserID":"u1","PlatformID":5,"exp":1,"iat":1,"jti":"x"}"#,
            r#"{"UserID":"u2","PlatformID":5,"exp":1,"iat":1}"#,
            r#"{"UserID":"u1","PlatformID":1,"exp":1,"iat":1}"#,
        ] {
            assert!(!packs(&token(claims), "u1"), "{claims}");
        }
        let good = token(r#"{"UserID":"u1","PlatformID":5,"exp":1,"iat":1}"#);
        assert!(packs(&good, "u1"));
        for text in
            ["", "t", "a.b.c", &good[1..], &good[..good.len() - 1], &format!("{good}A"), &format!("{good}.x")]
        {
            assert!(!packs(text, "u1"), "{text}");
        }
    }
}

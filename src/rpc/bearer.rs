//! Bearer tokens (RFC 6750 section 2.1) of callers, judged in constant time: `http.token` and `rpc.token`.
//!
//! What always holds: the token itself is not kept here, only its tag, and nothing of this module prints either.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Token;

/// Not a secret: the tag only makes tokens of any length comparable by `hmac`'s constant-time check.
const KEY: &[u8] = b"pinion bearer token";
const TAG_BYTES: usize = 32;

/// The token that callers must send.
pub(super) struct Bearer {
    keyed: Hmac<Sha256>,
    tag: [u8; TAG_BYTES],
}

/// What an `Authorization` header amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The token.
    Right,
    /// Another one.
    Wrong,
    /// No header, or none of the scheme `Bearer`.
    Nothing,
}

impl Bearer {
    /// Expects this token.
    pub(super) fn of(token: &Token) -> Self {
        let keyed = Hmac::<Sha256>::new_from_slice(KEY).expect("HMAC takes keys of any length");
        let tag = keyed.clone().chain_update(token.secret()).finalize().into_bytes().into();
        Self { keyed, tag }
    }

    /// Judges the value of an `Authorization` header.
    pub(super) fn judge(&self, header: Option<&[u8]>) -> Sent {
        let Some(sent) = header.and_then(token_in) else {
            return Sent::Nothing;
        };
        match self.keyed.clone().chain_update(sent).verify_slice(&self.tag) {
            Ok(()) => Sent::Right,
            Err(_) => Sent::Wrong,
        }
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110 section 11.1).
fn token_in(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_of_the_right_scheme_is_right() {
        let bearer = Bearer::of(&Token::parse("0123456789abcdef").unwrap());
        for (header, want) in [
            (None, Sent::Nothing),
            (Some(""), Sent::Nothing),
            (Some("Bea"), Sent::Nothing),
            (Some("0123456789abcdef"), Sent::Nothing),
            (Some("Basic 0123456789abcdef"), Sent::Nothing),
            (Some("Bearer0123456789abcdef"), Sent::Nothing),
            (Some("Bearer "), Sent::Wrong),
            (Some("Bearer 0123456789abcde"), Sent::Wrong),
            (Some("Bearer 0123456789abcdeF"), Sent::Wrong),
            (Some("Bearer 0123456789abcdef0"), Sent::Wrong),
            (Some("Bearer 0123456789abcdef 0123456789abcdef"), Sent::Wrong),
            (Some("Bearer 0123456789abcdef"), Sent::Right),
            (Some("bEARER  0123456789abcdef "), Sent::Right),
        ] {
            assert_eq!(bearer.judge(header.map(str::as_bytes)), want, "{header:?}");
        }
    }
}

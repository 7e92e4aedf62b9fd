//! Who may use `/v1/*` on the admin port: callers on this machine, and others with the token (`http.token`).
//!
//! Health and metrics stay open: they name no user. The rule is a pure function of the caller's address and its
//! `Authorization` header. A proxy on this machine that lets others in is a caller on this machine: it must do its own
//! asking.

use std::net::{IpAddr, SocketAddr};

use super::bearer::{Bearer, Sent};

/// Why a caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// No token is configured, so nobody from elsewhere may.
    NoTokenSet,
    /// The caller named none, or a wrong one.
    WrongToken,
}

impl Denial {
    /// For the caller.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NoTokenSet => {
                "403: /v1/* answers callers on this machine only; to let others in, set http.token and send it as \
                 `Authorization: Bearer TOKEN`\n"
            }
            Self::WrongToken => {
                "401: /v1/* needs `Authorization: Bearer TOKEN` with the gateway's http.token, or a caller on this \
                 machine\n"
            }
        }
    }
}

/// Judges a caller by where it is and by the `Authorization` header that it sent.
pub(super) fn judge(peer: SocketAddr, sent: Option<&[u8]>, token: Option<&Bearer>) -> Result<(), Denial> {
    if is_here(peer.ip()) {
        return Ok(());
    }
    let token = token.ok_or(Denial::NoTokenSet)?;
    if token.judge(sent) == Sent::Right { Ok(()) } else { Err(Denial::WrongToken) }
}

/// A dual-stack listener sees 127.0.0.1 as ::ffff:127.0.0.1.
fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Token;

    #[test]
    fn callers_from_elsewhere_need_the_token() {
        const TOKEN: &str = "0123456789abcdef";
        const GOOD: &[u8] = b"Bearer 0123456789abcdef";
        for (peer, sent, token, want) in [
            ("127.0.0.1:9", None, None, Ok(())),
            ("127.0.0.1:9", None, Some(TOKEN), Ok(())),
            ("127.0.0.1:9", Some(&b"Bearer wrong"[..]), Some(TOKEN), Ok(())),
            ("[::1]:9", None, None, Ok(())),
            ("[::ffff:127.0.0.1]:9", None, None, Ok(())),
            ("192.0.2.7:9", None, None, Err(Denial::NoTokenSet)),
            ("192.0.2.7:9", Some(GOOD), None, Err(Denial::NoTokenSet)),
            ("192.0.2.7:9", None, Some(TOKEN), Err(Denial::WrongToken)),
            ("192.0.2.7:9", Some(GOOD), Some(TOKEN), Ok(())),
            ("192.0.2.7:9", Some(b"bEARER 0123456789abcdef"), Some(TOKEN), Ok(())),
            ("192.0.2.7:9", Some(b"Bearer 0123456789abcdeF"), Some(TOKEN), Err(Denial::WrongToken)),
            ("192.0.2.7:9", Some(b"Bearer 0123456789abcde"), Some(TOKEN), Err(Denial::WrongToken)),
            ("192.0.2.7:9", Some(b"Bearer "), Some(TOKEN), Err(Denial::WrongToken)),
            ("192.0.2.7:9", Some(b"Bea"), Some(TOKEN), Err(Denial::WrongToken)),
            ("192.0.2.7:9", Some(b"0123456789abcdef"), Some(TOKEN), Err(Denial::WrongToken)),
            ("192.0.2.7:9", Some(b"Basic 0123456789abcdef"), Some(TOKEN), Err(Denial::WrongToken)),
            ("[::ffff:192.0.2.7]:9", None, None, Err(Denial::NoTokenSet)),
            ("[2001:db8::1]:9", Some(GOOD), Some(TOKEN), Ok(())),
            ("[fe80::1]:9", None, Some(TOKEN), Err(Denial::WrongToken)),
            ("0.0.0.0:9", None, None, Err(Denial::NoTokenSet)),
        ] {
            let bearer = token.map(|text| Bearer::of(&Token::parse(text).unwrap()));
            assert_eq!(
                judge(peer.parse().unwrap(), sent, bearer.as_ref()),
                want,
                "{peer} {sent:?} {token:?}"
            );
        }
    }
}

//! Which tokens a kick has ended (spec 7.2), in memory.
//!
//! Only tokens that a login showed, or that a kick named, are known; every other good token counts as normal. So
//! a token that was issued but not yet used survives `InvalidateToken`: OpenIM would refuse it (1507 or 1506), a
//! development backend that keeps no list of issued tokens cannot. A restart forgets all marks.
//!
//! What always holds: at most `limits::EMBEDDED_TOKENS_MAX` states; `expiry` names exactly the tokens of `logins` (one
//! that another node ended before it was seen here twice, perhaps).
//! Tokens and user ids are kept as digests, so a state that was written out opens no door. A token costs about 130
//! bytes: two entries of two flat sets, without an allocation of its own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use crate::backend::token::Claims;
use crate::hub::cluster::TokenDigest;
use crate::limits;
use crate::time::UnixMs;

/// The first 16 bytes of a SHA-1: a name, not a proof; the signature is the proof.
type Digest = [u8; 16];

/// How long a token is remembered that another node has ended and this one has not seen, s: OpenIM's default for the
/// life of a token (`tokenPolicy.expire`, 90 days).
const UNSEEN_KEPT_S: i64 = 90 * 24 * 3600;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenStates {
    /// By (user, platform), then token; each pair once.
    logins: BTreeSet<Known>,
    /// (`exp`, (user, platform), token), soonest first.
    expiry: BTreeSet<(i64, Digest, Digest)>,
}

/// A token that a login showed or a kick named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Known {
    /// (user, platform).
    login: Digest,
    token: Digest,
    kicked: bool,
}

impl TokenStates {
    /// Remembers a token that is good by signature and time; whether a kick has marked it.
    pub(super) fn seen(&mut self, now: UnixMs, token: &str, claims: &Claims) -> Standing {
        self.forget_expired(now);
        let name = self.remember(token, claims);
        let kicked = self.logins.contains(&Known { kicked: true, ..name });
        if !kicked {
            self.logins.insert(name);
        }
        self.keep_bound();
        if kicked { Standing::Kicked } else { Standing::Normal }
    }

    /// Marks one token (policy 4).
    pub(super) fn kick(&mut self, now: UnixMs, token: &str, claims: &Claims) {
        self.forget_expired(now);
        let name = self.remember(token, claims);
        self.mark(name);
        self.keep_bound();
    }

    /// Marks tokens that another node has ended, known here or not.
    pub(super) fn kick_named(&mut self, now: UnixMs, login: (&str, i32), tokens: &[TokenDigest]) {
        self.forget_expired(now);
        let login = login_digest(login);
        for TokenDigest(token) in tokens.iter().copied() {
            let known = [false, true].map(|kicked| Known { login, token, kicked });
            if !known.iter().any(|known| self.logins.contains(known)) {
                self.expiry.insert((now.0.div_euclid(1000) + UNSEEN_KEPT_S, login, token));
            }
            self.mark(Known { login, token, kicked: false });
        }
        self.keep_bound();
    }

    /// What other nodes call a token.
    pub(super) fn name(token: &str) -> TokenDigest {
        TokenDigest(digest(&[token]))
    }

    /// Marks every known token of the user on the platform but one (policies 1 and 5). Gives those that were not
    /// marked before.
    pub(super) fn invalidate(
        &mut self,
        now: UnixMs,
        login: (&str, i32),
        TokenDigest(preserved): TokenDigest,
    ) -> Vec<TokenDigest> {
        self.forget_expired(now);
        let login = login_digest(login);
        let first = Known { login, token: Digest::default(), kicked: false };
        let known: Vec<Known> =
            self.logins.range(first..).take_while(|k| k.login == login).copied().collect();
        let ended = known.into_iter().filter(|known| known.token != preserved && !known.kicked);
        let ended: Vec<Known> = ended.collect();
        ended.iter().for_each(|known| self.mark(*known));
        ended.into_iter().map(|known| TokenDigest(known.token)).collect()
    }

    /// Notes when a token expires; gives its name, unmarked.
    fn remember(&mut self, token: &str, claims: &Claims) -> Known {
        let login = login_digest((&claims.user, claims.platform));
        let token = digest(&[token]);
        self.expiry.insert((claims.expires_s.unwrap_or(i64::MAX), login, token));
        Known { login, token, kicked: false }
    }

    fn mark(&mut self, known: Known) {
        self.logins.remove(&Known { kicked: false, ..known });
        self.logins.insert(Known { kicked: true, ..known });
    }

    fn forget_expired(&mut self, now: UnixMs) {
        let now_s = now.0.div_euclid(1000);
        while self.expiry.first().is_some_and(|(expires_s, ..)| *expires_s <= now_s) {
            self.forget_first();
        }
    }

    fn keep_bound(&mut self) {
        while self.expiry.len() > limits::EMBEDDED_TOKENS_MAX {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, login, token)) = self.expiry.pop_first() else {
            return;
        };
        for kicked in [false, true] {
            self.logins.remove(&Known { login, token, kicked });
        }
    }
}

/// What is remembered of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Usable.
    Normal,
    /// Ended by a kick: 1506.
    Kicked,
}

fn login_digest((user, platform): (&str, i32)) -> Digest {
    digest(&[user, &platform.to_string()])
}

/// Each part with its length in front, so that no two lists of parts look the same.
fn digest(parts: &[&str]) -> Digest {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().first_chunk().copied().unwrap_or_default() // 20 bytes have 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Kicked, Normal};

    fn claims(user: &str, platform: i32, expires_s: i64) -> Claims {
        Claims { user: user.into(), platform, expires_s: Some(expires_s) }
    }

    #[test]
    fn invalidation_marks_the_known_tokens_of_one_login_but_the_preserved() {
        let mut states = TokenStates::default();
        let now = UnixMs(0);
        for (token, user, platform) in [("t1", "a", 1), ("t2", "a", 1), ("t3", "a", 2), ("t4", "b", 1)] {
            assert_eq!(states.seen(now, token, &claims(user, platform, 10)), Normal);
        }
        let ended = states.invalidate(now, ("a", 1), TokenStates::name("t2"));
        assert_eq!(ended, [TokenStates::name("t1")]);
        assert_eq!(states.invalidate(now, ("a", 1), TokenStates::name("t2")), [], "told once");
        for (token, user, platform, standing) in [
            ("t1", "a", 1, Kicked),
            ("t2", "a", 1, Normal),
            ("t3", "a", 2, Normal),
            ("t4", "b", 1, Normal),
            ("t5", "a", 1, Normal), // not seen before: see the module's documentation
        ] {
            assert_eq!(states.seen(now, token, &claims(user, platform, 10)), standing, "{token}");
        }
    }

    #[test]
    fn a_named_token_is_marked_even_if_no_login_showed_it() {
        let mut states = TokenStates::default();
        states.kick(UnixMs(0), "t1", &claims("a", 1, 10));
        assert_eq!(states.seen(UnixMs(0), "t1", &claims("a", 1, 10)), Kicked);
        assert_eq!(states.seen(UnixMs(0), "t2", &claims("a", 1, 10)), Normal);
    }

    #[test]
    fn tokens_that_another_node_ended_are_refused_seen_here_or_not() {
        let mut states = TokenStates::default();
        let (now, later) = (UnixMs(0), UnixMs((UNSEEN_KEPT_S + 1) * 1000));
        assert_eq!(states.seen(now, "seen", &claims("a", 1, 10)), Normal);
        states.kick_named(now, ("a", 1), &["seen", "unseen"].map(TokenStates::name));
        for token in ["seen", "unseen"] {
            assert_eq!(states.seen(now, token, &claims("a", 1, 10)), Kicked, "{token}");
            assert_eq!(states.seen(now, token, &claims("a", 2, 10)), Normal, "{token} of another platform");
        }
        states.invalidate(later, ("a", 1), TokenStates::name(""));
        assert_eq!(states, TokenStates::default(), "nothing stays for ever");
    }

    #[test]
    fn expired_tokens_leave_nothing_behind() {
        let mut states = TokenStates::default();
        states.kick(UnixMs(0), "t1", &claims("a", 1, 10));
        states.invalidate(UnixMs(9_999), ("b", 1), TokenStates::name(""));
        assert_ne!(states, TokenStates::default());
        states.invalidate(UnixMs(10_000), ("b", 1), TokenStates::name(""));
        assert_eq!(states, TokenStates::default());
    }

    #[test]
    fn beyond_the_limit_the_token_that_expires_first_is_forgotten() {
        let mut states = TokenStates::default();
        states.kick(UnixMs(0), "first", &claims("a", 1, 1));
        for n in 1..limits::EMBEDDED_TOKENS_MAX {
            states.seen(UnixMs(0), &n.to_string(), &claims("a", 1, 2));
        }
        assert_eq!(states.seen(UnixMs(0), "first", &claims("a", 1, 1)), Kicked);
        states.seen(UnixMs(0), "one more", &claims("a", 1, 2));
        assert_eq!(states.expiry.len(), limits::EMBEDDED_TOKENS_MAX);
        assert_eq!(states.seen(UnixMs(0), "first", &claims("a", 1, 1)), Normal);
    }
}

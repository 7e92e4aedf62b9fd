//! Answers the questions about tokens: is this one good, and which ones does a kick end.
//!
//! They concern one user each, and a user's logins and kicks are all decided on the shard that owns him. So each shard
//! has a check of its own and asks nobody: the way to an rpc thread and back, two wakeups and a turn, cost a third of
//! the CPU of a login. Nothing is shared: the marks of a user's tokens are on his shard and nowhere else. (A token
//! that is shown in another user's name is judged where that user lives, which knows no mark of it: it is refused as
//! another's, 1502, and not as kicked, 1506.)
//!
//! Not here: conversations and presence, of which there is one for the node (`Embedded`, on an rpc thread). It answers
//! about tokens as well, for those who have no check of their own.

use bytes::Bytes;

use super::token_states::{Standing, TokenStates};
use crate::backend::token::{TokenFault, Verifier};
use crate::hub::upstream::{UpstreamError, UpstreamOutcome, UpstreamRequest};
use crate::time::UnixMs;

/// See the module's documentation.
#[derive(Debug)]
pub struct TokenCheck {
    verifier: Verifier,
    states: TokenStates,
}

impl TokenCheck {
    /// Accepts tokens that are signed with this secret, and knows of no kick.
    pub fn new(secret: &str) -> Self {
        Self { verifier: Verifier::new(secret), states: TokenStates::default() }
    }

    /// Answers at once. `None`: it is not about tokens.
    pub fn answer(&mut self, now: UnixMs, request: &UpstreamRequest) -> Option<UpstreamOutcome> {
        answer(&self.verifier, &mut self.states, now, request)
    }
}

/// As [`TokenCheck::answer`], with a state that is kept elsewhere.
pub(super) fn answer(
    verifier: &Verifier,
    states: &mut TokenStates,
    now: UnixMs,
    request: &UpstreamRequest,
) -> Option<UpstreamOutcome> {
    match request {
        UpstreamRequest::ParseToken { token } => {
            return Some(parse(verifier, states, now, token).unwrap_or_else(UpstreamOutcome::Failed));
        }
        UpstreamRequest::InvalidateToken { preserved, user, platform } => {
            states.invalidate(now, (&**user, platform.id()), preserved);
        }
        UpstreamRequest::KickTokens { tokens } => {
            for token in tokens {
                // A token that is not good cannot log in anyway.
                if let Ok(claims) = verifier.verify(token, now) {
                    states.kick(now, token, &claims);
                }
            }
        }
        UpstreamRequest::Forward { .. }
        | UpstreamRequest::UserStatus { .. }
        | UpstreamRequest::LoginElsewhere { .. } => return None,
    }
    Some(UpstreamOutcome::Data(Bytes::new()))
}

fn parse(
    verifier: &Verifier,
    states: &mut TokenStates,
    now: UnixMs,
    token: &str,
) -> Result<UpstreamOutcome, UpstreamError> {
    let claims = verifier.verify(token, now).map_err(TokenFault::to_upstream)?;
    match states.seen(now, token, &claims) {
        Standing::Kicked => Err(TokenFault::Kicked.to_upstream()),
        Standing::Normal => Ok(UpstreamOutcome::Token { user: claims.user, platform: claims.platform }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::token;
    use crate::hub::upstream::Method;
    use crate::ids::Platform;

    const SECRET: &str = "openIM123";
    const NOW: UnixMs = UnixMs(1_750_000_000_000);

    #[test]
    fn a_shards_check_judges_and_marks_tokens_and_leaves_the_rest() {
        let mut check = TokenCheck::new(SECRET);
        let issued = |ttl| token::issue(SECRET, "u", Platform::WEB, NOW, ttl).unwrap().into_boxed_str();
        let parse = |token: &str| UpstreamRequest::ParseToken { token: token.into() };
        let good = Some(UpstreamOutcome::Token { user: "u".into(), platform: Platform::WEB.id() });
        let code = |outcome: Option<UpstreamOutcome>| match outcome {
            Some(UpstreamOutcome::Failed(error)) => error.code,
            other => panic!("{other:?}"),
        };
        let (first, second) = (issued(100), issued(101));
        assert_eq!(check.answer(NOW, &parse(&first)), good);
        assert_eq!(check.answer(NOW, &parse(&second)), good);
        let done = Some(UpstreamOutcome::Data(Bytes::new()));
        let invalidate = UpstreamRequest::InvalidateToken {
            preserved: second.clone(),
            user: "u".into(),
            platform: Platform::WEB,
        };
        assert_eq!(check.answer(NOW, &invalidate), done);
        assert_eq!(code(check.answer(NOW, &parse(&first))), 1506);
        assert_eq!(check.answer(NOW, &parse(&second)), good);
        let kick = UpstreamRequest::KickTokens { tokens: vec!["not a token".into(), second.clone()] };
        assert_eq!(check.answer(NOW, &kick), done);
        assert_eq!(code(check.answer(NOW, &parse(&second))), 1506);
        assert_eq!(code(check.answer(NOW, &parse("x"))), 1503);
        assert_eq!(code(TokenCheck::new("another").answer(NOW, &parse(&first))), 1505);
        let forward = UpstreamRequest::Forward { method: Method::GetMaxSeq, data: Bytes::new() };
        assert_eq!(check.answer(NOW, &forward), None);
        assert_eq!(check.answer(NOW, &UpstreamRequest::UserStatus { users: vec![] }), None);
        assert!(!format!("{check:?}").contains(SECRET));
    }
}

//! Answers the questions about tokens: is this one good, and which ones does a kick end.
//!
//! They concern one user each, and a user's logins and kicks are all decided on the shard that owns him. So each shard
//! has a check of its own and asks nobody: the way to an rpc thread and back, two wakeups and a turn, cost a third of
//! the CPU of a login. Nothing is shared: the marks of a user's tokens are on his shard and nowhere else. (A token
//! that is shown in another user's name is judged where that user lives, which knows no mark of it: it is refused as
//! another's, 1502, and not as kicked, 1506.) The other nodes of a cluster have marks of their own: they are told, by
//! digests, and a node that was away at the time does not know.
//!
//! Not here: conversations and presence, of which there is one for the node (`Embedded`, on an rpc thread). It answers
//! about tokens as well, for those who have no check of their own.

use bytes::Bytes;

use super::token_states::{Standing, TokenStates};
use crate::backend::token::{TokenFault, Verifier};
use crate::hub::cluster::{Marked, TokenMarks};
use crate::hub::upstream::{UpstreamError, UpstreamOutcome, UpstreamRequest};
use crate::ids::{Platform, Text};
use crate::time::UnixMs;

/// See the module's documentation.
#[derive(Debug)]
pub struct TokenCheck {
    verifier: Verifier,
    states: TokenStates,
    /// For the other nodes, which have checks of their own; `None`: there are none.
    marks: Option<Vec<TokenMarks>>,
}

impl TokenCheck {
    /// Accepts tokens that are signed with this secret, and knows of no kick.
    pub fn new(secret: &str) -> Self {
        Self { verifier: Verifier::new(secret), states: TokenStates::default(), marks: None }
    }

    /// The same of a node among others: what it marks, they have to mark, too ([`TokenCheck::take_marks`]).
    #[must_use]
    pub fn among_others(self) -> Self {
        Self { marks: Some(Vec::new()), ..self }
    }

    /// Answers at once. `None`: it is not about tokens.
    pub fn answer(&mut self, now: UnixMs, request: &UpstreamRequest) -> Option<UpstreamOutcome> {
        let (outcome, marks) = answer(&self.verifier, &mut self.states, now, request)?;
        if let Some(all) = &mut self.marks {
            all.extend(marks);
        }
        Some(outcome)
    }

    /// What the other nodes must hear of.
    pub fn take_marks(&mut self) -> Vec<TokenMarks> {
        self.marks.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// As [`TokenCheck::answer`], with a state that is kept elsewhere, and what other nodes must hear of.
pub(super) fn answer(
    verifier: &Verifier,
    states: &mut TokenStates,
    now: UnixMs,
    request: &UpstreamRequest,
) -> Option<(UpstreamOutcome, Vec<TokenMarks>)> {
    let mut marks = Vec::new();
    match request {
        UpstreamRequest::ParseToken { token } => {
            let outcome = parse(verifier, states, now, token).unwrap_or_else(UpstreamOutcome::Failed);
            return Some((outcome, marks));
        }
        UpstreamRequest::InvalidateToken { preserved, user, platform } => {
            let (user, preserved) = (Text::from(&**user), TokenStates::name(preserved));
            let all_but = TokenMarks { user, platform: *platform, which: Marked::AllBut(preserved) };
            marks.push(all_but.clone());
            marks.extend(take_marks(states, now, &all_but));
        }
        UpstreamRequest::MarkTokens(told) => marks.extend(take_marks(states, now, told)),
        UpstreamRequest::KickTokens { tokens } => {
            for token in tokens {
                // A token that is not good cannot log in anyway.
                let Ok(claims) = verifier.verify(token, now) else { continue };
                states.kick(now, token, &claims);
                let which = Marked::These(vec![TokenStates::name(token)]);
                let platform = Platform::new(claims.platform.into());
                let mark = |platform| TokenMarks { user: Text::from(&*claims.user), platform, which };
                marks.extend(platform.map(mark));
            }
        }
        UpstreamRequest::Forward { .. }
        | UpstreamRequest::UserStatus { .. }
        | UpstreamRequest::LoginElsewhere { .. } => return None,
    }
    Some((UpstreamOutcome::Data(Bytes::new()), marks))
}

/// Marks what ends by a login here or elsewhere. Gives those of the tokens seen here that the others may not have seen.
fn take_marks(states: &mut TokenStates, now: UnixMs, told: &TokenMarks) -> Option<TokenMarks> {
    let login = (told.user.as_str(), told.platform.id());
    match &told.which {
        Marked::AllBut(preserved) => {
            let ended = states.invalidate(now, login, *preserved);
            (!ended.is_empty()).then(|| TokenMarks { which: Marked::These(ended), ..told.clone() })
        }
        Marked::These(tokens) => {
            states.kick_named(now, login, tokens);
            None
        }
    }
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
        assert_eq!(check.take_marks(), [], "it is alone");
    }

    #[test]
    fn what_one_node_ends_all_others_refuse_whoever_saw_it() {
        let mut nodes: Vec<TokenCheck> = (0..3).map(|_| TokenCheck::new(SECRET).among_others()).collect();
        let issued = |platform, ttl| token::issue(SECRET, "u", platform, NOW, ttl).unwrap().into_boxed_str();
        let (first, second, pc) =
            (issued(Platform::WEB, 100), issued(Platform::WEB, 101), issued(Platform::IOS, 102));
        let parse = |node: &mut TokenCheck, token: &str| {
            let outcome = node.answer(NOW, &UpstreamRequest::ParseToken { token: token.into() });
            matches!(outcome, Some(UpstreamOutcome::Token { .. }))
        };
        // Everything that one node says reaches the others, until nobody has anything to say.
        let settle = |nodes: &mut Vec<TokenCheck>| {
            let mut said = 0;
            while let Some((by, marks)) =
                (0..3).map(|n| (n, nodes[n].take_marks())).find(|(_, m)| !m.is_empty())
            {
                said += marks.len();
                for other in (0..3).filter(|n| *n != by) {
                    for marks in &marks {
                        nodes[other].answer(NOW, &UpstreamRequest::MarkTokens(marks.clone()));
                    }
                }
            }
            said
        };
        assert!(parse(&mut nodes[0], &first) && parse(&mut nodes[0], &pc) && parse(&mut nodes[1], &second));
        let (user, platform, preserved) = ("u".into(), Platform::WEB, second.clone());
        nodes[1].answer(NOW, &UpstreamRequest::InvalidateToken { preserved, user, platform });
        assert_eq!(settle(&mut nodes), 2, "all but the second; then which that was");
        for node in &mut nodes {
            assert!(!parse(node, &first) && parse(node, &second) && parse(node, &pc));
        }
        nodes[2].answer(NOW, &UpstreamRequest::KickTokens { tokens: vec![pc.clone()] });
        assert_eq!(settle(&mut nodes), 1);
        assert!(nodes.iter_mut().all(|node| !parse(node, &pc) && parse(node, &second)));
    }
}

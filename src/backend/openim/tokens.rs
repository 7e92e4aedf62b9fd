//! The tokens of OpenIM 3.5, whose gateway asks Redis about them and no service (spec 1.3, 7.1 to 7.3, 8.3).
//!
//! Here is what to look for and what it means; looking is done elsewhere: read a hash, hand it in, write what comes
//! out. The order is 3.5's: the token itself, whose it is, its state. A failing Redis is 500
//! ([`UpstreamError::internal`]).
//!
//! Not here: how a token is signed and dated (`backend::token`); newer versions, whose
//! auth service does all this.

use crate::backend::token::{self, TokenFault};
use crate::hub::upstream::{CallMetadata, UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamRequest};
use crate::ids::Platform;
use crate::time::UnixMs;

/// The state of a token that was ended by a kick, as it is written (spec 7.2).
pub const KICKED: &str = "2";
/// That of a usable one.
const NORMAL: i64 = 0;
const KICKED_STATE: i64 = 2;

/// What a question about tokens needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Done(UpstreamOutcome),
    /// All fields of this hash: to be judged by [`decide`]; `good` is the outcome if it says yes.
    Look {
        /// `UID_PID_TOKEN_STATUS:<user>:<platform name>`.
        key: Box<str>,
        /// The outcome for a token that is usable.
        good: UpstreamOutcome,
    },
    /// All fields of each hash: those that [`marked`] names are to be set to [`KICKED`]. The outcome is empty data.
    Mark(Vec<Marking>),
}

/// Tokens of one user on one platform that are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marking {
    /// The hash that they are fields of.
    pub key: Box<str>,
    /// Which of its fields.
    pub which: Which,
}

/// Which tokens of a hash end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All others (policies 1 and 5).
    AllBut(Box<str>),
    /// This one (policy 4, which 3.5 itself does not have).
    Only(Box<str>),
}

/// The first step of a question about tokens; `None`: it is about something else, and is a call.
pub fn first_step(secret: &str, now: UnixMs, call: &UpstreamCall) -> Option<Step> {
    match &call.request {
        UpstreamRequest::ParseToken { token } => Some(check(secret, now, &call.metadata, token)),
        UpstreamRequest::InvalidateToken { preserved, user, platform } => {
            let which = Which::AllBut(preserved.clone());
            Some(Step::Mark(vec![Marking { key: key(user, *platform), which }]))
        }
        UpstreamRequest::KickTokens { tokens } => {
            let marking = |token: &str| {
                // A token that is not good cannot log in anyway.
                let claims = token::verify(secret, token, now).ok()?;
                let platform = Platform::new(claims.platform.into())?;
                Some(Marking { key: key(&claims.user, platform), which: Which::Only(token.into()) })
            };
            Some(Step::Mark(tokens.iter().filter_map(|token| marking(token)).collect()))
        }
        UpstreamRequest::Forward { .. }
        | UpstreamRequest::UserStatus { .. }
        | UpstreamRequest::LoginElsewhere { .. } => None,
    }
}

fn check(secret: &str, now: UnixMs, login: &CallMetadata, token: &str) -> Step {
    let claims = match token::verify(secret, token, now) {
        Ok(claims) => claims,
        Err(fault) => return Step::Done(UpstreamOutcome::Failed(fault.to_upstream())),
    };
    let is_the_logins = claims.user == login.user && claims.platform == login.platform.id();
    let named = UpstreamOutcome::Token { user: claims.user, platform: claims.platform };
    if is_the_logins {
        Step::Look { key: key(&login.user, login.platform), good: named }
    } else {
        // Whose it is comes before its state: the hub sees a stranger's token, and refuses it with 1502.
        Step::Done(named)
    }
}

/// The hash that holds the states of a user's tokens on a platform (spec 7.2).
fn key(user: &str, platform: Platform) -> Box<str> {
    format!("UID_PID_TOKEN_STATUS:{user}:{}", platform.name()).into()
}

/// Whether a token that is good by signature and time is usable, by the fields (token, state) of its hash.
///
/// # Errors
/// 1507: it is not there, or nothing is. 1506: a kick ended it. 1505: any other state. 500: its state is no number.
pub fn decide(states: &[(Box<str>, Box<str>)], token: &str) -> Result<(), UpstreamError> {
    let Some((_, state)) = states.iter().find(|(field, _)| **field == *token) else {
        return Err(UpstreamError {
            code: 1507,
            message: "TokenNotExistError".into(),
            ..UpstreamError::internal()
        });
    };
    match state.parse() {
        Ok(NORMAL) => Ok(()),
        Ok(KICKED_STATE) => Err(TokenFault::Kicked.to_upstream()),
        Ok(_) => Err(TokenFault::Unknown.to_upstream()),
        Err(_) => Err(UpstreamError::internal()),
    }
}

/// The fields of a hash that a marking changes: only such as are there, since a new hash would never expire.
pub fn marked<'a>(states: &'a [(Box<str>, Box<str>)], which: &Which) -> Vec<&'a str> {
    let ends = |token: &str| match which {
        Which::AllBut(preserved) => *token != **preserved,
        Which::Only(ended) => *token == **ended,
    };
    states
        .iter()
        .filter(|(token, state)| ends(token) && **state != *KICKED)
        .map(|(token, _)| &**token)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::upstream::CallMetadata;
    use crate::ids::ShardId;
    use crate::time::Mono;

    const SECRET: &str = "openIM123";
    const NOW: UnixMs = UnixMs(1_700_000_000_000);

    fn pairs(states: &[(&str, &str)]) -> Vec<(Box<str>, Box<str>)> {
        states.iter().map(|(token, state)| ((*token).into(), (*state).into())).collect()
    }

    fn step(user: &str, platform: Platform, request: UpstreamRequest) -> Option<Step> {
        let metadata = CallMetadata {
            operation_id: "op".into(),
            user: user.into(),
            platform,
            connection_id: "c".into(),
        };
        let call = UpstreamCall { shard: ShardId(0), ticket: None, deadline: Mono(0), metadata, request };
        first_step(SECRET, NOW, &call)
    }

    fn issued(user: &str, platform: Platform, at: UnixMs) -> Box<str> {
        token::issue(SECRET, user, platform, at, 100).unwrap().into()
    }

    fn checked(token: Box<str>) -> Step {
        step("u:1", Platform::WEB, UpstreamRequest::ParseToken { token }).unwrap()
    }

    #[test]
    fn a_token_is_judged_then_whose_it_is_then_its_state() {
        // Spec 1.3, row S351.
        let code = |step| match step {
            Step::Done(UpstreamOutcome::Failed(error)) => error.code,
            other => panic!("{other:?}"),
        };
        let good = issued("u:1", Platform::WEB, NOW);
        let old = issued("u:1", Platform::WEB, UnixMs(NOW.0 - 200_000));
        assert_eq!(code(checked("x".into())), 1503);
        assert_eq!(code(checked(old)), 1501);
        assert_eq!(code(checked(format!("{}A", &good[..good.len() - 1]).into())), 1505);
        // Another's token is named and not looked up: the hub compares (1502).
        for (user, platform) in [("u:2", Platform::WEB), ("u:1", Platform::IOS)] {
            let named = UpstreamOutcome::Token { user: user.into(), platform: platform.id() };
            assert_eq!(checked(issued(user, platform, NOW)), Step::Done(named));
        }
        let named = UpstreamOutcome::Token { user: "u:1".into(), platform: 5 };
        let key = "UID_PID_TOKEN_STATUS:u:1:Web".into();
        assert_eq!(checked(good), Step::Look { key, good: named });
    }

    #[test]
    fn states_have_their_codes() {
        // Spec 7.2, 7.3.
        let states = pairs(&[
            ("normal", "0"),
            ("invalid", "1"),
            ("kicked", "2"),
            ("expired", "3"),
            ("later", "9"),
            ("minus", "-1"),
            ("broken", "two"),
            ("empty", ""),
        ]);
        for (token, expected) in [
            ("normal", Ok(())),
            ("invalid", Err(1505)),
            ("kicked", Err(1506)),
            ("expired", Err(1505)),
            ("later", Err(1505)),
            ("minus", Err(1505)),
            ("broken", Err(500)),
            ("empty", Err(500)),
            ("missing", Err(1507)),
        ] {
            assert_eq!(decide(&states, token).map_err(|error| error.code), expected, "{token}");
        }
        assert_eq!(decide(&[], "normal").unwrap_err().code, 1507);
    }

    #[test]
    fn a_kick_marks_what_is_there_and_not_marked() {
        // Spec 8.3, S351: every token but the new one, which stays normal.
        let invalidate = UpstreamRequest::InvalidateToken {
            preserved: "new".into(),
            user: "u".into(),
            platform: Platform::IOS,
        };
        let Some(Step::Mark(markings)) = step("", Platform::IOS, invalidate) else { panic!("no marking") };
        assert_eq!(
            markings,
            [Marking { key: "UID_PID_TOKEN_STATUS:u:IOS".into(), which: Which::AllBut("new".into()) }]
        );
        let states = pairs(&[("new", "0"), ("a", "0"), ("b", "2"), ("c", "3")]);
        assert_eq!(marked(&states, &markings[0].which), ["a", "c"]);
        assert_eq!(marked(&states, &Which::Only("a".into())), ["a"]);
        assert!(marked(&states, &Which::Only("b".into())).is_empty());
        assert!(marked(&states, &Which::Only("elsewhere".into())).is_empty());
    }

    #[test]
    fn kicked_tokens_name_their_own_hashes() {
        let (web, phone) = (issued("u", Platform::WEB, NOW), issued("w", Platform::IOS, NOW));
        let tokens = vec!["no token".into(), web.clone(), phone.clone()];
        let Some(Step::Mark(markings)) = step("u", Platform::WEB, UpstreamRequest::KickTokens { tokens })
        else {
            panic!("no marking")
        };
        let expected = [("UID_PID_TOKEN_STATUS:u:Web", web), ("UID_PID_TOKEN_STATUS:w:IOS", phone)]
            .map(|(key, token)| Marking { key: key.into(), which: Which::Only(token) });
        assert_eq!(markings, expected);
    }

    #[test]
    fn other_questions_are_calls() {
        assert_eq!(step("u", Platform::WEB, UpstreamRequest::UserStatus { users: vec![] }), None);
    }
}

//! The order of 3.5's checks, the states of tokens, and what a kick marks.

use super::*;
use crate::backend::token;
use crate::ids::SlotId;
use crate::time::Mono;

const SECRET: &str = "openIM123";
const NOW: UnixMs = UnixMs(1_700_000_000_000);
const TICKET: CallTicket = CallTicket(SlotId { index: 3, generation: 4 });
const SHARD: ShardId = ShardId(2);

fn tokens() -> Tokens {
    Tokens::new(SECRET, 2)
}

fn call(user: &str, platform: Platform, request: UpstreamRequest) -> UpstreamCall {
    let metadata =
        CallMetadata { operation_id: "op".into(), user: user.into(), platform, connection_id: "c".into() };
    UpstreamCall { shard: SHARD, ticket: Some(TICKET), deadline: Mono(0), metadata, request }
}

/// A login of `u:1` on Web.
fn login(token: &str) -> UpstreamCall {
    call("u:1", Platform::WEB, UpstreamRequest::ParseToken { token: token.into() })
}

fn issued(user: &str, platform: Platform, at: UnixMs) -> String {
    token::issue(SECRET, user, platform, at, 100).unwrap()
}

fn good() -> String {
    issued("u:1", Platform::WEB, NOW)
}

fn states(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
    pairs.iter().map(|(token, state)| ((*token).to_owned(), *state)).collect()
}

fn read(question: u64) -> Option<Step> {
    Some(Step::Read { question, user: "u:1".into(), platform: Platform::WEB })
}

#[test]
fn a_token_is_judged_then_whose_it_is_then_its_state() {
    // Spec 1.3, row S351, errDlt included.
    let first = |token: &str| tokens().begin(NOW, &login(token)).unwrap();
    let (good, old) = (good(), issued("u:1", Platform::WEB, UnixMs(NOW.0 - 200_000)));
    for (token, code, detail) in [
        ("x", 1503, ": 1503 TokenMalformedError"),
        (&*old, 1501, ": 1501 TokenExpiredError"),
        (&format!("{}A", &good[..good.len() - 1]), 1505, ": 1505 TokenUnknownError"),
    ] {
        let Step::Done(UpstreamOutcome::Failed(error)) = first(token) else { panic!("{token}") };
        assert_eq!((error.code, &*error.detail), (code, detail));
    }
    // Another's token is named and not looked up: the hub compares (1502).
    for (user, platform) in [("u:2", Platform::WEB), ("u:1", Platform::IOS)] {
        let named = UpstreamOutcome::Token { user: user.into(), platform: platform.id() };
        assert_eq!(first(&issued(user, platform, NOW)), Step::Done(named));
    }
    assert_eq!(Some(first(&good)), read(1));
}

#[test]
fn states_have_their_codes() {
    // Spec 7.2, 7.3.
    let good = good();
    for (state, expected) in [
        (Some(0), Ok(())),
        (Some(1), Err((1505, "TokenUnknownError"))),
        (Some(2), Err((1506, "TokenKickedError"))),
        (Some(3), Err((1505, "TokenUnknownError"))),
        (Some(9), Err((1505, "TokenUnknownError"))),
        (Some(-1), Err((1505, "TokenUnknownError"))),
        (None, Err((1507, "TokenNotExistError"))),
    ] {
        let mut tokens = tokens();
        assert_eq!(tokens.begin(NOW, &login(&good)), read(1));
        let mut there = states(&[("another", 2)]);
        there.extend(state.map(|state| (good.clone(), state)));
        let (shard, reply) = tokens.answered(1, Some(&there)).unwrap();
        assert_eq!((shard, reply.ticket), (SHARD, TICKET));
        let got = match &reply.outcome {
            UpstreamOutcome::Token { user, platform: 5 } if **user == *"u:1" => Ok(()),
            UpstreamOutcome::Failed(error) => Err((error.code, &*error.message)),
            other => panic!("{other:?}"),
        };
        assert_eq!(got, expected, "{state:?}");
        assert_eq!(tokens.answered(1, Some(&there)), None, "once");
    }
    assert_eq!(decide(&[], "x").unwrap_err().code, 1507);
}

#[test]
fn without_an_answer_the_fault_is_nobodys() {
    // 500: the hub answers 503 without JSON.
    let mut tokens = tokens();
    tokens.begin(NOW, &login(&good()));
    let (_, reply) = tokens.answered(1, None).unwrap();
    assert_eq!(reply.outcome, UpstreamOutcome::Failed(UpstreamError::internal()));
}

#[test]
fn logins_beyond_the_limit_are_refused_at_once() {
    let mut tokens = tokens();
    let good = good();
    let busy = Some(Step::Done(UpstreamOutcome::Failed(UpstreamError::internal())));
    assert_eq!(tokens.begin(NOW, &login(&good)), read(1));
    assert_eq!(tokens.begin(NOW, &login(&good)), read(2));
    assert_eq!(tokens.begin(NOW, &login(&good)), busy);
    // What needs no answer of Redis is judged all the same.
    let Some(Step::Done(UpstreamOutcome::Failed(error))) = tokens.begin(NOW, &login("x")) else { panic!() };
    assert_eq!(error.code, 1503);
    assert!(tokens.answered(1, None).is_some());
    assert_eq!(tokens.begin(NOW, &login(&good)), read(3));
    let mut tally = Tally::default();
    tokens.publish(&mut tally);
    assert_eq!((tally.value(Metric::TokenChecks), tally.value(Metric::TokenChecksRefused)), (2, 1));
    assert_eq!(Tokens::new(SECRET, usize::MAX).checks_max, TOKEN_CHECKS_MAX);
}

#[test]
fn a_kick_ends_the_other_tokens_of_the_platform() {
    // Spec 8.3, S351, and trap 27: also policy 5 names the new login's platform only.
    let invalidate = UpstreamRequest::InvalidateToken {
        preserved: "new".into(),
        user: "u".into(),
        platform: Platform::IOS,
    };
    let marking = Marking { user: "u".into(), platform: Platform::IOS, which: Which::AllBut("new".into()) };
    assert_eq!(tokens().begin(NOW, &call("", Platform::WEB, invalidate)), Some(Step::Mark(vec![marking])));
}

#[test]
fn kicked_tokens_say_themselves_whose_they_are() {
    let (web, phone) = (issued("u", Platform::WEB, NOW), issued("w", Platform::IOS, NOW));
    let named = ["no token", &*web, &*phone].map(Box::from).to_vec();
    let kick = call("u", Platform::WEB, UpstreamRequest::KickTokens { tokens: named });
    let expected = [("u", Platform::WEB, web), ("w", Platform::IOS, phone)].map(|(user, platform, token)| {
        Marking { user: user.into(), platform, which: Which::Only(token.into()) }
    });
    assert_eq!(tokens().begin(NOW, &kick), Some(Step::Mark(expected.to_vec())));
}

#[test]
fn other_questions_are_calls() {
    let asked = call("u", Platform::WEB, UpstreamRequest::UserStatus { users: vec![] });
    assert_eq!(tokens().begin(NOW, &asked), None);
}

//! The tokens of OpenIM 3.5, whose gateway asks Redis about them and no service (spec 1.3, 7.1 to 7.3, 8.3).
//!
//! Here is what to look for and what it means; looking and writing is done elsewhere (`control::tokens`). The order is
//! 3.5's: the token itself, whose it is, its state. Nobody is exempt: 3.5 keeps its admins' tokens in Redis as well.
//!
//! Order of calls, on rpc thread 0: [`Tokens::begin`] for each question of a shard; of [`Step::Read`] the states go to
//! [`Tokens::answered`]. What always holds: at most `TOKEN_CHECKS_MAX` logins wait; each is answered once; without an
//! answer of Redis the error is 500 ([`UpstreamError::internal`]), which the hub makes a 503 without JSON, since 3.5's
//! clients stop for good on any JSON (spec trap 1).
//!
//! Not here: how a token is signed and dated (`backend::token`); newer versions, whose auth service does all this.

use std::collections::BTreeMap;

use crate::backend::token::{TokenFault, Verifier};
use crate::hub::upstream::{
    CallMetadata, UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply, UpstreamRequest,
};
use crate::ids::{CallTicket, Platform, ShardId};
use crate::limits::TOKEN_CHECKS_MAX;
use crate::metrics::{Metric, Tally};
use crate::time::UnixMs;

/// The state of a usable token (spec 7.2).
const NORMAL: i64 = 0;
/// The state of a token that was ended by a kick.
pub const KICKED: i64 = 2;

/// What a question about tokens needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Done(UpstreamOutcome),
    /// The states of this user's tokens on this platform, for [`Tokens::answered`].
    Read {
        /// Comes back with them.
        question: u64,
        /// Whose.
        user: Box<str>,
        /// Where.
        platform: Platform,
    },
    /// These are to be written; nobody waits for it.
    Mark(Vec<Marking>),
}

/// Tokens of one user on one platform that end: their state becomes [`KICKED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marking {
    /// Whose.
    pub user: Box<str>,
    /// Where.
    pub platform: Platform,
    /// Which of them.
    pub which: Which,
}

/// Which tokens end. Only such as Redis has: a new hash would never expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All others (policies 1 and 5).
    AllBut(Box<str>),
    /// This one (policy 4, which 3.5 itself does not have).
    Only(Box<str>),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Tokens {
    verifier: Verifier,
    checks_max: usize,
    /// The logins that wait, by question.
    checks: BTreeMap<u64, Check>,
    asked: u64,
    refused: u64,
}

/// A login whose token is good by signature and time and names it.
#[derive(Debug)]
struct Check {
    shard: ShardId,
    ticket: Option<CallTicket>,
    token: Box<str>,
    /// The outcome if its state is good, too.
    good: UpstreamOutcome,
}

impl Tokens {
    /// Accepts tokens that are signed with this secret. At most `checks_max` logins wait, and never more than
    /// `TOKEN_CHECKS_MAX`.
    pub fn new(secret: &str, checks_max: usize) -> Self {
        let (verifier, checks_max) = (Verifier::new(secret), checks_max.min(TOKEN_CHECKS_MAX));
        Self { verifier, checks_max, checks: BTreeMap::new(), asked: 0, refused: 0 }
    }

    /// The first step of a question about tokens; `None`: it is about something else.
    pub fn begin(&mut self, now: UnixMs, call: &UpstreamCall) -> Option<Step> {
        match &call.request {
            UpstreamRequest::ParseToken { token } => Some(self.check(now, call, token)),
            UpstreamRequest::InvalidateToken { preserved, user, platform } => {
                let which = Which::AllBut(preserved.clone());
                Some(Step::Mark(vec![Marking { user: user.clone(), platform: *platform, which }]))
            }
            UpstreamRequest::KickTokens { tokens } => {
                let marking = |token: &str| {
                    // A token that is not good cannot log in anyway.
                    let claims = self.verifier.verify(token, now).ok()?;
                    let platform = Platform::new(claims.platform.into())?;
                    Some(Marking { user: claims.user, platform, which: Which::Only(token.into()) })
                };
                Some(Step::Mark(tokens.iter().filter_map(|token| marking(token)).collect()))
            }
            UpstreamRequest::Forward { .. }
            | UpstreamRequest::UserStatus { .. }
            | UpstreamRequest::MarkTokens(_)
            | UpstreamRequest::LoginElsewhere { .. } => None,
        }
    }

    fn check(&mut self, now: UnixMs, call: &UpstreamCall, token: &str) -> Step {
        let login: &CallMetadata = &call.metadata;
        let claims = match self.verifier.verify(token, now) {
            Ok(claims) => claims,
            Err(fault) => return Step::Done(UpstreamOutcome::Failed(refusal(fault))),
        };
        let is_the_logins = claims.user == login.user && claims.platform == login.platform.id();
        let good = UpstreamOutcome::Token { user: claims.user, platform: claims.platform };
        if !is_the_logins {
            // Whose it is comes before its state: the hub sees a stranger's token, and refuses it with 1502.
            return Step::Done(good);
        }
        if self.checks.len() >= self.checks_max {
            self.refused += 1;
            return Step::Done(UpstreamOutcome::Failed(UpstreamError::internal()));
        }
        self.asked += 1;
        let check = Check { shard: call.shard, ticket: call.ticket, token: token.into(), good };
        self.checks.insert(self.asked, check);
        Step::Read { question: self.asked, user: login.user.clone(), platform: login.platform }
    }

    /// What Redis has: each token of the hash with its state; `None`: it could not be read. Gives the reply, and for
    /// which shard; `None`: nobody waits.
    pub fn answered(
        &mut self,
        question: u64,
        states: Option<&[(String, i64)]>,
    ) -> Option<(ShardId, UpstreamReply)> {
        let Check { shard, ticket, token, good } = self.checks.remove(&question)?;
        let outcome = match states.map(|states| decide(states, &token)) {
            Some(Ok(())) => good,
            Some(Err(error)) => UpstreamOutcome::Failed(error),
            None => UpstreamOutcome::Failed(UpstreamError::internal()),
        };
        Some((shard, UpstreamReply { ticket: ticket?, outcome }))
    }

    /// Writes what it holds and did into the thread's counts.
    pub fn publish(&self, tally: &mut Tally) {
        tally.set(Metric::TokenChecks, self.checks.len() as u64);
        tally.set(Metric::TokenChecksRefused, self.refused);
    }
}

/// Whether a token that is good by signature and time is usable, by the states of its hash (spec 7.2).
///
/// # Errors
/// 1507: it is not there, or nothing is. 1506: a kick ended it. 1505: any other state.
fn decide(states: &[(String, i64)], token: &str) -> Result<(), UpstreamError> {
    match states.iter().find(|(field, _)| field == token) {
        None => Err(spelled_out(UpstreamError {
            code: 1507,
            message: "TokenNotExistError".into(),
            ..UpstreamError::internal()
        })),
        Some((_, NORMAL)) => Ok(()),
        Some((_, KICKED)) => Err(refusal(TokenFault::Kicked)),
        Some(_) => Err(refusal(TokenFault::Unknown)),
    }
}

fn refusal(fault: TokenFault) -> UpstreamError {
    spelled_out(fault.to_upstream())
}

/// As Go prints the error of 3.5 (spec 1.3, row S351).
fn spelled_out(error: UpstreamError) -> UpstreamError {
    let detail = format!(": {} {}", error.code, error.message).into();
    UpstreamError { detail, ..error }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;

//! The tokens of OpenIM 3.5: logins wait until the control thread has read their states, kicks are handed to it.

use std::cell::RefCell;

use bytes::Bytes;

use super::Exchange;
use crate::backend::openim::tokens::{Step, Tokens};
use crate::control::mailbox::ControlAddress;
use crate::control::tokens::{TokenAnswer, TokenOrder};
use crate::hub::upstream::{UpstreamCall, UpstreamOutcome, UpstreamReply};
use crate::metrics::Tally;
use crate::shard::clock;
use crate::time::Mono;

/// See the module's documentation.
pub(super) struct TokenDesk {
    tokens: RefCell<Tokens>,
    control: ControlAddress,
}

impl TokenDesk {
    pub(super) fn new(tokens: Tokens, control: ControlAddress) -> Self {
        Self { tokens: RefCell::new(tokens), control }
    }

    /// Takes a question if it is about tokens; whether it was.
    pub(super) fn take(&self, exchange: &Exchange, call: &UpstreamCall, deadline: Mono) -> bool {
        let step = self.tokens.borrow_mut().begin(clock::now().unix, call);
        let outcome = match step {
            None => return false,
            Some(Step::Done(outcome)) => Some(outcome),
            Some(Step::Read { question, user, platform }) => {
                let order = TokenOrder::Read { question, user, platform, deadline };
                if self.control.tokens(order).is_err() {
                    self.answer(exchange, question, None);
                }
                None
            }
            Some(Step::Mark(markings)) => {
                for marking in markings {
                    if self.control.tokens(TokenOrder::Kick { marking, deadline }).is_err() {
                        // Without the user, whom not every operator wants in his log (`log.users`).
                        let operation_id = &call.metadata.operation_id;
                        tracing::warn!(
                            %operation_id,
                            "tokens were not marked as kicked: too many orders wait for Redis"
                        );
                    }
                }
                Some(UpstreamOutcome::Data(Bytes::new()))
            }
        };
        if let (Some(outcome), Some(ticket)) = (outcome, call.ticket) {
            exchange.reply(call.shard, UpstreamReply { ticket, outcome });
        }
        true
    }

    /// Takes what Redis has.
    pub(super) fn answered(&self, exchange: &Exchange, answer: &TokenAnswer) {
        self.answer(exchange, answer.question, answer.states.as_deref().ok());
    }

    fn answer(&self, exchange: &Exchange, question: u64, states: Option<&[(String, i64)]>) {
        let reply = self.tokens.borrow_mut().answered(question, states);
        if let Some((shard, reply)) = reply {
            exchange.reply(shard, reply);
        }
    }

    /// See [`Tokens::publish`].
    pub(super) fn publish(&self, tally: &mut Tally) {
        self.tokens.borrow().publish(tally);
    }
}

//! Token states in Redis, for OpenIM 3.5, whose gateway reads and writes them itself (spec 7.2, 8.3).
//!
//! What always holds: an order that was taken is done once, and a question answered once, by its deadline or as late;
//! at most `TOKEN_ORDERS_IN_FLIGHT_MAX` are under way. A kick changes a hash in one step on the server: a token that is
//! issued meanwhile is not touched, and a hash that has expired meanwhile does not come back.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{Cmd, FromRedisValue, cmd, from_redis_value};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::counts::Counts;
use super::mailbox::Wanted;
use super::news::Board;
use super::redis::{Connection, Fault, Servers};
use crate::backend::openim::tokens::{KICKED, Marking, Which};
use crate::ids::Platform;
use crate::limits::{CONTROL_CALL_MS, TOKEN_ORDERS_IN_FLIGHT_MAX, USER_TOKENS_MAX};
use crate::metrics::Metric;
use crate::time::{Mono, Now};

/// What is to be done with the tokens of a user on a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOrder {
    /// Read their states. The answer comes as [`super::news::News::TokenStates`].
    Read {
        /// Comes back in the answer.
        question: u64,
        /// Whose.
        user: Box<str>,
        /// Where.
        platform: Platform,
        /// After it the answer is [`TokenFault::Late`].
        deadline: Mono,
    },
    /// Mark tokens as kicked. Nobody waits: a failure is counted and logged.
    Kick {
        /// Which, whose and where.
        marking: Marking,
        /// Not done after it.
        deadline: Mono,
    },
}

/// The answer to [`TokenOrder::Read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAnswer {
    /// As in the question.
    pub question: u64,
    /// Each token of the hash with its state (spec 7.2): 0 normal, 1 invalid, 2 kicked, 3 expired. Empty: there is no
    /// such hash.
    pub states: Result<Vec<(String, i64)>, TokenFault>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// Redis cannot be reached, or answers with an error.
    Failed,
    /// The deadline passed.
    Late,
}

/// Marks every token of the hash (the key) but one (first argument) with a state (second); gives how many.
const KICK_ALL_BUT: &str = "local n = 0 \
    for _, token in ipairs(redis.call('HKEYS', KEYS[1])) do \
    if token ~= ARGV[1] then redis.call('HSET', KEYS[1], token, ARGV[2]) n = n + 1 end end \
    return n";

/// Marks one token of the hash, if it is there.
const KICK_ONLY: &str = "local n = redis.call('HEXISTS', KEYS[1], ARGV[1]) \
    if n == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end \
    return n";

/// Works orders off, over one connection that is made when it is needed.
pub(super) struct Keeper<'a> {
    servers: &'a Servers,
    board: &'a Board,
    counts: &'a Counts,
    now: fn() -> Now,
    /// With its number. Locked while it is made.
    connection: tokio::sync::Mutex<Option<(u64, Connection)>>,
    closed: RefCell<Closed>,
}

/// What is remembered of connections that are gone.
#[derive(Default)]
struct Closed {
    /// Made so far.
    connections: u64,
    backoff: Backoff,
    /// Nobody tries to connect before, so that orders fail at once instead of in a row.
    until: Option<Instant>,
}

/// A connection to ask over.
struct Connected {
    connection: Connection,
    number: u64,
    age: Age,
}

/// Whether anything was asked over a connection before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(servers: &'a Servers, board: &'a Board, counts: &'a Counts, now: fn() -> Now) -> Self {
        Self { servers, board, counts, now, connection: Default::default(), closed: RefCell::default() }
    }

    async fn serve(&self, order: TokenOrder) {
        match order {
            TokenOrder::Read { question, user, platform, deadline } => {
                let states = self.in_time(deadline, self.read(key(&user, platform))).await;
                self.board.answer(TokenAnswer { question, states });
            }
            TokenOrder::Kick { marking: Marking { user, platform, which }, deadline } => {
                let kicked = self.in_time(deadline, self.kick(key(&user, platform), which)).await;
                if let Err(fault) = kicked {
                    tracing::warn!(
                        ?fault,
                        platform = platform.name(),
                        "Redis: tokens were not marked as kicked"
                    );
                }
            }
        }
    }

    async fn in_time<T>(
        &self,
        deadline: Mono,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, TokenFault> {
        let left = deadline.since_ms((self.now)().mono).min(CONTROL_CALL_MS);
        let outcome = match left {
            0 => Err(TokenFault::Late),
            left => match timeout(Duration::from_millis(left), work).await {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(fault)) => {
                    tracing::debug!(%fault, "Redis: an order about tokens failed");
                    Err(TokenFault::Failed)
                }
                Err(_) => Err(TokenFault::Late),
            },
        };
        self.counts.count(match outcome {
            Ok(_) => Metric::TokenOrdersOk,
            Err(TokenFault::Failed) => Metric::TokenOrdersFailed,
            Err(TokenFault::Late) => Metric::TokenOrdersLate,
        });
        outcome
    }

    async fn read(&self, key: String) -> Result<Vec<(String, i64)>, Fault> {
        let states: Vec<(String, i64)> = self.ask(cmd("HGETALL").arg(key)).await?;
        if states.len() > USER_TOKENS_MAX {
            return Err(Fault::TooMany);
        }
        Ok(states)
    }

    async fn kick(&self, key: String, which: Which) -> Result<(), Fault> {
        let (script, token) = match &which {
            Which::AllBut(token) => (KICK_ALL_BUT, token),
            Which::Only(token) => (KICK_ONLY, token),
        };
        let kicked: i64 = self.ask(cmd("EVAL").arg(script).arg(1).arg(key).arg(&**token).arg(KICKED)).await?;
        tracing::debug!(kicked, "Redis: tokens marked as kicked");
        Ok(())
    }

    /// Asks over the connection that is there, and once more over a new one if it turns out to be broken: it may have
    /// been idle for long. What is asked here may be asked twice.
    async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, Fault> {
        loop {
            let began = Instant::now();
            let Connected { mut connection, number, age } = self.connection().await?;
            // The answer is read apart: a value that is not what it should be is no fault of the connection.
            let error = match connection.ask(question).await {
                Ok(answer) => return from_redis_value(answer).map_err(|e| Fault::Client(e.into())),
                Err(error) => error,
            };
            if !(error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error()) {
                return Err(Fault::Client(error));
            }
            // Another order may have replaced it already.
            self.connection.lock().await.take_if(|(in_place, _)| *in_place == number);
            if age == Age::New {
                let fault = Fault::Client(error);
                self.give_up(began, &fault);
                return Err(fault);
            }
        }
    }

    /// The connection that is there, or a new one. Those who come meanwhile wait for the same.
    async fn connection(&self) -> Result<Connected, Fault> {
        let mut place = self.connection.lock().await;
        if let Some((number, connection)) = place.as_ref() {
            return Ok(Connected { connection: connection.clone(), number: *number, age: Age::Used });
        }
        if self.closed.borrow().until.is_some_and(|until| Instant::now() < until) {
            return Err(Fault::Closed);
        }
        let began = Instant::now();
        let connection = self.servers.connect().await.inspect_err(|fault| self.give_up(began, fault))?;
        let number = {
            let closed = &mut *self.closed.borrow_mut();
            closed.connections = closed.connections.wrapping_add(1);
            closed.connections
        };
        *place = Some((number, connection.clone()));
        Ok(Connected { connection, number, age: Age::New })
    }

    fn give_up(&self, began: Instant, fault: &Fault) {
        let closed = &mut *self.closed.borrow_mut();
        let wait = closed.backoff.next(began.elapsed());
        closed.until = Some(Instant::now() + wait);
        self.counts.count(Metric::RedisTokenFailures);
        if closed.backoff.is_first() {
            tracing::warn!(%fault, "Redis: token states cannot be read or changed");
        }
    }
}

/// Works orders off until the end is wanted, then those that were taken.
pub(super) async fn serve_always(
    keeper: Option<&Keeper<'_>>,
    mut orders: Receiver<TokenOrder>,
    mut wanted: Wanted,
) {
    let Some(keeper) = keeper else { return };
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    let mut ending = false;
    while open || !under_way.is_empty() {
        // Answers that nobody takes count as under way: the board's queue is bounded by it.
        let has_room = under_way.len() + keeper.board.answers() < TOKEN_ORDERS_IN_FLIGHT_MAX;
        tokio::select! {
            order = orders.recv(), if open && has_room => match order {
                Some(order) => under_way.push(keeper.serve(order)),
                None => open = false,
            },
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            () = keeper.board.answer_taken(), if !has_room => {}
            _ = wanted.end(), if !ending => {
                ending = true;
                orders.close();
            }
        }
    }
}

fn key(user: &str, platform: Platform) -> String {
    format!("UID_PID_TOKEN_STATUS:{user}:{}", platform.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_the_specification() {
        let platform = Platform::new(5).unwrap();
        assert_eq!(key("u1", platform), "UID_PID_TOKEN_STATUS:u1:Web");
    }
}

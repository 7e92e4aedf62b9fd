//! A call from its place in the channel to its answer: bounds, deadline, one or two attempts.
//!
//! What always holds: whatever a call holds is in a guard ([`Entry`], [`Seat`]) and given back when its future is
//! dropped, which also resets its stream. There are never more than two attempts.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::uri::{Authority, Uri};
use http::{Method, Request};

use super::breaker::Outcome;
use super::fault::{Failure, message_of};
use super::rotation::{Grant, InstanceKey, Pick};
use super::{Call, CallFault, Inner, Retry};
use crate::rpc::stream::framed;
use crate::rpc::unary;
use crate::shard::clock;
use crate::time::Mono;
use crate::wire::grpc::{Status, TIMEOUT_MS_MAX, code};

/// A call's place in its channel.
pub(super) struct Entry<'a> {
    inner: &'a Inner,
    started: Mono,
    held_bytes: Cell<usize>,
    /// The deadline is over, and what is dropped now is dropped for that.
    expired: Cell<bool>,
    over: bool,
}

impl<'a> Entry<'a> {
    /// `Overloaded` at once if the channel is full.
    pub(super) fn new(inner: &'a Inner, call: &Call) -> Result<Self, CallFault> {
        inner
            .change(|state, started| {
                state.counts.calls += 1;
                if state.counts.in_flight >= inner.limits.calls_max {
                    state.counts.overloaded += 1;
                    return Err(CallFault::Overloaded);
                }
                state.counts.in_flight += 1;
                Ok(started)
            })
            .map(|started| Self {
                inner,
                started,
                held_bytes: Cell::new(0),
                expired: Cell::new(false),
                over: false,
            })
            .and_then(|entry| {
                if entry.hold(call.message.len()) {
                    Ok(entry)
                } else {
                    entry.finish(Err(CallFault::Overloaded))
                }
            })
    }

    /// Accounts for bytes that the call holds until it is over; `false`: there is no room for them.
    fn hold(&self, bytes: usize) -> bool {
        let most = self.inner.limits.held_bytes;
        let mut state = self.inner.state.borrow_mut();
        let held = state.counts.held_bytes.saturating_add(bytes);
        if held > most {
            return false;
        }
        state.counts.held_bytes = held;
        self.held_bytes.set(self.held_bytes.get() + bytes);
        true
    }

    /// Runs the call until its deadline.
    pub(super) async fn run(&self, call: &Call) -> Result<Bytes, CallFault> {
        let left_ms = call.deadline.since_ms(self.started).min(TIMEOUT_MS_MAX);
        if left_ms == 0 {
            return Err(CallFault::Deadline);
        }
        let mut attempts = pin!(self.attempts(call));
        let mut timer = pin!(monoio::time::sleep(Duration::from_millis(left_ms)));
        poll_fn(|cx| {
            if let Poll::Ready(result) = attempts.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            ready!(timer.as_mut().poll(cx));
            self.expired.set(true);
            Poll::Ready(Err(CallFault::Deadline))
        })
        .await
    }

    async fn attempts(&self, call: &Call) -> Result<Bytes, CallFault> {
        let message = framed(call.message.len(), |out| out.put_slice(&call.message))?;
        let first = match self.attempt(call, &message, None).await? {
            Ok(message) => return Ok(message),
            Err(missed) => missed,
        };
        if first.sent && call.retry == Retry::Never {
            return Err(self.unavailable(&first.why));
        }
        self.inner.change(|state, _| state.counts.retries += 1);
        match self.attempt(call, &message, Some(first.key)).await? {
            Ok(message) => Ok(message),
            Err(second) => Err(self.unavailable(&second.why)),
        }
    }

    /// The inner error is one that another attempt may not have.
    async fn attempt(
        &self,
        call: &Call,
        framed: &Bytes,
        avoid: Option<InstanceKey>,
    ) -> Result<Result<Bytes, Missed>, CallFault> {
        let mut seat = self.seat(avoid).await?;
        let ended = self.ask(&seat, call, framed).await;
        let link = &seat.grant.link;
        let (why, sent) = match ended {
            Ok(message) => {
                link.note_answer();
                seat.outcome = Outcome::Answered;
                return message.map(Ok);
            }
            Err(Failure::Final(fault)) => return Err(fault),
            Err(Failure::Reset(fault)) => {
                seat.outcome = Outcome::Failed;
                // A server that knows our deadline may give up a moment before we do.
                let late = clock::now().mono >= call.deadline;
                return Err(if late { CallFault::Deadline } else { fault });
            }
            Err(Failure::Refused(why)) => (why, false),
            Err(Failure::Broken(why)) => {
                if link.take_blame() {
                    seat.outcome = Outcome::Failed;
                }
                (why, true)
            }
        };
        let why = link.cause().map_or(why, |cause| cause.to_string());
        Ok(Err(Missed { key: seat.grant.key, sent, why: format!("{}: {why}", link.authority) }))
    }

    /// The inner result is the instance's answer.
    async fn ask(
        &self,
        seat: &Seat<'_>,
        call: &Call,
        framed: &Bytes,
    ) -> Result<Result<Bytes, CallFault>, Failure> {
        let link = &seat.grant.link;
        let head = self.head(call, &link.authority).map_err(Failure::Final)?;
        let (response, stream) = match link.send(head) {
            Some(sent) => sent.map_err(|error| Failure::Refused(error.to_string()))?,
            None => return Err(Failure::Refused("the connection is closing".to_owned())),
        };
        let answer = unary::exchange(response, stream, framed.clone(), |bytes| self.hold(bytes)).await;
        answer.map(message_of).map_err(|error| Failure::of(&error))
    }

    /// The head of an attempt: it has its own peer and what is left of the time.
    fn head(&self, call: &Call, authority: &Authority) -> Result<Request<()>, CallFault> {
        let metadata = call.metadata.iter().map(|(key, value)| (*key, &**value));
        let mut headers = unary::headers(metadata).map_err(|key| self.bad_metadata(call, key))?;
        unary::set_timeout(&mut headers, call.deadline.since_ms(clock::now().mono).max(1));
        let uri =
            Uri::builder().scheme("http").authority(authority.clone()).path_and_query(call.path).build();
        let request = uri.and_then(|uri| Request::builder().method(Method::POST).uri(uri).body(()));
        let mut request = request.map_err(|error| Status::new(code::INTERNAL, error.to_string()))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Waits for an instance.
    async fn seat(&self, avoid: Option<InstanceKey>) -> Result<Seat<'_>, CallFault> {
        let now = clock::now().mono;
        let ticket = {
            let state = &mut *self.inner.state.borrow_mut();
            // Who comes now must not overtake.
            let pick = if state.queue.len() == 0 { state.rotation.pick(now, avoid) } else { Pick::Wait };
            match pick {
                Pick::Go(grant) => return Ok(self.take(grant)),
                Pick::Out => return Err(self.inner.outage(state)),
                Pick::Wait if state.queue.len() >= self.inner.limits.waiting_max => {
                    return Err(CallFault::Overloaded);
                }
                Pick::Wait => state.queue.join(avoid),
            }
        };
        Waiting { entry: self, ticket }.await
    }

    fn take(&self, grant: Grant) -> Seat<'_> {
        Seat { inner: self.inner, grant, expired: &self.expired, outcome: Outcome::Neutral }
    }

    fn unavailable(&self, why: &str) -> CallFault {
        CallFault::Unavailable(format!("{}: {why}", self.inner.service).into())
    }

    /// The key as the caller wrote it.
    fn bad_metadata(&self, call: &Call, bad: &str) -> CallFault {
        let key = call.metadata.iter().map(|(key, _)| *key).find(|key| *key == bad);
        CallFault::Metadata(key.unwrap_or_default())
    }

    /// Counts how it ended.
    pub(super) fn finish<T>(mut self, result: Result<T, CallFault>) -> Result<T, CallFault> {
        self.over = true;
        let counts = &mut self.inner.state.borrow_mut().counts;
        match &result {
            Ok(_) => counts.answered += 1,
            Err(CallFault::Status(_)) => counts.statuses += 1,
            Err(CallFault::Unavailable(_)) => counts.unavailable += 1,
            Err(CallFault::Deadline) => counts.deadlines += 1,
            Err(CallFault::Overloaded) => counts.overloaded += 1,
            Err(CallFault::Metadata(_)) => counts.metadata += 1,
        }
        result
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let now = clock::now().mono;
        let counts = &mut self.inner.state.borrow_mut().counts;
        counts.in_flight -= 1;
        counts.held_bytes -= self.held_bytes.get();
        counts.latency_ms += now.since_ms(self.started);
        if !self.over {
            counts.cancelled += 1;
        }
    }
}

/// An attempt that ended without an answer.
struct Missed {
    key: InstanceKey,
    /// The server may have carried it out.
    sent: bool,
    why: String,
}

/// A place on a connection; says what became of it when it is dropped.
struct Seat<'a> {
    inner: &'a Inner,
    grant: Grant,
    expired: &'a Cell<bool>,
    outcome: Outcome,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let outcome = if self.expired.get() { Outcome::Failed } else { self.outcome };
        self.inner.change(|state, now| {
            if state.rotation.done(now, &self.grant, outcome) {
                state.counts.breaker_opens += 1;
            }
        });
    }
}

/// A ticket of the queue.
struct Waiting<'a, 'b> {
    entry: &'b Entry<'a>,
    ticket: u64,
}

impl<'b> Future for Waiting<'_, 'b> {
    type Output = Result<Seat<'b>, CallFault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let given = ready!(self.entry.inner.state.borrow_mut().queue.poll(self.ticket, cx));
        Poll::Ready(given.map(|grant| self.entry.take(grant)))
    }
}

impl Drop for Waiting<'_, '_> {
    fn drop(&mut self) {
        let unused = self.entry.inner.state.borrow_mut().queue.leave(self.ticket);
        // Nothing was sent to it, so nothing speaks against it.
        if let Some(grant) = unused {
            self.entry.inner.change(|state, now| state.rotation.done(now, &grant, Outcome::Neutral));
        }
    }
}

//! What clients send: decoding, local answers, upstream calls and their replies (spec 3).
//!
//! Decoding and deciding are two steps with a value between them ([`Decoded`]), so that a recording of the values can
//! be replayed without the bytes.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::calls::Pending;
use super::follow::{What, cut};
use super::login::metadata;
use super::upstream::{
    Method, UpstreamError, UpstreamOutcome, UpstreamReply, UpstreamRequest, UserPlatforms,
};
use super::{Hub, Note};
use crate::ids::ConnId;
use crate::limits;
use crate::metrics::Metric;
use crate::pb::openim::sdkws::{
    SetAppBackgroundStatusReq, SubUserOnlineStatus, SubUserOnlineStatusElem, SubUserOnlineStatusTips,
};
use crate::session::disconnect::Disconnect;
use crate::session::ledger::LastFrame;
use crate::session::meter::Resource;
use crate::session::requests::Order;
use crate::session::{Phase, Tick};
use crate::time::Now;
use crate::wire::envelope::{Codec, EnvelopeFault, Request, Response, Variant};
use crate::wire::frame::{Frame, Opcode};
use crate::wire::message::{Event, Fault};
use crate::wire::text::{self, TextAnswer};

/// Request identifiers that are answered here (spec 3.1).
const SEND_MSG: i32 = 1003;
const LOGOUT: i32 = 2003;
const SET_BACKGROUND: i32 = 2004;
/// Presence subscription; also the identifier of presence tips.
pub(super) const SUBSCRIBE: i32 = 2005;

/// What a client sent, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Decoded {
    /// A request envelope.
    Request(Request),
    /// A text ping (spec 1.6), with the JSON of its pong.
    TextPing(Box<str>),
    /// A text pong.
    TextPong,
    /// A control frame.
    Ping(Box<[u8]>),
    /// A control frame.
    Pong,
    /// A close frame.
    Close(Option<u16>),
    /// Something that ends the session.
    Fault(Disconnect),
    /// A breach of RFC 6455, in words for the close frame. Recorded with its words: their length is on the wire.
    Breach(Cow<'static, str>),
}

/// Decodes one event of the byte stream.
pub(super) fn decode(codec: &mut Codec, variant: Variant, event: Event<'_>) -> Decoded {
    match event {
        Event::Message { text: true, payload } => match text::answer(payload) {
            Ok(TextAnswer::Pong(json)) => Decoded::TextPing(json.into()),
            Ok(TextAnswer::Nothing) => Decoded::TextPong,
            Err(_) => Decoded::Fault(Disconnect::BadText),
        },
        Event::Message { text: false, payload } => {
            match codec.decode(variant, payload, limits::INFLATED_BYTES_MAX) {
                Ok(request) => Decoded::Request(request),
                Err(EnvelopeFault::InflatedTooBig) => Decoded::Fault(Disconnect::InflatedTooBig),
                Err(EnvelopeFault::Gzip | EnvelopeFault::Gob | EnvelopeFault::Json) => {
                    Decoded::Fault(Disconnect::BadEnvelope)
                }
            }
        }
        Event::Ping(payload) => Decoded::Ping(payload.into()),
        Event::Pong(_) => Decoded::Pong,
        Event::Close(code) => Decoded::Close(code),
    }
}

/// What became of a request that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    /// Its reply, or its deadline, will come.
    Asked,
    /// With an error: it asked for nothing.
    Answered,
}

impl Decoded {
    fn kind(&self) -> LastFrame {
        match self {
            Self::Request(_) => LastFrame::Request,
            Self::TextPing(_) => LastFrame::TextPing,
            Self::TextPong => LastFrame::TextPong,
            Self::Ping(_) => LastFrame::Ping,
            Self::Pong => LastFrame::Pong,
            Self::Close(_) => LastFrame::Close,
            Self::Breach(_) | Self::Fault(_) => LastFrame::Fault,
        }
    }
}

impl From<Fault> for Decoded {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Protocol(_) | Fault::NotUtf8 => Self::Breach(fault.reason().into()),
            Fault::TooBig => Self::Fault(Disconnect::MessageTooBig),
            Fault::TooManyFragments => Self::Fault(Disconnect::TooManyFragments),
        }
    }
}

impl Hub {
    /// Acts on what a client sent. Any complete frame renews the read deadline (MAIN's rule, spec trap 11).
    pub(super) fn decoded(&mut self, now: Now, conn: ConnId, decoded: Decoded) {
        if let Some(recorder) = &mut self.recorder {
            recorder.decoded(now, conn, &decoded);
        }
        let Some(session) = self.registry.session_mut(conn) else {
            return;
        };
        match (session.phase, &decoded) {
            (Phase::Open, _) => {}
            (
                Phase::LoggingIn | Phase::Spread | Phase::Registering | Phase::Claiming,
                Decoded::Fault(reason),
            ) => {
                self.tally.count(Metric::HandshakeBad);
                return self.end(now, conn, *reason);
            }
            _ => return,
        }
        session.heard = Tick::of(now.mono);
        session.ledger.last_frame = decoded.kind();
        match decoded {
            Decoded::Request(request) => self.request(now, conn, request),
            Decoded::TextPing(json) => {
                let pong = self.encoder.frame(&mut self.recorder, Opcode::Text, json.as_bytes());
                self.queue(now, conn, pong);
            }
            Decoded::Ping(payload) => {
                let pong = self.encoder.frame(&mut self.recorder, Opcode::Pong, &payload);
                self.queue(now, conn, pong);
            }
            Decoded::Pong | Decoded::TextPong => {}
            Decoded::Close(code) => {
                // RFC 6455 section 5.5.1: echo the code; a close without code is echoed empty.
                self.queue_last(conn, Frame::close(code, ""));
                self.end(now, conn, Disconnect::PeerClosed);
            }
            Decoded::Fault(reason) => self.end(now, conn, reason),
            Decoded::Breach(words) => self.end_saying(now, conn, Disconnect::ProtocolError, &words),
        }
    }

    fn request(&mut self, now: Now, conn: ConnId, request: Request) {
        let user = self.registry.session(conn).and_then(|s| self.registry.user_of(s));
        self.follow.note(now, conn, || What::Request {
            id: request.id,
            operation_id: cut(&request.operation_id),
            bytes: request.data.len(),
        });
        // A session that was just evicted has no user: its kick frame is on the way, nothing else is answered.
        let Some(user) = user else { return };
        if *user != *request.send_id {
            return self.end(now, conn, Disconnect::SenderMismatch);
        }
        match request.id {
            SET_BACKGROUND | SUBSCRIBE => {}
            id if method(id).is_some() => {}
            _ => return self.end(now, conn, Disconnect::UnknownRequest),
        }
        if needs_all_fields(request.id) && !has_all_fields(&request) {
            return self.answer_error(now, conn, &request, &UpstreamError::internal());
        }
        if request.id == SET_BACKGROUND {
            return self.set_background(now, conn, &request);
        }
        let (tick, rates) = (Tick::of(now.mono), self.config.rates);
        let session = self.registry.session_mut(conn);
        if !session.is_none_or(|s| s.ledger.meter.take(tick, &rates, Resource::Calls, 1)) {
            // An error and not a wait: what waits costs memory, and whoever asks so much does not wait either.
            self.tally.count(Metric::RequestsThrottled);
            let error = UpstreamError { message: "too many requests".into(), ..UpstreamError::internal() };
            return self.answer_error(now, conn, &request, &error);
        }
        let started = {
            let Some(session) = self.registry.session_mut(conn) else {
                return;
            };
            session.requests.get_or_insert_default().start(order(&request))
        };
        if started {
            let order = order(&request);
            if self.start(now, conn, &request) == Started::Answered {
                self.finish(now, conn, order);
            }
            return;
        }
        let session = self.registry.sessions.get_mut(conn.0);
        let Some(requests) = session.and_then(|s| s.requests.as_mut()) else {
            return;
        };
        let before = requests.waiting_bytes();
        let fits = requests.wait(request);
        self.registry.inbound_bytes += requests.waiting_bytes() - before;
        if !fits {
            self.end(now, conn, Disconnect::TooManyRequests);
        }
    }

    /// Begins a request that has its place in flight. The caller gives the place back if it was answered at once.
    fn start(&mut self, now: Now, conn: ConnId, request: &Request) -> Started {
        let session = self.registry.session(conn);
        let Some((session, user)) = session.and_then(|s| Some((s, self.registry.user_of(s)?))) else {
            return Started::Asked; // evicted: the kick that is on its way answers everything
        };
        let metadata = metadata(&request.operation_id, user, session.platform, session.connection_id_hex());
        let question = if request.id == SUBSCRIBE {
            self.subscribe(conn, request)
        } else {
            let forward = |method| UpstreamRequest::Forward { method, data: request.data.clone() };
            method(request.id).map(forward).ok_or_else(UpstreamError::internal)
        };
        if let Ok(UpstreamRequest::UserStatus { users }) = &question
            && users.is_empty()
        {
            // It only unsubscribed: upstream looks nobody up, so that nothing can fail or hang (spec 3.5).
            let empty = response(request.id, &request.msg_incr, &request.operation_id);
            self.answer(now, conn, &Response { data: Some(&[]), ..empty });
            return Started::Answered;
        }
        let asked = question.and_then(|question| {
            let (msg_incr, operation_id) = (request.msg_incr.clone(), request.operation_id.clone());
            let pending = Pending::Request { id: request.id, msg_incr, operation_id };
            self.call(now, conn, pending, (metadata, question))
                .then_some(())
                .ok_or_else(UpstreamError::internal)
        });
        match asked {
            Ok(()) => Started::Asked,
            Err(error) => {
                self.answer_error(now, conn, request, &error);
                if request.id == LOGOUT {
                    self.end(now, conn, Disconnect::Logout);
                }
                Started::Answered
            }
        }
    }

    /// 2004 (spec 3.5): local; its only effect is the iOS rule of pushes.
    fn set_background(&mut self, now: Now, conn: ConnId, request: &Request) {
        let Ok(body) = SetAppBackgroundStatusReq::decode(request.data.clone()) else {
            return self.answer_error(now, conn, request, &UpstreamError::internal());
        };
        if let Some(session) = self.registry.session_mut(conn) {
            session.background = body.is_background;
        }
        self.answer(now, conn, &response(request.id, &request.msg_incr, &request.operation_id));
    }

    /// 2005 (spec 3.5): first removes, then adds, then asks for the current state of what was added.
    fn subscribe(&mut self, conn: ConnId, request: &Request) -> Result<UpstreamRequest, UpstreamError> {
        let body =
            SubUserOnlineStatus::decode(request.data.clone()).map_err(|_| UpstreamError::internal())?;
        let session = self.registry.sessions.get_mut(conn.0).ok_or_else(UpstreamError::internal)?;
        for user in &body.unsubscribe_user_id {
            self.subscriptions.remove(session, conn, user);
        }
        for user in &body.subscribe_user_id {
            if !self.subscriptions.add(session, conn, user) {
                let detail = format!("at most {} users can be watched", limits::SUBSCRIPTIONS_MAX);
                return Err(UpstreamError::args(&detail));
            }
        }
        let users = body.subscribe_user_id.into_iter().map(String::into_boxed_str).collect();
        Ok(UpstreamRequest::UserStatus { users })
    }

    /// A reply from upstream.
    pub(super) fn reply(&mut self, now: Now, reply: UpstreamReply) {
        match self.calls.reply(reply.ticket) {
            Some((conn, pending)) => self.replied(now, conn, pending, reply.outcome),
            None => self.tally.count(Metric::UpstreamLate),
        }
    }

    /// Calls whose deadline has passed get an error in the reply's place.
    pub(super) fn expire_calls(&mut self, now: Now) {
        while let Some((conn, pending)) = self.calls.pop_expired(now.mono) {
            self.tally.count(Metric::UpstreamTimeouts);
            self.replied(now, conn, pending, UpstreamOutcome::Failed(UpstreamError::internal()));
        }
    }

    fn replied(&mut self, now: Now, conn: ConnId, pending: Pending, outcome: UpstreamOutcome) {
        let (id, msg_incr, operation_id) = match pending {
            Pending::Token => return self.token_checked(now, conn, outcome),
            Pending::Request { id, msg_incr, operation_id } => (id, msg_incr, operation_id),
        };
        let empty = response(id, &msg_incr, &operation_id);
        let data: Result<Bytes, UpstreamError> = match outcome {
            UpstreamOutcome::Data(data) => Ok(data),
            UpstreamOutcome::Statuses(statuses) => Ok(tips(&statuses)),
            UpstreamOutcome::Failed(error) => Err(error),
            UpstreamOutcome::Token { .. } => Err(UpstreamError::internal()),
        };
        match &data {
            Ok(data) => self.answer(now, conn, &Response { data: Some(data), ..empty }),
            Err(error) => self.answer(now, conn, &failed(empty, error)),
        }
        if id == LOGOUT {
            // The reply goes out whatever the service said, then the connection closes (spec 3.2 rule 8).
            return self.end(now, conn, Disconnect::Logout);
        }
        self.finish(now, conn, if id == SEND_MSG { Order::Serial } else { Order::Free });
    }

    /// Gives a place in flight back and starts what waited for it. A loop, since clients decide how many waiting
    /// requests in a row fail at once: a call within the call would let them choose the depth of the stack.
    fn finish(&mut self, now: Now, conn: ConnId, order_done: Order) {
        let mut done = order_done;
        loop {
            let session = self.registry.sessions.get_mut(conn.0).filter(|s| s.phase == Phase::Open);
            let Some(session) = session else { return };
            let Some(requests) = &mut session.requests else {
                return;
            };
            requests.finish(done);
            let before = requests.waiting_bytes();
            let next = requests.next_ready(order);
            self.registry.inbound_bytes -= before - requests.waiting_bytes();
            let Some(next) = next else {
                if requests.is_idle() {
                    session.requests = None;
                    if session.draining {
                        self.send_away(now, conn);
                    }
                }
                return;
            };
            done = order(&next);
            requests.start(done);
            if self.start(now, conn, &next) == Started::Asked {
                return;
            }
        }
    }

    fn answer_error(&mut self, now: Now, conn: ConnId, request: &Request, error: &UpstreamError) {
        let empty = response(request.id, &request.msg_incr, &request.operation_id);
        self.answer(now, conn, &failed(empty, error));
    }

    fn answer(&mut self, now: Now, conn: ConnId, response: &Response<'_>) {
        let Some(session) = self.registry.session(conn).filter(|s| s.phase == Phase::Open) else {
            return;
        };
        let metric = if response.err_code == 0 { Metric::Requests } else { Metric::RequestsFailed };
        self.tally.count(metric);
        let variant = session.variant;
        self.follow.note(now, conn, || What::Answer {
            id: response.id,
            operation_id: cut(response.operation_id),
            code: response.err_code,
        });
        let mut frame = self.encoder.envelope(&mut self.recorder, variant, response);
        if frame.bytes().len() > limits::FRAME_SENT_BYTES_MAX {
            // The SDK would drop the connection, reconnect and ask again, for ever (spec trap 9).
            self.tally.count(Metric::FramesTooLarge);
            let error = UpstreamError { message: "reply too large".into(), ..UpstreamError::internal() };
            frame = self.encoder.envelope(&mut self.recorder, variant, &failed(*response, &error));
        }
        self.trace.note(
            Note::Queued,
            &[response.id.unsigned_abs().into(), response.err_code.unsigned_abs().into()],
        );
        self.queue(now, conn, frame);
    }
}

/// The RPC of a request identifier; `None`: not forwarded.
fn method(id: i32) -> Option<Method> {
    Some(match id {
        1001 => Method::GetMaxSeq,
        1002 => Method::PullMessageBySeqs,
        SEND_MSG => Method::SendMsg,
        1004 => Method::SendSignalMsg,
        1005 => Method::GetSeqMessage,
        1006 => Method::GetConversationsHasReadAndMaxSeq,
        1007 => Method::GetLastMessage,
        LOGOUT => Method::DelUserPushToken,
        _ => return None,
    })
}

/// A logout keeps its place behind the SendMsg before it: it ends the connection, and those still waiting with it.
fn order(request: &Request) -> Order {
    if matches!(request.id, SEND_MSG | LOGOUT) { Order::Serial } else { Order::Free }
}

/// Spec 3.2 rule 6: these four also want every string of the envelope.
fn needs_all_fields(id: i32) -> bool {
    matches!(id, 1002 | 1005 | 1006 | SET_BACKGROUND)
}

fn has_all_fields(request: &Request) -> bool {
    !request.send_id.is_empty() && !request.operation_id.is_empty() && !request.msg_incr.is_empty()
}

fn response<'a>(id: i32, msg_incr: &'a str, operation_id: &'a str) -> Response<'a> {
    Response { id, msg_incr, operation_id, ..Response::default() }
}

fn failed<'a>(empty: Response<'a>, error: &'a UpstreamError) -> Response<'a> {
    Response { err_code: error.code, err_msg: &error.message, data: None, ..empty }
}

/// The payload of a 2005 frame.
pub(super) fn tips(statuses: &[UserPlatforms]) -> Bytes {
    let element = |status: &UserPlatforms| SubUserOnlineStatusElem {
        user_id: status.user.to_string(),
        online_platform_i_ds: status.platforms.clone(),
    };
    SubUserOnlineStatusTips { subscribers: statuses.iter().map(element).collect() }.encode_to_vec().into()
}

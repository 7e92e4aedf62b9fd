//! A frame of words, or why not.

use bytes::Bytes;
use prost::Message;

use super::{CodecFault, VERSION};
use crate::cluster::fields::Fields;
use crate::cluster::protocol::frame::{
    Answer, Attempt, Body, Claim, Class, Conn, Copy, Device, Frame, Generation, Hello, Key, Known, Marked,
    PushId, Seat, Token, TokenDigest, TokenMarks, TokenName, Verdict,
};
use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
use crate::ids::{Platform, Text};
use crate::limits::{
    LINK_ANSWER_BYTES_MAX, LINK_BATCH_BYTES, LINK_BATCH_FRAMES_MAX, LINK_KNOWS_MAX, LINK_RECIPIENTS_MAX,
};
use crate::pb::pinion::peer as pb;
use crate::pb::pinion::peer::frame::Body as Word;
use crate::placement::Fingerprint;
use crate::placement::view::{Epoch, Incarnation, NodeId};

/// Field numbers of the file.
mod field {
    pub(super) const GENERATION: u32 = 1;
    pub(super) const FRAMES: u32 = 2;
    pub(super) const SEEN: u32 = 1;
    pub(super) const HELLO: u32 = 2;
    pub(super) const HELLO_ACK: u32 = 3;
    pub(super) const ROUTE: u32 = 11;
    pub(super) const ROUTE_REPLY: u32 = 12;
    pub(super) const NOT_HOME: u32 = 13;
    pub(super) const DELIVER: u32 = 14;
    pub(super) const DELIVER_AGAIN: u32 = 15;
    pub(super) const DELIVER_REPLY: u32 = 16;
    pub(super) const COPY_RECIPIENTS: u32 = 3;
    pub(super) const NOT_HOME_RECIPIENTS: u32 = 2;
}

/// The frames of one message of a peer, in order, at least one.
///
/// # Errors
/// See [`CodecFault`].
pub fn decode(message: Bytes) -> Result<Vec<Frame>, CodecFault> {
    let bytes = message.len();
    let (mut generation, mut frames) = (None, Vec::new());
    for entry in Fields::of(message) {
        let (number, value) = entry?;
        match number {
            field::GENERATION => generation = Some(value.bytes()?),
            field::FRAMES => frames.push(value.bytes()?),
            _ => {} // of a later version
        }
        if frames.len() > LINK_BATCH_FRAMES_MAX || (frames.len() > 1 && bytes > LINK_BATCH_BYTES) {
            return Err(CodecFault::Rule("more frames in one message than are taken"));
        }
    }
    let generation = generation.ok_or(CodecFault::Rule("no generation"))?;
    let generation = pb::Generation::decode(generation).map_err(undecodable)?;
    let generation = Generation {
        dialler: Incarnation(generation.dialler),
        count: generation.count,
        acceptor: Incarnation(generation.acceptor),
    };
    if frames.is_empty() {
        return Err(CodecFault::Rule("a message without a frame"));
    }
    frames.into_iter().map(|frame| read(generation, frame)).collect()
}

fn undecodable(error: prost::DecodeError) -> CodecFault {
    CodecFault::Undecodable(error.to_string())
}

fn read(generation: Generation, bytes: Bytes) -> Result<Frame, CodecFault> {
    if bytes.len() > LINK_BATCH_BYTES {
        judge_large(&bytes)?;
    }
    let frame = pb::Frame::decode(bytes).map_err(undecodable)?;
    let body = frame.body.ok_or(CodecFault::Rule("a frame that says nothing known here"))?;
    Ok(Frame { generation, seen: frame.seen, body: read_body(body)? })
}

/// What decoding it would cost is known from its outline.
fn judge_large(bytes: &Bytes) -> Result<(), CodecFault> {
    for entry in Fields::of(bytes.clone()) {
        let (number, value) = entry?;
        let list = match number {
            field::ROUTE | field::DELIVER | field::DELIVER_AGAIN => field::COPY_RECIPIENTS,
            field::NOT_HOME => field::NOT_HOME_RECIPIENTS,
            field::HELLO | field::HELLO_ACK | field::ROUTE_REPLY | field::DELIVER_REPLY
                if bytes.len() <= LINK_ANSWER_BYTES_MAX =>
            {
                continue;
            }
            field::SEEN => continue,
            _ => return Err(CodecFault::Rule("larger than such a frame may be")),
        };
        let mut entries = 0;
        for inner in Fields::of(value.bytes()?) {
            entries += usize::from(inner?.0 == list);
            if entries > LINK_RECIPIENTS_MAX {
                return Err(CodecFault::Rule("too many recipients"));
            }
        }
    }
    Ok(())
}

fn read_body(word: Word) -> Result<Body, CodecFault> {
    Ok(match word {
        Word::Hello(said) => Body::Hello(hello(said)?),
        Word::HelloAck(said) => Body::HelloAck(hello(said)?),
        Word::Beat(number) => Body::Beat(number),
        Word::Claim(said) => Body::Claim(claim(said)?),
        Word::ClaimAck(said) => Body::ClaimAck { number: said.number, time: said.time },
        Word::Confirm(said) => Body::Confirm { number: said.number, key: needed_key(said.key)? },
        Word::Unclaim(number) => Body::Unclaim(number),
        Word::Declare(said) => {
            Body::Declare { number: said.number, fingerprint: Fingerprint(said.fingerprint) }
        }
        Word::DeclareAck(number) => Body::DeclareAck(number),
        Word::Route(said) => Body::Route(copy(said)?),
        Word::RouteReply(said) => Body::RouteReply { leg: said.leg, verdicts: all(said.verdicts, verdict)? },
        Word::NotHome(said) => {
            let home = if said.home.is_empty() { None } else { Some(node(&said.home)?) };
            let seat = Seat { epoch: Epoch(said.epoch), home };
            Body::NotHome { leg: said.leg, recipients: texts(said.recipients), seat }
        }
        Word::Deliver(said) => Body::Deliver { copy: copy(said)?, attempt: Attempt::First },
        Word::DeliverAgain(said) => Body::Deliver { copy: copy(said)?, attempt: Attempt::Second },
        Word::DeliverReply(said) => Body::DeliverReply { leg: said.leg, answers: all(said.answers, answer)? },
        Word::Kick(said) => Body::Kick { number: said.number, winner: needed_key(said.winner)? },
        Word::Met(said) => Body::Met(key(said)?),
        Word::Marks(said) => Body::Marks(marks(said)?),
        Word::Goodbye(pb::Goodbye {}) => Body::Goodbye,
    })
}

fn all<T, U>(said: Vec<T>, read: fn(T) -> Result<U, CodecFault>) -> Result<Vec<U>, CodecFault> {
    said.into_iter().map(read).collect()
}

fn node(text: &str) -> Result<NodeId, CodecFault> {
    NodeId::new(text).map_err(|_| CodecFault::Rule("no node id where one must be"))
}

fn hello(said: pb::Hello) -> Result<Hello, CodecFault> {
    if said.version != VERSION {
        return Err(CodecFault::Version(said.version));
    }
    if said.knows.len() > LINK_KNOWS_MAX {
        return Err(CodecFault::Rule("a Hello names too many nodes"));
    }
    Ok(Hello {
        node: node(&said.node)?,
        incarnation: Incarnation(said.incarnation),
        first_epoch: Epoch(said.first_epoch),
        registered_epoch: Epoch(said.registered_epoch),
        view_epoch: Epoch(said.view_epoch),
        fingerprint: Fingerprint(said.fingerprint),
        knows: all(said.knows, known)?,
    })
}

fn known(said: pb::Known) -> Result<Known, CodecFault> {
    Ok(Known {
        node: node(&said.node)?,
        incarnation: Incarnation(said.incarnation),
        rpc_addr: said.rpc_addr.into(),
    })
}

fn key(said: pb::Key) -> Result<Key, CodecFault> {
    Ok(Key { time: said.time, node: node(&said.node)?, number: said.number })
}

fn needed_key(said: Option<pb::Key>) -> Result<Key, CodecFault> {
    said.ok_or(CodecFault::Rule("no key where one must be")).and_then(key)
}

fn claim(said: pb::Claim) -> Result<Claim, CodecFault> {
    let class = |class| u8::try_from(class).map(Class).map_err(|_| CodecFault::Rule("a class above 255"));
    Ok(Claim {
        number: said.number,
        user: said.user.into(),
        class: said.class.map(class).transpose()?,
        token: said.token.map(TokenName),
        key: said.key.map(key).transpose()?,
    })
}

fn marks(said: pb::Marks) -> Result<TokenMarks, CodecFault> {
    let digest = |bytes: Bytes| match <[u8; 16]>::try_from(bytes.as_ref()) {
        Ok(digest) => Ok(TokenDigest(digest)),
        Err(_) => Err(CodecFault::Rule("a token's digest is 16 bytes")),
    };
    let which = match said.preserved {
        Some(preserved) if said.ended.is_empty() => Marked::AllBut(digest(preserved)?),
        Some(_) => return Err(CodecFault::Rule("marks of both kinds at once")),
        None => Marked::These(said.ended.into_iter().map(digest).collect::<Result<_, _>>()?),
    };
    let platform = Platform::new(said.platform.into()).ok_or(CodecFault::Rule("no platform"))?;
    Ok(TokenMarks { user: said.user.into(), platform, which })
}

fn copy(said: pb::Copy) -> Result<Copy, CodecFault> {
    let push = said.push.ok_or(CodecFault::Rule("a copy without the name of its push"))?;
    let push =
        PushId { node: node(&push.node)?, incarnation: Incarnation(push.incarnation), number: push.number };
    Ok(Copy { leg: said.leg, push, recipients: texts(said.recipients), payload: said.payload })
}

fn texts(all: Vec<String>) -> Vec<Text> {
    all.into_iter().map(Text::from).collect()
}

fn verdict(said: pb::Verdict) -> Result<Verdict, CodecFault> {
    Ok(Verdict {
        user: said.user.into(),
        results: all(said.results, result)?,
        complete: said.complete,
        unaccounted: said.unaccounted.iter().map(|id| node(id)).collect::<Result<_, _>>()?,
    })
}

fn answer(said: pb::Answer) -> Result<(Text, Answer), CodecFault> {
    let known = all(said.results, result)?;
    match (said.unknown, known.is_empty()) {
        (false, _) => Ok((said.user.into(), Answer::Known(known))),
        (true, true) => Ok((said.user.into(), Answer::Unknown)),
        (true, false) => Err(CodecFault::Rule("an unknown answer with results")),
    }
}

fn result(said: pb::Result) -> Result<(Conn, Device), CodecFault> {
    let conn =
        Conn { node: node(&said.node)?, incarnation: Incarnation(said.incarnation), number: said.number };
    let said = said.device.ok_or(CodecFault::Rule("a result without a device"))?;
    let outcome = match pb::Outcome::try_from(said.outcome) {
        Ok(pb::Outcome::Written) => DeviceOutcome::Written,
        Ok(pb::Outcome::Queued) => DeviceOutcome::Queued,
        Ok(pb::Outcome::Dropped) => DeviceOutcome::Dropped,
        Ok(pb::Outcome::Kicked) => DeviceOutcome::Kicked,
        Ok(pb::Outcome::Expired) => DeviceOutcome::Expired,
        Ok(pb::Outcome::TooLarge) => DeviceOutcome::TooLarge,
        Ok(pb::Outcome::Background) => DeviceOutcome::Background,
        Ok(pb::Outcome::Unspecified) | Err(_) => return Err(CodecFault::Rule("an unknown outcome")),
    };
    let platform = Platform::new(said.platform.into()).ok_or(CodecFault::Rule("no platform"))?;
    let connection_id = said.connection_id.as_ref().try_into();
    let connection_id = connection_id.map_err(|_| CodecFault::Rule("a connection id is 16 bytes"))?;
    let number = conn.number;
    let verdict = DeviceVerdict { number, platform, connection_id, outcome };
    let token = said.token.map(|token| Token(token.into_boxed_str()));
    Ok((conn, Device { verdict, token }))
}

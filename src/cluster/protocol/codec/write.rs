//! The words of a frame.

use super::VERSION;
use crate::cluster::protocol::frame::{
    Answer, Attempt, Body, Claim, Conn, Copy, Device, Frame, Generation, Hello, Key, Marked, PushId, Token,
    TokenDigest, TokenMarks, Verdict,
};
use crate::hub::mail::DeviceOutcome;
use crate::ids::Text;
use crate::limits::{LINK_KNOWS_MAX, LINK_PART_BYTES};
use crate::pb::pinion::peer as pb;
use crate::pb::pinion::peer::frame::Body as Word;
use prost::Message;

/// The frame, in parts if it is a long answer; at least one.
pub(super) fn words(frame: Frame) -> Vec<pb::Frame> {
    let seen = frame.seen;
    let parts = match frame.body {
        Body::RouteReply { leg, verdicts } => {
            let said = |verdicts| Word::RouteReply(pb::RouteReply { leg, verdicts });
            parts(verdicts.into_iter().map(verdict)).into_iter().map(said).collect()
        }
        Body::DeliverReply { leg, answers } => {
            let said = |answers| Word::DeliverReply(pb::DeliverReply { leg, answers });
            parts(answers.into_iter().map(answer)).into_iter().map(said).collect()
        }
        body => vec![word(body)],
    };
    parts.into_iter().map(|body| pb::Frame { seen, body: Some(body) }).collect()
}

/// Runs of about [`LINK_PART_BYTES`]; one empty run if there is nothing.
fn parts<T: Message>(all: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for one in all {
        let length = one.encoded_len();
        if bytes + length > LINK_PART_BYTES && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += length;
        part.push(one);
    }
    if parts.is_empty() || !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn word(body: Body) -> Word {
    match body {
        Body::Hello(said) => Word::Hello(hello(said)),
        Body::HelloAck(said) => Word::HelloAck(hello(said)),
        Body::Beat(number) => Word::Beat(number),
        Body::Claim(said) => Word::Claim(claim(said)),
        Body::ClaimAck { number, time } => Word::ClaimAck(pb::ClaimAck { number, time }),
        Body::Confirm { number, key: of } => Word::Confirm(pb::Confirm { number, key: Some(key(of)) }),
        Body::Unclaim(number) => Word::Unclaim(number),
        Body::Declare { number, fingerprint } => {
            Word::Declare(pb::Declare { number, fingerprint: fingerprint.0 })
        }
        Body::DeclareAck(number) => Word::DeclareAck(number),
        Body::Route(said) => Word::Route(copy(said)),
        Body::RouteReply { leg, verdicts } => {
            Word::RouteReply(pb::RouteReply { leg, verdicts: verdicts.into_iter().map(verdict).collect() })
        }
        Body::NotHome { leg, recipients, seat } => Word::NotHome(pb::NotHome {
            leg,
            recipients: texts(&recipients),
            epoch: seat.epoch.0,
            home: seat.home.map(String::from).unwrap_or_default(),
        }),
        Body::Deliver { copy: said, attempt: Attempt::First } => Word::Deliver(copy(said)),
        Body::Deliver { copy: said, attempt: Attempt::Second } => Word::DeliverAgain(copy(said)),
        Body::DeliverReply { leg, answers } => {
            Word::DeliverReply(pb::DeliverReply { leg, answers: answers.into_iter().map(answer).collect() })
        }
        Body::Kick { number, winner } => Word::Kick(pb::Kick { number, winner: Some(key(winner)) }),
        Body::Met(of) => Word::Met(key(of)),
        Body::Marks(said) => Word::Marks(marks(said)),
        Body::Goodbye => Word::Goodbye(pb::Goodbye {}),
    }
}

/// Of a batch.
pub(super) fn generation(of: Generation) -> pb::Generation {
    pb::Generation { dialler: of.dialler.0, count: of.count, acceptor: of.acceptor.0 }
}

fn hello(said: Hello) -> pb::Hello {
    let known = said.knows.into_iter().take(LINK_KNOWS_MAX).map(|known| pb::Known {
        node: known.node.into(),
        incarnation: known.incarnation.0,
        rpc_addr: known.rpc_addr.as_str().to_owned(),
    });
    pb::Hello {
        version: VERSION,
        incarnation: said.incarnation.0,
        first_epoch: said.first_epoch.0,
        registered_epoch: said.registered_epoch.0,
        view_epoch: said.view_epoch.0,
        fingerprint: said.fingerprint.0,
        knows: known.collect(),
        node: said.node.into(),
    }
}

fn key(of: Key) -> pb::Key {
    pb::Key { time: of.time, node: of.node.into(), number: of.number }
}

fn claim(said: Claim) -> pb::Claim {
    pb::Claim {
        number: said.number,
        user: said.user.as_str().to_owned(),
        class: said.class.map(|class| class.0.into()),
        token: said.token.map(|token| token.0),
        key: said.key.map(key),
    }
}

fn marks(said: TokenMarks) -> pb::Marks {
    let bytes = |TokenDigest(digest): TokenDigest| digest.to_vec().into();
    let (preserved, ended) = match said.which {
        Marked::AllBut(preserved) => (Some(bytes(preserved)), Vec::new()),
        Marked::These(ended) => (None, ended.into_iter().map(bytes).collect()),
    };
    pb::Marks { user: said.user.as_str().to_owned(), platform: said.platform.id(), preserved, ended }
}

fn push(id: PushId) -> pb::PushId {
    pb::PushId { node: id.node.into(), incarnation: id.incarnation.0, number: id.number }
}

fn copy(said: Copy) -> pb::Copy {
    pb::Copy {
        leg: said.leg,
        push: Some(push(said.push)),
        recipients: texts(&said.recipients),
        payload: said.payload,
    }
}

fn texts(all: &[Text]) -> Vec<String> {
    all.iter().map(|text| text.as_str().to_owned()).collect()
}

fn verdict(of: Verdict) -> pb::Verdict {
    pb::Verdict {
        user: of.user.as_str().to_owned(),
        results: of.results.into_iter().map(result).collect(),
        complete: of.complete,
        unaccounted: of.unaccounted.into_iter().map(String::from).collect(),
    }
}

fn answer((user, said): (Text, Answer)) -> pb::Answer {
    let (unknown, results) = match said {
        Answer::Known(results) => (false, results.into_iter().map(result).collect()),
        Answer::Unknown => (true, Vec::new()),
    };
    pb::Answer { user: user.as_str().to_owned(), unknown, results }
}

fn result((conn, Device { verdict, token }): (Conn, Device)) -> pb::Result {
    let outcome = match verdict.outcome {
        DeviceOutcome::Written => pb::Outcome::Written,
        DeviceOutcome::Queued => pb::Outcome::Queued,
        DeviceOutcome::Dropped => pb::Outcome::Dropped,
        DeviceOutcome::Kicked => pb::Outcome::Kicked,
        DeviceOutcome::Expired => pb::Outcome::Expired,
        DeviceOutcome::TooLarge => pb::Outcome::TooLarge,
        DeviceOutcome::Background => pb::Outcome::Background,
    };
    let device = pb::Device {
        platform: verdict.platform.id(),
        connection_id: verdict.connection_id.to_vec().into(),
        outcome: outcome.into(),
        token: token.map(|Token(token)| token.into_string()),
    };
    pb::Result {
        node: conn.node.into(),
        incarnation: conn.incarnation.0,
        number: conn.number,
        device: Some(device),
    }
}

//! What is asked of the nodes that hold a user's connections, as the bytes that routers carry
//! (`proto/pinion/copy/v1`): made once at the entry node.

use bytes::Bytes;
use prost::Message;

use crate::cluster::fields::Fields;
use crate::hub::mail::{PushBody, PushRules, Report};
use crate::ids::{Platform, SourceId, Text};
use crate::pb::pinion::copy::{self as pb, payload::What};
use crate::time::Mono;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Deliver a message.
    Push(Box<PushErrand>),
    /// End the connections of this platform.
    Kick(Platform),
    /// Tell of connections.
    Status,
    /// Tell whether this message of OpenIM's push service came to the node.
    Heard(Text),
}

/// A message on its way to a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PushErrand {
    pub(super) body: PushBody,
    /// Of the entry node.
    pub(super) source: SourceId,
    pub(super) rules: PushRules,
    /// The message's own id, if whoever had it shall not get it again.
    pub(super) once: Option<Text>,
}

impl Errand {
    /// The bytes. Times are told as what is left at `now`.
    pub(super) fn encode(&self, now: Mono) -> Bytes {
        let what = match self {
            Self::Kick(platform) => What::Kick(pb::Kick { platform: platform.id() }),
            Self::Status => What::Status(pb::Status {}),
            Self::Heard(message) => What::Heard(pb::Heard { message: message.as_str().to_owned() }),
            Self::Push(push) => {
                let PushErrand { body, source, rules, once } = &**push;
                let left = rules.expires.map(|at| at.since_ms(now).max(1));
                What::Push(pb::Push {
                    msg_data: body.msg_data.clone(),
                    operation_id: body.operation_id.as_str().to_owned(),
                    conversation: body.conversation.to_string(),
                    source: source.0,
                    when_queued: rules.report == Report::Queued,
                    only_if_online: rules.only_if_online,
                    expire_after_ms: left.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX)),
                    once: once.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
                })
            }
        };
        pb::Payload { what: Some(what) }.encode_to_vec().into()
    }

    /// Reads them at `now`. `None`: of a kind that this version does not know.
    pub(super) fn decode(bytes: Bytes, now: Mono) -> Option<Self> {
        match pb::Payload::decode(bytes).ok()?.what? {
            What::Kick(kick) => Platform::new(i64::from(kick.platform)).map(Self::Kick),
            What::Status(_) => Some(Self::Status),
            What::Heard(heard) => Some(Self::Heard(heard.message.as_str().into())),
            What::Push(push) => {
                let ms = u64::from(push.expire_after_ms);
                let report = if push.when_queued { Report::Queued } else { Report::Each };
                let expires = (ms > 0).then(|| now.plus_ms(ms));
                Some(Self::Push(Box::new(PushErrand {
                    body: PushBody {
                        operation_id: push.operation_id.as_str().into(),
                        conversation: push.conversation.into(),
                        msg_data: push.msg_data,
                        frames: None,
                    },
                    source: SourceId(push.source),
                    rules: PushRules { report, only_if_online: push.only_if_online, expires },
                    once: Some(push.once).filter(|id| !id.is_empty()).map(|id| id.as_str().into()),
                })))
            }
        }
    }
}

/// Fields of `sdkws.MsgData` that name a message (spec A).
const CLIENT_MESSAGE_ID: u32 = 4;
const SERVER_MESSAGE_ID: u32 = 5;

/// What names a message for all time: the id that OpenIM gave it, else its sender's. `None`: it has neither.
pub(super) fn message_id(msg_data: &Bytes) -> Option<Text> {
    let (mut client, mut server) = (None, None);
    for field in Fields::of(msg_data.clone()) {
        match field.ok()? {
            (CLIENT_MESSAGE_ID, value) => client = value.text().ok(),
            (SERVER_MESSAGE_ID, value) => server = value.text().ok(),
            _ => {}
        }
    }
    [server, client].into_iter().flatten().find(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::openim::sdkws::MsgData;

    #[test]
    fn an_errand_is_read_as_it_was_written() {
        let push = |rules, once: Option<&str>| {
            Errand::Push(Box::new(PushErrand {
                body: PushBody {
                    operation_id: "op".into(),
                    conversation: "si_a_b".into(),
                    msg_data: Bytes::from_static(b"\x0a\x01a"),
                    frames: None,
                },
                source: SourceId(7),
                rules,
                once: once.map(Text::from),
            }))
        };
        let each = PushRules { report: Report::Each, only_if_online: true, expires: Some(Mono(140)) };
        for errand in [
            push(PushRules::default(), Some("m1")),
            push(each, None),
            Errand::Kick(Platform::IOS),
            Errand::Status,
            Errand::Heard("m1".into()),
        ] {
            assert_eq!(Errand::decode(errand.encode(Mono(40)), Mono(40)), Some(errand));
        }
        // 100 ms are left, by whatever clock.
        let Some(Errand::Push(read)) = Errand::decode(push(each, None).encode(Mono(40)), Mono(1_000)) else {
            panic!("a push");
        };
        assert_eq!(read.rules.expires, Some(Mono(1_100)));
        assert_eq!(Errand::decode(Bytes::from_static(b"\xfa\x01\x00"), Mono(0)), None, "of a later version");
    }

    #[test]
    fn totals_are_summed_where_the_push_came_in() {
        let rules = PushRules { report: Report::Totals, ..PushRules::default() };
        let body = PushBody {
            operation_id: Text::default(),
            conversation: "".into(),
            msg_data: Bytes::new(),
            frames: None,
        };
        let errand = Errand::Push(Box::new(PushErrand { body, source: SourceId(1), rules, once: None }));
        let Some(Errand::Push(read)) = Errand::decode(errand.encode(Mono(0)), Mono(0)) else {
            panic!("a push");
        };
        assert_eq!(read.rules.report, Report::Each);
    }

    #[test]
    fn a_message_is_named_by_openim_before_its_sender() {
        let id = |client: &str, server: &str| {
            let data =
                MsgData { client_msg_id: client.into(), server_msg_id: server.into(), ..MsgData::default() };
            message_id(&data.encode_to_vec().into()).map(|id| id.as_str().to_owned())
        };
        assert_eq!(id("c", "s").as_deref(), Some("s"));
        assert_eq!(id("c", "").as_deref(), Some("c"));
        assert_eq!(id("", ""), None);
        assert_eq!(message_id(&Bytes::from_static(b"\x0a")), None);
    }
}

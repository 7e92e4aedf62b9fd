//! The thin path without a socket: two hubs, the router and the embedded backend. One user logs in and sends, the
//! other, on another shard, reads the push; what he missed he can ask for.

use std::collections::BTreeMap;

use pinion::backend::embedded::{Embedded, EmbeddedConfig};
use pinion::backend::token;
use pinion::cluster::router::{Push, Router, To};
use pinion::hub::HubConfig;
use pinion::hub::Input;
use pinion::hub::mail::{PushBody, PushRules, ShardMail};
use pinion::ids::{ConnId, Ownership, Platform, RpcId, ShardId, SourceId};
use pinion::pb::openim::msg::SendMsgResp;
use pinion::pb::openim::sdkws::{GetMaxSeqReq, GetMaxSeqResp, MsgData, PushMessages};
use pinion::placement::view::View;
use prost::Message;

use crate::rig::{Rig, Seen, config, reply};

const SECRET: &str = "openIM123";

/// A node of two shards with its backend.
struct Node {
    rigs: Vec<Rig>,
    ownership: Ownership,
    router: Router,
    backend: Embedded,
}

impl Node {
    fn new() -> Self {
        let ownership = Ownership::new([1, 2], 2);
        let rig = |shard| Rig::new(HubConfig { shard: ShardId(shard), ..config() });
        Self {
            rigs: vec![rig(0), rig(1)],
            router: Router::new(RpcId(0), View::of_one_node(ownership.clone()), 10),
            ownership,
            backend: Embedded::new(EmbeddedConfig::new(SECRET)),
        }
    }

    fn owner(&self, user: &str) -> usize {
        usize::from(self.ownership.owner(user).0)
    }

    /// A user of each shard.
    fn pair(&self) -> (String, String) {
        let user_of = |shard| {
            let mut names = (0..).map(|n| format!("user{n}"));
            names.find(|name| self.owner(name) == shard).unwrap()
        };
        (user_of(0), user_of(1))
    }

    fn token(&self, user: &str) -> Box<str> {
        let issued = token::issue(SECRET, user, Platform::ANDROID, self.rigs[0].now.unix, 3600);
        issued.unwrap().into()
    }

    fn log_in(&mut self, user: &str) -> ConnId {
        let (owner, token) = (self.owner(user), self.token(user));
        let mut login = self.rigs[owner].arguments(user, Platform::ANDROID);
        login.token = token;
        let conn = self.rigs[owner].accept(login).unwrap();
        self.settle();
        let seen = self.read(user, conn);
        assert!(matches!(&seen[..], [Seen::Http(head)] if head.starts_with("HTTP/1.1 101 ")), "{seen:?}");
        conn
    }

    fn read(&mut self, user: &str, conn: ConnId) -> Vec<Seen> {
        let owner = self.owner(user);
        self.rigs[owner].read(conn)
    }

    fn ask<T: Message + Default>(
        &mut self,
        (user, conn): (&str, ConnId),
        id: i32,
        request: &impl Message,
    ) -> T {
        let owner = self.owner(user);
        self.rigs[owner].request(conn, user, (id, "asked"), &request.encode_to_vec());
        self.settle();
        let seen = self.read(user, conn);
        assert_eq!((reply(&seen).id, reply(&seen).err_code), (id, 0), "{seen:?}");
        T::decode(reply(&seen).data.clone().unwrap()).unwrap()
    }

    /// Carries mail until nobody has any.
    fn settle(&mut self) {
        for _ in 0..10 {
            for shard in 0..self.rigs.len() {
                self.rigs[shard].turn();
                self.carry_presence(shard);
                for call in self.rigs[shard].calls() {
                    let now = self.rigs[shard].now;
                    let answer = self.backend.call(now, &call);
                    if let Some(reply) = answer.reply {
                        self.rigs[shard].input(Input::UpstreamReply(reply));
                    }
                    for push in answer.pushes {
                        let push = Push {
                            source: SourceId(0),
                            body: PushBody {
                                operation_id: push.operation_id,
                                conversation: push.conversation,
                                msg_data: push.msg_data,
                                frames: None,
                            },
                            to: To::Users(push.users),
                            rules: PushRules::default(),
                            deadline: now.mono.plus_ms(10_000),
                        };
                        for (to, mail) in self.router.push_unwaited(&push) {
                            self.rigs[usize::from(to.0)].input(Input::Mail(mail));
                        }
                    }
                }
            }
        }
    }

    fn carry_presence(&mut self, shard: usize) {
        while let Some(record) = self.rigs[shard].hub.next_presence() {
            let from = ShardId(u16::try_from(shard).unwrap());
            if let Some(news) = self.backend.presence(self.rigs[shard].now, &record, from) {
                for rig in &mut self.rigs {
                    rig.input(Input::Mail(ShardMail::PresenceNews(Box::new(news.clone()))));
                }
            }
        }
    }
}

fn message(from: &str, to: &str, text: &str) -> MsgData {
    MsgData {
        send_id: from.into(),
        recv_id: to.into(),
        client_msg_id: text.into(),
        session_type: 1,
        content_type: 101,
        content: text.as_bytes().to_vec().into(),
        // No copy for the sender's other devices.
        options: BTreeMap::from([("senderSync".to_owned(), false)]),
        ..MsgData::default()
    }
}

fn pushed(seen: &[Seen]) -> MsgData {
    assert_eq!(reply(seen).id, 2001);
    let push = PushMessages::decode(reply(seen).data.clone().unwrap()).unwrap();
    let conversation = push.msgs.values().next().unwrap();
    conversation.msgs[0].clone()
}

#[test]
fn a_message_crosses_shards_and_what_was_missed_can_be_asked_for() {
    let mut node = Node::new();
    let (ann, bob) = node.pair();
    let anns = node.log_in(&ann);
    let bobs = node.log_in(&bob);
    let sent: SendMsgResp = node.ask((&ann, anns), 1003, &message(&ann, &bob, "one"));
    let got = pushed(&node.read(&bob, bobs));
    assert_eq!((&got.content[..], got.seq), (&b"one"[..], 1));
    assert_eq!(got.server_msg_id, sent.server_msg_id);

    let owner = node.owner(&bob);
    node.rigs[owner].input(Input::TransportLost(bobs));
    node.settle();
    node.rigs[owner].input(Input::TransportClosed(bobs));
    let _: SendMsgResp = node.ask((&ann, anns), 1003, &message(&ann, &bob, "two"));
    let back = node.log_in(&bob);
    assert_eq!(node.read(&bob, back), [], "nothing is kept for those who are away");
    let user_id = bob.clone();
    let seqs: GetMaxSeqResp = node.ask((&bob, back), 1001, &GetMaxSeqReq { user_id });
    assert_eq!(seqs.max_seqs.values().max(), Some(&2), "{seqs:?}");
}

#[test]
fn a_second_login_makes_the_first_token_worthless() {
    let mut node = Node::new();
    let (ann, _) = node.pair();
    let first = node.log_in(&ann);
    let old_token = node.token(&ann);
    node.rigs.iter_mut().for_each(|rig| rig.now.unix.0 += 60_000); // another `iat`, so another token
    node.log_in(&ann);
    assert_eq!(reply(&node.read(&ann, first)).id, 2002);
    let owner = node.owner(&ann);
    let mut login = node.rigs[owner].arguments(&ann, Platform::ANDROID);
    login.token = old_token;
    let conn = node.rigs[owner].accept(login).unwrap();
    node.settle();
    let seen = node.read(&ann, conn);
    assert!(matches!(&seen[..], [Seen::Http(body)] if body.contains(r#""errCode":1506"#)), "{seen:?}");
}

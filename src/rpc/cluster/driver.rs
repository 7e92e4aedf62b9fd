//! The router of the node (`cluster::protocol::Node`) and what it moves: one event in, its outputs out, in order.
//!
//! Generic over its [`Hands`], so that tests need no thread. What always holds: the clock is read when the event is in
//! hand; the outputs of an event happen before the next event is taken; mail that a full lane gave back keeps its
//! place before later mail of that lane.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::waiting::{Full, Waiting};
use crate::cluster::protocol::frame::{Frame, Generation, PushId, Verdict};
use crate::cluster::protocol::io::{Count, Input, Mail, Output, Reason};
use crate::cluster::protocol::{Fence, Identity, Node, Views};
use crate::control::membership::{MembershipNews, MembershipOrder};
use crate::hub::cluster::{ClusterMail, ClusterNews, ConnNumber};
use crate::ids::{ShardId, Text};
use crate::limits::CLUSTER_RETRY_MS;
use crate::metrics::Metric;
use crate::placement::Algorithm;
use crate::placement::view::{Incarnation, Member, NodeId, View};
use crate::time::{Mono, Now};

/// What the driver does to the world. Nothing here waits.
pub(super) trait Hands {
    /// Reads both clocks.
    fn now(&self) -> Now;
    /// To a peer.
    fn send(&mut self, to: &NodeId, frame: Frame);
    /// Ends a transport.
    fn close(&mut self, peer: &NodeId, generation: Generation);
    /// These are the members now.
    fn members(&mut self, view: &View);
    /// Whom to keep linked, and where; the own entry says where peers reach this node.
    fn dial(&mut self, targets: BTreeMap<NodeId, String>);
    /// To a shard's control lane; a full one gives it back.
    fn mail(&mut self, shard: ShardId, mail: ClusterMail) -> Result<(), ClusterMail>;
    /// The shard that owns a user.
    fn owner(&self, user: &str) -> ShardId;
    /// To the control thread; a full lane gives it back.
    fn order(&mut self, order: MembershipOrder) -> Result<(), MembershipOrder>;
    /// Delivers here; later [`Input::Delivered`] says what came of it.
    fn deliver(&mut self, copy: LocalCopy);
    /// A push is over; `None`: it was refused.
    fn verdict(&mut self, ticket: u64, verdicts: Option<Vec<Verdict>>);
    /// Clients may come.
    fn open(&mut self);
    /// This life must end.
    fn fence(&mut self, reason: Reason);
    /// Adds to a counter.
    fn count(&mut self, metric: Metric);
}

/// [`Mail::Deliver`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalCopy {
    /// Comes back with the answer.
    pub(super) leg: u64,
    /// Which push.
    pub(super) push: PushId,
    /// Each once.
    pub(super) recipients: Vec<Text>,
    /// See `payload`.
    pub(super) payload: Bytes,
}

/// Who this node is, before it has registered.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) node_id: NodeId,
    pub(super) shards: u16,
    pub(super) algorithm: Algorithm,
    pub(super) fence: Fence,
    pub(super) views: Views,
}

/// One thing that has happened.
#[derive(Debug)]
pub(super) enum Event {
    /// To the router.
    Router(Input),
    /// Of the source.
    Membership(MembershipNews),
    /// Of a shard.
    Shard(ClusterNews),
    /// An operator says that this life of a node has ended: here, and in the source.
    Forget(NodeId, Incarnation),
    /// Time has passed.
    Tick,
}

/// See the module's documentation.
pub(super) struct Driver<H> {
    me: Own,
    /// Since the own record is written.
    node: Option<Node>,
    pub(super) hands: H,
    waiting: Waiting,
    /// What keeps this node from the source, as it was told last.
    trouble: Option<String>,
    /// Where members are, as the source said last.
    members: Vec<(NodeId, String)>,
    dialled: BTreeMap<NodeId, String>,
    /// The greatest floor that the shards were told.
    floor: u64,
    opened: bool,
}

impl<H: Hands> Driver<H> {
    pub(super) fn new(me: Own, hands: H) -> Self {
        let (members, dialled, trouble) = Default::default();
        let waiting = Waiting::default();
        Self { me, node: None, hands, waiting, trouble, members, dialled, floor: 0, opened: false }
    }

    /// The router, once the node has registered.
    pub(super) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Whether the node has passed its first barrier.
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    /// What keeps this node from its record, its lease or the others', in words for operators.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Mail and orders that found their lane full.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn due(&self) -> Option<Mono> {
        let retry = (self.waiting.len() > 0).then(|| self.hands.now().mono.plus_ms(CLUSTER_RETRY_MS));
        let node = self.node.as_ref().and_then(Node::due);
        [retry, node].into_iter().flatten().min()
    }

    /// Takes one event, and does all that follows from it.
    pub(super) fn take(&mut self, event: Event) {
        let input = match event {
            Event::Tick => {
                self.raise_floor();
                self.dial();
                Input::Tick
            }
            Event::Forget(node, incarnation) => {
                self.order(MembershipOrder::Forget(node.clone(), incarnation, None));
                Input::Forget(node, incarnation)
            }
            Event::Router(input) => input,
            Event::Shard(news) => match input_of(news) {
                Input::Login(login) if self.node.is_none() => {
                    return self.mail_shard_of(login.number, ClusterMail::Refuse(login.number));
                }
                input => input,
            },
            Event::Membership(news) => match self.learned(news) {
                Some(input) => input,
                None => return,
            },
        };
        let Some(node) = self.node.as_mut() else {
            // There are no clients yet. Peers may have read the own record before this node has heard that it is
            // written: they are to dial again at once, and not to wait for an answer.
            match input {
                Input::Push(push) => self.hands.verdict(push.ticket, None),
                Input::Frame(peer, frame) => self.hands.close(&peer, frame.generation),
                _ => {}
            }
            return;
        };
        let now = self.hands.now();
        for output in node.handle(now, input) {
            self.put_out(output);
        }
        self.retry();
    }

    fn learned(&mut self, news: MembershipNews) -> Option<Input> {
        match news {
            MembershipNews::Joined { incarnation, first_epoch, lease_until } => {
                if self.node.is_none() {
                    let Own { node_id, shards, algorithm, fence, views } = self.me.clone();
                    let identity = Identity { node_id, incarnation, first_epoch, shards, algorithm, fence };
                    self.node = Some(Node::new(identity, lease_until).with_views(views));
                }
                None
            }
            MembershipNews::View(view) => {
                self.hands.members(&view);
                self.members = view.members().iter().map(address).collect();
                self.dial();
                Some(Input::View(view))
            }
            MembershipNews::Recorded(epoch) => Some(Input::Recorded(epoch)),
            MembershipNews::Lease(until) => Some(Input::Lease(until)),
            MembershipNews::Regained { until, own } => Some(Input::Regained { until, own }),
            MembershipNews::Trouble(trouble) => {
                self.trouble = trouble;
                None
            }
        }
    }

    fn put_out(&mut self, output: Output) {
        match output {
            Output::Send(to, frame) => self.hands.send(&to, frame),
            Output::Close(peer, generation) => self.hands.close(&peer, generation),
            Output::Mail(mail) => self.mail(mail),
            Output::Verdict { ticket, verdicts } => self.hands.verdict(ticket, Some(verdicts)),
            Output::Refused(ticket) => self.hands.verdict(ticket, None),
            Output::Record(state) => self.order(MembershipOrder::Record(state)),
            Output::Register(state) => self.order(MembershipOrder::Register(state)),
            Output::Forget(node, incarnation, epoch) => {
                self.order(MembershipOrder::Forget(node, incarnation, Some(epoch)));
            }
            Output::Leave => self.order(MembershipOrder::Leave),
            Output::Open => {
                self.opened = true;
                self.hands.open();
            }
            Output::Fence(reason) => self.hands.fence(reason),
            Output::Count(count) => self.hands.count(metric_of(count)),
        }
    }

    fn mail(&mut self, mail: Mail) {
        match mail {
            Mail::Add(epoch, placed) => {
                let placement = placed.placement().clone();
                self.mail_all(&ClusterMail::Add { epoch, placement });
            }
            Mail::Only(epoch) => self.mail_all(&ClusterMail::Only(epoch)),
            Mail::Register(number, key) => self.mail_shard_of(number, ClusterMail::Register { number, key }),
            Mail::Refuse(number) => self.mail_shard_of(number, ClusterMail::Refuse(number)),
            Mail::Kick { number, winner } => self.mail_shard_of(number, ClusterMail::Kick { number, winner }),
            Mail::Judge { user, class, key, token } => {
                let owner = self.hands.owner(&user);
                self.mail_shard(owner, ClusterMail::Judge { user, class, key, token });
            }
            Mail::Marks(marks) => {
                let owner = self.hands.owner(&marks.user);
                self.mail_shard(owner, ClusterMail::Marks(marks));
            }
            Mail::Met(key) => self.mail_shard_of(key.number, ClusterMail::Met(key)),
            Mail::Deliver { leg, push, recipients, payload } => {
                self.hands.deliver(LocalCopy { leg, push, recipients, payload });
            }
        }
    }

    /// Keeps the members linked, and under lists also whom greeted nodes know: what a node says of itself counts more
    /// than what others say of it, and what this node's list says more than both.
    fn dial(&mut self) {
        let mut targets: BTreeMap<NodeId, String> = BTreeMap::new();
        for (who, known) in self.node.iter().flat_map(Node::acquaintances) {
            if !targets.contains_key(&known.node) || *who == known.node {
                targets.insert(known.node.clone(), known.rpc_addr.as_str().to_owned());
            }
        }
        targets.extend(self.members.iter().cloned());
        if targets != self.dialled {
            self.dialled.clone_from(&targets);
            self.hands.dial(targets);
        }
    }

    /// Residents' logins get times above what was heard of. Their shards have the same clock, so that they must be told
    /// only if another node's is ahead; a clock that steps back is caught once a second.
    fn raise_floor(&mut self) {
        let Some(node) = &self.node else { return };
        let floor = node.floor();
        if floor > self.floor {
            self.floor = floor;
            self.mail_all(&ClusterMail::Floor(floor));
        }
    }

    fn mail_all(&mut self, mail: &ClusterMail) {
        for shard in (0..self.me.shards).map(ShardId) {
            self.mail_shard(shard, mail.clone());
        }
    }

    fn mail_shard_of(&mut self, number: u64, mail: ClusterMail) {
        self.mail_shard(ConnNumber(number).shard(), mail);
    }

    fn mail_shard(&mut self, shard: ShardId, mail: ClusterMail) {
        let mail = if self.waiting.holds_back(shard) { Err(mail) } else { self.hands.mail(shard, mail) };
        if let Err(mail) = mail {
            self.hands.count(Metric::ClusterMailWaited);
            if let Err(Full) = self.waiting.keep(shard, mail) {
                self.hands.count(Metric::ClusterMailLost);
            }
        }
    }

    fn order(&mut self, order: MembershipOrder) {
        let order = if self.waiting.holds_orders() { Err(order) } else { self.hands.order(order) };
        if let Err(order) = order {
            self.waiting.keep_order(order);
        }
    }

    /// Tries again what found its lane full.
    fn retry(&mut self) {
        let hands = &mut self.hands;
        self.waiting.retry(|shard, mail| hands.mail(shard, mail));
        self.waiting.retry_orders(|order| hands.order(order));
    }
}

fn address(member: &Member) -> (NodeId, String) {
    (member.node_id.clone(), member.rpc_addr.clone())
}

fn input_of(news: ClusterNews) -> Input {
    match news {
        ClusterNews::Switched { shard, epoch, residents } => Input::Switched { shard, epoch, residents },
        ClusterNews::Login(login) => Input::Login(login),
        ClusterNews::Registered(resident) => Input::Registered(resident),
        ClusterNews::Gone(number) => Input::Gone(number),
        ClusterNews::Met(key) => Input::Met(key),
        ClusterNews::Marks(marks) => Input::Marks(marks),
    }
}

fn metric_of(count: Count) -> Metric {
    match count {
        Count::PushHome => Metric::ClusterPushHome,
        Count::PushAgain => Metric::ClusterPushAgain,
        Count::PushAll => Metric::ClusterPushAll,
        Count::PushSecond => Metric::ClusterPushSecond,
        Count::NotFit => Metric::ClusterNotFit,
        Count::NoAnswer => Metric::ClusterNoAnswer,
        Count::StaleFrame => Metric::ClusterStaleFrames,
        Count::StaleLink => Metric::ClusterStaleLinks,
        Count::LaggingLink => Metric::ClusterLaggingLinks,
        Count::Unclaimed => Metric::ClusterUnclaimed,
        Count::SeenEvicted => Metric::ClusterSeenEvicted,
        Count::OutOfOrder => Metric::ClusterOutOfOrder,
        Count::LateRenewal => Metric::ClusterLateRenewals,
        Count::LegsFull => Metric::ClusterLegsFull,
        Count::SeenFull => Metric::ClusterSeenFull,
        Count::KnowsCut => Metric::ClusterKnowsCut,
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;

//! OpenIM's services answer: the shards' questions become calls, presence is told and asked for, the other gateways
//! hear of logins (spec 5, 8.4, 9).
//!
//! Only glue is here. What is asked and what answers mean is `backend::openim`, which is pure; how a call travels is
//! `channel`; where the services are is told by the control thread. What always holds: a question that carries a ticket
//! is answered once, at the latest at its deadline; no borrow is held while something is waited for.

mod elsewhere;
mod ring;
mod tokens;
mod told;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use super::budget::Ration;
use super::channel::{Call, Channel, ChannelCounts, ChannelLimits, ChannelPlan};
use super::exchange::Exchange;
use crate::backend::openim::answers::{Answers, Expect};
use crate::backend::openim::calls::{self, Question};
use crate::backend::openim::presence::{Presence, Question as StatusQuestion, RenewalTimes};
use crate::backend::openim::tokens::Tokens;
use crate::backend::openim::{Service, presence};
use crate::config::policy::RpcPolicy;
use crate::config::{OpenimConfig, PerService, UserNames};
use crate::control::mailbox::ControlAddress;
use crate::control::news::{DiscoveryState, News};
use crate::hub::upstream::{
    CallMetadata, PresenceRecord, UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply,
    UpstreamRequest,
};
use crate::ids::{CallTicket, ShardId};
use crate::metrics::{Metric, Tally};
use crate::shard::clock;
use crate::shard::names::Names;
use crate::time::Mono;
use crate::wire::compat::Compat;
use crate::wire::grpc::CallFault;
use elsewhere::Elsewhere;
use ring::{Ring, Turn};
use tokens::TokenDesk;
use told::Hooks;

/// See the module's documentation. Lives on rpc thread 0; cheap to clone.
#[derive(Clone)]
pub(super) struct Openim {
    shared: Rc<Shared>,
}

struct Shared {
    compat: Compat,
    /// `upstream.deadline_ms`.
    deadline_ms: Cell<u64>,
    /// As discovery knows the services: clients of main read it when one is down.
    names: PerService<String>,
    /// One for each service that is asked.
    channels: PerService<Channel>,
    elsewhere: Elsewhere,
    /// OpenIM 3.5 in Kubernetes.
    ring: RefCell<Option<Ring>>,
    presence: RefCell<Presence>,
    /// With OpenIM 3.5, whose gateway judges tokens itself.
    tokens: Option<TokenDesk>,
    hooks: Hooks,
    discovery: Cell<DiscoveryState>,
    /// How users appear in the log.
    shown: Cell<Names>,
}

/// What the backend is made of.
pub(super) struct OpenimPlan<'a> {
    pub(super) config: &'a OpenimConfig,
    /// That tokens are signed with.
    pub(super) secret: &'a str,
    /// Drawn at start: spreads users over lanes and reconnects over time, and hashes them for the log.
    pub(super) key: [u64; 2],
    /// `log.users`.
    pub(super) shown: UserNames,
    /// Where other gateways reach this one.
    pub(super) own: std::net::SocketAddr,
    pub(super) control: ControlAddress,
    /// What the connections of the thread may read in a turn, together.
    pub(super) ration: Rc<Ration>,
}

/// Who waits for an answer, if anybody does, and on whose behalf.
struct Asked {
    shard: ShardId,
    ticket: Option<CallTicket>,
    metadata: CallMetadata,
}

impl Openim {
    pub(super) fn new(plan: OpenimPlan<'_>) -> Self {
        let OpenimPlan { config, secret, key, shown, own, control, ration } = plan;
        let compat = config.compat;
        let calls_max = config.upstream.in_flight_max;
        let limits = ChannelLimits { calls_max, ..ChannelLimits::DEFAULT };
        let seed = Cell::new(key[0]);
        let channel = |name: &str| {
            seed.set(seed.get().wrapping_add(key[1] | 1));
            Channel::new(ChannelPlan { service: name.into(), seed: seed.get(), limits }, Rc::clone(&ration))
        };
        let names = &config.discovery.names;
        let channels = PerService {
            auth: channel(&names.auth),
            user: channel(&names.user),
            msg: channel(&names.msg),
            push: channel(&names.push),
            gateway: channel(&names.gateway), // never given an instance: the others are asked one by one
        };
        let tokens =
            (compat == Compat::V35).then(|| TokenDesk::new(Tokens::new(secret, calls_max), control.clone()));
        let hooks = Hooks::new(compat, config.webhooks.clone(), control);
        let mut presence = presence::PresenceConfig::new(compat, std::process::id(), key);
        presence.webhooks = hooks.wanted();
        presence.reports.flush_ms = config.presence.batch_wait_ms;
        presence.reports.renewal = RenewalTimes::after(config.presence.renewal_ms);
        Self {
            shared: Rc::new(Shared {
                compat,
                deadline_ms: Cell::new(config.upstream.deadline_ms),
                names: names.clone(),
                channels,
                elsewhere: Elsewhere::new(own, limits, key, ration),
                ring: RefCell::new(Ring::new(
                    config.discovery.members.len(),
                    config.discovery.gateways_differ_ms,
                    clock::now().mono,
                )),
                presence: RefCell::new(Presence::new(presence)),
                tokens,
                hooks,
                discovery: Cell::new(DiscoveryState::Loading),
                shown: Cell::new(Names { kind: shown, key }),
            }),
        }
    }

    /// Asks OpenIM what a shard asks. The answer goes to the shard when it is there.
    pub(super) fn call(&self, exchange: &Exchange, call: UpstreamCall) {
        let shared = &self.shared;
        if let (UpstreamRequest::UserStatus { users }, Some(ticket)) = (&call.request, call.ticket) {
            let (shard, users, deadline) = (call.shard, users.clone(), call.deadline);
            let question = StatusQuestion { shard, ticket, users, deadline };
            shared.presence.borrow_mut().ask(clock::now().mono, question);
            return self.go_on(exchange);
        }
        let deadline = self.deadline(call.deadline);
        if shared.tokens.as_ref().is_some_and(|tokens| tokens.take(exchange, &call, deadline)) {
            return;
        }
        let asked = Asked { shard: call.shard, ticket: call.ticket, metadata: call.metadata.clone() };
        let question = match calls::question(shared.compat, &call) {
            Ok(question) if question.service == Service::Gateway => {
                return self.tell_elsewhere(&call, &question, deadline);
            }
            Ok(question) => question,
            Err(fault) => return self.over(exchange, asked, "", (&Expect::Data, Err(fault))),
        };
        let (this, exchange) = (self.clone(), exchange.clone());
        monoio::spawn(async move {
            let (service, expect) = (question.service, question.expect.clone());
            let question = call_of(question, deadline);
            let answer = this.shared.channels.of(service).call(question).await;
            this.over(&exchange, asked, this.shared.names.of(service), (&expect, answer));
        });
    }

    /// Tells the other gateways of a login here, if there are others.
    fn tell_elsewhere(&self, login: &UpstreamCall, question: &Question, deadline: Mono) {
        let (shared, CallMetadata { user, platform, .. }) = (&self.shared, &login.metadata);
        if shared.elsewhere.tell(question, deadline) > 0 {
            shared.presence.borrow_mut().told_elsewhere(clock::now().mono, user, *platform);
        }
    }

    /// A call is over: whoever asked hears of it. `target` is what discovery calls the service.
    fn over(
        &self,
        exchange: &Exchange,
        asked: Asked,
        target: &str,
        (expect, answer): (&Expect, Result<Bytes, CallFault>),
    ) {
        let answers = Answers { compat: self.shared.compat, target };
        let fault = answer.as_ref().err().cloned();
        let outcome = answers.outcome(expect, answer);
        if let (Some(fault), UpstreamOutcome::Failed(error)) = (&fault, &outcome) {
            self.say_failed(&asked, fault, (target, error));
        }
        if let Some(ticket) = asked.ticket {
            exchange.reply(asked.shard, UpstreamReply { ticket, outcome });
        }
    }

    /// What OpenIM says no to is its daily business; that it does not answer, or that nobody hears of it, is not.
    fn say_failed(&self, asked: &Asked, fault: &CallFault, (target, error): (&str, &UpstreamError)) {
        let CallMetadata { operation_id, user, connection_id, .. } = &asked.metadata;
        let (user, code, message) = (self.shared.shown.get().name(user), error.code, &error.message);
        macro_rules! line {
            ($log:ident) => {
                tracing::$log!(%operation_id, user, %connection_id, target, code, %message, "an upstream call failed")
            };
        }
        match (asked.ticket, fault) {
            (None, _) => line!(warn),
            (Some(_), CallFault::Status(_)) => line!(debug),
            (Some(_), _) => line!(info),
        }
    }

    fn deadline(&self, asked: Mono) -> Mono {
        asked.min(clock::now().mono.plus_ms(self.shared.deadline_ms.get()))
    }

    /// Takes the presence record of a user.
    pub(super) fn presence(&self, exchange: &Exchange, record: &PresenceRecord) {
        self.shared.presence.borrow_mut().record(clock::now(), record);
        self.go_on(exchange);
    }

    /// Takes news of the control thread.
    pub(super) fn news(&self, exchange: &Exchange, news: News) {
        let (shared, now) = (&self.shared, clock::now().mono);
        match news {
            News::Endpoints { service: Service::Gateway, endpoints } => {
                shared.elsewhere.set_endpoints(&endpoints.addresses);
            }
            News::Endpoints { service, endpoints } => {
                tracing::info!(
                    ?service,
                    instances = endpoints.addresses.len(),
                    version = endpoints.version,
                    "endpoints"
                );
                shared.channels.of(service).set_endpoints(&endpoints.addresses);
            }
            News::Discovery(state) => {
                tracing::info!(?state, "discovery");
                shared.discovery.set(state);
            }
            News::Registration(state) => tracing::info!(?state, "registration"),
            News::Resubscribed => shared.presence.borrow_mut().resubscribed(now),
            // Said by the control thread, once, with why.
            News::SubscriptionLost => shared.presence.borrow_mut().subscription_lost(),
            News::OnlineChange { payload } => shared.presence.borrow_mut().online_change(now, &payload),
            News::Membership(_) => {} // the router's (`rpc::exchange`)
            News::TokenStates(answer) => {
                if let Some(tokens) = &shared.tokens {
                    tokens.answered(exchange, &answer);
                }
            }
        }
        self.go_on(exchange);
    }

    /// Goes by another policy from now on.
    pub(super) fn adopt(&self, policy: &RpcPolicy) {
        let Shared { deadline_ms, hooks, presence, shown, .. } = &*self.shared;
        shown.set(Names { kind: policy.names, ..shown.get() });
        deadline_ms.set(policy.upstream_deadline_ms);
        hooks.config.replace(policy.webhooks.clone());
        presence.borrow_mut().set_webhooks(hooks.wanted());
    }

    /// All sockets are closed: everybody who was online here is told as offline, until the deadline.
    pub(super) fn final_offline(&self, deadline: Mono) {
        self.shared.presence.borrow_mut().final_offline(clock::now(), deadline);
    }

    /// Users of whom the user service does not know all yet.
    pub(super) fn untold(&self) -> usize {
        self.shared.presence.borrow().untold()
    }

    /// Why nobody could answer new clients, or not all pushes reach them; `None`: all is well.
    pub(super) fn lacks(&self) -> Option<String> {
        if self.shared.discovery.get() == DiscoveryState::Loading {
            return Some("OpenIM's services were not found yet\n".to_owned());
        }
        self.shared.ring.borrow().and_then(|ring| ring.fault(clock::now().mono))
    }

    /// Looks how many gateways answer, and publishes it.
    fn publish_ring(&self, tally: &mut Tally) {
        let Some(ring) = &mut *self.shared.ring.borrow_mut() else { return };
        let turn = ring.observe(clock::now().mono, self.shared.elsewhere.ready());
        let (expected, answering) = ring.counts();
        tally.set(Metric::GatewaysExpected, expected as u64);
        tally.set(Metric::GatewaysAnswering, answering as u64);
        match turn {
            Some(Turn::Differs) => {
                tracing::error!(expected, answering, "other than MY_MSGGATEWAY_REPLICACOUNT gateways answer");
            }
            Some(Turn::Agrees) => {
                tracing::info!(expected, "as many gateways answer as MY_MSGGATEWAY_REPLICACOUNT says");
            }
            None => {}
        }
    }

    /// Writes what it holds and did into the thread's counts.
    pub(super) fn publish(&self, tally: &mut Tally) {
        let shared = &self.shared;
        shared.presence.borrow().publish(tally);
        if let Some(tokens) = &shared.tokens {
            tokens.publish(tally);
        }
        self.publish_ring(tally);
        let mut sum = shared.elsewhere.counts();
        let ready = [
            (Metric::UpstreamReadyAuth, Service::Auth),
            (Metric::UpstreamReadyUser, Service::User),
            (Metric::UpstreamReadyMsg, Service::Msg),
            (Metric::UpstreamReadyPush, Service::Push),
        ];
        tally.set(Metric::UpstreamReadyGateway, sum.ready as u64);
        for (metric, service) in ready {
            let counts = shared.channels.of(service).counts();
            tally.set(metric, counts.ready as u64);
            add(&mut sum, &counts);
        }
        for (metric, count) in [
            (Metric::UpstreamAnswered, sum.answered),
            (Metric::UpstreamStatuses, sum.statuses),
            (Metric::UpstreamUnavailable, sum.unavailable),
            (Metric::UpstreamDeadlines, sum.deadlines),
            (Metric::UpstreamOverloaded, sum.overloaded),
            (Metric::UpstreamMetadata, sum.metadata),
            (Metric::UpstreamRetries, sum.retries),
            (Metric::UpstreamBreakerOpens, sum.breaker_opens),
            (Metric::UpstreamLatencyMs, sum.latency_ms),
        ] {
            tally.set(metric, count);
        }
    }
}

fn call_of(question: Question, deadline: Mono) -> Call {
    let Question { path, metadata, message, retry, .. } = question;
    Call { path, metadata, message, deadline, retry }
}

fn add(sum: &mut ChannelCounts, more: &ChannelCounts) {
    sum.answered += more.answered;
    sum.statuses += more.statuses;
    sum.unavailable += more.unavailable;
    sum.deadlines += more.deadlines;
    sum.overloaded += more.overloaded;
    sum.metadata += more.metadata;
    sum.retries += more.retries;
    sum.breaker_opens += more.breaker_opens;
    sum.latency_ms += more.latency_ms;
    sum.ready += more.ready;
}

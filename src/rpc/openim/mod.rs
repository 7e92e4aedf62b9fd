//! OpenIM's services answer: the shards' questions become calls, presence is told and asked for, the other gateways
//! hear of logins (spec 5, 8.4, 9).
//!
//! Only glue is here. What is asked and what answers mean is `backend::openim`, which is pure; how a call travels is
//! `channel`; where the services are is told by the control thread. What always holds: a question that carries a ticket
//! is answered once, at the latest at its deadline; no borrow is held while something is waited for.

mod elsewhere;
mod told;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use super::budget::Ration;
use super::channel::{Call, Channel, ChannelCounts, ChannelLimits, ChannelPlan, Fault, Retry};
use super::exchange::Exchange;
use crate::backend::openim::answers::{Answers, CallFault, Expect};
use crate::backend::openim::calls::{self, Question};
use crate::backend::openim::presence::{Presence, Question as StatusQuestion, RenewalTimes};
use crate::backend::openim::{Service, presence};
use crate::config::{OpenimConfig, PerService};
use crate::control::mailbox::ControlAddress;
use crate::control::news::{DiscoveryState, News};
use crate::hub::upstream::{PresenceRecord, UpstreamCall, UpstreamError, UpstreamReply, UpstreamRequest};
use crate::ids::{CallTicket, ShardId};
use crate::metrics::{Metric, Tally};
use crate::shard::clock;
use crate::time::Mono;
use crate::wire::compat::Compat;
use elsewhere::Elsewhere;
use told::Hooks;

/// See the module's documentation. Lives on rpc thread 0; cheap to clone.
#[derive(Clone)]
pub(super) struct Openim {
    shared: Rc<Shared>,
}

struct Shared {
    compat: Compat,
    deadline_ms: u64,
    /// As discovery knows the services: clients of main read it when one is down.
    names: PerService<String>,
    /// One for each service that is asked.
    channels: PerService<Channel>,
    elsewhere: Elsewhere,
    presence: RefCell<Presence>,
    hooks: Hooks,
    discovery: Cell<DiscoveryState>,
}

/// What the backend is made of.
pub(super) struct OpenimPlan<'a> {
    pub(super) config: &'a OpenimConfig,
    /// Drawn at start: spreads users over lanes and reconnects over time.
    pub(super) key: [u64; 2],
    /// Where other gateways reach this one.
    pub(super) own: std::net::SocketAddr,
    pub(super) control: ControlAddress,
    /// What the connections of the thread may read in a turn, together.
    pub(super) ration: Rc<Ration>,
}

/// Who waits for an answer, if anybody does.
#[derive(Clone, Copy)]
struct Asked {
    shard: ShardId,
    ticket: Option<CallTicket>,
}

impl Openim {
    pub(super) fn new(plan: OpenimPlan<'_>) -> Self {
        let OpenimPlan { config, key, own, control, ration } = plan;
        let compat = config.compat;
        let limits =
            ChannelLimits { calls_max: config.upstream.in_flight_max as usize, ..ChannelLimits::DEFAULT };
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
        let hooks = Hooks::new(compat, config.webhooks.clone(), control);
        let mut presence = presence::PresenceConfig::new(compat, std::process::id(), key);
        presence.webhooks = hooks.wanted();
        presence.reports.flush_ms = config.presence.batch_wait_ms;
        presence.reports.renewal = RenewalTimes::after(config.presence.renewal_ms);
        Self {
            shared: Rc::new(Shared {
                compat,
                deadline_ms: config.upstream.deadline_ms,
                names: names.clone(),
                channels,
                elsewhere: Elsewhere::new(own, limits, key, ration),
                presence: RefCell::new(Presence::new(presence)),
                hooks,
                discovery: Cell::new(DiscoveryState::Loading),
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
        let asked = Asked { shard: call.shard, ticket: call.ticket };
        let question = match calls::question(shared.compat, &call) {
            Ok(question) if question.service == Service::Gateway => {
                return shared.elsewhere.tell(&question, self.deadline(call.deadline));
            }
            Ok(question) => question,
            Err(fault) => return self.over(exchange, asked, "", (&Expect::Data, Err(fault))),
        };
        let (this, exchange) = (self.clone(), exchange.clone());
        monoio::spawn(async move {
            let (service, expect) = (question.service, question.expect.clone());
            let question = call_of(question, this.deadline(call.deadline));
            let answer = this.shared.channels.of(service).call(question).await.map_err(fault_of);
            this.over(&exchange, asked, this.shared.names.of(service), (&expect, answer));
        });
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
        match (asked.ticket, answer) {
            (Some(ticket), answer) => {
                let outcome = answers.outcome(expect, answer);
                exchange.reply(asked.shard, UpstreamReply { ticket, outcome });
            }
            (None, Ok(_)) => {}
            (None, Err(fault)) => {
                let UpstreamError { code, message, .. } = answers.error(expect, fault);
                tracing::warn!(target, code, %message, "a call that nobody waits for failed");
            }
        }
    }

    fn deadline(&self, asked: Mono) -> Mono {
        asked.min(clock::now().mono.plus_ms(self.shared.deadline_ms))
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
            News::SubscriptionLost => {
                tracing::warn!("the subscription to online_change is lost");
                shared.presence.borrow_mut().subscription_lost();
            }
            News::OnlineChange { payload } => shared.presence.borrow_mut().online_change(now, &payload),
            // Asked for with OpenIM 3.5 only.
            News::TokenStates(answer) => tracing::debug!(?answer, "nobody asked for it"),
        }
        self.go_on(exchange);
    }

    /// All sockets are closed: everybody who was online here is told as offline, until the deadline.
    pub(super) fn final_offline(&self, deadline: Mono) {
        self.shared.presence.borrow_mut().final_offline(clock::now(), deadline);
    }

    /// Users of whom the user service does not know all yet.
    pub(super) fn untold(&self) -> usize {
        self.shared.presence.borrow().untold()
    }

    /// Whether the services were found at least once.
    pub(super) fn has_found(&self) -> bool {
        self.shared.discovery.get() != DiscoveryState::Loading
    }

    /// Writes what it holds and did into the thread's counts.
    pub(super) fn publish(&self, tally: &mut Tally) {
        let shared = &self.shared;
        shared.presence.borrow().publish(tally);
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
    let retry = match question.retry {
        calls::Retry::Safe => Retry::Safe,
        calls::Retry::Never => Retry::Never,
    };
    Call { path: question.path, metadata: question.metadata, message: question.message, deadline, retry }
}

fn fault_of(fault: Fault) -> CallFault {
    match fault {
        Fault::Status(status) => CallFault::Status(*status),
        Fault::Unavailable(text) => CallFault::Unavailable(text),
        Fault::Deadline => CallFault::Deadline,
        Fault::Overloaded => CallFault::Overloaded,
        Fault::Metadata(key) => CallFault::Metadata(key),
    }
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

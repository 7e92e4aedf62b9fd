//! Those who call the gRPC API: pushes from several sources, kicks, status, logins elsewhere, cancels. They go through
//! the router of production, with a view of one node.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pinion::cluster::router::{Mails, Outcome, Progress, Push, PushResult, RemoteLogin, Router, To};
use pinion::hub::login_policy::LoginPolicy;
use pinion::hub::mail::{PushBody, PushRules, Report, RpcOutcome, SharedFrames};
use pinion::hub::push_frame;
use pinion::ids::{Ownership, Platform, RpcId, RpcTicket, ShardId, SourceId, Text};
use pinion::limits;
use pinion::placement::view::View;
use pinion::wire::envelope::Variant;

use crate::checker::Property;
use crate::client::conflicts;
use crate::planted;
use crate::pushes::PushFacts;
use crate::world::{Event, World};

/// Calls that the rpc thread has open at once.
const CALLS_MAX: u32 = 40;

/// What a call was.
#[derive(Clone, Debug)]
enum Asked {
    Push(u64),
    Kick(Vec<Text>, Platform),
    RemoteLogin(Text, Platform),
    Status,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Caller {
    router: Router,
    open: BTreeMap<RpcTicket, Asked>,
    /// Kicks that were given up while a shard may still have the mail.
    lingering: Vec<Asked>,
    pushes: u64,
}

impl Caller {
    /// Nothing called yet.
    pub fn new(ownership: Ownership) -> Self {
        Self {
            router: Router::new(RpcId(0), View::of_one_node(ownership), CALLS_MAX),
            open: BTreeMap::new(),
            lingering: Vec::new(),
            pushes: 0,
        }
    }

    /// Nobody waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a kick that was called already may yet reach a login that begins now.
    pub fn kick_may_wait(&self, user: &str, platform: Platform, policy: LoginPolicy) -> bool {
        self.open.values().chain(&self.lingering).any(|asked| match asked {
            Asked::Kick(users, on) => *on == platform && users.iter().any(|u| **u == *user),
            Asked::RemoteLogin(who, on) => **who == *user && conflicts(policy, *on, platform),
            Asked::Push(_) | Asked::Status => false,
        })
    }
}

impl World {
    /// Somebody calls.
    pub fn call_rpc(&mut self) {
        let finished = self.caller.router.expire(self.now.mono);
        finished.into_iter().for_each(|f| self.finished(f));
        if self.is_over() {
            return;
        }
        let delay = self.rng.u64(5..250);
        self.after(delay, Event::Rpc);
        let jumps = self.plan.jumps;
        if self.chance(jumps) {
            self.after(1, Event::Jump);
        }
        if self.draining && self.rng.bool() {
            return;
        }
        match self.rng.u8(0..20) {
            0..12 => self.call_push(),
            12 | 13 => self.call_kick(),
            14 => self.call_remote_login(),
            15 | 16 => self.call_status(),
            17 => self.cancel_one(),
            _ => {}
        }
    }

    fn some_users(&mut self) -> Vec<Text> {
        let count = self.rng.usize(1..=self.plan.users + 1);
        // One name more than there are users: a recipient that is never here.
        (0..count).map(|_| Text::from(format!("user{}", self.rng.usize(0..=self.plan.users)))).collect()
    }

    fn call_push(&mut self) {
        self.caller.pushes += 1;
        let push = self.caller.pushes;
        let source = match self.rng.u64(0..5) {
            stream @ 0..3 => SourceId(stream),
            _ => SourceId(1_000 + push), // a unary call is a source of its own
        };
        let rules = self.some_rules();
        let everybody = rules.report != Report::Queued && self.rng.u8(0..4) == 0;
        let users = if everybody { None } else { Some(self.some_users()) };
        let patience = if self.rng.u8(0..20) == 0 { 30 } else { limits::PUSH_DEADLINE_MS };
        let request = Push {
            source,
            body: self.some_body(push),
            to: users.map_or(To::AllLocal, To::Users),
            rules,
            deadline: self.now.mono.plus_ms(patience),
        };
        let facts = PushFacts::new(&request, self.step);
        self.checker.pushes.facts.insert(push, facts);
        match self.caller.router.push(request) {
            Ok((ticket, mails)) => self.post_all(ticket, mails, Asked::Push(push)),
            Err(_) => self.busy(),
        }
    }

    fn some_rules(&mut self) -> PushRules {
        let report = [Report::Queued, Report::Each, Report::Each, Report::Totals][self.rng.usize(0..4)];
        let wait = [30, 300, 3_000][self.rng.usize(0..3)];
        PushRules {
            report,
            only_if_online: self.rng.u8(0..6) == 0,
            expires: (self.rng.u8(0..3) == 0).then(|| self.now.mono.plus_ms(wait)),
        }
    }

    fn some_body(&mut self, push: u64) -> PushBody {
        let size = if self.rng.u8(0..30) == 0 { 30_000 } else { self.rng.usize(1..1_500) };
        let mut msg_data = vec![0x0a, 2, b'h', b'i', 0x12]; // two fields of MsgData, the second as long as wanted
        prost::encoding::encode_varint(size as u64, &mut msg_data);
        msg_data.resize(msg_data.len() + size, b'm');
        let mut body = PushBody {
            operation_id: Text::from(format!("push-{push}")),
            conversation: "si_a_b".into(),
            msg_data: Bytes::from(msg_data),
            frames: None,
        };
        if push_frame::is_shared(&body) {
            // The rpc thread does not know of the latest logins: any variant may be missing.
            let mut frames = SharedFrames::default();
            for variant in Variant::all().filter(|_| self.rng.bool()) {
                frames[variant.index()] = Some(push_frame::shared_frame(&mut self.codec, variant, &body));
            }
            body.frames = Some(Arc::new(frames));
        }
        body
    }

    fn call_kick(&mut self) {
        let users = self.some_users();
        let platform = self.clients[self.rng.usize(0..self.clients.len())].platform;
        for link in self.links.iter_mut().filter(|l| l.platform == platform) {
            if users.iter().any(|user| **user == *link.user) {
                link.excuse("kick");
            }
        }
        let deadline = self.now.mono.plus_ms(limits::CONTROL_DEADLINE_MS);
        match self.caller.router.kick(deadline, platform, &users) {
            Ok((ticket, mails)) => self.post_all(ticket, mails, Asked::Kick(users, platform)),
            Err(_) => self.busy(),
        }
    }

    fn call_remote_login(&mut self) {
        let user = self.some_users().swap_remove(0);
        let platform = self.clients[self.rng.usize(0..self.clients.len())].platform;
        let policy = self.plan.policy;
        for link in self.links.iter_mut().filter(|l| *l.user == *user) {
            if conflicts(policy, platform, link.platform) {
                link.excuse("login elsewhere");
            }
        }
        let login = RemoteLogin {
            operation_id: "elsewhere".into(),
            user: user.clone(),
            platform,
            token: "secret-token|elsewhere".into(),
            judge: pinion::hub::mail::Judge::Shard,
        };
        let deadline = self.now.mono.plus_ms(limits::CONTROL_DEADLINE_MS);
        match self.caller.router.remote_login(deadline, login) {
            Ok((ticket, mails)) => self.post_all(ticket, mails, Asked::RemoteLogin(user, platform)),
            Err(_) => self.busy(),
        }
    }

    fn call_status(&mut self) {
        let users = self.some_users();
        let deadline = self.now.mono.plus_ms(limits::CONTROL_DEADLINE_MS);
        match self.caller.router.online_status(deadline, &users) {
            Ok((ticket, mails)) => self.post_all(ticket, mails, Asked::Status),
            Err(_) => self.busy(),
        }
    }

    fn busy(&mut self) {
        if self.caller.router.open() < CALLS_MAX as usize {
            self.checker.fail(Property::Tables, "the router is busy with room left".into());
        }
    }

    /// The caller of one open push hangs up.
    fn cancel_one(&mut self) {
        let is_push = |(_, asked): &(&RpcTicket, &Asked)| matches!(asked, Asked::Push(_));
        let Some((&ticket, _)) = self.caller.open.iter().find(is_push) else {
            return;
        };
        self.caller.open.remove(&ticket);
        for (shard, mail) in self.caller.router.cancel(ticket) {
            // A cancel that finds its lane full is dropped: the push runs to its end.
            drop(self.post(usize::from(shard.0), mail));
        }
    }

    fn post_all(&mut self, ticket: RpcTicket, mails: Mails, asked: Asked) {
        self.caller.open.insert(ticket, asked);
        for (shard, mail) in mails {
            if let Some(mail) = self.post(usize::from(shard.0), mail) {
                self.caller.router.not_posted(shard, &mail);
            }
        }
        if let Some(finished) = self.caller.router.posted(ticket) {
            self.finished(finished);
        }
    }

    /// A shard answers; the answer is on its way.
    pub fn shard_says(&mut self, shard: usize, ticket: RpcTicket, outcome: Box<RpcOutcome>) {
        if let RpcOutcome::Push(part) = &*outcome {
            self.checker.part_given((shard, ticket), part);
        }
        let delay = self.rng.u64(0..20);
        let outcome = planted::verdict(self.plant, &mut self.rng, outcome);
        // A lane: what a shard says arrives in order.
        let at = (self.now.mono.0 + delay).max(self.shards[shard].said_until);
        self.shards[shard].said_until = at;
        self.at(at, Event::Outcome(shard, ticket, outcome));
    }

    /// A shard's answer has arrived.
    pub fn rpc_outcome(&mut self, shard: usize, ticket: RpcTicket, outcome: RpcOutcome) {
        let shard = ShardId(u16::try_from(shard).expect("few shards"));
        if let Some(finished) = self.caller.router.outcome(shard, ticket, outcome) {
            self.finished(finished);
        }
    }

    fn finished(&mut self, finished: Progress) {
        let asked = match &finished.outcome {
            Outcome::Part(part) if !part.last => self.caller.open.get(&finished.ticket).cloned(),
            _ => self.caller.open.remove(&finished.ticket),
        };
        let Some(asked) = asked else {
            return self.checker.fail(Property::Tables, format!("finished twice: {finished:?}"));
        };
        match (asked, finished.outcome) {
            (Asked::Push(push), Outcome::Push(results)) => self.results(push, results),
            (Asked::Push(push), Outcome::Part(mut part)) => {
                self.results(push, std::mem::take(&mut part.results));
                if part.last {
                    let ticks: Vec<u64> = self.shards.iter().map(|shard| shard.ticks).collect();
                    self.checker.push_over(push, &part, (&self.links, &ticks));
                }
            }
            (asked @ (Asked::Kick(..) | Asked::RemoteLogin(..)), Outcome::Refused | Outcome::Expired) => {
                self.caller.lingering.push(asked);
            }
            (Asked::Kick(..), Outcome::Kicked(_))
            | (Asked::RemoteLogin(..), Outcome::RemoteLogin)
            | (Asked::Status, Outcome::OnlineStatus(_) | Outcome::Refused | Outcome::Expired) => {}
            (asked, outcome) => {
                let text = format!("{asked:?} ended with {outcome:?}");
                self.checker.fail(Property::Tables, text);
            }
        }
    }

    fn results(&mut self, push: u64, results: Vec<PushResult>) {
        for result in results {
            let Some(devices) = result.devices else {
                self.checker.pushes.facts.get_mut(&push).expect("it was called").results += 1;
                continue;
            };
            let shard = usize::from(self.ownership.owner(&result.user).0);
            let world = (&self.links[..], self.shards[shard].ticks);
            self.checker.push_answered(push, (&result.user, &devices), world);
        }
    }
}

//! Copies for connections of this node: a push, a kick, a question, carried out by the shards as if a caller had asked
//! here.
//!
//! What always holds: a copy is posted to the shards when it is taken, so copies keep their order; it is answered once,
//! within `HOLD_MS` less the way back; who was not answered for is not in the answer, which the router takes for "not
//! known", never for "no connection here".

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use super::Mesh;
use super::doubles::{Once, Reached};
use super::driver::LocalCopy;
use super::payload::{Errand, PushErrand};
use crate::cluster::protocol::frame::{Device, PushId, Token};
use crate::cluster::protocol::io::Input;
use crate::cluster::router::{Outcome, Push, PushResult, To};
use crate::hub::mail::{DeviceOutcome, DeviceStatus, DeviceVerdict, Report};
use crate::ids::{SourceId, Text, connection_id_of_hex};
use crate::limits::{COPY_ANSWER_MS, DOUBLE_LOOK_MS};
use crate::metrics::Metric;
use crate::rpc::exchange::{Tray, Waiting};
use crate::shard::clock;
use crate::time::Mono;

/// By user; only those of whom something is known.
type Results = Vec<(Text, Reached)>;
/// As routers carry them.
type Told = Vec<(Text, Vec<(u64, Device)>)>;

/// A push that was posted.
enum Posted {
    /// Answered when it is queued.
    Whole(Waiting),
    /// Answered in parts.
    Parts(Tray),
}

impl Mesh {
    /// Posts a copy; its answer is an event, later.
    pub(super) fn carry_out(&self, copy: LocalCopy) {
        let now = clock::now().mono;
        let LocalCopy { leg, push, recipients, payload } = copy;
        let deadline = now.plus_ms(COPY_ANSWER_MS);
        match Errand::decode(payload, now) {
            Some(Errand::Push(errand)) => self.push_here((leg, push), recipients, *errand, deadline),
            Some(Errand::Kick(platform)) => {
                let asked = self.shared.exchange.ask(|router| router.kick(deadline, platform, &recipients));
                self.answer_later(leg, asked.ok(), move |outcome| match outcome {
                    Outcome::Kicked(connections) => {
                        let (platform, users) = (platform.name(), recipients.len());
                        tracing::info!(
                            platform,
                            users,
                            connections,
                            "users kicked for another node's caller"
                        );
                        recipients.into_iter().map(|user| (user, Vec::new())).collect()
                    }
                    _ => Told::new(),
                });
            }
            Some(Errand::Status) => {
                let asked = self.shared.exchange.ask(|router| router.online_status(deadline, &recipients));
                self.answer_later(leg, asked.ok(), |outcome| match outcome {
                    Outcome::OnlineStatus(found) => {
                        found.into_iter().map(|(user, devices)| (user, statuses(devices))).collect()
                    }
                    _ => Told::new(),
                });
            }
            Some(Errand::Heard(message)) => {
                let said = self.heard_here(&message, recipients);
                self.answer(leg, said);
            }
            None => {
                self.shared.exchange.count(Metric::ClusterUnknownCopies);
                self.answer(leg, Told::new());
            }
        }
    }

    fn answer(&self, leg: u64, results: Told) {
        self.input(Input::Delivered { leg, results });
    }

    fn answer_later(&self, leg: u64, asked: Option<Waiting>, read: impl FnOnce(Outcome) -> Told + 'static) {
        let mesh = self.clone();
        monoio::spawn(async move {
            let results = match asked {
                Some(waiting) => read(waiting.await),
                None => Told::new(), // too many calls wait for the shards
            };
            mesh.answer(leg, results);
        });
    }

    fn push_here(&self, (leg, id): (u64, PushId), users: Vec<Text>, errand: PushErrand, deadline: Mono) {
        let PushErrand { body, source, rules, once } = errand;
        let (users, had) = self.sort_out(once.as_ref(), users);
        let push =
            Push { source: source_here(&id, source), body, to: To::Users(users.clone()), rules, deadline };
        let posted = match rules.report {
            _ if users.is_empty() => None,
            Report::Queued => self.shared.exchange.ask(|router| router.push(push)).ok().map(Posted::Whole),
            Report::Each | Report::Totals => {
                let tray = self.shared.exchange.tray();
                tray.push(push).ok().map(|_| Posted::Parts(tray))
            }
        };
        let mesh = self.clone();
        monoio::spawn(async move {
            let mut results = match posted {
                Some(posted) => posted.results().await,
                None => Results::new(),
            };
            if let Some(message) = &once {
                mesh.remember(message, &users, &results);
                results.extend(mesh.had(message, had, deadline).await);
            }
            mesh.answer(leg, results.into_iter().map(told).collect());
        });
    }

    /// Who gets a message that is to be had once, and who has had it or is about to.
    fn sort_out(&self, message: Option<&Text>, users: Vec<Text>) -> (Vec<Text>, Vec<Text>) {
        let Some(message) = message else { return (users, Vec::new()) };
        let now = clock::now().mono;
        let mut doubles = self.shared.doubles.borrow_mut();
        let (fresh, had): (Vec<Text>, Vec<Text>) =
            users.into_iter().partition(|user| doubles.look(message, user, now) == Once::Send);
        self.shared.exchange.add(Metric::ClusterDoubles, had.len() as u64);
        self.shared.exchange.add(Metric::ClusterDoublesForgotten, doubles.take_early());
        (fresh, had)
    }

    fn remember(&self, message: &Text, users: &[Text], results: &Results) {
        let by_user: BTreeMap<&Text, &Reached> =
            results.iter().map(|(user, reached)| (user, reached)).collect();
        let mut doubles = self.shared.doubles.borrow_mut();
        for user in users {
            doubles.done(message, user, by_user.get(user).copied());
        }
    }

    /// What became of the message before, for those who had it; those of whom it is not known in time are left out.
    async fn had(&self, message: &Text, mut users: Vec<Text>, deadline: Mono) -> Results {
        let mut results = Results::new();
        loop {
            let now = clock::now().mono;
            let doubles = &self.shared.doubles;
            users.retain(|user| match doubles.borrow().known(message, user) {
                Some(reached) => {
                    results.push((user.clone(), reached));
                    false
                }
                None => true,
            });
            if users.is_empty() || now >= deadline {
                return results;
            }
            monoio::time::sleep(Duration::from_millis(DOUBLE_LOOK_MS)).await;
        }
    }
}

impl Posted {
    async fn results(self) -> Results {
        let known = |result: PushResult| Some((result.user, reached(result.devices?)));
        match self {
            Self::Whole(waiting) => match waiting.await {
                Outcome::Push(results) => results.into_iter().filter_map(known).collect(),
                _ => Results::new(),
            },
            Self::Parts(tray) => {
                let mut all = Results::new();
                loop {
                    poll_fn(|cx| tray.poll_news(cx)).await;
                    while let Some((_, part)) = tray.next() {
                        all.extend(part.results.into_iter().filter_map(known));
                        if part.last {
                            return all;
                        }
                    }
                }
            }
        }
    }
}

/// By number. A connection without one cannot be named to others; it is told of all the same.
fn reached(devices: Vec<DeviceVerdict>) -> Reached {
    devices.into_iter().map(|verdict| (verdict.number, verdict)).collect()
}

fn told((user, reached): (Text, Reached)) -> (Text, Vec<(u64, Device)>) {
    (user, reached.into_iter().map(|(number, verdict)| (number, verdict.into())).collect())
}

/// Connections as verdicts, which is what travels: in the background or not. The number is the login's time, so that
/// the connections of several nodes can be put in the order of their logins; no two have the same.
fn statuses(devices: Vec<DeviceStatus>) -> Vec<(u64, Device)> {
    let mut last = 0;
    let status = |device: DeviceStatus| {
        last = device.time.max(last + 1);
        let outcome = if device.background { DeviceOutcome::Background } else { DeviceOutcome::Queued };
        let connection_id = connection_id_of_hex(&device.connection_id);
        let verdict = DeviceVerdict { number: last, platform: device.platform, connection_id, outcome };
        (last, Device { verdict, token: Some(Token(device.token)) })
    };
    devices.into_iter().map(status).collect()
}

/// The same source of the same node is the same source here, and none of this node's own, which are below 2^63.
fn source_here(push: &PushId, source: SourceId) -> SourceId {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let numbers = [push.incarnation.0, source.0];
    let bytes = push.node.as_str().bytes().chain(numbers.into_iter().flat_map(u64::to_be_bytes));
    // FNV-1a: two sources that meet are served as one, which costs fairness and nothing else.
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    SourceId(hash | 1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Platform;
    use crate::placement::view::{Incarnation, NodeId};

    #[test]
    fn a_source_of_another_node_keeps_its_identity() {
        let push = |node: &str, number| PushId {
            node: NodeId::new(node).unwrap(),
            incarnation: Incarnation(3),
            number,
        };
        let source = source_here(&push("a", 1), SourceId(5));
        assert_eq!(source, source_here(&push("a", 2), SourceId(5)));
        assert_ne!(source, source_here(&push("b", 1), SourceId(5)));
        assert_ne!(source, source_here(&push("a", 1), SourceId(6)));
        assert!(source.0 >= 1 << 63);
    }

    #[test]
    fn connections_are_told_in_their_order_and_none_hides_another() {
        let device = |time, token: &str| DeviceStatus {
            platform: Platform::WEB,
            connection_id: "000102030405060708090a0b0c0d0e0f".into(),
            background: time == 9,
            token: token.into(),
            time,
        };
        let told = statuses(vec![device(9, "a"), device(9, "b"), device(4, "c"), device(40, "d")]);
        let numbers: Vec<u64> = told.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [9, 10, 11, 40]);
        let outcome = |n: usize| told[n].1.verdict.outcome;
        assert_eq!((outcome(0), outcome(3)), (DeviceOutcome::Background, DeviceOutcome::Queued));
        assert!(told.iter().zip(["a", "b", "c", "d"]).all(|((_, device), token)| {
            device.token == Some(Token(token.into()))
                && !format!("{device:?}").contains(&format!("\"{token}\""))
        }));
    }
}

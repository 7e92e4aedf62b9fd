//! What callers ask of users wherever they are: pushes, kicks, questions, from this node as the entry node.
//!
//! What always holds: a call that is on its way has one answer, or its caller is gone; a user named twice gets a push
//! once, and both places of the answer say the same.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::payload::{Errand, PushErrand, message_id};
use super::{Mesh, Verdicts};
use crate::cluster::protocol::frame::{Conn, Device, Token, Verdict};
use crate::cluster::protocol::io::{self, Input};
use crate::cluster::router::{Cover, Push, PushResult, ResultPart};
use crate::hub::mail::{DeviceOutcome, DeviceStatus, Report, Totals};
use crate::ids::{Platform, RpcTicket, Text, connection_id_hex};
use crate::placement::view::NodeId;
use crate::rpc::exchange::Tray;
use crate::shard::clock;
use crate::shard::nudge::Nudge;
use crate::wire::grpc::{Status, code};

/// What the driver leaves for the one who waits.
#[derive(Default)]
pub(super) struct Answer {
    verdicts: RefCell<Option<Verdicts>>,
    here: Nudge,
}

/// A call on its way. Dropped: nobody wants the answer.
pub(super) struct Routed {
    mesh: Mesh,
    ticket: u64,
    answer: Rc<Answer>,
}

impl Answer {
    pub(super) fn come(&self, verdicts: Verdicts) {
        self.verdicts.replace(Some(verdicts));
        self.here.ring();
    }
}

impl Routed {
    /// One verdict per user; `None`: the router takes no more.
    pub(super) async fn verdicts(self) -> Verdicts {
        loop {
            let verdicts = self.answer.verdicts.borrow_mut().take();
            match verdicts {
                Some(verdicts) => return verdicts,
                None => self.answer.here.wait().await,
            }
        }
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        let answer = self.mesh.shared.board.pushes.borrow_mut().remove(&self.ticket);
        drop(answer); // after the borrow
    }
}

impl Mesh {
    /// Sends an errand on its way at once: what is started first is ahead.
    pub(super) fn start(&self, users: Vec<Text>, errand: &Errand) -> Routed {
        let shared = &self.shared;
        let ticket = shared.tickets.get() + 1;
        shared.tickets.set(ticket);
        let answer = Rc::new(Answer::default());
        shared.board.pushes.borrow_mut().insert(ticket, Rc::clone(&answer));
        let payload = errand.encode(clock::now().mono);
        self.input(Input::Push(io::Push { ticket, recipients: users, payload }));
        Routed { mesh: self.clone(), ticket, answer }
    }

    /// A push of `pinion.v1` to these users; its verdicts come to the tray in one part.
    pub(in crate::rpc) fn push_to_tray(&self, tray: &Tray, users: Vec<Text>, push: Push) -> RpcTicket {
        let report = push.rules.report;
        let ticket = tray.reserve(users.clone(), report);
        let Push { source, body, rules, .. } = push;
        let errand = Errand::Push(Box::new(PushErrand { body, source, rules, once: None }));
        let routed = self.start(users.clone(), &errand);
        let exchange = self.shared.exchange.clone();
        monoio::spawn(async move {
            let verdicts = routed.verdicts().await.unwrap_or_default();
            exchange.routed(ticket, part(users, report, verdicts));
        });
        ticket
    }

    /// A push of OpenIM's push service in mode `route`: one result per requested user, wherever he is.
    pub(in crate::rpc) async fn push_once(
        &self,
        users: Vec<Text>,
        push: Push,
    ) -> Result<Vec<PushResult>, Status> {
        let Push { source, body, rules, .. } = push;
        let once = message_id(&body.msg_data);
        let errand = Errand::Push(Box::new(PushErrand { body, source, rules, once }));
        let verdicts = self.start(users.clone(), &errand).verdicts().await.ok_or_else(too_many)?;
        Ok(part(users, Report::Queued, verdicts).results)
    }

    /// Whether a login of this user at that node is judged by the nodes' own protocol now: that node, and the user's
    /// home, are linked.
    pub(in crate::rpc) fn judges_logins(&self, at: &str, user: &str) -> bool {
        let driver = self.shared.driver.borrow();
        let Some(node) = driver.node() else { return false };
        let linked = |id: &NodeId| *id == self.shared.own || node.linked().any(|peer| peer == id);
        let at = NodeId::new(at).is_ok_and(|at| at != self.shared.own && linked(&at));
        at && node.placement().home(user).is_some_and(linked)
    }

    /// Ends the connections of these users on a platform, wherever they are.
    ///
    /// # Errors
    /// UNAVAILABLE: some node could not be asked; the others have obeyed.
    pub(in crate::rpc) async fn kick(&self, users: Vec<Text>, platform: Platform) -> Result<(), Status> {
        let verdicts = self.start(users, &Errand::Kick(platform)).verdicts().await.ok_or_else(too_many)?;
        let missing: BTreeSet<&str> = unaccounted(&verdicts).collect();
        if verdicts.iter().all(|verdict| verdict.complete) {
            return Ok(());
        }
        let names: Vec<&str> = missing.into_iter().collect();
        let whom = if names.is_empty() { "this node has no lease".to_owned() } else { names.join(", ") };
        Err(Status::new(
            code::UNAVAILABLE,
            format!("kicked where users could be reached, not known of: {whom}"),
        ))
    }

    /// The connections of these users, wherever they are, in the order of the request, each user's in the order of
    /// their logins, with their tokens: those of nodes that answered.
    pub(in crate::rpc) async fn online_status(
        &self,
        users: Vec<Text>,
    ) -> Result<Vec<(Text, Vec<DeviceStatus>)>, Status> {
        let verdicts = self.start(users.clone(), &Errand::Status).verdicts().await.ok_or_else(too_many)?;
        Ok(statuses(users, verdicts))
    }
}

fn statuses(users: Vec<Text>, verdicts: Vec<Verdict>) -> Vec<(Text, Vec<DeviceStatus>)> {
    let by_user: BTreeMap<Text, Vec<DeviceStatus>> = verdicts.into_iter().map(devices).collect();
    let found = |user: Text| {
        let devices = by_user.get(&user).cloned().unwrap_or_default();
        (user, devices)
    };
    users.into_iter().map(found).collect()
}

/// By the times of their logins, which the numbers are.
fn devices(verdict: Verdict) -> (Text, Vec<DeviceStatus>) {
    let mut results = verdict.results;
    results.sort_by_key(|(conn, _)| conn.number);
    let device = |(conn, Device { verdict, token }): (Conn, Device)| DeviceStatus {
        platform: verdict.platform,
        connection_id: connection_id_hex(verdict.connection_id),
        background: verdict.outcome == DeviceOutcome::Background,
        token: token.map(|Token(token)| token).unwrap_or_default(),
        time: conn.number,
    };
    (verdict.user, results.into_iter().map(device).collect())
}

fn too_many() -> Status {
    Status::new(code::UNAVAILABLE, "too many pushes are on their way to other nodes")
}

fn unaccounted(verdicts: &[Verdict]) -> impl Iterator<Item = &str> {
    verdicts.iter().flat_map(|verdict| &verdict.unaccounted).map(|node| node.as_str())
}

/// The verdicts as the one part of an answer, in the order of the request. Whoever has none is not reached.
fn part(users: Vec<Text>, report: Report, verdicts: Vec<Verdict>) -> ResultPart {
    let mut part = ResultPart { last: true, ..ResultPart::default() };
    let mut by_user: BTreeMap<Text, Verdict> =
        verdicts.into_iter().map(|verdict| (verdict.user.clone(), verdict)).collect();
    let mut counted = BTreeSet::new();
    for user in users {
        let verdict = by_user.entry(user.clone()).or_insert_with(|| Verdict {
            user: user.clone(),
            results: Vec::new(),
            complete: false,
            unaccounted: Vec::new(),
        });
        if counted.insert(user.clone()) {
            count(&mut part, verdict);
        }
        if report == Report::Totals {
            continue;
        }
        let known = verdict.complete || !verdict.results.is_empty();
        let devices = known.then(|| verdict.results.iter().map(|(_, device)| device.verdict).collect());
        part.results.push(PushResult { user, devices, expired: false });
        part.covers.push(Cover { complete: verdict.complete, unaccounted: verdict.unaccounted.clone() });
    }
    part
}

/// Each user and each device once.
fn count(part: &mut ResultPart, verdict: &Verdict) {
    let Totals { users, not_here, .. } = &mut part.totals;
    match (verdict.results.is_empty(), verdict.complete) {
        (true, false) => part.not_reached += 1,
        (true, true) => (*users, *not_here) = (*users + 1, *not_here + 1),
        (false, _) => *users += 1,
    }
    part.not_complete += u32::from(!verdict.complete);
    for (_, device) in &verdict.results {
        part.totals.count(device.verdict.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::view::Incarnation;

    fn verdict(user: &str, outcomes: &[DeviceOutcome], missing: &[&str]) -> Verdict {
        let node = |id: &&str| NodeId::new(id).unwrap();
        let device = |(number, outcome): (u64, &DeviceOutcome)| {
            let (_, device) = super::super::fixtures::device(number, Platform::IOS, *outcome).remove(0);
            (Conn { node: node(&"a"), incarnation: Incarnation(1), number }, device)
        };
        Verdict {
            user: user.into(),
            results: (1..).zip(outcomes).map(device).collect(),
            complete: missing.is_empty(),
            unaccounted: missing.iter().map(node).collect(),
        }
    }

    #[test]
    fn connections_of_several_nodes_are_in_the_order_of_their_logins_with_their_tokens() {
        let at = |node: &str, number, token: &str, outcome| {
            let (_, device) = super::super::fixtures::device(number, Platform::IOS, outcome).remove(0);
            let conn = Conn { node: NodeId::new(node).unwrap(), incarnation: Incarnation(1), number };
            (conn, Device { token: Some(Token(token.into())), ..device })
        };
        let results = vec![
            at("a", 30, "third", DeviceOutcome::Queued),
            at("b", 10, "first", DeviceOutcome::Queued),
            at("c", 20, "second", DeviceOutcome::Background),
        ];
        let found = Verdict { results, ..verdict("u", &[], &["d"]) };
        let told = statuses(["nobody", "u", "u"].map(Text::from).into(), vec![found]);
        assert_eq!((told.len(), &told[0].1[..], &told[1]), (3, &[][..], &told[2]));
        let tokens: Vec<(&str, bool)> =
            told[1].1.iter().map(|device| (&*device.token, device.background)).collect();
        assert_eq!(tokens, [("first", false), ("second", true), ("third", false)]);
    }

    #[test]
    fn each_place_has_its_result_and_each_device_is_counted_once() {
        let users: Vec<Text> = ["here", "away", "here", "unknown", "half"].map(Text::from).into();
        let verdicts = vec![
            verdict("here", &[DeviceOutcome::Written, DeviceOutcome::Dropped], &[]),
            verdict("away", &[], &[]),
            verdict("half", &[DeviceOutcome::Written], &["c"]),
        ];
        let whole = part(users.clone(), Report::Each, verdicts.clone());
        let devices: Vec<Option<usize>> =
            whole.results.iter().map(|result| result.devices.as_ref().map(Vec::len)).collect();
        assert_eq!(devices, [Some(2), Some(0), Some(2), None, Some(1)]);
        let complete: Vec<bool> = whole.covers.iter().map(|cover| cover.complete).collect();
        assert_eq!(complete, [true, true, true, false, false]);
        let named: Vec<&str> =
            whole.covers.iter().flat_map(|cover| &cover.unaccounted).map(|node| node.as_str()).collect();
        assert_eq!(named, ["c"]);
        let Totals { users: looked_at, written, dropped, not_here, .. } = whole.totals;
        assert_eq!((looked_at, written, dropped, not_here), (3, 2, 1, 1));
        assert_eq!((whole.not_reached, whole.not_complete, whole.last), (1, 2, true));
        let totals = part(users, Report::Totals, verdicts);
        assert_eq!((totals.totals, totals.results.len()), (whole.totals, 0));
    }
}

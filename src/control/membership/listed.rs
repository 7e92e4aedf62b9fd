//! The members as a file lists them (`cluster::members`): nobody is ever lost, the lease always holds.
//!
//! What always holds: a file that cannot be read, or says nothing that can be, changes nothing; the own state is what
//! the router ordered, and draining where the list says so. The epoch counts the changes that this process saw, so
//! epochs of two nodes cannot be compared, and need not be (routing-protocol.md M5).

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::telling::Telling;
use super::todo::{Orders, Registration};
use crate::cluster::members::MemberList;
use crate::config::text_file;
use crate::control::plan::ControlFault;
use crate::limits::{MEMBERS_FILE_BYTES, MEMBERS_FILE_MS};
use crate::metrics::Metric;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View};
use crate::time::Mono;

/// See the module's documentation.
pub(super) struct List {
    path: PathBuf,
    node_id: NodeId,
    /// Where peers reach this node, if the list does not say it.
    rpc_addr: String,
    incarnation: Incarnation,
    /// As the router has ordered it.
    state: MemberState,
    /// What was read last, good or not.
    text: String,
    /// Of the last good list.
    members: Vec<Member>,
    epoch: u64,
}

impl List {
    /// Reads the list.
    pub(super) fn new(path: PathBuf, own: &Member) -> Result<Self, ControlFault> {
        let fault = |why: String| ControlFault::Members { path: path.clone(), why };
        let text = text_file::contents(&path, MEMBERS_FILE_BYTES).map_err(fault)?;
        let members = members(&text).map_err(fault)?;
        if !members.iter().any(|member| member.node_id == own.node_id) {
            return Err(fault(not_listed(&own.node_id, &members)));
        }
        let (node_id, rpc_addr, incarnation) = (own.node_id.clone(), own.rpc_addr.clone(), own.incarnation);
        Ok(Self {
            path,
            node_id,
            rpc_addr,
            incarnation,
            state: MemberState::Joining,
            text,
            members,
            epoch: 1,
        })
    }

    /// Tells the list and its changes, until the end is wanted.
    pub(super) async fn follow_until_end(mut self, telling: &Telling<'_>, mut orders: Orders) {
        telling.joined(self.incarnation, Epoch(self.epoch), Mono(u64::MAX));
        telling.observe(self.view());
        let mut look = Instant::now();
        while !orders.are_over() {
            tokio::select! {
                () = orders.more() => self.work(telling, &mut orders),
                () = sleep_until(look) => {
                    look = Instant::now() + Duration::from_millis(MEMBERS_FILE_MS);
                    self.look(telling);
                }
            }
        }
    }

    /// Reads the file again. It is small and on this host: reading it holds nobody up.
    fn look(&mut self, telling: &Telling<'_>) {
        let read = text_file::contents(&self.path, MEMBERS_FILE_BYTES);
        let text = read.unwrap_or_else(|why| format!("\0 {why}"));
        if text == self.text {
            if telling.is_in_doubt() {
                telling.observe(self.view());
            }
            return;
        }
        let found = match text.strip_prefix('\0') {
            Some(why) => Err(why.trim().to_owned()),
            None => members(&text),
        };
        self.text = text;
        match found {
            Ok(found) => {
                if !found.iter().any(|member| member.node_id == self.node_id) {
                    let why = not_listed(&self.node_id, &found);
                    tracing::error!(why, "cluster: this node is taken off the list: it ends");
                }
                self.members = found;
                self.tell(telling);
            }
            Err(why) => {
                telling.counts.count(Metric::MembershipFailures);
                telling.counts.count(Metric::ViewsIgnored);
                let path = self.path.display();
                tracing::error!(%path, why, "cluster: the list of members is no good; the last good one stands");
            }
        }
    }

    fn tell(&mut self, telling: &Telling<'_>) {
        self.epoch = self.epoch.saturating_add(1);
        telling.observe(self.view());
    }

    /// Nothing is written anywhere: the own record is in this process, and the others' are the operator's.
    fn work(&mut self, telling: &Telling<'_>, orders: &mut Orders) {
        let todo = std::mem::take(&mut orders.todo);
        if let Some((state, registration)) = todo.own {
            self.state = state;
            self.tell(telling);
            if registration == Registration::New {
                telling.recorded(Epoch(self.epoch));
            }
        }
        for (node_id, incarnation) in todo.forget {
            tracing::warn!(
                %node_id, %incarnation,
                "cluster: a listed node is not forgotten here: take it off cluster.members"
            );
        }
    }

    fn view(&self) -> View {
        let member = |member: &Member| match member.node_id == self.node_id {
            true => Member {
                incarnation: self.incarnation,
                state: if member.state == MemberState::Draining { member.state } else { self.state },
                rpc_addr: match member.rpc_addr.as_str() {
                    "" => self.rpc_addr.clone(),
                    listed => listed.to_owned(),
                },
                ..member.clone()
            },
            false => member.clone(),
        };
        View::new(Epoch(self.epoch), self.members.iter().map(member).collect())
    }
}

fn members(text: &str) -> Result<Vec<Member>, String> {
    match MemberList::parse(text) {
        Ok(list) => Ok(list.members.into_iter().map(|listed| listed.member).collect()),
        Err(faults) => Err(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

fn not_listed(own: &NodeId, members: &[Member]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.node_id.as_str()).collect();
    format!("this node is {own} (cluster.node_id), and the list has {}: add a line for it", names.join(", "))
}

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
use crate::config::member_file::MemberFile;
use crate::control::news::DiscoveryState;
use crate::control::plan::ControlFault;
use crate::limits::MEMBERS_FILE_MS;
use crate::metrics::Metric;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View};
use crate::time::Mono;

/// See the module's documentation.
pub(super) struct List {
    file: MemberFile,
    /// `None`: this process only looks on.
    own: Option<Own>,
    /// Of the last good list.
    members: Vec<Member>,
    epoch: u64,
}

/// This node.
struct Own {
    node_id: NodeId,
    /// Where peers reach this node, if the list does not say it.
    rpc_addr: String,
    incarnation: Incarnation,
    /// As the router has ordered it.
    state: MemberState,
}

impl List {
    /// Reads the list.
    pub(super) fn new(path: PathBuf, own: Option<&Member>) -> Result<Self, ControlFault> {
        let mut file = MemberFile::new(path, None);
        let listed = file.look().unwrap_or_else(|| file.read()).map_err(ControlFault::Members)?;
        let members = members(listed);
        let own = own.map(|own| Own {
            node_id: own.node_id.clone(),
            rpc_addr: own.rpc_addr.clone(),
            incarnation: own.incarnation,
            state: MemberState::Joining,
        });
        if let Some(why) = own.as_ref().and_then(|own| own.not_in(&members)) {
            return Err(ControlFault::Members(why));
        }
        Ok(Self { file, own, members, epoch: 1 })
    }

    /// Tells the list and its changes, until the end is wanted.
    pub(super) async fn follow_until_end(mut self, telling: &Telling<'_>, mut orders: Orders) {
        match &self.own {
            Some(own) => telling.joined(own.incarnation, Epoch(self.epoch), Mono(u64::MAX)),
            None => telling.watched(DiscoveryState::Current),
        }
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
        match self.file.look() {
            None if telling.is_in_doubt() => telling.observe(self.view()),
            None => {}
            Some(Ok(listed)) => {
                self.members = members(listed);
                if let Some(why) = self.own.as_ref().and_then(|own| own.not_in(&self.members)) {
                    tracing::error!(why, "cluster: this node is taken off the list: it ends");
                }
                self.tell(telling);
            }
            Some(Err(why)) => {
                telling.counts.count(Metric::MembershipFailures);
                telling.counts.count(Metric::ViewsIgnored);
                tracing::error!(why, "cluster: the list of members is no good; the last good one stands");
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
        if let (Some((state, registration)), Some(own)) = (todo.own, &mut self.own) {
            own.state = state;
            self.tell(telling);
            if registration == Registration::New {
                telling.recorded(Epoch(self.epoch));
            }
        }
        for (node_id, (incarnation, _)) in todo.forget {
            tracing::warn!(
                %node_id, %incarnation,
                "cluster: forgotten until this process ends: take its line off cluster.members, too"
            );
        }
    }

    fn view(&self) -> View {
        let member = |member: &Member| match &self.own {
            Some(own) if member.node_id == own.node_id => Member {
                incarnation: own.incarnation,
                state: if member.state == MemberState::Draining { member.state } else { own.state },
                rpc_addr: match member.rpc_addr.as_str() {
                    "" => own.rpc_addr.clone(),
                    listed => listed.to_owned(),
                },
                ..member.clone()
            },
            _ => member.clone(),
        };
        View::new(Epoch(self.epoch), self.members.iter().map(member).collect())
    }
}

impl Own {
    /// What to do, if it is none of these.
    fn not_in(&self, members: &[Member]) -> Option<String> {
        if members.iter().any(|member| member.node_id == self.node_id) {
            return None;
        }
        let (own, names) = (&self.node_id, members.iter().map(|member| member.node_id.as_str()));
        let names = names.collect::<Vec<_>>().join(", ");
        Some(format!("this node is {own} (cluster.node_id), and the list has {names}: add a line for it"))
    }
}

fn members(list: MemberList) -> Vec<Member> {
    list.members.into_iter().map(|listed| listed.member).collect()
}

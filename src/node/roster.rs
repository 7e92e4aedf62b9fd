//! The members as a file lists them, for the assign API: read on the main thread, which may block, and looked up beside
//! it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::thread::JoinHandle;

use crate::cluster::assign::roster::Roster;
use crate::cluster::members::{MemberList, Scheme};
use crate::config::member_file::MemberFile;
use crate::config::{Config, MembershipSource, host_name};
use crate::placement::Algorithm;
use crate::placement::view::{Epoch, Member, NodeId, View};

/// What a gateway hands out before (or without) a membership: the list of `cluster.members`, or itself. `None`: not
/// known yet.
///
/// # Errors
/// All that is wrong with the list, in words for the operator.
pub(super) fn of(config: &Config) -> Result<Option<Roster>, String> {
    if let Some(path) = &config.cluster.members {
        let list = MemberFile::new(path.clone(), None).read();
        let view = list.and_then(|list| judged((path, list), &config.cluster.placement));
        return view.map(|view| Some(looked_up(view)));
    }
    let cluster = &config.cluster;
    Ok(match (own_id(config), cluster.source) {
        (Some(node_id), MembershipSource::None) if !cluster.ws_url.is_empty() => {
            let member = Member {
                weight: cluster.weight,
                ws_url: cluster.ws_url.clone(),
                labels: cluster.labels.clone(),
                ..Member::new(node_id)
            };
            Some(Roster::of(View::new(Epoch(1), vec![member])))
        }
        _ => None,
    })
}

/// The name of this node: `cluster.node_id`, or the host's. `None`: neither can be one.
pub(super) fn own_id(config: &Config) -> Option<NodeId> {
    let host = || NodeId::new(&host_name()).ok();
    config.cluster.node_id.clone().or_else(host)
}

/// The members of a list. One that does not speak of placement is for any: `cluster.placement` counts.
///
/// # Errors
/// It speaks of another ring than that.
pub(super) fn judged((path, list): (&Path, MemberList), placement: &Algorithm) -> Result<View, String> {
    if list.scheme == Scheme::OpenImRing {
        list.places_as(placement).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    Ok(list.view())
}

/// Looks the names of a view's members up, beside the main thread: a resolver that hangs must not keep it from the
/// shards. One view at a time.
#[derive(Default)]
pub(super) struct LookUp {
    thread: Option<JoinHandle<Roster>>,
    found: Option<Roster>,
}

impl LookUp {
    /// Begins, unless an earlier one is not done or not told; whether it did.
    pub(super) fn begin(&mut self, view: &View) -> bool {
        if !self.is_idle() {
            return false;
        }
        let is_name = |m: &Member| !m.rpc_addr.is_empty() && m.rpc_addr.parse::<SocketAddr>().is_err();
        let view = view.clone();
        if !view.members().iter().any(is_name) {
            self.found = Some(looked_up(view));
            return true;
        }
        match std::thread::Builder::new().name("names".to_owned()).spawn(move || looked_up(view)) {
            Ok(thread) => {
                self.thread = Some(thread);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the members' names cannot be looked up; trying again");
                false
            }
        }
    }

    /// What was found, until [`LookUp::told`].
    pub(super) fn found(&mut self) -> Option<&Roster> {
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            // It panicked: nothing is told, and the next view is looked up again.
            self.found = thread.join().ok();
        }
        self.found.as_ref()
    }

    pub(super) fn told(&mut self) {
        self.found = None;
    }

    /// Nothing is looked up or to be told.
    pub(super) fn is_idle(&self) -> bool {
        self.thread.is_none() && self.found.is_none()
    }
}

/// Looks the members' names up. A name that is not found is one that nobody is asked at; the log says so.
pub(super) fn looked_up(view: View) -> Roster {
    Roster::looked_up(view, |text| {
        let found: Result<Option<SocketAddr>, _> = text.to_socket_addrs().map(|mut found| found.next());
        match found {
            Ok(address) => address,
            Err(error) => {
                tracing::warn!(rpc = text, %error, "a member's address is not found: it is not asked how full it is");
                None
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(rpc: &[(&str, &str)]) -> View {
        let member = |(name, rpc): &(&str, &str)| Member {
            rpc_addr: (*rpc).to_owned(),
            ..Member::new(NodeId::new(name).unwrap())
        };
        View::new(Epoch(1), rpc.iter().map(member).collect())
    }

    #[test]
    fn names_are_looked_up_beside_and_addresses_at_once() {
        let mut lookup = LookUp::default();
        assert!(lookup.is_idle() && lookup.found().is_none());
        assert!(lookup.begin(&view(&[("a", "127.0.0.1:7")])));
        assert!(lookup.thread.is_none() && !lookup.begin(&view(&[])), "what was found is not told yet");
        assert!(lookup.found().is_some());
        lookup.told();
        assert!(lookup.is_idle() && lookup.begin(&view(&[("a", "localhost:7")])));
        assert!(lookup.thread.is_some() && !lookup.begin(&view(&[])));
        while lookup.found().is_none() {
            std::thread::yield_now();
        }
        lookup.told();
        assert!(lookup.is_idle());
    }
}

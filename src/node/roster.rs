//! The members as a file lists them, for the assign API: read and looked up on the main thread, which may block.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use crate::cluster::assign::roster::Roster;
use crate::cluster::members::{MemberList, Scheme};
use crate::config::member_file::MemberFile;
use crate::config::{Config, MembershipSource, host_name};
use crate::placement::view::{Epoch, Member, NodeId, View};

/// What a gateway hands out before (or without) a membership: the list of `cluster.members`, or itself. `None`: not
/// known yet.
///
/// # Errors
/// All that is wrong with the list, in words for the operator.
pub(super) fn of(config: &Config) -> Result<Option<Roster>, String> {
    if let Some(path) = &config.cluster.members {
        let list = MemberFile::new(path.clone(), None).read();
        return list.and_then(|list| judged(path, list)).map(|view| Some(looked_up(view)));
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

/// The members of a list.
///
/// # Errors
/// It places users by a scheme of its own.
pub(super) fn judged(path: &Path, list: MemberList) -> Result<View, String> {
    if list.scheme == Scheme::OpenImRing {
        let what =
            "`placement openim-ring` is for `pinion route`; here cluster.placement says how users are placed";
        return Err(format!("{}: {what}", path.display()));
    }
    Ok(list.view())
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

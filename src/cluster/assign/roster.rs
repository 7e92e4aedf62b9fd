//! The members as the assign API gets them: a view, and where its members are asked how full they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::placement::view::{NodeId, View};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Who is there.
    pub view: View,
    /// `rpc_addr` of the members, looked up. A member that is not in it is not asked, and taken to be there.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
}

impl Roster {
    /// The members of a view; those are asked whose `rpc_addr` needs no looking up.
    pub fn of(view: View) -> Self {
        Self::looked_up(view, |text| text.parse().ok())
    }

    /// As [`Roster::of`]; `look_up` finds the address of a `HOST:PORT`.
    pub fn looked_up(view: View, look_up: impl Fn(&str) -> Option<SocketAddr>) -> Self {
        let address = |rpc: &str| if rpc.is_empty() { None } else { look_up(rpc) };
        let addresses = view
            .members()
            .iter()
            .filter_map(|member| Some((member.node_id.clone(), address(&member.rpc_addr)?)))
            .collect();
        Self { view, addresses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::members::MemberList;

    #[test]
    fn members_are_asked_where_their_address_is_known() {
        let list = "a rpc=10.0.0.1:10140\nb rpc=b.internal:10140\nc\nd rpc=[::1]:7\n";
        let view = MemberList::parse(list).unwrap().view();
        let asked = |roster: &Roster| roster.addresses.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(asked(&Roster::of(view.clone())), ["a", "d"]);
        let all = Roster::looked_up(view, |_| Some(SocketAddr::from(([10, 0, 0, 9], 1))));
        assert_eq!(asked(&all), ["a", "b", "d"]);
    }
}

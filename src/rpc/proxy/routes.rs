//! Which members serve a user, and where they are dialled.
//!
//! Whoever knows the members makes [`Routes`] of them (`members`). What is
//! hashed and what is dialled are two things (spec 10.4): an address here never decides who the home is. Any member
//! serves any user; the home is merely the one from which a push has no way to go.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::cluster::members::Homes;
use crate::limits::PROXY_ADDRESSES_MAX;
use crate::placement::view::{Member, NodeId};

/// See the module's documentation.
#[derive(Debug)]
pub struct Routes {
    homes: Homes,
    addresses: BTreeMap<NodeId, Vec<SocketAddr>>,
}

impl Routes {
    /// Members without an address are not dialled, but keep their place: their users do not move.
    pub fn new(homes: Homes, mut addresses: BTreeMap<NodeId, Vec<SocketAddr>>) -> Self {
        addresses.values_mut().for_each(|all| all.truncate(PROXY_ADDRESSES_MAX));
        Self { homes, addresses }
    }

    /// All members in placement with their addresses, the home of `user` first, then who would be it without those
    /// before.
    pub fn ranked(&self, user: &str) -> Vec<(&NodeId, &[SocketAddr])> {
        let addresses = |node: &NodeId| self.addresses.get(node).map(Vec::as_slice).unwrap_or_default();
        let ranked = self.homes.ranked(user, usize::MAX);
        ranked.into_iter().map(|node| (node, addresses(node))).collect()
    }

    /// Members in placement, and how many of them have an address.
    pub fn size(&self) -> (usize, usize) {
        let all = self.ranked("");
        let known = all.iter().filter(|(_, addresses)| !addresses.is_empty()).count();
        (all.len(), known)
    }
}

/// Host and port at which a member takes WebSocket connections of the proxy: its label `proxy`, else its `ws=`.
///
/// # Errors
/// It has neither, or one that cannot be dialled; what to write.
pub fn dialled(member: &Member) -> Result<(String, u16), String> {
    let id = &member.node_id;
    if let Some((_, address)) = member.labels.iter().find(|(name, _)| name == "proxy") {
        return host_and_port(address, None)
            .ok_or_else(|| format!("{id}: label.proxy={address}: write HOST:PORT"));
    }
    let Some(rest) = member.ws_url.strip_prefix("ws://") else {
        return Err(if member.ws_url.is_empty() {
            format!("{id}: where is it dialled? Write ws=ws://HOST:PORT or label.proxy=HOST:PORT behind it")
        } else {
            format!("{id}: ws={} is for clients; write label.proxy=HOST:PORT, without TLS", member.ws_url)
        });
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    host_and_port(authority, Some(80))
        .ok_or_else(|| format!("{id}: ws={}: write ws://HOST:PORT", member.ws_url))
}

/// IPv6 addresses stand in brackets, which are taken off.
fn host_and_port(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (text, default),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    port.filter(|port| *port > 0 && !host.is_empty()).map(|port| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::members::MemberList;

    fn member(line: &str) -> Member {
        MemberList::parse(line).unwrap().members.remove(0).member
    }

    #[test]
    fn the_label_goes_before_the_url_and_port_80_is_understood() {
        for (line, want) in [
            ("a ws=ws://10.0.0.7:10001", Some(("10.0.0.7", 10001))),
            ("a ws=ws://g.example/msg?x=1", Some(("g.example", 80))),
            ("a ws=ws://[::1]:9", Some(("::1", 9))),
            ("a ws=ws://[::1]", Some(("::1", 80))),
            ("a ws=wss://g.example label.proxy=10.0.0.7:1", Some(("10.0.0.7", 1))),
            ("a label.proxy=[fd00::1]:10001", Some(("fd00::1", 10001))),
            ("a", None),
            ("a ws=wss://g.example", None),
            ("a ws=ws://g.example:0", None),
            ("a ws=ws://:80", None),
            ("a label.proxy=10.0.0.7", None),
        ] {
            let dialled = dialled(&member(line));
            let want = want.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(dialled.clone().ok(), want, "{line}: {dialled:?}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_placement_and_addresses_do_not_change_it() {
        let list = MemberList::parse("a\nb\nc").unwrap();
        let here: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let of = |known: &[&str]| {
            let known = known.iter().map(|id| (NodeId::new(id).unwrap(), vec![here; 20])).collect();
            Routes::new(list.homes(), known)
        };
        let (all, some) = (of(&["a", "b", "c"]), of(&["b"]));
        for user in ["u1", "u2", "u3", "u4"] {
            let names = |routes: &Routes| -> Vec<String> {
                routes.ranked(user).into_iter().map(|(id, _)| id.to_string()).collect()
            };
            assert_eq!(names(&all), names(&some));
            assert_eq!(all.ranked(user).first().map(|(id, _)| *id), list.homes().home(user));
        }
        assert_eq!((all.size(), some.size()), ((3, 3), (3, 1)));
        assert_eq!(all.ranked("u1").first().unwrap().1.len(), PROXY_ADDRESSES_MAX);
    }
}

//! The members of a proxy: from a list that is looked at again and again, or as the control thread tells them; their
//! names resolved now and then.
//!
//! A thread of its own, since a name server may take its time. What always holds: a list that cannot be read or is
//! wrong changes nothing but a counter and the log; neither does a source that is away, nor a name that cannot be
//! resolved any more. A list beside a source counts until the source has told of members.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::routes::{Routes, dialled};
use crate::cluster::members::{Homes, MemberList, Scheme};
use crate::config::member_file::MemberFile;
use crate::control::membership::MembershipNews;
use crate::control::news::{DiscoveryState, News};
use crate::limits::PROXY_RESOLVE_MS;
use crate::metrics::proxy::{ProxyBlock, ProxyMetric, ProxyTally};
use crate::placement::Algorithm;
use crate::placement::view::{Member, NodeId, View};
use crate::time::Mono;

/// Where the members come from. At least one of the two.
#[derive(Clone, Debug)]
pub struct Source {
    /// The list, and how it places if it does not say (`--placement`).
    pub list: Option<(PathBuf, Option<Scheme>)>,
    /// The control thread tells views; they place by this.
    pub watched: Option<Algorithm>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Watcher {
    list: Option<(PathBuf, MemberFile)>,
    watched: Option<Algorithm>,
    /// The source has told of members: the list does not count any more.
    has_view: bool,
    members: Members,
    addresses: BTreeMap<NodeId, Vec<SocketAddr>>,
    resolved: Mono,
    tally: ProxyTally,
    /// What it counts.
    pub block: Arc<ProxyBlock>,
}

/// Who is in placement.
#[derive(Debug)]
struct Members {
    homes: Homes,
    active: Vec<Member>,
    placement: String,
}

impl Watcher {
    /// Reads the list for the first time, if there is one.
    ///
    /// # Errors
    /// What is wrong with the file, line by line.
    pub fn start(source: Source, now: Mono) -> Result<(Self, Routes), String> {
        let list = source.list.map(|(path, scheme)| (path.clone(), MemberFile::new(path, scheme)));
        let algorithm = source.watched.clone().unwrap_or(Algorithm::Rendezvous);
        let mut watcher = Self {
            list,
            watched: source.watched,
            has_view: false,
            members: Members::of_view(&View::default(), &algorithm),
            addresses: BTreeMap::new(),
            resolved: now,
            tally: ProxyTally::default(),
            block: Arc::default(),
        };
        if let Some(members) = watcher.read() {
            watcher.members = members?;
        }
        watcher.show(if watcher.watched.is_some() {
            DiscoveryState::Loading
        } else {
            DiscoveryState::Current
        });
        watcher.resolve(now);
        let routes = watcher.routes();
        Ok((watcher, routes))
    }

    /// How users are placed, for operators.
    pub fn placement(&self) -> &str {
        &self.members.placement
    }

    /// Looks at the list, and now and then at the names. `Some`: users go by these from now on. May block.
    pub fn look(&mut self, now: Mono) -> Option<Routes> {
        let said = if self.has_view { None } else { self.read() };
        let is_new = match said {
            None => false,
            Some(Ok(members)) => {
                self.take(members);
                true
            }
            Some(Err(faults)) => {
                tracing::warn!("the member list stays as it was: {faults}");
                self.tally.count(ProxyMetric::MembersBad);
                if self.watched.is_none() {
                    self.show(DiscoveryState::Stale);
                }
                false
            }
        };
        if !is_new && now.since_ms(self.resolved) < PROXY_RESOLVE_MS {
            return None;
        }
        let changed = self.resolve(now);
        (is_new || changed).then(|| self.routes())
    }

    /// Takes what the control thread tells. `Some`: users go by these from now on. May block.
    pub fn hear(&mut self, news: News, now: Mono) -> Option<Routes> {
        let algorithm = self.watched.clone()?;
        match news {
            News::Membership(news) => {
                let MembershipNews::View(view) = *news else { return None };
                self.has_view = true;
                self.take(Members::of_view(&view, &algorithm));
                self.resolve(now);
                Some(self.routes())
            }
            News::Discovery(state) => {
                self.show(state);
                None
            }
            _ => None, // nothing else is asked of it
        }
    }

    fn read(&mut self) -> Option<Result<Members, String>> {
        let (path, file) = self.list.as_mut()?;
        Some(file.look()?.and_then(|list| Members::of_list(path, list)))
    }

    fn take(&mut self, members: Members) {
        tracing::info!(members = members.active.len(), placement = members.placement, "other members");
        self.tally.count(ProxyMetric::MembersRead);
        if self.watched.is_none() {
            self.show(DiscoveryState::Current);
        }
        self.members = members;
    }

    fn show(&mut self, state: DiscoveryState) {
        self.tally.set(ProxyMetric::MembersCurrent, u64::from(state == DiscoveryState::Current));
        self.block.publish(&self.tally);
    }

    /// Resolves all names; `true`: an address has changed.
    fn resolve(&mut self, now: Mono) -> bool {
        let mut found = BTreeMap::new();
        for member in &self.members.active {
            let node = &member.node_id;
            let known = self.addresses.get(node).cloned().unwrap_or_default();
            let addresses = match dialled(member).map(|host| host.to_socket_addrs()) {
                Ok(Ok(resolved)) => {
                    let mut all: Vec<SocketAddr> = resolved.collect();
                    all.sort_unstable(); // name servers turn the order around
                    all
                }
                Ok(Err(error)) => {
                    self.tally.count(ProxyMetric::NamesUnresolved);
                    tracing::warn!(member = %node, %error, "its name cannot be resolved; the last addresses stay");
                    known
                }
                // A list with such a member is refused; a node's own record cannot be.
                Err(why) => {
                    tracing::debug!(why, "a member that cannot be dialled");
                    Vec::new()
                }
            };
            found.insert(node.clone(), addresses);
        }
        self.resolved = now;
        self.tally.set(ProxyMetric::Members, found.len() as u64);
        self.block.publish(&self.tally);
        let changed = found != self.addresses;
        self.addresses = found;
        changed
    }

    fn routes(&self) -> Routes {
        Routes::new(self.members.homes.clone(), self.addresses.clone())
    }
}

impl Members {
    /// Of a list, each active member of which can be dialled. Pods of OpenIM 3.5 are dialled as its own proxy does, at
    /// port 80 of their name.
    fn of_list(path: &Path, mut list: MemberList) -> Result<Self, String> {
        let path = path.display();
        if list.scheme == Scheme::OpenImRing {
            for listed in &mut list.members {
                let member = &mut listed.member;
                let is_known =
                    !member.ws_url.is_empty() || member.labels.iter().any(|(name, _)| name == "proxy");
                if !is_known {
                    member.ws_url = format!("ws://{}:80", member.node_id);
                }
            }
        }
        let active: Vec<Member> = list.active().map(|listed| listed.member.clone()).collect();
        let faults: Vec<String> = active.iter().filter_map(|member| dialled(member).err()).collect();
        if active.is_empty() {
            return Err(format!("{path}: no member is active; nobody could be served"));
        }
        if !faults.is_empty() {
            return Err(format!("{path}: {}", faults.join("\n")));
        }
        let print = list.fingerprint().map(|print| format!(", fingerprint {print}")).unwrap_or_default();
        Ok(Self { homes: list.homes(), active, placement: format!("{}{print}", list.scheme.name()) })
    }

    /// Of a view. A member that cannot be dialled keeps its place: its users go to the next one.
    fn of_view(view: &View, algorithm: &Algorithm) -> Self {
        let active: Vec<Member> = view.active().cloned().collect();
        for why in active.iter().filter_map(|member| dialled(member).err()) {
            tracing::warn!(
                "no client is brought to a member: {why} (on the node: cluster.labels proxy=HOST:PORT)"
            );
        }
        let placement = view.placement(algorithm);
        let said = format!("{}, fingerprint {}", algorithm.name(), placement.fingerprint());
        Self { homes: Homes::Rendezvous(placement), active, placement: said }
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;

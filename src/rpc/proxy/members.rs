//! The member list of a proxy: read from a file, its names resolved, looked at again and again.
//!
//! A thread of its own, since a name server may take its time. What always holds: a list that cannot be read or is
//! wrong changes nothing but a counter and the log; neither does a name that cannot be resolved any more.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use super::routes::{Routes, dialled};
use crate::cluster::members::{MemberList, Scheme};
use crate::config::text_file;
use crate::limits::{PROXY_RESOLVE_MS, ROUTE_FILE_BYTES};
use crate::metrics::proxy::{ProxyBlock, ProxyMetric, ProxyTally};
use crate::placement::view::NodeId;
use crate::time::Mono;

/// Where the list is, and how it places if it does not say.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// `--placement`.
    pub scheme: Option<Scheme>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Watcher {
    source: Source,
    text: String,
    list: MemberList,
    addresses: BTreeMap<NodeId, Vec<SocketAddr>>,
    resolved: Mono,
    tally: ProxyTally,
    /// What it counts.
    pub block: Arc<ProxyBlock>,
}

impl Watcher {
    /// Reads the list for the first time.
    ///
    /// # Errors
    /// What is wrong with the file, line by line.
    pub fn start(source: Source, now: Mono) -> Result<(Self, Routes), String> {
        let text = text_file::read(&source.path, ROUTE_FILE_BYTES)?;
        let list = parse(&source, &text)?;
        let mut watcher = Self {
            source,
            text,
            list,
            addresses: BTreeMap::new(),
            resolved: now,
            tally: ProxyTally::default(),
            block: Arc::default(),
        };
        watcher.resolve(now);
        let routes = watcher.routes();
        Ok((watcher, routes))
    }

    /// The list that counts.
    pub fn list(&self) -> &MemberList {
        &self.list
    }

    /// Looks at the file, and now and then at the names. `Some`: users go by these from now on. May block.
    pub fn look(&mut self, now: Mono) -> Option<Routes> {
        let read = text_file::read(&self.source.path, ROUTE_FILE_BYTES);
        let text = match &read {
            Ok(text) | Err(text) => text,
        };
        let is_other = *text != self.text;
        if is_other {
            self.text.clone_from(text);
        }
        let parsed = is_other.then(|| read.and_then(|text| parse(&self.source, &text)));
        let is_new = matches!(parsed, Some(Ok(_)));
        match parsed {
            None => {}
            Some(Ok(list)) => {
                tracing::info!(members = list.active().count(), "another member list");
                self.tally.count(ProxyMetric::MembersRead);
                self.list = list;
            }
            Some(Err(faults)) => {
                tracing::warn!("the member list stays as it was: {faults}");
                self.tally.count(ProxyMetric::MembersBad);
                self.block.publish(&self.tally);
            }
        }
        if !is_new && now.since_ms(self.resolved) < PROXY_RESOLVE_MS {
            return None;
        }
        let changed = self.resolve(now);
        (is_new || changed).then(|| self.routes())
    }

    /// Resolves all names; `true`: an address has changed.
    fn resolve(&mut self, now: Mono) -> bool {
        let mut found = BTreeMap::new();
        for listed in self.list.active() {
            let node = &listed.member.node_id;
            let known = self.addresses.get(node).cloned().unwrap_or_default();
            let addresses = match dialled(&listed.member).map(|host| host.to_socket_addrs()) {
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
                Err(_) => known, // such a list is refused by `parse`
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
        Routes::new(self.list.homes(), self.addresses.clone())
    }
}

/// The list, each active member of which can be dialled. Pods of OpenIM 3.5 are dialled as its own proxy does, at
/// port 80 of their name.
fn parse(source: &Source, text: &str) -> Result<MemberList, String> {
    let path = source.path.display();
    // A line of its own before the first one: the lines keep their numbers but for this one.
    let given = source.scheme.map(|scheme| format!("placement {}\n", scheme.name()));
    let above = usize::from(given.is_some());
    let whole = given.unwrap_or_default() + text;
    let mut list = MemberList::parse(&whole).map_err(|faults| {
        let said = faults.into_iter().map(|mut fault| {
            fault.line = fault.line.saturating_sub(above);
            format!("{path}: {fault}")
        });
        said.collect::<Vec<_>>().join("\n")
    })?;
    if let Some(scheme) = source.scheme.filter(|scheme| *scheme != list.scheme) {
        return Err(format!(
            "{path}: says `placement {}`, --placement says {}; take one of them out",
            list.scheme.name(),
            scheme.name()
        ));
    }
    if list.scheme == Scheme::OpenImRing {
        for listed in &mut list.members {
            let member = &mut listed.member;
            let is_known = !member.ws_url.is_empty() || member.labels.iter().any(|(name, _)| name == "proxy");
            if !is_known {
                member.ws_url = format!("ws://{}:80", member.node_id);
            }
        }
    }
    let faults: Vec<String> = list.active().filter_map(|listed| dialled(&listed.member).err()).collect();
    if list.active().count() == 0 {
        return Err(format!("{path}: no member is active; nobody could be served"));
    }
    if faults.is_empty() { Ok(list) } else { Err(format!("{path}: {}", faults.join("\n"))) }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;

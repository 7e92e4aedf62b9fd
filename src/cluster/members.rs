//! A list of members as text: what an operator writes for a static cluster, and what `pinion route` compares.
//!
//! One member per line, `#` starts a comment:
//!
//! ```text
//! placement rendezvous
//! gw-0 weight=200 rpc=10.0.0.7:10140 ws=wss://g0.im.example label.region=eu
//! gw-1 state=draining
//! ```
//!
//! With `placement openim-ring` the first word of a line is the string that OpenIM's ring hashes; which node it stands
//! for is `node=ID`, or the string without its port. `pods RELEASE namespace=NS replicas=N port=88` (or `port=none`)
//! stands for the pods of OpenIM 3.5 as its push and its proxy count them (spec 10.4). Pure: who reads the file is not
//! here. What always holds: a list that was read has each node once, and at most `MEMBERS_MAX` of them.

use std::fmt;
use std::net::Ipv6Addr;

use crate::limits::{MEMBERS_MAX, WEIGHT_MAX};
use crate::placement::ring::Ring;
use crate::placement::view::{Epoch, Member, MemberState, NodeId, View, Weight};
use crate::placement::{Algorithm, Fingerprint, Placement};

/// A list that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberList {
    /// How users are placed.
    pub scheme: Scheme,
    /// In the order of the file.
    pub members: Vec<Listed>,
}

/// How a list places users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// By node ids and weights.
    #[default]
    Rendezvous,
    /// By OpenIM's ring over the hashed strings, in the order of the file.
    OpenImRing,
}

/// One member of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What the ring hashes; with rendezvous hashing the node id.
    pub hashed: String,
    /// The rest.
    pub member: Member,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// From 1; 0: the list as a whole.
    pub line: usize,
    /// What was seen, and what to write instead.
    pub what: String,
}

/// Where the users of a list are.
#[derive(Clone, Debug)]
pub enum Homes {
    /// By rendezvous hashing.
    Rendezvous(Placement),
    /// By the ring, with the node of each number.
    OpenImRing(Ring, Vec<NodeId>),
}

impl MemberList {
    /// Reads a list.
    ///
    /// # Errors
    /// Every line that is wrong; a list without members.
    pub fn parse(text: &str) -> Result<Self, Vec<LineFault>> {
        let mut list = Self { scheme: Scheme::default(), members: Vec::new() };
        let mut faults = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty()
                && let Err(what) = list.take(line)
            {
                faults.push(LineFault { line: number, what });
            }
        }
        if list.members.is_empty() && faults.is_empty() {
            let what = "no member; write one node id per line".to_owned();
            faults.push(LineFault { line: 0, what });
        }
        if faults.is_empty() { Ok(list) } else { Err(faults) }
    }

    /// Adds what one line says: `placement`, `pods`, or a member.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn take(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        match words.next().unwrap_or_default() {
            "placement" => self.scheme(words.next().unwrap_or_default(), words.next()),
            "pods" => Pods::read(words)?.names().try_for_each(|name| self.add_pod(&name)),
            first => self.add(self.checked(listed(first, words)?)?),
        }
    }

    /// Whether its users are where nodes with this `cluster.placement` look for them.
    ///
    /// # Errors
    /// They are not; what to write.
    pub fn places_as(&self, placement: &Algorithm) -> Result<(), String> {
        let what = match (placement, self.scheme) {
            (Algorithm::Rendezvous, Scheme::Rendezvous) => return Ok(()),
            (Algorithm::OpenImRing(keys), Scheme::OpenImRing) => {
                let hashed = |listed: &Listed| keys.string(&listed.member.node_id);
                let Some(other) = self.members.iter().find(|listed| listed.hashed != hashed(listed)) else {
                    return Ok(());
                };
                format!(
                    "the list hashes {}, and cluster.placement {}: write the same",
                    other.hashed,
                    hashed(other)
                )
            }
            (Algorithm::OpenImRing(_), Scheme::Rendezvous) => {
                "the list says `placement rendezvous`, and cluster.placement is a ring: begin the list with \
                 `placement openim-ring`, and each line with what is hashed"
                    .to_owned()
            }
            (Algorithm::Rendezvous, Scheme::OpenImRing) => {
                "the list says `placement openim-ring`, and cluster.placement is rendezvous: take that line out, or \
                 set cluster.placement to the nodes' ring"
                    .to_owned()
            }
        };
        Err(what)
    }

    /// The members in placement, in the order of the file.
    pub fn active(&self) -> impl Iterator<Item = &Listed> {
        self.members.iter().filter(|listed| listed.is_active())
    }

    /// The list as a view of the first epoch.
    pub fn view(&self) -> View {
        View::new(Epoch(1), self.members.iter().map(|listed| listed.member.clone()).collect())
    }

    /// The fingerprint of its placement; `None` for the ring, where nodes compare their key rule and not its strings.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        (self.scheme == Scheme::Rendezvous)
            .then(|| self.view().placement(&Algorithm::Rendezvous).fingerprint())
    }

    /// Where its users are.
    pub fn homes(&self) -> Homes {
        match self.scheme {
            Scheme::Rendezvous => Homes::Rendezvous(self.view().placement(&Algorithm::Rendezvous)),
            Scheme::OpenImRing => Homes::OpenImRing(
                Ring::new(self.active().map(|listed| listed.hashed.as_str())),
                self.active().map(|listed| listed.member.node_id.clone()).collect(),
            ),
        }
    }

    fn scheme(&mut self, name: &str, more: Option<&str>) -> Result<(), String> {
        if !self.members.is_empty() {
            return Err("`placement` comes before the members; move it up".to_owned());
        }
        self.scheme = match (name, more) {
            ("rendezvous", None) => Scheme::Rendezvous,
            ("openim-ring", None) => Scheme::OpenImRing,
            _ => return Err("write `placement rendezvous` or `placement openim-ring`".to_owned()),
        };
        Ok(())
    }

    /// With rendezvous hashing the first word is the identity, so it must not be an address.
    fn checked(&self, listed: Listed) -> Result<Listed, String> {
        if self.scheme == Scheme::Rendezvous {
            let id = NodeId::new(&listed.hashed).map_err(|why| {
                format!("{:?}: {why}; name the node and give the address as rpc=HOST:PORT", listed.hashed)
            })?;
            if id != listed.member.node_id {
                return Err(
                    "node= is for `placement openim-ring`; here the first word is the node".to_owned()
                );
            }
        }
        Ok(listed)
    }

    /// With rendezvous hashing the port of a pod is where it is dialled and nothing else.
    fn add_pod(&mut self, name: &str) -> Result<(), String> {
        let mut pod = listed(name, std::iter::empty())?;
        if self.scheme == Scheme::Rendezvous && pod.hashed != pod.member.node_id.as_str() {
            pod.member.rpc_addr = std::mem::replace(&mut pod.hashed, pod.member.node_id.to_string());
        }
        self.add(pod)
    }

    fn add(&mut self, listed: Listed) -> Result<(), String> {
        let node_id = &listed.member.node_id;
        if self.members.iter().any(|other| other.member.node_id == *node_id) {
            return Err(match self.scheme {
                Scheme::Rendezvous => format!("{node_id} is listed already; keep one of the lines"),
                Scheme::OpenImRing => format!("{node_id} is listed already; tell them apart with node=NAME"),
            });
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(format!(
                "more than {MEMBERS_MAX} members; every node links with every other, so split the cluster"
            ));
        }
        self.members.push(listed);
        Ok(())
    }
}

impl Listed {
    /// Whether it is in placement.
    pub fn is_active(&self) -> bool {
        self.member.state == MemberState::Active
    }
}

impl Homes {
    /// The node that `user` belongs to; `None`: no member is active.
    pub fn home(&self, user: &str) -> Option<&NodeId> {
        match self {
            Self::Rendezvous(placement) => placement.home(user),
            Self::OpenImRing(ring, nodes) => nodes.get(ring.owner(user)?),
        }
    }

    /// The home and who would be it without those before, at most `n` nodes.
    pub fn ranked(&self, user: &str, n: usize) -> Vec<&NodeId> {
        match self {
            Self::Rendezvous(placement) => placement.ranked(user, n),
            Self::OpenImRing(ring, nodes) => {
                ring.ranked(user, n).into_iter().filter_map(|number| nodes.get(number)).collect()
            }
        }
    }
}

impl Scheme {
    /// That of nodes which place users so.
    pub fn of(placement: &Algorithm) -> Self {
        match placement {
            Algorithm::Rendezvous => Self::Rendezvous,
            Algorithm::OpenImRing(_) => Self::OpenImRing,
        }
    }

    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::OpenImRing => "openim-ring",
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.what)
    }
}

/// A member by its first word and the `name=value` words behind it.
fn listed<'a>(first: &str, words: impl Iterator<Item = &'a str>) -> Result<Listed, String> {
    let mut node = without_port(first);
    let mut parts = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("node", name)) => node = name,
            Some((name, value)) if !value.is_empty() => parts.push((name, value)),
            _ => return Err(format!("{word:?}: write name=value behind the node; {KNOWN}")),
        }
    }
    let node_id = NodeId::new(node).map_err(|why| format!("{node:?}: {why}"))?;
    let mut member = Member::new(node_id);
    for (name, value) in parts {
        set(&mut member, name, value)?;
    }
    member.labels.sort();
    Ok(Listed { hashed: first.to_owned(), member })
}

const KNOWN: &str = "the names are weight, state, rpc, ws, node, label.NAME";

fn set(member: &mut Member, name: &str, value: &str) -> Result<(), String> {
    match name {
        "weight" => {
            member.weight = value
                .parse()
                .ok()
                .and_then(Weight::new)
                .ok_or_else(|| format!("weight={value}: write a number from 1 to {WEIGHT_MAX}"))?;
        }
        "state" => {
            let state = MemberState::ALL.into_iter().find(|state| state.name() == value);
            member.state =
                state.ok_or_else(|| format!("state={value}: write joining, active, draining or lost"))?;
        }
        "rpc" => {
            if !is_endpoint(value) {
                return Err(format!("rpc={value}: write HOST:PORT, for an IPv6 address [ADDRESS]:PORT"));
            }
            value.clone_into(&mut member.rpc_addr);
        }
        "ws" => {
            if !value.starts_with("ws://") && !value.starts_with("wss://") {
                return Err(format!("ws={value}: write what clients dial, ws://HOST:PORT or wss://HOST"));
            }
            value.clone_into(&mut member.ws_url);
        }
        _ => match name.strip_prefix("label.") {
            Some(label) if !label.is_empty() => member.labels.push((label.to_owned(), value.to_owned())),
            _ => return Err(format!("{name}= is not known; {KNOWN}")),
        },
    }
    Ok(())
}

/// Whether this is HOST:PORT; an IPv6 address has brackets.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let named = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']']),
    };
    named && port.parse().is_ok_and(|port: u16| port > 0)
}

/// A host without the port behind it. IPv6 addresses keep their brackets.
fn without_port(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    }
}

/// The pods of OpenIM 3.5 on Kubernetes.
struct Pods<'a> {
    release: &'a str,
    namespace: &'a str,
    replicas: usize,
    /// With its colon; empty: as the proxy hashes them.
    port: String,
}

impl<'a> Pods<'a> {
    fn read(mut words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let release = words.next().unwrap_or_default();
        let mut pods = Self { release, namespace: "", replicas: 0, port: ":88".to_owned() };
        for word in words {
            match word.split_once('=') {
                Some(("namespace", name)) => pods.namespace = name,
                Some(("replicas", count)) => pods.replicas = count.parse().unwrap_or(0),
                Some(("port", "none")) => pods.port.clear(),
                Some(("port", port)) if port.parse::<u16>().is_ok() => pods.port = format!(":{port}"),
                _ => return Err(format!("{word:?}: {PODS}")),
            }
        }
        let complete = !release.contains('=') && !release.is_empty() && !pods.namespace.is_empty();
        if complete && (1..=MEMBERS_MAX).contains(&pods.replicas) { Ok(pods) } else { Err(PODS.to_owned()) }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let (set, space, port) = (format!("{}-openim-msggateway", self.release), self.namespace, &self.port);
        (0..self.replicas).map(move |i| format!("{set}-{i}.{set}-headless.{space}.svc.cluster.local{port}"))
    }
}

const PODS: &str =
    "write pods RELEASE namespace=NAME replicas=COUNT, and port=none for what OpenIM's proxy hashes";

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;

//! Serving clients on the addresses of dead nodes: which ones is decided in `cluster/adoption.rs`; here listeners are
//! bound and closed, and the operator's hook is run (`hook.rs`).
//!
//! All of it is made to match what is wanted, again and again: a listener that cannot be bound and a hook that fails
//! are logged, counted and tried again. Clients that came by an address stay when it is given back.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use serde::Serialize;

use super::hook::{Run, Verb};
use super::{Node, Shard};
use crate::cluster::adoption::{Adoption, Claim};
use crate::config::Config;
use crate::config::cluster::ClusterConfig;
use crate::limits::{ADOPT_HOOK_POLL_MS, ADOPT_RETRY_MS};
use crate::placement::view::View;
use crate::shard::mailbox::Control;
use crate::shard::orders::{AdoptionOrder, NodeLevels, Standing};
use crate::shard::{Turn, bind_adopted, clock};
use crate::time::Mono;

/// See the module's documentation.
pub(super) struct Adopting {
    rules: Adoption,
    hook: Option<PathBuf>,
    hook_ms: u64,
    places: BTreeMap<Claim, Place>,
    run: Option<Run>,
    /// Of the next listener.
    number: u16,
    failed: u64,
    hooks_failed: u64,
}

/// An address that is held, or is to be, or of whose end the hook has not heard yet.
#[derive(Debug)]
struct Place {
    door: Door,
    /// Not before: it has failed just now.
    next_try: Mono,
    trouble: Option<String>,
    hook: Told,
}

/// How clients come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// They do not.
    Closed,
    /// By listeners of this number.
    Open(u16),
    /// By the node's own listeners, which take every address.
    Own,
}

/// What the hook was told with success last.
#[derive(Debug)]
struct Told {
    last: Verb,
    next_try: Mono,
    trouble: Option<String>,
}

/// The answer of `/v1/adopt`.
#[derive(Debug, Serialize)]
pub(super) struct AdoptionView {
    /// Addresses that are held, or should be.
    held: Vec<HeldView>,
    /// `node=ip:port` that may be taken over.
    listed: Vec<String>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct HeldView {
    node: String,
    address: SocketAddr,
    /// Whether clients are served on it.
    serving: bool,
    /// What the hook was told with success last; empty without one.
    #[serde(skip_serializing_if = "str::is_empty")]
    hook: &'static str,
    /// What is wrong, and tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trouble: Vec<String>,
}

impl Adopting {
    pub(super) fn new(config: &ClusterConfig) -> Self {
        let adopt = &config.adopt;
        if let Some(stranded) = config.stranded() {
            tracing::warn!("{stranded}");
        }
        Self {
            rules: Adoption::new(config.node_id.clone(), adopt.listed.clone(), adopt.members),
            hook: adopt.hook.clone(),
            hook_ms: adopt.hook_ms,
            places: BTreeMap::new(),
            run: None,
            number: 0,
            failed: 0,
            hooks_failed: 0,
        }
    }

    pub(super) fn see(&mut self, view: &View) {
        self.rules.see(clock::now().mono, view.clone());
    }

    /// For rpc thread 0.
    pub(super) fn levels(&self) -> NodeLevels {
        let open = self.places.values().filter(|place| place.door != Door::Closed);
        NodeLevels {
            adopted: u64::try_from(open.count()).unwrap_or(u64::MAX),
            adoptions_failed: self.failed,
            hooks_failed: self.hooks_failed,
            ..NodeLevels::default()
        }
    }

    /// The shards close all listeners when they begin to drain.
    pub(super) fn closed_by_drain(&mut self, shards: &mut [Shard]) {
        shards.iter_mut().for_each(|shard| {
            shard.adopted.clear();
            shard.untold.retain(|mail| !matches!(mail, Control::Adopt(..)));
        });
        for (claim, place) in &mut self.places {
            if std::mem::replace(&mut place.door, Door::Closed) != Door::Closed {
                tracing::info!(node = %claim.node, address = %claim.address, "another node's address is given back");
            }
        }
    }

    /// Whether the hook has heard of everything that is over.
    pub(super) fn is_over(&self) -> bool {
        self.run.is_none() && self.places.is_empty()
    }

    fn view(&self) -> AdoptionView {
        let held = self.places.iter().map(|(claim, place)| HeldView {
            node: claim.node.to_string(),
            address: claim.address,
            serving: place.door != Door::Closed,
            hook: if self.hook.is_some() { place.hook.last.word() } else { "" },
            trouble: place.trouble.iter().chain(&place.hook.trouble).cloned().collect(),
        });
        let listed = self.rules.claims().map(|claim| format!("{}={}", claim.node, claim.address));
        AdoptionView { held: held.collect(), listed: listed.collect() }
    }

    /// Sees to the hook. Returns after how many milliseconds to do it again.
    fn tend_hook(&mut self, now: Mono) -> u64 {
        if let Some(run) = &mut self.run {
            let Some(outcome) = run.ended(now) else { return ADOPT_HOOK_POLL_MS };
            let (claim, verb) = (run.claim.clone(), run.verb);
            self.run = None;
            self.heard(now, (&claim, verb), outcome);
        }
        let Some(program) = &self.hook else {
            self.places.values_mut().for_each(|place| place.hook.last = place.due());
            return u64::MAX;
        };
        let mut waiting = self.places.iter().filter(|(_, place)| place.hook.last != place.due());
        let Some((claim, verb)) = waiting
            .find(|(_, place)| place.hook.next_try <= now)
            .map(|(claim, place)| (claim.clone(), place.due()))
        else {
            return u64::MAX; // who failed is in `next_try`
        };
        match Run::start(program, (&claim, verb), now, self.hook_ms) {
            Ok(run) => self.run = Some(run),
            Err(why) => self.heard(now, (&claim, verb), Err(why)),
        }
        ADOPT_HOOK_POLL_MS
    }

    /// Of the hook.
    fn heard(&mut self, now: Mono, (claim, verb): (&Claim, Verb), outcome: Result<(), String>) {
        let (node, address, word) = (&claim.node, &claim.address, verb.word());
        let place = self.places.get_mut(claim);
        match outcome {
            Ok(()) => {
                tracing::info!(%node, %address, verb = word, "the hook has moved an address");
                if let Some(place) = place {
                    place.hook = Told { last: verb, next_try: now, trouble: None };
                }
            }
            Err(why) => {
                self.hooks_failed += 1;
                tracing::error!(%node, %address, verb = word, why, "the hook failed; again in {ADOPT_RETRY_MS} ms");
                if let Some(place) = place {
                    place.hook.next_try = now.plus_ms(ADOPT_RETRY_MS);
                    place.hook.trouble = Some(format!("hook {word}: {why}"));
                }
            }
        }
    }

    /// Milliseconds until something failed is tried again, or an absence counts.
    fn pause_ms(&self, now: Mono) -> u64 {
        let closed = |place: &&Place| place.door == Door::Closed && place.trouble.is_some();
        let doors = self.places.values().filter(closed).map(|place| place.next_try);
        let untold = |place: &&Place| place.hook.last != place.due();
        let hooks = self.places.values().filter(untold).map(|place| place.hook.next_try);
        let next = doors.chain(hooks).chain(self.rules.next(now)).min();
        next.map_or(u64::MAX, |at| at.since_ms(now).max(1))
    }
}

impl Place {
    fn new() -> Self {
        let hook = Told { last: Verb::Give, next_try: Mono(0), trouble: None };
        Self { door: Door::Closed, next_try: Mono(0), trouble: None, hook }
    }

    /// What the hook is to be told.
    fn due(&self) -> Verb {
        if self.door == Door::Closed { Verb::Give } else { Verb::Take }
    }
}

impl Node {
    /// Carries out what an operator says of other nodes' addresses.
    ///
    /// # Errors
    /// Why it cannot be done. An address that cannot be listened on is tried again all the same.
    pub(super) fn order_adoption(&mut self, order: AdoptionOrder) -> Result<AdoptionView, String> {
        let node = match &order {
            AdoptionOrder::Look => return Ok(self.adopting.view()),
            AdoptionOrder::Take(node) | AdoptionOrder::Release(node) => node,
        };
        self.all_hear()?;
        match &order {
            AdoptionOrder::Look => {}
            AdoptionOrder::Take(_) if self.standing() == Standing::Draining => {
                return Err("the gateway drains: it takes no clients".to_owned());
            }
            AdoptionOrder::Take(_) => self.adopting.rules.take(node)?,
            AdoptionOrder::Release(_) => self.adopting.rules.release(node)?,
        }
        tracing::info!(?order, "by an operator");
        for (claim, place) in &mut self.adopting.places {
            if claim.node == *node {
                (place.next_try, place.hook.next_try) = (Mono(0), Mono(0));
            }
        }
        self.tend_adoption();
        let mine = self.adopting.places.iter().filter(|(claim, _)| claim.node == *node);
        let trouble: Vec<&str> = mine.filter_map(|(_, place)| place.trouble.as_deref()).collect();
        if !trouble.is_empty() && matches!(order, AdoptionOrder::Take(_)) {
            return Err(format!(
                "{}; it is tried again every {ADOPT_RETRY_MS} ms until it is released",
                trouble.join("; ")
            ));
        }
        Ok(self.adopting.view())
    }

    /// Takes and gives back what is wanted now. Returns after how many milliseconds to do it again.
    pub(super) fn tend_adoption(&mut self) -> u64 {
        let now = clock::now().mono;
        let wanted = match self.standing() {
            Standing::Serving => self.adopting.rules.held(now),
            Standing::Draining => Default::default(),
        };
        let mut places = std::mem::take(&mut self.adopting.places);
        for (claim, place) in &mut places {
            if !wanted.contains(claim) {
                self.close_adopted(claim, place);
            }
        }
        for claim in &wanted {
            let place = places.entry(claim.clone()).or_insert_with(Place::new);
            if place.door == Door::Closed && place.next_try <= now {
                self.open_adopted(claim, place, now);
            }
        }
        self.adopting.places = places;
        let hook_ms = self.adopting.tend_hook(now);
        let run = self.adopting.run.as_ref().map(|run| run.claim.clone());
        self.adopting.places.retain(|claim, place| {
            wanted.contains(claim) || place.hook.last == Verb::Take || run.as_ref() == Some(claim)
        });
        self.tell_shards();
        hook_ms.min(self.adopting.pause_ms(now))
    }

    fn open_adopted(&mut self, claim: &Claim, place: &mut Place, now: Mono) {
        let (node, address) = (&claim.node, claim.address);
        let opened = if is_own(self.facts.websocket, address) {
            Ok(Door::Own)
        } else {
            self.adopting.number = self.adopting.number.wrapping_add(1);
            let number = self.adopting.number;
            self.listen_adopted(number, address).map(|()| Door::Open(number))
        };
        match opened {
            Ok(door) => {
                tracing::warn!(%node, %address, "serving the clients of another node on its address");
                (place.door, place.trouble) = (door, None);
            }
            Err(why) => {
                self.adopting.failed += 1;
                tracing::error!(%node, %address, why, "another node's address cannot be taken over");
                place.next_try = now.plus_ms(ADOPT_RETRY_MS);
                place.trouble = Some(why);
            }
        }
    }

    fn close_adopted(&mut self, claim: &Claim, place: &mut Place) {
        let door = std::mem::replace(&mut place.door, Door::Closed);
        place.trouble = None;
        if let Door::Open(number) = door {
            for shard in &mut self.shards {
                shard.adopted.remove(&number);
                shard.untold.push_back(Control::GiveBack(number));
            }
        }
        if door != Door::Closed {
            tracing::info!(node = %claim.node, address = %claim.address, "another node's address is given back");
        }
    }

    /// A listener for each shard.
    fn listen_adopted(&mut self, number: u16, address: SocketAddr) -> Result<(), String> {
        let listeners: std::io::Result<Vec<_>> = (0..self.shards.len())
            .map(|n| pair(&self.config, address, if n == 0 { Turn::First } else { Turn::Later }))
            .collect();
        let listeners = listeners.map_err(|e| fault(address, &e))?;
        for (shard, (ours, listener)) in self.shards.iter_mut().zip(listeners) {
            shard.adopted.insert(number, ours);
            shard.untold.push_back(Control::Adopt(number, listener));
        }
        Ok(())
    }

    /// New listeners for a shard whose old ones were shut down, on the addresses of other nodes.
    ///
    /// # Errors
    /// What is in the way of the first that fails.
    pub(super) fn relisten_adopted(&mut self, shard: usize) -> Result<(), String> {
        for (claim, place) in &self.adopting.places {
            let Door::Open(number) = place.door else { continue };
            let Some(shard) = self.shards.get_mut(shard) else { return Ok(()) };
            let both = pair(&self.config, claim.address, Turn::Later);
            let (ours, listener) = both.map_err(|e| fault(claim.address, &e))?;
            shard.adopted.insert(number, ours);
            shard.untold.push_back(Control::Adopt(number, listener));
        }
        Ok(())
    }
}

/// The shard's listener, and the same for us.
fn pair(config: &Config, address: SocketAddr, turn: Turn) -> std::io::Result<(TcpListener, TcpListener)> {
    let listener = bind_adopted(config, address, turn)?;
    Ok((listener.try_clone()?, listener))
}

/// Whether the node's own listeners take an address, too.
fn is_own(own: SocketAddr, address: SocketAddr) -> bool {
    let any = own.ip().is_unspecified() && (own.is_ipv6() || address.is_ipv4());
    own.port() == address.port() && (any || own.ip() == address.ip())
}

fn fault(address: SocketAddr, error: &std::io::Error) -> String {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another program on this host listens there (the node itself, if it lives: then it needs no stand-in)"
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need a capability",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_the_own_listeners_take_needs_no_other() {
        for (own, address, want) in [
            ("0.0.0.0:1", "10.0.0.2:1", true),
            ("0.0.0.0:1", "10.0.0.2:2", false),
            ("0.0.0.0:1", "[fd00::2]:1", false),
            ("[::]:1", "[fd00::2]:1", true),
            ("[::]:1", "10.0.0.2:1", true),
            ("10.0.0.1:1", "10.0.0.2:1", false),
            ("10.0.0.1:1", "10.0.0.1:1", true),
        ] {
            assert_eq!(is_own(own.parse().unwrap(), address.parse().unwrap()), want, "{own} {address}");
        }
    }
}

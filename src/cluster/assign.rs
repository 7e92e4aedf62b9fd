//! Which nodes a client is told to dial: the decision behind `GET /v1/assign?userID=U&platformID=P`. Pure.
//!
//! Rules come first, in their order (`rules`): the first that fits the request and has an active node names the
//! candidates; without one every active node is a candidate. Among them the user's home stands first and the nodes that
//! would be it next follow; a node that is nearly full, or much fuller than the others, goes behind those that are
//! not. `standing` is what is known of the members beside the view, `pace` how often who may ask; the HTTP side is in
//! `rpc/assign`. What always holds: only active members with an address, that answer and take clients, are handed out;
//! the same question gets the same answer as long as view, standings and rules are the same; nobody is refused as long
//! as one such member is there or the static list names one.

pub mod pace;
pub mod roster;
pub mod rules;
pub mod standing;

use self::rules::Rule;
use self::standing::Standings;
use crate::ids::Platform;
use crate::limits;
use crate::placement::rendezvous::{Key, Score};
use crate::placement::view::{Member, NodeId, View, Weight};
use crate::placement::{Algorithm, Placement};

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `userID`.
    pub user: &'a str,
    /// `platformID`; `None`: not given.
    pub platform: Option<Platform>,
    /// Region, tenant and the like, as `name, value`.
    pub labels: &'a [(String, String)],
}

/// How requests are decided. The same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
    /// URLs to hand out when no member is known. Empty: there is no answer then.
    pub fallback: Vec<String>,
    /// A node filled to so many thousandths goes behind the others; 1 to 1000, default 900. So does one that is filled
    /// to [`limits::ASSIGN_UNEVEN_PERMILLE_MAX`] thousandths more than the mean.
    pub full_permille: u16,
    /// How long an answer may be kept, in ms; default 30 000.
    pub ttl_ms: u64,
    /// What the client does when its connection is lost.
    pub backoff: Backoff,
}

/// Before attempt n (from 0) a client waits `min(first_ms * (factor_percent / 100)^n, most_ms)`, of which it takes
/// `jitter_percent` off at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first attempt; default 1000.
    pub first_ms: u64,
    /// At most; default 60 000.
    pub most_ms: u64,
    /// Growth, 100 or more; default 200.
    pub factor_percent: u32,
    /// 0 to 100; default 50.
    pub jitter_percent: u32,
}

/// What is known of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Who is there.
    pub view: &'a View,
    /// Where users belong in it.
    pub placement: &'a Placement,
    /// Who answers, takes clients, and how full it is. A member that is not in it is taken to be fine.
    pub standings: &'a Standings,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// What to dial: the first, then at most two alternatives, each URL once.
    pub choices: Vec<Choice<'a>>,
    /// What decided.
    pub decided: Decided<'a>,
    /// Whether the user's home went behind others because it is nearly full.
    pub home: Home,
    /// Rules that fit and were passed over because none of their nodes is active, in order.
    pub passed_over: Vec<&'a str>,
    /// How long this may be kept, in ms.
    pub ttl_ms: u64,
    /// For lost connections.
    pub backoff: Backoff,
}

/// A place to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// What to dial.
    pub url: &'a str,
    /// Who is there; `None`: out of the static list, which knows no nodes.
    pub node_id: Option<&'a NodeId>,
}

/// What decided an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided<'a> {
    /// No rule: the placement among all active nodes.
    Placement,
    /// The rule of that name.
    Rule(&'a str),
    /// The static list, since no active member with an address is known.
    Fallback,
}

/// Where the user's home stands in an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// It is the first.
    First,
    /// It is nearly full and others are not.
    Full,
    /// A rule leaves it out, or it has no address, or none is known: the connection will be a stray.
    Elsewhere,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first_ms: limits::ASSIGN_BACKOFF_FIRST_MS,
            most_ms: limits::ASSIGN_BACKOFF_MS,
            factor_percent: 200,
            jitter_percent: 50,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            fallback: Vec::new(),
            full_permille: limits::ASSIGN_FULL_PERMILLE_MAX,
            ttl_ms: limits::ASSIGN_TTL_MS,
            backoff: Backoff::default(),
        }
    }
}

impl Policy {
    /// Decides. `cluster` is `None` as long as the membership was never read; a view that is no longer fresh is better
    /// than none. `None`: nobody can be named.
    pub fn decide<'a>(
        &'a self,
        request: &Request<'_>,
        cluster: Option<Cluster<'a>>,
    ) -> Option<Assignment<'a>> {
        let Some((cluster, open)) =
            cluster.map(|cluster| (cluster, open(cluster))).filter(|(_, o)| !o.is_empty())
        else {
            return self.fallback_answer(request);
        };
        let mut passed_over = Vec::new();
        let mut decided = Decided::Placement;
        let mut order = None;
        for rule in self.rules.iter().filter(|rule| rule.fits(request)) {
            let candidates = rule.candidates(&open);
            if candidates.is_empty() {
                passed_over.push(rule.name.as_str());
                continue;
            }
            decided = Decided::Rule(&rule.name);
            order = Some(Placement::of(candidates, &Algorithm::Rendezvous));
            break;
        }
        let placement = order.as_ref().unwrap_or(cluster.placement);
        let ranked = placement.ranked(request.user, usize::MAX).into_iter();
        let ranked: Vec<&'a Member> =
            ranked.filter_map(|node_id| open.iter().copied().find(|m| m.node_id == *node_id)).collect();
        let full_permille = self.crowded_permille(cluster.standings, &open);
        let full = |member: &Member| {
            cluster.standings.load_permille(&member.node_id).is_some_and(|load| load >= full_permille)
        };
        let (crowded, mut nodes): (Vec<&Member>, Vec<&Member>) =
            ranked.into_iter().partition(|member| full(member));
        nodes.extend(crowded);
        let home = match (cluster.placement.home(request.user), nodes.first()) {
            (Some(home), Some(first)) if *home == first.node_id => Home::First,
            (Some(home), _) if nodes.iter().any(|m| m.node_id == *home && full(m)) => Home::Full,
            _ => Home::Elsewhere,
        };
        let choices = nodes
            .into_iter()
            .map(|member| Choice { url: member.ws_url.as_str(), node_id: Some(&member.node_id) });
        let choices = first_of(choices);
        Some(Assignment { choices, decided, home, passed_over, ttl_ms: self.ttl_ms, backoff: self.backoff })
    }

    /// From how many thousandths on a node goes behind the others: the limit, or far above the mean of the open ones.
    fn crowded_permille(&self, standings: &Standings, open: &[&Member]) -> u16 {
        let loads: Vec<u16> =
            open.iter().filter_map(|member| standings.load_permille(&member.node_id)).collect();
        let sum: u64 = loads.iter().map(|load| u64::from(*load)).sum();
        let Some(mean) = sum.checked_div(u64::try_from(loads.len()).unwrap_or(u64::MAX)) else {
            return self.full_permille;
        };
        let uneven = mean.saturating_add(u64::from(limits::ASSIGN_UNEVEN_PERMILLE_MAX));
        self.full_permille.min(u16::try_from(uneven).unwrap_or(u16::MAX))
    }

    /// The static list, in an order that is the user's own, so that it spreads them.
    fn fallback_answer<'a>(&'a self, request: &Request<'_>) -> Option<Assignment<'a>> {
        let user = Key::new(request.user);
        let score = |url: &str| Score::new(user, Key::new(url), Weight::default());
        let mut urls: Vec<&str> = self.fallback.iter().map(String::as_str).collect();
        urls.sort_by(|a, b| score(a).order(score(b)).then(a.cmp(b)));
        let choices = first_of(urls.into_iter().map(|url| Choice { url, node_id: None }));
        (!choices.is_empty()).then(|| Assignment {
            choices,
            decided: Decided::Fallback,
            home: Home::Elsewhere,
            passed_over: Vec::new(),
            ttl_ms: self.ttl_ms.min(limits::ASSIGN_STATIC_TTL_MS),
            backoff: self.backoff,
        })
    }
}

impl<'a> Assignment<'a> {
    /// What to dial, in order.
    pub fn urls(&self) -> Vec<&'a str> {
        self.choices.iter().map(|choice| choice.url).collect()
    }
}

/// The members that clients may be sent to.
fn open(cluster: Cluster<'_>) -> Vec<&Member> {
    let fits = |member: &&Member| !member.ws_url.is_empty() && cluster.standings.takes(&member.node_id);
    cluster.view.active().filter(fits).collect()
}

fn first_of<'a>(choices: impl Iterator<Item = Choice<'a>>) -> Vec<Choice<'a>> {
    let mut first: Vec<Choice<'a>> = Vec::new();
    for choice in choices {
        if first.len() > limits::ASSIGN_ALTERNATIVES_MAX {
            break;
        }
        if !first.iter().any(|other| other.url == choice.url) {
            first.push(choice);
        }
    }
    first
}

#[cfg(test)]
mod tests;

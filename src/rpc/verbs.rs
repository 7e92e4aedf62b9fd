//! The verbs of operators on the admin port. Answers are JSON but for that of `/v1/log-level`; refusals are text.
//!
//! `reload`, `log-level`, `drain` and `adopt` are orders to the main thread; what changes something is a POST.
//! `who` and `trace` ask the user's owner shard through its control lane, as a gRPC call does, and are answered within
//! `CONTROL_DEADLINE_MS`. Who may ask is `access.rs`; the words of the answers are `hub::sight` and `inside`.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Serialize;

use super::admin::{Admin, Answer, TEXT};
use super::cluster::Mesh;
use super::inside;
use crate::cluster::router::Outcome;
use crate::hub::mail::Look;
use crate::hub::sight::Sight;
use crate::ids::Text;
use crate::limits::{CONTROL_DEADLINE_MS, ORDER_MS, TRACE_FOR_MS, TRACES_MAX};
use crate::metrics::Block;
use crate::placement::view::{Incarnation, NodeId};
use crate::shard::clock;
use crate::shard::orders::{AdoptionOrder, DrainOrder, Order};

const JSON: &str = "application/json";

/// Which verb a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// `/v1/who?user=U`
    Who,
    /// `/v1/trace?user=U&for_ms=N` starts, `/v1/trace?user=U&cursor=N` reads on.
    Trace,
    /// `/v1/shards`
    Shards,
    /// `/v1/cluster`
    Cluster,
    /// `/v1/forget?node=ID&incarnation=N`: that process is dead.
    Forget,
    /// `/v1/reload`
    Reload,
    /// `/v1/log-level` says it, a POST to `/v1/log-level?directives=D` sets it.
    LogLevel,
    /// `/v1/drain` says how far it is, a POST begins it.
    Drain,
    /// `/v1/drain/cancel`
    DrainCancel,
    /// `/v1/adopt` says which addresses are held, a POST to `/v1/adopt?node=N` takes those of a node over.
    Adopt,
    /// `/v1/adopt/release?node=N`
    Release,
}

impl Verb {
    /// The verb of a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/who" => Some(Self::Who),
            "/v1/trace" => Some(Self::Trace),
            "/v1/shards" => Some(Self::Shards),
            "/v1/cluster" => Some(Self::Cluster),
            "/v1/forget" => Some(Self::Forget),
            "/v1/reload" => Some(Self::Reload),
            "/v1/log-level" => Some(Self::LogLevel),
            "/v1/drain" => Some(Self::Drain),
            "/v1/drain/cancel" => Some(Self::DrainCancel),
            "/v1/adopt" => Some(Self::Adopt),
            "/v1/adopt/release" => Some(Self::Release),
            _ => None,
        }
    }

    /// The methods that it takes, as the header `Allow` names them.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Who | Self::Trace | Self::Shards | Self::Cluster => "GET",
            Self::Reload | Self::Forget | Self::DrainCancel | Self::Release => "POST",
            Self::LogLevel | Self::Drain | Self::Adopt => "GET, POST",
        }
    }
}

/// Carries out a verb. The caller may, and the method is one of the verb's.
pub(super) async fn answer(admin: &Admin, (verb, method): (Verb, &Method), query: &str) -> Answer {
    let asked = match verb {
        Verb::Shards => return json(&node(admin)),
        Verb::Cluster => return cluster(admin, |mesh| Ok(json(&mesh.view()))),
        Verb::Forget => return cluster(admin, |mesh| forget(mesh, query)),
        Verb::Reload => return order(admin, JSON, Order::Reload).await,
        Verb::LogLevel if *method == Method::GET => return order(admin, TEXT, Order::LogLevel(None)).await,
        Verb::LogLevel => match argument(query, "directives") {
            Ok(Some(text)) => return order(admin, TEXT, Order::LogLevel(Some(text))).await,
            Ok(None) => Err("400: which levels? ?directives=info,pinion::rpc=debug".to_owned()),
            Err(why) => Err(why),
        },
        Verb::Drain | Verb::DrainCancel | Verb::Adopt | Verb::Release => match of_node(verb, method, query) {
            Ok(ordered) => return order(admin, JSON, ordered).await,
            Err(why) => Err(why),
        },
        Verb::Who => user(query).map(|user| (user, Look::Who)),
        Verb::Trace => user(query).and_then(|user| Ok((user, look_of_trace(query)?))),
    };
    match asked {
        Ok((user, look)) => ask(admin, user, look).await,
        Err(why) => (StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
    }
}

/// What this node says or does as one of several.
fn cluster(admin: &Admin, answer: impl FnOnce(&Mesh) -> Result<Answer, String>) -> Answer {
    match &admin.mesh {
        None => refusal(StatusCode::NOT_FOUND, "this node is alone: cluster.source is none"),
        Some(mesh) => answer(mesh).unwrap_or_else(|why| (StatusCode::BAD_REQUEST, TEXT, format!("{why}\n"))),
    }
}

fn forget(mesh: &Mesh, query: &str) -> Result<Answer, String> {
    let usage = || {
        "400: which one is dead? ?node=ID&incarnation=N; N is `greeted`, else `incarnation`, in GET /v1/cluster"
            .to_owned()
    };
    let node = argument(query, "node")?.and_then(|id| NodeId::new(&id).ok()).ok_or_else(usage)?;
    let incarnation = argument(query, "incarnation")?.and_then(|n| n.parse().ok()).ok_or_else(usage)?;
    mesh.forget(node, Incarnation(incarnation)).map_err(|why| format!("400: {why}"))?;
    Ok((StatusCode::OK, TEXT, "forgotten here: say it to every node that still names it\n".to_owned()))
}

/// The order of a verb about the node among others.
fn of_node(verb: Verb, method: &Method, query: &str) -> Result<Order, String> {
    let looks = *method == Method::GET;
    let node = || match argument(query, "node")? {
        Some(node) => NodeId::new(&node).map_err(|bad| format!("400: node: {bad}")),
        None => Err("400: whose addresses? ?node=NODE_ID".to_owned()),
    };
    Ok(match verb {
        Verb::DrainCancel => Order::Drain(DrainOrder::Cancel),
        Verb::Drain if looks => Order::Drain(DrainOrder::Look),
        Verb::Adopt if looks => Order::Adoption(AdoptionOrder::Look),
        Verb::Adopt => Order::Adoption(AdoptionOrder::Take(node()?)),
        Verb::Release => Order::Adoption(AdoptionOrder::Release(node()?)),
        _ => Order::Drain(DrainOrder::Begin),
    })
}

async fn ask(admin: &Admin, user: Text, look: Look) -> Answer {
    let deadline = clock::now().mono.plus_ms(CONTROL_DEADLINE_MS);
    let waiting = match admin.exchange.ask(|router| router.look(deadline, user, look)) {
        Ok(waiting) => waiting,
        Err(status) => return refusal(StatusCode::SERVICE_UNAVAILABLE, &status.message),
    };
    match waiting.await {
        Outcome::Sight(Sight::Who(facts)) => json(&facts),
        Outcome::Sight(Sight::Page(page)) => json(&page),
        Outcome::Sight(Sight::NotFollowed) => {
            refusal(StatusCode::NOT_FOUND, "this user is not traced (any more); start with for_ms=N")
        }
        Outcome::Sight(Sight::TooMany) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("the user's shard traces {TRACES_MAX} users already; try again when one has ended"),
        ),
        Outcome::Refused => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the control lane of the user's shard is full; see /v1/shards",
        ),
        Outcome::Expired => refusal(
            StatusCode::GATEWAY_TIMEOUT,
            &format!("the user's shard did not answer within {CONTROL_DEADLINE_MS} ms; see /v1/shards"),
        ),
        // The router checks that an answer is of the kind that was asked for.
        _ => refusal(StatusCode::INTERNAL_SERVER_ERROR, "an answer of the wrong kind"),
    }
}

/// Has the main thread do something.
async fn order(admin: &Admin, content_type: &'static str, order: Order) -> Answer {
    let Some(placed) = admin.orders.place(order) else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the main thread has too much to hear; try again");
    };
    match monoio::time::timeout(Duration::from_millis(ORDER_MS), placed).await {
        Ok(Ok(text)) => (StatusCode::OK, content_type, text + "\n"),
        Ok(Err(why)) => refusal(StatusCode::BAD_REQUEST, &why),
        Err(_) => refusal(
            StatusCode::GATEWAY_TIMEOUT,
            &format!("not done within {ORDER_MS} ms; the log says what comes of it"),
        ),
    }
}

/// The node and its shards, without asking them.
fn node(admin: &Admin) -> inside::NodeView {
    let now = clock::now().mono;
    let nobody = Block::default();
    let mut view = inside::node(&admin.readiness.admission);
    for ((id, pulse), lanes) in (0u16..).zip(&admin.readiness.pulses).zip(admin.exchange.lane_depths()) {
        let label = id.to_string();
        let block = admin.blocks.iter().find(|(name, _)| *name == label).map(|(_, block)| &**block);
        view.shards.push(inside::shard(id, now, block.unwrap_or(&nobody), pulse, lanes));
    }
    view
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => (StatusCode::OK, JSON, text + "\n"),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    (status, TEXT, format!("{}: {why}\n", status.as_u16()))
}

fn user(query: &str) -> Result<Text, String> {
    match argument(query, "user")? {
        Some(user) if !user.is_empty() => Ok(Text::from(user)),
        _ => Err("400: which user? ?user=USER".into()),
    }
}

fn look_of_trace(query: &str) -> Result<Look, String> {
    let for_ms = || format!("400: for_ms: expected milliseconds from 1 to {TRACE_FOR_MS}");
    match (argument(query, "for_ms")?, argument(query, "cursor")?) {
        (Some(text), None) => {
            let ms = text.parse().ok().filter(|ms| (1..=TRACE_FOR_MS).contains(ms));
            Ok(Look::Follow { for_ms: ms.ok_or_else(for_ms)? })
        }
        (None, Some(text)) => {
            let cursor =
                text.parse().map_err(|_| "400: cursor: expected what the last answer gave as `next`")?;
            Ok(Look::Page { cursor })
        }
        _ => Err("400: either for_ms=N to start, or cursor=N to read on".into()),
    }
}

/// The first value of a key, unescaped. `+` stands for itself: user ids may hold one, and no client of ours writes it
/// for a blank.
fn argument(query: &str, key: &str) -> Result<Option<String>, String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(name, _)| *name == key) else {
        return Ok(None);
    };
    let text = percent_encoding::percent_decode_str(value).decode_utf8();
    text.map(|text| Some(text.into_owned())).map_err(|_| format!("400: {key}: not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_unescaped_and_judged() {
        for (query, want) in [
            ("user=a", Some("a")),
            ("x=1&user=a%20b%2B+c%C3%BC", Some("a b++cü")),
            ("user=a&user=b", Some("a")),
            ("user=%ff", None),
            ("user=", None),
            ("user", None),
            ("", None),
        ] {
            assert_eq!(user(query).ok().as_deref(), want, "{query}");
        }
        let longest = TRACE_FOR_MS.to_string();
        for (query, want) in [
            ("for_ms=1", Some(Look::Follow { for_ms: 1 })),
            (&format!("for_ms={longest}"), Some(Look::Follow { for_ms: TRACE_FOR_MS })),
            (&format!("for_ms={longest}0"), None),
            ("for_ms=0", None),
            ("for_ms=-1", None),
            ("cursor=0", Some(Look::Page { cursor: 0 })),
            ("cursor=x", None),
            ("for_ms=1&cursor=1", None),
            ("", None),
        ] {
            assert_eq!(look_of_trace(query).ok(), want, "{query}");
        }
    }
}

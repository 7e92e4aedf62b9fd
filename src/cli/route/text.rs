//! What `pinion route` found, as people read it.

use super::super::admin::table;
use crate::cluster::assign::{Assignment, Decided, Home};
use crate::cluster::compare::{Difference, NodeLoad, Rehearsal, share};
use crate::cluster::members::{Listed, MemberList, Scheme};
use crate::limits::ASSIGN_ALTERNATIVES_MAX;
use crate::placement::view::NodeId;

/// Reasons that are shown; a list of renamed nodes has one per node.
const REASONS_MAX: usize = 12;

/// Home and alternatives of a user.
pub(super) fn home(list: &MemberList, user: &str) -> String {
    let homes = list.homes();
    let ranked = homes.ranked(user, 1 + ASSIGN_ALTERNATIVES_MAX);
    let found = |node: &NodeId| list.members.iter().find(|listed| listed.member.node_id == *node);
    let mut text = format!("user       {user}\n");
    match ranked.split_first() {
        None => text += "home       none: no member is active\n",
        Some((home, rest)) => {
            text += &format!("home       {home}{}\n", found(home).map(addresses).unwrap_or_default());
            let names: Vec<&str> = rest.iter().map(|node| node.as_str()).collect();
            text += &format!(
                "then       {}\n",
                if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
            );
        }
    }
    text + &format!("placement  {}\n", summary(list))
}

fn addresses(listed: &Listed) -> String {
    let member = &listed.member;
    let mut parts = Vec::new();
    if listed.hashed != member.node_id.as_str() {
        parts.push(format!("hashed as {}", listed.hashed));
    }
    for (name, value) in [("rpc", &member.rpc_addr), ("ws", &member.ws_url)] {
        if !value.is_empty() {
            parts.push(format!("{name} {value}"));
        }
    }
    if parts.is_empty() { String::new() } else { format!("  ({})", parts.join(", ")) }
}

fn summary(list: &MemberList) -> String {
    let (active, all) = (list.active().count(), list.members.len());
    let fingerprint = list.fingerprint().map(|print| format!(", fingerprint {print}")).unwrap_or_default();
    format!("{}, {active} of {all} members active{fingerprint}", list.scheme.name())
}

/// What the assign API would answer.
pub(super) fn assignment(found: Option<&Assignment<'_>>) -> String {
    let Some(found) = found else {
        return "assign     nothing: no active member has ws=URL, and there is no static list here\n"
            .to_owned();
    };
    let decided = match found.decided {
        Decided::Placement => "no rule fits: by placement".to_owned(),
        Decided::Rule(name) => format!("by rule {name}"),
        Decided::Fallback => "out of the static list".to_owned(),
    };
    let home = match found.home {
        Home::First => "",
        Home::Full => "; the home is nearly full",
        Home::Elsewhere => "; not at the home, so pushes go one hop further",
    };
    let passed: String =
        found.passed_over.iter().map(|name| format!("; rule {name} fits and has no active node")).collect();
    format!("assign     {}, {decided}{home}{passed}\n", found.urls().join(", "))
}

/// The two lists of a comparison.
pub(super) fn sides(sides: &[super::Side; 2]) -> String {
    let line = |(letter, side): (&str, &super::Side)| {
        let node = side.seen.as_ref().map(|seen| format!("node {}, view {}, ", seen.node, seen.epoch));
        format!("{letter}  {}: {}{}\n", side.name, node.unwrap_or_default(), summary(&side.list))
    };
    ["A", "B"].into_iter().zip(sides).map(line).collect()
}

/// How many users differ, and why.
pub(super) fn difference(found: &Difference, users: &str, lists: [&MemberList; 2]) -> String {
    let (percent, count) = (found.share() * 100.0, found.users);
    let mut text = format!("{percent:.1} % of {users} differ: {} of {count}\n", found.elsewhere);
    if !found.reasons.is_empty() {
        text += "why:\n";
    }
    for reason in found.reasons.iter().take(REASONS_MAX) {
        text += &format!("  {reason}\n");
    }
    let more = found.reasons.len().saturating_sub(REASONS_MAX);
    if more > 0 {
        text += &format!("  and {more} more\n");
    }
    if found.elsewhere > 0 {
        text += if lists.iter().all(|list| list.scheme == Scheme::Rendezvous) {
            "what it means: until both sides have one list, a push for these users goes one hop further\n"
        } else {
            "what it means: whoever trusts the ring asks a node that does not have these users\n\
             what to do: hash the same strings on both sides and keep the address that is dialled apart (a port\n\
             belongs there), give both the same replica count, or let push ask every gateway\n"
        };
    }
    text
}

/// What a change does.
pub(super) fn rehearsal(found: &Rehearsal, users: &str) -> String {
    let percent = |part: usize| format!("{:.1} %", share(part, found.users) * 100.0);
    let mut text = format!("{} of {users} move: {} of {}\n", percent(found.moved), found.moved, found.users);
    text += &match found.peak() {
        Some((node, times)) => format!("busiest afterwards: {node}, {times:.2} times the mean\n"),
        None => "afterwards no member is active: nobody has a home\n".to_owned(),
    };
    let row = |(node, load): (&NodeId, &NodeLoad)| {
        let leaving = load.before.saturating_add(load.arriving).saturating_sub(load.after);
        vec![
            node.to_string(),
            load.before.to_string(),
            load.after.to_string(),
            percent(load.after),
            load.arriving.to_string(),
            leaving.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = found.loads.iter().map(row).collect();
    text + &table(&["node", "before", "after", "share", "arriving", "leaving"], &rows)
}

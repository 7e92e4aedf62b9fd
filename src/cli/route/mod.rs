//! `pinion route`: where a user belongs, whether two member lists agree about it, and what a change would do.
//!
//! `text` prints, `live` asks running nodes. Other lists come from files (`cluster/members` has their form).

mod live;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::who;
use super::{EXIT_FAILED, EXIT_USAGE, admin, args, fail, output};
use crate::cluster::assign::standing::Standings;
use crate::cluster::assign::{Cluster, Policy, Request, rules};
use crate::cluster::compare::{Difference, Rehearsal};
use crate::cluster::members::{MemberList, Scheme};
use crate::config::text_file;
use crate::ids::Platform;
use crate::limits::{ROUTE_FILE_BYTES, ROUTE_USERS_BYTES, ROUTE_USERS_MAX};
use crate::placement::Algorithm;
use crate::placement::view::{Member, NodeId};

const FORM: &str = "\
A member list has one member per line, NODE [weight=N] [state=STATE] [rpc=HOST:PORT] [ws=URL] [label.NAME=VALUE].
`placement openim-ring` as its first line: what stands first in a line is the string that OpenIM's ring hashes, and
`pods RELEASE namespace=NS replicas=N [port=88|none]` stands for the gateways of OpenIM 3.5 on Kubernetes.";

const SIDE: &str =
    "A member list, or http://HOST:PORT, the admin port of a running node, which says whom it sees";

/// The command line.
pub(super) fn command() -> Command {
    Command::new("route")
        .about("Say where users belong, compare two member lists, rehearse a change")
        .after_help(FORM)
        .subcommand_required(true)
        .subcommand(
            Command::new("where")
                .about("The home of a user, who follows, and which rule of the assign API decides")
                .arg(who::user())
                .args(members())
                .arg(path("rules", "Rules of the assign API").long("rules"))
                .arg(args::platform().help("Platform of the client, for the rules"))
                .arg(
                    Arg::new("label")
                        .long("label")
                        .value_name("NAME=VALUE")
                        .action(ArgAction::Append)
                        .value_parser(label)
                        .help("Label of the request, for the rules"),
                ),
        )
        .subcommand(
            Command::new("diff")
                .about("Share of users that two lists look for at different nodes, and why (incident 2)")
                .after_help("Ends with 0 if no user differs, 1 if some do, 2 if a list is wrong.")
                .arg(path("a", SIDE).value_name("A").required(true))
                .arg(path("b", "As A, of the other side").value_name("B").required(true))
                .arg(admin::token())
                .args(users()),
        )
        .subcommand(
            Command::new("rehearse")
                .about("Users that a change would move, and the load of each node after it")
                .args(members())
                .arg(changed(
                    "add",
                    "\"NODE [weight=N]\"",
                    "Add a member; a line of the list. After --remove NODE: with that weight",
                ))
                .arg(changed("remove", "NODE", "Take a member out of placement"))
                .args(users()),
        )
}

fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
}

fn members() -> [Arg; 2] {
    [path("members", SIDE).long("members").required(true), admin::token()]
}

fn changed(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).action(ArgAction::Append).help(help)
}

fn users() -> [Arg; 2] {
    [
        Arg::new("users")
            .long("users")
            .value_name("N")
            .default_value("100000")
            .value_parser(value_parser!(u64).range(1..=ROUTE_USERS_MAX))
            .help("Look at user0, user1, .. so many"),
        path("users-file", "Look at these users, one id per line").long("users-file").conflicts_with("users"),
    ]
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// Runs the command: 0 done and alike, 1 the lists differ, 2 the input was wrong.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let done = match matches.subcommand() {
        Some(("where", matches)) => where_is(matches),
        Some(("diff", matches)) => diff(matches),
        Some(("rehearse", matches)) => rehearse(matches),
        _ => Err("write pinion route where, diff or rehearse".to_owned()), // clap requires one
    };
    match done {
        Ok((text, code)) => {
            output::print(&text);
            ExitCode::from(code)
        }
        Err(why) => fail(EXIT_USAGE, &why),
    }
}

/// What a command prints and how it ends.
type Done = Result<(String, u8), String>;

fn where_is(matches: &ArgMatches) -> Done {
    let user = matches.get_one::<String>("user").map(String::as_str).unwrap_or_default();
    let list = side(matches, "members")?.list;
    let mut said = text::home(&list, user);
    if let Some(rules) = matches.get_one::<PathBuf>("rules") {
        if list.scheme != Scheme::Rendezvous {
            return Err(
                "--rules: the assign API places by rendezvous; take out `placement openim-ring`".to_owned()
            );
        }
        let rules = rules::parse(&text_file::read(rules, ROUTE_FILE_BYTES)?)
            .map_err(|faults| text_file::told(rules, &faults))?;
        let policy = Policy { rules, ..Policy::default() };
        let labels: Vec<_> = matches.get_many("label").unwrap_or_default().cloned().collect();
        let request =
            Request { user, platform: matches.get_one::<Platform>("platform").copied(), labels: &labels };
        let (view, standings) = (list.view(), Standings::default());
        let placement = view.placement(&Algorithm::Rendezvous);
        let cluster = Cluster { view: &view, placement: &placement, standings: &standings };
        said += &text::assignment(policy.decide(&request, Some(cluster)).as_ref());
    }
    Ok((said, 0))
}

fn diff(matches: &ArgMatches) -> Done {
    let sides = [side(matches, "a")?, side(matches, "b")?];
    let [a, b] = &sides;
    let users = Users::of(matches)?;
    let difference = Difference::of(&a.list, &b.list, users.ids());
    let mut said = text::sides(&sides) + &text::difference(&difference, &users.name(), [&a.list, &b.list]);
    if let (Some(a), Some(b)) = (&a.seen, &b.seen) {
        said += &live::compared(a, b, difference.elsewhere);
    }
    Ok((said, if difference.elsewhere == 0 { 0 } else { EXIT_FAILED }))
}

/// A side of a comparison.
struct Side {
    /// As the operator wrote it.
    name: String,
    list: MemberList,
    /// What else a running node says.
    seen: Option<live::Seen>,
}

fn side(matches: &ArgMatches, argument: &str) -> Result<Side, String> {
    let path = named(matches, argument)?;
    let name = path.display().to_string();
    match live::host_of(&name) {
        Some(host) => {
            let seen = live::ask(host, matches.get_one::<String>("token"))?;
            Ok(Side { name, list: seen.list.clone(), seen: Some(seen) })
        }
        None => list(path).map(|list| Side { name, list, seen: None }),
    }
}

fn rehearse(matches: &ArgMatches) -> Done {
    let before = side(matches, "members")?.list;
    let all = |name: &str| matches.get_many::<String>(name).unwrap_or_default();
    let mut after = before.clone();
    for name in all("remove") {
        let known = |member: &Member| member.node_id.as_str() == name;
        let count = after.members.len();
        after.members.retain(|listed| !known(&listed.member) && listed.hashed != *name);
        if after.members.len() == count {
            let names: Vec<&NodeId> = after.members.iter().map(|listed| &listed.member.node_id).collect();
            return Err(format!("--remove {name}: no such member; there are {names:?}"));
        }
    }
    for line in all("add") {
        after.take(line).map_err(|why| format!("--add {line:?}: {why}"))?;
    }
    if after == before {
        return Err("nothing to rehearse; give --add \"NODE [weight=N]\" or --remove NODE".to_owned());
    }
    let users = Users::of(matches)?;
    let rehearsal = Rehearsal::of(&before, &after, users.ids());
    Ok((text::rehearsal(&rehearsal, &users.name()), 0))
}

/// Whom a command looks at.
enum Users {
    /// `user0` and so on.
    Numbered(u64),
    /// Out of a file.
    Listed(PathBuf, Vec<String>),
}

impl Users {
    fn of(matches: &ArgMatches) -> Result<Self, String> {
        let Some(path) = matches.get_one::<PathBuf>("users-file") else {
            return Ok(Self::Numbered(matches.get_one("users").copied().unwrap_or(1)));
        };
        let text = text_file::read(path, ROUTE_USERS_BYTES)?;
        let ids: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if ids.is_empty() {
            return Err(format!("{}: no user; write one id per line", path.display()));
        }
        Ok(Self::Listed(path.clone(), ids))
    }

    fn ids(&self) -> Box<dyn Iterator<Item = String> + '_> {
        match self {
            Self::Numbered(count) => Box::new((0..*count).map(|n| format!("user{n}"))),
            Self::Listed(_, ids) => Box::new(ids.iter().cloned()),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Numbered(count) => format!("user0 to user{}", count - 1),
            Self::Listed(path, _) => format!("users of {}", path.display()),
        }
    }
}

fn named<'a>(matches: &'a ArgMatches, name: &str) -> Result<&'a Path, String> {
    matches.get_one::<PathBuf>(name).map(PathBuf::as_path).ok_or_else(|| format!("which file? {name}"))
}

fn list(path: &Path) -> Result<MemberList, String> {
    let text = text_file::read(path, ROUTE_FILE_BYTES).map_err(|why| {
        let is_address = path.to_string_lossy().contains("://") || path.to_string_lossy().contains(':');
        let hint = "; a running node is http://HOST:PORT, its admin port";
        format!("{why}{}", if is_address { hint } else { "" })
    })?;
    MemberList::parse(&text).map_err(|faults| text_file::told(path, &faults))
}

#[cfg(test)]
mod tests;

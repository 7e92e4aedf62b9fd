//! Rules of the assign API as text, one per line: a name, conditions, an arrow, nodes. `#` starts a comment.
//!
//! ```text
//! staff   users=admin,qa-*                       -> nodes=gw-9
//! acme    label.tenant=acme platform=Web,5       -> label.tenant=acme
//! canary  share=2.5%                             -> label.track=canary
//! split   label.region=eu                        -> nodes=gw-1:300,gw-2:100
//! ```
//!
//! All conditions of a line have to fit, of the values of `users=` and `platform=` one. `users=` takes ids and
//! prefixes with a `*` behind; `share=` takes that part of the users, always the same ones, and when it grows those and
//! others. Conditions look at the request's labels, the right side at the nodes': all labels named there, or a list of
//! nodes, each with a weight of its own if it has one behind a colon. Pure. What always holds: each rule has another
//! name.

use super::Request;
use crate::cluster::members::LineFault;
use crate::ids::Platform;
use crate::limits::{ASSIGN_RULES_MAX, ASSIGN_USERS_MAX, WEIGHT_MAX};
use crate::placement::rendezvous::Key;
use crate::placement::view::{Member, NodeId, Weight};

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What answers and `pinion route where` call it.
    pub name: String,
    /// User ids; with `prefixes` empty too: all users.
    users: Vec<String>,
    prefixes: Vec<String>,
    /// Empty: all.
    platforms: Vec<Platform>,
    labels: Vec<(String, String)>,
    /// Thousandths of the users; `None`: all.
    share_permille: Option<u16>,
    /// By id, with a weight of its own. Empty: all nodes with the labels.
    nodes: Vec<(NodeId, Option<Weight>)>,
    node_labels: Vec<(String, String)>,
}

/// Reads rules.
///
/// # Errors
/// Every line that is wrong.
pub fn parse(text: &str) -> Result<Vec<Rule>, Vec<LineFault>> {
    let (mut rules, mut faults): (Vec<Rule>, Vec<LineFault>) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match Rule::parse(line) {
            Ok(rule) if rules.iter().any(|other| other.name == rule.name) => {
                let what = format!(
                    "another rule is called {}; answers name the rule, so choose another name",
                    rule.name
                );
                faults.push(LineFault { line: number, what });
            }
            Ok(_) if rules.len() >= ASSIGN_RULES_MAX => {
                let what = format!("more than {ASSIGN_RULES_MAX} rules; join lines, users= takes a list");
                faults.push(LineFault { line: number, what });
                break;
            }
            Ok(rule) => rules.push(rule),
            Err(what) => faults.push(LineFault { line: number, what }),
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

impl Rule {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(line: &str) -> Result<Self, String> {
        let (left, right) =
            line.split_once("->").ok_or("write NAME CONDITION.. -> nodes=ID,ID or label.NAME=VALUE")?;
        let mut words = left.split_whitespace();
        let name =
            words.next().filter(|name| !name.contains('=')).ok_or("write a name before the conditions")?;
        let mut rule = Self { name: name.to_owned(), ..Self::default() };
        for word in words {
            rule.condition(word)?;
        }
        for word in right.split_whitespace() {
            rule.target(word)?;
        }
        if rule.nodes.is_empty() && rule.node_labels.is_empty() {
            return Err("no nodes behind the arrow; write nodes=ID,ID or label.NAME=VALUE".to_owned());
        }
        Ok(rule)
    }

    /// Whether the rule is about this request.
    pub fn fits(&self, request: &Request<'_>) -> bool {
        let any_user = self.users.is_empty() && self.prefixes.is_empty();
        let named = || {
            self.users.iter().any(|user| user == request.user)
                || self.prefixes.iter().any(|prefix| request.user.starts_with(prefix.as_str()))
        };
        (any_user || named())
            && (self.platforms.is_empty() || request.platform.is_some_and(|p| self.platforms.contains(&p)))
            && self.labels.iter().all(|label| request.labels.contains(label))
            && self.share_permille.is_none_or(|share| self.place_of(request.user) < share)
    }

    /// Of these members those that the rule names, with their weights.
    pub fn candidates(&self, open: &[&Member]) -> Vec<(NodeId, Weight)> {
        let of = |member: &&Member| {
            if !self.node_labels.iter().all(|(name, value)| member.has_label(name, value)) {
                return None;
            }
            let named = self.nodes.iter().find(|(node_id, _)| *node_id == member.node_id);
            let weight = match named {
                Some((_, weight)) => weight.unwrap_or(member.weight),
                None if self.nodes.is_empty() => member.weight,
                None => return None,
            };
            Some((member.node_id.clone(), weight))
        };
        open.iter().filter_map(of).collect()
    }

    /// Where a user stands among all, from 0 to 999: another place in each rule, always the same in one.
    fn place_of(&self, user: &str) -> u16 {
        let key = Key::new(&format!("{}\n{user}", self.name)).value();
        u16::try_from((u128::from(key) * 1000) >> 64).unwrap_or(u16::MAX) // below 1000
    }

    fn condition(&mut self, word: &str) -> Result<(), String> {
        const KNOWN: &str = "users=, platform=, share= and label.NAME=";
        match word.split_once('=') {
            Some(("users", users)) => self.users(users),
            Some(("platform", platforms)) => {
                for text in platforms.split(',') {
                    let by_name = || Platform::all().find(|p| p.name().eq_ignore_ascii_case(text));
                    let platform = text.parse().ok().and_then(Platform::new).or_else(by_name);
                    self.platforms.push(platform.ok_or_else(|| {
                        format!("platform={text}: write a number from 1 to 11 or a name like Web or IOS")
                    })?);
                }
                Ok(())
            }
            Some(("share", share)) => {
                self.share_permille =
                    Some(permille(share).ok_or_else(|| format!("share={share}: write 0.1% to 100%"))?);
                Ok(())
            }
            Some((name, value)) => label(name, value)
                .map(|label| self.labels.push(label))
                .ok_or_else(|| format!("{word:?}: conditions are {KNOWN}")),
            None => Err(format!("{word:?}: conditions are {KNOWN}")),
        }
    }

    fn users(&mut self, users: &str) -> Result<(), String> {
        for user in users.split(',') {
            match user.strip_suffix('*') {
                _ if user.is_empty() || user == "*" => {
                    return Err(format!(
                        "users={users}: write ids or prefixes like qa-*; without users= all are meant"
                    ));
                }
                Some(prefix) => self.prefixes.push(prefix.to_owned()),
                None => self.users.push(user.to_owned()),
            }
        }
        if self.users.len() + self.prefixes.len() > ASSIGN_USERS_MAX {
            return Err(format!(
                "users= lists more than {ASSIGN_USERS_MAX}; use prefixes, or a tenant label"
            ));
        }
        Ok(())
    }

    fn target(&mut self, word: &str) -> Result<(), String> {
        match word.split_once('=') {
            Some(("nodes", nodes)) => {
                for node in nodes.split(',') {
                    let (id, weight) =
                        match node.split_once(':') {
                            None => (node, None),
                            Some((id, weight)) => {
                                let weight = weight.parse().ok().and_then(Weight::new);
                                (
                                    id,
                                    Some(weight.ok_or_else(|| {
                                        format!("{node}: a weight is from 1 to {WEIGHT_MAX}")
                                    })?),
                                )
                            }
                        };
                    self.nodes
                        .push((NodeId::new(id).map_err(|why| format!("nodes={nodes}: {why}"))?, weight));
                }
                Ok(())
            }
            Some((name, value)) => label(name, value)
                .map(|label| self.node_labels.push(label))
                .ok_or_else(|| format!("{word:?}: behind the arrow stands nodes= or label.NAME=")),
            None => Err(format!("{word:?}: behind the arrow stands nodes= or label.NAME=")),
        }
    }
}

fn label(name: &str, value: &str) -> Option<(String, String)> {
    let name = name.strip_prefix("label.").filter(|name| !name.is_empty() && !value.is_empty())?;
    Some((name.to_owned(), value.to_owned()))
}

/// `5%` or `2.5%`, in thousandths, 1 to 1000.
fn permille(text: &str) -> Option<u16> {
    let number = text.strip_suffix('%')?;
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(tenths) || tenths.len() > 1 {
        return None;
    }
    let permille = whole.parse::<u16>().ok()?.checked_mul(10)?.checked_add(tenths.parse().ok()?)?;
    (1..=1000).contains(&permille).then_some(permille)
}

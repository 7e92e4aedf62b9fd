//! `assign.*`: telling clients which node to dial. The file of rules is read here, with the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Config, Fault, MembershipSource, Origin, text_file};
use crate::cluster::assign::pace::Rates;
use crate::cluster::assign::{Policy, rules};
use crate::limits::{ASSIGN_ADDRESS_PER_S_MAX, ASSIGN_PER_S_MAX, ROUTE_FILE_BYTES};

const RULES: &str = "assign.rules";

/// `assign.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignConfig {
    /// `assign.listen`; `None`, the default: nobody is told where to go.
    pub listen: Option<SocketAddr>,
    /// The rest, which may change while the node runs.
    pub policy: AssignPolicy,
}

/// What the assign API goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignPolicy {
    /// `assign.rules`: the file of `decision.rules`; default none.
    pub rules_file: Option<PathBuf>,
    /// Rules, `assign.fallback`, `assign.load_max`, `assign.ttl_ms`, `assign.backoff_*` and `assign.jitter_percent`.
    pub decision: Policy,
    /// `assign.allow_origin`, default any.
    pub origins: Origins,
    /// `assign.address_requests_per_s` and `assign.requests_per_s`.
    pub rates: Rates,
}

/// Pages of which sites may read answers (the header Access-Control-Allow-Origin).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Those of all sites: an answer holds nothing that the asker may not know.
    #[default]
    Any,
    /// Those of no site; clients that are no browsers do not care.
    None,
    /// Those of these, `https://app.example.com`.
    Listed(Vec<String>),
}

impl Default for AssignPolicy {
    fn default() -> Self {
        Self {
            rules_file: None,
            decision: Policy::default(),
            origins: Origins::default(),
            rates: Rates { address_per_s: ASSIGN_ADDRESS_PER_S_MAX, all_per_s: ASSIGN_PER_S_MAX },
        }
    }
}

/// Reads the rules. All that is wrong with them, a fault per line; and settings that do not go together.
pub(super) fn load(config: &mut Config, origins: &BTreeMap<&'static str, Origin>) -> Vec<Fault> {
    let fault = |key: &'static str, value: Option<String>, expected: String, example: &str| Fault {
        key: key.into(),
        value,
        origin: origins.get(key).cloned().unwrap_or(Origin::Default),
        expected,
        example: example.into(),
    };
    let mut faults = Vec::new();
    if let Some(path) = &config.assign.policy.rules_file {
        match read(path) {
            Ok(rules) => config.assign.policy.decision.rules = rules,
            Err(found) => {
                faults.extend(found.into_iter().map(|text| fault(RULES, None, text, "")));
            }
        }
    }
    let cluster = &config.cluster;
    let alone = cluster.source == MembershipSource::None && cluster.members.is_none();
    let nobody = cluster.ws_url.is_empty() && config.assign.policy.decision.fallback.is_empty();
    if config.assign.listen.is_some() && alone && nobody {
        let text = "needs something to hand out: a list of nodes (cluster.members), cluster.source, assign.fallback, \
                    or, on a gateway, cluster.ws_url (what clients dial to reach it)";
        faults.push(fault("assign.listen", None, text.to_owned(), ""));
    }
    faults
}

/// The rules of a file.
fn read(path: &Path) -> Result<Vec<rules::Rule>, Vec<String>> {
    let text = text_file::read(path, ROUTE_FILE_BYTES).map_err(|why| vec![why])?;
    rules::parse(&text).map_err(|faults| text_file::told(path, &faults).lines().map(str::to_owned).collect())
}

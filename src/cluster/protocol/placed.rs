//! A placement as this node uses it.

use super::Identity;
use super::rules::{Rule, Rules};
use crate::placement::view::{NodeId, View};
use crate::placement::{Fingerprint, Placement};

/// Where users belong under one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    placement: Placement,
    /// This node hashes something else, under the same fingerprint: [`Rule::AlgorithmInFingerprint`] taken out.
    astray: Option<&'static str>,
}

impl Placed {
    pub(super) fn new(view: &View, me: &Identity, rules: Rules) -> Self {
        let odd = me.node_id.as_str().bytes().last().is_some_and(|last| last % 2 == 1);
        let astray = (!rules.hold(Rule::AlgorithmInFingerprint) && odd).then_some("-");
        Self { placement: Placement::new(view, &me.algorithm), astray }
    }

    /// The node to which `user` belongs; none if no node is active.
    pub fn home(&self, user: &str) -> Option<&NodeId> {
        match self.astray {
            None => self.placement.home(user),
            Some(salt) => self.placement.home(&format!("{user}{salt}")),
        }
    }

    /// For the shards.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// See [`Placement::fingerprint`].
    pub fn fingerprint(&self) -> Fingerprint {
        self.placement.fingerprint()
    }
}

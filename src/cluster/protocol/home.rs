//! The home's side of the directory: claims, promises and their acks (C6).

use super::Node;
use super::frame::{Body, Claim, Key};
use super::peer::Peer;
use super::policy::Judged;
use super::rules::Rule;
use crate::ids::Text;
use crate::placement::Fingerprint;
use crate::placement::view::NodeId;

impl Node {
    pub(super) fn claimed(&mut self, from: &NodeId, claim: Claim) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.claims.insert(claim.clone());
        if let Some(key) = &claim.key {
            self.floor = self.floor.max(key.time);
        }
        let time = self.login_time();
        self.send(from, Body::ClaimAck { number: claim.number, time });
        if let (Some(key), Some(class)) = (claim.key, claim.class) {
            self.judge(&claim.user, &Judged { class, key, token: claim.token });
        }
    }

    pub(super) fn confirmed(&mut self, from: &NodeId, number: u64, key: Key) {
        self.floor = self.floor.max(key.time);
        let Some(claim) = self.peers.get_mut(from).and_then(|peer| peer.claims.get_mut(number)) else {
            return;
        };
        claim.key = Some(key.clone());
        let (user, class, token) = (claim.user.clone(), claim.class, claim.token);
        if let Some(class) = class {
            self.judge(&user, &Judged { class, key, token });
        }
    }

    pub(super) fn unclaimed(&mut self, from: &NodeId, number: u64) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.claims.remove(number);
        }
    }

    /// The last declaration replaces the former: promises of one generation do not add up.
    pub(super) fn declared(&mut self, from: &NodeId, number: u64, fingerprint: Fingerprint) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        if self.rules.hold(Rule::LastDeclarationReplaces) {
            peer.cover.clear();
        }
        peer.cover.push(fingerprint);
        self.send(from, Body::DeclareAck(number));
    }

    /// Whether the peer has claimed here all that belongs here, under the placement that decides here (L3, P3).
    pub(super) fn covers(&self, peer: &Peer) -> bool {
        let Some(up) = peer.up() else { return false };
        let leased = self.now.mono < up.covered_until() || !self.rules.hold(Rule::CoverLeased);
        let promised = if self.rules.hold(Rule::FingerprintCompared) {
            peer.cover.contains(&self.fingerprint())
        } else {
            !peer.cover.is_empty()
        };
        leased && promised
    }

    /// Whether `peer`, which is linked, must be asked for `user`.
    pub(super) fn must_ask(&self, peer: &Peer, user: &Text) -> bool {
        peer.claims.has_user(user) || (!self.covers(peer) && self.rules.hold(Rule::HomeAccounts))
    }
}

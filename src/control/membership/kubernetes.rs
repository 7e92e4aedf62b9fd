//! Members as pods of a selector, each with a `Lease` object that it keeps alive.
//!
//! A member is a pod with a lease that names it; a pod that is gone is dead (routing-protocol.md section 3), and Ready
//! or not makes no difference. Leases are listed first and pods then, both as the cluster has them now and not as a
//! cache had them: so a lease without its pod is one whose pod is gone. Who has not changed his lease for its time and
//! 1 %, by this node's own clock since it saw the last change, is lost; nobody writes that down, so a node whose lease
//! had ended by its own clock must register anew before it counts as fit, as if it had been written.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep_until, timeout};

use super::KubernetesMembers;
use super::etcd::{pause, valid_until};
use super::lease_object::{Held, LABEL, Listed, Object, body, escaped, name, precondition};
use super::telling::Telling;
use super::todo::{Orders, Registration, Todo};
use crate::cluster::protocol::io::OwnRecord;
use crate::control::backoff::Backoff;
use crate::control::kubernetes::api::{Dial, Fault, Link};
use crate::control::news::DiscoveryState;
use crate::limits::MEMBERS_MAX;
use crate::metrics::Metric;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View};
use crate::time::Mono;

const JSON: &str = "application/json";
/// Of pods only who they are is read.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const METADATA_OF_ONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// See the module's documentation.
pub(super) struct Pods<'a> {
    plan: &'a KubernetesMembers,
    own: Member,
    dial: &'a Dial,
    telling: &'a Telling<'a>,
}

/// The own lease, and what was seen of the others'.
struct Kept {
    held: Held,
    renewals: u64,
    /// The router was told that it is lost and has not registered yet.
    owes_registration: bool,
    /// When it is to be renewed.
    due: Instant,
    /// When the others are to be looked at.
    look: Instant,
    seen: Seen,
}

/// What was seen of the leases.
#[derive(Default)]
struct Seen {
    /// The version of each, and when this node saw it first.
    versions: BTreeMap<NodeId, (String, Mono)>,
    /// What was told last, and its epoch.
    told: (u64, Vec<Member>),
    /// Lost nodes by the last look, with the version to delete.
    lost: BTreeMap<NodeId, (Incarnation, String)>,
}

/// Where the leases are, and by whom they are read.
#[derive(Clone, Copy)]
struct Sight<'a> {
    plan: &'a KubernetesMembers,
    telling: &'a Telling<'a>,
    /// The reader's own node; `None`: he only looks on.
    own: Option<&'a NodeId>,
}

/// What came of a write of the own lease.
enum Written {
    /// It is this version now.
    At(u64),
    /// It is not what was read before, or not there.
    Changed,
}

impl<'a> Pods<'a> {
    pub(super) fn new(
        plan: &'a KubernetesMembers,
        own: Member,
        dial: &'a Dial,
        telling: &'a Telling<'a>,
    ) -> Self {
        Self { plan, own, dial, telling }
    }

    /// Registers, keeps the lease, does what is ordered and tells of the others, until the end is wanted.
    pub(super) async fn serve_until_end(&self, mut orders: Orders) {
        let mut backoff = Backoff::default();
        let mut kept = None;
        loop {
            let began = Instant::now();
            let Err(fault) = self.session(&mut kept, &mut orders).await else { return };
            let wait = backoff.next(began.elapsed()).min(self.third() / 2);
            self.telling.counts.count(Metric::MembershipFailures);
            self.telling.counts.count(Metric::LeaseRenewalsFailed);
            self.telling.trouble(fault.to_string());
            if backoff.is_first() {
                tracing::warn!(%fault, "cluster: Kubernetes does not answer, the last known members stand");
            } else {
                tracing::debug!(%fault, ?wait, "cluster: Kubernetes still does not answer");
            }
            if pause(&mut orders, wait).await {
                return;
            }
            if let Some(Kept { due, look, .. }) = &mut kept {
                (*due, *look) = (Instant::now(), Instant::now());
            }
        }
    }

    fn third(&self) -> Duration {
        Duration::from_secs(self.plan.lease_s.into()) / 3
    }

    async fn session(&self, kept: &mut Option<Kept>, orders: &mut Orders) -> Result<(), Fault> {
        let link = self.dial.connect()?;
        let kept = match kept {
            Some(kept) => kept,
            None => kept.insert(self.register(&link).await?),
        };
        loop {
            if kept.due <= Instant::now() {
                let late = || Fault::Late("a renewal");
                timeout(self.third(), self.tend(kept, &link)).await.unwrap_or_else(|_| Err(late()))?;
            }
            if self.work(kept, &link, &mut orders.todo).await? || orders.are_over() {
                return Ok(());
            }
            if kept.look <= Instant::now() {
                self.sight().look(&mut kept.seen, &link).await?;
                kept.look = Instant::now() + self.third() / 2;
            }
            tokio::select! {
                () = sleep_until(kept.due.min(kept.look)) => {}
                () = orders.more() => kept.look = Instant::now(),
            }
        }
    }

    /// Writes the own lease as joining (M1). The incarnation is the version of the cluster before it: a later life
    /// reads a later one, since this one has written.
    async fn register(&self, link: &Link<'_>) -> Result<Kept, Fault> {
        let node_id = &self.own.node_id;
        let path = format!("/api/v1/namespaces/{}/pods/{node_id}", self.plan.namespace);
        let (status, pod) = link.exchange((Method::GET, &path, METADATA_OF_ONE), Vec::new()).await?;
        if status == StatusCode::NOT_FOUND {
            return Err(Fault::Ended(format!(
                "there is no pod {node_id}: with cluster.source kubernetes cluster.node_id is the pod's name (auto, \
                 with MY_POD_NAME or POD_NAME from fieldRef metadata.name)"
            )));
        }
        let pod: Object = read(&pod)?;
        let leases = self.sight().leases(link).await?;
        let before = leases.version().ok_or_else(|| Fault::Malformed("a version is no number".into()))?;
        let former = leases.objects().find(|lease| lease.name() == name(node_id));
        let (incarnation, epoch) = (Incarnation(before), Epoch(before));
        let member = Member {
            incarnation,
            first_epoch: epoch,
            registered_epoch: epoch,
            state: MemberState::Joining,
            ..self.own.clone()
        };
        let version = former.and_then(Object::version).map(|version| version.to_string());
        let held = Held {
            member,
            pod_uid: pod.uid().to_owned(),
            version: version.unwrap_or_default(),
            lease_s: self.plan.lease_s.into(),
        };
        let now = Instant::now();
        let mut kept = Kept {
            held,
            renewals: 0,
            owes_registration: false,
            due: now + self.third(),
            look: now,
            seen: Seen::default(),
        };
        let sent = (self.telling.now)().mono;
        let Written::At(version) = self.write(&mut kept, link).await? else {
            return Err(Fault::Ended(format!("the lease of {node_id} was changed while it was written")));
        };
        // Told with the next renewal; until then the others have a lower bound.
        kept.held.member.first_epoch = Epoch(version);
        kept.held.member.registered_epoch = Epoch(version);
        self.telling.joined(incarnation, Epoch(version), valid_until(sent, self.plan.lease_s.into()));
        Ok(kept)
    }

    fn sight(&self) -> Sight<'_> {
        Sight { plan: self.plan, telling: self.telling, own: Some(&self.own.node_id) }
    }

    fn path(&self) -> String {
        path(self.plan)
    }

    async fn write(&self, kept: &mut Kept, link: &Link<'_>) -> Result<Written, Fault> {
        kept.renewals = kept.renewals.wrapping_add(1);
        let text = body(&kept.held, kept.renewals);
        let (method, path) = match kept.held.version.is_empty() {
            true => (Method::POST, self.path()),
            false => (Method::PUT, format!("{}/{}", self.path(), name(&self.own.node_id))),
        };
        let (status, answer) = link.exchange((method, &path, JSON), text).await?;
        if !status.is_success() {
            return Ok(Written::Changed);
        }
        let object: Object = read(&answer)?;
        let version = object.version().ok_or_else(|| Fault::Malformed("a version is no number".into()))?;
        kept.held.version = version.to_string();
        Ok(Written::At(version))
    }

    /// Renews the lease; what of the own record was found if somebody else has written.
    async fn tend(&self, kept: &mut Kept, link: &Link<'_>) -> Result<(), Fault> {
        let asked = Instant::now();
        for _ in 0..2 {
            let sent = (self.telling.now)().mono;
            if let Written::At(_) = self.write(kept, link).await? {
                // Ended by the own clock: others may have called this node lost, and have not waited for its greeting.
                kept.owes_registration |= !self.telling.is_leased();
                let own = if kept.owes_registration { OwnRecord::Lost } else { OwnRecord::Kept };
                kept.due = asked + self.third();
                self.telling.leased(valid_until(sent, self.plan.lease_s.into()), own);
                return Ok(());
            }
            if !self.reread(kept, link).await? {
                kept.due = asked + self.third();
                self.telling.replaced();
                return Ok(());
            }
        }
        Err(Fault::Ended("somebody else writes the lease of this node".into()))
    }

    /// The own lease was changed: whether it is still this life's to write.
    async fn reread(&self, kept: &mut Kept, link: &Link<'_>) -> Result<bool, Fault> {
        let path = format!("{}/{}", self.path(), name(&self.own.node_id));
        let (status, answer) = link.exchange((Method::GET, &path, JSON), Vec::new()).await?;
        kept.held.version.clear();
        if status == StatusCode::NOT_FOUND {
            // Deleted, and not the pod with it, which alone would be a proof of death: written again.
            kept.owes_registration = true;
            return Ok(true);
        }
        let object: Object = read(&answer)?;
        kept.held.version = object.version().map(|version| version.to_string()).unwrap_or_default();
        Ok(match object.held() {
            Ok(held) if held.member.incarnation > kept.held.member.incarnation => {
                let life = kept.held.member.incarnation;
                self.telling.note_replaced(&self.own, life, Some(&held.member));
                false
            }
            Ok(held) => {
                kept.owes_registration |= held.member.incarnation < kept.held.member.incarnation;
                true
            }
            Err(_) => true,
        })
    }

    /// Does what is ordered; whether the node has left. What fails stays ordered.
    async fn work(&self, kept: &mut Kept, link: &Link<'_>, todo: &mut Todo) -> Result<bool, Fault> {
        match todo.own {
            Some((state, registration)) if registration == Registration::New || !kept.owes_registration => {
                kept.held.member.state = state;
                let Written::At(version) = self.write(kept, link).await? else {
                    kept.due = Instant::now();
                    return Err(Fault::Ended("the own lease was changed while it was written".into()));
                };
                if registration == Registration::New {
                    kept.held.member.registered_epoch = Epoch(version);
                    kept.owes_registration = false;
                    self.telling.recorded(Epoch(version));
                }
            }
            // The router hears with the next renewal that it is lost, and registers.
            Some(_) | None => {}
        }
        todo.own = None;
        while let Some((node_id, (incarnation, _))) = todo.forget.first_key_value() {
            let lost = kept.seen.lost.get(node_id).filter(|(of, _)| of == incarnation);
            if let Some((of, version)) = lost
                && self.delete(link, node_id, version).await?
            {
                self.telling.counts.count(Metric::RecordsForgotten);
                tracing::warn!(%node_id, incarnation = %of, "cluster: the lease of a lost node is deleted");
            }
            todo.forget.pop_first();
        }
        if todo.leave {
            if !self.delete(link, &self.own.node_id, &kept.held.version).await?
                && self.reread(kept, link).await?
                && !kept.held.version.is_empty()
            {
                return Err(Fault::Ended("the own lease was changed while it was deleted".into()));
            }
            todo.leave = false;
            tracing::info!("cluster: this node has left");
            return Ok(true);
        }
        Ok(false)
    }

    /// Deletes a lease if it is still that version.
    async fn delete(&self, link: &Link<'_>, node_id: &NodeId, version: &str) -> Result<bool, Fault> {
        let path = format!("{}/{}", self.path(), name(node_id));
        let (status, _) = link.exchange((Method::DELETE, &path, JSON), precondition(version)).await?;
        Ok(status.is_success())
    }
}

/// Tells of the members, until the end is wanted. Writes nothing.
pub(super) async fn look_on(
    plan: &KubernetesMembers,
    dial: &Dial,
    telling: &Telling<'_>,
    mut orders: Orders,
) {
    let sight = Sight { plan, telling, own: None };
    let (mut seen, mut backoff) = (Seen::default(), Backoff::default());
    let round = Duration::from_secs(plan.lease_s.into()) / 6;
    loop {
        let began = Instant::now();
        let looked = async { sight.look(&mut seen, &dial.connect()?).await };
        let late = || Fault::Late("a look at the members");
        let wait = match timeout(round * 6, looked).await.unwrap_or_else(|_| Err(late())) {
            Ok(()) => {
                telling.watched(DiscoveryState::Current);
                backoff = Backoff::default();
                round
            }
            Err(fault) => {
                telling.counts.count(Metric::MembershipFailures);
                telling.watched(DiscoveryState::Stale);
                let wait = backoff.next(began.elapsed()).min(round);
                if backoff.is_first() {
                    tracing::warn!(%fault, "cluster: Kubernetes does not answer, the last known members stand");
                }
                wait
            }
        };
        if pause(&mut orders, wait).await {
            return;
        }
    }
}

fn path(plan: &KubernetesMembers) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", plan.namespace)
}

impl Sight<'_> {
    async fn leases(&self, link: &Link<'_>) -> Result<Listed, Fault> {
        let path = format!("{}?labelSelector={LABEL}", path(self.plan));
        list(link, &path, JSON).await
    }

    /// Reads leases, then pods, and tells what differs from what was told.
    async fn look(&self, kept: &mut Seen, link: &Link<'_>) -> Result<(), Fault> {
        let leases = self.leases(link).await?;
        let epoch = leases.version().ok_or_else(|| Fault::Malformed("a version is no number".into()))?;
        let (namespace, selector) = (&self.plan.namespace, escaped(&self.plan.selector));
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}");
        let pods = list(link, &path, METADATA).await?;
        let pods: BTreeMap<&str, &str> = pods.objects().map(|pod| (pod.name(), pod.uid())).collect();
        let now = (self.telling.now)().mono;
        let (mut members, mut versions) = (Vec::new(), BTreeMap::new());
        kept.lost.clear();
        for lease in leases.objects() {
            let held = match lease.held() {
                Ok(held) => held,
                Err(why) => {
                    self.telling.counts.count(Metric::ViewsIgnored);
                    tracing::warn!(name = lease.name(), why, "cluster: not the lease of a node");
                    continue;
                }
            };
            let mut member = held.member;
            if pods.get(member.node_id.as_str()) != Some(&held.pod_uid.as_str()) {
                continue; // Its pod is gone, or is not of this cluster.
            }
            let since = match kept.versions.get(&member.node_id) {
                Some((version, since)) if *version == held.version => *since,
                _ => now,
            };
            let silent = now.since_ms(since) >= held.lease_s.saturating_mul(1_010);
            if silent && Some(&member.node_id) != self.own {
                member.state = MemberState::Lost;
                kept.lost.insert(member.node_id.clone(), (member.incarnation, held.version.clone()));
            }
            versions.insert(member.node_id.clone(), (held.version, since));
            members.push(member);
        }
        if members.len() > MEMBERS_MAX {
            self.telling.counts.count(Metric::ViewsIgnored);
            return Err(Fault::Ended(format!("more than {MEMBERS_MAX} leases of pods of cluster.selector")));
        }
        kept.versions = versions;
        // Who is lost is in no version: it is told with a later one, at the latest that of the next own renewal. Who
        // only looks on renews nothing, and nobody asks his views for their order.
        let is_later = epoch > kept.told.0 || self.own.is_none() && epoch == kept.told.0;
        if is_later && (members != kept.told.1 || self.telling.is_in_doubt()) {
            self.telling.observe(View::new(Epoch(epoch), members.clone()));
            kept.told = (epoch, members);
        }
        Ok(())
    }
}

/// A whole list. Anything else is a fault: who is missing in a list of pods counts as dead.
async fn list(link: &Link<'_>, path: &str, accept: &'static str) -> Result<Listed, Fault> {
    let (status, answer) = link.exchange((Method::GET, path, accept), Vec::new()).await?;
    if !status.is_success() {
        return Err(Fault::Refused(status, format!("{path}: no list")));
    }
    let listed: Listed = read(&answer)?;
    if !listed.is_whole() {
        return Err(Fault::Malformed(format!("{path}: not a whole list")));
    }
    Ok(listed)
}

fn read<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Malformed(error.to_string()))
}

//! The `Lease` object of a node in Kubernetes, and what is read of pods. Pure.
//!
//! The record is an annotation, so that a node needs no right to change pods. The lease's own clock times are not
//! looked at: that the object has changed is the sign of life.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use crate::limits::MEMBER_RECORD_BYTES;
use crate::placement::view::{Member, NodeId};

const RECORD: &str = "pinion/record";
const POD: &str = "pinion/pod";
const RENEWALS: &str = "pinion/renewals";
/// The label that all these objects have, as a selector in a URL.
pub(super) const LABEL: &str = "app.kubernetes.io%2Fmanaged-by%3Dpinion";

/// The answer to a list.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    items: Option<Vec<Object>>,
}

/// A lease or a pod; of a pod the metadata alone.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Object {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    resource_version: String,
    /// There is more of the list.
    #[serde(rename = "continue")]
    rest: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    lease_duration_seconds: Option<u64>,
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) member: Member,
    /// The pod that the node was in.
    pub(super) pod_uid: String,
    /// To be given back with a write.
    pub(super) version: String,
    /// Seconds without a change after which the node is lost.
    pub(super) lease_s: u64,
}

impl Listed {
    /// The version of the whole list; `None`: the server does not count.
    pub(super) fn version(&self) -> Option<u64> {
        self.metadata.resource_version.parse().ok()
    }

    /// Whether it is a list, and nothing of it is left for another request (none is asked for in parts).
    pub(super) fn is_whole(&self) -> bool {
        let more = self.metadata.rest.as_ref().is_some_and(|rest| !rest.is_empty());
        self.kind.ends_with("List") && self.version().is_some() && !more
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.items.iter().flatten()
    }
}

impl Object {
    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    pub(super) fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// The version as a number, which a write returns.
    pub(super) fn version(&self) -> Option<u64> {
        self.metadata.resource_version.parse().ok()
    }

    /// As a node's lease.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn held(&self) -> Result<Held, String> {
        let annotation = |name: &str| {
            let found = self.metadata.annotations.as_ref().and_then(|all| all.get(name));
            found.ok_or_else(|| format!("it has no annotation {name}"))
        };
        let record = annotation(RECORD)?;
        if record.len() > MEMBER_RECORD_BYTES {
            return Err(format!("{} bytes; a record has at most {MEMBER_RECORD_BYTES}", record.len()));
        }
        let member: Member = serde_json::from_str(record).map_err(|error| error.to_string())?;
        if self.metadata.name != name(&member.node_id) {
            return Err(format!("it is the record of {}", member.node_id));
        }
        Ok(Held {
            member,
            pod_uid: annotation(POD)?.clone(),
            version: self.metadata.resource_version.clone(),
            lease_s: self.spec.lease_duration_seconds.unwrap_or(0),
        })
    }
}

/// The name of a node's lease.
pub(super) fn name(node_id: &NodeId) -> String {
    format!("pinion-{node_id}")
}

/// A lease as it is written. It goes with its pod. `renewals` differs from the last one's.
pub(super) fn body(held: &Held, renewals: u64) -> Vec<u8> {
    let Held { member, pod_uid, version, lease_s } = held;
    let mut object = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name(&member.node_id),
            "labels": {"app.kubernetes.io/managed-by": "pinion"},
            "annotations": {
                RECORD: serde_json::to_string(member).unwrap_or_default(), // plain data: it cannot fail
                POD: pod_uid,
                RENEWALS: renewals.to_string(),
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Pod", "name": member.node_id.as_str(), "uid": pod_uid,
            }],
        },
        "spec": {
            "holderIdentity": format!("{}/{}", member.node_id, member.incarnation),
            "leaseDurationSeconds": lease_s,
        },
    });
    if !version.is_empty()
        && let Some(metadata) = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut)
    {
        metadata.insert("resourceVersion".to_owned(), json!(version));
    }
    object.to_string().into_bytes()
}

/// What makes a deletion fail if somebody has written meanwhile.
pub(super) fn precondition(version: &str) -> Vec<u8> {
    json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version},
    })
    .to_string()
    .into_bytes()
}

/// A label selector as it stands in a URL.
pub(super) fn escaped(selector: &str) -> String {
    let mut url = String::with_capacity(selector.len());
    for byte in selector.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_was_written_is_read_back() {
        let held = Held {
            member: Member::new(NodeId::new("gw-0").unwrap()),
            pod_uid: "u-1".into(),
            version: "17".into(),
            lease_s: 10,
        };
        let object: Object = serde_json::from_slice(&body(&held, 3)).unwrap();
        assert_eq!(object.held(), Ok(held.clone()));
        assert_eq!((object.name(), object.version()), ("pinion-gw-0", Some(17)));
        let other = String::from_utf8(body(&held, 3)).unwrap().replace("pinion-gw-0", "pinion-gw-1");
        let other: Object = serde_json::from_str(&other).unwrap();
        assert_eq!(other.held(), Err("it is the record of gw-0".into()));
        let bare: Object = serde_json::from_str(r#"{"metadata":{"name":"x"}}"#).unwrap();
        assert_eq!(bare.held(), Err("it has no annotation pinion/record".into()));
    }

    #[test]
    fn only_a_whole_list_is_one() {
        let whole = |text: &str| serde_json::from_str::<Listed>(text).unwrap().is_whole();
        assert!(whole(r#"{"kind":"LeaseList","metadata":{"resourceVersion":"7"},"items":[]}"#));
        assert!(whole(
            r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"7","continue":""},"items":null}"#
        ));
        for other in [
            r#"{"kind":"Status","metadata":{},"status":"Failure","code":404}"#,
            r#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"abc"},"items":[]}"#,
            r#"{"kind":"PodList","metadata":{"resourceVersion":"x"},"items":[]}"#,
            "{}",
        ] {
            assert!(!whole(other), "{other}");
        }
    }

    #[test]
    fn a_selector_is_escaped() {
        assert_eq!(escaped("app=pinion,tier in (a)"), "app%3Dpinion%2Ctier%20in%20%28a%29");
    }
}

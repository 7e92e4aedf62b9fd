//! Keys and values of the cluster's records in etcd.
//!
//! `<root>/nodes/<id>` is a `Member` as JSON, in which 0 stands for the revision of the write: who registers cannot
//! know it before. `<root>/live/<id>/<incarnation>` is there as long as the node's lease. Pure.

use crate::limits::MEMBER_RECORD_BYTES;
use crate::placement::view::{Epoch, Incarnation, Member, NodeId};

/// The keys below one root.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// What the keys of all records begin with.
    pub(super) nodes: String,
    /// What the keys of all signs of life begin with.
    pub(super) live: String,
}

impl Keys {
    pub(super) fn new(root: &str) -> Self {
        Self { nodes: format!("{root}/nodes/"), live: format!("{root}/live/") }
    }

    pub(super) fn node(&self, node_id: &NodeId) -> Vec<u8> {
        format!("{}{node_id}", self.nodes).into_bytes()
    }

    pub(super) fn life(&self, node_id: &NodeId, incarnation: Incarnation) -> Vec<u8> {
        format!("{}{node_id}/{incarnation}", self.live).into_bytes()
    }

    /// Whose sign of life a key is.
    pub(super) fn read_life(&self, key: &[u8]) -> Option<(NodeId, Incarnation)> {
        let (node_id, incarnation) =
            std::str::from_utf8(key).ok()?.strip_prefix(&self.live)?.split_once('/')?;
        Some((NodeId::new(node_id).ok()?, Incarnation(incarnation.parse().ok()?)))
    }

    /// The record under a key, written at that revision.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn read_node(&self, key: &[u8], value: &[u8], revision: i64) -> Result<Member, String> {
        let named = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.nodes));
        if value.len() > MEMBER_RECORD_BYTES {
            return Err(format!("{} bytes; a record has at most {MEMBER_RECORD_BYTES}", value.len()));
        }
        let mut member: Member = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        if named != Some(member.node_id.as_str()) {
            return Err(format!("it is the record of {}", member.node_id));
        }
        let written = u64::try_from(revision).unwrap_or(0);
        for number in [&mut member.incarnation.0, &mut member.first_epoch.0, &mut member.registered_epoch.0] {
            if *number == 0 {
                *number = written;
            }
        }
        Ok(member)
    }
}

/// A record as it is written.
pub(super) fn value(member: &Member) -> Vec<u8> {
    serde_json::to_vec(member).unwrap_or_default() // plain data: it cannot fail
}

/// The record of a new life: the revision of its write is its incarnation.
pub(super) fn of_a_new_life(own: &Member) -> Member {
    Member {
        incarnation: Incarnation(0),
        first_epoch: Epoch(0),
        registered_epoch: Epoch(0),
        state: crate::placement::view::MemberState::Joining,
        ..own.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_revision_of_its_write_where_it_says_0() {
        let keys = Keys::new("pinion");
        let own = Member::new(NodeId::new("gw-0").unwrap());
        let key = keys.node(&own.node_id);
        assert_eq!(key, b"pinion/nodes/gw-0");
        let new = keys.read_node(&key, &value(&of_a_new_life(&own)), 42).unwrap();
        let epochs = (new.incarnation, new.first_epoch, new.registered_epoch);
        assert_eq!(epochs, (Incarnation(42), Epoch(42), Epoch(42)));
        let again = Member { registered_epoch: Epoch(0), ..new.clone() };
        let again = keys.read_node(&key, &value(&again), 50).unwrap();
        assert_eq!((again.incarnation.0, again.first_epoch.0, again.registered_epoch.0), (42, 42, 50));
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        let keys = Keys::new("p");
        let own = Member::new(NodeId::new("gw-0").unwrap());
        let good = value(&own);
        for (key, bytes, why) in [
            ("p/nodes/gw-1", good.clone(), "it is the record of gw-0"),
            ("q/nodes/gw-0", good.clone(), "it is the record of gw-0"),
            ("p/nodes/gw-0", b"{".to_vec(), "EOF"),
            ("p/nodes/gw-0", vec![b' '; MEMBER_RECORD_BYTES + 1], "bytes; a record has at most"),
        ] {
            let fault = keys.read_node(key.as_bytes(), &bytes, 1).unwrap_err();
            assert!(fault.contains(why), "{key}: {fault}");
        }
        let longest = [good.clone(), vec![b' '; MEMBER_RECORD_BYTES - good.len()]].concat();
        assert!(keys.read_node(b"p/nodes/gw-0", &longest, 1).is_ok());
    }

    #[test]
    fn a_sign_of_life_names_node_and_incarnation() {
        let keys = Keys::new("p");
        let gw = NodeId::new("gw-0").unwrap();
        let key = keys.life(&gw, Incarnation(7));
        assert_eq!(key, b"p/live/gw-0/7");
        assert_eq!(keys.read_life(&key), Some((gw, Incarnation(7))));
        for bad in ["p/live/gw-0", "p/live/gw-0/x", "q/live/gw-0/7", "p/live//7"] {
            assert_eq!(keys.read_life(bad.as_bytes()), None, "{bad}");
        }
    }
}

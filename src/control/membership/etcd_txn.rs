//! The words of etcd's transactions that the membership uses.

use crate::control::etcd::link::{Fault, Link};
use crate::pb::etcd;

/// Deletes a key that nobody has written since; whether it did.
pub(super) async fn delete_unchanged(link: &mut Link, key: &[u8], revision: i64) -> Result<bool, Fault> {
    let request = etcd::DeleteRangeRequest { key: key.to_vec().into() };
    let delete = etcd::RequestOp { request: Some(etcd::request_op::Request::RequestDeleteRange(request)) };
    let write = etcd::TxnRequest {
        compare: vec![unchanged(key, revision)],
        success: vec![delete],
        ..etcd::TxnRequest::default()
    };
    Ok(link.transact(write).await?.succeeded)
}

/// That nobody has written the key since.
pub(super) fn unchanged(key: &[u8], revision: i64) -> etcd::Compare {
    etcd::Compare {
        result: etcd::compare::CompareResult::Equal.into(),
        target: etcd::compare::CompareTarget::Mod.into(),
        key: key.to_vec().into(),
        target_union: Some(etcd::compare::TargetUnion::ModRevision(revision)),
    }
}

/// That there is no such key.
pub(super) fn absent(key: &[u8]) -> etcd::Compare {
    etcd::Compare {
        result: etcd::compare::CompareResult::Equal.into(),
        target: etcd::compare::CompareTarget::Version.into(),
        key: key.to_vec().into(),
        target_union: Some(etcd::compare::TargetUnion::Version(0)),
    }
}

pub(super) fn put(key: &[u8], value: Vec<u8>, lease: i64) -> etcd::RequestOp {
    let request = etcd::PutRequest { key: key.to_vec().into(), value: value.into(), lease };
    etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(request)) }
}

pub(super) fn get(key: &[u8]) -> etcd::RequestOp {
    range(etcd::RangeRequest { key: key.to_vec().into(), ..etcd::RangeRequest::default() })
}

pub(super) fn range(request: etcd::RangeRequest) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(etcd::request_op::Request::RequestRange(request)) }
}

pub(super) fn first_entry(answer: etcd::ResponseOp) -> Option<etcd::KeyValue> {
    entries(answer)?.kvs.into_iter().next()
}

pub(super) fn entries(answer: etcd::ResponseOp) -> Option<etcd::RangeResponse> {
    match answer.response {
        Some(etcd::response_op::Response::ResponseRange(range)) => Some(range),
        _ => None,
    }
}

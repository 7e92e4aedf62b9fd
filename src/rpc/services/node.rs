//! `pinion.v1.Node`: what a node says of itself to those that send clients to it.

use bytes::Bytes;
use prost::Message;

use super::health;
use crate::admission::NodeState;
use crate::pb::pinion::v1 as pb;
use crate::rpc::call::Service;
use crate::rpc::stream::encode;
use crate::wire::grpc::Status;

/// `Load`: the framed answer.
pub(super) fn load(service: &Service, message: Bytes) -> Result<Bytes, Status> {
    if let Err(error) = pb::LoadRequest::decode(message) {
        return Err(super::undecodable(service, error));
    }
    let admission = &service.readiness.admission;
    encode(&pb::LoadResponse {
        node_id: service.node_id.clone(),
        connections: admission.open(),
        connections_max: admission.connections_max(),
        draining: admission.state() == NodeState::Draining,
        ready: health::serves(service),
    })
}

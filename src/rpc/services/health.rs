//! gRPC's health service: whether the node, or one of its services, should get calls.
//!
//! All services share the fate of the node, so there is one state: SERVING when `/readyz` says ready, and also while a
//! node of a cluster has no lease or waits for others anew, which `/readyz` says: it serves its callers, and says of
//! each push whether it is complete.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::limits::HEALTH_WATCH_MS;
use crate::pb::grpc::health as pb;
use crate::pb::grpc::health::health_check_response::ServingStatus;
use crate::rpc::call::{End, Service, StreamCall};
use crate::rpc::exchange::DrainWatch;
use crate::rpc::stream::encode;
use crate::shard::clock;
use crate::wire::grpc::{Status, code};

/// `Check`: the framed answer.
pub(super) fn check(service: &Service, message: Bytes) -> Result<Bytes, Status> {
    match state(service, &decode(service, message)?) {
        ServingStatus::ServiceUnknown => Err(Status::new(code::NOT_FOUND, "unknown service")),
        status => encode(&response(status)),
    }
}

/// `Watch`: the state, and each change of it, until the node leaves.
pub(super) async fn watch(service: &Service, mut call: StreamCall) -> Result<(), End> {
    let name = decode(service, call.inbound.only().await?.bytes)?;
    let mut told = None;
    loop {
        let status = state(service, &name);
        if told != Some(status) {
            call.outbound.send(&response(status)).await?;
            told = Some(status);
        }
        if service.exchange.draining().is_some() {
            return Err(Status::new(code::UNAVAILABLE, "the node is leaving").into());
        }
        pause(&call.drain).await;
    }
}

fn decode(service: &Service, message: Bytes) -> Result<String, Status> {
    match pb::HealthCheckRequest::decode(message) {
        Ok(request) => Ok(request.service),
        Err(error) => Err(super::undecodable(service, error)),
    }
}

fn state(service: &Service, name: &str) -> ServingStatus {
    if !name.is_empty() && !service.catalog.services().any(|known| known == name) {
        ServingStatus::ServiceUnknown
    } else if serves(service) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

/// Whether the node should get calls and clients.
pub(super) fn serves(service: &Service) -> bool {
    service.exchange.draining().is_none()
        && service.readiness.not_ready(clock::now().mono).is_none()
        && service.exchange.lacks_upstream().is_none()
}

fn response(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse { status: status.into() }
}

/// Until it is time to look again, or the thread drains. (Nobody tells of stalls: they are seen by looking.)
async fn pause(drain: &DrainWatch) {
    let mut sleep = pin!(monoio::time::sleep(Duration::from_millis(HEALTH_WATCH_MS)));
    poll_fn(|cx| if drain.poll(cx).is_ready() { Poll::Ready(()) } else { sleep.as_mut().poll(cx) }).await;
}

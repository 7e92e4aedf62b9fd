//! One connection to the gateway, on which every answer's raw `grpc-status` is noted before tonic folds it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use prost::Message;
use tonic::body::Body;
use tonic::codegen::CompressionEncoding;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Status};
use tower_service::Service;

use super::gateway::{Gateway, eventually};
use super::pb::openim::msggateway::msg_gateway_client::MsgGatewayClient;
use super::pb::openim::msggateway::{GetUsersOnlineStatusReq, OnlineBatchPushOneMsgReq};
use super::pb::openim::protobuf::ErrorInfo;
use super::pb::openim::sdkws::MsgData;
use super::pb::pinion::push_client::PushClient;
use super::pb::pinion::push_message::To;
use super::pb::pinion::{PushBatch, PushMessage, UserList};
use super::pb::rpc;

/// Nothing is refused by the client itself.
const UNLIMITED: usize = usize::MAX;

/// A channel that notes the `grpc-status` of answers that are a status only.
#[derive(Clone)]
pub struct Watched {
    channel: Channel,
    status: Arc<Mutex<Option<String>>>,
}

impl Service<http::Request<Body>> for Watched {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.channel.call(request);
        let noted = Arc::clone(&self.status);
        Box::pin(async move {
            let answer = answer.await?;
            let status = answer.headers().get("grpc-status").map(|s| s.to_str().unwrap().to_owned());
            *noted.lock().unwrap() = status;
            Ok(answer)
        })
    }
}

/// The services over one connection.
#[derive(Clone)]
pub struct Api {
    pub openim: MsgGatewayClient<Watched>,
    pub pinion: PushClient<Watched>,
    status: Arc<Mutex<Option<String>>>,
}

impl Api {
    pub async fn connect(gateway: &Gateway) -> Self {
        let channel =
            Endpoint::from_shared(format!("http://{}", gateway.grpc)).unwrap().connect().await.unwrap();
        let status = Arc::default();
        let watched = Watched { channel, status: Arc::clone(&status) };
        Self {
            openim: MsgGatewayClient::new(watched.clone()).max_decoding_message_size(UNLIMITED),
            pinion: PushClient::new(watched),
            status,
        }
    }

    /// As this, with compressed requests.
    pub fn gzip(&self) -> Self {
        let mut compressed = self.clone();
        compressed.openim = compressed.openim.send_compressed(CompressionEncoding::Gzip);
        compressed.pinion = compressed.pinion.send_compressed(CompressionEncoding::Gzip);
        compressed
    }

    /// `grpc-status` of the last answer that was a status only, as it was on the wire.
    pub fn raw_status(&self) -> Option<String> {
        self.status.lock().unwrap().clone()
    }

    /// Platforms of the connections of a user.
    pub async fn platforms(&self, user: &str) -> Vec<i32> {
        let request = admin(GetUsersOnlineStatusReq { user_i_ds: vec![user.to_owned()] });
        let found = self.openim.clone().get_users_online_status(request).await.unwrap().into_inner();
        found.success_result.iter().flat_map(|r| &r.detail_platform_status).map(|d| d.platform_id).collect()
    }

    /// Waits until a user has a connection.
    pub async fn online(&self, user: &str) {
        let start = std::time::Instant::now();
        while self.platforms(user).await.is_empty() {
            assert!(start.elapsed() < super::gateway::DEADLINE, "{user} is not online");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// A request with the metadata that OpenIM's services send (spec 6.1).
pub fn openim<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("operationid", "tonic".parse().unwrap());
    request
}

/// As [`openim`], of an admin.
pub fn admin<T>(message: T) -> Request<T> {
    let mut request = openim(message);
    request.metadata_mut().insert("opuserid", "imAdmin".parse().unwrap());
    request
}

pub fn text(to: &str, text: &str) -> MsgData {
    MsgData {
        send_id: "sender".into(),
        recv_id: to.into(),
        client_msg_id: format!("tonic-{}", text.len()),
        session_type: 1,
        msg_from: 100,
        content_type: 101,
        content: format!("{{\"content\":{text:?}}}").into(),
        ..MsgData::default()
    }
}

pub fn push(users: &[&str], content: &str) -> OnlineBatchPushOneMsgReq {
    OnlineBatchPushOneMsgReq {
        msg_data: Some(text(users[0], content)),
        push_to_user_i_ds: users.iter().map(|user| (*user).to_owned()).collect(),
    }
}

/// A batch of one message for one user.
pub fn batch(id: u64, user: &str, content: &str, expire_after_ms: u32) -> PushBatch {
    let message = PushMessage {
        id,
        msg_data: text(user, content).encode_to_vec().into(),
        to: Some(To::Users(UserList { user_ids: vec![user.to_owned()] })),
        expire_after_ms,
        ..PushMessage::default()
    };
    PushBatch { messages: vec![message] }
}

/// Code, message and cause in the details of an OpenIM error (spec 6.4).
pub fn details(status: &Status) -> (i32, String, String) {
    let rebuilt = rpc::Status::decode(status.details()).unwrap();
    let [detail] = rebuilt.details.as_slice() else { panic!("not one detail: {rebuilt:?}") };
    assert_eq!(detail.type_url, "type.googleapis.com/openim.protobuf.ErrorInfo");
    let info = ErrorInfo::decode(detail.value.clone()).unwrap();
    (rebuilt.code, rebuilt.message, info.cause)
}

/// Runs a test with a gateway and one connection to it. At its end no call may be left behind.
pub fn with_gateway<F: Future<Output = ()>>(test: impl FnOnce(Arc<Gateway>, Api) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let gateway = Arc::new(Gateway::start());
        let api = Api::connect(&gateway).await;
        test(Arc::clone(&gateway), api).await;
        for gauge in ["pinion_rpc_calls_in_flight", "pinion_pushes_in_flight", "pinion_rpc_connections"] {
            eventually(gauge, || (gateway.metric(gauge) == 0).then_some(())).await;
        }
    });
}

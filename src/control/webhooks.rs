//! OpenIM's webhooks (spec 11.6): a POST each, no retry, and every outcome only counted.
//!
//! What always holds: at most `WEBHOOKS_IN_FLIGHT_MAX` are under way, each ends at its timeout, and of an answer at
//! most `WEBHOOK_ANSWER_BYTES` are read. The HTTP status is not looked at; redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::timeout;

use super::counts::Counts;
use super::mailbox::{Hooks, Wanted};
use super::plan::{ControlFault, WebhookPlan};
use super::roots::roots;
use crate::limits::{WEBHOOK_ANSWER_BYTES, WEBHOOK_TIMEOUT_MS_MAX, WEBHOOKS_IN_FLIGHT_MAX};
use crate::metrics::Metric;

/// A webhook to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The last part of the URL, such as `callbackAfterUserOnlineCommand`.
    pub command: &'static str,
    /// Goes into the header `operationID`.
    pub operation_id: String,
    /// The JSON text.
    pub body: Bytes,
    /// From the first byte to the last of the answer, in milliseconds; at most `WEBHOOK_TIMEOUT_MS_MAX`.
    pub timeout_ms: u64,
}

/// How the receiver answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    Refused,
    /// No JSON object, or too long.
    Malformed,
    /// Not reached.
    Failed,
    Late,
}

/// What of an answer is looked at.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Answer {
    #[serde(rename = "actionCode")]
    action_code: i64,
    #[serde(rename = "nextCode")]
    next_code: i64,
}

/// Where webhooks go, checked.
pub(super) struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
}

impl Sender {
    pub(super) fn new(plan: &WebhookPlan) -> Result<Self, ControlFault> {
        const OF: &str = "webhooks";
        let bad = |why: &str| ControlFault::Address { of: OF, given: plan.url.clone(), why: why.into() };
        let uri: Uri = plan.url.parse().map_err(|e: http::uri::InvalidUri| bad(&e.to_string()))?;
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        if !has_host || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("write http://host[:port]/path or https://.."));
        }
        if uri.query().is_some() {
            return Err(bad("the command is added at its end: leave the query out"));
        }
        // A certificate store is read only where it is needed.
        let roots = if uri.scheme_str() == Some("https") {
            roots(OF, plan.authorities.as_deref())?
        } else {
            RootCertStore::empty()
        };
        let tls = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|e| ControlFault::Tls { of: OF, why: e.to_string() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(WEBHOOKS_IN_FLIGHT_MAX)
            .build(connector);
        Ok(Self { client, url: plan.url.clone() })
    }

    async fn send(self: Arc<Self>, webhook: Webhook, counts: &Counts) {
        let command = webhook.command;
        let within = Duration::from_millis(webhook.timeout_ms.min(WEBHOOK_TIMEOUT_MS_MAX));
        let outcome = timeout(within, self.post(webhook)).await.unwrap_or(Outcome::Late);
        if outcome != Outcome::Ok {
            tracing::debug!(command, ?outcome, "webhook");
        }
        counts.count(match outcome {
            Outcome::Ok => Metric::WebhooksOk,
            Outcome::Refused => Metric::WebhooksRefused,
            Outcome::Malformed => Metric::WebhooksMalformed,
            Outcome::Failed => Metric::WebhooksFailed,
            Outcome::Late => Metric::WebhooksLate,
        });
    }

    async fn post(&self, webhook: Webhook) -> Outcome {
        let mut request = Request::new(Full::new(webhook.body));
        *request.method_mut() = Method::POST;
        let Ok(uri) = format!("{}/{}", self.url, webhook.command).parse() else {
            return Outcome::Failed;
        };
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if let Ok(operation_id) = HeaderValue::from_str(&webhook.operation_id) {
            headers.insert("operationid", operation_id);
        }
        let answer = match self.client.request(request).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "webhook");
                return Outcome::Failed;
            }
        };
        match Limited::new(answer.into_body(), WEBHOOK_ANSWER_BYTES).collect().await {
            Ok(body) => judge(&body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Outcome::Malformed,
            Err(_) => Outcome::Failed,
        }
    }
}

/// Sends until the end is wanted, then what was taken; each to where webhooks go when it is taken.
pub(super) async fn send_always(
    hooks: &watch::Receiver<Hooks>,
    mut webhooks: Receiver<Webhook>,
    mut wanted: Wanted,
    counts: &Counts,
) {
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    let mut ending = false;
    while open || !under_way.is_empty() {
        tokio::select! {
            webhook = webhooks.recv(), if open && under_way.len() < WEBHOOKS_IN_FLIGHT_MAX => match webhook {
                Some(webhook) => {
                    let sender = hooks.borrow().clone();
                    match sender {
                        Some(sender) => under_way.push(sender.send(webhook, counts)),
                        None => counts.count(Metric::WebhooksUnwanted),
                    }
                }
                None => open = false,
            },
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            _ = wanted.end(), if !ending => {
                ending = true;
                webhooks.close();
            }
        }
    }
}

/// What the answer says (spec 11.6).
fn judge(body: &[u8]) -> Outcome {
    match serde_json::from_slice::<Answer>(body) {
        Ok(Answer { action_code: 0, next_code: 1 }) => Outcome::Refused,
        Ok(_) => Outcome::Ok,
        Err(_) => Outcome::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_two_codes() {
        for (body, wanted) in [
            (r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#, Outcome::Ok),
            (r#"{"actionCode":0,"errCode":5,"errMsg":"no","errDlt":"","nextCode":1}"#, Outcome::Refused),
            (r#"{"actionCode":1,"nextCode":1}"#, Outcome::Ok),
            (r#"{"nextCode":1}"#, Outcome::Refused),
            ("{}", Outcome::Ok),
            ("", Outcome::Malformed),
            ("ok", Outcome::Malformed),
            (r#"{"actionCode":"0"}"#, Outcome::Malformed),
            (r#"{"actionCode":0"#, Outcome::Malformed),
        ] {
            assert_eq!(judge(body.as_bytes()), wanted, "{body}");
        }
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_at_start() {
        let sender = |url: &str| Sender::new(&WebhookPlan { url: url.into(), authorities: None });
        assert!(sender("http://127.0.0.1:10006/callbackExample").is_ok());
        for url in
            ["", "127.0.0.1:10006", "ftp://host/", "http://", "http:///path", "http://h/?a=1", "http://h h/"]
        {
            let fault = sender(url).err().expect(url).to_string();
            assert!(fault.starts_with("webhooks: `"), "{fault}");
        }
    }
}

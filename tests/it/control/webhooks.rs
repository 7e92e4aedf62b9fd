//! Webhooks, at an HTTP server that the test holds in its hand.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use pinion::control::mailbox::Refused;
use pinion::control::plan::WebhookPlan;
use pinion::control::webhooks::Webhook;
use pinion::limits;
use pinion::metrics::Metric;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::harness::authority::{Authority, When};

/// A request, waiting for its answer.
struct Call {
    head: Vec<String>,
    body: String,
    socket: TcpStream,
}

impl Call {
    fn answer(mut self, body: &str) {
        // It may have given up: some tests want that.
        let _ = write!(self.socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }

    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&prefix))
    }
}

/// A receiver of webhooks: requests come out, each on its connection.
fn receiver() -> (SocketAddr, Receiver<Call>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, calls) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, sender) = (socket.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(socket.try_clone().unwrap());
                while let Some((head, body)) = request(&mut reader) {
                    let socket = socket.try_clone().unwrap();
                    if sender.send(Call { head, body, socket }).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, calls)
}

/// One request; `None`: the connection is over.
fn request(reader: &mut impl BufRead) -> Option<(Vec<String>, String)> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

fn start(url: String) -> Control {
    Control::start(|plan| plan.webhooks = Some(WebhookPlan { url, authorities: None }))
}

fn webhook(body: &'static str) -> Webhook {
    Webhook {
        command: "callbackAfterUserOnlineCommand",
        operation_id: "p_1_42".into(),
        body: body.as_bytes().into(),
        timeout_ms: 15_000,
    }
}

#[test]
fn a_webhook_is_posted_as_upstream_does() {
    let (address, calls) = receiver();
    let control = start(format!("http://{address}/callbackExample"));
    let body = r#"{"callbackCommand":"callbackAfterUserOnlineCommand"}"#;
    control.address.webhook(webhook(body)).unwrap();
    let call = calls.recv_timeout(DEADLINE).unwrap();
    assert_eq!(call.head[0], "POST /callbackExample/callbackAfterUserOnlineCommand HTTP/1.1");
    assert_eq!(call.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(call.header("operationid"), Some("p_1_42"));
    assert_eq!(call.header("host"), Some(address.to_string().as_str()));
    assert_eq!(call.body, body);
    call.answer("{}");
    control.await_metric(Metric::WebhooksOk, 1);
}

#[test]
fn every_outcome_is_counted_and_nothing_is_sent_twice() {
    let (address, calls) = receiver();
    let control = start(format!("http://{address}"));
    let long = "x".repeat(limits::WEBHOOK_ANSWER_BYTES + 1);
    for (answer, metric) in [
        (r#"{"actionCode":0,"nextCode":0}"#, Metric::WebhooksOk),
        (r#"{"actionCode":0,"errCode":1,"nextCode":1}"#, Metric::WebhooksRefused),
        ("not JSON", Metric::WebhooksMalformed),
        (long.as_str(), Metric::WebhooksMalformed),
    ] {
        let before = control.block.value(metric);
        control.address.webhook(webhook("{}")).unwrap();
        calls.recv_timeout(DEADLINE).unwrap().answer(answer);
        control.await_metric(metric, before + 1);
    }
    // An answer that breaks off, and one that does not come.
    control.address.webhook(webhook("{}")).unwrap();
    let mut call = calls.recv_timeout(DEADLINE).unwrap();
    call.socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}").unwrap();
    call.socket.shutdown(std::net::Shutdown::Both).unwrap();
    control.await_metric(Metric::WebhooksFailed, 1);
    control.address.webhook(Webhook { timeout_ms: 50, ..webhook("{}") }).unwrap();
    control.await_metric(Metric::WebhooksLate, 1);
    assert!(calls.try_iter().count() <= 1, "no retry");
}

#[test]
fn a_receiver_that_is_away_fails_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let control = start(format!("http://{nobody}"));
    for _ in 0..3 {
        control.address.webhook(webhook("{}")).unwrap();
    }
    control.await_metric(Metric::WebhooksFailed, 3);
}

#[test]
fn two_are_under_way_and_the_newest_beyond_the_queue_is_dropped() {
    let (address, calls) = receiver();
    let mut control = start(format!("http://{address}"));
    let most = limits::WEBHOOKS_MAX + limits::WEBHOOKS_IN_FLIGHT_MAX;
    // A webhook that is cut by its timeout would make room.
    let patient = || Webhook { timeout_ms: u64::MAX, ..webhook("{}") };
    let mut held: Vec<Call> = Vec::new();
    for _ in 0..limits::WEBHOOKS_IN_FLIGHT_MAX {
        control.address.webhook(patient()).unwrap();
        held.push(calls.recv_timeout(DEADLINE).unwrap());
    }
    for n in limits::WEBHOOKS_IN_FLIGHT_MAX..most {
        assert_eq!(control.address.webhook(patient()), Ok(()), "webhook {n}");
    }
    assert_eq!(control.address.webhook(patient()), Err(Refused::Full(patient())));
    control.await_metric(Metric::WebhooksDropped, 1);
    assert!(calls.try_recv().is_err(), "only two at a time");
    for call in held {
        call.answer("{}");
    }
    for _ in 0..limits::WEBHOOKS_MAX {
        calls.recv_timeout(DEADLINE).unwrap().answer("{}");
    }
    // What was taken is sent before the end.
    control.end(Leases::Revoke);
    assert_eq!(control.block.value(Metric::WebhooksOk), most as u64);
    assert_eq!(control.address.webhook(patient()), Err(Refused::Closed(patient())));
}

#[test]
fn after_a_change_they_go_elsewhere_or_nowhere() {
    let ((first, old_calls), (second, new_calls)) = (receiver(), receiver());
    let control = Control::start(|_| {});
    let go_to = |address: Option<SocketAddr>| {
        let plan = address.map(|at| WebhookPlan { url: format!("http://{at}"), authorities: None });
        control.thread.as_ref().unwrap().set_webhooks(plan).unwrap();
    };
    let sent = |calls: &Receiver<Call>, body| {
        control.address.webhook(webhook(body)).unwrap();
        let call = calls.recv_timeout(DEADLINE).unwrap();
        assert_eq!(call.body, body);
        call.answer("{}");
    };
    go_to(Some(first));
    sent(&old_calls, r#"{"n":1}"#);
    go_to(Some(second));
    sent(&new_calls, r#"{"n":2}"#);
    go_to(None);
    control.address.webhook(webhook(r#"{"n":3}"#)).unwrap();
    control.await_metric(Metric::WebhooksUnwanted, 1);
    let bad = WebhookPlan { url: "nowhere".into(), authorities: None };
    assert!(control.thread.as_ref().unwrap().set_webhooks(Some(bad)).is_err());
    go_to(Some(second));
    sent(&new_calls, r#"{"n":4}"#);
    assert!(old_calls.try_recv().is_err());
}

#[test]
fn the_end_does_not_wait_for_a_receiver_that_hangs() {
    let (address, calls) = receiver();
    let mut control = start(format!("http://{address}"));
    control.address.webhook(webhook("{}")).unwrap();
    let _held = calls.recv_timeout(DEADLINE).unwrap();
    control.thread.take().unwrap().end(Leases::Revoke, Duration::from_millis(50));
}

/// Answers each webhook that comes over TLS with `{}`.
fn tls_receiver(authority: &Authority) -> SocketAddr {
    let (chain, key) = authority.issue(&["127.0.0.1"], When::Now);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(rustls::StreamOwned::new(session, socket.unwrap()));
            while request(&mut stream).is_some() {
                // The caller may have gone.
                let _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
            }
        }
    });
    address
}

#[test]
fn https_is_spoken_with_the_authority_that_was_given_only() {
    let (ours, other) = (Authority::new("ours", When::Now), Authority::new("other", When::Now));
    let address = tls_receiver(&ours);
    for (authority, metric) in [(&ours, Metric::WebhooksOk), (&other, Metric::WebhooksFailed)] {
        let authorities = Some(authority.pem().as_bytes().to_vec());
        let url = format!("https://{address}/x");
        let control = Control::start(|plan| plan.webhooks = Some(WebhookPlan { url, authorities }));
        control.address.webhook(webhook("{}")).unwrap();
        control.await_metric(metric, 1);
    }
}

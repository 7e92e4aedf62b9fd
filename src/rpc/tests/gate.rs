//! Who gets in: source networks, TLS with and without client certificates, the token.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::grpc::{PUSH, push_request};
use super::*;
use crate::config::authority::{Authority, When};
use crate::config::policy::RpcPolicy;
use crate::config::tls::Tls;
use crate::config::{Token, pem};
use crate::limits::{H2_HANDSHAKE_MS, RPC_CONNECTIONS_MAX};
use crate::pb::openim::msggateway::OnlineBatchPushOneMsgResp;
use crate::rpc::client::{Target, TlsIdentity};
use crate::rpc::gate::Gate;
use crate::session::handshake::origin::Network;
use crate::shard::thread::tests::on_each_of_the_drivers;

const TIMEOUT: Duration = Duration::from_secs(60);
const TOKEN: &str = "0123456789abcdef";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn defaults() -> RpcConfig {
    RpcConfig::at("127.0.0.1:0".parse().unwrap())
}

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| Network::parse(text).unwrap()).collect()
}

/// Runs a test on every driver of this machine.
fn on_each(config: &RpcConfig, test: impl Fn(&Node) + Sync) {
    on_each_of_the_drivers(|driver| {
        let config = Config { rpc: config.clone(), ..super::config() };
        test(&Node::start_with(driver, Shards::Answer, config));
    });
}

/// A push by this caller; the number of results.
fn push(target: &Target) -> Result<usize, CallError> {
    let path = format!("/openim.msggateway.msgGateway/{PUSH}");
    let request = push_request(&["on1", "off"]).encode_to_vec();
    let answer = target.call(&path, &[("operationid", "op")], request.into(), 60_000)?;
    Ok(OnlineBatchPushOneMsgResp::decode(answer).unwrap().single_push_result.len())
}

fn refusal(target: &Target) -> String {
    push(target).unwrap_err().to_string()
}

/// A connection from one of this machine's loopback addresses.
fn dial_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Everything until the end or a reset.
fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let outcome = stream.read_to_end(&mut bytes);
    assert!(outcome.as_ref().map_or_else(|e| e.kind() != io::ErrorKind::WouldBlock, |_| true), "{outcome:?}");
    bytes
}

#[test]
fn the_networks_decide_whatever_the_form_of_an_address() {
    for (allow, peer, want) in [
        (&[][..], "203.0.113.1", true),
        (&[], "2001:db8::1", true),
        (&["10.0.0.0/8"], "10.0.0.0", true),
        (&["10.0.0.0/8"], "10.255.255.255", true),
        (&["10.0.0.0/8"], "9.255.255.255", false),
        (&["10.0.0.0/8"], "11.0.0.0", false),
        (&["10.0.0.0/8"], "::ffff:10.1.2.3", true),
        (&["10.0.0.0/8"], "::ffff:11.0.0.0", false),
        (&["::ffff:10.0.0.0/104"], "10.1.2.3", true),
        (&["::ffff:10.0.0.0/104"], "::ffff:10.1.2.3", true),
        (&["0.0.0.0/0"], "::ffff:203.0.113.1", true),
        (&["0.0.0.0/0"], "2001:db8::1", false),
        (&["::/0"], "2001:db8::1", true),
        (&["::/0"], "203.0.113.1", false),
        (&["2001:db8::/32", "127.0.0.1"], "2001:db8:ffff::1", true),
        (&["2001:db8::/32", "127.0.0.1"], "2001:db9::", false),
        (&["2001:db8::/32", "127.0.0.1"], "127.0.0.1", true),
        (&["2001:db8::/32", "127.0.0.1"], "127.0.0.2", false),
        (&["fe80::/10"], "fe80::1", true),
    ] {
        let policy = RpcPolicy { allow: networks(allow), ..RpcPolicy::of(&config()) };
        let gate = Gate::of(&policy);
        let peer = SocketAddr::new(peer.parse().unwrap(), 9);
        assert_eq!(gate.lets_in(peer), want, "{allow:?} {peer}");
    }
}

#[test]
fn a_foreign_source_is_cut_before_a_byte_and_takes_no_place() {
    let config = RpcConfig { allow: networks(&["127.0.0.2/32", "2001:db8::/32"]), ..defaults() };
    on_each(&config, |node| {
        let foreign = u64::try_from(RPC_CONNECTIONS_MAX).unwrap() + 1;
        let kept: Vec<TcpStream> = (0..foreign).map(|_| dial_from(Ipv4Addr::LOCALHOST, node.grpc)).collect();
        node.await_count(Metric::RpcForeign, foreign);
        assert_eq!(read_all(&kept[0]), b"", "cut without a word");
        let mut stream = dial_from(Ipv4Addr::LOCALHOST, node.grpc);
        // The cut may be faster than the write.
        stream.write_all(PREFACE).unwrap_or_default();
        assert_eq!(read_all(stream), b"", "also if it speaks first");
        let Err(error @ CallError::Closed(..)) = push(&Target::plain(node.grpc)) else { panic!("not cut") };
        assert!(error.to_string().contains("rpc.allow"), "{error}");

        let mut home = dial_from(Ipv4Addr::new(127, 0, 0, 2), node.grpc);
        home.write_all(PREFACE).unwrap();
        let mut head = [0; 9];
        home.read_exact(&mut head).unwrap();
        assert_eq!(head[3], 4, "SETTINGS");
        assert_eq!(node.block.value(Metric::RpcRefused), 0);
    });
}

#[test]
fn the_token_is_asked_of_every_call_but_health_checks() {
    let config = RpcConfig { token: Token::parse(TOKEN), ..defaults() };
    on_each(&config, |node| {
        let good = format!("Bearer {TOKEN}");
        let other = "Bearer 0123456789abcdeF".to_owned();
        let push = format!("/openim.msggateway.msgGateway/{PUSH}");
        let health = "/grpc.health.v1.Health/Check";
        let mut refused = 0;
        for (path, sent, want) in [
            (push.as_str(), &[][..], 16),
            (&push, &[&other], 16),
            (&push, &[&good, &good], 16),
            (&push, &[&TOKEN.to_owned()], 16),
            (&push, &[&good], 0),
            ("/no.Service/Method", &[], 16),
            ("/no.Service/Method", &[&good], 12),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &[], 16),
            ("/grpc.health.v1.Healthy/Check", &[], 16),
        ] {
            let mut metadata = vec![("operationid", "op")];
            metadata.extend(sent.iter().map(|header| ("authorization", header.as_str())));
            let request = push_request(&["on1"]).encode_to_vec();
            let code = match call_once(node.grpc, path, &metadata, request.into(), 60_000) {
                Ok(_) => 0,
                Err(CallError::Refused(status)) => {
                    let names = status.message.contains("authorization: Bearer TOKEN");
                    assert_eq!(names, status.code == 16, "{status:?}");
                    assert!(!status.message.contains(TOKEN), "{status:?}");
                    status.code
                }
                Err(other) => panic!("{path}: {other}"),
            };
            assert_eq!(code, want, "{path} {sent:?}");
            refused += u64::from(code == 16);
        }
        node.await_count(Metric::RpcUnauthenticated, refused);
        let outcome = call_once(node.grpc, health, &[], Bytes::new(), 60_000);
        assert!(!matches!(&outcome, Err(CallError::Refused(Status { code: 16, .. }))), "{outcome:?}");
    });
}

/// Certificates of both sides, in files.
struct Certificates {
    dir: tempfile::TempDir,
    /// Of the gateway.
    ours: Authority,
    /// Of its callers.
    theirs: Authority,
}

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Authority::new("gateway", When::Now), Authority::new("callers", When::Now));
        Self { dir, ours, theirs }
    }

    /// A folder for one set of files: the tests of both drivers write at the same time.
    fn folder(&self) -> PathBuf {
        tempfile::tempdir_in(self.dir.path()).unwrap().keep()
    }

    /// The gateway's configuration.
    fn config(&self, client_ca: Option<&Authority>) -> RpcConfig {
        let folder = self.folder();
        let (cert, key) = self.ours.write_pair(&folder, "gateway", &["127.0.0.1"], When::Now);
        let client_ca = client_ca.map(|ca| ca.write(&folder, "callers"));
        let mut config =
            RpcConfig { tls_cert: Some(cert), tls_key: Some(key), tls_client_ca: client_ca, ..defaults() };
        config.tls = Some(Tls::read(&config).unwrap());
        config
    }

    /// A caller's identity: whom it believes, who it is, and whom it looks for.
    fn caller(&self, ca: &Authority, own: Option<&(PathBuf, PathBuf)>, host: &str) -> TlsIdentity {
        let ca = ca.write(&self.folder(), "believed");
        TlsIdentity::read(host, &ca, own.map(|(cert, key)| (cert.as_path(), key.as_path()))).unwrap()
    }

    fn pair(&self, authority: &Authority, when: When) -> (PathBuf, PathBuf) {
        authority.write_pair(&self.folder(), "caller", &["caller"], when)
    }

    /// A raw client: TLS versions and ALPN as given.
    fn client(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Arc<ClientConfig> {
        let roots = pem::trusted(&self.ours.write(&self.folder(), "raw")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

fn target(node: &Node, tls: TlsIdentity) -> Target {
    Target { tls: Some(tls), ..Target::plain(node.grpc) }
}

#[test]
fn with_a_client_ca_only_its_certificates_get_in() {
    let files = Certificates::new();
    let stranger = Authority::new("stranger", When::Now);
    on_each(&files.config(Some(&files.theirs)), |node| {
        let call = |ca, own: Option<(PathBuf, PathBuf)>, host| {
            push(&target(node, files.caller(ca, own.as_ref(), host))).map_err(|error| error.to_string())
        };
        let good = || Some(files.pair(&files.theirs, When::Now));
        assert_eq!(call(&files.ours, good(), "127.0.0.1"), Ok(2));
        for (ca, own, host, text) in [
            // The gateway's own words may be lost when it closes; the flag is named in any case.
            (&files.ours, None, "127.0.0.1", "--rpc-cert"),
            (&files.ours, Some(files.pair(&stranger, When::Now)), "127.0.0.1", "--rpc-cert"),
            (&files.ours, Some(files.pair(&files.theirs, When::Past)), "127.0.0.1", "--rpc-cert"),
            (&files.ours, Some(files.pair(&files.theirs, When::Future)), "127.0.0.1", "--rpc-cert"),
            (&stranger, good(), "127.0.0.1", "not signed by the CA in --rpc-ca"),
            (&files.ours, good(), "gateway.internal", "for another name than the one in --rpc"),
        ] {
            let before = node.block.value(Metric::RpcTlsFailed);
            let error = call(ca, own, host).unwrap_err();
            assert!(error.contains(text), "{text}: {error}");
            node.await_count(Metric::RpcTlsFailed, before + 1);
        }
        assert_eq!(call(&files.ours, good(), "127.0.0.1"), Ok(2), "others are unaffected");
    });
}

#[test]
fn without_a_client_ca_tls_asks_for_no_certificate_and_carries_the_token() {
    let files = Certificates::new();
    let config = RpcConfig { token: Token::parse(TOKEN), ..files.config(None) };
    on_each(&config, |node| {
        let mut target = target(node, files.caller(&files.ours, None, "127.0.0.1"));
        assert!(refusal(&target).contains("status 16"), "{}", refusal(&target));
        target.token = Token::parse("0123456789abcdeF");
        assert!(refusal(&target).contains("is not this gateway's rpc.token"), "{}", refusal(&target));
        target.token = Token::parse(TOKEN);
        assert_eq!(push(&target).unwrap(), 2);
    });
}

#[test]
fn large_bodies_pass_through_tls_both_ways() {
    let files = Certificates::new();
    on_each(&files.config(None), |node| {
        let target = target(node, files.caller(&files.ours, None, "127.0.0.1"));
        let users: Vec<String> = (0..50_000).map(|n| format!("on{n:060}")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let path = format!("/openim.msggateway.msgGateway/{PUSH}");
        let request = push_request(&users).encode_to_vec();
        let answer = target.call(&path, &[("operationid", "op")], request.into(), 60_000).unwrap();
        let answer = OnlineBatchPushOneMsgResp::decode(answer).unwrap();
        assert_eq!(answer.single_push_result.len(), 50_000);
    });
}

#[test]
fn plain_callers_of_a_tls_port_and_tls_callers_of_a_plain_one_are_told() {
    let files = Certificates::new();
    on_each(&files.config(None), |node| {
        let mut stream = dial_from(Ipv4Addr::LOCALHOST, node.grpc);
        stream.write_all(PREFACE).unwrap();
        let answer = read_all(stream);
        assert!(answer.len() < 16 && answer.first().is_none_or(|b| *b == 21), "an alert at most: {answer:?}");
        node.await_count(Metric::RpcTlsFailed, 1);
        let error = refusal(&Target::plain(node.grpc));
        assert!(error.contains("Does it speak TLS"), "{error}");
    });
    on_each(&defaults(), |node| {
        let error = refusal(&target(node, files.caller(&files.ours, None, "127.0.0.1")));
        assert!(error.contains("does not speak TLS"), "{error}");
        node.await_count(Metric::RpcRefused, 1);
    });
}

#[test]
fn tls_is_1_2_or_1_3_with_h2_by_alpn() {
    use rustls::version::{TLS12, TLS13};
    let files = Certificates::new();
    on_each(&files.config(None), |node| {
        for (versions, alpn, good) in [
            (&[&TLS13][..], &[&b"h2"[..]][..], true),
            (&[&TLS12], &[&b"h2"[..]], true),
            (&[&TLS13, &TLS12], &[&b"http/1.1"[..], b"h2"], true),
            (&[&TLS13], &[&b"http/1.1"[..]], false),
            (&[&TLS13], &[], false),
            (&[&TLS12], &[], false),
        ] {
            let before = node.block.value(Metric::RpcTlsFailed);
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let session = ClientConnection::new(files.client(versions, alpn), name).unwrap();
            let mut stream = StreamOwned::new(session, dial_from(Ipv4Addr::LOCALHOST, node.grpc));
            let mut head = [0; 9];
            let heard = stream.write_all(PREFACE).and_then(|()| stream.read_exact(&mut head));
            assert_eq!(heard.is_ok(), good, "{versions:?} {alpn:?}: {heard:?}");
            node.await_count(Metric::RpcTlsFailed, before + u64::from(!good));
        }
    });
}

#[test]
fn a_handshake_that_does_not_end_is_cut_and_counted() {
    let files = Certificates::new();
    on_each(&files.config(None), |node| {
        let started = clock::now().mono;
        let silent = dial_from(Ipv4Addr::LOCALHOST, node.grpc);
        let mut stuck = dial_from(Ipv4Addr::LOCALHOST, node.grpc);
        // The head of a handshake record, and nothing behind it.
        stuck.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
        // Others get in meanwhile.
        let target = target(node, files.caller(&files.ours, None, "127.0.0.1"));
        assert_eq!(push(&target).unwrap(), 2);
        read_all(silent);
        read_all(stuck);
        assert!(clock::now().mono.since_ms(started) >= H2_HANDSHAKE_MS);
        node.await_count(Metric::RpcTlsFailed, 2);
    });
}

#[test]
fn a_flood_of_handshakes_does_not_keep_the_mailbox_waiting() {
    let files = Certificates::new();
    on_each(&files.config(None), |node| {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let config = files.client(rustls::DEFAULT_VERSIONS, &[b"h2"]);
        std::thread::scope(|scope| {
            let _stop = stop;
            for _ in 0..2 {
                let (stopped, config) = (stopped.clone(), Arc::clone(&config));
                scope.spawn(move || {
                    while stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                        let name = ServerName::try_from("127.0.0.1").unwrap();
                        let mut session = ClientConnection::new(Arc::clone(&config), name).unwrap();
                        let mut stream = TcpStream::connect(node.grpc).unwrap();
                        // A ClientHello, then gone. It may be closed at accept: the flood takes all places.
                        session.write_tls(&mut stream).unwrap_or_default();
                    }
                });
            }
            node.await_count(Metric::RpcTlsFailed, 10);
            // Each needs the admin port of this thread, a shard, and the mail with its answer. How long it took is
            // printed and not judged: on a busy machine it says more about the machine.
            let times: Vec<u64> = (0..20)
                .map(|_| {
                    let asked = clock::now().mono;
                    let (head, body) = super::admin::get(node, "/v1/who?user=on1");
                    assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
                    clock::now().mono.since_ms(asked)
                })
                .collect();
            println!("asked during a flood of handshakes: {times:?} ms");
        });
    });
}

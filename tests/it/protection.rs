//! The gRPC port's protection on the real binary: source networks, mutual TLS and the token, each with `pinion push`,
//! and what an operator is told of a port that has none of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::authority::{Authority, When, write};
use crate::harness::{DEADLINE, Elsewhere, Gateway, eventually, own_address, pinion, run, texts};

const TOKEN: &str = "hunter2-hunter2-hunter2";
const WRONG: &str = "hunter3-hunter3-hunter3";

/// A push to alice with these flags and this token in the environment: exit code, stdout, stderr.
fn push(rpc: &str, flags: &[&str], token: Option<&str>) -> (i32, String, String) {
    let mut command = pinion(&[&["push", "--to", "alice", "--text", "hello", "--rpc", rpc], flags].concat());
    if let Some(token) = token {
        command.env("PINION_RPC_TOKEN", token);
    }
    texts(&run(command))
}

/// Certificates in files.
struct Files {
    dir: tempfile::TempDir,
    ours: Authority,
    theirs: Authority,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            ours: Authority::new("gateway", When::Now),
            theirs: Authority::new("callers", When::Now),
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Flags of a gateway with TLS.
    fn gateway(&self, names: &[&str]) -> Vec<String> {
        let (cert, key) = self.ours.write_pair(self.dir(), "gateway", names, When::Now);
        flags([("--rpc-tls-cert", cert), ("--rpc-tls-key", key)])
    }

    /// Flags of a gateway that wants certificates.
    fn mutual(&self, names: &[&str]) -> Vec<String> {
        let ca = self.theirs.write(self.dir(), "callers");
        [self.gateway(names), flags([("--rpc-tls-client-ca", ca)])].concat()
    }

    /// Flags of a caller that believes this CA.
    fn believing(&self, authority: &Authority, name: &str) -> Vec<String> {
        flags([("--rpc-ca", authority.write(self.dir(), name))])
    }

    /// Flags of a caller with a certificate of this CA.
    fn showing(&self, authority: &Authority, name: &str, when: When) -> Vec<String> {
        let (cert, key) = authority.write_pair(self.dir(), name, &["caller"], when);
        [self.believing(&self.ours, "gateway"), flags([("--rpc-cert", cert), ("--rpc-key", key)])].concat()
    }
}

fn flags<const N: usize>(pairs: [(&str, PathBuf); N]) -> Vec<String> {
    pairs.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect()
}

fn strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn count(gateway: &Gateway, family: &str, at_least: f64) {
    eventually(family, || (gateway.metrics().sum(family, &[]) >= at_least).then_some(()));
}

#[test]
fn a_push_over_mutual_tls_with_the_token_arrives() {
    let files = Files::new();
    let flags = [files.mutual(&["127.0.0.1"]), vec!["--rpc-token".into(), TOKEN.into()]].concat();
    let gateway = Gateway::start(&strs(&flags));
    let rpc = gateway.grpc.to_string();
    let mut alice = gateway.connect("alice", 1);
    let caller = files.showing(&files.theirs, "caller", When::Now);
    let (code, out, err) = push(&rpc, &strs(&caller), Some(TOKEN));
    assert_eq!((code, out.as_str()), (0, "alice: reached on IOS\n"), "{err}");
    assert_eq!(alice.pushed_text(), "hello");

    let (code, _, err) = push(&rpc, &strs(&caller), None);
    assert_eq!(code, 2);
    for part in ["status 16", "authorization: Bearer TOKEN", "PINION_RPC_TOKEN", "--config"] {
        assert!(err.contains(part), "no {part}: {err}");
    }
    let (code, _, err) = push(&rpc, &strs(&caller), Some(WRONG));
    assert!(code == 2 && err.contains("is not this gateway's rpc.token"), "{err}");
    count(&gateway, "pinion_rpc_unauthenticated_total", 2.0);

    // The token from a file, as the gateway itself may have it.
    let file = write(files.dir(), "pinion.yaml", &format!("rpc:\n  token: {TOKEN}\n"));
    let with_file = [strs(&caller), vec!["--config", file.to_str().unwrap()]].concat();
    let (code, _, err) = push(&rpc, &with_file, None);
    assert_eq!(code, 0, "{err}");
    let with_flag = [strs(&caller), vec!["--rpc-token", TOKEN]].concat();
    assert_eq!(push(&rpc, &with_flag, Some(WRONG)).0, 0, "the flag goes before the environment");
}

#[test]
fn each_refusal_of_tls_says_what_to_do() {
    let files = Files::new();
    let stranger = Authority::new("stranger", When::Now);
    let gateway = Gateway::start(&strs(&files.mutual(&["127.0.0.1", "gateway.internal"])));
    let rpc = gateway.grpc.to_string();
    let port = gateway.grpc.port();
    let good = files.showing(&files.theirs, "good", When::Now);
    let code = push(&rpc, &strs(&good), None).0;
    assert_eq!(code, 1, "alice is not here");
    for (n, (rpc, flags, part)) in [
        (rpc.clone(), vec![], "Does it speak TLS"),
        (rpc.clone(), files.believing(&files.ours, "gateway"), "--rpc-cert"),
        (rpc.clone(), files.believing(&stranger, "stranger"), "not signed by the CA in --rpc-ca"),
        (format!("localhost:{port}"), good.clone(), "for another name than the one in --rpc"),
        (rpc.clone(), files.showing(&stranger, "strange", When::Now), "--rpc-cert"),
        (rpc, files.showing(&files.theirs, "expired", When::Past), "--rpc-cert"),
    ]
    .into_iter()
    .enumerate()
    {
        let (code, out, err) = push(&rpc, &strs(&flags), None);
        assert_eq!((code, out.as_str()), (2, ""), "{part}");
        assert!(err.contains(part), "no {part}: {err}");
        count(&gateway, "pinion_rpc_tls_failed_total", (n + 1) as f64);
    }
    let nowhere = ["--rpc-ca", "/nowhere/ca.pem"];
    let (code, _, err) = push("127.0.0.1:1", &nowhere, None);
    assert!(code == 2 && err.contains("/nowhere/ca.pem: cannot be read"), "{err}");
}

#[test]
fn a_plain_port_says_so_to_a_tls_caller() {
    let files = Files::new();
    let gateway = Gateway::start(&[]);
    let (code, _, err) = push(&gateway.grpc.to_string(), &strs(&files.believing(&files.ours, "ca")), None);
    assert!(code == 2 && err.contains("does not speak TLS"), "{err}");
}

#[test]
fn a_source_that_is_not_allowed_is_cut_without_a_byte() {
    let gateway = Gateway::start(&["--rpc-allow", "127.0.0.2/32,2001:db8::/32"]);
    let mut stream = TcpStream::connect(gateway.grpc).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or_default();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap_or_default(); // a reset is as good as an end
    assert_eq!(heard, b"");
    let (code, _, err) = push(&gateway.grpc.to_string(), &[], None);
    assert!(code == 2 && err.contains("in the gateway's rpc.allow?"), "{err}");
    count(&gateway, "pinion_rpc_connections_foreign_total", 2.0);
    assert_eq!(gateway.metrics().sum("pinion_rpc_connections_refused_total", &[]), 0.0);
}

#[test]
fn another_network_namespace_is_let_in_or_cut_by_rpc_allow() {
    let Some(elsewhere) = Elsewhere::new(78) else {
        eprintln!(
            "SKIPPED another_network_namespace_is_let_in_or_cut_by_rpc_allow: not root, or no iproute2"
        );
        return;
    };
    for (allow, cut) in
        [("198.18.78.0/30", false), ("::ffff:198.18.78.2/128", false), ("127.0.0.0/8,198.18.78.1", true)]
    {
        // Dual stack: the peer shows as ::ffff:198.18.78.2.
        let gateway = Gateway::start(&["--rpc-listen", "[::]:0", "--rpc-allow", allow]);
        let rpc = format!("198.18.78.1:{}", gateway.grpc.port());
        let arguments = ["push", "--to", "alice", "--text", "hello", "--rpc", &rpc];
        // The cable needs a moment.
        let (code, out, err) = eventually("the way over there", || {
            let answer = elsewhere.run(&mut pinion(&arguments));
            (!answer.2.contains("cannot connect") && !answer.2.contains("no answer within")).then_some(answer)
        });
        if cut {
            assert!(code == 2 && err.contains("rpc.allow"), "{allow}: {err}");
            count(&gateway, "pinion_rpc_connections_foreign_total", 1.0);
            let (code, _, err) = push(&format!("127.0.0.1:{}", gateway.grpc.port()), &[], None);
            assert_eq!(code, 1, "loopback is allowed: {err}");
        } else {
            assert_eq!((code, out.as_str()), (1, "alice: not connected\n"), "{allow}: {err}");
        }
    }
}

#[test]
fn an_open_port_is_warned_about_in_banner_log_and_check() {
    let files = Files::new();
    let parts = [
        "push to every user",
        "kick",
        "read their live login tokens",
        "rpc.allow",
        "rpc.tls_client_ca",
        "rpc.token",
    ];
    let token = ["--rpc-token".to_owned(), TOKEN.to_owned()];
    let allow = ["--rpc-allow".to_owned(), "10.0.0.0/8".to_owned()];
    for (flags, exposed) in [
        (vec![], true),
        (files.gateway(&["127.0.0.1"]), true),
        (files.mutual(&["127.0.0.1"]), false),
        (token.to_vec(), false),
        (allow.to_vec(), false),
    ] {
        let flags = [vec!["--rpc-listen", "0.0.0.0:0"], strs(&flags)].concat();
        let gateway = Gateway::start(&flags);
        let (code, check, err) = texts(&run(pinion(&[vec!["check"], flags.clone()].concat())));
        assert_eq!(code, 0, "{err}");
        if exposed {
            eventually("the warning in the log", || gateway.logs().contains(" WARN ").then_some(()));
        }
        for text in [gateway.banner.join("\n"), gateway.logs(), check] {
            assert!(parts.iter().all(|part| text.contains(part) == exposed), "{flags:?} {exposed}: {text}");
        }
    }
    let gateway = Gateway::start(&[]);
    assert!(!gateway.banner.join("\n").contains("kick"), "loopback is no exposure: {:?}", gateway.banner);
}

#[test]
fn check_judges_the_files_with_one_message_each() {
    let files = Files::new();
    let dir = files.dir();
    let (cert, key) = files.ours.write_pair(dir, "good", &["127.0.0.1"], When::Now);
    let (old, old_key) = files.ours.write_pair(dir, "old", &["127.0.0.1"], When::Past);
    let (new, new_key) = files.ours.write_pair(dir, "new", &["127.0.0.1"], When::Future);
    let text = write(dir, "text.pem", "no certificate\n");
    let ca = write(dir, "ca.pem", files.ours.pem());
    let missing = dir.join("missing.pem");
    for (cert, key, code, part) in [
        (&cert, &key, 0, "configuration is good"),
        (&missing, &key, 2, "cannot be read: No such file"),
        (&text, &key, 2, "no certificate in PEM form"),
        (&cert, &text, 2, "no private key in PEM form"),
        (&cert, &ca, 2, "no private key in PEM form"),
        (&new, &new_key, 0, "becomes valid in "),
        (&cert, &old_key, 2, "does not fit the certificate"),
        (&old, &old_key, 0, "rpc.tls_cert: certificate 1 of"),
    ] {
        let all = [
            vec!["check".to_owned()],
            flags([("--rpc-tls-cert", cert.clone()), ("--rpc-tls-key", key.clone())]),
        ];
        let (got, out, err) = texts(&run(pinion(&strs(&all.concat()))));
        assert_eq!(got, code, "{part}: {out}{err}");
        assert!(format!("{out}{err}").contains(part), "no {part}: {out}{err}");
    }
}

/// Everything that a gateway and the commands around it can print or write, searched for the token.
#[test]
fn the_token_is_nowhere_to_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = dir.path().to_str().unwrap();
    let mut gateway = Gateway::start(&[
        "--rpc-token",
        TOKEN,
        "--log-level",
        "trace",
        "--record-mode",
        "full",
        "--record-dir",
        recordings,
    ]);
    let rpc = gateway.grpc.to_string();
    let _alice = gateway.connect("alice", 1);
    let mut texts_seen = vec![gateway.banner.join("\n")];
    let trace =
        pinion(&["trace", "alice", "--for", "60s", "--count", "1", "--http", &gateway.http.to_string()]);
    let traced = std::thread::spawn(move || texts(&run(trace)));
    // Again and again, since nobody says when the trace has begun: it ends with the first push that it sees.
    while !traced.is_finished() {
        for token in [Some(TOKEN), Some(WRONG), None] {
            let (_, out, err) = push(&rpc, &[], token);
            texts_seen.extend([out, err]);
        }
    }
    let http = gateway.http.to_string();
    for command in [vec!["who", "alice", "--http", &http], vec!["shards", "--once", "--http", &http]] {
        let (_, out, err) = texts(&run(pinion(&command)));
        texts_seen.extend([out, err]);
    }
    for command in [
        vec!["check", "--print-config", "--rpc-token", TOKEN],
        vec!["gateway", "--print-config", "--rpc-token", TOKEN],
        vec!["check", "--rpc-token", "hunter2", "--log-level", "loud"],
        vec!["push", "--to", "a", "--text", "b", "--rpc", &rpc, "--rpc-token", "hunter2"],
        vec!["push", "--help"],
    ] {
        let mut command = pinion(&command);
        command.env("PINION_RPC_TOKEN", TOKEN);
        let (_, out, err) = texts(&run(command));
        texts_seen.extend([out, err]);
    }
    for path in ["/metrics", "/readyz", "/v1/who?user=alice", "/v1/shards", "/nothing"] {
        texts_seen.push(gateway.get(path).unwrap().1);
    }
    let (_, out, err) = traced.join().unwrap();
    assert!(out.contains("push"), "the trace saw the push: {out}");
    texts_seen.extend([out, err]);
    gateway.signal(Signal::TERM);
    gateway.wait();
    texts_seen.push(gateway.logs());
    assert!(texts_seen.iter().any(|text| text.contains("rpc.token: (set)")), "{texts_seen:?}");
    for text in &texts_seen {
        assert!(!text.contains("hunter"), "{text}");
    }
    let mut recorded = 0;
    for entry in std::fs::read_dir(recordings).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        recorded += bytes.len();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "in a recording");
    }
    assert!(recorded > 0, "something was recorded");
}

#[test]
fn a_foreign_address_of_this_machine_needs_what_the_port_asks_for() {
    let Some(ip) = own_address() else {
        eprintln!(
            "SKIPPED a_foreign_address_of_this_machine_needs_what_the_port_asks_for: no address but loopback"
        );
        return;
    };
    let allow = format!("{ip},127.0.0.1");
    for (flags, code) in [(vec!["--rpc-allow", "127.0.0.1"], 2), (vec!["--rpc-allow", &allow], 1)] {
        let gateway = Gateway::start(&[vec!["--rpc-listen", "0.0.0.0:0"], flags.clone()].concat());
        let foreign = SocketAddr::new(ip, gateway.grpc.port()).to_string();
        let (got, _, err) = push(&foreign, &[], None);
        assert_eq!(got, code, "{flags:?}: {err}");
    }
}

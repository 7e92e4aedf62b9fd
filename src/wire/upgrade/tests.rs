//! Heads, cut anywhere, and the exact bytes of the answers.

use proptest::prelude::*;

use super::*;

const SAMPLE: &str = "GET /?sendID=u1&token=t HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn head(text: &str) -> Head {
    let (head, n) = parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!(n, text.len());
    head
}

#[test]
fn the_sample_of_the_rfc_is_accepted() {
    let head = head(SAMPLE);
    assert_eq!(&*head.target, "/?sendID=u1&token=t");
    assert_eq!((head.compression, head.forwarded_for), (None, None));
    assert_eq!(head.upgrade.unwrap().text(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn the_101_has_exactly_three_headers() {
    let accept = head(SAMPLE).upgrade.unwrap();
    assert_eq!(
        String::from_utf8(switching(accept)).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn upgrade_checks_come_in_upstreams_order() {
    let table = [
        ("Connection: Upgrade", "Connection: keep-alive", UpgradeFault::NoConnectionUpgrade),
        ("Upgrade: websocket", "Upgrade: h2c", UpgradeFault::NoUpgradeWebsocket),
        ("GET", "POST", UpgradeFault::NotGet),
        ("Version: 13", "Version: 8", UpgradeFault::BadVersion),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", UpgradeFault::BadKey),
    ];
    // Each line spoils one more thing, the last first: the fault is always the first in the order.
    let mut text = SAMPLE.to_owned();
    for (good, bad, fault) in table.into_iter().rev() {
        text = text.replacen(good, bad, 1);
        assert_eq!(head(&text).upgrade, Err(fault), "{text}");
    }
    for key in ["", "c2hvcnQ=", "!!!!", "dGhlIHNhbXBsZSBub25jZSBsb25n"] {
        let text = SAMPLE.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
        assert_eq!(head(&text).upgrade, Err(UpgradeFault::BadKey), "{key}");
    }
}

#[test]
fn header_names_and_tokens_have_no_case_and_may_be_lists() {
    let text = "GET / HTTP/1.1\r\nCONNECTION: keep-alive, UPGRADE\r\nupgrade: foo, WebSocket\r\n\
         sec-websocket-key:  dGhlIHNhbXBsZSBub25jZQ== \r\nsec-websocket-version: 8, 13\r\nCompression: gzip\r\n\
         compression: other\r\nX-FORWARDED-FOR: 1.2.3.4, 5.6.7.8\r\n\r\n";
    let head = head(text);
    assert_eq!(head.upgrade.unwrap().text(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(head.compression.as_deref(), Some("gzip"));
    assert_eq!(head.forwarded_for.as_deref(), Some("1.2.3.4, 5.6.7.8"));
}

#[test]
fn targets_are_reduced_to_path_and_query() {
    for (target, expected) in [
        ("/", Some("/")),
        ("/msg?a=b", Some("/msg?a=b")),
        ("http://host:1/x?y", Some("/x?y")),
        ("http://host?y", Some("/?y")),
        ("http://host", Some("/")),
        ("/a?u=http://x/y", Some("/a?u=http://x/y")),
        ("/?sendID=用户", Some("/?sendID=用户")),
        ("*", None),
        ("host:443", None),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\n\r\n");
        let got = parse(text.as_bytes()).map(|head| head.map(|(head, _)| String::from(head.target)));
        assert_eq!(got.ok().flatten().as_deref(), expected, "{target}");
    }
}

#[test]
fn what_is_no_head_is_refused() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], // TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
    ] {
        assert_eq!(parse(bytes), Err(HeadFault::Malformed), "{}", bytes.escape_ascii());
    }
}

#[test]
fn heads_are_bounded() {
    let with = |pad: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(pad));
    let exact = limits::HEAD_BYTES_MAX - with(0).len();
    assert!(parse(with(exact).as_bytes()).unwrap().is_some());
    assert_eq!(parse(with(exact + 1).as_bytes()), Err(HeadFault::TooLong));
    let endless = vec![b'A'; limits::HEAD_BYTES_MAX];
    assert_eq!(parse(&endless[..limits::HEAD_BYTES_MAX - 1]), Ok(None));
    assert_eq!(parse(&endless), Err(HeadFault::TooLong));
    let many = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n));
    assert!(parse(many(limits::HEADERS_MAX).as_bytes()).unwrap().is_some());
    assert_eq!(parse(many(limits::HEADERS_MAX + 1).as_bytes()), Err(HeadFault::TooLong));
}

#[test]
fn a_head_may_come_in_any_pieces_and_leaves_what_follows() {
    let long = SAMPLE.replace("Host: h", &format!("Host: {}", "h".repeat(3000)));
    for text in [SAMPLE, &long] {
        for cut in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..cut]), Ok(None), "cut {cut}");
        }
        let (_, n) = parse(format!("{text}more").as_bytes()).unwrap().unwrap();
        assert_eq!(n, text.len());
    }
}

#[test]
fn answers_are_complete_http_and_close() {
    // Spec trap 1: argument and token errors are HTTP 200 with JSON, transient ones 503 without.
    for (bytes, status, extra) in [
        (refused_upgrade(UpgradeFault::NotGet), "405 Method Not Allowed", "Sec-Websocket-Version: 13"),
        (refused_upgrade(UpgradeFault::BadKey), "400 Bad Request", "Sec-Websocket-Version: 13"),
        (refused("{}"), "200 OK", "Content-Type: application/json; charset=utf-8"),
        (unavailable(), "503 Service Unavailable", "Retry-After: 1"),
        (bad_head(HeadFault::Malformed.status()), "400 Bad Request", ""),
        (bad_head(408), "408 Request Timeout", ""),
        (bad_head(HeadFault::TooLong.status()), "431 Request Header Fields Too Large", ""),
        (moved("/a?b"), "301 Moved Permanently", "Location: /a?b"),
    ] {
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
        assert!(head.contains(extra) && head.ends_with("Connection: close"), "{text}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
    }
    assert!(refused(r#"{"a":1}"#).ends_with(br#"{"a":1}"#));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(!matches!(parse(&bytes), Ok(Some((_, n))) if n > bytes.len()));
    }
}

#[test]
fn all_lines_of_the_forwarded_header_count_in_order() {
    let text =
        "GET / HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\nHost: x\r\nx-forwarded-for: 1.2.3.4, 5.6.7.8\r\n\r\n";
    assert_eq!(head(text).forwarded_for.as_deref(), Some("6.6.6.6,1.2.3.4, 5.6.7.8"));
}

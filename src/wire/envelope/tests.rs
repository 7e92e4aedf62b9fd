//! Envelopes in all four variants: vectors of spec A.2, JSON as Go reads it, and round trips.

use proptest::prelude::*;

use super::*;

const JSON: Variant = Variant { encoding: Encoding::Json, gzip: false };

fn json(text: &str) -> Result<Request, EnvelopeFault> {
    Codec::default().decode(JSON, text.as_bytes(), 0)
}

fn response_json(response: &Response<'_>) -> String {
    let frame = Codec::default().encode(JSON, response);
    String::from_utf8(frame.bytes()[if frame.bytes()[1] < 126 { 2 } else { 4 }..].to_vec()).unwrap()
}

fn sample() -> Request {
    Request {
        id: 1001,
        send_id: "u1".into(),
        operation_id: "op".into(),
        msg_incr: "u1_1".into(),
        data: Bytes::from_static(b"\x0a\x02u1"),
    }
}

#[test]
fn variants_have_their_own_index() {
    assert!(Variant::all().map(Variant::index).eq(0..Variant::COUNT));
}

#[test]
fn json_is_written_as_the_spec_shows() {
    let request = concat!(
        r#"{"reqIdentifier":1001,"token":"","sendID":"u1","operationID":"op","msgIncr":"u1_1","#,
        r#""data":"CgJ1MQ=="}"#
    );
    assert_eq!(json(request), Ok(sample()));
    assert_eq!(Codec::default().encode_request(JSON, &sample()), request.as_bytes());

    let reply =
        Response { id: 1001, msg_incr: "u1_1", operation_id: "op", data: Some(b""), ..Response::default() };
    assert_eq!(
        response_json(&reply),
        r#"{"reqIdentifier":1001,"msgIncr":"u1_1","operationID":"op","errCode":0,"errMsg":"","data":""}"#
    );
    let error = Response {
        id: 1003,
        msg_incr: "m",
        operation_id: "op",
        err_code: 1001,
        err_msg: "ArgsError",
        data: None,
    };
    assert_eq!(
        response_json(&error),
        r#"{"reqIdentifier":1003,"msgIncr":"m","operationID":"op","errCode":1001,"errMsg":"ArgsError","data":null}"#
    );
    assert_eq!(
        response_json(&Response { id: 2002, ..Response::default() }),
        r#"{"reqIdentifier":2002,"msgIncr":"","operationID":"","errCode":0,"errMsg":"","data":null}"#
    );
    assert!(response_json(&Response { msg_incr: "<&\u{2028}", ..reply }).contains(r#""\u003c\u0026\u2028""#));
}

#[test]
fn json_requests_are_read_as_go_reads_them() {
    let with = |change: fn(&mut Request)| {
        let mut request = sample();
        change(&mut request);
        Ok(request)
    };
    let good = r#""reqIdentifier":1001,"sendID":"u1","operationID":"op","msgIncr":"u1_1","data":"CgJ1MQ==""#;
    for (text, expected) in [
        (format!(" \n{{{good}}}\t "), with(|_| {})),
        (
            format!(
                "{{{}}}",
                good.to_ascii_uppercase().replace("U1", "u1").replace("OP\"", "op\"").replace("CGJ", "CgJ")
            ),
            with(|_| {}),
        ),
        (format!(r#"{{{good},"x":{{"y":[1,"\ud800"]}},"msgIncr":null}}"#), with(|_| {})),
        (format!(r#"{{"reqIdentifier":5,"data":"AAAA",{good}}}"#), with(|_| {})),
        (format!(r#"{{{good},"MSGINCR":"2"}}"#), with(|request| request.msg_incr = "2".into())),
        (format!(r#"{{{good},"data":""}}"#), with(|request| request.data = Bytes::new())),
        (
            format!(r#"{{{good},"data":[0,255,null]}}"#),
            with(|request| request.data = Bytes::from_static(&[0, 255, 0])),
        ),
        (format!(r#"{{{good},"data":"Cg\r\nJ1\nMQ=="}}"#), with(|_| {})),
        (
            format!(r#"{{{good},"data":"\/\/8="}}"#),
            with(|request| request.data = Bytes::from_static(&[255, 255])),
        ),
        (format!(r#"{{{good},"data":"CgJ1MR=="}}"#), with(|_| {})), // spare bits
        (format!(r#"{{{good},"data":null}}"#), with(|request| request.data = Bytes::new())), // a slice becomes nil
        (
            format!(r#"{{"reqIdentifier":7,"sendID":"x",{good},"sendID":null,"reqIdentifier":null}}"#),
            with(|_| {}),
        ),
        (format!(r#"{{{good},"msgIncr":"\ud800"}}"#), with(|request| request.msg_incr = "\u{fffd}".into())),
        (format!(r#"{{{good},"sendID":"\u00fc"}}"#), with(|request| request.send_id = "ü".into())),
        ("null".into(), Ok(Request::default())),
        ("{}".into(), Ok(Request::default())),
    ] {
        assert_eq!(json(&text), expected, "{text}");
    }
    let invalid = [&b"{\"sendID\":\"\xff\"}"[..]].concat();
    let request = Codec::default().decode(JSON, &invalid, 0).unwrap();
    assert_eq!(&*request.send_id, "\u{fffd}");
}

#[test]
fn json_that_go_refuses_is_a_fault() {
    for text in [
        "",
        "[]",
        "1",
        "{",
        "{} {}",
        "{}x",
        r#"{"reqIdentifier":1001.0}"#,
        r#"{"reqIdentifier":1e3}"#,
        r#"{"reqIdentifier":"1001"}"#,
        r#"{"reqIdentifier":2147483648}"#,
        r#"{"sendID":1}"#,
        r#"{"token":true}"#,
        r#"{"data":"CgJ1MQ"}"#,
        r#"{"data":"-_8="}"#,
        r#"{"data":"C gJ"}"#,
        r#"{"data":[256]}"#,
        r#"{"data":[-1]}"#,
        r#"{"data":[1.0]}"#,
        r#"{"data":{}}"#,
        r#"{"sendID":"a}"#,
    ] {
        assert_eq!(json(text), Err(EnvelopeFault::Json), "{text}");
    }
}

#[test]
fn deep_json_does_not_use_the_stack() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let bomb = format!(r#"{{"x":{}1{},"sendID":"u"}}"#, open.repeat(100_000), close.repeat(100_000));
        assert_eq!(json(&bomb).map(|request| request.send_id), Ok("u".into()));
        assert_eq!(json(&open.repeat(100_000)), Err(EnvelopeFault::Json));
    }
}

#[test]
fn what_was_negotiated_is_needed() {
    let mut codec = Codec::default();
    for written in Variant::all() {
        let message = codec.encode_request(written, &sample());
        for read in Variant::all() {
            let outcome = codec.decode(read, &message, 10_000);
            assert_eq!(outcome.is_ok(), read == written, "{written:?} read as {read:?}");
        }
    }
}

#[test]
fn a_bomb_is_stopped_and_nothing_large_is_kept() {
    // Spec trap 8: our own cap after inflating.
    let mut codec = Codec::default();
    let bomb = Request { data: vec![0; 300_000].into(), ..sample() };
    for encoding in [Encoding::Gob, Encoding::Json] {
        let variant = Variant { encoding, gzip: true };
        let message = codec.encode_request(variant, &bomb);
        assert!(message.len() < 51_200);
        assert_eq!(codec.decode(variant, &message, 200_000), Err(EnvelopeFault::InflatedTooBig));
        assert_eq!(codec.decode(variant, &message, 500_000).as_ref(), Ok(&bomb));
        assert!(codec.plain.capacity().max(codec.packed.capacity()) <= limits::CODEC_SCRATCH_BYTES);
    }
}

#[test]
fn frames_are_one_unfragmented_binary_frame() {
    // Spec trap 3: JSON travels in binary frames.
    let mut codec = Codec::default();
    let response = Response { id: 2001, data: Some(&[7; 70_000]), ..Response::default() };
    for variant in Variant::all() {
        assert_eq!(codec.encode(variant, &response).bytes()[0], 0x82);
    }
    assert_eq!(Codec::encode_text("{}").bytes(), [0x81, 2, b'{', b'}']);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9_]{0,20}", any::<String>()]
}

prop_compose! {
    fn any_request()(
        id in any::<i32>(),
        texts in [any_text(), any_text(), any_text()],
        data in prop::collection::vec(any::<u8>(), 0..600),
    ) -> Request {
        let [send_id, operation_id, msg_incr] = texts.map(Box::from);
        Request { id, send_id, operation_id, msg_incr, data: data.into() }
    }
}

proptest! {
    #[test]
    fn requests_survive_every_variant(request in any_request()) {
        let mut codec = Codec::default();
        for variant in Variant::all() {
            let message = codec.encode_request(variant, &request);
            let got = codec.decode(variant, &message, 10_000);
            prop_assert_eq!(got.as_ref(), Ok(&request));
        }
    }

    #[test]
    fn responses_survive_every_variant(request in any_request(), err_code in any::<i32>(), nil in any::<bool>()) {
        let mut codec = Codec::default();
        let response = Response {
            id: request.id,
            msg_incr: &request.msg_incr,
            operation_id: &request.operation_id,
            err_code,
            err_msg: &request.send_id,
            data: (!nil).then_some(&request.data[..]),
        };
        for variant in Variant::all() {
            let frame = codec.encode(variant, &response);
            let head = if frame.bytes()[1] < 126 { 2 } else { 4 };
            let got = codec.decode_response(variant, &frame.bytes()[head..]).unwrap();
            // Gob has no difference between nil and empty.
            let lossy = variant.encoding == Encoding::Gob && request.data.is_empty();
            let data = response.data.filter(|_| !lossy);
            prop_assert_eq!(got.data.as_deref(), data);
            prop_assert_eq!((got.id, got.err_code), (response.id, err_code));
            prop_assert_eq!(
                (&*got.msg_incr, &*got.operation_id, &*got.err_msg),
                (response.msg_incr, response.operation_id, response.err_msg)
            );
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut codec = Codec::default();
        for variant in Variant::all() {
            drop(codec.decode(variant, &bytes, 10_000));
            drop(codec.decode_response(variant, &bytes));
        }
    }

    #[test]
    fn damaged_requests_never_panic(
        request in any_request(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut codec = Codec::default();
        for variant in Variant::all() {
            let mut message = codec.encode_request(variant, &request);
            for (at, byte) in &damage {
                let at = at.index(message.len());
                message[at] = *byte;
            }
            if let Ok(got) = codec.decode(variant, &message, 10_000) {
                prop_assert!(got.data.len() <= 10_000);
            }
        }
    }
}

//! Vectors of spec A.1, and each row of the decoder table in spec 2.2.

use bytes::Bytes;

use super::super::OwnedResponse;
use super::super::parts::Structure;
use super::*;
use crate::limits;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

const RESP_65: &str = "60ff81030101045265737001ff82000106010d5265714964656e74696669657201040001074d7367496e6372010c0001\
    0b4f7065726174696f6e4944010c000107457272436f646501040001064572724d7367010c00010444617461010a000000";
const RESP_64: &str = "5f7f030101045265737001ff80000106010d5265714964656e74696669657201040001074d7367496e6372010c00010b\
    4f7065726174696f6e4944010c000107457272436f646501040001064572724d7367010c00010444617461010a000000";
const REQ_64: &str = "657f0301010c47656e6572616c577352657101ff80000106010d5265714964656e746966696572010400010554\
    6f6b656e010c00010653656e644944010c00010b4f7065726174696f6e4944010c0001074d7367496e6372010c00\
    010444617461010a000000";
const REQ_65: &str = "66ff810301010c47656e6572616c577352657101ff82000106010d5265714964656e74696669657201040001\
    05546f6b656e010c00010653656e644944010c00010b4f7065726174696f6e4944010c0001074d7367496e6372010c00\
    010444617461010a000000";
const REQUEST_VALUE: &str = "1bff8201fe07d20202753101026f70010475315f3101040a02753100";

fn sample() -> Request {
    Request {
        id: 1001,
        send_id: "u1".into(),
        operation_id: "op".into(),
        msg_incr: "u1_1".into(),
        data: Bytes::from_static(b"\x0a\x02u1"),
    }
}

fn read(bytes: &[u8]) -> Result<Request, ()> {
    decode(&mut Types::default(), bytes, &Request::FIELDS).map(Request::from_parts).map_err(drop)
}

/// Spec A.1: a reply and its value message with type id 65.
fn response_vectors() -> [(Response<'static>, String); 6] {
    let zero = Response::default();
    let (op, id) = ("op", 1001);
    [
        (
            Response { id, msg_incr: "u1_1", operation_id: op, data: Some(b"\x0a\x01"), ..zero },
            "15ff8201fe07d2010475315f3101026f7003020a0100".into(),
        ),
        (Response { id: 2002, ..zero }, "07ff8201fe0fa400".into()),
        (
            Response {
                id: 1003,
                msg_incr: "m",
                operation_id: op,
                err_code: 1001,
                err_msg: "ArgsError",
                data: None,
            },
            "1dff8201fe07d601016d01026f7001fe07d20109417267734572726f7200".into(),
        ),
        (Response { id: -5, err_code: -2, ..zero }, "07ff820109030300".into()),
        (zero, "03ff8200".into()),
        (
            Response { id: 2001, data: Some(&[0xab; 300]), ..zero },
            format!("fe0137ff8201fe0fa205fe012c{}00", "ab".repeat(300)),
        ),
    ]
}

#[test]
fn the_reply_vectors_of_the_spec_are_written_and_read_byte_for_byte() {
    for (response, value) in response_vectors() {
        let mut out = Vec::new();
        encode_response(&mut out, &response);
        assert_eq!(out, hex(&format!("{RESP_65}{value}")), "{response:?}");
        // With type id 64, as newer Go writes it, the same is read.
        let newer = hex(&format!("{RESP_64}{}", value.replacen("ff82", "ff80", 1)));
        for frame in [out, newer] {
            let parts = decode(&mut Types::default(), &frame, &OwnedResponse::FIELDS).unwrap();
            let got = OwnedResponse::from_parts(parts);
            assert_eq!((got.id, got.err_code), (response.id, response.err_code));
            assert_eq!(
                (&*got.msg_incr, &*got.operation_id, &*got.err_msg),
                (response.msg_incr, response.operation_id, response.err_msg)
            );
            assert_eq!(got.data.unwrap_or_default(), response.data.unwrap_or_default());
        }
    }
}

#[test]
fn the_request_vectors_of_the_spec_are_written_and_read_byte_for_byte() {
    let mut out = Vec::new();
    encode_request(&mut out, &sample());
    assert_eq!(out, hex(&format!("{REQ_65}{REQUEST_VALUE}")));
    assert_eq!(read(&out), Ok(sample()));
    let newer = hex(&format!("{REQ_64}{}", REQUEST_VALUE.replacen("ff82", "ff80", 1)));
    assert_eq!(read(&newer), Ok(sample()));
}

#[test]
fn numbers_have_gos_form() {
    for (value, bytes) in [
        (0, "00"),
        (127, "7f"),
        (128, "ff80"),
        (255, "ffff"),
        (256, "fe0100"),
        (300, "fe012c"),
        (1001, "fe03e9"),
        (u64::MAX, "f8ffffffffffffffff"),
    ] {
        let mut out = Vec::new();
        put_uint(&mut out, value);
        assert_eq!(out, hex(bytes), "{value}");
        assert_eq!(decode::Reader(&out).uint(), Ok(value));
    }
    for bytes in ["", "ff", "fe01", "f8ffffffffffffff", "f700000000000000000001", "80"] {
        assert!(decode::Reader(&hex(bytes)).uint().is_err(), "{bytes}");
    }
    for (value, bytes) in [(0, "00"), (-1, "01"), (1, "02"), (-5, "09"), (i64::MIN, "f8ffffffffffffffff")] {
        assert_eq!(decode::Reader(&hex(bytes)).int(), Ok(value));
    }
}

/// Writes gob piece by piece, as a strange but valid encoder might.
#[derive(Clone, Default)]
struct Gob(Vec<u8>);

impl Gob {
    fn uint(mut self, value: u64) -> Self {
        put_uint(&mut self.0, value);
        self
    }

    fn int(self, value: i64) -> Self {
        self.uint(((value << 1) ^ (value >> 63)).cast_unsigned())
    }

    fn text(mut self, text: &str) -> Self {
        self = self.uint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn then(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// A message whose length is set again after bytes were added. (Below 128 bytes: the length is one byte.)
    fn resized(mut self) -> Self {
        self.0[0] = u8::try_from(self.0.len() - 1).unwrap();
        self
    }

    /// As one message, with its length.
    fn message(self) -> Self {
        Self::default().uint(self.0.len() as u64).then(&self)
    }
}

fn gob() -> Gob {
    Gob::default()
}

/// A struct's definition message.
fn define(id: i64, fields: &[(&str, i64)]) -> Gob {
    // StructT { CommonType { Name, Id }, Field: [{ Name, Id }] }
    let mut definition = gob().int(-id).uint(3).uint(1).uint(1).text("T").uint(1).int(id).uint(0);
    definition = definition.uint(1).uint(fields.len() as u64);
    for (name, type_id) in fields {
        definition = definition.uint(1).text(name).uint(1).int(*type_id).uint(0);
    }
    definition.uint(0).uint(0).message()
}

/// A definition of another kind: `kind` is its field in `wireType`, `numbers` its element, length or key.
fn define_other(id: i64, kind: u64, numbers: &[i64]) -> Gob {
    let mut definition = gob().int(-id).uint(kind).uint(1).uint(2).int(id).uint(0);
    for number in numbers {
        definition = definition.uint(1).int(*number);
    }
    definition.uint(0).uint(0).message()
}

#[test]
fn fields_may_come_in_any_order_with_any_id() {
    // Spec trap 6: ids differ; read them, do not match patterns.
    let frame = define(999, &[("Data", 5), ("SendID", 6), ("ReqIdentifier", 2)])
        .then(&gob().int(999).uint(1).text("d").uint(1).text("u").uint(1).int(-7).uint(0).message());
    let request = read(&frame.0).unwrap();
    assert_eq!((request.id, &*request.send_id, &request.data[..]), (-7, "u", &b"d"[..]));
    // A second stream behind is ignored, and so is rubbish.
    assert_eq!(read(&frame.clone().then(&frame).0), Ok(request.clone()));
    assert_eq!(read(&frame.then(&gob().text("xx")).0), Ok(request));
}

#[test]
fn unknown_fields_of_every_type_are_skipped() {
    // Spec trap 6: also composite ones.
    let types = define(70, &[("A", 1), ("B", 70)]) // contains itself
        .then(&define_other(71, 2, &[70])) // slice of it
        .then(&define_other(72, 1, &[4, 2])) // array of 2 floats
        .then(&define_other(73, 4, &[6, 71])) // map from string to that slice
        .then(&define_other(74, 5, &[])); // encodes itself
    let nested = gob().uint(1).uint(1).uint(1).uint(1).uint(1).uint(0).uint(0); // {A: true, B: {A: true}}
    let interface = gob()
        .text("main.X")
        .then(&define(75, &[("Z", 2)]).0.split_first().map(|(_, rest)| Gob(rest.to_vec())).unwrap())
        .uint(4)
        .int(75)
        .uint(3)
        .then(&Gob(vec![1, 2, 0]));
    let values = [
        (1, gob().uint(1)),
        (2, gob().int(-300)),
        (3, gob().uint(300)),
        (4, gob().uint(0xfe_f0)),
        (5, gob().text("bytes")),
        (6, gob().text("")),
        (7, gob().uint(1).uint(2)),
        (8, gob().uint(0)), // nil
        (8, interface),
        (70, nested.clone()),
        (71, gob().uint(2).then(&nested).then(&gob().uint(0))),
        (72, gob().uint(2).uint(9).uint(300)),
        (73, gob().uint(1).text("k").uint(1).then(&nested)),
        (74, gob().text("opaque")),
    ];
    for (type_id, value) in values {
        let frame = types
            .clone()
            .then(&define(65, &[("ErrCode", 2), ("X", type_id), ("SendID", 6)]))
            .then(&gob().int(65).uint(1).int(1).uint(1).then(&value).uint(1).text("u").uint(0).message());
        let send_id = read(&frame.0).map(|request| request.send_id);
        assert_eq!(send_id, Ok("u".into()), "type {type_id}: {}", frame.0.escape_ascii());
    }
}

#[test]
fn definitions_that_go_refuses_are_refused() {
    let value = gob().int(65).uint(0).message();
    let good = define(65, &[("ReqIdentifier", 2), ("SendID", 6)]);
    assert!(read(&good.clone().then(&value).0).is_ok());
    for (why, definitions) in [
        ("none", gob()),
        ("the same id twice", good.clone().then(&good)),
        ("no field known", define(65, &[("Foo", 2)])),
        ("bytes for string", define(65, &[("SendID", 5)])),
        ("uint for int", define(65, &[("ReqIdentifier", 3)])),
        ("unknown type of a field that is not sent", define(65, &[("SendID", 6), ("X", 99)])),
        ("field without name", define(65, &[("SendID", 6), ("", 6)])),
        ("a slice", define_other(65, 2, &[6])),
        ("something behind it", Gob([&good.0[..], &[0]].concat()).resized()),
    ] {
        assert_eq!(read(&definitions.then(&value).0), Err(()), "{why}");
    }
    let own = define(20, &[("SendID", 6)]).then(&gob().int(20).uint(0).message());
    assert_eq!(read(&own.0), Err(()), "an id of Go's own");
}

#[test]
fn values_that_go_refuses_are_refused() {
    let good = define(65, &[("ReqIdentifier", 2), ("SendID", 6)]);
    let value = || gob().int(65);
    for (why, message) in [
        ("nothing", gob()),
        ("empty message", gob().message()),
        ("a basic type", gob().int(2).uint(2).message()),
        ("id 0", gob().int(0).uint(0).message()),
        ("above int32", value().uint(1).int(1 << 31).uint(0).message()),
        ("below int32", value().uint(1).int(-(1 << 31) - 1).uint(0).message()),
        ("field out of range", value().uint(3).int(1).uint(0).message()),
        ("delta overflow", value().uint(1).int(1).uint(u64::MAX).uint(0).message()),
        ("no end mark", value().uint(1).int(1).message()),
        ("string longer than the message", value().uint(2).uint(9).message()),
        ("message longer than the frame", gob().uint(99).then(&value()).uint(0)),
        ("huge length", gob().uint(u64::MAX)),
    ] {
        assert_eq!(read(&good.clone().then(&message).0), Err(()), "{why}");
    }
    let whole = good.then(&value().uint(1).int(1).uint(1).text("u").uint(0).message());
    assert!(read(&whole.0).is_ok());
    for cut in 0..whole.0.len() {
        assert_eq!(read(&whole.0[..cut]), Err(()), "cut {cut}");
    }
}

#[test]
fn a_struct_without_fields_is_zero() {
    let frame = define(65, &[]).then(&gob().int(65).uint(0).message());
    assert_eq!(read(&frame.0), Ok(Request::default()));
}

#[test]
fn work_and_depth_are_bounded() {
    let value = gob().int(65).uint(0).message();
    let many = |count: i64| (0..count).fold(gob(), |all, n| all.then(&define_other(100 + n, 2, &[6])));
    let own = define(65, &[("SendID", 6)]);
    let max = i64::try_from(limits::GOB_TYPES_MAX).unwrap();
    assert!(read(&many(max - 1).then(&own).then(&value).0).is_ok());
    assert_eq!(read(&many(max).then(&own).then(&value).0), Err(()));

    let wide = |count: usize| define(65, &vec![("SendID", 6); count]);
    assert!(read(&wide(limits::GOB_FIELDS_MAX).then(&value).0).is_ok());
    assert_eq!(read(&wide(limits::GOB_FIELDS_MAX + 1).then(&value).0), Err(()));

    let nested = |depth: usize| {
        let list = (0..depth).fold(gob(), |list, _| list.uint(1));
        define_other(70, 2, &[70])
            .then(&define(65, &[("SendID", 6), ("X", 70)]))
            .then(&gob().int(65).uint(2).then(&list).uint(0).uint(0).message())
    };
    assert!(read(&nested(limits::GOB_DEPTH_MAX - 1).0).is_ok());
    assert_eq!(read(&nested(limits::GOB_DEPTH_MAX).0), Err(()));
    assert_eq!(read(&nested(40_000).0), Err(()));
}

#[test]
fn remembered_definitions_change_nothing() {
    let request = |definitions: &str| hex(&[definitions, REQUEST_VALUE].concat());
    let other = |more: usize| {
        let more = (0..more).fold(Gob(Vec::new()), |gob, n| {
            gob.then(&define_other(100 + i64::try_from(n).unwrap(), 2, &[INT]))
        });
        let frame = more
            .then(&define(70, &[("SendID", STRING)]))
            .then(&gob().int(70).uint(1).text("u9").uint(0).message());
        frame.0
    };
    let mut cut = request(REQ_65);
    cut.truncate(80);
    let frames = [
        request(REQ_65),
        // The same id again, after what is remembered: refused.
        hex(&[REQ_65, REQ_65, REQUEST_VALUE].concat()),
        // A value without a definition: what was remembered is no definition of this frame.
        hex(REQUEST_VALUE),
        request(&REQ_64.replace("ff80", "ff82").replacen("657f", "66ff81", 1)),
        other(0),
        other(3),
        other(limits::GOB_TYPES_MAX - 1), // too long to be remembered
        other(limits::GOB_TYPES_MAX),     // one type too many
        cut,
    ];
    let mut results = std::collections::BTreeSet::new();
    for first in &frames {
        for second in &frames {
            let mut types = Types::default();
            for frame in [first, second, first, second, second] {
                let reused =
                    decode(&mut types, frame, &Request::FIELDS).map(Request::from_parts).map_err(drop);
                assert_eq!(reused, read(frame));
                results.insert(reused.map(|request| request.send_id.to_string()));
            }
        }
    }
    let expected = [Ok("u1"), Ok("u9"), Err(())].map(|result| result.map(str::to_owned));
    assert_eq!(results, expected.into(), "all kinds were seen");
}

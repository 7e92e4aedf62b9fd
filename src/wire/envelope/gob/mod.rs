//! Envelopes as Go's gob (spec 2.2): one type definition and one value per frame, nothing kept between frames.
//!
//! Encoding writes a constant definition (type id 65) and appends the value. Decoding (`decode`, `types`) reads any
//! ids, names and extra fields, as Go does.

mod decode;
mod types;

pub(super) use decode::decode;
pub(super) use types::{BYTES, INT, STRING, Types};

use super::{Request, Response};

/// Signed 65, as it starts a value.
const VALUE_ID: [u8; 2] = [0xff, 0x82];

/// The definition of `Resp` with id 65 (spec A.1).
const RESPONSE_TYPE: &[u8] = b"\x60\xff\x81\x03\x01\x01\x04Resp\x01\xff\x82\x00\x01\x06\
    \x01\x0dReqIdentifier\x01\x04\x00\
    \x01\x07MsgIncr\x01\x0c\x00\
    \x01\x0bOperationID\x01\x0c\x00\
    \x01\x07ErrCode\x01\x04\x00\
    \x01\x06ErrMsg\x01\x0c\x00\
    \x01\x04Data\x01\x0a\x00\x00\x00";

/// The definition of `GeneralWsReq` with id 65 (spec A.1).
const REQUEST_TYPE: &[u8] = b"\x66\xff\x81\x03\x01\x01\x0cGeneralWsReq\x01\xff\x82\x00\x01\x06\
    \x01\x0dReqIdentifier\x01\x04\x00\
    \x01\x05Token\x01\x0c\x00\
    \x01\x06SendID\x01\x0c\x00\
    \x01\x0bOperationID\x01\x0c\x00\
    \x01\x07MsgIncr\x01\x0c\x00\
    \x01\x04Data\x01\x0a\x00\x00\x00";

/// Appends a reply or push.
pub(super) fn encode_response(out: &mut Vec<u8>, response: &Response<'_>) {
    out.extend_from_slice(RESPONSE_TYPE);
    let mut value = Value::start(out);
    value.int(response.id);
    value.bytes(response.msg_incr.as_bytes());
    value.bytes(response.operation_id.as_bytes());
    value.int(response.err_code);
    value.bytes(response.err_msg.as_bytes());
    value.bytes(response.data.unwrap_or_default());
    value.end();
}

/// Appends a request, as a client does.
pub(super) fn encode_request(out: &mut Vec<u8>, request: &Request) {
    out.extend_from_slice(REQUEST_TYPE);
    let mut value = Value::start(out);
    value.int(request.id);
    value.bytes(b""); // Token: clients leave it empty
    value.bytes(request.send_id.as_bytes());
    value.bytes(request.operation_id.as_bytes());
    value.bytes(request.msg_incr.as_bytes());
    value.bytes(&request.data);
    value.end();
}

/// Writes one value message. Each field is given in the order of its definition; zero values are not written.
struct Value<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Fields since the last one that was written, that one included.
    delta: u64,
}

impl<'a> Value<'a> {
    fn start(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&VALUE_ID);
        Self { out, start, delta: 1 }
    }

    fn int(&mut self, value: i32) {
        if value == 0 {
            self.delta += 1;
            return;
        }
        put_uint(self.out, std::mem::replace(&mut self.delta, 1));
        let wide = i64::from(value);
        put_uint(self.out, ((wide << 1) ^ (wide >> 63)).cast_unsigned());
    }

    fn bytes(&mut self, value: &[u8]) {
        if value.is_empty() {
            self.delta += 1;
            return;
        }
        put_uint(self.out, std::mem::replace(&mut self.delta, 1));
        put_length(self.out, value.len());
        self.out.extend_from_slice(value);
    }

    fn end(self) {
        self.out.push(0);
        let mut length = Vec::with_capacity(9);
        put_length(&mut length, self.out.len() - self.start);
        self.out.splice(self.start..self.start, length);
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_uint(out, u64::try_from(length).unwrap_or(u64::MAX)); // usize has at most 64 bits
}

fn put_uint(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let [.., lowest] = bytes;
    if value < 128 {
        out.push(lowest);
        return;
    }
    let zeros = usize::try_from(value.leading_zeros() / 8).unwrap_or(0); // at most 7
    let significant = bytes.get(zeros..).unwrap_or_default();
    let negated = u8::try_from(significant.len()).unwrap_or(8).wrapping_neg();
    out.push(negated);
    out.extend_from_slice(significant);
}

#[cfg(test)]
mod tests;

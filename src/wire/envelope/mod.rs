//! OpenIM's requests and replies (spec 2): gob or JSON, plain or gzip.

use bytes::Bytes;

use super::frame::Frame;

/// How a connection encodes its envelopes (spec 2.1, 2.4): 4 variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Variant {
    pub encoding: Encoding,
    pub gzip: bool,
}

/// `sdkType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Encoding {
    Gob,
    Json,
}

impl Variant {
    pub const COUNT: usize = 4;
    /// 0..4, for tables.
    pub fn index(self) -> usize {
        usize::from(self.encoding == Encoding::Json) * 2 + usize::from(self.gzip)
    }
}

/// A client's request (spec 2.1). `token` is ignored and not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    pub id: i32,
    pub send_id: Box<str>,
    pub operation_id: Box<str>,
    pub msg_incr: Box<str>,
    pub data: Bytes,
}

/// A reply or a push (spec 2.1). `data`: `None` = nil (JSON `null`), `Some(b"")` = empty (JSON `""`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response<'a> {
    pub id: i32,
    pub msg_incr: &'a str,
    pub operation_id: &'a str,
    pub err_code: i32,
    pub err_msg: &'a str,
    pub data: Option<&'a [u8]>,
}

/// Why a frame is no request. The connection closes without an answer (spec 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeFault {
    Gzip,
    InflatedTooBig,
    Gob,
    Json,
}

/// Encoder and decoder with their reused buffers and compressor; one per thread.
#[derive(Debug, Default)]
pub struct Codec {}

impl Codec {
    /// Decodes one binary message. `inflated_bytes_max` bounds what gzip may expand to.
    pub fn decode(
        &mut self,
        variant: Variant,
        message: &[u8],
        inflated_bytes_max: usize,
    ) -> Result<Request, EnvelopeFault> {
        let _ = (variant, message, inflated_bytes_max);
        todo!()
    }
    /// Encodes one binary WebSocket frame.
    pub fn encode(&mut self, variant: Variant, response: &Response<'_>) -> Frame {
        let _ = (variant, response);
        todo!()
    }
    /// Client side (tests, `pinion listen`): encodes a request's payload (no frame header).
    pub fn encode_request(&mut self, variant: Variant, request: &Request) -> Vec<u8> {
        let _ = (variant, request);
        todo!()
    }
    /// Client side: decodes a reply or push. (Owned.)
    pub fn decode_response(
        &mut self,
        variant: Variant,
        message: &[u8],
    ) -> Result<OwnedResponse, EnvelopeFault> {
        let _ = (variant, message);
        todo!()
    }
}

/// [`Response`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedResponse {
    pub id: i32,
    pub msg_incr: String,
    pub operation_id: String,
    pub err_code: i32,
    pub err_msg: String,
    pub data: Option<Bytes>,
}

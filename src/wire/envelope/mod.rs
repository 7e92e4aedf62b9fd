//! OpenIM's requests and replies (spec 2): gob or JSON, plain or gzip.
//!
//! Every frame stands for itself: nothing of one is needed for the next. What is kept between calls is only room
//! (buffers, compressor states), so that a codec gives the same bytes whatever it did before.
//!
//! Not here: frames and their limits (`frame`, `message`), what a request means (`hub`).

mod gob;
mod gzip;
mod json;
mod parts;

use bytes::Bytes;

use super::frame::{Frame, Opcode};
use crate::limits;
use parts::Structure;

/// How a connection encodes its envelopes (spec 2.1, 2.4): 4 variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Variant {
    /// From `sdkType`.
    pub encoding: Encoding,
    /// From `compression`: every binary frame, both ways.
    pub gzip: bool,
}

/// `sdkType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Encoding {
    /// Empty or `go`.
    Gob,
    /// `js`.
    Json,
}

impl Variant {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// 0..4, for tables.
    pub fn index(self) -> usize {
        usize::from(self.encoding == Encoding::Json) * 2 + usize::from(self.gzip)
    }

    /// All four, in the order of [`Self::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        [Encoding::Gob, Encoding::Json]
            .into_iter()
            .flat_map(|encoding| [false, true].map(|gzip| Self { encoding, gzip }))
    }
}

/// A client's request (spec 2.1). `token` is ignored and not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// `reqIdentifier` (spec 3.1).
    pub id: i32,
    /// `sendID`: must be the user of the connection.
    pub send_id: Box<str>,
    /// `operationID`: trace id, echoed.
    pub operation_id: Box<str>,
    /// `msgIncr`: what the client matches the reply by, echoed.
    pub msg_incr: Box<str>,
    /// Protobuf, by `id`.
    pub data: Bytes,
}

/// A reply or a push (spec 2.1). `data`: `None` = nil (JSON `null`), `Some(b"")` = empty (JSON `""`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response<'a> {
    /// `reqIdentifier`. Never one that the SDKs do not know (spec trap 5).
    pub id: i32,
    /// `msgIncr` of the request; empty for a push.
    pub msg_incr: &'a str,
    /// `operationID` of the request or push.
    pub operation_id: &'a str,
    /// 0: success.
    pub err_code: i32,
    /// Empty on success.
    pub err_msg: &'a str,
    /// Protobuf, by `id`.
    pub data: Option<&'a [u8]>,
}

/// [`Response`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedResponse {
    /// See [`Response::id`].
    pub id: i32,
    /// See [`Response::msg_incr`].
    pub msg_incr: String,
    /// See [`Response::operation_id`].
    pub operation_id: String,
    /// See [`Response::err_code`].
    pub err_code: i32,
    /// See [`Response::err_msg`].
    pub err_msg: String,
    /// See [`Response::data`]. Gob cannot tell empty from nil: both are `None`.
    pub data: Option<Bytes>,
}

/// Why a frame is no request. The connection closes without an answer (spec 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeFault {
    /// Not gzip, though it was negotiated; or cut, or with something behind it.
    Gzip,
    /// Above the limit after gunzip.
    InflatedTooBig,
    /// Not what Go would decode.
    Gob,
    /// Not what Go would decode.
    Json,
}

/// Encoder and decoder with their reused buffers and compressor; one per thread.
#[derive(Debug, Default)]
pub struct Codec {
    /// An envelope before or after compression. Empty between calls.
    plain: Vec<u8>,
    /// An envelope after compression. Empty between calls.
    packed: Vec<u8>,
    gzip: gzip::Gzip,
    /// What gzip gave for the last message that was decoded, to the end or not.
    inflated_bytes: usize,
    types: gob::Types,
}

impl Codec {
    /// Decodes one binary message. `inflated_bytes_max` bounds what gzip may expand to.
    ///
    /// # Errors
    /// See [`EnvelopeFault`].
    pub fn decode(
        &mut self,
        variant: Variant,
        message: &[u8],
        inflated_bytes_max: usize,
    ) -> Result<Request, EnvelopeFault> {
        self.decode_as(variant, message, inflated_bytes_max)
    }

    /// What gzip gave for the last message that was decoded, even if it turned out to be bad; 0 without gzip. Asked
    /// once for each message: the answer is taken.
    pub fn inflated_bytes(&mut self) -> usize {
        std::mem::take(&mut self.inflated_bytes)
    }

    /// Encodes one binary WebSocket frame.
    pub fn encode(&mut self, variant: Variant, response: &Response<'_>) -> Frame {
        self.encode_with(
            variant,
            |out| gob::encode_response(out, response),
            |out| json::encode_response(out, response),
            |payload| Frame::new(Opcode::Binary, payload),
        )
    }

    /// As [`Codec::encode`], for other threads: the bytes of a [`Frame::shared`].
    pub fn encode_shared(&mut self, variant: Variant, response: &Response<'_>) -> Bytes {
        self.encode_with(
            variant,
            |out| gob::encode_response(out, response),
            |out| json::encode_response(out, response),
            |payload| Frame::to_shared(Opcode::Binary, payload),
        )
    }

    /// A text frame: the only ones are the outcome of a login (spec 1.4) and JSON pongs (spec 1.6).
    pub fn encode_text(json: &str) -> Frame {
        Frame::new(Opcode::Text, json.as_bytes())
    }

    /// Client side (tests, `pinion listen`): encodes a request's payload (no frame header).
    pub fn encode_request(&mut self, variant: Variant, request: &Request) -> Vec<u8> {
        self.encode_with(
            variant,
            |out| gob::encode_request(out, request),
            |out| json::encode_request(out, request),
            <[u8]>::to_vec,
        )
    }

    /// Client side: decodes a reply or push. (Owned.)
    ///
    /// # Errors
    /// See [`EnvelopeFault`]; too big is what is above [`limits::CLIENT_INFLATED_BYTES_MAX`].
    pub fn decode_response(
        &mut self,
        variant: Variant,
        message: &[u8],
    ) -> Result<OwnedResponse, EnvelopeFault> {
        self.decode_as(variant, message, limits::CLIENT_INFLATED_BYTES_MAX)
    }

    fn decode_as<T: Structure>(
        &mut self,
        variant: Variant,
        message: &[u8],
        inflated_bytes_max: usize,
    ) -> Result<T, EnvelopeFault> {
        let unpacked = if variant.gzip {
            self.gzip.unpack(message, inflated_bytes_max, &mut self.plain)
        } else {
            Ok(())
        };
        self.inflated_bytes = self.plain.len();
        let outcome = unpacked.and_then(|()| {
            let plain = if variant.gzip { self.plain.as_slice() } else { message };
            match variant.encoding {
                Encoding::Gob => gob::decode(&mut self.types, plain, &T::FIELDS)
                    .map(T::from_parts)
                    .map_err(|_| EnvelopeFault::Gob),
                Encoding::Json => json::decode(&String::from_utf8_lossy(plain), &T::FIELDS)
                    .map(T::from_parts)
                    .ok_or(EnvelopeFault::Json),
            }
        });
        self.empty();
        outcome
    }

    fn encode_with<T>(
        &mut self,
        variant: Variant,
        gob: impl FnOnce(&mut Vec<u8>),
        json: impl FnOnce(&mut String),
        finish: impl FnOnce(&[u8]) -> T,
    ) -> T {
        match variant.encoding {
            Encoding::Gob => gob(&mut self.plain),
            Encoding::Json => {
                // Empty between calls, and therefore UTF-8: only the room is reused.
                let mut text = String::from_utf8(std::mem::take(&mut self.plain)).unwrap_or_default();
                json(&mut text);
                self.plain = text.into_bytes();
            }
        }
        let payload = if variant.gzip {
            self.gzip.pack(&self.plain, &mut self.packed);
            &self.packed
        } else {
            &self.plain
        };
        let outcome = finish(payload);
        self.empty();
        outcome
    }

    fn empty(&mut self) {
        for buffer in [&mut self.plain, &mut self.packed] {
            buffer.clear();
            buffer.shrink_to(limits::CODEC_SCRATCH_BYTES);
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors_test;

//! Bodies of HTTP/2 streams: sending within the peer's window, collecting within ours.

use std::future::poll_fn;

use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use prost::Message;

use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use crate::wire::grpc::{Assembler, BodyFault, PREFIX_BYTES, Status, code};

/// Sends all bytes as the peer gives room. Nothing is queued beyond its window.
///
/// # Cancel safety
/// Dropped half-way, the stream is left unfinished; reset it.
pub(super) async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => {
                let chunk = bytes.split_to(room?.min(bytes.len()));
                if !chunk.is_empty() {
                    stream.send_data(chunk, false)?;
                }
            }
            None => return Err(h2::Error::from(h2::Reason::CANCEL)),
        }
    }
    Ok(())
}

/// Why a body could not be collected.
#[derive(Debug)]
pub(super) enum CollectFault {
    /// It is not one gRPC message within the limit.
    Body(BodyFault),
    /// The owner of `hold` refused to keep more.
    Held(Status),
    /// The stream or its connection ended.
    Gone(h2::Error),
}

/// Collects the one message of a body; `hold` is asked before each chunk is kept.
pub(super) async fn collect(
    body: &mut RecvStream,
    mut hold: impl FnMut(usize) -> Result<(), Status>,
) -> Result<Bytes, CollectFault> {
    let mut assembler = Assembler::new(GRPC_MESSAGE_BYTES_MAX);
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(CollectFault::Gone)?;
        body.flow_control().release_capacity(chunk.len()).map_err(CollectFault::Gone)?;
        hold(chunk.len()).map_err(CollectFault::Held)?;
        assembler.push(chunk).map_err(CollectFault::Body)?;
    }
    assembler.finish().map_err(CollectFault::Body)
}

/// Encodes an answer behind its prefix.
pub(super) fn encode(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let (true, Ok(prefix)) = (length <= GRPC_MESSAGE_BYTES_MAX, u32::try_from(length)) else {
        return Err(Status::new(
            code::RESOURCE_EXHAUSTED,
            format!("grpc: trying to send message larger than max ({length} vs. {GRPC_MESSAGE_BYTES_MAX})"),
        ));
    };
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode(&mut bytes).map_err(|error| Status::new(code::INTERNAL, error.to_string()))?;
    Ok(bytes.freeze())
}

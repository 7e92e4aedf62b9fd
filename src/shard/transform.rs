//! The seam between socket and frames: what turns bytes on the wire into bytes of frames, and back.
//!
//! Production uses [`Identity`], which costs nothing. TLS would be another implementation: a record that is not
//! complete stays inside it, so `inbound` may give fewer bytes than it took.

/// One connection's byte transform.
pub trait Transform: Default {
    /// Outbound bytes leave as they are: the engine sends the frames from where they lie and never calls
    /// [`Transform::outbound`].
    const PASSES_THROUGH: bool;

    /// Turns received bytes, in place, into bytes of frames at the front of the slice. Returns how many.
    ///
    /// # Errors
    /// The peer broke the transform's protocol; its connection is lost.
    fn inbound(&mut self, received: &mut [u8]) -> Result<usize, TransformFault>;

    /// Appends to `wire` what has to be sent for the bytes of one frame. Called once per byte, in order: what it
    /// yields must be sent or the connection closed.
    fn outbound(&mut self, frame: &[u8], wire: &mut Vec<u8>);
}

/// The peer broke the transform's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformFault;

/// Plain TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Transform for Identity {
    const PASSES_THROUGH: bool = true;

    fn inbound(&mut self, received: &mut [u8]) -> Result<usize, TransformFault> {
        Ok(received.len())
    }

    fn outbound(&mut self, frame: &[u8], wire: &mut Vec<u8>) {
        wire.extend_from_slice(frame);
    }
}

const _: () = assert!(size_of::<Identity>() == 0, "plain TCP costs no byte per connection");

//! Messages out of the bytes of a gRPC stream: each has a byte that says whether it is compressed, and its length before it
//! (Length-Prefixed-Message of gRPC over HTTP/2). One that is whole in what came is not copied.

use bytes::{Bytes, BytesMut};
use nodetap_wire::frame::MAX_MESSAGE_BYTES;
use tonic::Status;

use super::WINDOW;

/// Where a stream is. It holds what came of one message, and nothing between two.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    /// Came, and belongs to no message that is known yet.
    read: Bytes,
    prefix: [u8; PREFIX],
    /// Of the prefix.
    has: usize,
    message: Option<Message>,
    /// The first message was seen: Hello needs no place, whatever its size.
    greeted: bool,
}

/// One that is not whole.
#[derive(Debug)]
struct Message {
    length: usize,
    came: BytesMut,
    is_large: bool,
}

/// Whether it is compressed, and the length.
const PREFIX: usize = 5;

// === impl Deframer ===

impl Deframer {
    /// Only once there is no next message.
    pub(super) fn push(&mut self, data: Bytes) {
        self.read = match self.read.is_empty() {
            true => data,
            false => [std::mem::take(&mut self.read), data].concat().into(),
        };
    }

    /// Whether more is needed of a message that is larger than a window.
    pub(super) fn is_large(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.is_large)
    }

    /// Whether it is between two messages.
    pub(super) fn is_empty(&self) -> bool {
        self.read.is_empty() && self.has == 0 && self.message.is_none()
    }

    /// The next whole message, without its prefix.
    ///
    /// # Errors
    /// It is compressed, or larger than any may be.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let mut message = match self.message.take() {
            Some(message) => message,
            None => match self.begin()? {
                None => return Ok(None),
                Some(length) if length <= self.read.len() => {
                    self.greeted = true;
                    return Ok(Some(self.take(length)));
                }
                Some(length) => {
                    let is_large = length > WINDOW as usize && self.greeted;
                    Message { length, came: BytesMut::new(), is_large }
                }
            },
        };
        let part = self.take(message.length - message.came.len());
        message.came.extend_from_slice(&part);
        if message.came.len() < message.length {
            self.message = Some(message);
            return Ok(None);
        }
        self.greeted = true;
        Ok(Some(message.came.freeze()))
    }

    /// The length of the message that begins, once its prefix is whole.
    fn begin(&mut self) -> Result<Option<usize>, Status> {
        let part = self.take(PREFIX - self.has);
        self.prefix.iter_mut().skip(self.has).zip(&part).for_each(|(byte, new)| *byte = *new);
        self.has += part.len();
        if self.has < PREFIX {
            return Ok(None);
        }
        self.has = 0;
        let [compressed, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 {
            return Err(Status::unimplemented("a compressed message: batches are compressed already"));
        }
        if length > MAX_MESSAGE_BYTES {
            let said = format!("a message of {length} bytes, where at most {MAX_MESSAGE_BYTES} are taken");
            return Err(Status::out_of_range(said));
        }
        Ok(Some(length))
    }

    /// So much of what came, or all.
    fn take(&mut self, length: usize) -> Bytes {
        let taken = self.read.split_to(length.min(self.read.len()));
        if self.read.is_empty() {
            // What is taken may be kept for long, and what is empty holds on to it.
            self.read = Bytes::new();
        }
        taken
    }
}

#[cfg(test)]
mod tests;

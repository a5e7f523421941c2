//! What an agent sends: its messages, one after the other, no more of them than there is room for.
//!
//! Thousands of agents that were away have much to tell at once, and HTTP/2 by itself lets each fill its window here. So windows
//! are small, and a message that is larger is read on only by a stream that has one of a few places, which it keeps until what the
//! message carries is unpacked. What is here of messages that cannot be taken yet is so bounded by places and windows, whatever
//! agents have to tell; the rest stays with them. Small messages pass, so that who is well goes on being heard. Between messages
//! a stream holds nothing, where tonic's own reader keeps room for the largest that it ever saw.

mod deframer;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use nodetap_wire::FromAgent;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;
use tonic::Status;
use tonic::codegen::StdError;

use self::deframer::Deframer;
use super::metrics::{Metrics, Waits};

/// What an agent may have on its way before it is read, in bytes. A stream holds twice as much of a message that waits for a place.
pub(super) const WINDOW: u32 = 8 << 10;

/// The same for as many as have a place for it: each window takes two wake-ups and two messages on both sides, and a common batch
/// has twelve of the small ones. With them 8 MiB for all, twice that where each had all the streams that it may.
pub(super) const ROOMY_WINDOW: u32 = 64 << 10;

/// Connections with a roomy window: those that come while there are fewer.
pub(super) const ROOMY: usize = 64;

/// Messages larger than a window that are read, or wait for room to be unpacked, at once. Common ones have a tenth of a megabyte;
/// of the largest, only four are unpacked at once in any case.
const PLACES: usize = 32;

/// For the next part of a message that has a place: nobody keeps one by saying half a message.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Semaphore>);

/// The messages of one stream.
#[derive(Debug)]
pub(super) struct Incoming<B> {
    body: B,
    deframer: Deframer,
    places: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
    /// While it waits for a place.
    waits: Option<Waits>,
    /// While the rest of a message that has a place does not come.
    overdue: Option<Pin<Box<Sleep>>>,
    metrics: Metrics,
}

// === impl Places ===

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

// === impl Incoming ===

impl<B> Incoming<B> {
    pub(super) fn new(body: B, places: &Places, metrics: Metrics) -> Self {
        Self {
            body,
            deframer: Deframer::default(),
            places: PollSemaphore::new(places.0.clone()),
            place: None,
            waits: None,
            overdue: None,
            metrics,
        }
    }

    /// Leaves the place: what was read is unpacked, or was no batch.
    pub(super) fn leave(&mut self) {
        self.place = None;
    }

    /// Whether a message that has a place goes on for too long without a word.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.place.is_none() {
            return Poll::Pending;
        }
        loop {
            let overdue = self.overdue.get_or_insert_with(|| Box::pin(tokio::time::sleep(PART_TIMEOUT)));
            ready!(overdue.as_mut().poll(context));
            // Who was not looked at for so long is not to blame: its window may have been full.
            if overdue.deadline() + PART_TIMEOUT / 10 > Instant::now() {
                return Poll::Ready(());
            }
            self.overdue = None;
        }
    }
}

impl<B> Incoming<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    /// The next message; `None` where the agent ended the stream. May be dropped and called again.
    ///
    /// # Errors
    /// What came is no message, or the stream broke: nothing more comes of it.
    pub(super) async fn message(&mut self) -> Result<Option<FromAgent>, Status> {
        poll_fn(|context| self.poll_message(context)).await
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<FromAgent>, Status>> {
        loop {
            if let Some(message) = self.deframer.next()? {
                let decoded = FromAgent::decode(message);
                let decoded = decoded.map_err(|error| Status::internal(format!("not a message: {error}")));
                return Poll::Ready(decoded.map(Some));
            }
            if self.deframer.is_large() && self.place.is_none() {
                self.waits.get_or_insert_with(|| self.metrics.wait());
                // Nobody closes the semaphore.
                self.place = ready!(self.places.poll_acquire(context));
                self.waits = None;
            }
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.poll_overdue(context));
                    let seconds = PART_TIMEOUT.as_secs();
                    let said = format!("the rest of a message did not come within {seconds} s");
                    return Poll::Ready(Err(Status::deadline_exceeded(said)));
                }
            };
            self.overdue = None;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.deframer.push(data),
                // Trailers, which no agent sends.
                Some(Ok(Err(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(Status::from_error(error.into()))),
                None if self.deframer.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Status::cancelled("the stream ended within a message"))),
            }
        }
    }
}

#[cfg(test)]
mod tests;

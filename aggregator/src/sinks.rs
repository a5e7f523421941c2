//! Where records go: one delivery loop for all, and a module a sink.
//!
//! A sink is told to deliver a batch and says of each record whether it was delivered, refused for good, or is to be tried
//! again. Cursor, batching, back-off, dead letters and metrics are the loop's ([`delivery`]), the same for every sink.
//! Delivery is at least once, in the journal's order; a record's [`id`](Delivery::id) is the same however often it is sent.

use std::future::Future;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use nodetap_wire::SharedStr;

use crate::config::receivers::{Receiver, ReceiverBody};
use crate::journal::Position;

pub mod account;
pub mod chunk;
pub mod delivery;
pub mod dispatch;
pub mod encode;
pub mod file;
pub mod http;
pub mod lines;
pub mod loki;
pub mod metrics;
pub mod run;
pub mod stdout;
pub mod webhook;

pub use self::metrics::Metrics;
pub use self::run::{Built, Context, Orders, STOP_WITHIN, Task, spawn_all, warn_of_strangers};
pub use crate::config::receivers::Order;

/// One record on its way to one sink, rendered once however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the journal.
    pub position: Position,
    /// The record's identity.
    pub id: SharedStr,
    /// Whom it is about: deliveries that share it keep their order.
    pub object: SharedStr,
    /// When it happened, in nanoseconds since 1970; when it was taken, where that is not known. Never 0.
    pub time_ns: i64,
    /// When it was journalled, in nanoseconds since 1970.
    pub taken_ns: i64,
    /// What is sent: one JSON object, without a newline.
    pub body: Bytes,
    /// Headers that go beside the body, where the sink speaks HTTP.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Labels of its stream, where the sink has streams; sorted by name.
    pub labels: Vec<(String, String)>,
}

/// What became of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it.
    Delivered,
    /// The sink will never take it; what it answered.
    Refused(String),
    /// It was not taken this time.
    Retry(Failure),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its class, as metrics count it.
    pub class: FailureClass,
    /// What happened, with what the sink answered.
    pub reason: String,
    /// How long the sink asked to be left alone.
    pub after: Option<Duration>,
}

/// Classes of failed attempts: a label's values, so there are few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No connection: refused, no route, name not known, TLS.
    Connect,
    /// Nothing, or not all, was answered in time.
    Timeout,
    /// The connection broke, or what came was no HTTP.
    Broken,
    /// It asked for less: 429.
    Throttled,
    /// It would not let us in: 401, 407.
    Unauthorized,
    /// It said that it failed: 5xx and the like.
    Unavailable,
    /// A file or pipe could not be written.
    Write,
}

/// What a sink says of a batch as it goes, so that nothing of it is forgotten when an attempt is cut short.
#[derive(Debug)]
pub struct Report {
    outcomes: Vec<Option<Outcome>>,
}

/// When a batch is sent; whatever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Deliveries in it; at least 1.
    pub records: usize,
    /// Bytes of bodies in it; one that is larger goes alone.
    pub bytes: usize,
    /// How long the first of it may wait for others.
    pub wait: Duration,
}

/// Where records are delivered to.
pub trait Sink: Send + 'static {
    /// When it wants a batch.
    fn limits(&self) -> Limits;

    /// Tries a batch, which is never empty and in order, and says in `report` what became of each, as soon as it is known.
    /// What it says nothing of was not tried. After a delivery that is to be tried again it must not deliver a later one
    /// of the same object. Ends within timeouts of its own; may be dropped at any await.
    fn deliver(&mut self, batch: &[Delivery], report: &mut Report) -> impl Future<Output = ()> + Send;
}

/// A sink of any kind.
#[derive(Debug)]
pub enum AnySink {
    /// `stdout` and `file`
    Lines(lines::LineSink),
    /// `webhook`
    Webhook(webhook::Webhook),
    /// `loki`
    Loki(loki::Loki),
}

/// Why a sink cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
#[error("receiver {name:?}: {cause}")]
pub struct SinkError {
    /// The receiver's name.
    pub name: String,
    /// What is wrong with it.
    #[source]
    pub cause: Cause,
}

/// What is wrong with a receiver.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Its TLS files or server name.
    #[error(transparent)]
    Tls(#[from] http::TlsError),
    /// Its address.
    #[error(transparent)]
    Address(#[from] http::AddressError),
    /// A stream label's name.
    #[error("labels: {0:?} is no label name: letters, digits and underscores, no digit first")]
    LabelName(String),
    /// Its thread could not be started.
    #[error("cannot start its writer's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Makes the sink of a receiver. Opens no connection and no file, so that it can be checked before anything is bound.
///
/// # Errors
/// Where its configuration names TLS files that cannot be read or hold nothing usable, or an address without a host.
pub fn build(receiver: &Receiver) -> Result<AnySink, SinkError> {
    let named = |cause: Cause| SinkError { name: receiver.name.clone(), cause };
    Ok(match &receiver.body {
        ReceiverBody::Stdout(_) => {
            AnySink::Lines(stdout::sink(&receiver.name).map_err(|error| named(error.into()))?)
        }
        ReceiverBody::File(config) => {
            AnySink::Lines(file::sink(&receiver.name, config).map_err(|error| named(error.into()))?)
        }
        ReceiverBody::Webhook(config) => {
            let order = receiver.order();
            AnySink::Webhook(webhook::Webhook::new(&receiver.name, config, order).map_err(named)?)
        }
        ReceiverBody::Loki(config) => AnySink::Loki(loki::Loki::new(&receiver.name, config).map_err(named)?),
    })
}

// === impl Delivery ===

impl Delivery {
    /// Takes memory of its own, so that it holds nothing of what was rendered beside it.
    fn detach(&mut self) {
        let Self { id, object, body, .. } = self;
        *id = SharedStr::from(&**id);
        *object = SharedStr::from(&**object);
        *body = Bytes::copy_from_slice(body);
    }
}

// === impl Report ===

impl Report {
    /// Of a batch of so many, none of them tried yet.
    pub fn new(deliveries: usize) -> Self {
        Self { outcomes: vec![None; deliveries] }
    }

    /// Says what became of the delivery at `index` of the batch.
    pub fn set(&mut self, index: usize, outcome: Outcome) {
        if let Some(slot) = self.outcomes.get_mut(index) {
            *slot = Some(outcome);
        }
    }

    /// What became of each; none: not tried.
    pub fn into_outcomes(self) -> Vec<Option<Outcome>> {
        self.outcomes
    }
}

// === impl Failure ===

impl Failure {
    /// An attempt that ended without a word on any delivery.
    pub fn interrupted() -> Self {
        Self { class: FailureClass::Timeout, reason: "the attempt was cut short".to_owned(), after: None }
    }
}

// === impl FailureClass ===

impl FailureClass {
    /// Whether a record alone may bring it about: an answer, or the want of one, but no connection, limit or full disk.
    pub fn may_be_of_the_record(self) -> bool {
        match self {
            Self::Timeout | Self::Broken | Self::Unauthorized | Self::Unavailable => true,
            Self::Connect | Self::Throttled | Self::Write => false,
        }
    }

    /// As metrics and logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::Write => "write",
        }
    }
}

// === impl AnySink ===

impl Sink for AnySink {
    fn limits(&self) -> Limits {
        match self {
            Self::Lines(sink) => sink.limits(),
            Self::Webhook(sink) => sink.limits(),
            Self::Loki(sink) => sink.limits(),
        }
    }

    async fn deliver(&mut self, batch: &[Delivery], report: &mut Report) {
        match self {
            Self::Lines(sink) => sink.deliver(batch, report).await,
            Self::Webhook(sink) => sink.deliver(batch, report).await,
            Self::Loki(sink) => sink.deliver(batch, report).await,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

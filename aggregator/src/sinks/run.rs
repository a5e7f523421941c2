//! Starts the loops of all configured sinks, each in a task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::delivery::{LIVE_AFTER, Loop};
use super::dispatch::Dispatcher;
use super::encode::Encoder;
use super::{Metrics, SinkError, build};
use crate::config::receivers::{Receiver, Start};
use crate::journal::{Journal, JournalError, Letters, Position};
use crate::route::Router;

/// How long sinks may go on delivering once the aggregator is to stop: a third of the time that Kubernetes gives a pod.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What all sinks share.
#[derive(Clone)]
pub struct Context<J> {
    /// What they read.
    pub journal: J,
    /// Which records go to which of them; made over the same receivers, in the same order.
    pub router: Arc<Router>,
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// What they count.
    pub metrics: Metrics,
    /// Ends them all: they have [`STOP_WITHIN`] for what is journalled.
    pub stop: CancellationToken,
    /// Told once nothing more will be journalled.
    pub drained: CancellationToken,
}

/// A sink's running loop.
#[derive(Debug)]
pub struct Task {
    /// Such as `sink NAME`.
    pub name: String,
    /// Ends when it is told to stop, or the journal has stopped.
    pub handle: JoinHandle<Result<(), JournalError>>,
}

/// Every sink, made and checked, but not started.
pub struct Built(Vec<One>);

struct One {
    index: usize,
    receiver: Receiver,
    encoder: Encoder,
    sink: super::AnySink,
}

// === impl Built ===

impl Built {
    /// Makes the sinks of `receivers`. Opens nothing but TLS files.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub fn new(receivers: &[Receiver]) -> Result<Self, Vec<SinkError>> {
        let (mut sinks, mut errors) = (Vec::new(), Vec::new());
        for (index, receiver) in receivers.iter().enumerate() {
            match build(receiver) {
                Ok(sink) => sinks.push(One {
                    index,
                    receiver: receiver.clone(),
                    encoder: Encoder::new(&receiver.body),
                    sink,
                }),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self(sinks)) } else { Err(errors) }
    }
}

/// Where to ask each sink for its dead letters again, by the receiver's name.
pub type Orders = HashMap<String, mpsc::Sender<Letters>>;

/// Orders that wait for a sink in an attempt: people give them.
const ORDERS: usize = 16;

/// Says which cursors belong to no receiver: renamed, one begins anew.
///
/// # Errors
/// Where the journal cannot be asked.
pub async fn warn_of_strangers<J: Journal>(journal: &J, receivers: &[Receiver]) -> Result<(), JournalError> {
    for (name, cursor) in journal.cursors().await? {
        let Some(name) = name.strip_prefix("sink/") else { continue };
        if !receivers.iter().any(|receiver| receiver.name == name) {
            tracing::warn!(
                receiver = name,
                cursor = cursor.0,
                "records were delivered to a receiver that is no longer configured; under another name it begins anew, at its `start`"
            );
        }
    }
    Ok(())
}

/// Starts them, and says where orders for each are taken. To be called within a tokio runtime.
pub fn spawn_all<J: Journal>(sinks: Built, context: &Context<J>) -> (Vec<Task>, Orders) {
    let mut orders = Orders::new();
    let Context { journal, router, cluster, metrics, stop, drained } = context;
    let plain = sinks.0.iter().map(|one| one.encoder.is_plain()).collect();
    let dispatcher = Arc::new(Dispatcher::new(Arc::clone(router), Arc::clone(cluster), plain));
    // Before anything more is taken.
    let now = *journal.head().borrow();
    let spawn = |One { index, receiver, encoder, sink }: One| {
        let order_of = receiver.order();
        let Receiver { name, delivery, .. } = receiver;
        let (order, replays) = mpsc::channel(ORDERS);
        orders.insert(name.clone(), order);
        let delivering = Loop {
            metrics: metrics.sink(&name),
            journal: journal.clone(),
            dispatcher: Arc::clone(&dispatcher),
            receiver: index,
            start: match delivery.start {
                Start::Beginning => Position(0),
                Start::Now => now,
            },
            tolerance: delivery.dead_letter_after,
            order: order_of,
            live_after: LIVE_AFTER,
            replays,
            drained: drained.clone(),
            stop_within: STOP_WITHIN,
            name: name.clone(),
            encoder,
            sink,
        };
        Task { name: format!("sink {name}"), handle: tokio::spawn(delivering.run(stop.clone())) }
    };
    let tasks = sinks.0.into_iter().map(spawn).collect();
    (tasks, orders)
}

#[cfg(test)]
mod tests;

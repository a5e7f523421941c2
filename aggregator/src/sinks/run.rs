//! Starts the loops of all configured sinks, each in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use nodetap_wire::face::Face;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::delivery::doubt::TOLERANCE;
use super::delivery::{Loop, Start};
use super::encode::Encoder;
use super::{Metrics, SinkError, build};
use crate::config::receivers::Receiver;
use crate::journal::{Journal, JournalError};
use crate::route::Router;

/// How long a batch in flight may go on once the aggregator is to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

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
    /// Where a sink without a cursor starts.
    pub start: Start,
    /// Ends them all: batches in flight have 5 s.
    pub stop: CancellationToken,
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
pub struct Built(Vec<(usize, String, Encoder, super::AnySink)>);

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
                Ok(sink) => sinks.push((index, receiver.name.clone(), Encoder::new(&receiver.body), sink)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self(sinks)) } else { Err(errors) }
    }
}

/// Starts them. To be called within a tokio runtime.
pub fn spawn_all<J: Journal>(sinks: Built, context: &Context<J>) -> Vec<Task> {
    let Context { journal, router, cluster, metrics, start, stop } = context;
    let spawn = |(index, name, encoder, sink): (usize, String, Encoder, super::AnySink)| {
        let router = Arc::clone(router);
        let copies =
            move |face: &Face<'_>| router.deliveries(face).into_iter().filter(|to| to.0 == index).count();
        let delivering = Loop {
            metrics: metrics.sink(&name),
            journal: journal.clone(),
            cluster: Arc::clone(cluster),
            start: *start,
            tolerance: TOLERANCE,
            stop_within: STOP_WITHIN,
            name: name.clone(),
            copies,
            encoder,
            sink,
        };
        Task { name: format!("sink {name}"), handle: tokio::spawn(delivering.run(stop.clone())) }
    };
    sinks.0.into_iter().map(spawn).collect()
}

#[cfg(test)]
mod tests;

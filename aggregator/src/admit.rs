//! Who may connect, and what it may say.
//!
//! An agent is who its certificate says it is: TLS 1.3 with a certificate on both sides, the agent's naming its node. What it
//! sends is checked record by record, and acknowledged once it is durable.

pub mod check;
pub mod connection;
mod incoming;
pub mod metrics;
mod service;
mod stream;
pub mod tls;
mod turns;

use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use self::connection::{Accepted, Connection};
use self::incoming::{ROOMY_WINDOW, WINDOW};
use self::metrics::Metrics;
use self::service::Link;
use self::tls::Credentials;
use crate::assign::Assigner;
use crate::journal::Journal;

/// How many and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Agents connected at once: Kubernetes supports clusters of a third of this.
    pub agents: usize,
    /// Handshakes at once: each takes a millisecond of a core. The others wait for their turn.
    pub handshakes: usize,
    /// For one handshake, from its turn on: an agent that said nothing until then has nothing to say.
    pub handshake: Duration,
    /// For its turn: no agent waits for longer, and one that has given up is not served.
    pub turn: Duration,
    /// How long an agent may be silent before it is asked for a sign of life. With the time that it has to answer, and the
    /// second that a holder has to come back, this makes the 5 s after which a holder is replaced.
    pub keep_alive: Duration,
    /// How long it has to answer.
    pub keep_alive_timeout: Duration,
}

/// Streams of one connection: an agent has one, and for a moment a second.
const STREAMS: u32 = 4;

/// How long streams have to end when the aggregator stops.
const FAREWELL: Duration = Duration::from_secs(2);

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            agents: 15_000,
            handshakes: 64,
            handshake: Duration::from_secs(5),
            turn: Duration::from_secs(20),
            keep_alive: Duration::from_millis(1_500),
            keep_alive_timeout: Duration::from_millis(1_500),
        }
    }
}

/// Serves agents on a listener until it is told to stop.
///
/// # Errors
/// Where the server cannot go on.
pub async fn run<J: Journal>(
    listener: TcpListener,
    credentials: Credentials,
    limits: Limits,
    journal: J,
    assigner: Assigner,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let Accepted { roomy, others } =
        connection::accept(listener, credentials.clone(), limits, metrics.clone(), stop.clone()).await;
    let admission = stream::admission(journal, assigner, metrics, stop.clone());
    let serve = |window, mut connections: mpsc::Receiver<io::Result<Connection>>| {
        let incoming = futures_util::stream::poll_fn(move |context| connections.poll_recv(context));
        Server::builder()
            .http2_keepalive_interval(Some(limits.keep_alive))
            .http2_keepalive_timeout(Some(limits.keep_alive_timeout))
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(window)
            .initial_connection_window_size(STREAMS * window)
            .add_service(Link::new(admission.clone()))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned())
    };
    let serving = async { tokio::try_join!(serve(ROOMY_WINDOW, roomy), serve(WINDOW, others)) };
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = serving => served.map(|_| ()),
        () = credentials.follow() => Ok(()),
        // An agent that does not let go of its connection must not hold up the end.
        () = stopped => Ok(()),
    }
}

//! One connection to the aggregator: TCP, TLS, HTTP/2, and the stream on it, with errors that say what is wrong.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use nodetap_wire::{FromAgent, Hello, ToAgent, from_agent};
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use super::metrics::Reason;
use super::tls::Credentials;

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("nodetap.v1.Link");
}

use generated::link_client::LinkClient;

/// For TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For TLS; a node across a slow link needs two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes in a row that were given up after which the time for the next one no longer doubles: 20 s.
const MOST_DOUBLED: u32 = 2;

/// For the aggregator's answer to Hello: it may be reading the journal's checkpoints.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a silent aggregator goes without being asked for a sign of life, and how long it has for it.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// What a handshake that takes too long did not finish.
const HANDSHAKE: &str = "the TLS handshake";

/// Frames between the link and HTTP/2: the window of batches, and reports beside them.
pub(super) const OUTGOING: usize = super::WINDOW + 16;

/// Why there is no stream, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No TCP connection.
    #[error(
        "cannot connect to the aggregator at {address}: {source}; is --aggregator right, and does it listen?"
    )]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing came for too long.
    #[error("the aggregator at {address} did not finish {what} within {seconds} s")]
    Timeout {
        /// Where it is.
        address: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        seconds: u64,
    },
    /// No TLS connection.
    #[error(
        "no TLS with the aggregator at {address}: {source}; do --tls-ca and --aggregator-name fit its certificate?"
    )]
    Tls {
        /// Where it is.
        address: String,
        /// What the TLS library says.
        source: io::Error,
    },
    /// The aggregator sent an alert about this agent's certificate.
    #[error(
        "the aggregator refused this agent's certificate ({alert:?}): was it issued by the aggregator's CA for a client, and is it in date?"
    )]
    CertificateRefused {
        /// TLS's word for it.
        alert: AlertDescription,
    },
    /// The aggregator ended the stream and said why.
    #[error("the aggregator ended the stream ({code:?}): {message}")]
    Ended {
        /// gRPC's word for it.
        code: Code,
        /// The aggregator's.
        message: String,
    },
    /// The connection broke.
    #[error("the connection to the aggregator broke: {0}")]
    Cut(String),
    /// It acknowledged what was never sent.
    #[error(transparent)]
    NotSent(#[from] crate::outbox::queue::NotSent),
    /// `--aggregator` is not an address.
    #[error("the aggregator's address `{0}` is not HOST:PORT: set --aggregator")]
    Address(String),
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) outgoing: mpsc::Sender<FromAgent>,
    incoming: Streaming<ToAgent>,
    trouble: Trouble,
}

/// The TLS error that broke a connection: HTTP/2 keeps only its words.
#[derive(Clone, Debug, Default)]
struct Trouble(Arc<OnceLock<rustls::Error>>);

/// A connection that remembers the TLS error that broke it.
struct Watched {
    inner: TlsStream<TcpStream>,
    trouble: Trouble,
}

/// Gives out one connection, once: reconnecting is the link's business.
#[derive(Clone)]
struct Once(Arc<Mutex<Option<Watched>>>);

/// Connects, says hello, and has the stream accepted.
///
/// `given_up`: handshakes in a row that took too long. An aggregator that shakes hands with thousands at once on little CPU comes to
/// all of them only if they wait for longer, where those who give up and begin anew make work that is thrown away.
pub(super) async fn open(
    address: String,
    credentials: Credentials,
    hello: Hello,
    given_up: u32,
) -> Result<Stream, LinkError> {
    let timeout = |what, after: Duration| LinkError::Timeout {
        address: address.clone(),
        what,
        seconds: after.as_secs(),
    };
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, dial(&address))
        .await
        .map_err(|_| timeout("connecting", CONNECT_TIMEOUT))??;
    let patience = patience(given_up);
    let io = tokio::time::timeout(patience, shake_hands(&address, &credentials, tcp))
        .await
        .map_err(|_| timeout(HANDSHAKE, patience))??;
    tokio::time::timeout(OPEN_TIMEOUT, greet(&address, io, hello))
        .await
        .map_err(|_| timeout("opening the stream", OPEN_TIMEOUT))?
}

fn patience(given_up: u32) -> Duration {
    HANDSHAKE_TIMEOUT * (1 << given_up.min(MOST_DOUBLED))
}

async fn dial(address: &str) -> Result<TcpStream, LinkError> {
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|source| LinkError::Unreachable { address: address.to_owned(), source })?;
    // Batches are written whole; to wait for more would only delay them.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    Ok(tcp)
}

async fn shake_hands(address: &str, credentials: &Credentials, tcp: TcpStream) -> Result<Watched, LinkError> {
    let inner = TlsConnector::from(credentials.config())
        .connect(credentials.server_name(), tcp)
        .await
        .map_err(|source| LinkError::Tls { address: address.to_owned(), source })?;
    Ok(Watched { inner, trouble: Trouble::default() })
}

async fn greet(address: &str, io: Watched, hello: Hello) -> Result<Stream, LinkError> {
    let trouble = io.trouble.clone();
    // The scheme is plain because TLS is below what tonic sees.
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| LinkError::Address(address.to_owned()))?
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector(Once(Arc::new(Mutex::new(Some(io)))))
        .await
        .map_err(|error| trouble.explain(|| LinkError::Cut(words(&error))))?;
    let (outgoing, mut frames) = mpsc::channel(OUTGOING);
    let hello = FromAgent { frame: Some(from_agent::Frame::Hello(hello)) };
    if outgoing.try_send(hello).is_err() {
        return Err(LinkError::Cut("no room for the first frame".to_owned()));
    }
    let frames = futures_util::stream::poll_fn(move |context| frames.poll_recv(context));
    let answer = LinkClient::new(channel).stream(frames).await;
    let incoming = answer.map_err(|status| trouble.explain(|| LinkError::of(&status)))?.into_inner();
    Ok(Stream { outgoing, incoming, trouble })
}

// === impl Stream ===

impl Stream {
    /// The next frame. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<ToAgent, LinkError> {
        match self.incoming.message().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(LinkError::Cut("the aggregator ended the stream".to_owned())),
            Err(status) => Err(self.trouble.explain(|| LinkError::of(&status))),
        }
    }
}

// === impl LinkError ===

impl LinkError {
    /// The aggregator took the connection, and had no time for a handshake.
    pub(super) fn is_late_handshake(&self) -> bool {
        matches!(self, Self::Timeout { what: HANDSHAKE, .. })
    }

    /// Under which label it is counted.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. } | Self::Address(_) => Reason::unreachable,
            Self::Timeout { .. } => Reason::timeout,
            Self::Tls { .. } => Reason::tls,
            Self::CertificateRefused { .. } => Reason::certificate_refused,
            Self::Ended { code: Code::Unavailable, .. } => Reason::unavailable,
            Self::Ended { code: Code::Aborted, .. } => Reason::replaced,
            Self::Ended { .. } => Reason::refused,
            Self::Cut(_) | Self::NotSent(_) => Reason::cut,
        }
    }

    fn of(status: &Status) -> Self {
        // With a source it is tonic that speaks, of a broken connection; without one it is the aggregator.
        if std::error::Error::source(status).is_some() {
            return Self::Cut(words(status));
        }
        Self::Ended { code: status.code(), message: status.message().to_owned() }
    }
}

/// An error and what caused it, each said once.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
}

// === impl Trouble ===

impl Trouble {
    fn note(&self, error: &io::Error) {
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            // The first one is the cause.
            let _ = self.0.set(error.clone());
        }
    }

    fn explain(&self, otherwise: impl FnOnce() -> LinkError) -> LinkError {
        match self.0.get() {
            Some(rustls::Error::AlertReceived(alert)) => LinkError::CertificateRefused { alert: *alert },
            Some(other) => LinkError::Cut(other.to_string()),
            None => otherwise(),
        }
    }
}

// === impl Watched ===

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &polled {
            self.trouble.note(error);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

// === impl Once ===

impl Service<Uri> for Once {
    type Response = TokioIo<Watched>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let io = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let io = io.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection has ended"));
        Box::pin(std::future::ready(io.map(TokioIo::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_has_5_s_and_after_each_that_was_given_up_twice_as_long_up_to_20_s() {
        let seconds: Vec<_> = [0, 1, 2, 3, u32::MAX].map(|given_up| patience(given_up).as_secs()).into();
        assert_eq!(seconds, [5, 10, 20, 20, 20]);
    }

    #[test]
    fn only_a_handshake_that_takes_too_long_makes_the_next_one_wait_for_longer() {
        let late = |what| LinkError::Timeout { address: String::new(), what, seconds: 5 };
        assert!(late(HANDSHAKE).is_late_handshake());
        assert!(
            !late("connecting").is_late_handshake(),
            "packets are dropped: to wait for longer brings nothing"
        );
        assert!(!LinkError::Cut(String::new()).is_late_handshake());
    }
}

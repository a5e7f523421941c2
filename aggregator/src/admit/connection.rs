//! Connections of agents: TCP, TLS with a certificate on both sides, and the node that the agent's names.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nodetap_wire::tls::{NodeError, node_of};
use rustls::CertificateError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::Limits;
use super::incoming::ROOMY;
use super::metrics::{ConnectionReason, Metrics, Waits};
use super::tls::Credentials;

/// Connections whose handshake is done and that the server has not taken yet; it takes them at once.
const ACCEPTED: usize = 64;

/// After an error of the listener, such as too many open files: until some of them are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long a refused agent has to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The node that the certificate names.
    pub node: Arc<str>,
    /// From where it connected.
    pub address: SocketAddr,
}

/// A connection of an agent whose certificate was checked.
#[derive(Debug)]
pub struct Connection {
    inner: TlsStream<TcpStream>,
    peer: Peer,
    /// Its place among the agents.
    _place: OwnedSemaphorePermit,
    /// Its place among those with a roomy window.
    roomy: Option<OwnedSemaphorePermit>,
}

/// Connections that are to be served.
pub(super) struct Accepted {
    /// With [`ROOMY_WINDOW`](super::incoming::ROOMY_WINDOW).
    pub(super) roomy: mpsc::Receiver<io::Result<Connection>>,
    /// With [`WINDOW`](super::incoming::WINDOW).
    pub(super) others: mpsc::Receiver<io::Result<Connection>>,
}

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("no TLS within {0:?}")]
    Timeout(Duration),
    #[error("its turn did not come within {0:?}: the aggregator has too little CPU for so many at once")]
    NoTurn(Duration),
    #[error("the agent gave up before its turn came")]
    GaveUp,
    #[error("{0}")]
    Node(#[from] NodeError),
    #[error("{0} agents are connected, which is as many as are admitted")]
    TooMany(usize),
}

/// Accepts connections until it is told to stop.
pub(super) async fn accept(
    listener: TcpListener,
    credentials: Credentials,
    limits: Limits,
    metrics: Metrics,
    stop: CancellationToken,
) -> Accepted {
    let (roomy, accepted_roomy) = mpsc::channel(ACCEPTED);
    let (others, accepted_others) = mpsc::channel(ACCEPTED);
    let windows = Arc::new(Semaphore::new(ROOMY));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let places = Arc::new(Semaphore::new(limits.agents));
    let accepting = async move {
        loop {
            let Some((tcp, address)) = next(&listener, &metrics).await else { continue };
            let refuse = move |metrics: &Metrics, refused: &Refused| {
                metrics.refuse(refused.reason());
                tracing::warn!(%address, error = %refused, "connection of an agent refused");
            };
            // Taken at once, so that those who wait for their turn are as many as agents may be, not as the kernel's queue holds.
            let Ok(place) = places.clone().try_acquire_owned() else {
                refuse(&metrics, &Refused::TooMany(limits.agents));
                continue;
            };
            let (credentials, metrics) = (credentials.clone(), metrics.clone());
            let (roomy, others) = (roomy.clone(), others.clone());
            let (windows, handshakes) = (windows.clone(), handshakes.clone());
            tokio::spawn(async move {
                let shaken = async {
                    let turn = turn(&tcp, &handshakes, limits, &metrics).await?;
                    let _counted = Waits::among(&metrics.shaking);
                    shake_hands(tcp, address, &credentials, (place, turn), limits).await
                };
                match shaken.await {
                    Ok(mut connection) => {
                        connection.roomy = windows.try_acquire_owned().ok();
                        let accepted = if connection.roomy.is_some() { roomy } else { others };
                        // Where nobody receives, the aggregator is stopping.
                        drop(accepted.send(Ok(connection)).await);
                    }
                    Err(refused) => refuse(&metrics, &refused),
                }
            });
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
    });
    Accepted { roomy: accepted_roomy, others: accepted_others }
}

/// The next connection; none: there was none to be had.
async fn next(listener: &TcpListener, metrics: &Metrics) -> Option<(TcpStream, SocketAddr)> {
    let accepting = listener.accept();
    let accepted = match metrics.accept_failing.get() {
        0 => accepting.await,
        _ => match tokio::time::timeout(ACCEPT_PAUSE, accepting).await {
            Ok(accepted) => accepted,
            // Nobody waits any more.
            Err(_) => {
                works(metrics);
                return None;
            }
        },
    };
    match accepted {
        Ok(connection) => {
            works(metrics);
            Some(connection)
        }
        Err(error) => {
            failed(metrics, &error);
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// No connection could be accepted: said once, until one can.
fn failed(metrics: &Metrics, error: &io::Error) {
    metrics.accept_failures.inc();
    // An agent that was gone before it was looked at.
    let is_gone = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !is_gone && metrics.accept_failing.set(1) == 0 {
        tracing::error!(%error, "connections of agents cannot be accepted");
    }
}

fn works(metrics: &Metrics) {
    if metrics.accept_failing.set(0) > 0 {
        tracing::info!("connections of agents can be accepted again");
    }
}

/// Waits for a turn to shake hands, first come first served. For one who has given up meanwhile nothing is calculated.
async fn turn(
    tcp: &TcpStream,
    handshakes: &Arc<Semaphore>,
    limits: Limits,
    metrics: &Metrics,
) -> Result<OwnedSemaphorePermit, Refused> {
    // Whoever says nothing takes nobody's turn.
    let spoke = tokio::time::timeout(limits.handshake, tcp.peek(&mut [0])).await;
    if spoke.map_err(|_| Refused::Timeout(limits.handshake))?.map_err(Refused::Tls)? == 0 {
        return Err(Refused::GaveUp);
    }
    let queued = Waits::among(&metrics.queued);
    let turn = tokio::time::timeout(limits.turn, handshakes.clone().acquire_owned()).await;
    // Nobody closes the semaphore.
    let turn = turn.ok().and_then(Result::ok).ok_or(Refused::NoTurn(limits.turn))?;
    drop(queued);
    let state = tcp.ready(Interest::READABLE).await.map_err(Refused::Tls)?;
    if state.is_read_closed() { Err(Refused::GaveUp) } else { Ok(turn) }
}

async fn shake_hands(
    tcp: TcpStream,
    address: SocketAddr,
    credentials: &Credentials,
    (place, turn): (OwnedSemaphorePermit, OwnedSemaphorePermit),
    limits: Limits,
) -> Result<Connection, Refused> {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let handshake = TlsAcceptor::from(credentials.config()).accept(tcp).into_fallible();
    let inner = match tokio::time::timeout(limits.handshake, handshake).await {
        Err(_) => return Err(Refused::Timeout(limits.handshake)),
        Ok(Ok(inner)) => inner,
        Ok(Err((error, tcp))) => {
            drop(turn);
            linger(tcp).await;
            return Err(Refused::Tls(error));
        }
    };
    let certificates = inner.get_ref().1.peer_certificates().unwrap_or_default();
    let node = certificates.first().ok_or(NodeError::None).and_then(node_of)?;
    Ok(Connection { inner, peer: Peer { node: node.into(), address }, _place: place, roomy: None })
}

/// Closing while bytes are unread would reset the connection, and the alert would be lost on the way.
async fn linger(mut tcp: TcpStream) {
    let reading = async {
        tcp.shutdown().await?;
        let mut sink = [0; 4_096];
        while tcp.read(&mut sink).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // However it ends, the connection is closed.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

// === impl Refused ===

impl Refused {
    fn reason(&self) -> ConnectionReason {
        let error = match self {
            Self::Timeout(_) => return ConnectionReason::timeout,
            Self::NoTurn(_) => return ConnectionReason::no_turn,
            Self::GaveUp => return ConnectionReason::gave_up,
            Self::Node(_) => return ConnectionReason::certificate_without_node,
            Self::TooMany(_) => return ConnectionReason::too_many,
            Self::Tls(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        };
        match error {
            Some(rustls::Error::NoCertificatesPresented) => ConnectionReason::certificate_missing,
            Some(rustls::Error::InvalidCertificate(error)) => match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    ConnectionReason::certificate_expired
                }
                // The latter where another CA has the same name, as one that was made anew does.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    ConnectionReason::certificate_unknown_ca
                }
                _ => ConnectionReason::certificate_bad,
            },
            _ => ConnectionReason::tls,
        }
    }
}

// === impl Connection ===

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
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

#[cfg(test)]
mod tests;

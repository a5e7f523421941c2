//! Connections of agents: TCP, TLS with a certificate on both sides, and the node that the agent's names.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nodetap_wire::tls::{NodeError, node_of};
use rustls::CertificateError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::Limits;
use super::metrics::{ConnectionReason, Metrics};
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
}

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("no TLS within {0:?}")]
    Timeout(Duration),
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
) -> mpsc::Receiver<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let places = Arc::new(Semaphore::new(limits.agents));
    let accepting = async move {
        loop {
            // While as many shake hands as may, the next ones wait in the kernel's queue.
            let Ok(handshake) = handshakes.clone().acquire_owned().await else { return };
            let (tcp, address) = match listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (credentials, places, metrics) = (credentials.clone(), places.clone(), metrics.clone());
            let accepted = accepted.clone();
            tokio::spawn(async move {
                match shake_hands(tcp, address, &credentials, places, limits).await {
                    // Where nobody receives, the aggregator is stopping.
                    Ok(connection) => drop(accepted.send(Ok(connection)).await),
                    Err(refused) => {
                        metrics.refuse(refused.reason());
                        tracing::warn!(%address, error = %refused, "connection of an agent refused");
                    }
                }
                drop(handshake);
            });
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
    });
    connections
}

async fn shake_hands(
    tcp: TcpStream,
    address: SocketAddr,
    credentials: &Credentials,
    places: Arc<Semaphore>,
    limits: Limits,
) -> Result<Connection, Refused> {
    let place = places.try_acquire_owned().map_err(|_| Refused::TooMany(limits.agents))?;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let handshake = TlsAcceptor::from(credentials.config()).accept(tcp).into_fallible();
    let inner = match tokio::time::timeout(limits.handshake, handshake).await {
        Err(_) => return Err(Refused::Timeout(limits.handshake)),
        Ok(Ok(inner)) => inner,
        Ok(Err((error, tcp))) => {
            linger(tcp).await;
            return Err(Refused::Tls(error));
        }
    };
    let certificates = inner.get_ref().1.peer_certificates().unwrap_or_default();
    let node = certificates.first().ok_or(NodeError::None).and_then(node_of)?;
    Ok(Connection { inner, peer: Peer { node: node.into(), address }, _place: place })
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
                CertificateError::UnknownIssuer => ConnectionReason::certificate_unknown_ca,
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

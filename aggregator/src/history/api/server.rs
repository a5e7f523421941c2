//! Connections to the history: TCP, TLS, HTTP/1.1.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Service;
use super::metrics::{ConnectionLabel, NoConnection};
use super::stalled::Stalling;
use super::tls::Credentials;
use crate::history::History;
use crate::journal::Journal;

/// A request's head has this long to come, and so an idle connection to stay.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest head of a request.
const MAX_HEAD: usize = 32 << 10;

/// How long a reader may take nothing of an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// After an error of the listener, such as too many open files: until some of them are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long answers have to end when the aggregator stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves until told to stop.
pub(super) async fn serve<H: History + Journal>(
    listener: TcpListener,
    credentials: Credentials,
    service: Arc<Service<H>>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(service.limits.connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the history");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            service.refuse(NoConnection::too_many);
            continue;
        };
        let (service, stop) = (service.clone(), stop.clone());
        let acceptor = TlsAcceptor::from(credentials.get().config.clone());
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = converse(tcp, acceptor, service, stop).await {
                tracing::debug!(%address, error, "a connection to the history ended");
            }
        });
    }
    connections.close();
    // Who does not let go of its connection must not hold up the end.
    let _ = tokio::time::timeout(FAREWELL, connections.wait()).await;
}

async fn converse<H: History + Journal>(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    service: Arc<Service<H>>,
    stop: CancellationToken,
) -> Result<(), String> {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let handshake = tokio::time::timeout(service.limits.handshake, acceptor.accept(tcp));
    let tls = tokio::select! {
        shaken = handshake => match shaken {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                service.refuse(NoConnection::tls);
                return Err(error.to_string());
            }
            Err(_) => {
                service.refuse(NoConnection::timeout);
                return Err("no TLS in time".to_owned());
            }
        },
        () = stop.cancelled() => return Ok(()),
    };
    let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = Arc::new(certificates.first().map(|certificate| certificate.clone().into_owned()));
    let answering = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (service, certificate) = (service.clone(), certificate.clone());
        async move {
            let (parts, _) = request.into_parts();
            Ok::<_, Infallible>(service.answer(&parts, certificate.as_ref().as_ref()).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Stalling::new(tls, WRITE_PATIENCE)), answering);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(|error| error.to_string())
}

impl<H> Service<H> {
    fn refuse(&self, reason: NoConnection) {
        self.metrics.connections.get_or_create(&ConnectionLabel { reason }).inc();
    }
}

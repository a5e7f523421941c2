//! An HTTPS server on loopback: HTTP/1.1 and HTTP/2, as many connections as come, all broken at once when told.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A body that may break.
pub(crate) type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// Binds a free port on loopback.
pub(crate) async fn bind() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until stopped. While `down`, connections are broken and none is taken. Without `tls`, plain HTTP.
pub(crate) async fn serve<F, R>(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    mut down: watch::Receiver<bool>,
    stop: CancellationToken,
    handle: F,
) where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = stop.child_token();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = down.changed() => {
                if changed.is_err() {
                    return;
                }
                if *down.borrow_and_update() {
                    connections.cancel();
                    connections = stop.child_token();
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if !*down.borrow() => {
                    let connection = connection(stream, tls.clone(), handle.clone());
                    let stop = connections.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = connection => {}
                        }
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn connection<F, R>(stream: TcpStream, tls: Option<TlsAcceptor>, handle: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let answer = handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    stream.set_nodelay(true).ok();
    let builder = auto::Builder::new(TokioExecutor::new());
    let served = match tls {
        None => builder.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                return;
            }
        },
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

/// An answer in one piece.
pub(crate) fn answer(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    with_body(status, kind, body)
}

/// An answer that goes on.
pub(crate) fn streaming<E>(
    kind: &'static str,
    chunks: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response<Body>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let frames = chunks.map(|chunk| chunk.map(Frame::data).map_err(anyhow::Error::from));
    with_body(200, kind, StreamBody::new(frames).boxed_unsync())
}

fn with_body(status: u16, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// The value of `Authorization: Bearer`.
pub(crate) fn bearer<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// The parameters of a query, decoded.
pub(crate) fn query(uri: &http::Uri) -> std::collections::BTreeMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

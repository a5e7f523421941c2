//! What the command line asks of a running aggregator, over a socket in the journal's folder.
//!
//! A socket in the filesystem and not a port: who may read and write the journal's files may do this, and nobody else can reach
//! it. HTTP/1.1, an order a request; bodies are JSON.

pub mod client;

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, KeptLetter, Letters, Position};
use crate::sinks::Orders;
use crate::sinks::delivery::consumer;

/// The socket's name in the journal's folder.
pub const SOCKET: &str = "admin.sock";
/// Letters in one answer.
const PAGE: usize = 500;
/// Of an order.
const MAX_BODY: usize = 16 << 10;
/// People at one time.
const MAX_CONNECTIONS: usize = 8;
/// For one order, answer included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Which dead letters are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// Of this receiver.
    pub sink: Option<String>,
    /// Of this record.
    pub position: Option<u64>,
    /// With this in their reason.
    pub reason: Option<String>,
    /// Those that follow this one.
    pub after: Option<(String, u64)>,
}

/// A dead letter, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The receiver's name.
    pub sink: String,
    /// The record's place in the journal.
    pub position: u64,
    /// When it was refused: RFC 3339.
    pub at: String,
    /// Why, with what the sink answered.
    pub reason: String,
}

/// The socket, bound.
#[derive(Debug)]
pub struct Admin<J> {
    journal: J,
    orders: Orders,
}

/// Binds the socket in a folder of which this process holds the lock.
///
/// # Errors
/// As the filesystem has them: not every one knows sockets, and a path has 107 bytes at most.
pub fn bind(folder: &Path) -> std::io::Result<UnixListener> {
    let path = path(folder);
    // Of a process that is gone: the folder's lock is ours.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where the socket is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

// === impl Admin ===

impl<J: Journal> Admin<J> {
    /// Answers from this journal, and hands orders on to the sinks.
    pub fn new(journal: J, orders: Orders) -> Self {
        Self { journal, orders }
    }

    /// Serves until told to stop.
    pub async fn run(self, listener: UnixListener, stop: CancellationToken) {
        let this = Arc::new(self);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the command line");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            let (this, stop) = (Arc::clone(&this), stop.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let service = service_fn(move |request| {
                    let this = Arc::clone(&this);
                    async move { Ok::<_, Infallible>(this.answer(request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                let served = tokio::time::timeout(TIMEOUT, connection);
                // Whoever asked has gone or has taken too long: nothing is owed.
                let _ = stop.run_until_cancelled(served).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            return said(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        }
        let path = request.uri().path().to_owned();
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return said(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let which: Which = match serde_json::from_slice(&body) {
            Ok(which) => which,
            Err(error) => return said(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let answer = match path.as_str() {
            "/dead-letters/list" => self.list(which).await,
            "/dead-letters/replay" => self.replay(which).await,
            "/dead-letters/drop" => self.drop_letters(which).await,
            _ => return said(StatusCode::NOT_FOUND, "there are /dead-letters/list, replay and drop"),
        };
        answer.unwrap_or_else(|refused| said(StatusCode::CONFLICT, &refused))
    }

    async fn list(&self, which: Which) -> Result<Response<Full<Bytes>>, String> {
        let letters = self.journal.dead_letters(which.letters(), PAGE).await;
        let letters = letters.map_err(|error| error.to_string())?;
        let shown: Vec<Shown> = letters.into_iter().map(Shown::from).collect();
        Ok(Response::new(Full::from(serde_json::to_vec(&shown).map_err(|error| error.to_string())?)))
    }

    async fn replay(&self, which: Which) -> Result<Response<Full<Bytes>>, String> {
        let sinks: Vec<String> = match &which.sink {
            Some(sink) => vec![sink.clone()],
            None => self.orders.keys().cloned().collect(),
        };
        for sink in sinks {
            let order = self.orders.get(&sink).ok_or_else(|| {
                let known = self.orders.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("there is no receiver {sink:?}; there are {known}")
            })?;
            let letters = Letters { consumer: None, ..which.letters() };
            order.try_send(letters).map_err(|_| {
                format!("receiver {sink:?} has as many orders as it takes; wait until it has done some")
            })?;
        }
        Ok(said(StatusCode::ACCEPTED, "ordered"))
    }

    async fn drop_letters(&self, which: Which) -> Result<Response<Full<Bytes>>, String> {
        let letters = which.letters();
        let dropped = self.journal.forget_dead_letters(letters).await.map_err(|error| error.to_string())?;
        tracing::warn!(letters = dropped, ?which, "dead letters dropped by order");
        Ok(said(StatusCode::OK, &format!("dropped {dropped}")))
    }
}

fn said(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}

// === impl Which ===

impl Which {
    fn letters(&self) -> Letters {
        Letters {
            consumer: self.sink.as_deref().map(consumer),
            position: self.position.map(Position),
            reason: self.reason.clone(),
            before_ns: None,
            after: self.after.as_ref().map(|(sink, position)| (consumer(sink), Position(*position))),
        }
    }
}

// === impl Shown ===

impl From<KeptLetter> for Shown {
    fn from(kept: KeptLetter) -> Self {
        let KeptLetter { consumer, letter, at_ns } = kept;
        Self {
            sink: consumer.strip_prefix("sink/").map_or(consumer.clone(), str::to_owned),
            position: letter.position.0,
            at: nodetap_wire::time::format_ns(at_ns).unwrap_or_default(),
            reason: letter.reason,
        }
    }
}

#[cfg(test)]
mod tests;
